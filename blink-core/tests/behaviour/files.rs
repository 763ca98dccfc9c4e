//! Files of a sandbox.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use blink_core::{Command, ErrorKind, FileType, WriteOptions};
use tokio::io::{AsyncRead, ReadBuf};

use crate::support::{Capability, fails, has, noise, ok, sandbox, sandbox_with, sha256, shown};

const LARGE: usize = 64 << 20;

#[tokio::test]
async fn what_is_written_is_read() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let all: Vec<u8> = (0..=255).collect();
    for content in [&b""[..], b"x", &all, &noise(1 << 20), &noise((1 << 20) + 1)] {
        ok(files.write("/tmp/file", content.to_vec())).await;
        assert!(ok(files.read("/tmp/file")).await == content);
        assert_eq!(ok(files.stat("/tmp/file")).await.size, content.len() as u64);
    }
    assert_eq!(
        sandbox.says("sha256sum < /tmp/file | head -c 64").await,
        sha256(&noise((1 << 20) + 1))
    );
}

#[tokio::test]
async fn large_files_go_in_and_out() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let content = noise(LARGE);
    let expected = sha256(&content);
    ok(files.write("/tmp/large", content)).await;
    assert!(
        sandbox
            .says("sha256sum /tmp/large")
            .await
            .starts_with(&expected)
    );
    let back = ok(files.read("/tmp/large")).await;
    assert_eq!((back.len(), sha256(&back)), (LARGE, expected.clone()));
    let host = tempfile::tempdir().unwrap();
    ok(files.download("/tmp/large", host.path().join("out"))).await;
    ok(files.upload(host.path().join("out"), "/tmp/again")).await;
    assert!(
        sandbox
            .says("sha256sum /tmp/again")
            .await
            .starts_with(&expected)
    );
}

#[tokio::test]
async fn a_part_can_be_read() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let content = noise(500_000);
    ok(files.write("/tmp/file", content.clone())).await;
    for (offset, length) in [
        (0, Some(0)),
        (0, Some(1)),
        (1234, Some(300_000)),
        (499_999, None),
        (500_000, None),
        (u64::from(u32::MAX), Some(5)),
    ] {
        let mut part = Vec::new();
        let count = ok(files.read_part("/tmp/file", offset, length, &mut part)).await;
        let from = usize::try_from(offset).unwrap().min(content.len());
        let to = length.map_or(content.len(), |length| {
            (from + usize::try_from(length).unwrap()).min(content.len())
        });
        assert!(part == content[from..to], "{offset} {length:?}");
        assert_eq!(count, part.len() as u64);
    }
}

#[tokio::test]
async fn a_file_is_read_and_written_bit_by_bit() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let content = noise(5 << 20);
    let mut writer = files.writer("/tmp/bits", &WriteOptions::default()).unwrap();
    for bit in content.chunks(100_000) {
        ok(writer.write(bit.to_vec())).await;
    }
    fails(ErrorKind::NotFound, files.stat("/tmp/bits")).await;
    assert_eq!(ok(writer.finish()).await, content.len() as u64);
    for (offset, length) in [
        (0, None),
        (0, Some(0)),
        (1000, Some(3 << 20)),
        (9 << 20, None),
    ] {
        let mut reader = ok(files.reader("/tmp/bits", offset as u64, length)).await;
        let mut got = Vec::new();
        while let Some(chunk) = ok(reader.chunk()).await {
            got.extend_from_slice(&chunk);
        }
        assert!(ok(reader.chunk()).await.is_none());
        let rest = content.get(offset..).unwrap_or_default();
        let length = length.map_or(rest.len(), |length| usize::try_from(length).unwrap());
        assert!(got == rest[..length.min(rest.len())]);
    }
    fails(ErrorKind::NotFound, files.reader("/tmp/none", 0, None)).await;
    fails(ErrorKind::InvalidArgument, files.reader("/tmp", 0, None)).await;

    // What nobody finishes changes nothing; one who stops reading holds nobody up.
    for append in [false, true] {
        let mut options = WriteOptions::default();
        options.append = append;
        let mut writer = files.writer("/tmp/bits", &options).unwrap();
        ok(writer.write(&b"half"[..])).await;
        drop(writer);
        // What was appended is taken away when the agent hears of it.
        while ok(files.read("/tmp/bits")).await != content {
            assert!(append);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let mut writer = files.writer("/tmp/bits", &WriteOptions::default()).unwrap();
    let mut giving_up = Box::pin(writer.write(noise(40 << 20)));
    assert!(poll_once(giving_up.as_mut()).await.is_none());
    drop(giving_up);
    fails(ErrorKind::InvalidArgument, writer.write(&b"rest"[..])).await;
    fails(ErrorKind::InvalidArgument, writer.finish()).await;
    drop(ok(files.reader("/tmp/bits", 0, None)).await);
    assert!(ok(files.read("/tmp/bits")).await == content);
    let mut nowhere = files
        .writer("/none/file", &WriteOptions::default())
        .unwrap();
    let failed = async {
        loop {
            nowhere.write(noise(100_000)).await?;
        }
    };
    fails::<()>(ErrorKind::NotFound, failed).await;
}

async fn poll_once<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    let mut future = Some(future);
    std::future::poll_fn(|context| {
        let polled = future.take().map(|future| future.poll(context));
        Poll::Ready(match polled {
            Some(Poll::Ready(output)) => Some(output),
            _ => None,
        })
    })
    .await
}

#[tokio::test]
async fn appending_adds() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let append = WriteOptions::default().append();
    for part in ["one\n", "two\n", ""] {
        ok(files.write_with("/tmp/log", &mut part.as_bytes(), &append)).await;
    }
    assert_eq!(&ok(files.read("/tmp/log")).await[..], b"one\ntwo\n");
}

#[tokio::test]
async fn modes_are_given_and_kept() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    ok(files.write("/tmp/new", "x")).await;
    assert_eq!(ok(files.stat("/tmp/new")).await.mode, 0o644);
    for mode in [0o600, 0o755, 0o4711, 0o000, 0o1777] {
        let options = WriteOptions::default().mode(mode);
        ok(files.write_with("/tmp/file", &mut &b"x"[..], &options)).await;
        assert_eq!(ok(files.stat("/tmp/file")).await.mode, mode);
        ok(files.write("/tmp/file", "again")).await;
        assert_eq!(ok(files.stat("/tmp/file")).await.mode, mode);
    }
    let options = WriteOptions::default().mode(0o10000);
    fails(
        ErrorKind::InvalidArgument,
        files.write_with("/tmp/file", &mut &b"x"[..], &options),
    )
    .await;
    assert_eq!(&ok(files.read("/tmp/file")).await[..], b"again");
}

#[tokio::test]
async fn owners_are_given_and_kept() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let unknown = WriteOptions::default().user("otto");
    fails(
        ErrorKind::NotFound,
        files.write_with("/tmp/file", &mut &b"x"[..], &unknown),
    )
    .await;
    assert!(!ok(files.exists("/tmp/file")).await);
    if !has(Capability::Users) {
        return;
    }
    let options = WriteOptions::default().user("user").mode(0o600);
    ok(files.write_with("/tmp/file", &mut &b"x"[..], &options)).await;
    let metadata = ok(files.stat("/tmp/file")).await;
    assert_eq!(
        (metadata.uid, metadata.gid, metadata.mode),
        (1000, 1000, 0o600)
    );
    ok(files.write("/tmp/file", "again")).await;
    let metadata = ok(files.stat("/tmp/file")).await;
    assert_eq!(
        (metadata.uid, metadata.gid, metadata.mode),
        (1000, 1000, 0o600)
    );
    let read = sandbox
        .run(Command::new("cat").arg("/tmp/file").user("user"))
        .await;
    assert_eq!(read.text(), "again");
}

#[tokio::test]
async fn a_reader_sees_the_old_file_or_the_new_one() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    ok(files.write("/tmp/file", vec![b'a'; 300_000])).await;
    let look = "import sys\nseen = 0\nwhile True:\n  c = open('/tmp/file','rb').read()\n  \
                if len(c) != 300000 or len(set(c)) != 1: sys.exit(1)\n  seen += 1\n  \
                if c[:1] == b'z': break\nprint(seen)";
    let mut looking = ok(sandbox.spawn(crate::support::python(look))).await;
    for round in 0..100_u8 {
        ok(files.write("/tmp/file", vec![b'a' + round % 2; 300_000])).await;
    }
    ok(files.write("/tmp/file", vec![b'z'; 300_000])).await;
    assert_eq!(ok(looking.wait()).await.code, 0);
}

/// Gives some bytes, and then fails.
struct Failing(usize);

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.0 == 0 {
            return Poll::Ready(Err(std::io::Error::other("the disk fell off")));
        }
        let count = self.0.min(buffer.remaining());
        buffer.put_slice(&vec![b'x'; count]);
        self.0 -= count;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_upload_that_fails_changes_nothing() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    ok(files.make_dir("/tmp/folder")).await;
    ok(files.write("/tmp/folder/file", "old")).await;
    for length in [0, 1, 100_000, 5_000_000] {
        for options in [WriteOptions::default(), WriteOptions::default().append()] {
            let error = fails(
                ErrorKind::Internal,
                files.write_with("/tmp/folder/file", &mut Failing(length), &options),
            )
            .await;
            assert!(error.message().contains("fell off"), "{error:?}");
        }
    }
    // The agent hears of it a moment later.
    let mut names = String::new();
    for _ in 0..200 {
        names = sandbox
            .says("ls -A /tmp/folder; cat /tmp/folder/file")
            .await;
        if names == "file\nold" {
            return;
        }
    }
    panic!("{names:?}");
}

#[tokio::test]
async fn what_cannot_be_written_says_why() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    for (path, kind) in [
        ("/no/such/folder/file", ErrorKind::NotFound),
        ("/tmp", ErrorKind::InvalidArgument),
        ("/", ErrorKind::InvalidArgument),
        ("/etc/passwd/file", ErrorKind::InvalidArgument),
        ("/usr/bin/new", ErrorKind::InvalidArgument),
        ("/usr/bin/env", ErrorKind::InvalidArgument),
        ("/dev/null", ErrorKind::InvalidArgument),
        ("/proc/new", ErrorKind::InvalidArgument),
        ("/proc/self/mem", ErrorKind::InvalidArgument),
        ("/proc/1/oom_score_adj", ErrorKind::InvalidArgument),
        ("/proc/sys/kernel/hostname", ErrorKind::InvalidArgument),
        ("relative", ErrorKind::InvalidArgument),
        ("", ErrorKind::InvalidArgument),
        ("/tmp/a\0b", ErrorKind::InvalidArgument),
    ] {
        let error = fails(kind, files.write(path, "x")).await;
        if !path.contains(['\0', 's']) || path.starts_with("/usr") {
            assert!(error.message().contains(path), "{path}: {error:?}");
        }
        let append = WriteOptions::default().append();
        let appended =
            crate::support::within(files.write_with(path, &mut &b"x"[..], &append)).await;
        assert!(appended.is_err(), "{path}");
    }
    let error = fails(ErrorKind::InvalidArgument, files.write("/usr/bin/new", "x")).await;
    assert!(error.message().contains("read-only"), "{error:?}");
    sandbox.says("env true; test ! -e /usr/bin/new").await;
}

#[tokio::test]
async fn a_link_leads_to_its_file_and_not_into_the_agent() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    sandbox
        .says(
            "cd /tmp; echo old > target; ln -s target link; ln -s /proc/self/mem mem; ln -s /proc/self proc; \
             ln -s nowhere dangling; ln -s loop loop; mkfifo pipe",
        )
        .await;
    ok(files.write("/tmp/link", "new")).await;
    assert_eq!(
        sandbox.says("cat /tmp/target; readlink /tmp/link").await,
        "newtarget"
    );
    assert_eq!(&ok(files.read("/tmp/link")).await[..], b"new");
    for path in [
        "/tmp/mem",
        "/tmp/proc/mem",
        "/tmp/proc/oom_score_adj",
        "/tmp/dangling",
        "/tmp/loop",
        "/tmp/pipe",
    ] {
        fails(ErrorKind::InvalidArgument, files.write(path, "x")).await;
    }
    let append = WriteOptions::default().append();
    for path in [
        "/tmp/mem",
        "/tmp/proc/mem",
        "/tmp/proc/oom_score_adj",
        "/tmp/loop",
        "/tmp/pipe",
    ] {
        fails(
            ErrorKind::InvalidArgument,
            files.write_with(path, &mut &b"x"[..], &append),
        )
        .await;
    }
    for path in ["/tmp/pipe", "/tmp", "/dev/zero", "/dev/null"] {
        fails(ErrorKind::InvalidArgument, files.read(path)).await;
    }
    fails(ErrorKind::NotFound, files.read("/tmp/dangling")).await;
    ok(sandbox.ping()).await;
}

#[tokio::test]
async fn paths_must_be_whole() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    for path in ["relative", "", "./x", "/tmp/a\0b"] {
        fails(ErrorKind::InvalidArgument, files.read(path)).await;
        fails(ErrorKind::InvalidArgument, files.stat(path)).await;
        fails(ErrorKind::InvalidArgument, files.exists(path)).await;
        fails(ErrorKind::InvalidArgument, files.list(path)).await;
        fails(ErrorKind::InvalidArgument, files.make_dir(path)).await;
        fails(ErrorKind::InvalidArgument, files.remove(path)).await;
        fails(ErrorKind::InvalidArgument, files.remove_all(path)).await;
        fails(ErrorKind::InvalidArgument, files.rename(path, "/tmp/x")).await;
        fails(ErrorKind::InvalidArgument, files.rename("/tmp", path)).await;
        fails(ErrorKind::InvalidArgument, files.copy("/etc/passwd", path)).await;
        let host = tempfile::tempdir().unwrap();
        fails(
            ErrorKind::InvalidArgument,
            files.download(path, host.path().join("x")),
        )
        .await;
        fails(ErrorKind::InvalidArgument, files.upload(host.path(), path)).await;
    }
    for path in ["/", "/tmp/.."] {
        assert!(
            crate::support::within(files.remove_all(path))
                .await
                .is_err()
        );
    }
    let long = format!("/tmp/{}", "x".repeat(300));
    fails(ErrorKind::InvalidArgument, files.write(&long, "x")).await;
    let deep = "/x".repeat(5000);
    fails(ErrorKind::InvalidArgument, files.stat(&deep)).await;
}

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
    fails(ErrorKind::InvalidArgument, files.list("/etc/passwd")).await;
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
    fails(ErrorKind::InvalidArgument, files.make_dir("/etc/passwd/x")).await;
    assert!(
        crate::support::within(files.make_dir("/etc/passwd"))
            .await
            .is_err()
    );
    fails(ErrorKind::InvalidArgument, files.make_dir("/usr/new")).await;
    let error = fails(ErrorKind::AlreadyExists, files.remove("/tmp/a")).await;
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
             cd /tmp/tree/deep; for i in $(seq 500); do mkdir d; cd d; done",
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
    fails(ErrorKind::InvalidArgument, files.copy("/tmp", "/tmp/d")).await;
    fails(
        ErrorKind::InvalidArgument,
        files.copy("/dev/zero", "/tmp/d"),
    )
    .await;
    ok(files.make_dir("/tmp/folder/inner")).await;
    ok(files.rename("/tmp/folder", "/tmp/moved")).await;
    assert!(ok(files.exists("/tmp/moved/inner")).await);
}

fn make_tree(root: &std::path::Path) {
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

fn describe(root: &std::path::Path) -> Vec<(Vec<u8>, u32, Vec<u8>)> {
    fn walk(
        root: &std::path::Path,
        folder: &std::path::Path,
        found: &mut Vec<(Vec<u8>, u32, Vec<u8>)>,
    ) {
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
    ok(files.upload(&tree, "/tmp/new/tree")).await;
    let listing = sandbox.says("cd /tmp/new/tree; cat file; sh sub/script; stat -c %a file sub/script sub/empty; readlink link outside; stat -c %u file").await;
    assert_eq!(listing, "contentrun\n640\n755\n700\nfile\n/etc/passwd\n0");
    ok(files.download("/tmp/new/tree", host.path().join("back"))).await;
    assert!(describe(&host.path().join("back")) == describe(&tree));

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
    fails(
        ErrorKind::InvalidArgument,
        files.upload(host.path(), "/usr/new"),
    )
    .await;
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
        let _ = crate::support::within(files.download("/tmp/evil", &target)).await;
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
        let _ = crate::support::within(
            files.download("/tmp/churn", host.path().join(round.to_string())),
        )
        .await;
        let _ = crate::support::within(files.list("/tmp/churn")).await;
    }
    ok(process.kill()).await;
    let output = sandbox.sh("echo fine").await;
    assert_eq!(output.text(), "fine\n", "{}", shown(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_transfers_at_once_do_not_mix() {
    let sandbox = sandbox().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100_u8 {
        let files = sandbox.files();
        tasks.spawn(async move {
            let path = format!("/tmp/{number}");
            let content = vec![number; 1000 * usize::from(number)];
            ok(files.write(&path, content.clone())).await;
            assert!(ok(files.read(&path)).await == content);
        });
    }
    crate::support::within(tasks.join_all()).await;
}

#[tokio::test]
async fn a_full_disk_is_said() {
    let sandbox = sandbox_with(|builder| builder).await;
    let files = sandbox.files();
    // The one place of a fixed size in every sandbox.
    let error = fails(
        ErrorKind::ResourceExhausted,
        files.write("/dev/shm/large", vec![0; 100 << 20]),
    )
    .await;
    assert!(error.message().contains("space"), "{error:?}");
    assert_eq!(sandbox.says("ls -A /dev/shm | wc -l").await, "0");
}
