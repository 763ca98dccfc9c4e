//! What a sandbox's files and folders are: described, listed, made, removed, renamed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use blink_core::{ErrorKind, FileType, WriteOptions};

use crate::support::{fails, ok, sandbox};

#[tokio::test]
async fn files_are_described() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    sandbox
        .says(
            "cd /tmp; mkdir d; chmod 1751 d; printf 12345 > f; chmod 640 f; touch -d '2001-02-03 04:05:06.5 UTC' f; \
             ln -s /some/where l; mkfifo p; touch -d '1950-01-01 UTC' old",
        )
        .await;
    let file = ok(files.stat("/tmp/f")).await;
    assert_eq!(
        (file.file_type, file.size, file.mode, file.target),
        (FileType::File, 5, 0o640, None)
    );
    assert_eq!((file.uid, file.gid), (0, 0));
    let since = file.modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_millis(), 981_173_106_500);
    let folder = ok(files.stat("/tmp/d")).await;
    assert_eq!(
        (folder.file_type, folder.mode),
        (FileType::Directory, 0o1751)
    );
    let link = ok(files.stat("/tmp/l")).await;
    assert_eq!(
        (link.file_type, link.target),
        (FileType::Symlink, Some("/some/where".into()))
    );
    assert_eq!(ok(files.stat("/tmp/p")).await.file_type, FileType::Other);
    assert_eq!(ok(files.stat("/dev/null")).await.file_type, FileType::Other);
    assert!(ok(files.stat("/tmp/old")).await.modified < std::time::UNIX_EPOCH);
    let error = fails(ErrorKind::NotFound, files.stat("/tmp/missing")).await;
    assert!(error.message().contains("/tmp/missing"), "{error:?}");
    assert!(ok(files.exists("/tmp/d")).await && ok(files.exists("/tmp/f")).await);
    assert!(!ok(files.exists("/tmp/l")).await && !ok(files.exists("/tmp/missing")).await);
}

#[tokio::test]
async fn folders_are_listed() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let program = "import os\nos.mkdir('/tmp/d'); os.chdir(b'/tmp/d')\n\
                   for name in (b'\\xff\\xfe', b'a\\nb', b' ', b'-rf', b'*', 'ü'.encode(), b'.hidden', b'x' * 255): open(name, 'w').close()\n\
                   os.mkdir('sub'); os.symlink(b'\\xfftarget', 'zlink')";
    sandbox.python(program).await;
    let entries = ok(files.list("/tmp/d")).await;
    let names: Vec<&[u8]> = entries.iter().map(|entry| entry.name.as_bytes()).collect();
    let long = [b'x'; 255];
    assert_eq!(
        names,
        [
            &b" "[..],
            b"*",
            b"-rf",
            b".hidden",
            b"a\nb",
            b"sub",
            &long,
            b"zlink",
            "ü".as_bytes(),
            b"\xff\xfe"
        ]
    );
    assert_eq!(entries[5].metadata.file_type, FileType::Directory);
    assert_eq!(
        entries[7]
            .metadata
            .target
            .as_deref()
            .unwrap()
            .as_os_str()
            .as_bytes(),
        b"\xfftarget"
    );
    let odd = OsStr::from_bytes(b"/tmp/d/\xff\xfe");
    ok(files.write(odd, "odd")).await;
    assert_eq!(&ok(files.read(odd)).await[..], b"odd");

    sandbox.says("ln -s d /tmp/link; mkdir /tmp/empty").await;
    assert_eq!(ok(files.list("/tmp/link")).await.len(), 10);
    assert!(ok(files.list("/tmp/empty")).await.is_empty());
    fails(ErrorKind::NotFound, files.list("/tmp/missing")).await;
    fails(ErrorKind::NotADirectory, files.list("/etc/passwd")).await;
}

#[tokio::test]
async fn a_large_folder_is_listed() {
    let sandbox = sandbox().await;
    sandbox.python("import os\nos.mkdir('/tmp/d')\nfor i in range(10000): open(f'/tmp/d/{i:05}-{\"n\" * 100}', 'w').close()").await;
    let entries = ok(sandbox.files().list("/tmp/d")).await;
    assert_eq!(entries.len(), 10_000);
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(
            entry.name,
            OsString::from(format!("{number:05}-{}", "n".repeat(100)))
        );
    }
}

#[tokio::test]
async fn folders_are_made_and_removed() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    ok(files.make_dir("/tmp/a/b/c")).await;
    ok(files.make_dir("/tmp/a/b/c")).await;
    assert_eq!(sandbox.says("stat -c %a /tmp/a/b/c").await, "755");
    fails(ErrorKind::NotADirectory, files.make_dir("/etc/passwd/x")).await;
    assert!(
        crate::support::within(files.make_dir("/etc/passwd"))
            .await
            .is_err()
    );
    fails(ErrorKind::ReadOnly, files.make_dir("/usr/new")).await;
    let error = fails(ErrorKind::DirectoryNotEmpty, files.remove("/tmp/a")).await;
    assert!(error.message().contains("/tmp/a"), "{error:?}");
    ok(files.remove("/tmp/a/b/c")).await;
    ok(files.write("/tmp/a/b/file", "x")).await;
    ok(files.remove("/tmp/a/b/file")).await;
    fails(ErrorKind::NotFound, files.remove("/tmp/a/b/file")).await;
    fails(ErrorKind::NotFound, files.remove_all("/tmp/a/b/file")).await;
    ok(files.remove_all("/tmp/a")).await;
    assert!(!ok(files.exists("/tmp/a")).await);
    assert!(crate::support::within(files.remove("/")).await.is_err());
}

#[tokio::test]
async fn whole_trees_are_removed_and_links_are_not_followed() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    sandbox
        .says(
            "mkdir -p /tmp/keep /tmp/tree/closed/inner /tmp/tree/deep; echo x > /tmp/keep/file; \
             ln -s /tmp/keep /tmp/tree/link; ln -s /tmp/keep /tmp/outer; echo y > /tmp/tree/closed/inner/f; \
             mkfifo /tmp/tree/pipe; chmod 000 /tmp/tree/closed/inner /tmp/tree/closed; \
             mkdir -p /tmp/tree/deep/$(printf 'd/%.0s' $(seq 500))",
        )
        .await;
    ok(files.remove_all("/tmp/tree")).await;
    assert!(!ok(files.exists("/tmp/tree")).await);
    ok(files.remove_all("/tmp/outer")).await;
    assert_eq!(
        sandbox
            .says("cat /tmp/keep/file; ls /tmp/outer 2>&1 | grep -c 'No such'")
            .await,
        "x\n1"
    );
}

#[tokio::test]
async fn files_are_renamed_and_copied() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    ok(files.write_with(
        "/tmp/a",
        &mut &b"content"[..],
        &WriteOptions::default().mode(0o750),
    ))
    .await;
    ok(files.write("/tmp/b", "other")).await;
    ok(files.rename("/tmp/a", "/tmp/b")).await;
    assert!(!ok(files.exists("/tmp/a")).await);
    assert_eq!(&ok(files.read("/tmp/b")).await[..], b"content");
    fails(ErrorKind::NotFound, files.rename("/tmp/a", "/tmp/c")).await;
    fails(ErrorKind::NotFound, files.rename("/tmp/b", "/no/such/c")).await;
    fails(ErrorKind::Unsupported, files.rename("/tmp/b", "/dev/shm/b")).await;
    ok(files.copy("/tmp/b", "/dev/shm/b")).await;
    ok(files.copy("/tmp/b", "/tmp/c")).await;
    assert_eq!(
        sandbox
            .says("cat /tmp/c /dev/shm/b; stat -c %a /tmp/c")
            .await,
        "contentcontent750"
    );
    fails(ErrorKind::NotFound, files.copy("/tmp/missing", "/tmp/d")).await;
    fails(ErrorKind::IsADirectory, files.copy("/tmp", "/tmp/d")).await;
    fails(
        ErrorKind::InvalidArgument,
        files.copy("/dev/zero", "/tmp/d"),
    )
    .await;
    ok(files.make_dir("/tmp/folder/inner")).await;
    ok(files.rename("/tmp/folder", "/tmp/moved")).await;
    assert!(ok(files.exists("/tmp/moved/inner")).await);
}
