//! What a caller can tell a failure of a file operation by: its kind, its error number and its path.

use std::path::Path;
use std::pin::Pin;

use blink_core::{Command, Error, ErrorKind, Files};

use crate::support::{blink, ok, sandbox, within};

/// Everything that one path can be given to, by its name.
const OPERATIONS: [&str; 13] = [
    "read",
    "reader",
    "stat",
    "list",
    "make_dir",
    "remove",
    "remove_all",
    "rename",
    "copy",
    "write",
    "append",
    "download",
    "upload",
];

async fn operate(files: &Files, name: &str, path: &str, host: &Path) -> Result<(), Error> {
    let append = blink_core::WriteOptions::default().append();
    let mut content = &b"x"[..];
    let host_file = host.join("file");
    let operation: Pin<Box<dyn Future<Output = Result<(), Error>>>> = match name {
        "read" => Box::pin(async { files.read(path).await.map(drop) }),
        "reader" => Box::pin(async { files.reader(path, 0, None).await.map(drop) }),
        "stat" => Box::pin(async { files.stat(path).await.map(drop) }),
        "list" => Box::pin(async { files.list(path).await.map(drop) }),
        "make_dir" => Box::pin(files.make_dir(path)),
        "remove" => Box::pin(files.remove(path)),
        "remove_all" => Box::pin(files.remove_all(path)),
        "rename" => Box::pin(files.rename(path, "/tmp/renamed")),
        "copy" => Box::pin(files.copy(path, "/tmp/copied")),
        "write" => Box::pin(files.write(path, "x")),
        "append" => Box::pin(async {
            files
                .write_with(path, &mut content, &append)
                .await
                .map(drop)
        }),
        "download" => Box::pin(files.download(path, host.join("out"))),
        "upload" => Box::pin(files.upload(&host_file, path)),
        other => panic!("{other} is no operation"),
    };
    within(operation).await
}

#[tokio::test]
async fn every_operation_tells_every_failure_apart() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("file"), "x").unwrap();
    sandbox
        .says("mkdir -p /tmp/full/inner; echo x > /tmp/file")
        .await;
    let long = format!("/tmp/{}", "n".repeat(300));
    let all = &OPERATIONS[..];
    let looking = &[
        "read",
        "reader",
        "stat",
        "list",
        "remove",
        "remove_all",
        "rename",
        "copy",
        "download",
    ][..];
    let whole_files = &["read", "reader", "copy", "write", "append"][..];
    let writing = &["make_dir", "write", "append", "upload"][..];
    for (path, operations, kind, errno) in [
        ("/tmp/missing", looking, ErrorKind::NotFound, libc::ENOENT),
        (
            "/no/such/file",
            &["write", "append", "upload"],
            ErrorKind::NotFound,
            libc::ENOENT,
        ),
        (
            "/tmp/file/inner",
            all,
            ErrorKind::NotADirectory,
            libc::ENOTDIR,
        ),
        (
            "/tmp/file",
            &["list"],
            ErrorKind::NotADirectory,
            libc::ENOTDIR,
        ),
        (
            "/tmp/file",
            &["make_dir"],
            ErrorKind::AlreadyExists,
            libc::EEXIST,
        ),
        (
            "/tmp/full",
            whole_files,
            ErrorKind::IsADirectory,
            libc::EISDIR,
        ),
        (
            "/tmp/full",
            &["remove"],
            ErrorKind::DirectoryNotEmpty,
            libc::ENOTEMPTY,
        ),
        (&long, all, ErrorKind::NameTooLong, libc::ENAMETOOLONG),
        ("/usr/new", writing, ErrorKind::ReadOnly, libc::EROFS),
        (
            "/usr/bin/env",
            &["remove", "remove_all"],
            ErrorKind::ReadOnly,
            libc::EROFS,
        ),
        (
            "/proc/self/mem",
            &["write"],
            ErrorKind::PermissionDenied,
            libc::EPERM,
        ),
        // The agent is not to open its own memory either.
        (
            "/proc/self/mem",
            &["append"],
            ErrorKind::PermissionDenied,
            libc::EACCES,
        ),
    ] {
        for operation in operations {
            let what = format!("{operation} {path}");
            let error = match operate(&files, operation, path, host.path()).await {
                Ok(()) => panic!("{what} succeeded"),
                Err(error) => error,
            };
            assert_eq!(error.kind(), kind, "{what}: {error:?}");
            assert_eq!(error.errno(), Some(errno), "{what}: {error:?}");
            assert_eq!(error.path(), Some(Path::new(path)), "{what}: {error:?}");
            assert!(!error.message().contains("os error"), "{what}: {error:?}");
        }
    }
    ok(files.write("/tmp/other", "x")).await;
    for (to, kind) in [
        ("/tmp/full", ErrorKind::IsADirectory),
        ("/tmp/file/inner", ErrorKind::NotADirectory),
        ("/no/such/name", ErrorKind::NotFound),
        (long.as_str(), ErrorKind::NameTooLong),
    ] {
        let renamed = within(files.rename("/tmp/other", to)).await.unwrap_err();
        assert_eq!(renamed.kind(), kind, "{to}: {renamed:?}");
        let copied = within(files.copy("/tmp/other", to)).await.unwrap_err();
        assert_eq!(copied.kind(), kind, "{to}: {copied:?}");
    }
    ok(files.make_dir("/tmp/folder")).await;
    let onto_full = within(files.rename("/tmp/folder", "/tmp/full"))
        .await
        .unwrap_err();
    assert_eq!(
        onto_full.kind(),
        ErrorKind::DirectoryNotEmpty,
        "{onto_full:?}"
    );
}

#[tokio::test]
async fn what_is_about_no_file_has_no_path() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    let relative = within(files.read("relative")).await.unwrap_err();
    assert_eq!((relative.errno(), relative.path()), (None, None));
    sandbox.remove().await;
    let gone = within(files.read("/etc/passwd")).await.unwrap_err();
    assert_eq!((gone.errno(), gone.path()), (None, None), "{gone:?}");
}

#[tokio::test]
async fn failures_name_the_method_and_what_it_was_called_on() {
    let blink = blink().await;
    let sandbox = blink.create(|builder| builder).await;
    let files = sandbox.files();
    let process = ok(sandbox.spawn(Command::new("true"))).await;
    let patience = std::time::Duration::ZERO;
    let session = "session \"none\"";
    let id = format!("sandbox {}", sandbox.id());
    let number = format!("process {}", process.id());
    let failures = [
        (
            within(blink.open("none")).await.err(),
            "open",
            "sandbox none",
        ),
        (
            within(blink.session_info("none")).await.err(),
            "session_info",
            session,
        ),
        (
            within(blink.session_lineage("none")).await.err(),
            "session_lineage",
            session,
        ),
        (
            within(blink.session_processes("none")).await.err(),
            "session_processes",
            session,
        ),
        (
            within(blink.take_session("none", patience)).await.err(),
            "take_session",
            session,
        ),
        (
            within(blink.session("a b").open()).await.err(),
            "open",
            "session \"a b\"",
        ),
        (
            within(blink.remove_image("none")).await.err(),
            "remove_image",
            "image \"none\"",
        ),
        (
            within(blink.pull("host").run()).await.err(),
            "pull",
            "image \"host\"",
        ),
        (
            within(blink.sandbox().memory_mib(1).create()).await.err(),
            "create",
            "sandbox of the image \"host\"",
        ),
        (
            within(sandbox.process(99, 0, 0)).await.err(),
            "process",
            &id,
        ),
        (within(process.signal(200)).await.err(), "signal", &number),
        (
            within(files.read("/none")).await.err(),
            "read",
            "file /none",
        ),
        (
            within(files.write("/none/x", "y")).await.err(),
            "write",
            "file /none/x",
        ),
        (
            within(files.upload("/none", "/x")).await.err(),
            "upload",
            "file /x",
        ),
    ];
    for (error, operation, subject) in failures {
        let error = error.unwrap_or_else(|| panic!("{operation} of {subject} succeeded"));
        assert_eq!(error.operation(), Some(operation), "{error}");
        assert_eq!(error.subject(), Some(subject), "{error}");
    }
    sandbox.remove().await;
}
