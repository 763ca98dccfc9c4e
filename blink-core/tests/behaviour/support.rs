//! What all modules use: sandboxes in homes of their own, and awaits that end.

use std::future::Future;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blink_core::{
    Blink, Command, Error, ErrorKind, Files, IsolationChoice, Output, Sandbox, SandboxBuilder,
};
use tempfile::TempDir;

/// Nothing here takes so long unless it hangs. On an emulated host everything takes some thirty times longer.
fn patience() -> Duration {
    match Engine::chosen() {
        Engine::Namespace => Duration::from_secs(60),
        Engine::Microvm => Duration::from_secs(300),
    }
}

const ENGINE_VARIABLE: &str = "BLINK_TEST_ENGINE";

/// The engine that the suite runs against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Namespace,
    Microvm,
}

impl Engine {
    pub(crate) fn chosen() -> Engine {
        match std::env::var(ENGINE_VARIABLE).as_deref() {
            Err(_) | Ok("namespace") => Engine::Namespace,
            Ok("microvm") => Engine::Microvm,
            Ok(other) => panic!("{ENGINE_VARIABLE} names {other:?}, which is no engine"),
        }
    }

    pub(crate) fn isolation(self) -> IsolationChoice {
        match self {
            Engine::Namespace => IsolationChoice::Namespace,
            Engine::Microvm => IsolationChoice::Microvm,
        }
    }
}

/// What not every engine offers on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Users beside root.
    Users,
    /// Sandboxes that outlive the process that made them.
    Detached,
    /// Programs of a sandbox are processes of the host, which can be looked at there.
    HostProcesses,
    /// This process may make mounts of its own.
    HostMounts,
}

impl Capability {
    fn is_there(self) -> bool {
        let root = rustix::process::geteuid().is_root();
        match (Engine::chosen(), self) {
            (Engine::Namespace, Capability::Users | Capability::HostMounts) => root,
            (Engine::Namespace, Capability::Detached | Capability::HostProcesses) => true,
            (Engine::Microvm, Capability::Users | Capability::Detached) => true,
            (Engine::Microvm, Capability::HostMounts) => root,
            (Engine::Microvm, Capability::HostProcesses) => false,
        }
    }
}

/// Whether a test can run here; says so where it cannot.
pub(crate) fn has(capability: Capability) -> bool {
    let there = capability.is_there();
    if !there {
        eprintln!("skipped: {capability:?} is not to be had here");
    }
    there
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(patience(), future).await {
        Ok(value) => value,
        Err(_) => panic!("it hangs"),
    }
}

/// Waits for what must succeed.
pub(crate) async fn ok<T>(future: impl Future<Output = Result<T, Error>>) -> T {
    match within(future).await {
        Ok(value) => value,
        Err(error) => panic!("{error:?}"),
    }
}

/// Waits for what must fail, and compares the kind.
pub(crate) async fn fails<T>(
    kind: ErrorKind,
    future: impl Future<Output = Result<T, Error>>,
) -> Error {
    match within(future).await {
        Ok(_) => panic!("it succeeded, and should have failed with {kind:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error:?}");
            error
        }
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < patience(), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Blink with a home of its own.
pub(crate) struct TestBlink {
    blink: Blink,
    home: TempDir,
}

impl Deref for TestBlink {
    type Target = Blink;

    fn deref(&self) -> &Blink {
        &self.blink
    }
}

impl Drop for TestBlink {
    /// Ends what a test that has failed leaves detached: its home goes, and nothing would find it again.
    fn drop(&mut self) {
        let Ok(entries) = std::fs::read_dir(self.home().join("sandboxes")) else {
            return;
        };
        for folder in entries.flatten().map(|entry| entry.path()) {
            let record = std::fs::read(folder.join("machine.json")).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
            let agent = record["agent"]["pid"].as_i64();
            let agent =
                agent.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
            if let Some(agent) = agent
                && folder.join("detached").exists()
            {
                let _ = rustix::process::kill_process(agent, rustix::process::Signal::KILL);
            }
        }
    }
}

impl TestBlink {
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The folders of the sandboxes that there are.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        folders(self.home())
    }

    pub(crate) async fn create(
        self,
        describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder,
    ) -> TestSandbox {
        let sandbox = ok(describe(self.blink.sandbox()).create()).await;
        TestSandbox {
            sandbox,
            blink: self,
        }
    }
}

pub(crate) fn folders(home: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(home.join("sandboxes"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

pub(crate) async fn blink_in(home: &Path) -> Blink {
    ok(Blink::builder()
        .home(home)
        .isolation(Engine::chosen().isolation())
        .build())
    .await
}

pub(crate) async fn blink() -> TestBlink {
    let home = tempfile::Builder::new()
        .prefix("blink-test-")
        .tempdir()
        .unwrap();
    TestBlink {
        blink: blink_in(home.path()).await,
        home,
    }
}

/// A sandbox, and what it lives in.
pub(crate) struct TestSandbox {
    // Dropped first: its home must be there until it is gone.
    sandbox: Sandbox,
    pub(crate) blink: TestBlink,
}

impl Deref for TestSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl TestSandbox {
    pub(crate) fn files(&self) -> Files {
        self.sandbox.files().unwrap()
    }

    pub(crate) fn into_parts(self) -> (Sandbox, TestBlink) {
        (self.sandbox, self.blink)
    }

    /// Runs a shell script.
    pub(crate) async fn sh(&self, script: &str) -> Output {
        self.run(Command::shell(script)).await
    }

    pub(crate) async fn run(&self, command: Command) -> Output {
        ok(self.sandbox.exec(command)).await
    }

    /// Runs a Python program.
    pub(crate) async fn python(&self, program: &str) -> Output {
        self.run(python(program)).await
    }

    /// Runs a shell script that must succeed; its output without the last line's end.
    pub(crate) async fn says(&self, script: &str) -> String {
        let output = self.sh(script).await;
        assert!(output.status.success(), "{script}: {}", shown(&output));
        output.text().trim_end_matches('\n').to_owned()
    }

    /// The processes of the sandbox but the agent and the one that looks, as numbers and names.
    pub(crate) async fn processes_seen(&self) -> Vec<String> {
        let look = "import os\nfor pid in sorted(filter(str.isdigit, os.listdir('/proc')), key=int):\n  \
                    if int(pid) in (1, os.getpid()): continue\n  try: print(pid, open(f'/proc/{pid}/stat').read())\n  \
                    except OSError: pass";
        let output = self.python(look).await;
        assert!(output.status.success(), "{}", shown(&output));
        output.text().lines().map(str::to_owned).collect()
    }
}

pub(crate) fn python(program: &str) -> Command {
    Command::new("python3").arg("-c").arg(program)
}

pub(crate) fn shown(output: &Output) -> String {
    format!(
        "{:?} {:?} {:?}",
        output.status,
        String::from_utf8_lossy(&output.stdout[..output.stdout.len().min(2000)]),
        String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(2000)])
    )
}

/// A running sandbox with no wishes.
pub(crate) async fn sandbox() -> TestSandbox {
    sandbox_with(|builder| builder).await
}

pub(crate) async fn sandbox_with(
    describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder,
) -> TestSandbox {
    blink().await.create(describe).await
}

/// Bytes that do not repeat, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A file of the host, hashed by the host's own program: the tests are not optimised.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// The agent's number on the host, from the sandbox's record.
pub(crate) fn agent_pid(folder: &Path) -> i32 {
    let record = std::fs::read(folder.join("machine.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    i32::try_from(record["agent"]["pid"].as_i64().unwrap()).unwrap()
}

pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(')').unwrap().1.trim_start();
        !state.starts_with(['Z', 'X'])
    })
}

pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
