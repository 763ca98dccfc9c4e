//! The commands about sessions as their users meet them, in real sandboxes.

#[path = "../../blink-core/tests/image/builder.rs"]
#[allow(
    dead_code,
    reason = "shared with the library's tests, which use all of it"
)]
mod builder;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longer than anything here takes on a busy machine: what is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// This machine's programs, with the isolation that works everywhere.
const HOST: [&str; 4] = ["--isolation", "namespace", "--image", "host"];

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    /// With sessions of these names; those that begin with `warm` are.
    fn with(names: &[&str]) -> Home {
        let home = Home::new();
        for name in names {
            let mut arguments = vec!["open", "--name", name];
            arguments.extend(HOST);
            if name.starts_with("warm") {
                arguments.push("--warm");
            }
            home.says(&arguments);
        }
        home
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// `blink session …`.
    fn session(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blink"));
        command
            .arg("session")
            .args(arguments)
            .env("BLINK_HOME", self.0.path().join("home"))
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.session(arguments).output().unwrap()
    }

    /// What a command that succeeds says.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The only line of a command that succeeds.
    fn json(&self, arguments: &[&str]) -> Value {
        one_line(&self.says(&[&["--json"], arguments].concat()))
    }

    /// Why a command fails, as a person and as a program are told.
    fn refusal(&self, arguments: &[&str]) -> Value {
        let output = self.output(arguments);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let words = said(&output);
        let output = self.output(&[&["--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        let told = one_line(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(told["event"], "error");
        let message = told["message"].as_str().unwrap();
        let message = message.lines().next().unwrap();
        assert!(words.contains(message), "{words:?}, {message:?}");
        told
    }

    fn shell(&self, name: &str, script: &str) -> String {
        self.says(&["run", "--name", name, "--", "sh", "-c", script])
    }

    fn spawn(&self, name: &str, script: &str, options: &[&str]) -> String {
        let mut arguments = vec!["spawn", "--name", name];
        arguments.extend(options);
        arguments.extend(["--", "sh", "-c", script]);
        self.says(&arguments).trim().to_owned()
    }

    fn process(&self, name: &str, id: &str) -> Value {
        let id: u64 = id.parse().unwrap();
        let processes = self.json(&["ps", "--name", name]);
        let processes = processes.as_array().unwrap();
        let found = processes.iter().find(|process| process["id"] == id);
        found.expect("the process is in the list").clone()
    }

    fn names(&self) -> Vec<String> {
        let sessions = self.json(&["ls"]);
        let names = sessions.as_array().unwrap().iter();
        names
            .map(|session| session["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Warm ones outlive everything.
        if !std::thread::panicking() {
            for name in self.names() {
                self.says(&["rm", "--name", &name, "--force"]);
            }
            let left = fs::read_dir(self.0.path().join("home/sandboxes")).unwrap();
            assert_eq!(left.count(), 0);
            return;
        }
        let listed = self.output(&["ls", "--json"]).stdout;
        let listed: Value = serde_json::from_slice(&listed).unwrap_or_default();
        for session in listed.as_array().into_iter().flatten() {
            let name = session["name"].as_str().unwrap_or_default();
            self.output(&["rm", "--name", name, "--force"]);
        }
    }
}

fn one_line(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn finish(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, stdin) = (child.stdin.take().unwrap(), stdin.to_vec());
    // The program may end without reading it.
    let feeding = std::thread::spawn(move || drop(input.write_all(&stdin)));
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    output
}

fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_session_is_made_once_and_keeps_its_disk() {
    let home = Home::new();
    let mut open = vec!["open", "--name", "a", "--label", "project=demo"];
    open.extend(HOST);
    let opened = home.json(&open);
    assert_eq!(opened["event"], "session_opened");
    assert_eq!(
        (&opened["name"], &opened["isolation"], &opened["created"]),
        (&json!("a"), &json!("namespace"), &json!(true))
    );
    home.shell("a", "echo kept > /var/blink/memory/note");
    // Again, with the same options, and with none.
    assert_eq!(home.json(&open)["created"], false);
    assert_eq!(home.json(&["open", "--name", "a"])["created"], false);
    assert_eq!(home.shell("a", "cat /var/blink/memory/note"), "kept\n");
    let refusal = home.refusal(&["open", "--name", "a", "--memory-mib", "77"]);
    assert_eq!(refusal["kind"], "InvalidArgument");
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .contains("the memory in MiB is nothing, not 77")
    );
    let refusal = home.refusal(&["open", "--name", "a", "--image", "alpine:3.20"]);
    assert_eq!(refusal["kind"], "InvalidArgument");
    let listed = home.json(&["ls"]);
    assert_eq!(
        (
            &listed[0]["name"],
            &listed[0]["running"],
            &listed[0]["image"]
        ),
        (&json!("a"), &json!(false), &json!("host"))
    );
    assert_eq!(listed[0]["labels"], json!({"project": "demo"}));
    let table = home.says(&["ls"]);
    assert!(
        table.contains("NAME") && table.contains("stopped"),
        "{table}"
    );
}

#[test]
fn a_session_has_what_it_was_made_with() {
    let home = Home::new();
    let shared = home.file("shared.txt", b"from the host\n");
    let mount = format!("{}:/shared.txt:ro", shared.display());
    let mut open = vec![
        "open",
        "--name",
        "a",
        "--env",
        "COLOR=blue",
        "--workdir",
        "/usr",
    ];
    open.extend([
        "--mount",
        &mount,
        "--memory-mib",
        "300",
        "--idle-stop",
        "10m",
    ]);
    open.extend(["--publish", "0:8000"]);
    open.extend(HOST);
    home.says(&open);
    assert_eq!(
        home.shell("a", "echo $COLOR; pwd; cat /shared.txt"),
        "blue\n/usr\nfrom the host\n"
    );
    let output = home.output(&["run", "--name", "a", "--", "true"]);
    assert!(said(&output).contains("port 8000"), "{}", said(&output));
    let known = home.json(&["inspect", "--name", "a"]);
    assert_eq!(known["event"], "session_inspected");
    assert_eq!(
        (
            &known["resources"]["memory_mib"],
            &known["idle_stop_ms"],
            &known["network"]
        ),
        (&json!(300), &json!(600_000), &json!("none"))
    );
    assert_eq!(known["mounts"], json!([mount]));
    let page = home.says(&["inspect", "--name", "a"]);
    for words in ["300 MiB", "namespace", "10 minutes", &mount] {
        assert!(page.contains(words), "{page}");
    }
}

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
fn what_outlives_a_command_needs_a_warm_session() {
    let home = Home::with(&["a", "warm"]);
    for arguments in [
        &["spawn", "--name", "a", "--", "true"][..],
        &["start", "--name", "a"],
    ] {
        let refusal = home.refusal(arguments);
        assert_eq!(refusal["kind"], "InvalidArgument");
        assert!(refusal["message"].as_str().unwrap().contains("--warm"));
    }
    let stopped = home.json(&["stop", "--name", "warm"]);
    assert_eq!(
        (&stopped["event"], &stopped["was_running"]),
        (&json!("session_stopped"), &json!(true))
    );
    // A question starts nothing.
    assert_eq!(home.json(&["ps", "--name", "warm"]), json!([]));
    for task in ["attach", "logs", "wait", "kill"] {
        assert_eq!(
            home.refusal(&[task, "--name", "warm", "1"])["kind"],
            "NotFound"
        );
    }
    assert_eq!(home.json(&["stop", "--name", "warm"])["was_running"], false);
    let started = home.json(&["start", "--name", "warm"]);
    assert_eq!(
        (&started["event"], &started["was_running"]),
        (&json!("session_started"), &json!(false))
    );
    assert_eq!(home.json(&["start", "--name", "warm"])["was_running"], true);
    assert_eq!(home.json(&["inspect", "--name", "warm"])["running"], true);
    for task in ["attach", "logs", "wait", "kill"] {
        assert_eq!(
            home.refusal(&[task, "--name", "warm", "12345"])["kind"],
            "NotFound"
        );
    }
}

#[test]
fn checkpoints_are_a_tree() {
    let home = Home::with(&["a"]);
    let note = "/var/blink/memory/note";
    let checkpoint = |snapshot: &str| {
        home.shell("a", &format!("echo {snapshot} >> {note}"));
        home.json(&["checkpoint", "--name", "a", "--snapshot", snapshot])
    };
    let first = checkpoint("first");
    assert_eq!(
        (
            &first["event"],
            &first["name"],
            &first["snapshot"],
            &first["consistency"]
        ),
        (
            &json!("session_checkpoint"),
            &json!("a"),
            &json!("first"),
            &json!("stopped")
        )
    );
    assert_eq!(checkpoint("second")["parent"], "first");
    let restored = home.json(&["restore", "--name", "a", "--snapshot", "first"]);
    assert_eq!(
        (&restored["event"], &restored["snapshot"]),
        (&json!("session_restored"), &json!("first"))
    );
    assert_eq!(home.shell("a", &format!("cat {note}")), "first\n");
    checkpoint("third");
    let listed = home.json(&["list", "--name", "a"]);
    let found: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|each| {
            (
                each["name"].as_str().unwrap(),
                each["parent"].as_str(),
                each["current"] == true,
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("first", None, false),
            ("second", Some("first"), false),
            ("third", Some("first"), true)
        ]
    );
    let tree = home.says(&["list", "--name", "a"]);
    let starts: Vec<_> = tree
        .lines()
        .map(|line| line.split("  stopped").next().unwrap())
        .collect();
    assert_eq!(
        starts,
        ["a", "└─ first", "   ├─ second", "   └─ third"],
        "{tree}"
    );
    let removed = home.json(&["rm", "--name", "a", "--snapshot", "first"]);
    assert_eq!(removed["event"], "session_checkpoint_removed");
    let tree = home.says(&["list", "--name", "a"]);
    assert!(
        tree.contains("\n├─ second") && tree.contains("\n└─ third"),
        "{tree}"
    );
    let refusal = home.refusal(&["checkpoint", "--name", "a", "--snapshot", "third"]);
    assert_eq!(refusal["kind"], "AlreadyExists");
    for arguments in [
        &["restore", "--name", "a", "--snapshot", "none"][..],
        &["rm", "--name", "a", "--snapshot", "none"],
        &["fork", "--name", "a", "--snapshot", "none", "--as", "b"],
    ] {
        assert_eq!(home.refusal(arguments)["kind"], "NotFound");
    }
    let refusal = home.refusal(&["checkpoint", "--name", "a", "--snapshot", "a/b"]);
    assert_eq!(refusal["kind"], "InvalidArgument");
}

#[test]
fn a_warm_session_is_copied_while_it_runs() {
    let home = Home::with(&["warm"]);
    home.shell("warm", "echo one > /var/blink/memory/note");
    let id = home.spawn("warm", "sleep 1000", &[]);
    let made = home.json(&[
        "checkpoint",
        "--name",
        "warm",
        "--snapshot",
        "s",
        "--require-frozen",
    ]);
    assert_eq!(made["consistency"], "frozen");
    assert_eq!(home.process("warm", &id)["running"], true);
    home.shell("warm", "echo two > /var/blink/memory/note");
    let restored = home.json(&["restore", "--name", "warm", "--snapshot", "s"]);
    assert_eq!(restored["running"], true);
    assert_eq!(home.shell("warm", "cat /var/blink/memory/note"), "one\n");
}

#[test]
fn forks_go_their_own_way() {
    let home = Home::with(&["a"]);
    home.shell("a", "echo one > /var/blink/memory/note");
    home.says(&["checkpoint", "--name", "a", "--snapshot", "s"]);
    home.shell("a", "echo two > /var/blink/memory/note");
    let forked = home.json(&["fork", "--name", "a", "--snapshot", "s", "--as", "b"]);
    assert_eq!(
        (&forked["event"], &forked["name"], &forked["forked_from"]),
        (&json!("session_forked"), &json!("b"), &json!("a@s"))
    );
    home.says(&["fork", "--name", "a", "--as", "c"]);
    assert_eq!(home.names(), ["a", "b", "c"]);
    home.json(&["rm", "--name", "a"]);
    assert_eq!(home.shell("b", "cat /var/blink/memory/note"), "one\n");
    assert_eq!(home.shell("c", "cat /var/blink/memory/note"), "two\n");
    assert!(home.says(&["list", "--name", "b"]).contains("a@s"));
    let refusal = home.refusal(&["fork", "--name", "b", "--as", "c"]);
    assert_eq!(refusal["kind"], "AlreadyExists");
    let refusal = home.refusal(&["fork", "--name", "b", "--as", "-c"]);
    assert_eq!(refusal["kind"], "InvalidArgument");
    let pruned = home.json(&["prune"]);
    assert_eq!(pruned["event"], "sessions_pruned");
    assert!(pruned["freed_bytes"].is_number());
    assert_eq!(home.shell("b", "cat /var/blink/memory/note"), "one\n");
}

#[test]
fn what_nobody_needs_is_pruned() {
    let home = Home::with(&["a"]);
    let left = home.0.path().join("home/layers/0123456789ab");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("file"), vec![1; 100_000]).unwrap();
    let pruned = home.json(&["prune"]);
    assert!(
        pruned["freed_bytes"].as_u64().unwrap() >= 100_000,
        "{pruned}"
    );
    assert!(!left.exists());
    assert!(home.says(&["prune"]).contains("free again"));
}

#[test]
fn sessions_are_renamed_and_removed() {
    let home = Home::with(&["a", "warm"]);
    let renamed = home.json(&["rename", "--name", "a", "--as", "b"]);
    assert_eq!(
        (&renamed["event"], &renamed["name"], &renamed["old_name"]),
        (&json!("session_renamed"), &json!("b"), &json!("a"))
    );
    let refusal = home.refusal(&["rename", "--name", "b", "--as", "warm"]);
    assert_eq!(refusal["kind"], "AlreadyExists");
    let refusal = home.refusal(&["rm", "--name", "warm"]);
    assert_eq!(refusal["kind"], "Busy");
    assert!(refusal["message"].as_str().unwrap().contains("--force"));
    let removed = home.json(&["rm", "--name", "warm", "--force"]);
    assert_eq!(
        (&removed["event"], &removed["name"]),
        (&json!("session_removed"), &json!("warm"))
    );
    home.says(&["rm", "--name", "b"]);
    assert_eq!(home.json(&["ls"]), json!([]));
}

#[test]
fn files_are_copied_both_ways() {
    let home = Home::with(&["a"]);
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let file = home.file("data.bin", &bytes);
    let folder = home.0.path().join("folder");
    fs::create_dir_all(folder.join("inner")).unwrap();
    fs::write(folder.join("inner/x"), "x").unwrap();
    let here = |path: &Path| path.to_str().unwrap().to_owned();
    let copied = home.json(&["cp", &here(&file), "a:/var/"]);
    assert_eq!(
        (&copied["event"], &copied["name"], &copied["to"]),
        (&json!("session_copied"), &json!("a"), &json!("a:/var/"))
    );
    home.says(&["cp", &here(&folder), "a:/var"]);
    home.says(&["cp", &here(&folder), "a:/var/other"]);
    assert_eq!(
        home.shell("a", "cat /var/folder/inner/x /var/other/inner/x"),
        "xx"
    );
    let back = home.0.path().join("back.bin");
    home.says(&["cp", "a:/var/data.bin", &here(&back)]);
    assert!(fs::read(&back).unwrap() == bytes);
    home.says(&["cp", "a:/var/folder", "."]);
    home.says(&["cp", "a:/var/other", "./new"]);
    assert_eq!(
        fs::read_to_string(home.0.path().join("new/inner/x")).unwrap(),
        "x"
    );
    for (arguments, kind) in [
        (["cp", "a:/nothing", "."], "NotFound"),
        (["cp", "./nothing", "a:/var"], "NotFound"),
        (["cp", "data.bin", "a:/nothing/"], "NotFound"),
        (["cp", "a:/var/data.bin", "nothing/"], "NotFound"),
        (["cp", "data.bin", "none:/var"], "NotFound"),
        (["cp", "data.bin", "elsewhere"], "InvalidArgument"),
        (["cp", "a:/var", "a:/opt"], "InvalidArgument"),
    ] {
        assert_eq!(home.refusal(&arguments)["kind"], kind, "{arguments:?}");
    }
}

#[test]
fn archives_are_written_and_read_with_what_the_session_was() {
    let home = Home::new();
    let mut open = vec![
        "open",
        "--name",
        "a",
        "--label",
        "team=blue",
        "--env",
        "A=1",
    ];
    open.extend(HOST);
    home.says(&open);
    home.shell("a", "echo one > /var/blink/memory/note");
    home.says(&["checkpoint", "--name", "a", "--snapshot", "s"]);
    home.shell("a", "echo two > /var/blink/memory/note");
    let told = home.json(&["export", "--name", "a"]);
    assert_eq!(
        (&told["event"], &told["path"], &told["format"]),
        (
            &json!("session_exported"),
            &json!("a.boxlite"),
            &json!("boxlite")
        )
    );
    let export = [
        "export",
        "--name",
        "a",
        "--snapshot",
        "s",
        "--output",
        "s.boxlite",
    ];
    assert_eq!(home.json(&export)["snapshot"], "s");
    let words = home.says(&["export", "--name", "a", "--output", "again.boxlite"]);
    assert!(words.starts_with("wrote again.boxlite ("), "{words}");

    let isolated = ["--isolation", "namespace"];
    let import = [&["import", "a.boxlite", "--name", "b"][..], &isolated].concat();
    let told = home.json(&import);
    assert_eq!(
        (&told["event"], &told["image"], &told["warm"]),
        (&json!("session_imported"), &json!("host"), &json!(false))
    );
    assert_eq!(
        home.shell("b", "cat /var/blink/memory/note; echo $A"),
        "two\n1\n"
    );
    assert_eq!(
        home.json(&["inspect", "--name", "b"])["labels"],
        json!({"team": "blue"})
    );
    assert_eq!(home.refusal(&import)["kind"], "AlreadyExists");
    // Named by its file; what options say counts.
    let import = [&["import", "s.boxlite", "--env", "A=2"][..], &isolated].concat();
    home.says(&import);
    assert_eq!(
        home.shell("s", "cat /var/blink/memory/note; echo $A"),
        "one\n2\n"
    );
    // What no image can be made of says what can be done.
    let refusal = home.refusal(&["export", "--name", "a", "--oci", "--output", "x"]);
    assert_eq!(refusal["kind"], "Unsupported");
    assert!(!home.0.path().join("x").exists());
}

#[test]
fn a_session_becomes_an_image_that_runs() {
    let home = Home::new();
    let program = fs::read("/usr/bin/busybox").or_else(|_| fs::read("/bin/busybox"));
    let program = program.expect("there is no busybox here; `scripts/setup test` installs it");
    let layer = builder::LayerTar::new()
        .folder("work/", 0o777)
        .folder("tmp/", 0o777)
        .folder("bin/", 0o755)
        .file_with("bin/sh", 0o755, 0, &program);
    let image = home.0.path().join("base");
    builder::Layout::of(&image, &[builder::StoredLayer::gzip(layer)]);
    let namespace = ["--isolation", "namespace", "--image"];
    let open = [&["open", "--name", "a"][..], &namespace, &["./base"]].concat();
    home.says(&open);
    home.shell("a", "echo made > /tmp/file");
    let told = home.json(&["export", "--name", "a", "--oci"]);
    assert_eq!(
        (&told["event"], &told["path"], &told["format"]),
        (&json!("session_exported"), &json!("a.oci"), &json!("oci"))
    );
    assert!(told["size_bytes"].as_u64().unwrap() > 100_000, "{told}");
    home.says(&["export", "--name", "a", "--oci", "--output", "a.tar"]);
    for (name, image) in [("b", "./a.oci"), ("c", "./a.tar")] {
        let open = [&["open", "--name", name][..], &namespace, &[image]].concat();
        home.says(&open);
        assert_eq!(
            home.shell(name, "read line < /tmp/file; echo $line"),
            "made\n"
        );
    }
}

#[test]
fn a_session_of_another_command_is_busy() {
    let home = Home::with(&["a"]);
    let mut child = home
        .session(&["run", "--name", "a", "--", "sh", "-c", "echo ready; cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let output = home.output(&["rm", "--name", "a", "--force"]);
    assert_eq!(output.status.code(), Some(125));
    let words = said(&output);
    assert!(
        words.contains("another process") && words.contains(&child.id().to_string()),
        "{words}"
    );
    // What only looks does not wait.
    assert_eq!(home.json(&["ls"])[0]["running"], true);
    assert_eq!(home.json(&["list", "--name", "a"]), json!([]));
    drop(child.stdin.take());
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn bad_input_is_refused() {
    let home = Home::with(&["a"]);
    for arguments in [
        &["run", "--name", "none", "--", "true"][..],
        &["spawn", "--name", "none", "--", "true"],
        &["attach", "--name", "none", "1"],
        &["ps", "--name", "none"],
        &["logs", "--name", "none", "1"],
        &["wait", "--name", "none", "1"],
        &["kill", "--name", "none", "1"],
        &["checkpoint", "--name", "none", "--snapshot", "s"],
        &["restore", "--name", "none", "--snapshot", "s"],
        &["list", "--name", "none"],
        &["fork", "--name", "none", "--as", "b"],
        &["export", "--name", "none"],
        &["stop", "--name", "none"],
        &["start", "--name", "none"],
        &["rm", "--name", "none"],
        &["rename", "--name", "none", "--as", "b"],
        &["inspect", "--name", "none"],
    ] {
        let refusal = home.refusal(arguments);
        assert_eq!(refusal["kind"], "NotFound", "{arguments:?}");
        assert!(refusal["message"].as_str().unwrap().contains("none"));
    }
    for name in ["", "a b", "../x", "ü", "."] {
        let mut open = vec!["open", "--name", name];
        open.extend(HOST);
        assert_eq!(home.refusal(&open)["kind"], "InvalidArgument", "{name:?}");
    }
    for arguments in [
        &["run", "--name", "a"][..],
        &["run", "--name", "a", "--"],
        &["run", "--name", "a", "--tty", "--json", "--", "true"],
        &["spawn", "--name", "a"],
        &["attach", "--name", "a", "one"],
        &["kill", "--name", "a", "1", "--signal", "NONE"],
        &["open", "--name", "a", "--label", "x"],
        &["open", "--name", "a", "--idle-stop", "0"],
        &["fork", "--name", "a"],
        &["rm", "--name", "a", "--snapshot", "s", "--force"],
        &["rename", "--name", "a", "--as", "a b"],
        &["stop"],
        &["no-such-task"],
    ] {
        let output = home.output(arguments);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let script = home.output(&["run", "--name", "a", "no-such-script.py"]);
    assert!(
        said(&script).contains("no-such-script.py"),
        "{}",
        said(&script)
    );
    for arguments in [&["--help"][..], &["open", "--help"], &["run", "--help"]] {
        assert!(!home.says(arguments).is_empty());
    }
}
