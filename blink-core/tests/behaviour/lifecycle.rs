//! Beginnings and ends of sandboxes, and of the processes that hold them.

use std::path::PathBuf;
use std::time::Duration;

use blink_core::{Command, ErrorKind};

use crate::child;
use crate::support::{
    Capability, Engine, blink, blink_in, fails, folders, host_pid, is_alive, kill, ok, require,
    rounds, sandbox_with, until, within,
};

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// Numbers of the host's processes whose command line holds a text.
fn processes_with(text: &str) -> Vec<i32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let folder = std::path::PathBuf::from(format!("/proc/{pid}"));
            let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let program = std::fs::read_link(folder.join("exe")).unwrap_or_default();
            line.contains(text) || program.to_string_lossy().contains(text)
        })
        .collect()
}

#[tokio::test]
async fn removing_leaves_nothing() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let folder = blink.home().join("sandboxes").join(sandbox.id());
    ok(sandbox.exec(Command::shell(
        "mkdir -p /tmp/a/b; chmod 000 /tmp/a; touch /etc/x; setsid sleep 1000 & true",
    )))
    .await;
    let agent = host_pid(&folder);
    assert!(is_alive(agent));
    let home = blink.home().to_str().unwrap().to_owned();
    assert!(!processes_with(&home).is_empty());
    ok(sandbox.remove()).await;
    assert!(!folder.exists() && blink.folders().is_empty());
    assert!(!is_alive(agent));
    assert_eq!(processes_with(&home), [0; 0]);
    assert!(!mounts().contains(&home));
}

#[tokio::test]
async fn removing_again_does_nothing_and_other_calls_fail() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let process = ok(sandbox.spawn(Command::new("sleep").arg("1000"))).await;
    let (first, second, exit) =
        within(async { tokio::join!(sandbox.remove(), sandbox.remove(), process.exited()) }).await;
    first.unwrap();
    second.unwrap();
    assert_eq!(exit.unwrap_err().kind(), ErrorKind::SandboxDied);
    assert_eq!(blink.folders().len(), 0);
    fails(ErrorKind::SandboxDied, sandbox.exec(Command::new("true"))).await;
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn a_boot_that_is_given_up_leaves_nothing() {
    let blink = blink().await;
    let waits_ms: &[u64] = match Engine::chosen() {
        Engine::Namespace => &[0, 1, 3, 10, 30],
        // While the engine makes it, while its hypervisor starts, and while its kernel does.
        Engine::Microvm => &[0, 300, 1000, 4000],
    };
    for detached in [false, true] {
        for &wait_ms in waits_ms {
            let sandbox = match detached {
                false => blink.sandbox(),
                true => blink.sandbox().detached(),
            };
            let wait = Duration::from_millis(wait_ms);
            drop(tokio::time::timeout(wait, sandbox.create()).await);
            within(blink.settled()).await;
            for id in blink.sandboxes() {
                // One that was ready in time, and is detached.
                if let Ok(sandbox) = within(blink.open(&id)).await {
                    ok(sandbox.remove()).await;
                }
            }
            assert_eq!(blink.folders().len(), 0);
            let machines = std::fs::read_dir(blink.home().join("microvm/boxes"));
            assert_eq!(machines.map_or(0, Iterator::count), 0);
        }
    }
    let home = blink.home().to_str().unwrap().to_owned();
    until("the end of all processes", || {
        processes_with(&home).is_empty()
    })
    .await;
}

#[tokio::test]
async fn dropping_leaves_nothing() {
    let blink = blink().await;
    for round in 0..rounds(10) {
        let sandbox = ok(blink.sandbox().create()).await;
        let folder = blink.home().join("sandboxes").join(sandbox.id());
        let script =
            "i=0; while :; do i=$((i + 1)); mkdir -p /tmp/$i/x; echo x > /tmp/$i/x/f; done";
        let writing = ok(sandbox.spawn(Command::shell(script))).await;
        ok(sandbox.exec(Command::new("true"))).await;
        let agent = host_pid(&folder);
        let files = sandbox.files().unwrap();
        drop(sandbox);
        fails(ErrorKind::SandboxDied, files.read("/etc/passwd")).await;
        drop(writing);
        let home = blink.home().to_str().unwrap().to_owned();
        until("the agent's end", || !is_alive(agent)).await;
        until("the processes' end", || processes_with(&home).is_empty()).await;
        if round % 2 == 0 {
            // What was still being written goes with the next start.
            let _again = blink_in(blink.home()).await;
        }
        until("the folder's end", || blink.folders().is_empty()).await;
    }
}

#[tokio::test]
async fn a_handle_outlives_its_sandbox_harmlessly() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let mut process = ok(sandbox.spawn(
        Command::new("sleep")
            .arg("1000")
            .stdin(blink_core::Stdin::Piped),
    ))
    .await;
    let files = sandbox.files().unwrap();
    let mut stdin = process.take_stdin().unwrap();
    let mut stdout = process.take_stdout().unwrap();
    ok(sandbox.remove()).await;
    let error = fails(ErrorKind::SandboxDied, process.wait()).await;
    assert!(error.message().contains("removed"), "{error:?}");
    fails(ErrorKind::SandboxDied, stdout.chunk()).await;
    fails(ErrorKind::SandboxDied, stdin.write(&b"x"[..])).await;
    fails(ErrorKind::SandboxDied, process.kill()).await;
    fails(ErrorKind::SandboxDied, files.write("/tmp/x", "x")).await;
    fails(ErrorKind::SandboxDied, files.read("/tmp/x")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_fails_everything_that_waits() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let agent = host_pid(&blink.folders()[0]);
    let mut process = ok(sandbox.spawn(Command::new("sleep").arg("1000"))).await;
    let mut stdout = process.take_stdout().unwrap();
    let died = |result: Result<(), blink_core::Error>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SandboxDied, "{error:?}");
    };
    let killing = async {
        ok(sandbox.exec(Command::shell("true"))).await;
        kill(agent);
    };
    within(async {
        tokio::join!(
            async {
                died(
                    sandbox
                        .exec(Command::new("sleep").arg("1000"))
                        .await
                        .map(drop),
                )
            },
            async {
                died(
                    sandbox
                        .exec(Command::shell(
                            "yes | head -c 1000000000 > /dev/null; sleep 1000",
                        ))
                        .await
                        .map(drop),
                )
            },
            async { died(stdout.chunk().await.map(drop)) },
            async {
                died(
                    sandbox
                        .exec(
                            Command::new("sleep")
                                .arg("1000")
                                .stdin_bytes(vec![0; 30 << 20]),
                        )
                        .await
                        .map(drop),
                )
            },
            killing,
        )
    })
    .await;
    fails(ErrorKind::SandboxDied, process.wait()).await;
    fails(ErrorKind::SandboxDied, process.kill()).await;
    fails(ErrorKind::SandboxDied, sandbox.exec(Command::new("true"))).await;
    fails(ErrorKind::SandboxDied, sandbox.spawn(Command::new("true"))).await;
    fails(
        ErrorKind::SandboxDied,
        sandbox.files().unwrap().read("/etc/passwd"),
    )
    .await;
    fails(ErrorKind::SandboxDied, sandbox.processes()).await;
    fails(ErrorKind::SandboxDied, sandbox.ping()).await;
    fails(ErrorKind::SandboxDied, sandbox.connect_tcp("127.0.0.1", 1)).await;
    let death = sandbox.death().unwrap();
    assert_eq!(death.kind(), ErrorKind::SandboxDied);
    ok(sandbox.remove()).await;
    assert!(blink.folders().is_empty());
}

#[tokio::test]
async fn giving_up_a_boot_leaves_nothing() {
    let blink = blink().await;
    // The first one makes what all share.
    ok(ok(blink.sandbox().create()).await.remove()).await;
    // From before it begins to where it is nearly up.
    let step = match Engine::chosen() {
        Engine::Namespace => Duration::from_micros(400),
        Engine::Microvm => Duration::from_millis(1200),
    };
    for round in 0..rounds(40) {
        let _ = tokio::time::timeout(step * round, blink.sandbox().create()).await;
    }
    let home = blink.home().to_str().unwrap().to_owned();
    until("the processes' end", || processes_with(&home).is_empty()).await;
    let _again = blink_in(blink.home()).await;
    until("the folders' end", || blink.folders().is_empty()).await;
}

#[tokio::test]
async fn a_boot_that_takes_too_long_is_a_timeout() {
    let blink = blink().await;
    let creating = blink.sandbox().boot_timeout(Duration::ZERO).create();
    fails(ErrorKind::Timeout, creating).await;
    let home = blink.home().to_str().unwrap().to_owned();
    until("the processes' end", || processes_with(&home).is_empty()).await;
    until("the folder's end", || blink.folders().is_empty()).await;
}

#[tokio::test]
async fn a_detached_sandbox_outlives_its_process() {
    let blink = blink().await;
    let (mut child, said) = child::start("detached", blink.home());
    assert!(child.wait().unwrap().success());
    let (id, process) = said.split_once(' ').unwrap();
    // A start in between leaves it alone.
    let again = blink_in(blink.home()).await;
    assert_eq!(again.sandboxes(), [id]);

    let sandbox = ok(again.open(id)).await;
    assert_eq!(sandbox.id(), id);
    let error = fails(ErrorKind::Busy, blink.open(id)).await;
    assert!(
        error.message().contains(&std::process::id().to_string()),
        "{error:?}"
    );
    let files = sandbox.files().unwrap();
    assert_eq!(&ok(files.read("/tmp/file")).await[..], b"kept");
    let listed = ok(sandbox.processes()).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].id.to_string().as_str(), listed[0].key.as_deref()),
        (process, Some("kept"))
    );
    let process = ok(sandbox.process(process.parse().unwrap(), 0, 0)).await;
    ok(files.write("/tmp/go", "")).await;
    let output = ok(process.wait_with_output()).await;
    assert_eq!(
        (output.status.code, output.text().as_ref()),
        (5, "one\ntwo\n")
    );

    // Left and taken up again, in one process, as if an earlier release had made it.
    drop(sandbox);
    let folder = &blink.folders()[0];
    let earlier = match Engine::chosen() {
        Engine::Namespace => "machine.json",
        Engine::Microvm => "microvm.json",
    };
    std::fs::rename(folder.join("record.json"), folder.join(earlier)).unwrap();
    let sandbox = ok(blink.open(id)).await;
    std::fs::rename(folder.join(earlier), folder.join("record.json")).unwrap();
    let agent = host_pid(folder);
    ok(sandbox.exec(Command::new("true"))).await;
    ok(sandbox.remove()).await;
    assert!(!is_alive(agent));
    assert!(blink.folders().is_empty() && blink.sandboxes().is_empty());
    let error = fails(ErrorKind::NotFound, blink.open(id)).await;
    assert!(error.message().contains(id), "{error:?}");
}

#[tokio::test]
async fn a_detached_sandbox_of_another_process_is_busy_and_names_it() {
    let blink = blink().await;
    let (mut maker, said) = child::start("detached", blink.home());
    maker.wait().unwrap();
    let (id, _) = said.split_once(' ').unwrap();
    let (mut holder, _) = child::start("hold", blink.home());
    let error = fails(ErrorKind::Busy, blink.open(id)).await;
    assert!(
        error.message().contains(&holder.id().to_string()),
        "{error:?}"
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
    let sandbox = ok(blink.open(id)).await;
    ok(sandbox.exec(Command::new("true"))).await;
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn a_detached_sandbox_that_was_killed_is_gone() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().detached().create()).await;
    let id = sandbox.id().to_owned();
    drop(sandbox);
    let agent = host_pid(&blink.folders()[0]);
    assert!(is_alive(agent));
    kill(agent);
    until("its end", || !is_alive(agent)).await;
    let home = blink.home().to_str().unwrap().to_owned();
    until("the processes' end", || processes_with(&home).is_empty()).await;
    let error = fails(ErrorKind::SandboxDied, blink.open(&id)).await;
    assert!(error.message().contains(&id), "{error:?}");
    assert!(blink.folders().is_empty());
    for odd in ["", "..", "../..", "no", "a/b", "\0", &id] {
        fails(ErrorKind::NotFound, blink.open(odd)).await;
    }
}

#[tokio::test]
async fn a_killed_host_process_leaves_nothing_behind_the_next_start() {
    let blink = blink().await;
    let (mut child, _) = child::start("three", blink.home());
    let folders: Vec<PathBuf> = blink.folders();
    assert_eq!(folders.len(), 3);
    let agents: Vec<i32> = folders.iter().map(|folder| host_pid(folder)).collect();
    assert!(agents.iter().all(|agent| is_alive(*agent)));
    // Another start leaves the sandboxes of the living alone.
    let _other = blink_in(blink.home()).await;
    assert!(agents.iter().all(|agent| is_alive(*agent)));
    child.kill().unwrap();
    child.wait().unwrap();
    let home = blink.home().to_str().unwrap().to_owned();
    // Their leash is gone: they end by themselves.
    for agent in &agents {
        until("the agent's end", || !is_alive(*agent)).await;
    }
    let _next = blink_in(blink.home()).await;
    assert!(blink.folders().is_empty(), "{:?}", blink.folders());
    assert_eq!(processes_with(&home), [0; 0]);
    assert_eq!(processes_with("sleep 54321"), [0; 0]);
    assert!(!mounts().contains(&home));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sandboxes_at_once() {
    let blink = blink().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..rounds(20) {
        let creating = blink.sandbox().env("NUMBER", number.to_string()).create();
        tasks.spawn(async move {
            let sandbox = ok(creating).await;
            let output = ok(sandbox.exec(Command::shell("echo $NUMBER"))).await;
            assert_eq!(output.text(), format!("{number}\n"));
            ok(sandbox.remove()).await;
        });
    }
    within(tasks.join_all()).await;
    assert!(blink.folders().is_empty());
}

#[tokio::test]
async fn a_sandbox_starts_empty_each_time() {
    let blink = blink().await;
    let first = ok(blink.sandbox().create()).await;
    ok(first.exec(Command::shell(
        "echo x > /etc/passwd; rm -rf /var /home; touch /tmp/x",
    )))
    .await;
    ok(first.remove()).await;
    let second = blink.create(|builder| builder).await;
    assert_eq!(
        second
            .says("ls -A /tmp; id -un; ls -d /var/blink/memory")
            .await,
        "root\n/var/blink/memory"
    );
}

#[tokio::test]
async fn a_relative_home_with_odd_names_works() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("with space, comma: and ümlaut\\");
    let blink = blink_in(&odd).await;
    let sandbox = ok(blink.sandbox().create()).await;
    let output = ok(sandbox.exec(Command::shell("echo x > /tmp/x; cat /tmp/x"))).await;
    assert_eq!(output.text(), "x\n");
    ok(sandbox.remove()).await;
    let long = folder.path().join("l".repeat(100)).join("m".repeat(100));
    let blink = blink_in(&long).await;
    let sandbox = ok(blink.sandbox().detached().create()).await;
    let id = sandbox.id().to_owned();
    drop(sandbox);
    ok(ok(blink.open(&id)).await.remove()).await;
}

#[tokio::test]
async fn an_orphan_of_the_sandbox_is_collected() {
    let sandbox = sandbox_with(|builder| builder).await;
    sandbox
        .says("for i in $(seq 50); do (setsid true &); done")
        .await;
    for _ in 0..200 {
        if sandbox.processes_seen().await.is_empty() {
            return;
        }
    }
    panic!("{:?}", sandbox.processes_seen().await);
}

mod needs_shared_home {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn several_processes_share_a_home() {
        require(Capability::SharedHome);
        let blink = blink().await;
        let running: Vec<_> = (0..4)
            .map(|_| {
                let command = child::command("churn", blink.home());
                std::thread::spawn(move || child::report(command))
            })
            .collect();
        for child in running {
            let report = tokio::task::spawn_blocking(|| child.join().unwrap())
                .await
                .unwrap();
            assert_eq!(report, ["ok"]);
        }
        assert!(folders(blink.home()).is_empty());
    }
}
