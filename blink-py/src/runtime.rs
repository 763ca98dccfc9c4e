//! The threads behind all calls, and what becomes of them in a forked child and at the interpreter's end.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use once_cell::sync::OnceCell;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::{Failure, internal, unsupported};

/// A future of any kind.
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How long the interpreter's end waits for sandboxes to be removed. What is left then goes with the next start.
const FAREWELL: Duration = Duration::from_secs(10);

/// Started by the first call, so that a program that forks before it uses Blink has one in each of its processes.
static RUNTIME: OnceCell<Started> = OnceCell::new();

/// What is open, so that the interpreter's end can close it.
static OPEN: Mutex<Vec<Weak<dyn Close>>> = Mutex::new(Vec::new());

/// What is under way: calls, and what comes to its end whoever waits for it.
static WORK: LazyLock<TaskTracker> = LazyLock::new(|| {
    let work = TaskTracker::new();
    // So that it can be waited for; it takes more all the same.
    work.close();
    work
});

/// The interpreter ends, and calls with it.
static ENDING: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

struct Started {
    pid: u32,
    runtime: Runtime,
}

/// What can be ended from outside.
pub(crate) trait Close: Send + Sync {
    /// Ends calls that are under way, and it.
    fn close(self: Arc<Self>) -> Boxed<Result<(), Failure>>;
}

/// Where calls run.
///
/// # Errors
/// `Unsupported` in a process that was forked from one in which Blink was in use: it has none of its threads.
pub(crate) fn handle() -> Result<&'static Handle, Failure> {
    let started = RUNTIME.get_or_try_init(|| {
        Builder::new_multi_thread()
            .enable_all()
            .thread_name("blink")
            .build()
            .map(|runtime| Started {
                pid: std::process::id(),
                runtime,
            })
            .map_err(|error| internal(format!("Blink's threads could not be started: {error}")))
    })?;
    if started.pid != std::process::id() {
        return Err(unsupported(
            "this process was forked from one in which Blink was in use, and has none of its threads; use Blink in one of \
             the two only, or start processes with multiprocessing's \"spawn\" or \"forkserver\"",
        ));
    }
    Ok(started.runtime.handle())
}

/// Whether what is here belongs to the process that this one was forked from, and must not be touched.
fn is_forked() -> bool {
    RUNTIME
        .get()
        .is_some_and(|started| started.pid != std::process::id())
}

/// Remembers what has to be closed at the interpreter's end.
pub(crate) fn remember(open: Weak<dyn Close>) {
    let mut all = lock(&OPEN);
    if all.len() == all.capacity() {
        all.retain(|open| open.strong_count() > 0);
    }
    all.push(open);
}

/// Drops a value where it may take its time, and needs no interpreter.
pub(crate) fn drop_later<T: Send + 'static>(value: T) {
    end_later(async move { drop(value) });
}

/// Ends something that nobody refers to any more.
pub(crate) fn end_later(end: impl Future<Output = ()> + Send + 'static) {
    match (is_forked(), RUNTIME.get()) {
        // It is the parent's.
        (true, _) => std::mem::forget(end),
        (false, Some(started)) => drop(WORK.spawn_on(end, started.runtime.handle())),
        // Nothing was ever made without it.
        (false, None) => drop(end),
    }
}

/// Does work for whoever waits for it, until the interpreter ends.
pub(crate) async fn while_it_matters<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let _under_way = WORK.token();
    let done = ENDING.run_until_cancelled(work).await;
    done.unwrap_or_else(|| Err(unsupported("the interpreter ends, and Blink has with it")))
}

/// Runs work to its end, also where whoever waits for it gives up.
pub(crate) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    match WORK.spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(internal(error.to_string())),
    }
}

/// Gives up calls and closes what is open when the interpreter ends.
pub(crate) fn farewell() {
    let Some(started) = RUNTIME.get().filter(|_| !is_forked()) else {
        return;
    };
    ENDING.cancel();
    let all = async {
        // What comes to its end may have opened something.
        while close_open() || !WORK.is_empty() {
            WORK.wait().await;
        }
    };
    started.runtime.block_on(async {
        // What is late goes with the process, and its files with the next start.
        let _ = tokio::time::timeout(FAREWELL, all).await;
    });
}

/// Begins to close what is open; says whether there was anything.
fn close_open() -> bool {
    let open = std::mem::take(&mut *lock(&OPEN));
    let open: Vec<_> = open.iter().filter_map(Weak::upgrade).collect();
    let any = !open.is_empty();
    for one in open {
        WORK.spawn(async move { drop(one.close().await) });
    }
    any
}

/// Locks, also after a panic of another thread: what the locks here protect is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
