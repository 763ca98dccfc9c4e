//! Sessions as files: what was exported comes back, and what is no whole archive leaves nothing.

use std::fs;
use std::path::Path;

use blink_core::{Blink, Command, ErrorKind, Session};

use crate::child;
use crate::inside::Inside as _;
use crate::session::describe;
use crate::support::{
    Capability, Engine, TestBlink, blink, fails, noise, ok, python, require, sha256, shown,
};

async fn says(session: &Session, script: &str) -> String {
    let output = ok(session.exec(Command::shell(script))).await;
    assert!(output.status.success(), "{script}: {}", shown(&output));
    output.text().trim_end().to_owned()
}

/// What sessions of a home leave on the disk.
fn count(blink: &TestBlink) -> (usize, usize) {
    let layers = fs::read_dir(blink.home().join("layers")).unwrap();
    (blink.folders().len(), layers.count())
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

const LARGE: usize = 3 << 20;

/// Something of every kind, and things of the image gone.
async fn fill(session: &Session) {
    says(
        session,
        "set -e
         mkdir -p /data/deep/er
         : >/data/empty
         echo linked >/data/deep/er/one; ln /data/deep/er/one /data/two
         ln -s /etc/passwd /data/absolute; ln -s deep/er /data/relative; ln -s nowhere /data/dangling
         mkfifo /data/pipe
         echo run >/data/program; chmod 751 /data/program
         mkdir /data/sticky; chmod 1770 /data/sticky
         echo secret >/data/closed; chmod 000 /data/closed
         echo x >'/data/.wh.name with
line'
         touch -d @1000000000 /data/program /data/deep
         truncate -s 5M /data/hole; echo end >>/data/hole
         rm -rf /home /etc/shells
         rm -rf /etc/ssl; mkdir /etc/ssl; echo mine >/etc/ssl/mine
         echo changed >/etc/group",
    )
    .await;
    let files = ok(session.files()).await;
    ok(files.write("/data/large", noise(LARGE))).await;
    let attribute = "import os; os.setxattr('/data/program', 'user.note', b'kept')";
    let output = ok(session.exec(python(attribute))).await;
    assert!(output.status.success(), "{}", shown(&output));
    says(session, "sync").await;
}

async fn has_all(session: &Session) {
    let told = says(
        session,
        "cd /data
         stat -c '%n %F %a %s' empty program sticky pipe closed hole
         stat -c '%Y' program deep
         cat two; test deep/er/one -ef two && stat -c %h two
         readlink absolute relative dangling
         cat '.wh.name with
line'
         tail -c 4 hole
         ls -d /home /etc/shells 2>/dev/null
         ls -A /etc/ssl; cat /etc/ssl/mine /etc/group
         sha256sum <large",
    )
    .await;
    let expected = format!(
        "empty regular empty file 644 0\nprogram regular file 751 4\nsticky directory 1770 {{sticky}}\n\
         pipe fifo 644 0\nclosed regular file 0 7\nhole regular file 644 5242884\n\
         1000000000\n1000000000\nlinked\n2\n/etc/passwd\ndeep/er\nnowhere\nx\nend\nmine\nmine\nchanged\n{}  -",
        sha256(&noise(LARGE))
    );
    // A folder's size is its file system's own affair.
    let size = told
        .lines()
        .find_map(|line| line.strip_prefix("sticky directory 1770 "));
    let expected = expected.replace("{sticky}", size.unwrap_or_default());
    assert_eq!(told, expected);
    let attribute = "import os; print(os.getxattr('/data/program', 'user.note'))";
    let output = ok(session.exec(python(attribute))).await;
    assert_eq!(output.text().trim_end(), "b'kept'", "{}", shown(&output));
}

async fn import(blink: &Blink, name: &str, archive: &Path) -> Session {
    ok(describe(blink, name).import(archive)).await
}

#[tokio::test]
async fn an_exported_session_comes_back_in_another_home() {
    let (blink, other) = (blink().await, blink().await);
    let files = tempfile::tempdir().unwrap();
    let session = ok(describe(&blink, "one").open()).await;
    fill(&session).await;

    // While it runs, and a program with it.
    let running = files.path().join("running.boxlite");
    let busy = ok(session.spawn(Command::shell("while :; do echo x >/data/busy; done"))).await;
    ok(session.export(&running)).await;
    ok(busy.release()).await;
    assert!(session.info().await.running);
    says(&session, "rm /data/busy; sync").await;
    let before = count(&blink);
    ok(session.stop()).await;
    let stopped = files.path().join("stopped.boxlite");
    ok(session.export(&stopped)).await;
    assert_eq!(names(files.path()).len(), 2, "{:?}", names(files.path()));
    assert_eq!(count(&blink).0, before.0);
    // It goes on after that.
    has_all(&session).await;
    ok(session.remove()).await;
    assert_eq!(count(&blink), (0, 0));

    for (name, archive) in [("running", &running), ("stopped", &stopped)] {
        let session = import(&other, name, archive).await;
        assert!(session.was_created() && !session.info().await.running);
        has_all(&session).await;
        says(&session, "rm -rf /data; echo new >/etc/group").await;
        ok(session.stop()).await;
        assert_eq!(
            says(&session, "ls /data 2>/dev/null; cat /etc/group").await,
            "new"
        );
        ok(session.remove()).await;
    }
    assert_eq!(count(&other), (0, 0));
}

#[tokio::test]
async fn an_archive_is_of_all_layers_and_keeps_nothing_that_is_gone() {
    let blink = blink().await;
    let files = tempfile::tempdir().unwrap();
    let (large, small) = (files.path().join("large"), files.path().join("small"));
    let session = ok(describe(&blink, "one").open()).await;
    says(
        &session,
        "mkdir /a; echo 1 >/a/low; echo 1 >/a/changed; sync",
    )
    .await;
    ok(ok(session.files()).await.write("/a/large", noise(LARGE))).await;
    says(&session, "sync").await;
    ok(session.stop()).await;
    ok(session.checkpoint("first")).await;
    ok(session.export(&large)).await;
    says(
        &session,
        "rm /a/large; echo 2 >/a/changed; rm -rf /home; mkdir /b; echo 2 >/b/file; sync",
    )
    .await;
    ok(session.checkpoint("second")).await;
    says(
        &session,
        "rm -rf /b; mkdir /b; echo 3 >/b/again; mkdir /home; sync",
    )
    .await;
    let fork = ok(session.fork("fork")).await;
    ok(fork.export(&small)).await;
    ok(fork.remove()).await;
    ok(session.remove()).await;
    assert_eq!(count(&blink), (0, 0));
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(size(&large) > LARGE as u64);
    if Engine::chosen() == Engine::Namespace {
        // A disk's blocks are not emptied when a file goes.
        assert!(size(&small) < LARGE as u64 / 10, "{}", size(&small));
    }

    let session = import(&blink, "again", &small).await;
    assert_eq!(
        says(
            &session,
            "cat /a/low /a/changed /b/again; ls -A /a /b /home"
        )
        .await,
        "1\n2\n3\n/a:\nchanged\nlow\n\n/b:\nagain\n\n/home:"
    );
    // Over the import, checkpoints go on as ever.
    ok(session.checkpoint("first")).await;
    says(&session, "rm -rf /a; sync").await;
    ok(session.restore("first")).await;
    assert_eq!(says(&session, "cat /a/changed").await, "2");
    ok(session.remove()).await;
    assert_eq!(count(&blink), (0, 0));
}

#[tokio::test]
async fn what_cannot_be_exported_or_imported_leaves_nothing() {
    let blink = blink().await;
    let files = tempfile::tempdir().unwrap();
    let archive = files.path().join("one.boxlite");
    let session = ok(describe(&blink, "one").open()).await;
    says(&session, "echo kept >/etc/group; sync").await;
    ok(session.stop()).await;
    ok(session.export(&archive)).await;
    let missing = files.path().join("no/folder/one.boxlite");
    let error = within_kinds(session.export(&missing).await);
    assert!(!missing.exists(), "{error}");
    assert_eq!(names(files.path()).len(), 1, "{:?}", names(files.path()));
    let before = count(&blink);

    let taken = fails(
        ErrorKind::AlreadyExists,
        describe(&blink, "one").import(&archive),
    )
    .await;
    assert!(taken.message().contains("one"), "{taken:?}");
    assert_eq!(count(&blink), before);
    let missing = files.path().join("missing");
    let error = fails(
        ErrorKind::NotFound,
        describe(&blink, "two").import(&missing),
    )
    .await;
    assert!(error.message().contains("missing"), "{error:?}");
    fails(
        ErrorKind::InvalidArgument,
        describe(&blink, "a/b").import(&archive),
    )
    .await;

    let bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    let mut altered = bytes.clone();
    altered[middle] ^= 1;
    let damaged: [&[u8]; 7] = [
        b"",
        b"no archive at all",
        &bytes[..2],
        &bytes[..700],
        &bytes[..middle],
        &bytes[..bytes.len() - 600],
        &altered,
    ];
    let path = files.path().join("damaged.boxlite");
    for case in damaged {
        fs::write(&path, case).unwrap();
        let error = fails(ErrorKind::Corrupt, describe(&blink, "two").import(&path)).await;
        assert!(error.message().contains("damaged.boxlite"), "{error:?}");
        assert_eq!(count(&blink), before);
        fails(ErrorKind::NotFound, blink.session_info("two")).await;
    }
    // The one that is whole, and the session that it was of.
    let copy = import(&blink, "two", &archive).await;
    for one in [&session, &copy] {
        assert_eq!(says(one, "cat /etc/group").await, "kept");
    }
}

/// Engines differ in what they say of a folder that is missing.
fn within_kinds(result: Result<(), blink_core::Error>) -> String {
    result.expect_err("it was written nowhere").to_string()
}

mod needs_host_mounts {
    use super::*;

    #[tokio::test]
    async fn an_export_to_a_full_disk_leaves_nothing() {
        require(Capability::HostMounts);
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("full")).unwrap();
        let inner = child::command("export to full", home.path());
        let mut command = std::process::Command::new("unshare");
        let script = "mount -t tmpfs -o size=1m none \"$0/full\" && exec \"$@\"";
        command
            .args(["--mount", "sh", "-c", script])
            .arg(home.path())
            .arg(inner.get_program())
            .args(inner.get_args());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap());
        }
        let reports = child::report(command);
        assert!(reports[0].starts_with("ResourceExhausted"), "{reports:?}");
        assert_eq!(reports[1..], ["0 left", "ok"], "{reports:?}");
    }
}
