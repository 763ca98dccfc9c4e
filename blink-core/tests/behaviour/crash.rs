//! A host process that is killed between any two steps of a change: the old state is there, or the new one, whole.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use blink_core::{Blink, Command, Session};

use crate::child;
use crate::session::describe;
use crate::support::{Capability, TestBlink, blink, blink_in, has, ok, shown, until};

const CHANGE: &str = "BLINK_TEST_CHANGE";

/// More than any change has.
const STEPS_LIMIT: u32 = 100;

async fn take(blink: &Blink, name: &str) -> Session {
    ok(blink.take_session(name, Duration::from_secs(10))).await
}

/// What the killed process does.
pub(crate) async fn change(home: &Path) {
    let blink = blink_in(home).await;
    let change = std::env::var(CHANGE).unwrap();
    if change == "create" {
        drop(ok(describe(&blink, "new").open()).await);
        return;
    }
    let session = take(&blink, "one").await;
    match change.as_str() {
        "checkpoint" => drop(ok(session.checkpoint("new")).await),
        "checkpoint while it runs" => {
            ok(session.start()).await;
            drop(ok(session.checkpoint("new")).await);
        }
        "restore" => ok(session.restore("first")).await,
        "fork" => drop(ok(session.fork_many(["new", "newer"])).await),
        "fork from a checkpoint" => drop(ok(session.fork_from("first", "new")).await),
        "remove a checkpoint" => ok(session.remove_checkpoint("first")).await,
        "export and import" => {
            let archive = home.join("one.boxlite");
            ok(session.export(&archive)).await;
            drop(ok(describe(&blink, "new").import(&archive)).await);
        }
        "rename" => ok(session.rename("new")).await,
        "remove" => ok(session.remove()).await,
        other => panic!("unknown change {other}"),
    }
}

/// A home with a session `one`, whose file says 2, and said 1 at its checkpoint `first`.
async fn prepared() -> TestBlink {
    let blink = blink().await;
    let session = ok(describe(&blink, "one").open()).await;
    ok(session.exec(Command::shell("echo 1 >/tmp/file"))).await;
    ok(session.stop()).await;
    ok(session.checkpoint("first")).await;
    ok(session.exec(Command::shell("echo 2 >/tmp/file"))).await;
    ok(session.stop()).await;
    drop(session);
    blink
}

async fn file_of(session: &Session) -> String {
    let output = ok(session.exec(Command::shell("cat /tmp/file || true"))).await;
    assert!(output.status.success(), "{}", shown(&output));
    output.text().trim().to_owned()
}

/// All that can be known of a home: its sessions with what they hold, and what they hold at each checkpoint.
async fn state(blink: &Blink) -> Vec<String> {
    let mut state = Vec::new();
    for info in ok(blink.sessions()).await {
        let session = take(blink, &info.name).await;
        state.push(format!("{} {}", info.name, file_of(&session).await));
        for checkpoint in ok(session.checkpoints()).await {
            ok(session.restore(&checkpoint.name)).await;
            let content = file_of(&session).await;
            state.push(format!("{}@{} {content}", info.name, checkpoint.name));
        }
    }
    state
}

async fn survives(change: &str, old: &[&str], new: &[&str]) {
    if !has(Capability::SharedHome) {
        return;
    }
    for step in 0..STEPS_LIMIT {
        let home = prepared().await;
        let mut command = child::command("change session", home.home());
        command
            .env(CHANGE, change)
            .env("BLINK_TEST_CRASH_AT", step.to_string());
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let was_killed = output.status.signal() == Some(9);
        assert!(
            was_killed || output.status.success(),
            "{change} {step}: {output:?}"
        );
        // Whatever it has started ends with it, and the next start finds all that is left.
        let next = blink_in(home.home()).await;
        let found = state(&next).await;
        match was_killed {
            true => assert!(found == old || found == new, "{change} {step}: {found:?}"),
            false => assert_eq!(found, new, "{change}"),
        }
        for info in ok(next.sessions()).await {
            ok(take(&next, &info.name).await.remove()).await;
        }
        let layers = home.home().join("layers");
        until("no layer", || {
            std::fs::read_dir(&layers).unwrap().count() == 0
        })
        .await;
        until("no folder", || home.folders().is_empty()).await;
        if !was_killed {
            assert!(step > 2, "{change} has steps");
            return;
        }
    }
    panic!("{change} never comes to its end");
}

const OLD: [&str; 2] = ["one 2", "one@first 1"];

#[tokio::test]
async fn of_creating() {
    survives("create", &OLD, &["new ", "one 2", "one@first 1"]).await;
}

#[tokio::test]
async fn of_a_checkpoint() {
    survives("checkpoint", &OLD, &["one 2", "one@first 1", "one@new 2"]).await;
}

#[tokio::test]
async fn of_a_checkpoint_while_it_runs() {
    survives(
        "checkpoint while it runs",
        &OLD,
        &["one 2", "one@first 1", "one@new 2"],
    )
    .await;
}

#[tokio::test]
async fn of_restoring() {
    survives("restore", &OLD, &["one 1", "one@first 1"]).await;
}

#[tokio::test]
async fn of_forking() {
    survives("fork", &OLD, &["new 2", "newer 2", "one 2", "one@first 1"]).await;
}

#[tokio::test]
async fn of_forking_from_a_checkpoint() {
    survives(
        "fork from a checkpoint",
        &OLD,
        &["new 1", "one 2", "one@first 1"],
    )
    .await;
}

#[tokio::test]
async fn of_removing_a_checkpoint() {
    survives("remove a checkpoint", &OLD, &["one 2"]).await;
}

#[tokio::test]
async fn of_exporting_and_importing() {
    survives(
        "export and import",
        &OLD,
        &["new 2", "one 2", "one@first 1"],
    )
    .await;
}

#[tokio::test]
async fn of_renaming() {
    survives("rename", &OLD, &["new 2", "new@first 1"]).await;
}

#[tokio::test]
async fn of_removing() {
    survives("remove", &OLD, &[]).await;
}
