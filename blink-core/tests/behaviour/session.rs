//! Sessions: what stays when machines and processes go.

use std::time::Duration;

use blink_core::{
    Blink, CheckpointOptions, Command, Consistency, ErrorKind, IsolationChoice, Network, Session,
    SessionBuilder,
};

use rustix::fs::{FlockOperation, flock};

use crate::child;
use crate::inside::Inside as _;
use crate::support::{
    Capability, Engine, TestBlink, blink, blink_in, fails, host_pid, is_alive, kill, ok, require,
    rounds, shown, until,
};

/// No larger than tests need.
pub(crate) fn describe(blink: &Blink, name: &str) -> SessionBuilder {
    match Engine::chosen() {
        Engine::Namespace => blink.session(name),
        Engine::Microvm => blink.session(name).cpus(1.0).memory_mib(512),
    }
}

async fn open(blink: &Blink, name: &str) -> Session {
    ok(describe(blink, name).open()).await
}

async fn says(session: &Session, script: &str) -> String {
    let output = ok(session.exec(Command::shell(script))).await;
    assert!(output.status.success(), "{script}: {}", shown(&output));
    output.text().trim_end().to_owned()
}

fn layers(blink: &TestBlink) -> usize {
    std::fs::read_dir(blink.home().join("layers"))
        .unwrap()
        .count()
}

async fn nothing_is_left(blink: &TestBlink) {
    assert!(ok(blink.sessions()).await.is_empty());
    assert_eq!((blink.folders().len(), layers(blink)), (0, 0));
    let machines = std::fs::read_dir(blink.home().join("microvm/boxes"));
    assert_eq!(machines.map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn what_a_session_holds_is_there_again() {
    let blink = blink().await;
    let session = open(&blink, "one").await;
    assert!(session.was_created());
    says(
        &session,
        "echo kept >/var/blink/memory/file; rm -rf /home; sync",
    )
    .await;
    let machine = says(&session, "cat /etc/machine-id; hostname").await;
    ok(session.stop()).await;
    assert!(!session.info().await.running);
    // A call starts it.
    assert_eq!(
        says(&session, "cat /var/blink/memory/file; ls -d /home || true").await,
        "kept"
    );
    assert!(session.info().await.running);
    let (id, agent) = (session.id().to_owned(), host_pid(&blink.folders()[0]));
    drop(session);
    until("the machine's end", || !is_alive(agent)).await;

    let session = open(&blink, "one").await;
    assert!(!session.was_created());
    assert_eq!(session.id(), id);
    assert_eq!(
        says(&session, "cat /etc/machine-id; hostname").await,
        machine
    );
    assert_eq!(says(&session, "cat /var/blink/memory/file").await, "kept");
    let listed = ok(blink.sessions()).await;
    assert_eq!(
        (listed.len(), listed[0].name.as_str(), listed[0].running),
        (1, "one", true)
    );
    ok(session.remove()).await;
    nothing_is_left(&blink).await;
    fails(ErrorKind::NotFound, blink.session_info("one")).await;
}

#[tokio::test]
async fn nothing_is_done_with_what_was_removed() {
    let blink = blink().await;
    let session = open(&blink, "one").await;
    let sandbox = ok(session.sandbox()).await;
    // It is the session's, which would miss it.
    fails(ErrorKind::InvalidArgument, sandbox.remove()).await;
    ok(session.remove()).await;
    ok(session.remove()).await;
    let missing = ErrorKind::NotFound;
    fails(missing, session.exec(Command::new("true"))).await;
    fails(missing, session.start()).await;
    fails(missing, session.stop()).await;
    fails(missing, session.rename("two")).await;
    fails(missing, session.checkpoint("c")).await;
    fails(missing, session.restore("c")).await;
    fails(missing, session.remove_checkpoint("c")).await;
    fails(missing, session.fork("two")).await;
    fails(missing, session.fork_from("c", "two")).await;
    fails(missing, session.export(blink.home().join("archive"))).await;
    nothing_is_left(&blink).await;
}

#[tokio::test]
async fn a_session_is_opened_with_what_it_was_made_with() {
    let blink = blink().await;
    let making = describe(&blink, "one")
        .env("A", "1")
        .label("owner", "me")
        .processes(300);
    drop(ok(making.open()).await);
    let other = describe(&blink, "one").env("A", "2").processes(301);
    let error = fails(ErrorKind::InvalidArgument, other.open()).await;
    for part in ["env", "\"1\"", "\"2\"", "processes is 300, not 301"] {
        assert!(error.message().contains(part), "{error:?}");
    }
    // What is asked for although it is the default is asked for.
    let warm = describe(&blink, "one").warm(true).network(Network::Host);
    let error = fails(ErrorKind::InvalidArgument, warm.open()).await;
    for part in ["warm is false, not true", "network is none, not host"] {
        assert!(error.message().contains(part), "{error:?}");
    }
    ok(describe(&blink, "one")
        .warm(false)
        .network(Network::None)
        .open())
    .await;
    // So is an isolation that the whole program asks for.
    let other = match Engine::chosen() {
        Engine::Namespace => IsolationChoice::Microvm,
        Engine::Microvm => IsolationChoice::Namespace,
    };
    let elsewhere = Blink::builder().home(blink.home()).isolation(other);
    let elsewhere = ok(elsewhere.build()).await;
    let error = fails(ErrorKind::InvalidArgument, elsewhere.session("one").open()).await;
    assert!(error.message().contains("isolation is"), "{error:?}");

    let session = open(&blink, "one").await;
    assert_eq!(says(&session, "echo $A").await, "1");
    let spec = session.spec().await;
    assert_eq!((spec.processes, spec.warm), (Some(300), Some(false)));
    // Its description makes another one like it.
    let like = ok(blink.session("like").spec(spec.clone()).open()).await;
    assert_eq!(like.spec().await, spec);
    assert_eq!(says(&like, "echo $A").await, "1");
    let info = session.info().await;
    assert_eq!(info.labels["owner"], "me");
    assert_eq!(info.isolation.name(), Engine::chosen().name());
    for name in ["", "a/b", "..", "-x", "a b"] {
        fails(ErrorKind::InvalidArgument, describe(&blink, name).open()).await;
        fails(ErrorKind::InvalidArgument, session.rename(name)).await;
    }
    ok(session.rename("two")).await;
    fails(ErrorKind::NotFound, blink.session_info("one")).await;
    assert_eq!(ok(blink.session_info("two")).await.id, session.id());
}

#[tokio::test]
async fn checkpoints_and_forks_are_what_the_disk_was() {
    let blink = blink().await;
    let session = open(&blink, "one").await;
    says(
        &session,
        "mkdir /data; echo 1 >/data/file; touch /data/gone",
    )
    .await;
    // While it runs, and a program with it.
    let busy = "while :; do echo x >/data/x; mv /data/x /data/y; done";
    let writing = ok(session.spawn(Command::shell(busy))).await;
    let require = CheckpointOptions::default().require_frozen();
    let first = ok(session.checkpoint_with("first", require)).await;
    assert_eq!(
        (first.consistency, first.parent),
        (Consistency::Frozen, None)
    );
    assert!(first.size_bytes > 0);
    ok(writing.release()).await;
    says(
        &session,
        "echo 2 >/data/file; rm /data/gone; head -c 3000000 /dev/urandom >/data/large; sync",
    )
    .await;
    ok(session.stop()).await;
    let second = ok(session.checkpoint("second")).await;
    assert_eq!(second.consistency, Consistency::Stopped);
    assert_eq!(second.parent.as_deref(), Some("first"));
    let error = fails(ErrorKind::AlreadyExists, session.checkpoint("first")).await;
    assert!(error.message().contains("first"), "{error:?}");
    fails(ErrorKind::InvalidArgument, session.checkpoint("a/b")).await;

    // Back, and on from there.
    ok(session.restore("first")).await;
    assert!(!session.info().await.running);
    assert_eq!(
        says(
            &session,
            "cat /data/file; ls -d /data/gone /data/large 2>/dev/null || true"
        )
        .await,
        "1\n/data/gone"
    );
    says(&session, "echo 3 >/data/file; sync").await;
    fails(ErrorKind::NotFound, session.restore("third")).await;

    // A fork of the session as it is, and one of a checkpoint.
    let fork = ok(session.fork("fork")).await;
    let older = ok(session.fork_from("second", "older")).await;
    fails(ErrorKind::AlreadyExists, session.fork("older")).await;
    fails(ErrorKind::NotFound, session.fork_from("third", "x")).await;
    assert_eq!(
        says(&fork, "cat /data/file; echo 4 >/data/file; sync").await,
        "3"
    );
    assert_eq!(
        says(&older, "cat /data/file; wc -c </data/large").await,
        "2\n3000000"
    );
    assert_eq!(says(&session, "cat /data/file").await, "3");
    let mut identities = Vec::new();
    for one in [&session, &fork, &older] {
        identities.push(says(one, "cat /etc/machine-id").await);
        identities.push(says(one, "hostname").await);
    }
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 6, "{identities:?}");
    assert_eq!(fork.info().await.forked_from.as_deref(), Some("one"));
    assert_eq!(
        older.info().await.forked_from.as_deref(),
        Some("one@second")
    );

    // A tree, of which any part can go.
    let lineage = ok(session.lineage()).await;
    assert_eq!(lineage.current.as_deref(), Some("first"));
    let tree: Vec<_> = lineage
        .checkpoints
        .iter()
        .map(|checkpoint| (checkpoint.name.as_str(), checkpoint.parent.as_deref()))
        .collect();
    assert_eq!(tree, [("first", None), ("second", Some("first"))]);
    ok(session.remove_checkpoint("first")).await;
    fails(ErrorKind::NotFound, session.remove_checkpoint("first")).await;
    assert_eq!(ok(session.checkpoints()).await[0].parent, None);
    ok(session.remove()).await;
    ok(older.stop()).await;
    assert_eq!(says(&older, "cat /data/file").await, "2");
    assert_eq!(says(&fork, "cat /data/file").await, "4");
    ok(fork.remove()).await;
    ok(older.remove()).await;
    nothing_is_left(&blink).await;
}

#[tokio::test]
async fn a_restore_that_is_given_up_has_happened_or_not() {
    let blink = blink().await;
    let mut session = open(&blink, "one").await;
    says(&session, "echo first >/var/file; sync").await;
    ok(session.checkpoint("first")).await;
    for round in 0..rounds(15) {
        says(&session, "echo changed >/var/file; sync").await;
        ok(session.stop()).await;
        let patience = Duration::from_micros(300) * round;
        let _ = tokio::time::timeout(patience, session.restore("first")).await;
        let shown = says(&session, "cat /var/file").await;
        assert!(["first", "changed"].contains(&&shown[..]), "{shown}");
        // What it goes on with is what it is for everybody.
        ok(session.stop()).await;
        drop(session);
        session = open(&blink, "one").await;
        assert_eq!(
            says(&session, "cat /var/file").await,
            shown,
            "round {round}"
        );
    }
    ok(session.remove()).await;
    nothing_is_left(&blink).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_given_up_is_made_whole() {
    let blink = blink().await;
    let session = open(&blink, "one").await;
    says(&session, "echo kept >/var/file; sync").await;
    ok(session.stop()).await;
    let beside = blink_in(blink.home()).await;
    let other = open(&beside, "two").await;
    ok(other.checkpoint("taken")).await;

    // Another process writes the list of sessions.
    let database = rusqlite::Connection::open(blink.home().join("blink.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let patience = Duration::from_secs(1);
    let given_up = tokio::time::timeout(patience, session.checkpoint("late")).await;
    assert!(given_up.is_err(), "{given_up:?}");
    // What fails removes the layers that nobody has written down.
    fails(ErrorKind::AlreadyExists, other.checkpoint("taken")).await;
    database.execute_batch("ROLLBACK").unwrap();

    let made = ok(session.lineage()).await;
    assert_eq!(made.current.as_deref(), Some("late"));
    says(&session, "echo changed >/var/file; sync").await;
    ok(session.restore("late")).await;
    assert_eq!(says(&session, "cat /var/file").await, "kept");
}

#[tokio::test]
async fn several_forks_are_made_at_once_or_none() {
    let blink = blink().await;
    let session = open(&blink, "one").await;
    says(&session, "echo 1 >/tmp/file; sync").await;
    ok(session.stop()).await;
    let before = layers(&blink);
    let error = fails(
        ErrorKind::AlreadyExists,
        session.fork_many(["a", "b", "one"]),
    )
    .await;
    assert!(error.message().contains("one"), "{error:?}");
    assert_eq!(ok(blink.sessions()).await.len(), 1);
    let forks = ok(session.fork_many((0..4).map(|number| format!("fork-{number}")))).await;
    assert_eq!(forks.len(), 4);
    let last = forks.into_iter().next_back().unwrap();
    assert_eq!(says(&last, "cat /tmp/file").await, "1");
    drop(last);
    for info in ok(blink.sessions()).await {
        if info.name != "one" {
            let fork = ok(blink.take_session(&info.name, Duration::from_secs(10))).await;
            ok(fork.remove()).await;
        }
    }
    assert!(layers(&blink) <= before + 1);
    ok(session.remove()).await;
    nothing_is_left(&blink).await;
}

#[tokio::test]
async fn a_session_of_another_process_is_not_ended_and_names_it() {
    let blink = blink().await;
    let (mut holder, _) = child::start("hold session", blink.home());
    let taking = blink.take_session("held", Duration::from_millis(100));
    let error = match Engine::chosen() {
        Engine::Namespace => fails(ErrorKind::Busy, ok(taking).await.stop()).await,
        // It belongs to the other process.
        Engine::Microvm => fails(ErrorKind::Busy, taking).await,
    };
    for part in ["held", &holder.id().to_string()] {
        assert!(error.message().contains(part), "{error:?}");
    }
    // Who waits gets it once it is free.
    let waiting = tokio::spawn(
        blink
            .session("held")
            .patience(Duration::from_secs(200))
            .open(),
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    let session = match Engine::chosen() {
        Engine::Namespace => ok(async { waiting.await.unwrap() }).await,
        // There the other process has all of the home: its engine is waited for, and no longer than usual.
        Engine::Microvm => match ok(async { Ok(waiting.await.unwrap()) }).await {
            Ok(session) => session,
            Err(_) => open(&blink, "held").await,
        },
    };
    assert!(!session.was_created());
    assert_eq!(says(&session, "cat /var/blink/memory/file").await, "kept");
}

#[tokio::test]
async fn processes_of_a_warm_session_outlive_a_killed_host() {
    let blink = blink().await;
    let (mut host, said) = child::start("warm session", blink.home());
    host.kill().unwrap();
    host.wait().unwrap();
    let id: u64 = said.parse().unwrap();
    // A start in between leaves it alone.
    drop(blink_in(blink.home()).await);
    let session = open(&blink, "warm").await;
    let agent = host_pid(&blink.folders()[0]);
    let listed = ok(session.processes()).await;
    assert_eq!((listed.len(), listed[0].id), (1, id));
    // What was spawned with the same key is the same process.
    let again = Command::shell("echo another").key("job");
    assert_eq!(ok(session.spawn(again)).await.id(), id);
    says(&session, "while ! [ -e /tmp/begun ]; do sleep 0.05; done").await;
    let process = ok(session.process(id, 4, 0)).await;
    says(&session, "touch /tmp/go").await;
    let output = ok(process.wait_with_output()).await;
    assert_eq!((output.status.code, output.text().as_ref()), (5, "two\n"));
    // Its options came back with it.
    assert_eq!(says(&session, "echo $A").await, "1");
    drop(session);
    assert!(is_alive(agent));
    let session = open(&blink, "warm").await;
    ok(session.stop()).await;
    assert!(!is_alive(agent));
    // Another machine has other processes.
    let error = fails(ErrorKind::NotFound, session.process(id, 0, 0)).await;
    assert!(error.message().contains(&id.to_string()), "{error:?}");
    ok(session.remove()).await;
    nothing_is_left(&blink).await;
}

#[tokio::test]
async fn what_others_hold_up_is_removed_with_the_next_change() {
    let blink = blink().await;
    let session = open(&blink, "one").await;
    ok(session.stop()).await;
    ok(session.checkpoint("first")).await;
    let layers = blink.home().join("layers");
    let count = || std::fs::read_dir(&layers).unwrap().count();
    let needed = count();
    // As another process has it while it reads layers.
    let reading = std::fs::File::open(&layers).unwrap();
    flock(&reading, FlockOperation::LockShared).unwrap();
    ok(session.restore("first")).await;
    assert_eq!(count(), needed + 1);
    drop(reading);
    ok(session.restore("first")).await;
    assert_eq!(count(), needed);
    ok(session.remove()).await;
    nothing_is_left(&blink).await;
}

#[tokio::test]
async fn a_machine_that_died_is_started_again_from_its_disk() {
    let blink = blink().await;
    let session = open(&blink, "one").await;
    says(&session, "echo kept >/tmp/file; sync /tmp/file /tmp").await;
    let agent = host_pid(&blink.folders()[0]);
    kill(agent);
    until("its end", || !is_alive(agent)).await;
    // What is kept of it now is its disk, which nobody writes to any more.
    let kept = ok(session.checkpoint("after")).await;
    assert_eq!(kept.consistency, Consistency::Stopped);
    let sandbox = ok(async {
        loop {
            let sandbox = session.sandbox().await?;
            if sandbox.ping().await.is_ok() {
                return Ok(sandbox);
            }
        }
    })
    .await;
    drop(sandbox);
    assert_eq!(
        says(&session, "echo more >>/tmp/file; cat /tmp/file").await,
        "kept\nmore"
    );
    ok(session.restore("after")).await;
    assert_eq!(says(&session, "cat /tmp/file").await, "kept");
}

#[tokio::test]
async fn a_session_that_was_left_running_is_kept_while_it_writes() {
    let blink = blink().await;
    drop(ok(describe(&blink, "one").warm(true).open()).await);
    let agent = host_pid(&blink.folders()[0]);
    let session = ok(blink.take_session("one", Duration::from_secs(10))).await;
    let kept = ok(session.checkpoint("running")).await;
    assert_eq!(kept.consistency, Consistency::Frozen);
    assert!(is_alive(agent));
    says(&session, "echo later >/tmp/file; sync").await;
    ok(session.restore("running")).await;
    assert!(!is_alive(agent));
    assert_eq!(says(&session, "cat /tmp/file || echo none").await, "none");
    ok(session.remove()).await;
    nothing_is_left(&blink).await;
}

#[tokio::test]
async fn an_idle_session_is_stopped_and_starts_again() {
    let blink = blink().await;
    let making = describe(&blink, "one").idle_stop(Duration::from_millis(300));
    let session = ok(making.open()).await;
    says(&session, "echo kept >/tmp/file").await;
    // Not while somebody may come back to a process.
    let process = ok(session.spawn(Command::new("sleep").arg("0.6"))).await;
    let agent = host_pid(&blink.folders()[0]);
    let output = ok(process.wait_with_output()).await;
    assert!(output.status.success(), "{}", shown(&output));
    until("the machine's end", || !is_alive(agent)).await;
    assert_eq!(says(&session, "cat /tmp/file").await, "kept");
}

#[tokio::test]
async fn two_hundred_checkpoints_in_a_row_are_as_good_as_one() {
    const MANY: u32 = 200;
    const EACH: u32 = 20;
    let blink = blink().await;
    let session = open(&blink, "one").await;
    says(
        &session,
        "mkdir /log; echo 0 >/log/changed; echo 0 >/log/0; sync",
    )
    .await;
    for number in 1..=rounds(MANY) {
        if number % EACH == 0 {
            // Something new, something changed, something gone, and a folder in the place of another.
            let last = number - EACH;
            let script = format!(
                "cd /log; echo {number} >kept-{number}; echo {number} >{number}; echo {number} >changed; rm {last}; \
                 rm -rf folder; mkdir folder; echo {number} >folder/{number}; sync"
            );
            says(&session, &script).await;
            ok(session.stop()).await;
        }
        ok(session.checkpoint(number.to_string())).await;
    }
    let look = "cd /log; cat changed; ls folder; cat folder/* | head -n 1; ls";
    let mut last = (0, String::new());
    for number in (EACH..=rounds(MANY)).step_by(EACH as usize * 3) {
        ok(session.restore(&number.to_string())).await;
        let seen = says(&session, look).await;
        let mut names: Vec<String> = (EACH..=number)
            .step_by(EACH as usize)
            .map(|number| format!("kept-{number}"))
            .chain(["changed".into(), "folder".into(), number.to_string()])
            .collect();
        names.sort();
        let expected = format!("{number}\n{number}\n{number}\n{}", names.join("\n"));
        assert_eq!(seen, expected, "{number}");
        ok(session.stop()).await;
        last = (number, seen);
    }
    // Forks of forks have long chains too, and an archive is of all of it.
    let mut fork = session;
    for number in 0..rounds(40) {
        fork = ok(fork.fork(format!("fork-{number}"))).await;
    }
    assert_eq!(says(&fork, look).await, last.1, "{}", last.0);
    for info in ok(blink.sessions()).await {
        if info.id != fork.id() {
            let session = blink.take_session(&info.name, Duration::from_secs(10));
            ok(ok(session).await.remove()).await;
        }
    }
    // What it needs of the others is still there.
    ok(fork.stop()).await;
    assert_eq!(says(&fork, look).await, last.1);
    ok(fork.remove()).await;
    nothing_is_left(&blink).await;
}

#[tokio::test]
async fn a_home_with_a_long_path_has_checkpoints_too() {
    let blink = blink().await;
    // A socket of a micro-VM's engine has a short path only.
    let depth = match Engine::chosen() {
        Engine::Namespace => 4,
        Engine::Microvm => 0,
    };
    let home = (0..depth).fold(blink.home().join("below"), |home, _| {
        home.join("x:,y".repeat(25))
    });
    let long = blink_in(&home).await;
    let session = open(&long, "one").await;
    for number in 0..rounds(20) {
        says(&session, &format!("echo {number} >/tmp/{number}; sync")).await;
        ok(session.stop()).await;
        ok(session.checkpoint(number.to_string())).await;
    }
    ok(session.restore("1")).await;
    assert_eq!(says(&session, "cat /tmp/*").await, "0\n1");
    ok(session.remove()).await;
}

mod needs_shared_home {
    use super::*;

    #[tokio::test]
    async fn processes_are_reached_beside_whoever_has_the_session() {
        require(Capability::SharedHome);
        let blink = blink().await;
        let other = blink_in(blink.home()).await;
        fails(ErrorKind::NotFound, other.session_processes("one")).await;
        let session = ok(describe(&blink, "one").warm(true).open()).await;
        let script = "echo here; cat; exit 4";
        let idle = Command::shell(script).stdin(blink_core::Stdin::Piped);
        let mut idle = ok(session.spawn(idle)).await;
        let mut stdout = idle.take_stdout().unwrap();
        assert_eq!(ok(stdout.chunk()).await.unwrap(), "here\n");
        let noisy = "head -c 3000000 /dev/zero; echo end; echo oops >&2; exec sleep 1000";
        let noisy = ok(session.spawn(Command::shell(noisy))).await;
        let (idle_id, noisy_id) = (idle.id(), noisy.id());
        drop(noisy);

        let processes = ok(other.session_processes("one")).await;
        let ids: Vec<u64> = ok(processes.list()).await.iter().map(|p| p.id).collect();
        assert_eq!(ids, [idle_id, noisy_id]);
        while ok(processes.list()).await[1].stderr_bytes < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let logs = ok(processes.logs(noisy_id)).await;
        assert_eq!(logs.stdout_offset, 3_000_004 - (1 << 20));
        assert_eq!(logs.stdout.len(), 1 << 20);
        assert!(logs.stdout.ends_with(b"\0end\n"));
        assert_eq!((&logs.stderr[..], logs.stderr_offset), (&b"oops\n"[..], 0));
        assert_eq!(ok(processes.logs(idle_id)).await.stdout, b"here\n");

        let processes = std::sync::Arc::new(processes);
        let beside = processes.clone();
        let ended = tokio::spawn(async move { beside.wait(idle_id).await });
        // One that gives up leaves nothing that could be told later.
        let given_up = processes.wait(noisy_id);
        let given_up = tokio::time::timeout(Duration::from_millis(50), given_up);
        assert!(given_up.await.is_err());
        ok(processes.kill(noisy_id)).await;
        assert_eq!(ok(processes.wait(noisy_id)).await.signal, Some(9));
        for unknown in [
            fails(ErrorKind::NotFound, processes.wait(7)).await,
            fails(ErrorKind::NotFound, processes.logs(7)).await,
            fails(ErrorKind::NotFound, processes.kill(7)).await,
        ] {
            assert!(unknown.message().contains('7'), "{unknown:?}");
        }

        // Who had it has lost nothing.
        let mut stdin = idle.take_stdin().unwrap();
        ok(stdin.write("more\n")).await;
        assert_eq!(ok(stdout.chunk()).await.unwrap(), "more\n");
        stdin.close().await;
        assert_eq!(ok(stdout.chunk()).await, None);
        assert_eq!(ok(idle.wait()).await.code, 4);
        assert_eq!(ok(async { ended.await.unwrap() }).await.code, 4);
        ok(session.stop()).await;
        fails(ErrorKind::SandboxDied, processes.list()).await;
        fails(ErrorKind::NotFound, other.session_processes("one")).await;
        ok(session.remove()).await;
        nothing_is_left(&blink).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn eight_processes_share_the_sessions_of_a_home() {
        require(Capability::SharedHome);
        let blink = blink().await;
        let running: Vec<_> = (0..8)
            .map(|_| {
                let command = child::command("churn sessions", blink.home());
                std::thread::spawn(move || child::report(command))
            })
            .collect();
        for child in running {
            let report = tokio::task::spawn_blocking(|| child.join().unwrap()).await;
            assert_eq!(report.unwrap(), ["ok"]);
        }
        let session = open(&blink, "shared-0").await;
        // Each process has added its lines to each of three sessions.
        assert_eq!(says(&session, "wc -l </var/blink/memory/lines").await, "40");
        for name in ["shared-0", "shared-1", "shared-2"] {
            let session = match name {
                "shared-0" => continue,
                name => ok(blink.take_session(name, Duration::from_secs(10))).await,
            };
            ok(session.remove()).await;
        }
        ok(session.remove()).await;
        nothing_is_left(&blink).await;
    }
}
