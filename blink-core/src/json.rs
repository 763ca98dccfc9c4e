//! How public values look in JSON: the form that the command prints, and that stays the same from version to version.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// What a program has written: text, and where it is none, also the bytes in base64.
#[derive(Debug, Serialize)]
pub(crate) struct Written<'a> {
    stdout: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
    stderr: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_base64: Option<String>,
    /// How much it was in all.
    stdout_bytes: u64,
    stderr_bytes: u64,
}

impl<'a> Written<'a> {
    pub(crate) fn new(stdout: (&'a [u8], u64), stderr: (&'a [u8], u64)) -> Written<'a> {
        let base64 = |text: &Cow<str>, bytes: &[u8]| match text {
            Cow::Borrowed(_) => None,
            Cow::Owned(_) => Some(STANDARD.encode(bytes)),
        };
        let (stdout, stdout_bytes) = stdout;
        let (stderr, stderr_bytes) = stderr;
        let stdout_text = String::from_utf8_lossy(stdout);
        let stderr_text = String::from_utf8_lossy(stderr);
        Written {
            stdout_base64: base64(&stdout_text, stdout),
            stderr_base64: base64(&stderr_text, stderr),
            stdout: stdout_text,
            stderr: stderr_text,
            stdout_bytes,
            stderr_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use crate::{Checkpoint, ExitStatus, Isolation, Output, ProcessInfo, SessionInfo};
    use serde_json::{json, to_value};

    fn status() -> ExitStatus {
        ExitStatus {
            code: 137,
            signal: Some(9),
            timed_out: true,
            over_limit: None,
            reason: None,
            duration: Duration::from_millis(1500),
        }
    }

    #[test]
    fn results_are_text_with_their_true_lengths_and_other_bytes_are_base64_too() {
        let output = Output {
            status: status(),
            stdout: b"a\n".as_slice().into(),
            stderr: b"\xffb".as_slice().into(),
            stdout_bytes: 9,
            stderr_bytes: 2,
            isolation: Isolation::Namespace,
        };
        let expected = json!({
            "stdout": "a\n", "stderr": "\u{fffd}b", "stderr_base64": "/2I=", "stdout_bytes": 9, "stderr_bytes": 2,
            "truncated": true, "isolation": "namespace", "exit_code": 137, "signal": 9, "timed_out": true,
            "over_limit": null, "duration_ms": 1500,
        });
        assert_eq!(to_value(output).unwrap(), expected);
    }

    #[test]
    fn a_process_that_has_ended_says_how() {
        let mut process = ProcessInfo {
            id: 3,
            pid: 7,
            argv: vec!["sh".into(), "-c".into()],
            status: None,
            stdout_bytes: 1,
            stderr_bytes: 0,
            pty: false,
            key: None,
        };
        let running = json!({
            "id": 3, "pid": 7, "command": ["sh", "-c"], "running": true, "stdout_bytes": 1, "stderr_bytes": 0,
            "tty": false, "key": null,
        });
        assert_eq!(to_value(&process).unwrap(), running);
        process.status = Some(status());
        let ended = to_value(&process).unwrap();
        assert_eq!(
            (&ended["running"], &ended["exit_code"]),
            (&json!(false), &json!(137))
        );
    }

    #[test]
    fn sessions_and_checkpoints_have_their_times_as_text() {
        let created_at = SystemTime::UNIX_EPOCH + Duration::from_secs(951_782_400);
        let checkpoint = Checkpoint {
            name: "one".into(),
            consistency: crate::Consistency::Frozen,
            size_bytes: 5,
            parent: None,
            created_at,
        };
        let expected = json!({
            "name": "one", "consistency": "frozen", "size_bytes": 5, "parent": null,
            "created_at": "2000-02-29T00:00:00Z",
        });
        assert_eq!(to_value(checkpoint).unwrap(), expected);
        let info = SessionInfo {
            name: "work".into(),
            id: "x1".into(),
            isolation: Isolation::Microvm,
            image: "host".into(),
            running: false,
            warm: true,
            labels: Default::default(),
            forked_from: None,
            checkpoint: Some("one".into()),
            created_at,
            disk_bytes: 4096,
            resources: Default::default(),
            network: crate::Network::Hosts(vec!["pypi.org".into()]),
            mounts: vec![crate::Mount::new("/a", "/b").read_only()],
            publish: vec![crate::PublishedPort::new(8080, 80)],
            idle_stop: Some(Duration::from_secs(60)),
        };
        let expected = json!({
            "name": "work", "id": "x1", "isolation": "microvm", "image": "host", "running": false, "warm": true,
            "labels": {}, "forked_from": null, "snapshot": "one", "created_at": "2000-02-29T00:00:00Z",
            "disk_bytes": 4096,
            "resources": {
                "cpus": null, "memory_mib": null, "shared_memory_mib": null, "disk_mib": 10240, "processes": 1024
            },
            "network": {"hosts": ["pypi.org"]},
            "mounts": [{"host": "/a", "guest": "/b", "read_only": true}],
            "publish": [{"host": "127.0.0.1:8080", "guest": 80}],
            "idle_stop_ms": 60_000,
        });
        assert_eq!(to_value(info).unwrap(), expected);
    }
}
