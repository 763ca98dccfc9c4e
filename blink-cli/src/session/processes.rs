//! `blink session ps`, `logs`, `wait` and `kill`.

use blink_core::terminal::escape_line;
use blink_core::{ErrorKind, ExitStatus, ProcessInfo, SessionProcesses};
use serde_json::json;

use super::Sessions;
use crate::failure::{Failure, print_json, print_text, print_to_stdout, to_json};
use crate::run::hold::Ending;
use crate::table;

/// A command line is not shown beyond this: a table is for one look.
const COMMAND_LETTERS: usize = 80;

impl Sessions {
    /// Lists what was spawned.
    pub(super) async fn ps(&self, name: &str) -> Result<i32, Failure> {
        let running = self.blink.session_info(name).await?.running;
        let processes = match running {
            // A list is no reason to start a sandbox.
            false => Vec::new(),
            true => match self.blink.session_processes(name).await {
                Ok(processes) => processes.list().await?,
                // Its sandbox has ended meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error.into()),
            },
        };
        if self.json {
            return print_json(&to_json(&processes)?);
        }
        print_text(&table(&processes))
    }

    /// Prints what it has written and is remembered.
    pub(super) async fn logs(&self, name: &str, id: u64) -> Result<i32, Failure> {
        let processes = self.processes_of(name).await?;
        find(&processes, id).await?;
        let logs = processes.logs(id).await?;
        if !self.json {
            use std::io::Write;
            // Whoever reads the one stream may not read the other.
            let _ = std::io::stderr().write_all(&logs.stderr);
            return print_to_stdout(&logs.stdout);
        }
        let mut more = to_json(&logs)?;
        more["id"] = id.into();
        self.tell("session_logs", name, processes.isolation(), more, "")
    }

    /// Waits for its end; returns its exit code.
    pub(crate) async fn wait(&self, name: &str, id: u64) -> Result<i32, Failure> {
        let processes = self.processes_of(name).await?;
        find(&processes, id).await?;
        let status = processes.wait(id).await?;
        if self.json {
            let mut more = to_json(&status)?;
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
    pub(crate) async fn kill(
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
