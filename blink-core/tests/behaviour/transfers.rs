//! Files and folders that go from the host into a sandbox, and back.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use blink_core::{Command, ErrorKind};
use rustix::fs::XattrFlags;
use tokio::task::JoinSet;

use crate::support::{fails, noise, ok, rounds, sandbox, shown, within};

fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("file"), "content").unwrap();
    fs::write(root.join("sub/script"), "#!/bin/sh\necho run\n").unwrap();
    fs::set_permissions(root.join("sub/script"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(root.join("sub/empty"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("file", root.join("link")).unwrap();
    symlink("/etc/passwd", root.join("outside")).unwrap();
    fs::hard_link(root.join("file"), root.join("sub/hard")).unwrap();
    fs::write(
        root.join(OsString::from_vec(b"\xff\xfename\n".to_vec())),
        "odd",
    )
    .unwrap();
    fs::write(root.join("large"), noise(3_000_000)).unwrap();
}

fn describe(root: &Path) -> Vec<(Vec<u8>, u32, Vec<u8>)> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<(Vec<u8>, u32, Vec<u8>)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec();
            if metadata.is_symlink() {
                found.push((
                    name,
                    0,
                    fs::read_link(&path).unwrap().into_os_string().into_vec(),
                ));
            } else if metadata.is_dir() {
                found.push((name, metadata.permissions().mode() & 0o7777, Vec::new()));
                walk(root, &path, found);
            } else {
                found.push((
                    name,
                    metadata.permissions().mode() & 0o7777,
                    fs::read(&path).unwrap(),
                ));
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

#[tokio::test]
async fn folders_go_in_and_out() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let host = tempfile::tempdir().unwrap();
    let tree = host.path().join("tree");
    make_tree(&tree);
    let note = c"user.note";
    // A file system in memory need not have such.
    let mut has_attributes = true;
    for path in [tree.join("file"), tree.join("sub"), tree.clone()] {
        match rustix::fs::setxattr(&path, note, b"kept", XattrFlags::empty()) {
            Err(rustix::io::Errno::OPNOTSUPP) => has_attributes = false,
            set => set.unwrap(),
        }
    }
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(&tree)
        .and_then(|top| top.set_modified(long_ago))
        .unwrap();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o750)).unwrap();
    ok(files.upload(&tree, "/tmp/new/tree")).await;
    let top = sandbox.says("stat -c '%Y %a' /tmp/new/tree").await;
    assert_eq!(top, "1000000000 750");
    let listing = sandbox.says("cd /tmp/new/tree; cat file; sh sub/script; stat -c %a file sub/script sub/empty; readlink link outside; stat -c %u file").await;
    assert_eq!(listing, "contentrun\n640\n755\n700\nfile\n/etc/passwd\n0");
    ok(files.download("/tmp/new/tree", host.path().join("back"))).await;
    let back = host.path().join("back");
    assert!(describe(&back) == describe(&tree));
    let top = fs::metadata(&back).unwrap();
    assert_eq!(top.modified().unwrap(), long_ago);
    assert_eq!(top.permissions().mode() & 0o7777, 0o750);
    for path in [back.join("file"), back.join("sub")] {
        if !has_attributes {
            break;
        }
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(&path, note, &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"kept");
    }

    // Into one that exists, it is merged.
    sandbox
        .says("echo more > /tmp/new/tree/more; echo changed > /tmp/new/tree/file")
        .await;
    ok(files.upload(&tree, "/tmp/new/tree")).await;
    assert_eq!(
        sandbox
            .says("cat /tmp/new/tree/more /tmp/new/tree/file")
            .await,
        "more\ncontent"
    );
}

#[tokio::test]
async fn single_files_keep_their_mode() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let host = tempfile::tempdir().unwrap();
    let script = host.path().join("script");
    fs::write(&script, "#!/bin/sh\necho run\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    ok(files.upload(&script, "/tmp/script")).await;
    assert_eq!(sandbox.says("/tmp/script").await, "run");
    let back = host.path().join("back");
    ok(files.download("/tmp/script", &back)).await;
    assert_eq!(
        fs::metadata(&back).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    // What would give rights to whoever runs it does not come along.
    sandbox.says("chmod 6755 /tmp/script").await;
    ok(files.download("/tmp/script", &back)).await;
    assert_eq!(
        fs::metadata(&back).unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let host = tempfile::tempdir().unwrap();
    let missing = host.path().join("missing");
    let error = fails(ErrorKind::NotFound, files.upload(&missing, "/tmp/x")).await;
    assert!(error.message().contains("missing"), "{error:?}");
    let error = fails(
        ErrorKind::NotFound,
        files.download("/tmp/gone", host.path().join("x")),
    )
    .await;
    assert!(error.message().contains("/tmp/gone"), "{error:?}");
    assert!(!host.path().join("x").exists());
    let error = fails(
        ErrorKind::NotFound,
        files.download("/etc/passwd", missing.join("x")),
    )
    .await;
    assert!(error.message().contains("missing"), "{error:?}");
    fails(ErrorKind::ReadOnly, files.upload(host.path(), "/usr/new")).await;
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_hostile_folder_cannot_write_outside() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let host = tempfile::tempdir().unwrap();
    let canary = host.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "alive").unwrap();
    let target = host.path().join("target");
    let canary_path = canary.display();
    sandbox
        .says(&format!(
            "mkdir -p /tmp/evil/sub; cd /tmp/evil; ln -s {canary_path} link; ln -s ../../canary up; \
             ln -s /etc etc; ln -s ../canary sub/up; echo x > file; ln -s link chain"
        ))
        .await;
    // Twice: the links of the first time must not be followed the second time.
    for _ in 0..2 {
        let _ = within(files.download("/tmp/evil", &target)).await;
        sandbox
            .says("cd /tmp/evil; rm -rf link up chain sub/up; for d in link up chain sub/up; do mkdir -p $d; echo evil > $d/file; done")
            .await;
    }
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "alive");
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
    let mut names: Vec<_> = fs::read_dir(host.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["canary", "target"]);
}

#[tokio::test]
async fn a_folder_that_changes_meanwhile_ends_in_an_answer() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let churn = "mkdir -p /tmp/churn; cd /tmp/churn; while :; do mkdir -p a/b; head -c 100000 /dev/zero > a/b/f; \
                 ln -s /etc l; rm -rf a l; done";
    let process = ok(sandbox.spawn(Command::shell(churn))).await;
    let host = tempfile::tempdir().unwrap();
    sandbox.says("while ! [ -d /tmp/churn ]; do :; done").await;
    for round in 0..20 {
        let _ = within(files.download("/tmp/churn", host.path().join(round.to_string()))).await;
        let _ = within(files.list("/tmp/churn")).await;
    }
    ok(process.kill()).await;
    let output = sandbox.sh("echo fine").await;
    assert_eq!(output.text(), "fine\n", "{}", shown(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_transfers_at_once_do_not_mix() {
    let sandbox = sandbox().await;
    let mut tasks = JoinSet::new();
    for number in 0..u8::try_from(rounds(100)).unwrap() {
        let files = sandbox.files();
        tasks.spawn(async move {
            let path = format!("/tmp/{number}");
            let content = vec![number; 1000 * usize::from(number)];
            ok(files.write(&path, content.clone())).await;
            assert!(ok(files.read(&path)).await == content);
        });
    }
    within(tasks.join_all()).await;
}
