//! Who uses what somebody else asks for.

use std::fmt;
use std::fs;
use std::time::Duration;

use serde::Serialize;

/// A process that is using what a call asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Holder {
    /// The process's number on the host; `None` if it could not be told.
    pub pid: Option<u32>,
    /// The beginning of its command line; `None` if it could not be read.
    pub command: Option<String>,
}

impl Holder {
    /// A process, with what is known of it.
    pub fn new(pid: Option<u32>, command: Option<String>) -> Holder {
        Holder { pid, command }
    }

    /// A process, with what it says of itself now.
    pub fn of_process(pid: Option<u32>) -> Holder {
        Holder {
            pid,
            command: pid.and_then(command_of),
        }
    }

    /// Whether it is this very process.
    pub fn is_this_process(&self) -> bool {
        self.pid == Some(std::process::id())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.command) {
            (Some(pid), _) if self.is_this_process() => write!(f, "this process (pid {pid})"),
            (Some(pid), Some(command)) => write!(f, "another process (pid {pid}: {command})"),
            (Some(pid), None) => write!(f, "another process (pid {pid})"),
            (None, _) => f.write_str("another process"),
        }
    }
}

/// A lock that others held for all of the time that it was waited for.
#[derive(Debug)]
pub struct Held {
    /// Who held it.
    pub holder: Holder,
    /// How long it was waited for.
    pub patience: Duration,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in use by {}, and was for all of {:.0?}; try again when that has ended, or end it",
            self.holder, self.patience
        )
    }
}

impl std::error::Error for Held {}

/// The command of a process, for people who wait.
fn command_of(pid: u32) -> Option<String> {
    const LONGEST: usize = 80;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command: String = String::from_utf8_lossy(&command)
        .trim_end_matches('\0')
        .replace('\0', " ")
        .chars()
        .filter(|letter| !letter.is_control())
        .take(LONGEST)
        .collect();
    (!command.is_empty()).then_some(command)
}
