//! Those who share a session, and are killed: tasks, handles and processes that use one machine at once. Each process is
//! this binary again, with a task of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blink_core::{Blink, Command, Error, ErrorKind, PublishedPort, Session, SessionBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::inside::Inside as _;
use crate::support::{TestBlink, blink, fails, isolation, ok, within};

const TASK: &str = "BLINK_TEST_SHARING_TASK";
const HOME: &str = "BLINK_TEST_SHARING_HOME";

const NAME: &str = "shared";

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(100);

/// Shorter than anybody who holds a session holds it here.
const NO_PATIENCE: Duration = Duration::from_millis(200);

fn described(blink: &Blink) -> SessionBuilder {
    blink.session(NAME).image("host").patience(PATIENCE)
}

async fn open(blink: &Blink) -> Session {
    ok(described(blink).open()).await
}

/// Another Blink of the same home, as another program would have it.
async fn beside(home: &Path) -> Blink {
    ok(Blink::builder().home(home).isolation(isolation()).build()).await
}

async fn says(session: &Session, script: &str) -> String {
    let output = ok(session.exec(Command::shell(script))).await;
    assert!(output.status.success(), "{script}: {output:?}");
    output.text().trim().to_owned()
}

async fn runs(blink: &Blink) -> bool {
    ok(blink.session_info(NAME)).await.running
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let begun = Instant::now();
    while !within(is_so()).await {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process of its own, which is killed with what it is dropped.
struct Sharer {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Sharer {
    fn start(task: &str, home: &Path) -> Sharer {
        Sharer::start_with(task, home, &[])
    }

    fn start_with(task: &str, home: &Path, variables: &[(&str, &str)]) -> Sharer {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let mut process = command
            .args([
                "--exact",
                "sharing::performs_its_task",
                "--ignored",
                "--nocapture",
            ])
            .env(TASK, task)
            .env(HOME, home)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Sharer { process, lines }
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it says next.
    fn said(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "it ended before it said anything"
            );
            if let Some((_, said)) = line.trim_end().split_once("says ") {
                return said.to_owned();
            }
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Tells it to go on, and waits for its end.
    fn end(mut self) {
        drop(self.process.stdin.take());
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        assert!(self.process.wait().unwrap().success(), "{rest}");
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn say(words: impl std::fmt::Display) {
    println!("says {words}");
}

async fn told_to_go_on() {
    let waiting = tokio::task::spawn_blocking(|| {
        let _ = std::io::stdin().read(&mut [0; 1]);
    });
    waiting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by other tests"]
async fn performs_its_task() {
    let Some(task) = std::env::var_os(TASK) else {
        return;
    };
    let home = PathBuf::from(std::env::var_os(HOME).unwrap());
    println!();
    let blink = beside(&home).await;
    match task.to_str().unwrap() {
        "hold" => {
            let session = open(&blink).await;
            let boot = says(&session, "cat /dev/shm/boot 2>/dev/null || echo none").await;
            say(boot);
            told_to_go_on().await;
        }
        "work" => work(&blink).await,
        "use for ever" => {
            let session = open(&blink).await;
            say("ready");
            loop {
                let output = session.exec(Command::shell("echo x >>/data/x; cat /data/kept"));
                let _ = output.await;
            }
        }
        "publish" => {
            let session = ok(described(&blink)
                .publish(PublishedPort::new(0, 8000))
                .open())
            .await;
            say(ok(session.sandbox()).await.published()[0].host);
            told_to_go_on().await;
        }
        "checkpoint" => {
            let session = ok(blink.take_session(NAME, PATIENCE)).await;
            let made = within(session.checkpoint("one")).await;
            say(format!("{made:?}"));
        }
        "outlive a removal" => {
            let session = open(&blink).await;
            say("ready");
            told_to_go_on().await;
            for _ in 0..2 {
                let error = within(session.exec(Command::new("true")))
                    .await
                    .unwrap_err();
                say(error.kind().name());
            }
        }
        other => panic!("there is no task {other}"),
    }
}

/// Commands, files, and followed output, as much as is said.
async fn work(blink: &Blink) {
    const COMMANDS: usize = 25;
    let me = std::process::id();
    let session = Arc::new(open(blink).await);
    say(says(&session, "cat /dev/shm/boot").await);
    told_to_go_on().await;
    let files = ok(session.files()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..COMMANDS {
        let (session, files) = (session.clone(), files.clone());
        tasks.spawn(async move {
            let path = format!("/data/{me}-{number}");
            ok(files.write(&path, path.clone())).await;
            assert_eq!(says(&session, &format!("cat {path}")).await, path);
            let code = i32::try_from(number).unwrap();
            let script = format!("echo a; echo b >&2; sleep 0.01; echo c; exit {code}");
            let mut process = ok(session.spawn(Command::shell(&script))).await;
            let mut stdout = process.take_stdout().unwrap();
            let mut followed = Vec::new();
            while let Some(chunk) = ok(stdout.chunk()).await {
                followed.extend_from_slice(&chunk);
            }
            assert_eq!(followed, b"a\nc\n");
            assert_eq!(ok(process.wait()).await.code, code);
            ok(process.release()).await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // The one that another process has started.
    let processes = ok(blink.session_processes(NAME)).await;
    let list = ok(processes.list()).await;
    let common = list
        .iter()
        .find(|process| process.key.as_deref() == Some("common"))
        .unwrap();
    assert_eq!(ok(processes.wait(common.id)).await.code, 7);
    assert_eq!(ok(processes.logs(common.id)).await.stdout, b"common\n");
}

/// A session with a mark of its machine's one life.
async fn marked() -> (TestBlink, Session) {
    let blink = blink().await;
    let session = open(&blink).await;
    says(
        &session,
        "mkdir -p /data; echo kept >/data/kept; head -c 9 /dev/urandom | base64 >/dev/shm/boot",
    )
    .await;
    (blink, session)
}

#[tokio::test]
async fn eight_processes_use_one_machine_at_once() {
    let (blink, session) = marked().await;
    let boot = says(&session, "cat /dev/shm/boot").await;
    let script = "echo common; while ! [ -e /data/go ]; do sleep 0.02; done; exit 7";
    let common = ok(session.spawn(Command::shell(script).key("common"))).await;
    let mut sharers: Vec<Sharer> = (0..8)
        .map(|_| Sharer::start("work", blink.home()))
        .collect();
    for sharer in &mut sharers {
        assert_eq!(sharer.said(), boot);
    }
    // All at once, and this process with them.
    let ending = tokio::task::spawn_blocking(|| {
        let threads: Vec<_> = sharers
            .into_iter()
            .map(|sharer| std::thread::spawn(move || sharer.end()))
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    for number in 0..20 {
        let made = ok(session.checkpoint(format!("c{number}"))).await;
        assert_eq!(made.consistency, blink_core::Consistency::Frozen);
    }
    says(&session, "touch /data/go").await;
    within(ending).await.unwrap();
    assert_eq!(says(&session, "ls /data | grep -c -- -").await, "200");
    assert_eq!(says(&session, "cat /dev/shm/boot").await, boot);
    drop(common);
    ok(session.remove()).await;
}

#[tokio::test]
async fn the_machine_outlives_who_started_it_and_ends_with_its_last_user() {
    let blink = blink().await;
    let mut starter = Sharer::start("hold", blink.home());
    assert_eq!(starter.said(), "none");
    let session = Arc::new(open(&blink).await);
    says(&session, "mkdir -p /data; echo mine >/dev/shm/boot").await;
    let script = "touch /data/begun; while ! [ -e /data/go ]; do sleep 0.02; done; echo done";
    let user = session.clone();
    let running = tokio::spawn(async move { user.exec(Command::shell(script)).await });
    says(&session, "while ! [ -e /data/begun ]; do sleep 0.02; done").await;
    starter.kill();
    says(
        &session,
        "test \"$(cat /dev/shm/boot)\" = mine && touch /data/go",
    )
    .await;
    assert_eq!(ok(async { running.await.unwrap() }).await.text(), "done\n");
    let session = Arc::into_inner(session).unwrap();
    // Who comes now finds the same machine, and keeps it when this process lets go of it.
    let mut heir = Sharer::start("hold", blink.home());
    assert_eq!(heir.said(), "mine");
    ok(session.close()).await;
    assert!(runs(&blink).await);
    heir.kill();
    until("the machine's end", || async { !runs(&blink).await }).await;
    let session = open(&blink).await;
    assert_eq!(says(&session, "cat /dev/shm/boot || echo new").await, "new");
    ok(session.remove()).await;
}

#[tokio::test]
async fn busy_names_everybody_and_never_this_process_as_another() {
    let (blink, session) = marked().await;
    // However often this process opens it, it is one.
    let again = ok(blink.take_session(NAME, Duration::ZERO)).await;
    assert_eq!(says(&again, "cat /data/kept").await, "kept");
    let mut first = Sharer::start("hold", blink.home());
    let mut second = Sharer::start("hold", blink.home());
    first.said();
    second.said();
    drop((session, again));
    let session = ok(blink.take_session(NAME, NO_PATIENCE)).await;
    let named = |error: &Error| {
        let message = error.message();
        for pid in [first.pid(), second.pid()] {
            assert!(message.contains(&format!("(pid {pid}: ")), "{message}");
        }
        assert!(
            message.contains(NAME) && message.contains("has had it open"),
            "{message}"
        );
        let me = format!("pid {}", std::process::id());
        assert!(!message.contains(&me), "{message}");
    };
    ok(session.start()).await;
    ok(session.checkpoint("begun")).await;
    named(&fails(ErrorKind::Busy, session.stop()).await);
    named(&fails(ErrorKind::Busy, session.restore("begun")).await);
    named(&fails(ErrorKind::Busy, session.remove()).await);
    // A second Blink of this process is told of as that.
    let other = beside(blink.home()).await;
    let theirs = ok(other.take_session(NAME, NO_PATIENCE)).await;
    let error = fails(ErrorKind::Busy, theirs.remove()).await;
    named_here(&error);
    drop(theirs);
    first.end();
    // It waits for those who leave.
    let patient = ok(blink.take_session(NAME, PATIENCE)).await;
    let stopping = tokio::spawn(async move { patient.stop().await });
    second.end();
    ok(async { stopping.await.unwrap() }).await;
    ok(session.remove()).await;
}

fn named_here(error: &Error) {
    let me = format!("this very process (pid {})", std::process::id());
    assert!(error.message().contains(&me), "{error}");
}

#[tokio::test]
async fn who_uses_a_session_that_is_removed_by_force_is_told() {
    let (blink, session) = marked().await;
    let mut sharer = Sharer::start("outlive a removal", blink.home());
    assert_eq!(sharer.said(), "ready");
    ok(session.remove_by_force()).await;
    drop(sharer.process.stdin.take());
    // The end of the machine may be seen first.
    let first = sharer.said();
    assert!(
        ["SandboxDied", "NotFound"].contains(&first.as_str()),
        "{first}"
    );
    assert_eq!(sharer.said(), "NotFound");
    sharer.end();
    assert!(ok(blink.sessions()).await.is_empty());
    assert_eq!(
        std::fs::read_dir(blink.home().join("sandboxes"))
            .unwrap()
            .count(),
        0
    );
}

/// What one changes, the other sees with its next call.
#[tokio::test]
async fn a_change_of_one_is_seen_by_the_other() {
    let (blink, session) = marked().await;
    let other = beside(blink.home()).await;
    let theirs = open(&other).await;
    ok(session.checkpoint("one")).await;
    says(&theirs, "echo two >/data/kept").await;
    assert_eq!(says(&session, "cat /data/kept").await, "two");
    ok(theirs.checkpoint("two")).await;
    assert_eq!(ok(session.checkpoints()).await.len(), 2);
    ok(theirs.rename("other")).await;
    assert_eq!(session.info().await.name, "other");
    ok(theirs.rename(NAME)).await;
    // The machine ends with a program of its own, so that both have handles and no machine.
    let sandbox = ok(session.sandbox()).await;
    drop(sandbox);
    drop(theirs);
    ok(session.stop()).await;
    let theirs = ok(other.take_session(NAME, PATIENCE)).await;
    ok(theirs.restore("one")).await;
    assert_eq!(says(&session, "cat /data/kept").await, "kept");
    // A checkpoint of a session that does not run gives it another head: nobody goes on with the old one.
    drop(theirs);
    ok(session.stop()).await;
    let theirs = ok(other.take_session(NAME, PATIENCE)).await;
    ok(theirs.checkpoint("three")).await;
    says(&session, "echo later >/data/kept").await;
    assert_eq!(says(&theirs, "cat /data/kept").await, "later");
    drop(theirs);
    ok(session.restore("three")).await;
    assert_eq!(says(&session, "cat /data/kept").await, "kept");
    ok(session.remove()).await;
}

/// The steps at which a process can be killed while it copies the disk of a machine that stands still.
#[tokio::test]
async fn a_machine_goes_on_whose_holder_is_killed() {
    let (blink, session) = marked().await;
    let steps = blink.home().join("steps");
    let steps = steps.to_str().unwrap();
    let list = [("BLINK_TEST_STEPS", steps)];
    let mut sharer = Sharer::start_with("checkpoint", blink.home(), &list);
    assert!(sharer.said().starts_with("Ok"));
    drop(sharer);
    ok(session.remove_checkpoint("one")).await;
    let passed = std::fs::read_to_string(steps).unwrap();
    let passed: Vec<_> = passed
        .lines()
        .filter_map(|line| line.strip_prefix("passed "))
        .collect();
    let still = passed
        .iter()
        .position(|step| *step == "NamespaceDiskCopied")
        .unwrap();
    let fault = format!("kill {still}");
    let mut killed =
        Sharer::start_with("checkpoint", blink.home(), &[("BLINK_TEST_FAULT", &fault)]);
    assert!(!killed.process.wait().unwrap().success());
    assert_eq!(says(&session, "cat /data/kept").await, "kept");
    let made = ok(session.checkpoint("one")).await;
    assert_eq!(made.consistency, blink_core::Consistency::Frozen);
    // Also where nobody else has a link at that moment, but for one who comes.
    let mut killed =
        Sharer::start_with("checkpoint", blink.home(), &[("BLINK_TEST_FAULT", &fault)]);
    ok(session.remove_checkpoint("one")).await;
    assert!(!killed.process.wait().unwrap().success());
    let processes = ok(blink.session_processes(NAME)).await;
    assert!(ok(processes.list()).await.is_empty());
    drop(processes);
    ok(session.remove()).await;
}

#[tokio::test]
async fn sharers_that_are_killed_at_random_leave_a_whole_session() {
    let rounds = std::env::var("BLINK_TEST_ROUNDS").map_or(12, |rounds| rounds.parse().unwrap());
    let blink = blink().await;
    let session = open(&blink).await;
    says(&session, "mkdir -p /data; echo kept >/data/kept").await;
    ok(session.checkpoint("begun")).await;
    drop(session);
    // No chance that cannot be repeated: a fixed row of moments.
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut sharers: Vec<Sharer> = Vec::new();
    for _ in 0..rounds {
        while sharers.len() < 3 {
            sharers.push(Sharer::start("use for ever", blink.home()));
        }
        tokio::time::sleep(Duration::from_millis(random(150))).await;
        let index = usize::try_from(random(3)).unwrap();
        sharers.swap_remove(index).kill();
    }
    let session = open(&blink).await;
    assert_eq!(says(&session, "cat /data/kept").await, "kept");
    sharers.iter_mut().for_each(Sharer::kill);
    ok(session.restore("begun")).await;
    assert_eq!(
        says(&session, "cat /data/kept; ls /data").await,
        "kept\nkept"
    );
    ok(session.close()).await;
    until("the machine's end", || async { !runs(&blink).await }).await;
    let session = ok(blink.take_session(NAME, PATIENCE)).await;
    ok(session.remove()).await;
    assert_eq!(
        std::fs::read_dir(blink.home().join("sandboxes"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn ports_are_published_by_one_and_go_on_when_it_is_killed() {
    const SERVER: &str = "import socket\ns = socket.create_server(('127.0.0.1', 8000))\nwhile True:\n  c = s.accept()[0]\n  c.sendall(b'hello')\n  c.close()\n";
    async fn greets(address: &str) -> bool {
        let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
            return false;
        };
        let _ = stream.shutdown().await;
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got).await;
        got == b"hello"
    }
    let blink = blink().await;
    let mut publisher = Sharer::start("publish", blink.home());
    let address = publisher.said();
    let session = open(&blink).await;
    let server = ok(session.spawn(Command::new("python3").args(["-c", SERVER]))).await;
    assert_eq!(
        ok(session.sandbox()).await.published()[0].host.to_string(),
        address
    );
    until("the server", || greets(&address)).await;
    publisher.kill();
    until("another publisher", || greets(&address)).await;
    drop(server);
    ok(session.remove()).await;
}

#[tokio::test]
async fn an_idle_session_stops_once_nobody_uses_it() {
    let blink = blink().await;
    let idle = Duration::from_millis(400);
    let session = ok(described(&blink).idle_stop(idle).open()).await;
    says(&session, "echo mine >/dev/shm/boot").await;
    let other = beside(blink.home()).await;
    let theirs = ok(other.take_session(NAME, PATIENCE)).await;
    // This one has a link and does nothing, while the other works.
    let mut begun = Instant::now();
    let mut called = begun;
    while begun.elapsed() < 4 * idle {
        let last = std::mem::replace(&mut called, Instant::now());
        let said = says(
            &theirs,
            "cat /dev/shm/boot || echo mine | tee /dev/shm/boot >&2",
        )
        .await;
        match last.elapsed() < idle / 2 {
            true => assert_eq!(said, "mine"),
            // There was no processor for it, and so nobody worked.
            false => begun = Instant::now(),
        }
    }
    until("the stop", || async { !runs(&blink).await }).await;
    assert_eq!(says(&session, "cat /dev/shm/boot || echo new").await, "new");
    drop(theirs);
    ok(session.remove()).await;
}

#[tokio::test]
async fn a_call_that_meets_an_idle_stop_starts_the_session_again() {
    let blink = blink().await;
    let idle = Duration::from_millis(40);
    let session = ok(described(&blink).idle_stop(idle).open()).await;
    let other = beside(blink.home()).await;
    let theirs = ok(other.take_session(NAME, PATIENCE)).await;
    let mut stops = 0;
    for round in 0..60 {
        for user in [&session, &theirs] {
            // Around the moment at which either of them stops it.
            tokio::time::sleep(idle + Duration::from_millis(round % 20)).await;
            let was = says(
                user,
                "cat /dev/shm/boot || { echo new; echo old >/dev/shm/boot; }",
            )
            .await;
            stops += usize::from(was == "new");
        }
    }
    assert!(stops > 1, "it was never stopped");
    drop(theirs);
    ok(session.remove()).await;
}

#[tokio::test]
async fn a_thousand_ended_processes_are_kept_and_no_captured_one() {
    const KEPT: usize = 1024;
    let (_blink, session) = marked().await;
    let sandbox = ok(session.sandbox()).await;
    let mut ids = Vec::new();
    // A long command line each, so that the list is longer than an answer.
    let long = "x".repeat(3000);
    for number in 0..KEPT + 5 {
        let script = format!("echo {number}; exit {}; {long}", number % 100);
        let mut process = ok(sandbox.spawn(Command::shell(script))).await;
        ids.push(process.id());
        ok(process.wait()).await;
        ok(sandbox.exec(Command::new("true"))).await;
    }
    let list = ok(sandbox.processes()).await;
    let listed: Vec<u64> = list.iter().map(|process| process.id).collect();
    assert_eq!(listed, ids[5..]);
    for number in [5, 500, KEPT + 4] {
        let process = ok(sandbox.process(ids[number], 0, 0)).await;
        let output = ok(process.wait_with_output()).await;
        assert_eq!(output.text(), format!("{number}\n"));
        assert_eq!(output.status.code, i32::try_from(number % 100).unwrap());
    }
    fails(ErrorKind::NotFound, sandbox.process(ids[4], 0, 0)).await;
    let process = ok(sandbox.process(ids[700], 0, 0)).await;
    ok(process.release()).await;
    assert_eq!(ok(sandbox.processes()).await.len(), KEPT - 1);
    drop(sandbox);
    ok(session.remove()).await;
}
