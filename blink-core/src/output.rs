//! What a program came to, and what it has written.

use std::borrow::Cow;
use std::time::Duration;

use blink_wire::ExitReport;
use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::isolation::Isolation;
use crate::json;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExitStatus {
    /// Its exit code; 128 and the signal's number where a signal ended it, as shells report it. 127 if there is no
    /// such program, 126 if it may not be executed.
    #[serde(rename = "exit_code")]
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its time was over, and it was killed with everything that it had started.
    pub timed_out: bool,
    /// It was killed because the sandbox was over this limit: `memory` or `disk`.
    pub over_limit: Option<&'static str>,
    /// Why it could not be started, where `code` is 126 or 127 for that reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From its start to its end.
    #[serde(rename = "duration_ms", serialize_with = "blink_host::json::millis")]
    pub duration: Duration,
}

impl ExitStatus {
    /// Whether it ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.code == 0 && !self.timed_out
    }

    /// In words, as a message has it.
    pub(crate) fn shown(&self) -> String {
        match (self.signal, self.over_limit) {
            (_, Some(limit)) => format!("it was killed: the sandbox was over its {limit} limit"),
            (Some(signal), None) => format!("signal {signal}"),
            (None, None) => format!("exit code {}", self.code),
        }
    }

    pub(crate) fn from_report(report: &ExitReport) -> ExitStatus {
        const SIGNALS: i32 = 128;
        const KILL: i32 = 9;
        let signal = report.signal;
        let by_signal = signal.map(|signal| SIGNALS.saturating_add(signal));
        ExitStatus {
            // One outcome: what was killed when its time was over has no code of its own, whatever an agent says.
            code: match report.timed_out {
                true => by_signal.unwrap_or(SIGNALS + KILL),
                false => report.code.or(by_signal).unwrap_or(SIGNALS),
            },
            signal,
            timed_out: report.timed_out,
            over_limit: report.limit.map(|limit| match limit {
                blink_wire::Limit::Memory => "memory",
                blink_wire::Limit::Disk => "disk",
                _ => "other",
            }),
            reason: report.reason.clone(),
            duration: Duration::from_micros(report.duration_us),
        }
    }
}

/// The captured result of a program.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output, byte for byte.
    pub stdout: Bytes,
    /// What it wrote to standard error, byte for byte.
    pub stderr: Bytes,
    /// How much it wrote to standard output in all.
    pub stdout_bytes: u64,
    /// How much it wrote to standard error in all.
    pub stderr_bytes: u64,
    /// The isolation that it really ran with.
    pub isolation: Isolation,
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            #[serde(flatten)]
            written: json::Written<'a>,
            #[serde(flatten)]
            status: &'a ExitStatus,
            truncated: bool,
            isolation: Isolation,
        }
        let shown = Shown {
            written: json::Written::new(
                (&self.stdout, self.stdout_bytes),
                (&self.stderr, self.stderr_bytes),
            ),
            status: &self.status,
            truncated: self.truncated(),
            isolation: self.isolation,
        };
        shown.serialize(serializer)
    }
}

impl Output {
    /// Standard output as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// What it has written last, as a message has it: of its errors, if there are any.
    pub(crate) fn last_words(&self) -> String {
        const BYTES: usize = 2000;
        let stream = match self.stderr.is_empty() {
            true => &self.stdout,
            false => &self.stderr,
        };
        let tail = &stream[stream.len().saturating_sub(BYTES)..];
        match String::from_utf8_lossy(tail).trim() {
            "" => "it has written nothing".to_owned(),
            text => text.to_owned(),
        }
    }

    /// Whether a stream was longer than the capture's limit: `stdout_bytes` and `stderr_bytes` have the true counts.
    pub fn truncated(&self) -> bool {
        self.stdout_bytes > self.stdout.len() as u64 || self.stderr_bytes > self.stderr.len() as u64
    }
}
