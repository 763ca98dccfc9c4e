//! What all modules use: sandboxes in homes of their own, and awaits that end.

use std::future::Future;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blink_core::{
    Blink, Command, Error, ErrorKind, Files, IsolationChoice, Output, Sandbox, SandboxBuilder,
};
use tempfile::TempDir;

use crate::{shared, stopped};

/// Nothing here takes so long unless it hangs. On an emulated host everything takes some thirty times longer.
pub(crate) fn patience() -> Duration {
    match Engine::chosen() {
        Engine::Namespace => Duration::from_secs(60),
        Engine::Microvm => Duration::from_secs(150),
    }
}

pub(crate) const ENGINE_VARIABLE: &str = "BLINK_TEST_ENGINE";

/// Set for tests that start some hundred machines, which takes an hour on an emulated host: to the first step to try, 0 for
/// all of them.
const PATIENT_VARIABLE: &str = "BLINK_TEST_PATIENTLY";

/// The first step to try, where somebody has the patience.
pub(crate) fn patient_from() -> Option<u32> {
    let first = std::env::var_os(PATIENT_VARIABLE)?;
    let first = first.to_str().and_then(|first| first.parse().ok());
    Some(first.unwrap_or_else(|| panic!("{PATIENT_VARIABLE} is no step")))
}

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

    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Namespace => "namespace",
            Engine::Microvm => "microvm",
        }
    }

    pub(crate) fn isolation(self) -> IsolationChoice {
        match self {
            Engine::Namespace => IsolationChoice::Namespace,
            Engine::Microvm => IsolationChoice::Microvm,
        }
    }
}

/// What not every engine offers on every machine. `tests/lacks` knows the same of this machine, and tests that need it are in
/// modules that say so by their name: whoever runs them leaves those out that cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Users beside root.
    Users,
    /// This process may make mounts of its own.
    HostMounts,
    /// A process may have mounts that nobody else sees.
    PrivateMounts,
    /// Several processes use one home at once.
    SharedHome,
    /// Sandboxes start in milliseconds, so that a test may start some hundred; or none is started.
    ManyStarts,
    /// Programs run on the host's kernel, which is closed to them as far as can be; elsewhere they have one of their own,
    /// of which they may be root.
    HostKernel,
}

impl Capability {
    pub(crate) fn is_there(self) -> bool {
        let root = rustix::process::geteuid().is_root();
        match (Engine::chosen(), self) {
            (Engine::Namespace, Capability::Users) | (_, Capability::HostMounts) => root,
            (_, Capability::Users) => true,
            (_, Capability::PrivateMounts) => crate::faults::private_mounts()
                .arg("true")
                .status()
                .is_ok_and(|status| status.success()),
            (engine, Capability::SharedHome | Capability::HostKernel) => {
                engine == Engine::Namespace
            }
            (engine, Capability::ManyStarts) => {
                engine == Engine::Namespace
                    || !stopped::machines_start()
                    || patient_from().is_some()
            }
        }
    }
}

/// A test that needs what is not here has failed, and not passed.
pub(crate) fn require(capability: Capability) {
    assert!(
        capability.is_there(),
        "{capability:?} is not to be had here: scripts/test and tests/vm-lab/run-tests leave out what needs it"
    );
}

/// How often something is done that is done often: less where each time takes seconds.
pub(crate) fn rounds(many: u32) -> u32 {
    match Engine::chosen() {
        Engine::Namespace => many,
        Engine::Microvm => many.div_ceil(10),
    }
}

/// Too short for what is to be ended, long enough for it to begin.
pub(crate) fn short() -> Duration {
    match Engine::chosen() {
        Engine::Namespace => Duration::from_millis(300),
        Engine::Microvm => Duration::from_secs(5),
    }
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
        let entries = std::fs::read_dir(self.home().join("sandboxes"));
        for folder in entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
        {
            if folder.join("detached").exists()
                && let Some(pid) = find_host_pid(&folder)
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        // What a pool has let go of last still ends.
        self.remove_disks();
    }
}

impl TestBlink {
    /// An overlay has folders that their owner, where it is not root, may not even look into.
    fn remove_disks(&self) {
        let home = std::fs::File::open(self.home()).unwrap();
        let is_removed = |name: &str| {
            let removed = blink_archive::remove_tree(home.as_fd(), name.as_ref());
            removed.is_ok() || !self.home().join(name).exists()
        };
        for _ in 0..100 {
            if is_removed("layers") && is_removed("sandboxes") {
                return;
            }
            // What has been ended still ends.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The folders of the sandboxes that there are.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        folders(self.home())
    }

    /// A sandbox to make.
    pub(crate) fn sandbox(&self) -> SandboxBuilder {
        describe_in(&self.blink)
    }

    pub(crate) async fn create(
        &self,
        describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder,
    ) -> TestSandbox {
        let sandbox = ok(describe(self.sandbox()).create()).await;
        TestSandbox::new(sandbox, Origin::Borrowed)
    }
}

/// Processes of a sandbox in which a fork bomb goes off; two hundred commands of two processes each fit.
const FORK_BOMB_ENDS_AT: u64 = 450;

/// A sandbox to make, no larger than tests need: an emulated host boots a small machine in half the time.
pub(crate) fn describe_in(blink: &Blink) -> SandboxBuilder {
    match Engine::chosen() {
        Engine::Namespace => blink.sandbox(),
        Engine::Microvm => {
            let small = blink.sandbox().cpus(1.0).memory_mib(1024);
            small.processes(FORK_BOMB_ENDS_AT)
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

/// A sandbox of a test.
pub(crate) struct TestSandbox {
    /// There until the end.
    sandbox: Option<Sandbox>,
    origin: Origin,
}

/// Where a test's sandbox is from, and where it goes.
pub(crate) enum Origin {
    /// From a home that somebody else holds.
    Borrowed,
    /// From a home of its own, which goes after it.
    Own(#[expect(dead_code, reason = "held until the sandbox is gone")] TestBlink),
    /// From those that tests use one after another; what they were like is known since a moment.
    Shared(shared::Moment),
}

impl Deref for TestSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        self.sandbox.as_ref().unwrap()
    }
}

impl Drop for TestSandbox {
    fn drop(&mut self) {
        let origin = std::mem::replace(&mut self.origin, Origin::Borrowed);
        match (self.sandbox.take(), origin) {
            (Some(sandbox), Origin::Shared(since)) if !std::thread::panicking() => {
                shared::give_back(sandbox, since);
            }
            // The home goes after what is in it.
            (sandbox, origin) => {
                drop(sandbox);
                drop(origin);
            }
        }
    }
}

impl TestSandbox {
    pub(crate) fn new(sandbox: Sandbox, origin: Origin) -> TestSandbox {
        TestSandbox {
            sandbox: Some(sandbox),
            origin,
        }
    }

    pub(crate) fn files(&self) -> Files {
        self.deref().files().unwrap()
    }

    pub(crate) async fn remove(mut self) {
        ok(self.sandbox.take().unwrap().remove()).await;
    }

    /// Runs a shell script.
    pub(crate) async fn sh(&self, script: &str) -> Output {
        self.run(Command::shell(script)).await
    }

    pub(crate) async fn run(&self, command: Command) -> Output {
        ok(self.exec(command)).await
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

/// A running sandbox with no wishes, as it was made.
pub(crate) async fn sandbox() -> TestSandbox {
    match Engine::chosen() {
        Engine::Namespace => sandbox_with(|builder| builder).await,
        Engine::Microvm => shared::sandbox().await,
    }
}

/// A running sandbox that nobody else uses before or after.
pub(crate) async fn sandbox_with(
    describe: impl FnOnce(SandboxBuilder) -> SandboxBuilder,
) -> TestSandbox {
    match Engine::chosen() {
        Engine::Namespace => {
            let blink = blink().await;
            let sandbox = ok(describe(blink.sandbox()).create()).await;
            TestSandbox::new(sandbox, Origin::Own(blink))
        }
        Engine::Microvm => {
            let blink = shared::blink().await;
            let sandbox = ok(describe(describe_in(&blink)).create()).await;
            TestSandbox::new(sandbox, Origin::Borrowed)
        }
    }
}

/// A running sandbox in which a fork bomb soon comes to its end.
pub(crate) async fn sandbox_for_bombs() -> TestSandbox {
    match Engine::chosen() {
        Engine::Namespace => sandbox_with(|builder| builder.processes(FORK_BOMB_ENDS_AT)).await,
        Engine::Microvm => sandbox().await,
    }
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

/// The process on the host that holds the sandbox: the agent, or the machine that it is in.
pub(crate) fn host_pid(folder: &Path) -> i32 {
    find_host_pid(folder).unwrap()
}

pub(crate) fn find_host_pid(folder: &Path) -> Option<i32> {
    let holder = match Engine::chosen() {
        Engine::Namespace => "agent",
        Engine::Microvm => "process",
    };
    let record = std::fs::read(folder.join("record.json")).ok()?;
    let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
    i32::try_from(record[holder]["pid"].as_i64()?).ok()
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
