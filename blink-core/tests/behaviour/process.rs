//! Programs that run beside the caller: streaming, leaving and coming back.

use blink_core::{Command, ErrorKind, ProcessOutput, Stdin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{fails, ok, python, sandbox, short, shown, within};

/// What stays readable of a kept process's output.
const RETAINED: usize = 1 << 20;

/// Reads until `length` bytes have come.
async fn take(output: &mut ProcessOutput, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    within(output.read_exact(&mut bytes)).await.unwrap();
    bytes
}

async fn rest(output: &mut ProcessOutput) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(output.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test]
async fn output_comes_while_the_program_runs() {
    let sandbox = sandbox().await;
    let script = "echo one; read x; echo $x; echo err >&2; read y; echo $y";
    let mut process = ok(sandbox.spawn(Command::shell(script).stdin(Stdin::Piped))).await;
    assert!(process.pid() > 1);
    let mut stdin = process.take_stdin().unwrap();
    let mut stdout = process.take_stdout().unwrap();
    let mut stderr = process.take_stderr().unwrap();
    assert!(process.take_stdin().is_none() && process.take_stdout().is_none());
    assert_eq!(take(&mut stdout, 4).await, b"one\n");
    ok(stdin.write(&b"two\n"[..])).await;
    assert_eq!(take(&mut stdout, 4).await, b"two\n");
    assert_eq!(take(&mut stderr, 4).await, b"err\n");
    within(stdin.write_all(b"three\n")).await.unwrap();
    assert_eq!(rest(&mut stdout).await, b"three\n");
    assert_eq!(stdout.offset(), 14);
    assert!(ok(process.wait()).await.success());
}

#[tokio::test]
async fn order_is_kept_across_many_writes() {
    let sandbox = sandbox().await;
    let program = "import sys\nfor i in range(200000): sys.stdout.write(f'{i}\\n')";
    let mut process = ok(sandbox.spawn(python(program))).await;
    let mut stdout = process.take_stdout().unwrap();
    let text = String::from_utf8(rest(&mut stdout).await).unwrap();
    assert!(
        text.lines()
            .enumerate()
            .all(|(number, line)| line == number.to_string())
    );
    assert_eq!(text.lines().count(), 200_000);
    assert!(ok(process.wait()).await.success());
}

#[tokio::test]
async fn a_pipe_can_be_talked_through_and_closed() {
    let sandbox = sandbox().await;
    let mut process = ok(sandbox.spawn(Command::new("cat").stdin(Stdin::Piped))).await;
    let mut stdin = process.take_stdin().unwrap();
    let mut stdout = process.take_stdout().unwrap();
    for round in 0..100_u8 {
        let message = vec![round; 1 + usize::from(round) * 100];
        ok(stdin.write(message.clone())).await;
        assert_eq!(take(&mut stdout, message.len()).await, message);
    }
    within(stdin.close()).await;
    assert_eq!(ok(stdout.chunk()).await, None);
    assert!(ok(process.wait()).await.success());
}

#[tokio::test]
async fn dropping_the_pipe_ends_the_input_behind_what_was_written() {
    let sandbox = sandbox().await;
    let mut process = ok(sandbox.spawn(Command::new("wc").arg("-c").stdin(Stdin::Piped))).await;
    let mut stdin = process.take_stdin().unwrap();
    within(stdin.write_all(&vec![b'x'; 3_000_000]))
        .await
        .unwrap();
    drop(stdin);
    let output = ok(process.wait_with_output()).await;
    assert_eq!(output.text(), "3000000\n");
}

#[tokio::test]
async fn input_given_as_bytes_or_not_at_all_ends() {
    let sandbox = sandbox().await;
    let process = ok(sandbox.spawn(Command::new("cat").stdin_bytes("given"))).await;
    assert_eq!(ok(process.wait_with_output()).await.text(), "given");
    let mut process = ok(sandbox.spawn(Command::new("cat"))).await;
    assert!(process.take_stdin().is_none());
    assert_eq!(ok(process.wait_with_output()).await.text(), "");
}

#[tokio::test]
async fn output_that_nobody_wants_does_not_stop_the_program() {
    let sandbox = sandbox().await;
    let script =
        "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; echo over > /tmp/over";
    let mut process = ok(sandbox.spawn(Command::shell(script))).await;
    drop(process.take_stdout());
    let status = ok(process.wait()).await;
    assert!(status.success());
    assert_eq!(sandbox.says("cat /tmp/over").await, "over");

    // Dropped in the middle.
    let mut process = ok(sandbox.spawn(Command::shell("head -c 20000000 /dev/zero; exit 3"))).await;
    let mut stdout = process.take_stdout().unwrap();
    take(&mut stdout, 100_000).await;
    drop(stdout);
    assert_eq!(ok(process.wait()).await.code, 3);
}

fn resident_kib(status: &str) -> u64 {
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_slow_reader_holds_back_its_own_program_alone() {
    let sandbox = sandbox().await;
    let own = || resident_kib(&std::fs::read_to_string("/proc/self/status").unwrap());
    let agent = async || resident_kib(&sandbox.says("cat /proc/1/status").await);
    let before = agent().await;
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(ok(sandbox.spawn(Command::new("yes"))).await);
    }
    let own_before = own();
    for round in 0..100 {
        assert_eq!(
            sandbox.says(&format!("echo {round}")).await,
            round.to_string()
        );
    }
    assert!(agent().await < before + (16 << 10), "{before}");
    // Other tests run in this process; four unread streams are a few MiB.
    assert!(own() < own_before + (300 << 10), "{own_before}");
    for process in &mut unread {
        let mut stdout = process.take_stdout().unwrap();
        let read = take(&mut stdout, 5_000_000).await;
        assert!(read.chunks(2).all(|line| line == b"y\n"));
        drop(stdout);
        ok(process.kill()).await;
        assert_eq!(ok(process.wait()).await.signal, Some(9));
    }
}

#[tokio::test]
async fn a_program_goes_on_without_its_handle() {
    let sandbox = sandbox().await;
    let program = "import time, sys\nprint('one', flush=True)\ntime.sleep(1)\nprint('two', flush=True)\n\
                   sys.stderr.write('err')\nsys.exit(4)";
    let mut process = ok(sandbox.spawn(python(program))).await;
    let id = process.id();
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(take(&mut stdout, 4).await, b"one\n");
    let offset = stdout.offset();
    drop((stdout, process));

    let mut process = ok(sandbox.process(id, offset, 0)).await;
    assert_eq!(process.id(), id);
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(stdout.offset(), offset);
    assert_eq!(rest(&mut stdout).await, b"two\n");
    assert_eq!(rest(&mut process.take_stderr().unwrap()).await, b"err");
    assert_eq!(ok(process.wait()).await.code, 4);

    // Its end stays readable, as often as asked for.
    for _ in 0..3 {
        let process = ok(sandbox.process(id, 0, 0)).await;
        let output = ok(process.wait_with_output()).await;
        assert_eq!(output.status.code, 4);
        assert_eq!(output.text(), "one\ntwo\n");
        assert_eq!(&output.stderr[..], b"err");
    }
}

#[tokio::test]
async fn many_leave_and_come_back_and_nobody_misses_a_byte() {
    let sandbox = sandbox().await;
    let program = "import sys, time\nfor i in range(3000):\n  sys.stdout.write(f'{i:06}\\n')\n  \
                   if i % 100 == 0: sys.stdout.flush(); time.sleep(0.01)";
    let mut process = ok(sandbox.spawn(python(program))).await;
    let mut text = Vec::new();
    loop {
        let mut stdout = process.take_stdout().unwrap();
        assert_eq!(stdout.offset(), text.len() as u64);
        match ok(stdout.chunk()).await {
            Some(chunk) => text.extend_from_slice(&chunk),
            None => break,
        }
        let offset = stdout.offset();
        let id = process.id();
        drop((stdout, process));
        process = ok(sandbox.process(id, offset, 0)).await;
    }
    let expected: String = (0..3000).map(|number| format!("{number:06}\n")).collect();
    assert_eq!(String::from_utf8(text).unwrap(), expected);
    assert!(ok(process.wait()).await.success());
}

#[tokio::test]
async fn the_last_mebibyte_stays_and_an_older_offset_is_told() {
    let sandbox = sandbox().await;
    let program = "import sys\nfor i in range(300000): sys.stdout.write(f'{i:09}\\n')";
    let mut process = ok(sandbox.spawn(python(program))).await;
    let id = process.id();
    assert!(ok(process.wait()).await.success());
    drop(process);
    let mut process = ok(sandbox.process(id, 17, 0)).await;
    let mut stdout = process.take_stdout().unwrap();
    let first = usize::try_from(stdout.offset()).unwrap();
    assert_eq!(first, 3_000_000 - RETAINED);
    let tail = rest(&mut stdout).await;
    let whole: String = (0..300_000)
        .map(|number| format!("{number:09}\n"))
        .collect();
    assert!(tail == whole.as_bytes()[first..]);
    assert!(ok(process.wait()).await.success());
    // Beyond the end there is nothing.
    let mut process = ok(sandbox.process(id, u64::MAX, u64::MAX)).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(stdout.offset(), 3_000_000);
    assert_eq!(rest(&mut stdout).await, b"");
}

#[tokio::test]
async fn who_attaches_second_takes_over() {
    let sandbox = sandbox().await;
    let mut first = ok(sandbox.spawn(Command::shell("echo begun; sleep 0.5; echo more"))).await;
    let mut stdout = first.take_stdout().unwrap();
    assert_eq!(take(&mut stdout, 6).await, b"begun\n");
    let mut second = ok(sandbox.process(first.id(), 0, 0)).await;
    fails(ErrorKind::Busy, stdout.chunk()).await;
    fails(ErrorKind::Busy, first.wait()).await;
    drop((first, stdout));
    let mut stdout = second.take_stdout().unwrap();
    assert_eq!(rest(&mut stdout).await, b"begun\nmore\n");
    assert!(ok(second.wait()).await.success());
}

#[tokio::test]
async fn a_program_can_be_fed_by_whoever_comes_back() {
    let sandbox = sandbox().await;
    let mut process = ok(sandbox.spawn(Command::new("cat").stdin(Stdin::Piped))).await;
    let id = process.id();
    let mut first = process.take_stdin().unwrap();
    ok(first.write(&b"from the first\n"[..])).await;
    let mut other = ok(sandbox.process(id, 0, 0)).await;
    let mut stdout = other.take_stdout().unwrap();
    let mut stdin = other.take_stdin().unwrap();
    ok(stdin.write(&b"from the second\n"[..])).await;
    assert_eq!(
        take(&mut stdout, 31).await,
        b"from the first\nfrom the second\n"
    );
    within(stdin.close()).await;
    assert_eq!(rest(&mut stdout).await, b"");
    assert!(ok(other.wait()).await.success());
}

#[tokio::test]
async fn input_that_somebody_left_unread_is_read_before_the_next_ones() {
    let sandbox = sandbox().await;
    let script = "while ! [ -e /tmp/go ]; do sleep 0.02; done; wc -c";
    let mut process = ok(sandbox.spawn(Command::shell(script).stdin(Stdin::Piped))).await;
    let id = process.id();
    for _ in 0..3 {
        let mut stdin = process.take_stdin().unwrap();
        // More than a pipe holds, and as much as may be under way.
        ok(stdin.write(vec![b'x'; 1 << 20])).await;
        process = ok(sandbox.process(id, 0, 0)).await;
        ok(sandbox.ping()).await;
    }
    let mut stdin = process.take_stdin().unwrap();
    ok(sandbox.files().write("/tmp/go", "")).await;
    ok(stdin.write(vec![b'x'; 1 << 20])).await;
    within(stdin.close()).await;
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(rest(&mut stdout).await, b"4194304\n");
}

#[tokio::test]
async fn leaving_does_not_end_the_input() {
    let sandbox = sandbox().await;
    let process = ok(sandbox.spawn(Command::new("cat").stdin(Stdin::Piped))).await;
    let id = process.id();
    drop(process);
    ok(sandbox.ping()).await;
    for round in 0..3 {
        let mut process = ok(sandbox.process(id, round * 2, 0)).await;
        let mut stdin = process.take_stdin().unwrap();
        let mut stdout = process.take_stdout().unwrap();
        ok(stdin.write(&b"x\n"[..])).await;
        assert_eq!(take(&mut stdout, 2).await, b"x\n");
        if round == 2 {
            within(stdin.close()).await;
            assert!(ok(process.wait()).await.success());
            return;
        }
        // Somebody else comes before this one has left: its input is not to be ended by that.
        let next = ok(sandbox.process(id, 0, 0)).await;
        drop((stdin, process));
        drop(next);
    }
}

#[tokio::test]
async fn what_is_released_is_forgotten_and_ended() {
    let sandbox = sandbox().await;
    let process = ok(sandbox.spawn(Command::shell("setsid sleep 1000 & sleep 1000"))).await;
    let id = process.id();
    ok(process.release()).await;
    let error = fails(ErrorKind::NotFound, sandbox.process(id, 0, 0)).await;
    assert!(error.message().contains(&id.to_string()), "{error:?}");
    for _ in 0..500 {
        if sandbox.processes_seen().await.is_empty() {
            break;
        }
    }
    assert_eq!(sandbox.processes_seen().await, [""; 0]);

    let mut process = ok(sandbox.spawn(Command::new("true"))).await;
    let id = process.id();
    ok(process.wait()).await;
    ok(process.release()).await;
    fails(ErrorKind::NotFound, sandbox.process(id, 0, 0)).await;
    fails(ErrorKind::NotFound, sandbox.process(12345, 0, 0)).await;
}

#[tokio::test]
async fn a_key_makes_a_repeated_spawn_harmless() {
    let sandbox = sandbox().await;
    let command = Command::shell("echo x >> /tmp/count; echo out; sleep 0.5; exit 6").key("once");
    let first = ok(sandbox.spawn(command.clone())).await;
    let second = ok(sandbox.spawn(command.clone())).await;
    assert_eq!(first.id(), second.id());
    let output = ok(second.wait_with_output()).await;
    assert_eq!((output.status.code, output.text().as_ref()), (6, "out\n"));
    // Also after its end.
    let third = ok(sandbox.spawn(command)).await;
    assert_eq!(first.id(), third.id());
    let output = ok(third.wait_with_output()).await;
    assert_eq!((output.status.code, output.text().as_ref()), (6, "out\n"));
    assert_eq!(sandbox.says("wc -l < /tmp/count").await, "1");
    let other = ok(sandbox.spawn(Command::new("true").key("other"))).await;
    assert_ne!(first.id(), other.id());
}

#[tokio::test]
async fn spawned_processes_are_listed() {
    let sandbox = sandbox().await;
    assert!(ok(sandbox.processes()).await.is_empty());
    let running = ok(sandbox.spawn(Command::new("sleep").arg("1000").key("k"))).await;
    let mut ended = ok(sandbox.spawn(Command::shell("echo 123; exit 9"))).await;
    ok(ended.wait()).await;
    let terminal = ok(sandbox.spawn(
        Command::new("sleep")
            .arg("1000")
            .pty(24, 80)
            .stdin(Stdin::Piped),
    ))
    .await;
    sandbox.says("true").await;
    let list = ok(sandbox.processes()).await;
    assert_eq!(list.len(), 3, "{list:?}");
    assert_eq!((list[0].id, list[0].pid), (running.id(), running.pid()));
    assert_eq!(list[0].argv, ["sleep", "1000"]);
    assert_eq!(
        (list[0].key.as_deref(), &list[0].status, list[0].pty),
        (Some("k"), &None, false)
    );
    assert_eq!(list[1].id, ended.id());
    assert_eq!(list[1].status.as_ref().unwrap().code, 9);
    assert_eq!((list[1].stdout_bytes, list[1].stderr_bytes), (4, 0));
    assert!(list[2].pty && list[2].id == terminal.id());
}

#[tokio::test]
async fn a_program_that_is_missing_is_spawned_to_its_end() {
    let sandbox = sandbox().await;
    let mut process = ok(sandbox.spawn(Command::new("no-such-program"))).await;
    assert_eq!(process.pid(), 0);
    let status = ok(process.wait()).await;
    assert_eq!(status.code, 127);
    assert!(status.reason.unwrap().contains("no-such-program"));
    ok(process.kill()).await;
}

#[tokio::test]
async fn a_spawned_program_has_its_time_as_well() {
    let sandbox = sandbox().await;
    let command = Command::shell("echo a; sleep 1000").timeout(short());
    let process = ok(sandbox.spawn(command)).await;
    let output = ok(process.wait_with_output()).await;
    assert!(output.status.timed_out, "{}", shown(&output));
    assert_eq!(output.text(), "a\n");
}

#[tokio::test]
async fn waiting_for_output_has_no_limit() {
    let sandbox = sandbox().await;
    let process = ok(sandbox.spawn(Command::shell("head -c 30000000 /dev/zero"))).await;
    let output = ok(process.wait_with_output()).await;
    assert_eq!(
        (output.stdout.len(), output.truncated()),
        (30_000_000, false)
    );
}

#[tokio::test]
async fn input_that_was_given_arrives_though_the_handle_is_gone() {
    let sandbox = sandbox().await;
    for round in 0..5 {
        let command = Command::shell(format!("cat > /tmp/{round}; touch /tmp/{round}.done"));
        let mut process = ok(sandbox.spawn(command.stdin(Stdin::Piped))).await;
        let mut stdin = process.take_stdin().unwrap();
        ok(stdin.write(vec![b'x'; 1 << 20])).await;
        within(stdin.close()).await;
        drop(process);
        let script = format!(
            "while ! [ -e /tmp/{round}.done ]; do sleep 0.02; done; stat -c %s /tmp/{round}"
        );
        assert_eq!(sandbox.says(&script).await, "1048576");
    }
}

#[tokio::test]
async fn one_waits_while_another_kills() {
    let sandbox = sandbox().await;
    let mut process = ok(sandbox.spawn(Command::shell("echo begun; sleep 1000"))).await;
    let mut stdout = process.take_stdout().unwrap();
    let kill = async {
        assert_eq!(take(&mut stdout, 6).await, b"begun\n");
        process.kill().await
    };
    let (status, killed) = within(async { tokio::join!(process.exited(), kill) }).await;
    killed.unwrap();
    assert_eq!(status.unwrap().signal, Some(9));
}
