//! Processes that outlive the command that has started them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Home, finish, one_line, said, signal, until, wait};

#[test]
fn spawned_processes_outlive_the_command() {
    let home = Home::with(&["warm"]);
    let script = "echo begun; echo oops >&2; read line; echo got $line; exit 4";
    let id = home.spawn("warm", script, &["--stdin", "--key", "once"]);
    assert_eq!(
        home.spawn("warm", script, &["--stdin", "--key", "once"]),
        id
    );
    until("its output", || {
        home.process("warm", &id)["stdout_bytes"] == 6
            && home.process("warm", &id)["stderr_bytes"] == 5
    });
    let process = home.process("warm", &id);
    assert_eq!(
        (&process["running"], &process["key"], &process["command"][0]),
        (&json!(true), &json!("once"), &json!("sh"))
    );
    let logs = home.output(&["logs", "--name", "warm", &id]);
    assert_eq!(
        (&logs.stdout[..], &*said(&logs)),
        (&b"begun\n"[..], "oops\n")
    );
    let logs = home.json(&["logs", "--name", "warm", &id]);
    assert_eq!(
        (&logs["event"], &logs["stdout"], &logs["stderr"]),
        (&json!("session_logs"), &json!("begun\n"), &json!("oops\n"))
    );
    // It has lost nothing to whoever has read it before.
    let attached = finish(
        &mut home.session(&["attach", "--name", "warm", &id]),
        b"hello\n",
    );
    assert_eq!(
        (attached.status.code(), &attached.stdout[..]),
        (Some(4), &b"begun\ngot hello\n"[..])
    );
    let waited = home.output(&["wait", "--name", "warm", &id]);
    assert_eq!(
        (waited.status.code(), &waited.stdout[..]),
        (Some(4), &b""[..])
    );
    let waited = home.output(&["wait", "--name", "warm", "--json", &id]);
    let ended = one_line(&String::from_utf8(waited.stdout).unwrap());
    assert_eq!(
        (waited.status.code(), &ended["event"], &ended["exit_code"]),
        (Some(4), &json!("session_process_ended"), &json!(4))
    );
    let table = home.says(&["ps", "--name", "warm"]);
    assert!(table.contains("exited with 4"), "{table}");
}

#[test]
fn processes_are_waited_for_and_killed() {
    let home = Home::with(&["warm"]);
    let id = home.spawn("warm", "sleep 1; exit 3", &[]);
    assert_eq!(
        home.output(&["wait", "--name", "warm", &id]).status.code(),
        Some(3)
    );
    let id = home.spawn(
        "warm",
        "trap 'exit 6' TERM; echo set; while :; do sleep 0.05; done",
        &[],
    );
    until("its trap", || {
        home.process("warm", &id)["stdout_bytes"] == 4
    });
    let sent = home.json(&["kill", "--name", "warm", &id, "--signal", "SIGTERM"]);
    assert_eq!(
        (&sent["event"], &sent["signal"], &sent["was_running"]),
        (
            &json!("session_process_signalled"),
            &json!(15),
            &json!(true)
        )
    );
    assert_eq!(
        home.output(&["wait", "--name", "warm", &id]).status.code(),
        Some(6)
    );
    let id = home.spawn("warm", "sleep 1000", &[]);
    home.says(&["kill", "--name", "warm", &id]);
    assert_eq!(
        home.output(&["wait", "--name", "warm", &id]).status.code(),
        Some(137)
    );
    assert!(
        home.says(&["kill", "--name", "warm", &id])
            .contains("already")
    );
}

#[test]
fn whoever_attaches_can_leave() {
    let home = Home::with(&["warm"]);
    let id = home.spawn("warm", "echo here; cat; echo over", &["--stdin"]);
    for leaves in [rustix::process::Signal::TERM, rustix::process::Signal::QUIT] {
        let mut child = home
            .session(&["attach", "--name", "warm", &id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "here");
        signal(&child, leaves);
        assert_eq!(wait(&mut child).code(), Some(128 + leaves.as_raw()));
        assert_eq!(home.process("warm", &id)["running"], true);
    }
    // Its input is open still, until somebody ends it.
    let attached = finish(
        &mut home.session(&["attach", "--name", "warm", &id]),
        b"more\n",
    );
    assert_eq!(
        (attached.status.code(), &attached.stdout[..]),
        (Some(0), &b"here\nmore\nover\n"[..])
    );
}

#[test]
fn who_stays_attached_is_in_nobodys_way() {
    let home = Home::with(&["warm"]);
    let idle = home.spawn("warm", "echo here; cat; echo over; exit 4", &["--stdin"]);
    let other = home.spawn("warm", "echo begun; sleep 1000", &[]);
    let mut attached = home
        .session(&["attach", "--name", "warm", &idle])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(attached.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "here");

    assert_eq!(home.process("warm", &other)["running"], true);
    until("its output", || {
        home.process("warm", &other)["stdout_bytes"] == 6
    });
    let logs = |id: &str| home.output(&["logs", "--name", "warm", id]).stdout;
    assert_eq!(logs(&other), b"begun\n");
    // Not even of the same process.
    assert_eq!(logs(&idle), b"here\n");
    let mut waiting = home
        .session(&["wait", "--name", "warm", &idle])
        .spawn()
        .unwrap();
    home.says(&["kill", "--name", "warm", &other]);
    let waited = home.output(&["wait", "--name", "warm", &other]);
    assert_eq!(waited.status.code(), Some(137));
    home.says(&["checkpoint", "--name", "warm", "--snapshot", "meanwhile"]);

    let mut keys = attached.stdin.take().unwrap();
    keys.write_all(b"more\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "more");
    drop(keys);
    assert_eq!(lines.next().unwrap().unwrap(), "over");
    assert_eq!(wait(&mut attached).code(), Some(4));
    assert_eq!(wait(&mut waiting).code(), Some(4));
}

#[test]
fn a_terminal_can_be_left_by_a_key() {
    let home = Home::with(&["warm"]);
    let id = home.spawn(
        "warm",
        "tty; while read x; do echo got $x; done",
        &["--tty"],
    );
    assert_eq!(home.process("warm", &id)["tty"], true);
    // `script` gives the command a terminal of its own.
    let line = format!(
        "{} session attach --name warm {id}",
        env!("CARGO_BIN_EXE_blink")
    );
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .env("BLINK_HOME", home.0.path().join("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("/dev/pts/"), "{first}");
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(b"one\r").unwrap();
    loop {
        let line = lines.next().unwrap().unwrap();
        if line.contains("got one") {
            break;
        }
    }
    keys.write_all(b"\x1d").unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_eq!(home.process("warm", &id)["running"], true);
}

#[test]
fn text_from_inside_does_nothing_to_a_terminal_and_is_whole_in_json() {
    const HOSTILE: &str = "\x1b]0;owned\x07\u{9b}2J\u{202e}\x7f";
    let harmless = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let obeyed = |letter| letter != '\n' && blink_core::terminal::is_obeyed(letter);
        assert!(!text.contains(obeyed), "{text:?}");
        text
    };
    let home = Home::with(&["warm"]);
    let script = format!("printf '{HOSTILE}'; : '{HOSTILE}'; exec sleep 1000");
    let id = home.spawn("warm", &script, &[]);
    until("what it prints", || {
        home.process("warm", &id)["stdout_bytes"] == HOSTILE.len()
    });
    let table = harmless(&home.output(&["ps", "--name", "warm"]).stdout);
    assert!(table.contains("owned"), "{table}");
    // Whole, and harmless to a terminal that JSON is printed on.
    let json = harmless(&home.output(&["ps", "--name", "warm", "--json"]).stdout);
    let processes: Value = serde_json::from_str(&json).unwrap();
    assert!(
        processes.to_string().contains("owned")
            && processes[0]["command"][2]
                .as_str()
                .unwrap()
                .contains(HOSTILE),
        "{json}"
    );
    let json = harmless(
        &home
            .output(&["logs", "--name", "warm", &id, "--json"])
            .stdout,
    );
    let logs: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(logs["stdout"], HOSTILE);
    // What a program prints is passed on as it is.
    let logs = home.output(&["logs", "--name", "warm", &id]);
    assert_eq!(logs.stdout, HOSTILE.as_bytes());

    let from = format!("warm:/tmp/{HOSTILE}");
    let failed = home.output(&["cp", &from, "/tmp/nowhere"]);
    assert!(harmless(&failed.stderr).contains("owned"));
    home.says(&["kill", "--name", "warm", &id]);
}
