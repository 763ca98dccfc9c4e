//! The command as its users meet it.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes on a busy machine: what is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs this machine's programs: no test of this file is about images.
const RUN: [&str; 5] = ["run", "--image", "host", "--isolation", "namespace"];

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn blink(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blink"));
        command
            .env("BLINK_HOME", self.path().join("home"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a program of this machine, unless the arguments name another image.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.blink();
        command.args(["run", "--isolation", "namespace"]);
        if !arguments.contains(&"--image") {
            command.args(["--image", "host"]);
        }
        finish(command.args(arguments), b"")
    }

    /// The result line of a program.
    fn result(&self, arguments: &[&str]) -> (Value, i32) {
        let output = self.run(&[&["--json"], arguments].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        (
            serde_json::from_str(&text).unwrap(),
            output.status.code().unwrap(),
        )
    }

    fn is_clean(&self) -> bool {
        std::fs::read_dir(self.path().join("home/sandboxes"))
            .is_ok_and(|folders| folders.count() == 0)
    }
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

fn wait(child: &mut Child) -> std::process::ExitStatus {
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

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_command_runs_and_its_exit_status_is_the_commands() {
    let home = Home::new();
    let output = home.run(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(7), &b"out\n"[..])
    );
    assert!(said(&output).contains("err\n"));
    assert_eq!(
        home.run(&["--", "sh", "-c", "kill -9 $$"]).status.code(),
        Some(137)
    );
    assert!(home.is_clean());
}

#[test]
fn a_script_is_copied_and_run_with_its_arguments() {
    let home = Home::new();
    let script = home.file("hello world.py", b"import sys\nprint(sys.argv[1:])\n");
    let output = home.run(&[script.to_str().unwrap(), "a b", "--json"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "['a b', '--json']\n",
        "{}",
        said(&output)
    );
    let program = home.file("program", b"#!/bin/sh\necho \"$0 ran\"\n");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let output = home.run(&[program.to_str().unwrap()]);
    assert!(
        String::from_utf8_lossy(&output.stdout).ends_with("program ran\n"),
        "{}",
        said(&output)
    );
}

#[test]
fn bytes_stream_through_both_ways() {
    let home = Home::new();
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let output = finish(home.blink().args(RUN).args(["--", "cat"]), &bytes);
    assert!(
        output.stdout == bytes,
        "{} bytes came back",
        output.stdout.len()
    );
}

#[test]
fn a_large_input_arrives_whole() {
    let home = Home::new();
    let bytes = vec![b'x'; 200 << 20];
    let output = finish(home.blink().args(RUN).args(["--", "wc", "-c"]), &bytes);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        (200 << 20).to_string()
    );
}

#[test]
fn a_timeout_kills_the_tree_and_says_so() {
    let home = Home::new();
    let shared = home.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).unwrap();
    let mount = format!("{}:/shared", shared.display());
    let script = "echo before; setsid sh -c 'sleep 3; touch /shared/survived' & sleep 1000";
    let output = home.run(&[
        "--timeout",
        "500ms",
        "--mount",
        &mount,
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(124), &b"before\n"[..])
    );
    assert!(said(&output).contains("time was over"), "{}", said(&output));
    std::thread::sleep(Duration::from_secs(4));
    assert!(!shared.join("survived").exists());
}

/// The parent of a process, as long as there is that process.
fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// The agent of the only sandbox that a command has.
fn agent_of(command: &Child) -> u32 {
    let is_agent = |pid: &u32| {
        let is_guest = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name == "blink-guest\n")
        };
        // The launcher is its parent.
        is_guest(pid)
            && parent(*pid).is_some_and(|parent| is_guest(&parent))
            && std::iter::successors(Some(*pid), |pid| parent(*pid)).any(|pid| pid == command.id())
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .find(is_agent)
        .expect("the agent runs")
}

#[test]
fn a_timeout_holds_though_the_agent_says_nothing_any_more() {
    let home = Home::new();
    let begun = home.path().join("shared/begun");
    let shared = begun.parent().unwrap();
    std::fs::create_dir(shared).unwrap();
    std::fs::set_permissions(shared, PermissionsExt::from_mode(0o777)).unwrap();
    let mount = format!("{}:/shared", shared.display());
    let mut command = home.blink();
    command
        .args(RUN)
        .args(["--timeout", "3s", "--mount", &mount]);
    command.args(["--", "sh", "-c", "touch /shared/begun; sleep 1000"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while !begun.exists() {
        assert!(since.elapsed() < PATIENCE, "it does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    let agent = agent_of(&child).to_string();
    let stopped = Command::new("kill").args(["-STOP", &agent]).status();
    assert!(stopped.unwrap().success());
    let status = wait(&mut child);
    let mut said = String::new();
    let stderr = child.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(!status.success() && status.code().is_some(), "{status:?}");
    assert!(said.contains("did not end a program"), "{said}");
    assert!(home.is_clean());
    assert_eq!(
        parent(agent.parse().unwrap()),
        None,
        "the agent is still there"
    );
}

#[test]
fn json_tells_everything_in_one_line() {
    let home = Home::new();
    let (result, status) = home.result(&["--", "sh", "-c", "printf 'a\\377b'; echo e >&2; exit 3"]);
    assert_eq!(status, 3);
    assert_eq!(result["event"], "execution_result");
    assert_eq!(result["exit_code"], 3);
    assert_eq!(
        (&result["stdout"], &result["stdout_base64"]),
        (&Value::from("a\u{fffd}b"), &Value::from("Yf9i"))
    );
    assert_eq!(
        (&result["stderr"], result.get("stderr_base64")),
        (&Value::from("e\n"), None)
    );
    assert_eq!(
        (&result["timed_out"], &result["truncated"]),
        (&Value::from(false), &Value::from(false))
    );
    assert_eq!(result["isolation"], "namespace");
    assert!(result["duration_ms"].is_number());
    let (result, status) = home.result(&["--timeout", "200ms", "--", "sleep", "100"]);
    assert_eq!((&result["timed_out"], status), (&Value::from(true), 124));
}

#[test]
fn a_program_reports_its_own_result_but_neither_its_exit_code_nor_its_isolation() {
    let home = Home::new();
    let line = r#"{"event":"execution_result","stdout":"mine","exit_code":5,"isolation":"microvm","timed_out":true}"#;
    for (end, code, timed_out) in [
        ("exit 0", 0, false),
        ("exit 3", 3, false),
        ("kill -9 $$", 137, false),
        ("sleep 1000", 124, true),
    ] {
        let script = format!("echo noise; echo '{line}'; {end}");
        let mut arguments = vec!["--", "sh", "-c", script.as_str()];
        if timed_out {
            arguments.splice(0..0, ["--timeout", "2s"]);
        }
        let (result, status) = home.result(&arguments);
        assert_eq!(status, code, "{end}");
        assert_eq!(result["stdout"], "mine", "{end}");
        assert_eq!(result["claimed_exit_code"], 5, "{end}");
        if !timed_out {
            assert_eq!(result["exit_code"], code, "{end}");
        }
        assert_ne!(result["exit_code"], 5, "{end}");
        assert_eq!(result["timed_out"], timed_out, "{end}");
        assert_eq!(result["isolation"], "namespace", "{end}");
    }
    let (honest, _) = home.result(&["--", "true"]);
    assert!(honest.get("claimed_exit_code").is_none());
}

#[test]
fn options_reach_the_sandbox() {
    let home = Home::new();
    let file = home.file("seen", b"content");
    let mount = format!("{}:/mnt/seen:ro", file.display());
    let script = "echo $A $PWD $(cat /mnt/seen) $(nproc) $(hostname); echo x > /mnt/seen";
    let output = home.run(&[
        "--env",
        "A=b c",
        "--workdir",
        "/tmp",
        "--mount",
        &mount,
        "--cpus",
        "1",
        "--hostname",
        "build.example",
        "--memory-mib",
        "256",
        "--disk-mib",
        "64",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "b c /tmp content 1 build.example\n",
        "{}",
        said(&output)
    );
    assert!(said(&output).contains("Read-only"));
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
}

#[test]
fn a_published_port_is_reached_from_this_machine() {
    use std::io::{BufRead, BufReader, Read};
    let home = Home::new();
    let server = "import socket\ns = socket.create_server(('127.0.0.1', 8000))\nprint('ready', flush=True)\n\
                  c, _ = s.accept()\nc.sendall(c.recv(100) + b'!')\nc.recv(1)";
    let mut child = home
        .blink()
        .args(RUN)
        .args(["--publish", "0:8000", "--", "python3", "-c", server])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = |stream: &mut dyn BufRead| {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    };
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    assert_eq!(line(&mut BufReader::new(stdout)), "ready\n");
    let told = line(&mut BufReader::new(stderr));
    let address = told
        .strip_prefix("blink: ")
        .and_then(|told| told.strip_suffix(" leads to port 8000 of the sandbox\n"))
        .unwrap_or_else(|| panic!("{told}"));

    // While it has the port, nobody else gets it.
    let second = home.run(&["-p", &format!("{address}:80"), "--", "true"]);
    assert_eq!(second.status.code(), Some(125));
    assert!(said(&second).contains(address), "{}", said(&second));

    let mut client = std::net::TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello!");
    drop(client);
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(home.is_clean());
}

#[test]
fn isolation_is_never_weakened_silently() {
    let home = Home::new();
    let refused = finish(home.blink().args(["run", "--", "true"]), b"");
    assert_eq!(refused.status.code(), Some(125));
    assert!(
        said(&refused).contains("--isolation auto"),
        "{}",
        said(&refused)
    );
    let auto = finish(
        home.blink().args([
            "run",
            "--image",
            "host",
            "--isolation",
            "auto",
            "--",
            "true",
        ]),
        b"",
    );
    assert_eq!(auto.status.code(), Some(0), "{}", said(&auto));
    assert!(
        said(&auto).contains("isolation: namespace"),
        "{}",
        said(&auto)
    );
}

#[test]
fn bad_input_is_refused_by_name() {
    let home = Home::new();
    let folder = home.path().to_str().unwrap().to_owned();
    let cases: &[(&[&str], &str)] = &[
        (&["/nowhere/agent.py"], "/nowhere/agent.py"),
        (&[&folder], &folder),
        (&["--image", "", "--", "true"], "image"),
        (
            &["--offline", "--image", "alpine:3.20", "--", "true"],
            "alpine",
        ),
        (&["--image", "./missing.tar", "--", "true"], "missing.tar"),
        (&["--timeout", "-1", "--", "true"], "-1"),
        (&["--timeout", "soon", "--", "true"], "soon"),
        (&["--memory-mib", "-5", "--", "true"], "-5"),
        (&["--cpus", "0", "--", "true"], "0"),
        (&["--hostname", "a_b", "--", "true"], "a_b"),
        (&["--disk-mib", "0", "--", "true"], "disk"),
        (&["--env", "=x", "--", "true"], "environment"),
        (&["--mount", "/nowhere:/mnt", "--", "true"], "/nowhere"),
        (&["--mount", "nonsense", "--", "true"], "nonsense"),
        (&["--publish", "8080", "--", "true"], "8080:80"),
        (&["-p", "80:70000", "--", "true"], "70000"),
        (&["-p", "80:0", "--", "true"], "80:0"),
        (&["-p", "here:80:80", "--", "true"], "here"),
        (&["-p", "192.0.2.1:0:80", "--", "true"], "192.0.2.1"),
        (
            &["-p", "4000:80", "-p", "4000:81", "--", "true"],
            "127.0.0.1:4000",
        ),
        (
            &["--allow-host", "http://pypi.org", "--", "true"],
            "http://pypi.org",
        ),
        (&["--allow-host", "pypi.org", "--", "true"], "micro-VMs"),
        (
            &[
                "--network",
                "host",
                "--allow-host",
                "pypi.org",
                "--",
                "true",
            ],
            "pypi.org",
        ),
        (&["--workdir", "/nowhere", "--", "true"], "/nowhere"),
        (&["--user", "nobody-here", "--", "true"], "nobody-here"),
        (&["--tty", "--", "true"], "terminal"),
    ];
    for (arguments, named) in cases {
        let output = home.run(arguments);
        let code = output.status.code().unwrap();
        assert!(
            matches!(code, 2 | 125),
            "{arguments:?} exits with {code}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains(named),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let output = finish(
        home.blink()
            .args(["run", "--isolation", "strong", "--", "true"]),
        b"",
    );
    assert!(
        !output.status.success() && said(&output).contains("strong"),
        "{}",
        said(&output)
    );
    let output = home.run(&["--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(said(&output).contains("no-such-program"));
    let output = home.run(&["--", "/etc/passwd"]);
    assert_eq!(output.status.code(), Some(126), "{}", said(&output));
    assert!(home.is_clean());
}

#[test]
fn an_environment_is_as_long_as_the_kernel_takes() {
    let home = Home::new();
    let value = "x".repeat(100_000);
    let mut command = home.blink();
    command.args(RUN);
    for index in 0..15 {
        command.args(["--env", &format!("V{index}={value}")]);
    }
    let output = finish(command.args(["--", "sh", "-c", "env | wc -c"]), b"");
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let length: usize = text.trim().parse().unwrap();
    assert!(length > 15 * value.len(), "{length}");
    assert!(home.is_clean());
}

#[test]
fn signals_are_passed_on_and_nothing_is_left() {
    let home = Home::new();
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = home
        .blink()
        .args(RUN)
        .args(["--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(wait(&mut child).code(), Some(9));
    assert!(home.is_clean());
}

#[test]
fn a_reader_that_leaves_ends_the_program() {
    let home = Home::new();
    let mut child = home
        .blink()
        .args(RUN)
        .args(["--", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(!wait(&mut child).success());
    assert!(home.is_clean());
}

#[test]
fn a_terminal_is_a_terminal() {
    let home = Home::new();
    // `script` gives the command a terminal of its own.
    let blink = env!("CARGO_BIN_EXE_blink");
    let line = format!(
        "{blink} run --image host --isolation namespace --tty -- sh -c 'tty; test -t 0 && echo yes'"
    );
    let output = finish(
        Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("BLINK_HOME", home.path().join("home")),
        b"",
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("/dev/pts/") && text.contains("yes"),
        "{text} {}",
        said(&output)
    );
    assert!(home.is_clean());
}

#[test]
fn doctor_tells_what_works() {
    let home = Home::new();
    let output = finish(home.blink().arg("doctor"), b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("namespace") && text.contains("microvm"),
        "{text}"
    );
    assert!(text.contains("Hypervisor: "), "{text}");
    let output = finish(home.blink().args(["doctor", "--json"]), b"");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let hypervisor = &report["hypervisor"];
    // Either it works, or the reason is told.
    assert_eq!(
        hypervisor["usable"].as_bool(),
        Some(hypervisor["problem"].is_null()),
        "{report}"
    );
    // In a user namespace in which no further ones may be made.
    let forbidden = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" doctor";
    let output = finish(
        Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", forbidden])
            .arg(env!("CARGO_BIN_EXE_blink"))
            .env("BLINK_HOME", home.path().join("none")),
        b"",
    );
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("max_user_namespaces"));
}

#[test]
fn help_and_completions_are_there() {
    let home = Home::new();
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["completions", "bash"],
        &["--version"],
    ] {
        let output = finish(home.blink().args(arguments), b"");
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{arguments:?}"
        );
    }
}
