//! `blink session ps`, `logs`, `wait` and `kill`.

use blink_core::terminal::escape_line;
use blink_core::{ErrorKind, ExitStatus, ProcessInfo, SessionProcesses};
use serde_json::{Value, json};

use super::Sessions;
use crate::failure::{Failure, print_json, print_text, print_to_stdout, to_json};
use crate::run::hold::Ending;
use crate::run::result::shown;
use crate::table;

/// A command line is not shown beyond this: a table is for one look.
const COMMAND_LETTERS: usize = 80;

impl Sessions {
    /// Lists what was spawned.
    pub(super) async fn ps(&self, name: &str) -> Result<i32, Failure> {
        let running = self.blink.session_info(name).await?.running;
        let processes = match running {
            // A list is no reason to start a machine.
            false => Vec::new(),
            true => match self.blink.session_processes(name).await {
                Ok(processes) => processes.list().await?,
                // Its machine has ended meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error.into()),
            },
        };
        if self.json {
            let told: Vec<Value> = processes.iter().map(told).collect();
            return print_json(&to_json(&told)?);
        }
        print_text(&table(&processes))
    }

    /// Prints what it has written and is remembered.
    pub(super) async fn logs(&self, name: &str, id: u64) -> Result<i32, Failure> {
        let processes = self.processes_of(name).await?;
        find(&processes, id).await?;
        let logs = processes.logs(id).await?;
        let end = |offset: u64, bytes: &[u8]| offset.saturating_add(bytes.len() as u64);
        let stdout_bytes = end(logs.stdout_offset, &logs.stdout);
        let stderr_bytes = end(logs.stderr_offset, &logs.stderr);
        if !self.json {
            use std::io::Write;
            // Whoever reads the one stream may not read the other.
            let _ = std::io::stderr().write_all(&logs.stderr);
            return print_to_stdout(&logs.stdout);
        }
        let (stdout, stdout_base64) = shown(&logs.stdout);
        let (stderr, stderr_base64) = shown(&logs.stderr);
        let mut more = json!({
            "id": id,
            "stdout": stdout,
            "stderr": stderr,
            "stdout_bytes": stdout_bytes,
            "stderr_bytes": stderr_bytes,
        });
        for (field, base64) in [
            ("stdout_base64", stdout_base64),
            ("stderr_base64", stderr_base64),
        ] {
            if let Some(base64) = base64 {
                more[field] = base64.into();
            }
        }
        self.tell("session_logs", name, processes.isolation(), more, "")
    }

    /// Waits for its end; returns its exit code.
    pub(super) async fn wait(&self, name: &str, id: u64) -> Result<i32, Failure> {
        let processes = self.processes_of(name).await?;
        find(&processes, id).await?;
        let status = processes.wait(id).await?;
        if self.json {
            let mut more = ended(&status);
            more["id"] = id.into();
            let isolation = processes.isolation();
            let printed = self.tell("session_process_ended", name, isolation, more, "")?;
            if printed != 0 {
                return Ok(printed);
            }
        }
        Ending::Exited(status, None).tell()
    }

    /// Kills its tree, or sends it a signal.
    pub(super) async fn kill(
        &self,
        name: &str,
        id: u64,
        signal: Option<u8>,
    ) -> Result<i32, Failure> {
        const KILL: u8 = 9;
        let processes = self.processes_of(name).await?;
        let known = find(&processes, id).await?;
        match signal {
            None => processes.kill(id).await?,
            Some(signal) => processes.signal(id, signal).await?,
        }
        let more = json!({
            "id": id,
            "signal": signal.unwrap_or(KILL),
            "was_running": known.status.is_none(),
        });
        let words = match (known.status.is_some(), signal) {
            (true, _) => format!("the process {id} has ended already"),
            (false, None) => format!("killed the process {id}"),
            (false, Some(signal)) => format!("sent signal {signal} to the process {id}"),
        };
        self.tell(
            "session_process_signalled",
            name,
            processes.isolation(),
            more,
            &words,
        )
    }
}

/// A process that was spawned and is remembered.
pub(super) async fn find(processes: &SessionProcesses, id: u64) -> Result<ProcessInfo, Failure> {
    let processes = processes.list().await?;
    processes
        .into_iter()
        .find(|process| process.id == id)
        .ok_or_else(|| {
            Failure::new(
                ErrorKind::NotFound,
                format!(
                    "the session has no process {id}; 'blink session ps' lists those that it has"
                ),
            )
        })
}

fn ended(status: &ExitStatus) -> Value {
    json!({
        "exit_code": status.code,
        "signal": status.signal,
        "timed_out": status.timed_out,
        "over_limit": status.over_limit,
        "duration_ms": u64::try_from(status.duration.as_millis()).unwrap_or(u64::MAX),
    })
}

fn told(process: &ProcessInfo) -> Value {
    let command: Vec<_> = process
        .argv
        .iter()
        .map(|arg| arg.to_string_lossy())
        .collect();
    let mut told = json!({
        "id": process.id,
        "pid": process.pid,
        "command": command,
        "running": process.status.is_none(),
        "stdout_bytes": process.stdout_bytes,
        "stderr_bytes": process.stderr_bytes,
        "tty": process.pty,
        "key": process.key,
    });
    if let (Value::Object(told), Some(Value::Object(ended))) =
        (&mut told, process.status.as_ref().map(ended))
    {
        told.extend(ended);
    }
    told
}

fn table(processes: &[ProcessInfo]) -> String {
    let rows = processes.iter().map(|process| {
        let state = match &process.status {
            None => "running".to_owned(),
            Some(ExitStatus {
                timed_out: true, ..
            }) => "timed out".to_owned(),
            Some(ExitStatus {
                signal: Some(signal),
                ..
            }) => format!("killed by signal {signal}"),
            Some(status) => format!("exited with {}", status.code),
        };
        let command: Vec<_> = process
            .argv
            .iter()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let command = command.join(" ");
        let command = escape_line(&command);
        let bytes = process.stdout_bytes.saturating_add(process.stderr_bytes);
        [
            process.id.to_string(),
            process.pid.to_string(),
            state,
            indicatif::HumanBytes(bytes).to_string(),
            command.chars().take(COMMAND_LETTERS).collect(),
        ]
    });
    table::lines(["ID", "PID", "STATE", "OUTPUT", "COMMAND"], rows)
}
