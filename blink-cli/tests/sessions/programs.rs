//! Programs that a command runs in a session to their end.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::support::{Home, finish, said, signal, until, wait};

#[test]
fn programs_run_as_in_a_sandbox_of_their_own() {
    let home = Home::with(&["a"]);
    let output = home.output(&[
        "run",
        "--name",
        "a",
        "--env",
        "X=1",
        "--",
        "sh",
        "-c",
        "echo out $X; echo err >&2; exit 7",
    ]);
    assert_eq!(
        (output.status.code(), &output.stdout[..], &*said(&output)),
        (Some(7), &b"out 1\n"[..], "err\n")
    );
    let script = home.file("say.py", b"import sys\nprint(sys.argv[1:])\n");
    let said = home.says(&[
        "run",
        "--name",
        "a",
        script.to_str().unwrap(),
        "x",
        "--json",
    ]);
    assert_eq!(said, "['x', '--json']\n");
    // Neither the script nor what it has started is left in the session.
    assert_eq!(home.shell("a", "ls /tmp/blink"), "");
    let echo = finish(
        &mut home.session(&["run", "--name", "a", "--", "cat"]),
        b"\xff\0x",
    );
    assert_eq!(echo.stdout, b"\xff\0x");
    let result = home.json(&["run", "--name", "a", "--", "echo", "hello"]);
    assert_eq!(
        (
            &result["event"],
            &result["stdout"],
            &result["name"],
            &result["isolation"]
        ),
        (
            &json!("execution_result"),
            &json!("hello\n"),
            &json!("a"),
            &json!("namespace")
        )
    );
    let output = home.output(&[
        "run",
        "--name",
        "a",
        "--timeout",
        "300ms",
        "--",
        "sleep",
        "1000",
    ]);
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(
        home.output(&["run", "--name", "a", "--", "no-such-program"])
            .status
            .code(),
        Some(127)
    );
}

#[test]
fn a_run_that_is_given_up_leaves_no_process_in_a_warm_session() {
    let home = Home::with(&["warm"]);
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = home
        .session(&["run", "--name", "warm", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(wait(&mut child).code(), Some(9));
    // Two interrupts kill what heeds none, with all that it has started.
    let script = "trap '' INT; setsid sleep 1000 & echo ready; while :; do sleep 0.05; done";
    let mut child = home
        .session(&["run", "--name", "warm", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    signal(&child, rustix::process::Signal::INT);
    std::thread::sleep(Duration::from_millis(200));
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(wait(&mut child).code(), Some(137));
    assert_eq!(home.json(&["ps", "--name", "warm"]), json!([]));
    let sleeping = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 100[0]'";
    let output = home.output(&["run", "--name", "warm", "--", "sh", "-c", sleeping]);
    assert_eq!(output.stdout, b"0\n", "{}", said(&output));
    // What a program leaves when it ends by itself goes on, as a shell's would.
    home.shell("warm", "setsid sleep 1000 >&- 2>&- & echo begun");
    // A process has no command line for a moment while it becomes another program.
    until("the sleep", || {
        let output = home.output(&["run", "--name", "warm", "--", "sh", "-c", sleeping]);
        output.stdout == b"1\n"
    });
}
