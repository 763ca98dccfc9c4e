//! Programs with a terminal.

use blink_core::{Command, Process, ProcessOutput, ProcessStdin, Stdin};

use crate::support::{TestSandbox, ok, python, sandbox, within};

struct Terminal {
    process: Process,
    stdin: ProcessStdin,
    stdout: ProcessOutput,
    said: String,
}

impl Terminal {
    async fn open(sandbox: &TestSandbox, command: Command) -> Terminal {
        Terminal::of(ok(sandbox.spawn(command.pty(24, 80).stdin(Stdin::Piped))).await)
    }

    fn of(mut process: Process) -> Terminal {
        Terminal {
            stdin: process.take_stdin().unwrap(),
            stdout: process.take_stdout().unwrap(),
            said: String::new(),
            process,
        }
    }

    async fn types(&mut self, text: &str) {
        ok(self.stdin.write(text.to_owned())).await;
    }

    /// Reads until the text has come.
    async fn expect(&mut self, text: &str) {
        while !self.said.contains(text) {
            match ok(self.stdout.chunk()).await {
                Some(chunk) => self.said.push_str(&String::from_utf8_lossy(&chunk)),
                None => panic!("{text:?} never came, but {:?}", self.said),
            }
        }
        let behind = self.said.find(text).unwrap() + text.len();
        self.said.drain(..behind);
    }
}

#[tokio::test]
async fn a_terminal_is_one_and_has_its_size() {
    let sandbox = sandbox().await;
    let command = Command::shell(
        "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; echo $TERM; tty",
    )
    .pty(33, 101);
    let output = sandbox.run(command).await;
    let text = output.text().into_owned();
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(
        lines[..3],
        ["terminal", "33 101", "xterm-256color"],
        "{text:?}"
    );
    assert!(lines[3].starts_with("/dev/pts/"), "{text:?}");
    assert!(output.stderr.is_empty());
    let output = sandbox
        .sh("test -t 0 || test -t 1 || test -t 2 || echo none")
        .await;
    assert_eq!(output.text(), "none\n");
}

#[tokio::test]
async fn standard_error_is_in_the_terminal_too() {
    let sandbox = sandbox().await;
    let output = sandbox
        .run(Command::shell("echo out; echo err >&2").pty(24, 80))
        .await;
    assert_eq!(
        (output.text().as_ref(), output.stderr.len()),
        ("out\r\nerr\r\n", 0)
    );
}

#[tokio::test]
async fn a_new_size_is_told() {
    let sandbox = sandbox().await;
    let program = "import os, signal\n\
                   signal.signal(signal.SIGWINCH, lambda *_: os.write(1, b'size %d %d\\n' % os.get_terminal_size()))\n\
                   print('ready', flush=True)\nwhile True: signal.pause()";
    let mut terminal = Terminal::open(&sandbox, python(program)).await;
    terminal.expect("ready").await;
    terminal.process.resize(50, 132);
    terminal.expect("size 132 50").await;
    terminal.process.resize(1, 2);
    terminal.expect("size 2 1").await;
    ok(terminal.process.kill()).await;
    ok(terminal.process.wait()).await;
}

#[tokio::test]
async fn control_c_interrupts() {
    let sandbox = sandbox().await;
    let mut terminal = Terminal::open(
        &sandbox,
        Command::shell("trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done"),
    )
    .await;
    terminal.expect("ready").await;
    terminal.types("\x03").await;
    terminal.expect("caught").await;
    assert_eq!(ok(terminal.process.wait()).await.code, 3);
}

#[tokio::test]
async fn a_shell_has_jobs() {
    let sandbox = sandbox().await;
    let mut terminal = Terminal::open(
        &sandbox,
        Command::new("bash")
            .args(["--norc", "--noprofile", "-i"])
            .env("PS1", "> "),
    )
    .await;
    terminal.expect("> ").await;
    terminal.types("sleep 1000\n").await;
    terminal.expect("sleep 1000").await;
    // The shell hands the terminal over before the program is there to be stopped.
    for _ in 0..500 {
        if sandbox
            .processes_seen()
            .await
            .iter()
            .any(|process| process.contains("(sleep)"))
        {
            break;
        }
    }
    terminal.types("\x1a").await;
    terminal.expect("Stopped").await;
    terminal.types("kill -9 %1; wait; exit 4\nexit 4\n").await;
    assert_eq!(ok(terminal.process.wait()).await.code, 4);
}

#[tokio::test]
async fn closing_the_input_ends_it() {
    let sandbox = sandbox().await;
    let mut terminal = Terminal::open(&sandbox, Command::new("cat")).await;
    terminal.types("hello\n").await;
    terminal.expect("hello\r\nhello\r\n").await;
    let Terminal {
        mut process, stdin, ..
    } = terminal;
    within(stdin.close()).await;
    assert!(ok(process.wait()).await.success());
}

#[tokio::test]
async fn a_lot_goes_through_a_terminal() {
    let sandbox = sandbox().await;
    let output = sandbox
        .run(Command::shell("stty -opost; head -c 3000000 /dev/zero | tr '\\0' x").pty(24, 80))
        .await;
    assert_eq!(output.stdout.len(), 3_000_000);
    assert!(output.stdout.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn the_terminals_end_hangs_up_what_is_left() {
    let sandbox = sandbox().await;
    let output = sandbox
        .run(Command::shell("echo hi; sleep 1000 & exit 2").pty(24, 80))
        .await;
    assert_eq!((output.status.code, output.text().as_ref()), (2, "hi\r\n"));
}

#[tokio::test]
async fn a_terminal_can_be_left_and_come_back_to() {
    let sandbox = sandbox().await;
    let process = ok(sandbox.spawn(
        Command::shell("echo ready; while read line; do echo \"got $line\"; done; echo over")
            .pty(24, 80)
            .stdin(Stdin::Piped),
    ))
    .await;
    let id = process.id();
    drop(process);
    ok(sandbox.ping()).await;
    let mut terminal = Terminal::of(ok(sandbox.process(id, 0, 0)).await);
    terminal.expect("ready").await;
    terminal.types("this\n").await;
    terminal.expect("got this").await;
}
