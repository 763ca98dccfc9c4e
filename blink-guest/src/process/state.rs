//! What the agent knows of one process, from its start to its end.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use blink_wire::{ExitReport, Limit, ProcessId, ProcessInfo};
use rustix::process::WaitStatus;

use super::output::Output;
use super::stdin::Stdin;
use super::tree::{Marker, Trees};
use crate::stream::Caller;

/// After a program has ended, how long a child that still holds its output may add to it. Long enough for what a shell
/// leaves running a moment longer (`> >(tee log)`), and short beside a person's patience.
const LINGER: Duration = Duration::from_millis(50);

pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) marker: Option<Rc<Marker>>,
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) key: Option<String>,
    pub(crate) keep: bool,
    /// Nobody will ask for it again; it is only still ending.
    pub(crate) released: bool,
    pub(crate) stdin: Stdin,
    pub(crate) terminal: Option<OwnedFd>,
    /// Standard output and standard error.
    pub(crate) outputs: [Output; 2],
    pub(crate) reader: Option<Caller>,
    /// Who is told of its end and nothing else.
    pub(crate) waiting: Vec<Caller>,
    pub(crate) started: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) killed_for: Option<Reason>,
    pub(crate) ended: Option<Ended>,
    /// What a child that it left behind may add was waited for.
    pub(crate) lingered: bool,
    /// The end has been told, or nobody was there to hear it.
    pub(crate) settled: bool,
}

/// Why the agent has killed a process by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its time was over.
    Timeout,
    /// The sandbox was over this limit.
    Limit(Limit),
}

pub(crate) struct Ended {
    pub(crate) at: Instant,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: Option<String>,
}

impl Process {
    /// The process with all that it has started.
    pub(crate) fn tree(&self) -> Trees {
        Trees::of(self.pid, self.marker.as_ref())
    }

    pub(crate) fn end(&mut self, status: WaitStatus) {
        self.deadline = None;
        // One outcome: what has ended by itself while it was to be killed was not killed.
        if status.terminating_signal() != Some(libc::SIGKILL) {
            self.killed_for = None;
        }
        self.ended = Some(Ended {
            at: Instant::now(),
            code: status.exit_status(),
            signal: status.terminating_signal(),
            reason: None,
        });
        // Edge-triggered: what the last write left behind may not be announced again.
        self.outputs.iter_mut().for_each(Output::became_readable);
    }

    pub(crate) fn linger_ends(&self) -> Option<Instant> {
        match (&self.ended, self.settled) {
            (Some(ended), false) if !self.lingered && !self.outputs.iter().all(Output::ended) => {
                Some(ended.at + LINGER)
            }
            _ => None,
        }
    }

    /// Whether its end can be told: it has ended, and all of its output was sent. What a child that it left behind may add is
    /// waited for only so long.
    pub(crate) fn can_be_told(&self) -> bool {
        let Some(ended) = &self.ended else {
            return false;
        };
        let lingering = ended.at.elapsed() < LINGER;
        let complete = |output: &Output| {
            output.is_sent() && !output.wants_read() && (output.ended() || !lingering)
        };
        self.outputs.iter().all(complete)
    }

    /// What a list shows of it.
    pub(crate) fn info(&self, id: ProcessId) -> ProcessInfo {
        ProcessInfo {
            process: id,
            pid: self.pid.cast_unsigned(),
            argv: self.argv.iter().map(|arg| arg.clone().into()).collect(),
            exit: self.report(),
            stdout_bytes: self.outputs[0].total(),
            stderr_bytes: self.outputs[1].total(),
            pty: self.terminal.is_some(),
            key: self.key.clone(),
        }
    }

    pub(crate) fn report(&self) -> Option<ExitReport> {
        let ended = self.ended.as_ref()?;
        Some(ExitReport {
            code: ended.code,
            signal: ended.signal,
            timed_out: self.killed_for == Some(Reason::Timeout),
            limit: match self.killed_for {
                Some(Reason::Limit(limit)) => Some(limit),
                _ => None,
            },
            reason: ended.reason.clone(),
            stdout_bytes: self.outputs[0].total(),
            stderr_bytes: self.outputs[1].total(),
            duration_us: u64::try_from((ended.at - self.started).as_micros()).unwrap_or(u64::MAX),
        })
    }
}
