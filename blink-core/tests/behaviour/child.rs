//! Tests that need a host process of their own start this binary again, with what it is to do.

use std::io::BufRead;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use blink_core::{Blink, Error};

use crate::inside::Inside as _;
use crate::session::describe;
use crate::support::{Engine, blink_in, describe_in, noise, ok, rounds};

const TASK: &str = "BLINK_TEST_TASK";
const HOME: &str = "BLINK_TEST_HOME";

/// This binary again, to do a task in a home.
pub(crate) fn command(task: &str, home: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "child::performs_its_task",
            "--ignored",
            "--nocapture",
        ])
        .env(TASK, task)
        .env(HOME, home)
        // Whatever an engine's own parts have to say, a program that has Blink in it is not to say.
        .env("RUST_LOG", "debug")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0);
    command
}

/// Starts a task, and waits until it has said `ready` and something.
pub(crate) fn start(task: &str, home: &Path) -> (Child, String) {
    let mut child = command(task, home).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.find_map(|line| {
        let line = line.unwrap();
        line.split_once("ready ").map(|(_, said)| said.to_owned())
    });
    // The test harness has more to say when the task is over, and fails where nobody hears it.
    std::thread::spawn(move || lines.for_each(drop));
    (
        child,
        said.unwrap_or_else(|| panic!("{task} ended before it was ready")),
    )
}

/// Runs a task to its end; what it reported.
pub(crate) fn report(mut command: Command) -> Vec<String> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let noise = String::from_utf8_lossy(&output.stderr);
    assert!(noise.trim().is_empty(), "{noise}");
    text.lines()
        .filter_map(|line| Some(line.split_once("report ")?.1.to_owned()))
        .collect()
}

fn tell(result: Result<(), Error>) {
    match result {
        Ok(()) => println!("report ok"),
        Err(error) => println!(
            "report {} {}",
            error.kind().name(),
            error.message().replace('\n', " ")
        ),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by other tests"]
async fn performs_its_task() {
    let Some(task) = std::env::var_os(TASK) else {
        return;
    };
    let home = std::path::PathBuf::from(std::env::var_os(HOME).unwrap());
    // The test harness prints the test's name before, without a line's end.
    println!();
    match task.to_str().unwrap() {
        "detached" => make_detached(&home).await,
        "three" => make_three(&home).await,
        "churn" => churn(&home).await,
        "hold" => hold(&home).await,
        "one shot" => tell(one_shot(&home).await),
        "fill" => fill(&home).await,
        "export to full" => export_to_full(&home).await,
        "hold session" => hold_session(&home).await,
        "warm session" => make_warm_session(&home).await,
        "change session" => crate::faults::perform(&home).await,
        "survive full disks" => crate::faults::perform_on_full_disks(&home).await,
        "share a pool" => crate::pool::share(&home).await,
        "claim from a pool" => crate::pool::claim_another(&home).await,
        "make with a key" => crate::pool::make_with_key(&home).await,
        "keep a pool" => crate::pool::keep(&home).await,
        "churn sessions" => churn_sessions(&home).await,
        other => panic!("unknown task {other}"),
    }
}

async fn one_shot(home: &Path) -> Result<(), Error> {
    let isolation = Engine::chosen().isolation();
    let blink = Blink::builder()
        .home(home)
        .isolation(isolation)
        .build()
        .await?;
    let sandbox = describe_in(&blink).create().await?;
    let output = sandbox.exec(blink_core::Command::new("true")).await?;
    assert!(output.status.success());
    sandbox.remove().await
}

async fn make_detached(home: &Path) {
    let blink = blink_in(home).await;
    let sandbox = ok(describe_in(&blink).detached().create()).await;
    let script = "echo one; while ! [ -e /tmp/go ]; do sleep 0.05; done; echo two; exit 5";
    let process = ok(sandbox.spawn(blink_core::Command::shell(script).key("kept"))).await;
    ok(sandbox.files().unwrap().write("/tmp/file", "kept")).await;
    println!("ready {} {}", sandbox.id(), process.id());
    drop((process, sandbox, blink));
}

async fn make_three(home: &Path) {
    let blink = blink_in(home).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let sandbox = ok(describe_in(&blink).create()).await;
        let command = blink_core::Command::shell("setsid sleep 54321 & sleep 54321");
        kept.push((ok(sandbox.spawn(command)).await, sandbox));
    }
    println!("ready .");
    std::future::pending::<()>().await;
}

async fn hold(home: &Path) {
    let blink = blink_in(home).await;
    let ids = blink.sandboxes();
    let _sandbox = ok(blink.open(&ids[0])).await;
    println!("ready .");
    std::future::pending::<()>().await;
}

async fn churn(home: &Path) {
    for round in 0..rounds(15) {
        let blink = blink_in(home).await;
        let first = ok(describe_in(&blink).create()).await;
        let second = ok(describe_in(&blink).create()).await;
        for sandbox in [&first, &second] {
            let command = blink_core::Command::shell(format!("echo {round}"));
            assert_eq!(ok(sandbox.exec(command)).await.text(), format!("{round}\n"));
        }
        ok(first.remove()).await;
        ok(second.remove()).await;
    }
    tell(Ok(()));
}

async fn hold_session(home: &Path) {
    let blink = blink_in(home).await;
    let session = ok(describe(&blink, "held").open()).await;
    let script = "echo kept >/var/blink/memory/file; sync /var/blink/memory/file /var/blink/memory";
    ok(session.exec(blink_core::Command::shell(script))).await;
    println!("ready .");
    std::future::pending::<()>().await;
}

async fn make_warm_session(home: &Path) {
    let blink = blink_in(home).await;
    let session = ok(describe(&blink, "warm").env("A", "1").warm(true).open()).await;
    let script =
        "echo one; touch /tmp/begun; while ! [ -e /tmp/go ]; do sleep 0.05; done; echo two; exit 5";
    let process = ok(session.spawn(blink_core::Command::shell(script).key("job"))).await;
    println!("ready {}", process.id());
    std::future::pending::<()>().await;
}

async fn churn_sessions(home: &Path) {
    for round in 0..15 {
        let blink = blink_in(home).await;
        let name = format!("shared-{}", round % 3);
        let opening = describe(&blink, &name).patience(std::time::Duration::from_secs(50));
        let session = ok(opening.open()).await;
        let script = "echo line >> /var/blink/memory/lines";
        let output = ok(session.exec(blink_core::Command::shell(script))).await;
        assert!(output.status.success());
    }
    tell(Ok(()));
}

/// To `full` in the home, where there is less room than the archive needs.
async fn export_to_full(home: &Path) {
    let blink = blink_in(home).await;
    let session = ok(describe(&blink, "one").open()).await;
    let files = ok(session.files()).await;
    ok(files.write("/large", noise(4 << 20))).await;
    let folder = home.join("full");
    tell(session.export(folder.join("archive")).await);
    let left = std::fs::read_dir(&folder).unwrap().count();
    println!("report {left} left");
    tell(
        session
            .exec(blink_core::Command::new("true"))
            .await
            .map(drop),
    );
    ok(session.remove()).await;
}

/// On a disk that is nearly full: each step may fail, and must say so.
async fn fill(home: &Path) {
    let isolation = Engine::chosen().isolation();
    let built = Blink::builder()
        .home(home)
        .isolation(isolation)
        .build()
        .await;
    let blink = match built {
        Ok(blink) => blink,
        Err(error) => return tell(Err(error)),
    };
    let sandbox = match describe_in(&blink).create().await {
        Ok(sandbox) => sandbox,
        Err(error) => return tell(Err(error)),
    };
    let files = sandbox.files().unwrap();
    tell(files.write("/tmp/large", vec![1; 64 << 20]).await);
    tell(files.write("/tmp/small", "small").await);
    let output = sandbox
        .exec(blink_core::Command::shell(
            "ls -A /tmp; head -c 64000000 /dev/zero > /tmp/x || echo full",
        ))
        .await;
    match output {
        Ok(output) => println!("report {}", output.text().replace('\n', " ")),
        Err(error) => tell(Err(error)),
    }
    tell(sandbox.remove().await);
}
