//! Files of a sandbox.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use blink_core::{Command, ErrorKind, WriteOptions};
use tokio::io::{AsyncRead, ReadBuf};

use crate::support::{Capability, fails, noise, ok, require, sandbox, sandbox_with, sha256};

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
    fails(ErrorKind::IsADirectory, files.reader("/tmp", 0, None)).await;

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
async fn an_owner_that_is_unknown_is_refused() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let unknown = WriteOptions::default().user("otto");
    fails(
        ErrorKind::NotFound,
        files.write_with("/tmp/file", &mut &b"x"[..], &unknown),
    )
    .await;
    assert!(!ok(files.exists("/tmp/file")).await);
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
        ("/tmp", ErrorKind::IsADirectory),
        ("/", ErrorKind::IsADirectory),
        ("/etc/passwd/file", ErrorKind::NotADirectory),
        ("/usr/bin/new", ErrorKind::ReadOnly),
        ("/usr/bin/env", ErrorKind::ReadOnly),
        ("/dev/null", ErrorKind::InvalidArgument),
        ("/proc/new", ErrorKind::PermissionDenied),
        ("/proc/self/mem", ErrorKind::PermissionDenied),
        ("/proc/1/oom_score_adj", ErrorKind::PermissionDenied),
        ("/proc/sys/kernel/hostname", ErrorKind::PermissionDenied),
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
    let error = fails(ErrorKind::ReadOnly, files.write("/usr/bin/new", "x")).await;
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
    let append = WriteOptions::default().append();
    for (path, kind) in [
        ("/tmp/mem", ErrorKind::PermissionDenied),
        ("/tmp/proc/mem", ErrorKind::PermissionDenied),
        ("/tmp/proc/oom_score_adj", ErrorKind::PermissionDenied),
        ("/tmp/loop", ErrorKind::InvalidArgument),
        ("/tmp/pipe", ErrorKind::InvalidArgument),
    ] {
        fails(kind, files.write(path, "x")).await;
        fails(kind, files.write_with(path, &mut &b"x"[..], &append)).await;
    }
    fails(
        ErrorKind::InvalidArgument,
        files.write("/tmp/dangling", "x"),
    )
    .await;
    fails(ErrorKind::IsADirectory, files.read("/tmp")).await;
    for path in ["/tmp/pipe", "/dev/zero", "/dev/null"] {
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
    fails(ErrorKind::NameTooLong, files.write(&long, "x")).await;
    let deep = "/x".repeat(5000);
    fails(ErrorKind::NameTooLong, files.stat(&deep)).await;
}

#[tokio::test]
async fn a_full_disk_is_said() {
    let sandbox = sandbox_with(|builder| builder.memory_mib(512)).await;
    let files = sandbox.files();
    // A part of the sandbox's memory.
    let error = fails(
        ErrorKind::ResourceExhausted,
        files.write("/dev/shm/large", noise(400 << 20)),
    )
    .await;
    assert!(error.message().contains("space"), "{error:?}");
    assert_eq!(sandbox.says("ls -A /dev/shm | wc -l").await, "0");
}

mod needs_users {
    use super::*;

    #[tokio::test]
    async fn owners_are_given_and_kept() {
        require(Capability::Users);
        let sandbox = sandbox().await;
        let files = sandbox.files();
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
}
