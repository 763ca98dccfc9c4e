//! What is to run: a command of the image, or a script of this machine.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use blink_core::ErrorKind;

use crate::failure::Failure;

/// The kernel reads no more of a `#!` line than this.
const INTERPRETER_LINE_BYTES: usize = 256;

const ELF_MAGIC: &[u8] = b"\x7fELF";

/// What runs a script whose content does not say.
const ENDINGS: [(&str, &str); 3] = [("py", "python3"), ("sh", "sh"), ("js", "node")];

/// What is to run.
#[derive(Debug, PartialEq)]
pub(crate) enum Target {
    /// A command of the image.
    Command(Vec<OsString>),
    /// A file of this machine, which is copied into the sandbox.
    Script(Script),
}

/// A file of this machine.
#[derive(Debug, PartialEq)]
pub(crate) struct Script {
    pub(crate) host: PathBuf,
    pub(crate) name: OsString,
    /// What runs it, with its options; nothing where it runs by itself.
    pub(crate) interpreter: Vec<OsString>,
    pub(crate) args: Vec<OsString>,
}

impl Target {
    /// Finds out what the words behind the options mean. `argv` is the whole command line: only there the `--` is
    /// still to be seen.
    pub(crate) fn new(words: Vec<OsString>, argv: &[OsString]) -> Result<Target, Failure> {
        let behind_dashes = argv
            .len()
            .checked_sub(words.len() + 1)
            .is_some_and(|before| argv[before] == "--");
        let mut words = words.into_iter();
        match (words.next(), behind_dashes) {
            (None, true) => Err(Failure::invalid(
                "there is no command behind --; name one (this version cannot run an image's own command)",
            )),
            (None, false) => Err(Failure::invalid(
                "there is nothing to run; name a script of this machine, or a command of the image behind --",
            )),
            (Some(program), true) if program.is_empty() => {
                Err(Failure::invalid("the name of the command is empty"))
            }
            (Some(program), true) => Ok(Target::Command(
                std::iter::once(program).chain(words).collect(),
            )),
            (Some(path), false) => Script::open(path.into(), words.collect()).map(Target::Script),
        }
    }
}

impl Script {
    fn open(host: PathBuf, args: Vec<OsString>) -> Result<Script, Failure> {
        if host.as_os_str().is_empty() {
            return Err(Failure::invalid("the name of the script is empty"));
        }
        let shown = host.display();
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Failure::new(
                ErrorKind::NotFound,
                format!(
                    "there is no file {shown} on this machine; to run a command of the image, put it behind \
                     the options and --: -- {shown}"
                ),
            ),
            _ => Failure::invalid(format!("the script {shown} cannot be read: {error}")),
        };
        let metadata = std::fs::metadata(&host).map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(Failure::invalid(format!(
                "{shown} is a folder; name a script in it, or show it to a command with --mount {shown}:/work"
            )));
        }
        if !metadata.is_file() {
            return Err(Failure::invalid(format!(
                "{shown} is not a regular file; only such can be copied into a sandbox"
            )));
        }
        let mut start = Vec::new();
        std::fs::File::open(&host)
            .and_then(|file| {
                file.take(INTERPRETER_LINE_BYTES as u64)
                    .read_to_end(&mut start)
            })
            .map_err(unreadable)?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let Some(interpreter) = interpreter(&start, host.extension(), executable) else {
            return Err(Failure::invalid(format!(
                "it is not clear what runs {shown}: it is not executable, has no #! line, and does not end in .py, \
                 .sh or .js; make it executable, or give it a #! line"
            )));
        };
        // A path that names a regular file ends in its name.
        let name = host
            .file_name()
            .map_or_else(|| "script".into(), OsStr::to_owned);
        Ok(Script {
            name,
            interpreter,
            args,
            host,
        })
    }

    /// The argument vector, once it lies at `path` in the sandbox.
    pub(crate) fn argv(&self, path: &Path) -> Vec<OsString> {
        let mut argv = self.interpreter.clone();
        argv.push(path.into());
        argv.extend(self.args.iter().cloned());
        argv
    }
}

/// What runs a file that begins like this; nothing (but an answer) where it runs by itself.
fn interpreter(start: &[u8], ending: Option<&OsStr>, executable: bool) -> Option<Vec<OsString>> {
    if start.starts_with(ELF_MAGIC) {
        return Some(Vec::new());
    }
    if let Some(line) = start.strip_prefix(b"#!") {
        let named = interpreter_line(line);
        if executable || named.is_empty() {
            return Some(Vec::new());
        }
        return Some(named);
    }
    let by_ending = ENDINGS
        .iter()
        .find(|(known, _)| ending.is_some_and(|ending| ending == *known))
        .map(|(_, program)| vec![OsString::from(program)]);
    by_ending.or(executable.then(Vec::new))
}

/// A `#!` line as the kernel reads it: a program and, if anything is behind it, one argument.
fn interpreter_line(line: &[u8]) -> Vec<OsString> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.trim_ascii();
    let (program, argument) = match line.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
        Some(end) => (&line[..end], line[end..].trim_ascii()),
        None => (line, &line[..0]),
    };
    [program, argument]
        .into_iter()
        .filter(|word| !word.is_empty())
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ')
            .filter(|word| !word.is_empty())
            .map(Into::into)
            .collect()
    }

    fn found(start: &str, ending: &str, executable: bool) -> Option<Vec<OsString>> {
        interpreter(start.as_bytes(), Some(OsStr::new(ending)), executable)
    }

    #[test]
    fn what_runs_a_file() {
        assert_eq!(found("\x7fELF\x02", "", false), Some(vec![]));
        assert_eq!(found("#!/bin/sh\necho", "py", true), Some(vec![]));
        assert_eq!(
            found("#!/bin/sh\necho", "py", false),
            Some(words("/bin/sh"))
        );
        assert_eq!(
            found("#! /usr/bin/env -S python3 -u \r\nprint()", "", false),
            Some(vec!["/usr/bin/env".into(), "-S python3 -u".into()])
        );
        assert_eq!(found("print()", "py", false), Some(words("python3")));
        assert_eq!(found("print()", "py", true), Some(words("python3")));
        assert_eq!(found("", "sh", false), Some(words("sh")));
        assert_eq!(found("1", "js", false), Some(words("node")));
        assert_eq!(found("data", "txt", false), None);
        assert_eq!(found("data", "txt", true), Some(vec![]));
    }

    #[test]
    fn words_behind_the_dashes_are_a_command() {
        let target = |line: &str, count: usize| {
            let argv = words(line);
            let behind = argv[argv.len() - count..].to_vec();
            Target::new(behind, &argv)
        };
        assert_eq!(
            target("blink run -- ls -- x", 3).unwrap(),
            Target::Command(words("ls -- x"))
        );
        assert!(target("blink run --", 0).is_err());
        assert!(target("blink run", 0).is_err());
        // A script called ls, which does not exist.
        assert!(target("blink run ls -- x", 3).is_err());
    }
}
