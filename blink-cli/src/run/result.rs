//! The result as one line of JSON.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blink_core::{ExitStatus, Isolation};
use serde_json::{Map, Value};

use crate::failure::{Failure, print_to_stdout};

const EVENT: &str = "execution_result";

/// What a program has written, each stream with its true length, and what Blink has measured.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) stdout: (Vec<u8>, u64),
    pub(crate) stderr: (Vec<u8>, u64),
    pub(crate) elapsed: Duration,
    pub(crate) isolation: Option<Isolation>,
}

impl Captured {
    /// Prints the line; returns 0, or another exit code where nobody reads it.
    pub(crate) fn print(&self, status: &ExitStatus) -> Result<i32, Failure> {
        let line = Value::Object(self.to_map(status.code, status.timed_out));
        print_to_stdout(format!("{line}\n").as_bytes())
    }

    fn to_map(&self, exit_code: i32, timed_out: bool) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("event".into(), EVENT.into());
        insert_stream(&mut map, "stdout", &self.stdout.0);
        insert_stream(&mut map, "stderr", &self.stderr.0);
        map.insert("exit_code".into(), exit_code.into());
        if !cut(&self.stdout)
            && let Some(claimed) = claimed(&self.stdout.0)
        {
            pass_on(&mut map, claimed);
        }
        // Never the program's to say.
        map.insert("timed_out".into(), timed_out.into());
        let truncated = cut(&self.stdout) || cut(&self.stderr);
        map.insert("truncated".into(), truncated.into());
        map.insert(
            "isolation".into(),
            self.isolation.map(Isolation::name).into(),
        );
        let elapsed = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX);
        map.insert("duration_ms".into(), elapsed.into());
        map
    }
}

fn cut((captured, length): &(Vec<u8>, u64)) -> bool {
    captured.len() as u64 != *length
}

fn insert_stream(map: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if matches!(text, std::borrow::Cow::Owned(_)) {
        map.insert(format!("{name}_base64"), STANDARD.encode(bytes).into());
    }
    map.insert(name.into(), text.into_owned().into());
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

/// Takes over what a program may say of its own result, where it has the right type.
fn pass_on(map: &mut Map<String, Value>, mut claimed: Map<String, Value>) {
    for name in ["stdout", "stderr"] {
        let Some(text @ Value::String(_)) = claimed.remove(name) else {
            continue;
        };
        let base64 = format!("{name}_base64");
        map.remove(&base64);
        if let Some(bytes @ Value::String(_)) = claimed.remove(&base64) {
            map.insert(base64, bytes);
        }
        map.insert(name.into(), text);
    }
    if let Some(code) = claimed.remove("exit_code").filter(Value::is_i64) {
        map.insert("exit_code".into(), code);
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
            isolation: Some(Isolation::Namespace),
        };
        Value::Object(captured.to_map(3, false))
    }

    #[test]
    fn text_is_text_and_the_rest_is_base64_too() {
        let expected = json!({
            "event": "execution_result", "stdout": "a\n", "stderr": "\u{fffd}b", "stderr_base64": "/2I=",
            "exit_code": 3, "timed_out": false, "truncated": false, "isolation": "namespace", "duration_ms": 7,
        });
        assert_eq!(line(b"a\n", b"\xffb", 0), expected);
    }

    #[test]
    fn a_programs_own_result_is_passed_on_but_not_what_blink_measures() {
        let stdout = b"\xff noise\n{\"event\":\"execution_result\",\"stdout\":\"own\",\"exit_code\":5,\
            \"stderr\":7,\"isolation\":\"microvm\",\"timed_out\":true,\"truncated\":true,\"duration_ms\":0,\"x\":1}\n\n";
        let expected = json!({
            "event": "execution_result", "stdout": "own", "stderr": "", "exit_code": 5, "timed_out": false,
            "truncated": false, "isolation": "namespace", "duration_ms": 7,
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
