//! What is above engines, on one that runs nothing.

use std::time::Duration;

use super::{Reply, answer};
use crate::{Blink, Command, ErrorKind, Isolation, IsolationChoice};

const LONG: Duration = Duration::from_secs(60);

async fn blink(home: &tempfile::TempDir) -> Blink {
    let blink = Blink::builder()
        .home(home.path().join("home"))
        .isolation(IsolationChoice::Scripted)
        .build()
        .await
        .unwrap();
    answer(blink.home_path(), |invocation| {
        match invocation.words().as_slice() {
            ["echo", words @ ..] => Reply::printing(words.join(" ") + "\n"),
            ["cat"] => Reply::printing(invocation.stdin.clone()),
            ["flood"] => Reply::printing(vec![b'x'; 5 << 20]).and_complaining(vec![b'y'; 3 << 20]),
            ["fail"] => Reply::exiting(3).and_complaining("why\n"),
            ["sleep"] => Reply::printing("begun\n").and_taking(Duration::MAX),
            _ => Reply::not_found(),
        }
    });
    blink
}

#[tokio::test]
async fn programs_are_answered_and_killed_and_timed_out() {
    let home = tempfile::tempdir().unwrap();
    let sandbox = blink(&home).await.sandbox().create().await.unwrap();
    assert_eq!(sandbox.isolation(), Isolation::Scripted);
    let run = async |command: Command| sandbox.exec(command).await.unwrap();

    assert_eq!(
        run(Command::new("echo").args(["a", "b"])).await.text(),
        "a b\n"
    );
    let input = vec![b'z'; 3 << 20];
    let output = run(Command::new("cat").stdin_bytes(input.clone())).await;
    assert!(output.stdout == input);
    let output = run(Command::new("flood")).await;
    assert_eq!(
        (output.stdout.len(), output.stderr.len()),
        (5 << 20, 3 << 20)
    );
    let output = run(Command::new("flood").output_limit_bytes(10)).await;
    assert_eq!((output.stdout.len(), output.stdout_bytes), (10, 5 << 20));
    let output = run(Command::new("fail")).await;
    assert_eq!((output.status.code, &output.stderr[..]), (3, &b"why\n"[..]));
    assert_eq!(run(Command::new("unknown")).await.status.code, 127);
    let output = run(Command::new("sleep").timeout(Duration::from_millis(20))).await;
    assert!(output.status.timed_out && output.text() == "begun\n");

    let mut process = sandbox.spawn(Command::new("sleep")).await.unwrap();
    let mut stdout = process.take_stdout().unwrap();
    assert_eq!(stdout.chunk().await.unwrap().unwrap(), "begun\n");
    assert_eq!(sandbox.processes().await.unwrap().len(), 1);
    process.kill().await.unwrap();
    assert_eq!(process.wait().await.unwrap().signal, Some(9));
    process.release().await.unwrap();
    assert!(sandbox.processes().await.unwrap().is_empty());

    let waiting = sandbox.exec(Command::new("sleep").timeout(LONG));
    let (waited, removed) = tokio::join!(waiting, sandbox.remove());
    removed.unwrap();
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::SandboxDied);
}

#[tokio::test]
async fn files_are_kept() {
    let home = tempfile::tempdir().unwrap();
    let sandbox = blink(&home).await.sandbox().create().await.unwrap();
    let files = sandbox.files().unwrap();
    let large = vec![7; 3 << 20];
    files.write("/tmp/large", large.clone()).await.unwrap();
    assert!(files.read("/tmp/large").await.unwrap() == large);
    let error = files.write("/no/such", "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    files.make_dir("/tmp/a").await.unwrap();
    files.write("/tmp/a/b", "1").await.unwrap();
    files.rename("/tmp/a", "/tmp/c").await.unwrap();
    let names: Vec<_> = files.list("/tmp").await.unwrap();
    let names: Vec<_> = names.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, ["c", "large"]);
    assert_eq!(files.stat("/tmp/c/b").await.unwrap().size, 1);
    let error = files.remove("/tmp/c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
    files.remove_all("/tmp/c").await.unwrap();
    assert_eq!(
        files.stat("/tmp/c").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn sessions_have_checkpoints_and_forks() {
    let home = tempfile::tempdir().unwrap();
    let blink = blink(&home).await;
    let session = blink.session("one").image("host").open().await.unwrap();
    session
        .sandbox()
        .await
        .unwrap()
        .files()
        .unwrap()
        .write("/root/state", "1")
        .await
        .unwrap();
    session.checkpoint("first").await.unwrap();
    session
        .sandbox()
        .await
        .unwrap()
        .files()
        .unwrap()
        .write("/root/state", "2")
        .await
        .unwrap();
    let fork = session.fork("two").await.unwrap();
    session.restore("first").await.unwrap();
    let state = async |session: &crate::Session| {
        let files = session.sandbox().await.unwrap().files().unwrap();
        files.read("/root/state").await.unwrap()
    };
    assert_eq!(state(&session).await, "1");
    assert_eq!(state(&fork).await, "2");
    session.stop().await.unwrap();
    assert!(!session.info().await.running);
    assert_eq!(state(&session).await, "1");
    assert_eq!(session.info().await.isolation, Isolation::Scripted);

    let archive = home.path().join("one.blink");
    let error = session.export(&archive).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!archive.exists());
    fork.remove().await.unwrap();
    session.remove().await.unwrap();
    assert!(blink.sessions().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_detached_sandbox_is_taken_up_while_the_process_lives() {
    let home = tempfile::tempdir().unwrap();
    let blink = blink(&home).await;
    let sandbox = blink.sandbox().detached().create().await.unwrap();
    let id = sandbox.id().to_owned();
    sandbox.files().unwrap().write("/tmp/x", "1").await.unwrap();
    drop(sandbox);
    assert!(blink.sandbox_info(&id).unwrap().running);
    let sandbox = blink.open(&id).await.unwrap();
    assert_eq!(sandbox.files().unwrap().read("/tmp/x").await.unwrap(), "1");
    sandbox.remove().await.unwrap();
    assert!(blink.sandboxes().is_empty());
}

#[tokio::test]
async fn nobody_gets_it_who_asks_for_the_strongest() {
    let home = tempfile::tempdir().unwrap();
    let blink = blink(&home).await;
    let chosen = blink.choose(Some(IsolationChoice::Auto)).await.unwrap();
    assert_ne!(chosen, Isolation::Scripted);
}
