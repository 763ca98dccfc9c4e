//! What the tests share.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes on a busy machine: what is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// This machine's programs, with the isolation that works everywhere.
pub(crate) const HOST: [&str; 4] = ["--isolation", "namespace", "--image", "host"];

pub(crate) struct Home(pub(crate) tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    /// With sessions of these names; those that begin with `warm` are.
    pub(crate) fn with(names: &[&str]) -> Home {
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

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// `blink session …`.
    pub(crate) fn session(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blink"));
        command
            .arg("session")
            .args(arguments)
            .env("BLINK_HOME", self.0.path().join("home"))
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.session(arguments).output().unwrap()
    }

    /// What a command that succeeds says.
    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The only line of a command that succeeds.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        one_line(&self.says(&[&["--json"], arguments].concat()))
    }

    /// Why a command fails, as a person and as a program are told.
    pub(crate) fn refusal(&self, arguments: &[&str]) -> Value {
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

    pub(crate) fn shell(&self, name: &str, script: &str) -> String {
        self.says(&["run", "--name", name, "--", "sh", "-c", script])
    }

    pub(crate) fn spawn(&self, name: &str, script: &str, options: &[&str]) -> String {
        let mut arguments = vec!["spawn", "--name", name];
        arguments.extend(options);
        arguments.extend(["--", "sh", "-c", script]);
        self.says(&arguments).trim().to_owned()
    }

    pub(crate) fn process(&self, name: &str, id: &str) -> Value {
        let id: u64 = id.parse().unwrap();
        let processes = self.json(&["ps", "--name", name]);
        let processes = processes.as_array().unwrap();
        let found = processes.iter().find(|process| process["id"] == id);
        found.expect("the process is in the list").clone()
    }

    pub(crate) fn names(&self) -> Vec<String> {
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

pub(crate) fn one_line(text: &str) -> Value {
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(text).unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn finish(command: &mut Command, stdin: &[u8]) -> Output {
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

pub(crate) fn wait(child: &mut Child) -> ExitStatus {
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

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}
