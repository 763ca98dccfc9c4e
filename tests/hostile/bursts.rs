//! Callers that ask for everything at once: whatever their number, each call is answered.

use std::sync::Arc;
use std::time::Duration;

use blink_core::{Command, ErrorKind, Result, Sandbox};
use tokio::task::JoinSet;

use crate::support::{TestBlink, blink, fails, ok, within};

/// More than the link, the agent and the sandbox take at once.
const BURST: usize = 10_000;

/// Nothing here takes so long unless it hangs; a machine that is busy with other suites takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);

async fn sandbox(blink: &TestBlink) -> Arc<Sandbox> {
    Arc::new(ok(blink.sandbox().create()).await)
}

/// One call of each kind in turn.
#[derive(Clone, Copy)]
enum Call {
    Exec,
    Write,
    Stat,
    Mixed,
}

async fn call(sandbox: &Sandbox, call: Call, number: usize) -> Result<()> {
    match (call, number % 3) {
        (Call::Exec, _) | (Call::Mixed, 0) => {
            let output = sandbox.exec(Command::new("true")).await?;
            assert!(output.status.success(), "{:?}", output.status);
        }
        (Call::Write, _) | (Call::Mixed, 1) => {
            let path = format!("/tmp/{}", number % 100);
            sandbox.files()?.write(path, "some bytes").await?;
        }
        (Call::Stat, _) | (Call::Mixed, _) => {
            sandbox.files()?.stat("/usr").await?;
        }
    }
    Ok(())
}

async fn all_are_answered(sandboxes: &[Arc<Sandbox>], kind: Call, count: usize) {
    let mut calls = JoinSet::new();
    for number in 0..count {
        let sandbox = sandboxes[number % sandboxes.len()].clone();
        calls.spawn(async move { call(&sandbox, kind, number).await });
    }
    let mut answered = 0;
    let all = async {
        while let Some(result) = calls.join_next().await {
            result.unwrap().unwrap();
            answered += 1;
        }
    };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        panic!("{} of {count} calls are unanswered", count - answered);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_programs_at_once_all_end() {
    let blink = blink().await;
    all_are_answered(&[sandbox(&blink).await], Call::Exec, BURST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_writes_at_once_are_all_done() {
    let blink = blink().await;
    all_are_answered(&[sandbox(&blink).await], Call::Write, BURST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_of_each_kind_at_once_are_all_answered() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    all_are_answered(std::slice::from_ref(&sandbox), Call::Stat, BURST).await;
    all_are_answered(&[sandbox], Call::Mixed, BURST).await;
}

/// The benchmark does it with 1,000 on each of 20.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_on_several_sandboxes_are_all_answered() {
    let blink = blink().await;
    let mut sandboxes = Vec::new();
    for _ in 0..5 {
        sandboxes.push(sandbox(&blink).await);
    }
    all_are_answered(&sandboxes, Call::Exec, 2_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_threads_at_once_are_all_answered() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let runtime = tokio::runtime::Handle::current();
    let calling = tokio::task::spawn_blocking(move || {
        std::thread::scope(|scope| {
            for number in 0..1_000 {
                let (sandbox, runtime) = (sandbox.clone(), runtime.clone());
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, move || {
                        for round in 0..3 {
                            let call = call(&sandbox, Call::Mixed, number + round);
                            runtime.block_on(call).unwrap();
                        }
                    })
                    .unwrap();
            }
        });
    });
    tokio::time::timeout(PATIENCE, calling)
        .await
        .expect("calls are unanswered")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_programs_run_beside_each_other_and_are_killed_at_once() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let mut running = Vec::new();
    for _ in 0..300 {
        running.push(ok(sandbox.spawn(Command::new("sleep").arg("1000"))).await);
    }
    // A burst that waits for its turn is no reason for a kill to wait.
    let mut burst = JoinSet::new();
    for number in 0..6_000 {
        let sandbox = sandbox.clone();
        burst.spawn(async move { call(&sandbox, Call::Exec, number).await });
    }
    tokio::task::yield_now().await;
    for process in &mut running {
        ok(process.kill()).await;
        assert_eq!(ok(process.wait()).await.signal, Some(9));
    }
    while let Some(result) = burst.join_next().await {
        result.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_are_given_up_at_once_are_all_gone() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let mut calls = JoinSet::new();
    for _ in 0..900 {
        let sandbox = sandbox.clone();
        calls.spawn(async move { sandbox.exec(Command::new("sleep").arg("1000")).await });
    }
    let count = Command::shell("grep -lsx sleep /proc/[0-9]*/comm | wc -l");
    while ok(sandbox.exec(count.clone())).await.text() != "900\n" {}
    calls.abort_all();
    while ok(sandbox.exec(count.clone())).await.text() != "0\n" {}
}

/// Takes every process that there may be, again and again. A shell would end where it gets none.
const FILL: &str = "
import os, time
while True:
    try:
        if os.fork() == 0:
            time.sleep(1000)
            os._exit(0)
    except OSError:
        time.sleep(0.001)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_on_a_sandbox_whose_processes_are_used_up_is_answered() {
    let blink = blink().await;
    let sandbox = Arc::new(ok(blink.sandbox().processes(40).create()).await);
    let full = ok(sandbox.spawn(Command::new("python3").args(["-c", FILL]))).await;
    let mut calls = JoinSet::new();
    for number in 0..500 {
        let sandbox = sandbox.clone();
        calls.spawn(async move { call(&sandbox, Call::Mixed, number).await });
    }
    while let Some(result) = within(calls.join_next()).await {
        if let Err(error) = result.unwrap() {
            assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
        }
    }
    ok(full.kill()).await;
    all_are_answered(&[sandbox], Call::Exec, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_is_full_says_so_and_goes_on_when_it_is_not() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let mut running = JoinSet::new();
    // More than the agent runs at once.
    for _ in 0..1_100 {
        let sandbox = sandbox.clone();
        running.spawn(async move { sandbox.exec(Command::new("sleep").arg("1000")).await });
    }
    // One with a timeout is over, with or without its turn.
    let command = Command::new("sleep").arg("1000");
    match within(sandbox.exec(command.timeout(Duration::from_millis(500)))).await {
        Ok(output) => assert!(output.status.timed_out),
        Err(error) => assert!(
            [ErrorKind::Timeout, ErrorKind::ResourceExhausted].contains(&error.kind()),
            "{error:?}"
        ),
    }
    let error = within(async {
        loop {
            if let Err(error) = sandbox.exec(Command::new("true")).await {
                break error;
            }
        }
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    running.shutdown().await;
    all_are_answered(&[sandbox], Call::Exec, 500).await;
}

/// It ended by itself, or when its time was over: never both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_that_comes_at_the_end_is_one_outcome() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let mut runs = JoinSet::new();
    for number in 0..3_000_u64 {
        let sandbox = sandbox.clone();
        runs.spawn(async move {
            let timeout = Duration::from_micros(100 + number % 50 * 100);
            let output = sandbox.exec(Command::new("true").timeout(timeout)).await?;
            let status = output.status;
            match status.timed_out {
                true => assert_eq!((status.code, status.signal), (137, Some(9)), "{timeout:?}"),
                false => assert_eq!((status.code, status.signal), (0, None), "{timeout:?}"),
            }
            Ok::<_, blink_core::Error>(())
        });
        // A few at once: then ends and deadlines are near each other.
        if runs.len() >= 4
            && let Some(result) = runs.join_next().await
        {
            result.unwrap().unwrap();
        }
    }
    while let Some(result) = runs.join_next().await {
        result.unwrap().unwrap();
    }
}

#[tokio::test]
async fn arguments_and_environment_are_as_long_as_the_kernel_takes() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let mut many = Command::shell("env | wc -l");
    for number in 0..2_000 {
        many = many.env(format!("V{number}"), "x".repeat(500));
    }
    let output = ok(sandbox.exec(many)).await;
    let lines: usize = output.text().trim().parse().unwrap();
    assert!(lines >= 2_000, "{lines}");

    let count = |arguments: Vec<String>| {
        Command::shell("printf %s \"$*\" | wc -c")
            .arg("sh")
            .args(arguments)
    };
    let longest = (128 << 10) - 1;
    let output = ok(sandbox.exec(count(vec!["x".repeat(longest)]))).await;
    assert_eq!(output.text().trim(), longest.to_string());
    // 1.9 MiB in all.
    let pieces = vec!["x".repeat(100_000); 19];
    let output = ok(sandbox.exec(count(pieces))).await;
    assert_eq!(output.text().trim(), (19 * 100_000 + 18).to_string());

    for (command, words) in [
        (count(vec!["x".repeat(longest + 1)]), "argument 4"),
        (
            Command::new("true").env("LONG", "x".repeat(1 << 20)),
            "LONG",
        ),
        (count(vec!["x".repeat(100_000); 42]), "the arguments have"),
        (count(vec!["x".repeat(100_000); 100]), "the arguments take"),
    ] {
        let error = fails(ErrorKind::InvalidArgument, sandbox.exec(command)).await;
        assert!(error.message().contains(words), "{error:?}");
    }
    ok(sandbox.exec(Command::new("true"))).await;
}
