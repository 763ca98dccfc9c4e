//! Interpreters that were started before there is code for them. Each is a process like any other, which waits for one program on
//! its standard input and becomes it: its output, its exit code and its timeout are the program's, and it is used once.

use std::ffi::OsString;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::command::{Command, Defaults, Stdin};
use crate::error::{Error, ErrorKind, Result};
use crate::output::Output;
use crate::process::Process;

/// What it says when it waits, before anything of the program's.
const READY: &[u8] = b"\x06";

/// How long an interpreter may take to start.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Waits for eight bytes with a length, and a program with its variables in JSON. What follows on standard input is the program's.
/// A program that raises looks as with `python3 -c`.
const PYTHON: &str = r#"
import sys, os, json
def _wait():
    def read(count):
        data = b""
        while len(data) < count:
            more = os.read(0, count - len(data))
            if not more:
                os._exit(0)
            data += more
        return data
    os.write(1, b"\x06")
    job = json.loads(read(int.from_bytes(read(8), "big")))
    os.environ.update(job["env"])
    def hook(kind, error, trace, system=sys, plain=sys.excepthook):
        system.excepthook = plain
        trace = trace and trace.tb_next
        plain(kind, error.with_traceback(trace), trace)
    sys.excepthook = hook
    for name in ("json", "os", "sys", "_wait"):
        globals().pop(name, None)
    return job["code"]
exec(compile(_wait(), "<string>", "exec"))
"#;

/// What has a timeout is kept from tracing others, and from being traced: an interpreter has one, so that the code's is as good as that
/// of code that is started for itself. No sandbox is as old.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Variables with these beginnings are read when an interpreter starts, and never again.
const READ_AT_START: [&str; 2] = ["PYTHON", "LD_"];

/// An interpreter that waits.
pub(crate) struct Waiting {
    language: &'static str,
    process: Process,
    /// What it has been started with, of what it reads only then.
    started_with: Vec<(OsString, OsString)>,
}

/// The languages that have one.
pub(crate) fn known(language: &str) -> Result<&'static str> {
    match language {
        "python" => Ok("python"),
        other => Err(Error::invalid(format!(
            "there is no interpreter for {other:?} that can wait for its code; there is one for python"
        ))),
    }
}

/// What starts an interpreter that waits.
pub(crate) fn command() -> Command {
    let command = Command::new("python3").args(["-c", PYTHON]);
    command.stdin(Stdin::Piped).timeout(LONGEST_WAIT)
}

impl Waiting {
    /// What [`command`] has started, once it waits.
    pub(crate) async fn of(
        mut process: Process,
        defaults: &Defaults,
        language: &'static str,
    ) -> Result<Waiting> {
        let failed = |why: String| {
            Error::new(
                ErrorKind::NotFound,
                format!("the interpreter of {language} could not be started in the sandbox: {why}"),
            )
        };
        let said = tokio::time::timeout(START_PATIENCE, process.next_output()).await;
        match said {
            Ok(Ok(Some(said))) if said == READY => Ok(Waiting {
                language,
                process,
                started_with: at_start(&defaults.env),
            }),
            Ok(Ok(_)) => {
                let output = process.wait_with_output().await?;
                Err(failed(format!(
                    "{}: {}",
                    output.status.shown(),
                    output.last_words()
                )))
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!(
                "it has not started within {START_PATIENCE:?}"
            ))),
        }
    }

    /// Whether it can become this program: nothing is asked for that had to be so at its start.
    pub(crate) fn can_be(&self, command: &Command, defaults: &Defaults) -> bool {
        let asked = command
            .as_code()
            .filter(|(language, _)| *language == self.language);
        let env = [&defaults.env[..], command.env_vars()].concat();
        asked.is_some_and(|(_, code)| code.to_str().is_some())
            && command.is_plain()
            && env
                .iter()
                .all(|(name, value)| name.to_str().is_some() && value.to_str().is_some())
            && at_start(&env) == self.started_with
    }

    /// Becomes a program that it [can be](Waiting::can_be), and runs to its end.
    pub(crate) async fn run(self, command: &Command, defaults: &Defaults) -> Result<Output> {
        let (_, code) = command
            .as_code()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the command is no code"))?;
        let mut env = serde_json::Map::new();
        for (name, value) in defaults.env.iter().chain(command.env_vars()) {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            env.insert(name.into_owned(), value.into());
        }
        let job = json!({ "code": code.to_string_lossy(), "env": env }).to_string();
        let length = u64::try_from(job.len()).unwrap_or(u64::MAX).to_be_bytes();
        let mut input = [&length[..], job.as_bytes()].concat();
        if let Stdin::Bytes(bytes) = &command.stdin {
            input.extend_from_slice(bytes);
        }
        let mut output = self
            .process
            .run_on(
                Bytes::from(input),
                command.timeout,
                command.output_limit_bytes,
            )
            .await?;
        output.stdout_bytes = output.stdout_bytes.saturating_sub(READY.len() as u64);
        output.stdout_bytes = output.stdout_bytes.max(output.stdout.len() as u64);
        Ok(output)
    }
}

fn at_start(env: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let read = |name: &OsString| {
        let name = name.to_string_lossy();
        READ_AT_START.iter().any(|begin| name.starts_with(begin))
    };
    let read = env.iter().filter(|(name, _)| read(name));
    read.cloned().collect()
}
