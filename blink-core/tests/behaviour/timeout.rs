//! What happens when time is over: the whole tree goes.

use std::time::Duration;

use blink_core::{Command, ErrorKind};

use crate::support::{
    TestSandbox, fails, ok, python, sandbox, sandbox_for_bombs, short, shown, within,
};

async fn assert_nothing_runs(sandbox: &TestSandbox) {
    let mut seen = Vec::new();
    // A zombie is collected a moment after it was killed.
    for _ in 0..100 {
        seen = sandbox.processes_seen().await;
        if seen.is_empty() {
            return;
        }
    }
    panic!("still there: {seen:#?}");
}

async fn dies_in_time(command: Command) {
    let sandbox = sandbox_for_bombs().await;
    let output = sandbox.run(command.timeout(short())).await;
    assert!(output.status.timed_out, "{}", shown(&output));
    assert_eq!(output.status.code, 137, "{}", shown(&output));
    assert!(output.text().starts_with("begun"), "{}", shown(&output));
    assert_nothing_runs(&sandbox).await;
    assert_eq!(sandbox.says("echo fine").await, "fine");
}

#[tokio::test]
async fn what_was_written_until_then_is_kept() {
    let sandbox = sandbox().await;
    let command = Command::shell("echo out; echo err >&2; sleep 1000").timeout(short());
    let output = sandbox.run(command).await;
    assert!(output.status.timed_out && !output.status.success());
    assert_eq!(
        (output.status.signal, output.text().as_ref()),
        (Some(9), "out\n")
    );
    assert_eq!(&output.stderr[..], b"err\n");
    let error = output.check_limits().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.output().unwrap().text(), "out\n");
}

#[tokio::test]
async fn who_is_in_time_is_not_told() {
    let sandbox = sandbox().await;
    let output = sandbox
        .run(Command::shell("exit 137").timeout(Duration::from_secs(50)))
        .await;
    assert_eq!((output.status.code, output.status.timed_out), (137, false));
    assert!(output.check_limits().is_ok());
    let output = sandbox
        .run(Command::new("true").timeout(Duration::MAX))
        .await;
    assert!(output.status.success());
}

#[tokio::test]
async fn the_time_covers_a_program_that_reads_and_writes() {
    let sandbox = sandbox().await;
    let output = sandbox
        .run(Command::new("yes").timeout(short()).output_limit_bytes(10))
        .await;
    assert!(output.status.timed_out && output.truncated());
    assert_eq!(&output.stdout[..], b"y\ny\ny\ny\ny\n");
}

#[tokio::test]
async fn no_time_at_all_is_a_timeout() {
    let sandbox = sandbox().await;
    let output = sandbox
        .run(Command::new("sleep").arg("1000").timeout(Duration::ZERO))
        .await;
    assert!(output.status.timed_out);
    assert_nothing_runs(&sandbox).await;
}

#[tokio::test]
async fn children_go() {
    dies_in_time(Command::shell(
        "echo begun; sleep 1000 & sleep 1000 | sleep 1000 & wait",
    ))
    .await;
}

#[tokio::test]
async fn children_with_a_session_of_their_own_go() {
    dies_in_time(Command::shell(
        "echo begun; setsid sleep 1000 & setsid setsid sleep 1000 & wait",
    ))
    .await;
}

#[tokio::test]
async fn daemons_go() {
    let program = "import os, time\nprint('begun', flush=True)\nfor i in range(5):\n  if os.fork() == 0:\n    \
                   os.setsid()\n    if os.fork() == 0:\n      os.chdir('/')\n      \
                   for fd in range(3): os.close(fd)\n      time.sleep(1000)\n    os._exit(0)\ntime.sleep(1000)";
    dies_in_time(python(program)).await;
}

#[tokio::test]
async fn what_ignores_signals_and_has_no_environment_goes() {
    dies_in_time(Command::shell(
        "echo begun; nohup sleep 1000 & env -i /bin/sh -c 'trap \"\" TERM HUP INT QUIT; sleep 1000 & wait' & wait",
    ))
    .await;
}

#[tokio::test]
async fn what_is_stopped_goes() {
    dies_in_time(Command::shell(
        "echo begun; sleep 1000 & kill -STOP $!; sh -c 'kill -STOP $$' & wait",
    ))
    .await;
}

#[tokio::test]
async fn what_was_reparented_goes() {
    dies_in_time(Command::shell(
        "echo begun; (setsid sh -c 'sleep 1000 & exec sleep 1000' &) ; sleep 1000",
    ))
    .await;
}

#[tokio::test]
async fn a_fork_bomb_goes() {
    let command = Command::new("bash")
        .arg("-c")
        .arg("echo begun; bomb() { bomb | bomb & }; bomb; sleep 1000");
    dies_in_time(command).await;
}

#[tokio::test]
async fn programs_of_others_are_left_alone() {
    let sandbox = sandbox().await;
    let mut other = ok(sandbox.spawn(Command::shell("sleep 1.5; echo here"))).await;
    let mut stdout = other.take_stdout().unwrap();
    let output = sandbox
        .run(Command::shell("setsid sleep 1000 & wait").timeout(short()))
        .await;
    assert!(output.status.timed_out);
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"here\n");
    assert!(ok(other.wait()).await.success());
}

#[tokio::test]
async fn kill_takes_the_tree() {
    let sandbox = sandbox().await;
    let script = "(setsid sleep 1000 &); trap '' TERM; echo begun; sleep 1000; sleep 1000";
    let mut process = ok(sandbox.spawn(Command::shell(script))).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"begun\n");
    ok(process.kill()).await;
    let status = ok(process.wait()).await;
    assert_eq!(
        (status.code, status.signal, status.timed_out),
        (137, Some(9), false)
    );
    assert_nothing_runs(&sandbox).await;
    // Once more is no error.
    ok(process.kill()).await;
    ok(process.release()).await;
}

#[tokio::test]
async fn a_signal_reaches_the_program() {
    let sandbox = sandbox().await;
    let script = "trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; echo begun; while :; do sleep 0.05; done";
    let mut process = ok(sandbox.spawn(Command::shell(script))).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"begun\n");
    ok(process.signal(10)).await;
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"usr1\n");
    ok(process.signal(15)).await;
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"term\n");
    assert_eq!(ok(process.wait()).await.code, 5);
    for signal in [0, 65, 255] {
        fails(ErrorKind::InvalidArgument, process.signal(signal)).await;
    }
}

#[tokio::test]
async fn a_signal_to_the_tree_reaches_what_has_left_the_group() {
    let sandbox = sandbox().await;
    let child = "trap 'echo child; exit 0' USR1; echo ready; while :; do sleep 0.05; done";
    // What is ignored could not be trapped by the child any more.
    let script = format!(
        "trap : USR1; setsid sh -c \"{child}\" & while kill -0 $!; do wait; done 2>/dev/null; echo over"
    );
    let mut process = ok(sandbox.spawn(Command::shell(script))).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(&ok(stdout.chunk()).await.unwrap()[..], b"ready\n");
    // To the group alone: it is not in it.
    ok(process.signal(10)).await;
    ok(process.signal_tree(10)).await;
    let mut said = Vec::new();
    while let Some(chunk) = ok(stdout.chunk()).await {
        said.extend_from_slice(&chunk);
    }
    assert_eq!(String::from_utf8_lossy(&said), "child\nover\n");
    assert!(within(process.wait()).await.unwrap().success());
}
