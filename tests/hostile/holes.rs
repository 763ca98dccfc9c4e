//! Files that claim to be far larger than what is in them: what is copied of them takes no more room than the original.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use blink_core::{Command, Output};

use crate::inside::Inside as _;
use crate::support::{blink, ok};

const SIZE: u64 = 256 << 20;

/// Where there is something in it.
const ISLANDS: [u64; 3] = [0, (128 << 20) + 12_345, SIZE - 100];

/// What they may occupy on a disk: a few blocks each, and what a file system needs to find them.
const MOST_BYTES: u64 = 1 << 20;

fn make(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    for island in ISLANDS {
        file.write_all_at(&[7; 100], island).unwrap();
    }
}

fn check(path: &Path) {
    let file = File::open(path).unwrap();
    let found = file.metadata().unwrap();
    assert_eq!(found.len(), SIZE, "{path:?}");
    assert!(
        found.blocks() * 512 <= MOST_BYTES,
        "{path:?} occupies {} bytes",
        found.blocks() * 512
    );
    for island in ISLANDS {
        let mut part = [0; 100];
        file.read_exact_at(&mut part, island).unwrap();
        assert_eq!(part, [7; 100], "{path:?} at {island}");
    }
    let mut between = [1; 4096];
    file.read_exact_at(&mut between, 1 << 20).unwrap();
    assert_eq!(between, [0; 4096], "{path:?}");
}

/// Looks in a sandbox at the same.
fn check_inside(path: &str) -> Command {
    Command::shell(format!(
        "set -e; [ $(stat -c %s {path}) = {SIZE} ]; [ $(($(stat -c %b {path}) * 512)) -le {MOST_BYTES} ]; \
         for at in {} {} {}; do [ $(tail -c +$((at + 1)) {path} | head -c 100 | tr -d '\\007' | wc -c) = 0 ]; done",
        ISLANDS[0], ISLANDS[1], ISLANDS[2],
    ))
}

fn assert_fine(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn they_go_in_and_out_alone_and_in_folders() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().image("host").disk_mib(4096).create()).await;
    let files = sandbox.files().unwrap();
    let host = tempfile::tempdir().unwrap();
    let folder = host.path().join("folder");
    fs::create_dir(&folder).unwrap();
    make(&folder.join("file"));
    ok(files.upload(&folder, "/var/folder")).await;
    assert_fine(&ok(sandbox.exec(check_inside("/var/folder/file"))).await);
    ok(files.upload(folder.join("file"), "/var/file")).await;
    assert_fine(&ok(sandbox.exec(check_inside("/var/file"))).await);
    ok(files.copy("/var/file", "/var/copy")).await;
    assert_fine(&ok(sandbox.exec(check_inside("/var/copy"))).await);
    ok(files.download("/var/copy", host.path().join("back"))).await;
    check(&host.path().join("back"));
    ok(files.download("/var/folder", host.path().join("folder-back"))).await;
    check(&host.path().join("folder-back/file"));
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn they_are_kept_and_carried_with_sessions() {
    let blink = blink().await;
    let described = blink.session("a").image("host").disk_mib(4096);
    let session = ok(described.open()).await;
    let host = tempfile::tempdir().unwrap();
    make(&host.path().join("file"));
    let files = ok(session.files()).await;
    ok(files.upload(host.path().join("file"), "/var/file")).await;
    // Of a session that runs, the disk is copied.
    ok(session.checkpoint("kept")).await;
    assert!(ok(session.checkpoints()).await[0].size_bytes <= 2 * MOST_BYTES);
    let fork = ok(session.fork("b")).await;
    assert_fine(&ok(fork.exec(check_inside("/var/file"))).await);
    let archive = host.path().join("a.boxlite");
    ok(session.export(&archive)).await;
    assert!(fs::metadata(&archive).unwrap().len() <= MOST_BYTES);
    let imported = blink.session("c").disk_mib(4096).import(&archive);
    let imported = ok(imported).await;
    assert_fine(&ok(imported.exec(check_inside("/var/file"))).await);
    for session in [session, fork, imported] {
        ok(session.remove()).await;
    }
}
