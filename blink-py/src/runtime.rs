//! The threads behind all calls, and what becomes of them in a forked child and at the interpreter's end.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use once_cell::sync::OnceCell;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use crate::call::Boxed;
use crate::failure::{Failure, internal, unsupported};

/// How long the interpreter's end waits for sandboxes to be removed. What is left then goes with the next start.
const FAREWELL: Duration = Duration::from_secs(10);

/// Started by the first call, so that a program that forks before it uses Blink has one in each of its processes.
static RUNTIME: OnceCell<Started> = OnceCell::new();

/// What is open, so that the interpreter's end can close it.
static OPEN: Mutex<Vec<Weak<dyn Close>>> = Mutex::new(Vec::new());

/// What was let go of and is being ended.
static ENDING: Mutex<Option<JoinSet<()>>> = Mutex::new(None);

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
        (false, Some(started)) => {
            let mut ending = lock(&ENDING);
            let tasks = ending.get_or_insert_default();
            while tasks.try_join_next().is_some() {}
            tasks.spawn_on(end, started.runtime.handle());
        }
        // Nothing was ever made without it.
        (false, None) => drop(end),
    }
}

/// Runs work to its end, also where whoever waits for it gives up.
pub(crate) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(internal(error.to_string())),
    }
}

/// Closes what is open when the interpreter ends.
pub(crate) fn farewell() {
    let Some(started) = RUNTIME.get().filter(|_| !is_forked()) else {
        return;
    };
    let open: Vec<_> = std::mem::take(&mut *lock(&OPEN));
    let open = open.iter().filter_map(Weak::upgrade);
    let mut closing: JoinSet<()> = lock(&ENDING).take().unwrap_or_default();
    for one in open {
        closing.spawn_on(
            async move { drop(one.close().await) },
            started.runtime.handle(),
        );
    }
    started.runtime.block_on(async {
        let all = async { while closing.join_next().await.is_some() {} };
        // What is late goes with the process, and its files with the next start.
        let _ = tokio::time::timeout(FAREWELL, all).await;
        closing.detach_all();
    });
}

/// Locks, also after a panic of another thread: what the locks here protect is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
