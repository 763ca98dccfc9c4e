//! What all modules use: Blink in a home of its own, and awaits that end.

use std::future::Future;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use blink_core::{Blink, Error, ErrorKind, IsolationChoice};
use tempfile::TempDir;

/// Nothing here takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits, but not for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("it hangs"),
    }
}

/// Waits for what must succeed.
pub(crate) async fn ok<T>(future: impl Future<Output = Result<T, Error>>) -> T {
    match within(future).await {
        Ok(value) => value,
        Err(error) => panic!("{error:?}"),
    }
}

/// Waits for what must fail, and compares the kind.
pub(crate) async fn fails<T>(
    kind: ErrorKind,
    future: impl Future<Output = Result<T, Error>>,
) -> Error {
    match within(future).await {
        Ok(_) => panic!("it succeeded, and should have failed with {kind:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error:?}");
            error
        }
    }
}

/// Blink with a home of its own.
pub(crate) struct TestBlink {
    blink: Blink,
    home: TempDir,
}

impl Deref for TestBlink {
    type Target = Blink;

    fn deref(&self) -> &Blink {
        &self.blink
    }
}

impl TestBlink {
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }
}

/// The isolation that the suite runs with.
pub(crate) fn isolation() -> IsolationChoice {
    match std::env::var("BLINK_TEST_ENGINE").as_deref() {
        Err(_) | Ok("namespace") => IsolationChoice::Namespace,
        Ok("microvm") => IsolationChoice::Microvm,
        Ok(other) => panic!("BLINK_TEST_ENGINE names {other:?}, which is no engine"),
    }
}

/// Whether the programs of the sandboxes share the host's kernel. A micro-VM's are held by one of their own.
pub(crate) fn is_namespace() -> bool {
    isolation() == IsolationChoice::Namespace
}

/// Blink in a home that lasts as long as what is returned.
pub(crate) async fn blink() -> TestBlink {
    let home = tempfile::Builder::new()
        .prefix("blink-hostile-")
        .tempdir()
        .unwrap();
    let blink = ok(Blink::builder()
        .home(home.path())
        .isolation(isolation())
        .build())
    .await;
    TestBlink { blink, home }
}
