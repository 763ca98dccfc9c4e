//! A host process that has no file descriptor left.

use std::fs::File;

use blink_core::{Blink, Error, ErrorKind};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::support::{blink, isolation, ok, within};

/// Every descriptor that this process can still have.
struct Hog {
    files: Vec<File>,
    limit: rustix::process::Rlimit,
}

impl Hog {
    fn take_all() -> Hog {
        const FEW: u64 = 256;
        let limit = getrlimit(Resource::Nofile);
        let few = rustix::process::Rlimit {
            current: Some(FEW),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, few).unwrap();
        let files = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        Hog { files, limit }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.files.clear();
        let _ = setrlimit(Resource::Nofile, self.limit);
    }
}

fn told(what: &str, result: Result<(), Error>) {
    let error = result.expect_err(what);
    assert_eq!(
        error.kind(),
        ErrorKind::ResourceExhausted,
        "{what}: {error:?}"
    );
    assert!(error.message().contains("ulimit -n"), "{what}: {error:?}");
}

// The limit is the whole process's: nextest gives each test a process of its own.
#[tokio::test]
async fn no_descriptor_left_is_a_limit_and_says_which() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let files = ok(async { sandbox.files() }).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "content").unwrap();

    let hog = Hog::take_all();
    told("upload", within(files.upload(&file, "/tmp/file")).await);
    told(
        "download",
        within(files.download("/etc/passwd", folder.path().join("out"))).await,
    );
    told(
        "a sandbox",
        within(blink.sandbox().create()).await.map(drop),
    );
    told(
        "a session",
        within(blink.session("new").open()).await.map(drop),
    );
    let another = Blink::builder()
        .home(folder.path().join("home"))
        .isolation(isolation());
    told("another home", within(another.build()).await.map(drop));
    drop(hog);

    ok(files.upload(&file, "/tmp/file")).await;
    ok(sandbox.remove()).await;
}
