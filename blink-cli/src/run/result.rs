//! The result as one line of JSON.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blink_core::{ExitStatus, Isolation};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::{Failure, print_json};

const EVENT: &str = "execution_result";

/// What a program has written, each stream with its true length, and what Blink has measured.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) stdout: (Vec<u8>, u64),
    pub(crate) stderr: (Vec<u8>, u64),
    pub(crate) elapsed: Duration,
    pub(crate) isolation: Isolation,
    /// The session that it ran in.
    pub(crate) session: Option<String>,
}

/// The line, its fields in the order in which people read them.
#[derive(Debug, Serialize)]
struct Line {
    event: &'static str,
    stdout: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
    stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_base64: Option<String>,
    exit_code: i32,
    /// What the program says of itself, which need not be so.
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_exit_code: Option<i64>,
    timed_out: bool,
    /// The limit for which it was killed.
    over_limit: Option<&'static str>,
    truncated: bool,
    isolation: &'static str,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Captured {
    /// Prints the line; returns 0, or another exit code where nobody reads it.
    pub(crate) fn print(&self, status: &ExitStatus) -> Result<i32, Failure> {
        let line =
            serde_json::to_string(&self.line(status.code, status.timed_out, status.over_limit))
                .map_err(|error| Failure::internal(format!("the result is no JSON: {error}")))?;
        print_json(&line)
    }

    fn line(&self, exit_code: i32, timed_out: bool, over_limit: Option<&'static str>) -> Line {
        let (stdout, stdout_base64) = shown(&self.stdout.0);
        let (stderr, stderr_base64) = shown(&self.stderr.0);
        let mut line = Line {
            event: EVENT,
            stdout,
            stdout_base64,
            stderr,
            stderr_base64,
            exit_code,
            claimed_exit_code: None,
            timed_out,
            over_limit,
            truncated: cut(&self.stdout) || cut(&self.stderr),
            isolation: self.isolation.name(),
            duration_ms: u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            name: self.session.clone(),
        };
        if !cut(&self.stdout)
            && let Some(claimed) = claimed(&self.stdout.0)
        {
            line.pass_on(claimed);
        }
        line
    }
}

impl Line {
    /// Takes over what a program may say of its own result, where it has the right type: what it means its output to be,
    /// and, beside the real one, an exit code. What Blink itself has seen is never the program's to say.
    fn pass_on(&mut self, mut claimed: Map<String, Value>) {
        let mut text = |name: &str| match claimed.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        if let Some(stdout) = text("stdout") {
            self.stdout = stdout;
            self.stdout_base64 = text("stdout_base64");
        }
        if let Some(stderr) = text("stderr") {
            self.stderr = stderr;
            self.stderr_base64 = text("stderr_base64");
        }
        self.claimed_exit_code = claimed.get("exit_code").and_then(Value::as_i64);
    }
}

fn cut((captured, length): &(Vec<u8>, u64)) -> bool {
    captured.len() as u64 != *length
}

/// Bytes as text; where they are none, also as what they are.
pub(crate) fn shown(bytes: &[u8]) -> (String, Option<String>) {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => (text.to_owned(), None),
        Cow::Owned(lossy) => (lossy, Some(STANDARD.encode(bytes))),
    }
}

/// The result that the program's last line gives, if it does.
fn claimed(stdout: &[u8]) -> Option<Map<String, Value>> {
    let line = stdout
        .split(|byte| *byte == b'\n')
        .rev()
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty())?;
    match serde_json::from_slice(line) {
        Ok(Value::Object(map)) if map.get("event").is_some_and(|event| event == EVENT) => Some(map),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(stdout: &[u8], stderr: &[u8], more: u64) -> Value {
        let captured = Captured {
            stdout: (stdout.to_vec(), stdout.len() as u64 + more),
            stderr: (stderr.to_vec(), stderr.len() as u64),
            elapsed: Duration::from_millis(7),
            isolation: Isolation::Namespace,
            session: None,
        };
        serde_json::to_value(captured.line(3, false, None)).unwrap()
    }

    #[test]
    fn text_is_text_and_the_rest_is_base64_too() {
        let expected = json!({
            "event": "execution_result", "stdout": "a\n", "stderr": "\u{fffd}b", "stderr_base64": "/2I=",
            "exit_code": 3, "timed_out": false, "over_limit": null, "truncated": false, "isolation": "namespace", "duration_ms": 7,
        });
        assert_eq!(line(b"a\n", b"\xffb", 0), expected);
    }

    #[test]
    fn a_programs_own_result_is_passed_on_but_not_what_blink_measures() {
        let stdout = b"\xff noise\n{\"event\":\"execution_result\",\"stdout\":\"own\",\"exit_code\":5,\
            \"stderr\":7,\"isolation\":\"microvm\",\"timed_out\":true,\"truncated\":true,\"duration_ms\":0,\"x\":1}\n\n";
        let expected = json!({
            "event": "execution_result", "stdout": "own", "stderr": "", "exit_code": 3, "claimed_exit_code": 5,
            "timed_out": false, "over_limit": null, "truncated": false, "isolation": "namespace", "duration_ms": 7,
        });
        assert_eq!(line(stdout, b"", 0), expected);
    }

    #[test]
    fn what_is_cut_or_not_last_or_another_event_is_no_result() {
        let own = br#"{"event":"execution_result","stdout":"own"}"#;
        assert_eq!(line(own, b"", 1)["truncated"], true);
        assert_ne!(line(own, b"", 1)["stdout"], "own");
        assert_ne!(
            line(&[own, &b"\nmore\n"[..]].concat(), b"", 0)["stdout"],
            "own"
        );
        assert_ne!(
            line(br#"{"event":"other","stdout":"own"}"#, b"", 0)["stdout"],
            "own"
        );
        assert_ne!(line(b"[1]", b"", 0)["stdout"], "own");
        assert_eq!(line(b"", b"", 0)["stdout"], "");
    }
}
