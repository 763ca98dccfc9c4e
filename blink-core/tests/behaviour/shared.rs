//! What tests share where a sandbox takes seconds to boot: one home, and sandboxes that are used one after another. One
//! that a test gave back is taken by the next only if it looks as it did when it was made.

use std::sync::{LazyLock, Mutex, PoisonError};

use blink_core::{Blink, Command, Error, Sandbox};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::support::{Origin, TestSandbox, blink_in, describe_in, ok, shown};

/// Outlives each test, and with it the links of what was made in it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
});

static BLINK: OnceCell<Blink> = OnceCell::const_new();

static IDLE: Mutex<Vec<(Sandbox, Moment)>> = Mutex::new(Vec::new());

/// By a sandbox's own clock, in seconds.
pub(crate) struct Moment(String);

/// Ends all programs, empties `/tmp`, and tells what else has changed. Each program that it starts takes its time where
/// the host is emulated.
const TIDY: &str = r#"
kill -KILL -1
set -- /tmp/* /tmp/.[!.]*
[ "$*" = '/tmp/* /tmp/.[!.]*' ] || find /tmp -mindepth 1 -delete
exec find / /dev/shm /run -xdev \( -path /tmp -o -path /.blink -o -path /dev -o -path /proc -o -path /sys \) -prune \
    -o -newerct "@$SINCE" -print
"#;

/// Blink with the home that tests share. The home stays: whoever starts the tests gives them a `TMPDIR` to remove.
pub(crate) async fn blink() -> Blink {
    let opening = || {
        lasting(async {
            let home = tempfile::Builder::new().prefix("blink-test-").tempdir();
            blink_in(&home.unwrap().keep()).await
        })
    };
    BLINK.get_or_init(opening).await.clone()
}

/// A sandbox with no wishes.
pub(crate) async fn sandbox() -> TestSandbox {
    while let Some((idle, since)) = take_idle() {
        if let Some((sandbox, since)) = lasting(tidied(idle, since)).await {
            return TestSandbox::new(sandbox, Origin::Shared(since));
        }
    }
    let blink = blink().await;
    let (sandbox, since) = lasting(async move {
        let sandbox = ok(describe_in(&blink).create()).await;
        let now = ok(sandbox.exec(Command::shell("sleep 0.1; date +%s.%N"))).await;
        (sandbox, Moment(now.text().trim().to_owned()))
    })
    .await;
    TestSandbox::new(sandbox, Origin::Shared(since))
}

pub(crate) fn give_back(sandbox: Sandbox, since: Moment) {
    IDLE.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((sandbox, since));
}

fn take_idle() -> Option<(Sandbox, Moment)> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// The sandbox as it was, or nothing where it cannot be had back.
async fn tidied(sandbox: Sandbox, since: Moment) -> Option<(Sandbox, Moment)> {
    let tidying = sandbox.exec(Command::shell(TIDY).env("SINCE", &since.0));
    let why = match tidying.await {
        Err(error) => error.to_string(),
        Ok(output) if output.status.success() && output.stdout.is_empty() => {
            match release_all(&sandbox).await {
                Ok(()) => return Some((sandbox, since)),
                Err(error) => error.to_string(),
            }
        }
        Ok(output) => shown(&output),
    };
    eprintln!("a sandbox cannot be used again: {why}");
    let _ = sandbox.remove().await;
    None
}

/// Forgets the processes that a test has left.
async fn release_all(sandbox: &Sandbox) -> Result<(), Error> {
    for left in sandbox.processes().await? {
        let process = sandbox.process(left.id, left.stdout_bytes, left.stderr_bytes);
        process.await?.release().await?;
    }
    Ok(())
}

/// Does something in the runtime that outlives the test.
async fn lasting<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> T {
    RUNTIME.spawn(task).await.unwrap()
}
