//! What there is to say of sandboxes and their processes.

use std::ffi::OsString;

use blink_wire::{ProcessId, Request, Response};
use serde::{Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::isolation::Isolation;
use crate::link::Link;

/// More than an agent has: those that run, and those that are over.
const PROCESSES_LIMIT: usize = 1 << 16;

/// The spawned processes that were not released: in as many answers as it takes.
pub(crate) async fn processes(link: &Link) -> Result<Vec<ProcessInfo>> {
    let broken = |message| Err(Error::new(ErrorKind::Protocol, message));
    let mut all: Vec<ProcessInfo> = Vec::new();
    loop {
        let known = all.last().map(|last| last.id);
        let request = match known {
            None => Request::Processes,
            Some(last) => Request::ProcessesAfter(ProcessId(last)),
        };
        let more = match link.call(&request).await {
            Ok(Response::Processes(list)) => list,
            Ok(_) => return broken("the sandbox's answer is not a list of processes"),
            // The agent of an earlier Blink, which gives all at once.
            Err(error) if error.kind() == ErrorKind::Unsupported && known.is_some() => {
                return Ok(all);
            }
            Err(error) => return Err(error),
        };
        if more.is_empty() {
            return Ok(all);
        }
        // Otherwise a hostile agent could go on for ever.
        let is_new =
            |process: &blink_wire::ProcessInfo| known.is_none_or(|id| process.process.0 > id);
        if !more.iter().all(is_new) || all.len() > PROCESSES_LIMIT {
            return broken("the sandbox's list of processes is in no order, or has no end");
        }
        all.extend(more.into_iter().map(Into::into));
    }
}

/// Details of a detached sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SandboxInfo {
    /// Names it.
    pub id: String,
    /// The isolation that it has.
    pub isolation: Isolation,
    /// Whether it runs. One that has ended is removed when it is next opened.
    pub running: bool,
    /// When it was made.
    #[serde(serialize_with = "blink_host::json::time")]
    pub created_at: std::time::SystemTime,
}

/// A spawned process in a list.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Names it.
    pub id: u64,
    /// Its number among the sandbox's processes.
    pub pid: u32,
    /// What was started.
    pub argv: Vec<OsString>,
    /// How it ended, if it has.
    pub status: Option<crate::ExitStatus>,
    /// Bytes of standard output so far.
    pub stdout_bytes: u64,
    /// Bytes of standard error so far.
    pub stderr_bytes: u64,
    /// Whether it has a terminal.
    pub pty: bool,
    /// The key it was spawned with.
    pub key: Option<String>,
}

impl Serialize for ProcessInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            id: u64,
            pid: u32,
            #[serde(serialize_with = "blink_host::json::words")]
            command: &'a [OsString],
            running: bool,
            stdout_bytes: u64,
            stderr_bytes: u64,
            tty: bool,
            key: Option<&'a str>,
            #[serde(flatten)]
            status: Option<&'a crate::ExitStatus>,
        }
        let shown = Shown {
            id: self.id,
            pid: self.pid,
            command: &self.argv,
            running: self.status.is_none(),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            tty: self.pty,
            key: self.key.as_deref(),
            status: self.status.as_ref(),
        };
        shown.serialize(serializer)
    }
}

impl From<blink_wire::ProcessInfo> for ProcessInfo {
    fn from(info: blink_wire::ProcessInfo) -> ProcessInfo {
        use std::os::unix::ffi::OsStringExt;
        ProcessInfo {
            id: info.process.0,
            pid: info.pid,
            argv: info
                .argv
                .into_iter()
                .map(|arg| OsString::from_vec(arg.to_vec()))
                .collect(),
            status: info.exit.as_ref().map(crate::ExitStatus::from_report),
            stdout_bytes: info.stdout_bytes,
            stderr_bytes: info.stderr_bytes,
            pty: info.pty,
            key: info.key,
        }
    }
}
