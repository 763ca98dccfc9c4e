//! What to run, and what came of it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use blink_wire::{Spawn, TtySize};
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::output::Output;

/// Captured output has this limit unless told otherwise: larger than what people mean to capture, and small enough
/// for many captures at once.
pub const DEFAULT_OUTPUT_LIMIT_BYTES: u64 = 16 << 20;

/// What a program gets on its standard input.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Stdin {
    /// Nothing: it is at its end at once.
    #[default]
    Empty,
    /// These bytes, then the end.
    Bytes(Bytes),
    /// What is written to [`Process::take_stdin`](crate::Process::take_stdin); only for spawned processes.
    Piped,
}

/// A program to run in a sandbox.
///
/// The program is started directly, without a shell: arguments arrive as they are.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// let command = blink_core::Command::new("python3").args(["-c", "print(6 * 7)"]).timeout(Duration::from_secs(10));
/// # let _ = command;
/// ```
#[derive(Debug, Clone)]
pub struct Command {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    current_dir: Option<OsString>,
    user: Option<String>,
    pub(crate) stdin: Stdin,
    pub(crate) timeout: Option<Duration>,
    pub(crate) output_limit_bytes: u64,
    pty: Option<TtySize>,
    key: Option<String>,
    /// What it is, where it is code of a language.
    code: Option<(&'static str, OsString)>,
}

impl Command {
    /// Runs `program`, which is looked up in the sandbox's `PATH` if it has no slash.
    pub fn new(program: impl Into<OsString>) -> Command {
        Command {
            argv: vec![program.into()],
            env: Vec::new(),
            current_dir: None,
            user: None,
            stdin: Stdin::Empty,
            timeout: None,
            output_limit_bytes: DEFAULT_OUTPUT_LIMIT_BYTES,
            pty: None,
            key: None,
            code: None,
        }
    }

    /// Runs a script in the sandbox's `/bin/sh`.
    pub fn shell(script: impl Into<OsString>) -> Command {
        Command::new("/bin/sh").arg("-c").arg(script)
    }

    /// Runs code in a language: `python`, `javascript` (`node`), `ruby`, `perl`, `sh` or `bash`, by the sandbox's own
    /// interpreter of it. The code is an argument of the interpreter's, so that it can be 128 KiB at most, and the
    /// program's standard input is its own.
    ///
    /// # Errors
    /// `InvalidArgument` for another language, and for code that is too long.
    ///
    /// # Examples
    ///
    /// ```
    /// let command = blink_core::Command::code("python", "print(6 * 7)")?;
    /// # let _ = command;
    /// # Ok::<_, blink_core::Error>(())
    /// ```
    pub fn code(language: &str, code: impl Into<OsString>) -> Result<Command> {
        /// What Linux gives one argument, with the byte that ends it.
        const LONGEST_ARGUMENT: usize = 128 << 10;
        let (language, interpreter, option) = match language {
            "python" => ("python", "python3", "-c"),
            "javascript" | "node" => ("javascript", "node", "-e"),
            "ruby" => ("ruby", "ruby", "-e"),
            "perl" => ("perl", "perl", "-e"),
            "sh" => ("sh", "sh", "-c"),
            "bash" => ("bash", "bash", "-c"),
            _ => {
                return Err(Error::invalid(format!(
                    "code in {language:?} cannot be run; choose python, javascript, ruby, perl, sh or bash, or run the \
                     interpreter as a command"
                )));
            }
        };
        let code = code.into();
        if code.len() >= LONGEST_ARGUMENT {
            return Err(Error::invalid(format!(
                "{} bytes of code are more than an argument can hold; write them to a file of the sandbox, and run that",
                code.len()
            )));
        }
        let mut command = Command::new(interpreter).arg(option).arg(&code);
        command.code = Some((language, code));
        Ok(command)
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Command {
        self.argv.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Command {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable, over the sandbox's own.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Command {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs in this folder of the sandbox; otherwise in the sandbox's, the image's or the user's.
    pub fn current_dir(mut self, dir: impl Into<OsString>) -> Command {
        self.current_dir = Some(dir.into());
        self
    }

    /// Runs as this user of the sandbox: `name`, `id`, `name:group` or `id:id`; otherwise the sandbox's.
    pub fn user(mut self, user: impl Into<String>) -> Command {
        self.user = Some(user.into());
        self
    }

    /// What it gets on its standard input; nothing by default.
    pub fn stdin(mut self, stdin: Stdin) -> Command {
        self.stdin = stdin;
        self
    }

    /// Gives it these bytes on its standard input.
    pub fn stdin_bytes(self, bytes: impl Into<Bytes>) -> Command {
        self.stdin(Stdin::Bytes(bytes.into()))
    }

    /// Kills it and everything that it started after this time, also what has left its process group or session.
    /// No limit by default.
    pub fn timeout(mut self, timeout: Duration) -> Command {
        self.timeout = Some(timeout);
        self
    }

    /// Captures at most so many bytes of each output stream: the first ones. 16 MiB by default.
    pub fn output_limit_bytes(mut self, limit: u64) -> Command {
        self.output_limit_bytes = limit;
        self
    }

    /// Gives it a terminal of this size; its output is then all standard output.
    pub fn pty(mut self, rows: u16, cols: u16) -> Command {
        self.pty = Some(TtySize { rows, cols });
        self
    }

    /// Makes a repeated spawn harmless: a second one with the same key attaches to the first one's process.
    pub fn key(mut self, key: impl Into<String>) -> Command {
        self.key = Some(key.into());
        self
    }

    /// The language and the code, where it is code.
    pub(crate) fn as_code(&self) -> Option<(&'static str, &OsStr)> {
        let (language, code) = self.code.as_ref()?;
        Some((language, code))
    }

    /// Whether it is an interpreter with code and no arguments, where and as whom the sandbox says, without a terminal or a key.
    pub(crate) fn is_plain(&self) -> bool {
        const WORDS: usize = 3;
        let is_own = self.current_dir.is_none() && self.user.is_none();
        let captures = !matches!(self.stdin, Stdin::Piped);
        self.argv.len() == WORDS && is_own && captures && self.pty.is_none() && self.key.is_none()
    }

    pub(crate) fn env_vars(&self) -> &[(OsString, OsString)] {
        &self.env
    }

    /// In words, as a message has it.
    pub(crate) fn shown(&self) -> String {
        let words = self.argv.iter().map(|word| word.to_string_lossy());
        words.collect::<Vec<_>>().join(" ")
    }

    /// The request for the agent, with what the sandbox says where the command does not.
    pub(crate) fn to_spawn(&self, defaults: &Defaults, keep: bool) -> Result<Spawn> {
        let argv: Vec<OsString> = self.argv.clone();
        if argv.first().is_none_or(|program| program.is_empty()) {
            return Err(Error::invalid(
                "the command is empty; name a program to run",
            ));
        }
        if let Some(arg) = argv.iter().find(|arg| arg.as_bytes().contains(&0)) {
            let shown = arg.to_string_lossy();
            return Err(Error::invalid(format!(
                "the argument {shown:?} holds a NUL byte, which no program can be given"
            )));
        }
        let mut env = defaults.env.clone();
        for (name, value) in &self.env {
            check_variable(name, value)?;
            set_variable(&mut env, name, value);
        }
        if self.pty.is_some() && !env.iter().any(|(name, _)| name == "TERM") {
            env.push(("TERM".into(), "xterm-256color".into()));
        }
        let current_dir = self.current_dir.as_ref().or(defaults.current_dir.as_ref());
        if let Some(dir) = current_dir
            .filter(|dir| !dir.as_bytes().starts_with(b"/") || dir.as_bytes().contains(&0))
        {
            return Err(Error::invalid(format!(
                "the working directory {dir:?} is not a path in the sandbox; begin it with /"
            )));
        }
        let timeout_ms = self.timeout.map(|timeout| {
            u64::try_from(timeout.as_millis())
                .unwrap_or(u64::MAX)
                .max(1)
        });
        Ok(Spawn {
            argv: argv.into_iter().map(|arg| arg.into_vec().into()).collect(),
            env: env
                .into_iter()
                .map(|(name, value)| (name.into_vec().into(), value.into_vec().into()))
                .collect(),
            current_dir: current_dir.map(|dir| dir.as_bytes().to_vec().into()),
            user: self.user.clone().or_else(|| defaults.user.clone()),
            pty: self.pty,
            stdin: !matches!(self.stdin, Stdin::Empty),
            timeout_ms,
            output_limit_bytes: (!keep).then_some(self.output_limit_bytes),
            keep,
            key: self.key.clone(),
        })
    }
}

/// What a sandbox says where a command does not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) current_dir: Option<OsString>,
    pub(crate) user: Option<String>,
}

pub(crate) fn set_variable(env: &mut Vec<(OsString, OsString)>, name: &OsStr, value: &OsStr) {
    env.retain(|(known, _)| known != name);
    env.push((name.to_owned(), value.to_owned()));
}

pub(crate) fn check_variable(name: &OsStr, value: &OsStr) -> Result<()> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.as_bytes().contains(&b'=') {
        "holds a ="
    } else if name.as_bytes().contains(&0) || value.as_bytes().contains(&0) {
        "or its value holds a NUL byte"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!(
        "the name of the environment variable {name:?} {problem}"
    )))
}

impl Output {
    /// Turns a timeout or an exceeded limit into an error that carries this output.
    ///
    /// # Errors
    /// `Timeout` and `ResourceExhausted`.
    pub fn check_limits(self) -> Result<Output> {
        let error = match (&self.status.over_limit, self.status.timed_out) {
            (Some(limit), _) => Error::new(
                ErrorKind::ResourceExhausted,
                format!("the program was killed because the sandbox was over its {limit} limit"),
            ),
            (None, true) => {
                let after = self.status.duration;
                Error::new(
                    ErrorKind::Timeout,
                    format!("the program was killed after {after:.1?}, when its time was over"),
                )
            }
            (None, false) => return Ok(self),
        };
        Err(error.with_output(self))
    }
}
