//! One command, its result.

use std::ffi::OsString;
use std::future::Future;
use std::os::unix::ffi::OsStringExt;

use blink_core::{Command, ErrorKind};

use crate::support::{
    Capability, Engine, fails, noise, ok, python, require, rounds, sandbox, sandbox_with, sha256,
    shown, until, within,
};

#[tokio::test]
async fn arguments_arrive_as_they_are() {
    let sandbox = sandbox().await;
    let odd: Vec<OsString> = [
        &b""[..],
        b"a b",
        b"$HOME",
        b"'\"\\",
        b"*",
        b"\n",
        b"\xff\xfe\x80",
        "ä€🦀".as_bytes(),
        b"--",
        b"-n",
    ]
    .iter()
    .map(|bytes| OsString::from_vec(bytes.to_vec()))
    .collect();
    let print =
        "import sys, os; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))";
    let output = sandbox.run(python(print).args(odd.clone())).await;
    let expected = odd
        .into_iter()
        .map(OsStringExt::into_vec)
        .collect::<Vec<_>>()
        .join(&0);
    assert_eq!(output.stdout, expected, "{}", shown(&output));
}

#[tokio::test]
async fn the_program_sees_its_own_name_and_no_shell() {
    let sandbox = sandbox().await;
    let output = sandbox
        .run(Command::new("cat").arg("/proc/self/cmdline"))
        .await;
    assert_eq!(&output.stdout[..], b"cat\0/proc/self/cmdline\0");
    let output = sandbox.run(Command::new("echo").arg("a;echo b")).await;
    assert_eq!(output.text(), "a;echo b\n");
}

#[tokio::test]
async fn the_environment_is_the_sandboxes_with_the_commands_over_it() {
    let sandbox = sandbox_with(|builder| builder.env("A", "sandbox").env("B", "sandbox")).await;
    let odd = OsString::from_vec(b"\xff=\n".to_vec());
    let output = sandbox
        .run(
            Command::new("env")
                .arg("-0")
                .env("B", "command")
                .env("C", odd),
        )
        .await;
    let variables: Vec<&[u8]> = output.stdout.split(|byte| *byte == 0).collect();
    for expected in [
        &b"A=sandbox"[..],
        b"B=command",
        b"C=\xff=\n",
        b"HOME=/root",
        b"USER=root",
        b"LOGNAME=root",
    ] {
        assert!(variables.contains(&expected), "{}", shown(&output));
    }
    assert!(
        variables
            .iter()
            .any(|variable| variable.starts_with(b"PATH=/"))
    );
    assert_eq!(
        variables
            .iter()
            .filter(|variable| variable.starts_with(b"B="))
            .count(),
        1
    );
    // Nothing of the host's own environment.
    assert!(
        !variables
            .iter()
            .any(|variable| variable.starts_with(b"CARGO"))
    );
}

#[tokio::test]
async fn a_variable_can_be_emptied_and_path_decides_where_programs_are() {
    let sandbox = sandbox().await;
    let output = sandbox
        .run(
            Command::new("/usr/bin/env")
                .env("HOME", "")
                .env("PATH", "/nowhere"),
        )
        .await;
    assert!(
        output.text().lines().any(|line| line == "HOME="),
        "{}",
        shown(&output)
    );
    let output = sandbox
        .run(Command::new("env").env("PATH", "/nowhere"))
        .await;
    assert_eq!(output.status.code, 127, "{}", shown(&output));
}

#[tokio::test]
async fn the_working_directory_is_the_commands_or_the_sandboxes_or_the_users() {
    let sandbox = sandbox_with(|builder| builder.current_dir("/var")).await;
    assert_eq!(sandbox.says("pwd").await, "/var");
    let output = sandbox
        .run(Command::new("pwd").current_dir("/usr/bin"))
        .await;
    assert_eq!(output.text(), "/usr/bin\n");
    let plain = crate::support::sandbox().await;
    assert_eq!(plain.says("pwd").await, "/root");
}

#[tokio::test]
async fn a_missing_working_directory_is_named() {
    let sandbox = sandbox().await;
    let error = fails(
        ErrorKind::NotFound,
        sandbox.exec(Command::new("true").current_dir("/no/such")),
    )
    .await;
    assert!(error.message().contains("/no/such"), "{error:?}");
    let error = fails(
        ErrorKind::NotADirectory,
        sandbox.exec(Command::new("true").current_dir("/etc/passwd")),
    )
    .await;
    assert!(error.message().contains("/etc/passwd"), "{error:?}");
    let error = fails(
        ErrorKind::InvalidArgument,
        sandbox.exec(Command::new("true").current_dir("relative")),
    )
    .await;
    assert!(error.message().contains("relative"), "{error:?}");
    assert_eq!(sandbox.says("echo fine").await, "fine");
}

#[tokio::test]
async fn an_unknown_user_or_group_is_named() {
    let sandbox = sandbox().await;
    for (user, named) in [("otto", "otto"), ("root:choir", "choir"), ("-1", "-1")] {
        let error = fails(
            ErrorKind::NotFound,
            sandbox.exec(Command::new("true").user(user)),
        )
        .await;
        assert!(error.message().contains(named), "{error:?}");
    }
}

#[tokio::test]
async fn every_exit_code_arrives() {
    let sandbox = sandbox().await;
    // Where each takes its time, those at the borders of what shells and kernels mean by them.
    let codes: Vec<i32> = match Engine::chosen() {
        Engine::Namespace => (0..=255).collect(),
        Engine::Microvm => vec![0, 1, 2, 125, 126, 127, 128, 129, 137, 143, 254, 255],
    };
    for code in codes {
        let output = sandbox.sh(&format!("exit {code}")).await;
        assert_eq!(
            (
                output.status.code,
                output.status.signal,
                output.status.timed_out
            ),
            (code, None, false)
        );
        assert_eq!(output.status.success(), code == 0);
        assert_eq!(output.status.reason, None);
    }
}

#[tokio::test]
async fn a_signal_is_128_and_its_number() {
    let sandbox = sandbox().await;
    for signal in [1, 2, 3, 6, 9, 10, 11, 13, 14, 15, 31, 34, 64] {
        let output = sandbox.sh(&format!("kill -{signal} $$")).await;
        assert_eq!(
            (output.status.code, output.status.signal),
            (128 + signal, Some(signal))
        );
        assert!(!output.status.success());
    }
}

#[tokio::test]
async fn what_cannot_be_run_is_127_or_126_with_the_reason() {
    let sandbox = sandbox().await;
    sandbox
        .says(
            "cd /tmp; printf '#!/no/such/interpreter\\n' > script; chmod 755 script; echo data > data; \
             printf 'garbage' > garbage; chmod 755 garbage",
        )
        .await;
    for (program, code, named) in [
        ("no-such-program", 127, "no-such-program"),
        ("/tmp/missing", 127, "/tmp/missing"),
        ("/etc/passwd/x", 127, "/etc/passwd/x"),
        ("/tmp/script", 127, "interpreter"),
        ("/tmp/data", 126, "/tmp/data"),
        ("/tmp", 126, "/tmp"),
        ("/tmp/garbage", 126, "/tmp/garbage"),
    ] {
        let output = sandbox.run(Command::new(program)).await;
        assert_eq!(output.status.code, code, "{program}: {}", shown(&output));
        let reason = output.status.reason.clone().unwrap_or_default();
        assert!(reason.contains(named), "{program}: {reason}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[tokio::test]
async fn output_is_bytes() {
    let sandbox = sandbox().await;
    let output = sandbox
        .python("import os; b = bytes(range(256)); os.write(1, b * 3); os.write(2, b[::-1])")
        .await;
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(output.stdout, all.repeat(3));
    let reversed: Vec<u8> = all.into_iter().rev().collect();
    assert_eq!(output.stderr, reversed);
    assert_eq!((output.stdout_bytes, output.stderr_bytes), (768, 256));
    assert!(!output.truncated());
}

#[tokio::test]
async fn large_output_arrives_whole() {
    let sandbox = sandbox().await;
    sandbox
        .says("head -c 67108864 /dev/urandom > /tmp/noise")
        .await;
    let output = sandbox
        .run(
            Command::new("cat")
                .arg("/tmp/noise")
                .output_limit_bytes(1 << 30),
        )
        .await;
    assert_eq!(output.stdout.len(), 64 << 20);
    assert!(!output.truncated());
    let inside = sandbox.says("sha256sum < /tmp/noise").await;
    assert!(inside.starts_with(&sha256(&output.stdout)));
}

#[tokio::test]
async fn output_beyond_the_limit_is_counted_and_cut() {
    let sandbox = sandbox().await;
    let script =
        "head -c 3000000 /dev/zero | tr '\\0' o; head -c 2000000 /dev/zero | tr '\\0' e >&2";
    let output = sandbox
        .run(Command::shell(script).output_limit_bytes(1000))
        .await;
    assert_eq!(&output.stdout[..], &[b'o'; 1000]);
    assert_eq!(&output.stderr[..], &[b'e'; 1000]);
    assert_eq!(
        (output.stdout_bytes, output.stderr_bytes),
        (3_000_000, 2_000_000)
    );
    assert!(output.truncated() && output.status.success());

    let output = sandbox
        .run(Command::shell("echo 12345").output_limit_bytes(0))
        .await;
    assert_eq!((output.stdout.len(), output.stdout_bytes), (0, 6));
    let output = sandbox
        .run(Command::shell("echo 12345").output_limit_bytes(6))
        .await;
    assert_eq!(
        (output.text().as_ref(), output.truncated()),
        ("12345\n", false)
    );
}

#[tokio::test]
async fn standard_input_arrives_whole() {
    let sandbox = sandbox().await;
    let bytes = noise(50 << 20);
    let expected = sha256(&bytes);
    let output = sandbox
        .run(Command::new("sha256sum").stdin_bytes(bytes))
        .await;
    assert!(output.text().starts_with(&expected), "{}", shown(&output));
    let all: Vec<u8> = (0..=255).collect();
    let output = sandbox
        .run(Command::new("cat").stdin_bytes(all.clone()))
        .await;
    assert_eq!(output.stdout, all);
}

#[tokio::test]
async fn empty_standard_input_ends_at_once() {
    let sandbox = sandbox().await;
    for command in [
        Command::new("cat"),
        Command::new("cat").stdin_bytes(Vec::new()),
    ] {
        let output = sandbox.run(command).await;
        assert!(output.status.success() && output.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_program_need_not_read_its_input() {
    let sandbox = sandbox().await;
    let bytes = vec![b'x'; 20 << 20];
    let output = sandbox
        .run(Command::new("true").stdin_bytes(bytes.clone()))
        .await;
    assert!(output.status.success());
    let output = sandbox
        .run(Command::shell("head -c 3; exit 7").stdin_bytes(bytes.clone()))
        .await;
    assert_eq!((output.status.code, output.text().as_ref()), (7, "xxx"));
    // One that closes it and goes on.
    let output = sandbox
        .run(Command::shell("exec <&-; sleep 0.3; echo on").stdin_bytes(bytes))
        .await;
    assert_eq!(output.text(), "on\n");
}

#[tokio::test]
async fn a_child_that_holds_the_pipe_does_not_hold_back_the_result() {
    let sandbox = sandbox().await;
    let output = sandbox.sh("sleep 1000 & echo hi").await;
    assert_eq!((output.status.code, output.text().as_ref()), (0, "hi\n"));
    let seen = sandbox.processes_seen().await;
    assert!(
        seen.iter().any(|process| process.contains("(sleep)")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_child_left_behind_goes_on_and_may_write() {
    let sandbox = sandbox().await;
    let script = "(sleep 0.5; echo late; echo late >&2; head -c 4000000 /dev/zero; touch /tmp/done) & echo hi";
    let output = sandbox.sh(script).await;
    assert_eq!(output.text(), "hi\n");
    sandbox
        .says("for i in $(seq 300); do [ -e /tmp/done ] && exit 0; sleep 0.1; done; exit 1")
        .await;
}

#[tokio::test]
async fn what_a_child_writes_right_after_the_end_arrives() {
    let sandbox = sandbox().await;
    // The child's read ends with the shell, which alone holds the other end. How long the child has then is not promised;
    // that it has a moment is.
    let script = "mkfifo /tmp/end && { read -r _ < /tmp/end; echo late; } & until [ -p /tmp/end ]; do :; done\n\
                  exec 3> /tmp/end; rm /tmp/end; echo now";
    for _ in 0..rounds(100) {
        let output = sandbox.sh(script).await;
        if output.text() == "now\nlate\n" {
            return;
        }
        assert_eq!(output.text(), "now\n", "{}", shown(&output));
    }
    panic!("it never arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_do_not_mix() {
    let sandbox = sandbox().await;
    let mut running = Vec::new();
    for number in 0..200_i32 {
        let command = Command::shell(format!(
            "cat; echo {number}; echo e{number} >&2; exit $(({number} % 100))"
        ))
        .stdin_bytes(format!("in {number}\n"));
        running.push((number, sandbox.exec(command)));
    }
    let results = futures_all(running).await;
    for (number, output) in results {
        let output = output.unwrap();
        assert_eq!(output.status.code, number % 100);
        assert_eq!(output.text(), format!("in {number}\n{number}\n"));
        assert_eq!(output.stderr, format!("e{number}\n"));
    }
}

/// Waits for all of them at once.
async fn futures_all<T>(futures: Vec<(i32, impl Future<Output = T>)>) -> Vec<(i32, T)> {
    let mut waiting: Vec<_> = futures
        .into_iter()
        .map(|(number, future)| (number, Box::pin(future), None))
        .collect();
    within(std::future::poll_fn(|context| {
        let mut pending = false;
        for (_, future, result) in &mut waiting {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    }))
    .await;
    waiting
        .into_iter()
        .map(|(number, _, result)| (number, result.unwrap()))
        .collect()
}

#[tokio::test]
async fn giving_up_a_command_ends_it() {
    let sandbox = sandbox().await;
    let command = Command::shell("touch /tmp/begun; setsid sleep 1000 & sleep 1000");
    {
        let exec = sandbox.exec(command);
        let begun = async {
            within(async { while !ok(sandbox.files().exists("/tmp/begun")).await {} }).await;
        };
        tokio::select! {
            _ = exec => panic!("it ended"),
            () = begun => {}
        }
    }
    let mut seen = vec![String::new()];
    for _ in 0..500 {
        seen = sandbox.processes_seen().await;
        if seen.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [""; 0]);
}

#[tokio::test]
async fn one_shot_runs_leave_nothing() {
    let blink = crate::support::blink().await;
    let output = ok(blink.run(Command::shell("echo hi; echo there >&2; exit 3"))).await;
    assert_eq!((output.status.code, output.text().as_ref()), (3, "hi\n"));
    assert_eq!(&output.stderr[..], b"there\n");
    assert_eq!(output.isolation.name(), Engine::chosen().name());
    until("no folder", || blink.folders().is_empty()).await;
}

#[tokio::test]
async fn an_odd_command_is_refused_before_anything_runs() {
    let sandbox = sandbox().await;
    for command in [
        Command::new(""),
        Command::new("echo").arg("a\0b"),
        Command::new("echo").env("", "x"),
        Command::new("echo").env("A=B", "x"),
        Command::new("echo").env("A", "x\0y"),
        Command::new("echo").current_dir("/tmp\0"),
        Command::new("echo").stdin(blink_core::Stdin::Piped),
    ] {
        fails(ErrorKind::InvalidArgument, sandbox.exec(command)).await;
    }
}

#[tokio::test]
async fn too_much_to_give_a_program_is_refused() {
    let sandbox = sandbox().await;
    for bytes in [200 << 10, 900 << 10, 10 << 20] {
        let value = "x".repeat(bytes);
        let error = fails(
            ErrorKind::InvalidArgument,
            sandbox.exec(Command::new("true").env("LARGE", value.clone())),
        )
        .await;
        assert!(error.message().contains("environment"), "{error:?}");
        fails(
            ErrorKind::InvalidArgument,
            sandbox.exec(Command::new("true").arg(value)),
        )
        .await;
    }
    let output = sandbox
        .run(Command::shell("echo ${#LARGE}").env("LARGE", "x".repeat(100 << 10)))
        .await;
    assert_eq!(output.text(), "102400\n");
}

#[tokio::test]
async fn code_is_run_by_its_languages_interpreter() {
    let sandbox = sandbox().await;
    for (language, code, printed) in [
        ("python", "print(input(), 6 * 7)", "given 42\n"),
        ("sh", "read line; echo $line $((6 * 7))", "given 42\n"),
    ] {
        let command = ok(async { Command::code(language, code) }).await;
        let output = sandbox.run(command.stdin_bytes("given\n")).await;
        assert_eq!(output.text(), printed, "{language}");
    }
    let refused = Command::code("cobol", "STOP RUN").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.message().contains("python"), "{refused:?}");
    let refused = Command::code("python", "#".repeat(128 << 10)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.message().contains("file"), "{refused:?}");
}

mod needs_users {
    use super::*;

    #[tokio::test]
    async fn users_are_found_by_name_and_number() {
        require(Capability::Users);
        let sandbox = sandbox().await;
        for (user, expected) in [
            ("user", "1000 1000 /home/user user /home/user"),
            ("1000", "1000 1000 /home/user user /home/user"),
            ("user:users", "1000 100 /home/user user /home/user"),
            ("user:7", "1000 7 /home/user user /home/user"),
            ("4711", "4711 4711 / 4711 /"),
            ("4711:12", "4711 12 / 4711 /"),
            ("0", "0 0 /root root /root"),
            ("root", "0 0 /root root /root"),
            ("nobody", "65534 65534 /nonexistent nobody /"),
        ] {
            let script = "echo $(id -u) $(id -g) $HOME $USER $(pwd)";
            let output = sandbox.run(Command::shell(script).user(user)).await;
            assert_eq!(
                output.text().trim_end(),
                expected,
                "{user}: {}",
                shown(&output)
            );
        }
    }

    #[tokio::test]
    async fn a_user_has_its_groups_and_only_its_own_rights() {
        require(Capability::Users);
        let sandbox = sandbox_with(|builder| builder.user("user")).await;
        sandbox
            .run(
                Command::shell(
                    "printf 'root:x:0:\\nuser:x:1000:\\nvideo:x:44:user\\n' > /etc/group",
                )
                .user("root"),
            )
            .await;
        assert_eq!(sandbox.says("id -G").await, "1000 44");
        let output = sandbox
            .sh("touch /etc/mine; echo $?; cat /root/x; id -u > /home/user/id")
            .await;
        assert!(output.text().starts_with('1'), "{}", shown(&output));
        assert_eq!(
            sandbox.says("stat -c '%u %g' ~/id; cat ~/id").await,
            "1000 1000\n1000"
        );
    }
}
