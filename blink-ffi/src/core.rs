//! The threads on which a Blink works, and how calls wait for them.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use blink_core::{Blink, BlinkBuilder};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::cancel::blink_cancel;
use crate::failure::Failure;
use crate::pipe_signal;
use crate::status::blink_status;

/// Threads beyond this number do not make waiting for links and files faster.
const MOST_THREADS: usize = 8;

/// How long the end waits for what was cancelled and is being undone, or still reads a file: longer than a boot may take.
const LAST_WAIT: Duration = Duration::from_secs(60);

/// A Blink and the threads that it works on. They end when the last handle that needs them is freed.
pub(crate) struct Core {
    runtime: ManuallyDrop<Runtime>,
    blink: ManuallyDrop<Blink>,
    /// Cancelled calls whose work goes on to its end.
    work: TaskTracker,
    pid: u32,
}

impl Core {
    pub(crate) fn open(builder: BlinkBuilder) -> Result<Arc<Core>, Failure> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let _blocked = pipe_signal::Blocked::here();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .on_thread_start(pipe_signal::Blocked::for_good)
            .worker_threads(threads.min(MOST_THREADS))
            .thread_name("blink")
            .enable_all()
            .build()
            .map_err(|error| {
                let message = format!("Blink's threads could not be started: {error}");
                Failure::new(blink_status::ResourceExhausted, message)
            })?;
        let blink = runtime.block_on(builder.build())?;
        Ok(Arc::new(Core {
            runtime: ManuallyDrop::new(runtime),
            blink: ManuallyDrop::new(blink),
            work: TaskTracker::new(),
            pid: std::process::id(),
        }))
    }

    pub(crate) fn blink(&self) -> &Blink {
        &self.blink
    }

    /// Waits for something that may be given up at any time.
    pub(crate) fn wait<T, E: Into<Failure>>(
        &self,
        cancel: *const blink_cancel,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        self.check()?;
        let _blocked = pipe_signal::Blocked::here();
        match crate::handle::get_optional(cancel)? {
            None => self.runtime.block_on(future).map_err(Into::into),
            Some(cancel) => self.runtime.block_on(cancel.or(future)),
        }
    }

    /// Waits for something that comes to its end even if the call is cancelled: a change is whole or none.
    pub(crate) fn finish<T: Send + 'static>(
        &self,
        cancel: *const blink_cancel,
        future: impl Future<Output = blink_core::Result<T>> + Send + 'static,
    ) -> Result<T, Failure> {
        self.check()?;
        self.wait(cancel, self.whole(future))
    }

    /// Begins something that is aborted by whoever has begun it.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.runtime.spawn(work).abort_handle()
    }

    /// Begins something in a task of its own, which comes to its end whoever waits for it.
    pub(crate) fn whole<T: Send + 'static>(
        &self,
        future: impl Future<Output = blink_core::Result<T>> + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>> {
        let work = self.work.clone();
        let runtime = self.runtime.handle().clone();
        Box::pin(async move {
            match work.spawn_on(future, &runtime).await {
                Ok(result) => result.map_err(Failure::from),
                Err(error) => Err(Failure::new(
                    blink_status::Internal,
                    format!("a defect in Blink stopped the call: {error}"),
                )),
            }
        })
    }

    /// As [`wait`](Core::wait), while this thread tells of the progress, in no runtime's context: whoever is told may
    /// call anything.
    pub(crate) fn wait_telling<T, P, E: Into<Failure>>(
        &self,
        cancel: *const blink_cancel,
        future: impl Future<Output = Result<T, E>>,
        news: &mut tokio::sync::mpsc::UnboundedReceiver<P>,
        mut tell: impl FnMut(P),
    ) -> Result<T, Failure> {
        enum Step<T, P> {
            News(P),
            Done(Result<T, Failure>),
        }
        self.check()?;
        let cancel = crate::handle::get_optional(cancel)?;
        let mut work = pin!(async {
            match &cancel {
                None => future.await.map_err(Into::into),
                Some(cancel) => cancel.or(future).await,
            }
        });
        loop {
            let blocked = pipe_signal::Blocked::here();
            let step = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    Some(news) = news.recv() => Step::News(news),
                    done = &mut work => Step::Done(done),
                }
            });
            drop(blocked);
            match step {
                Step::News(news) => tell(news),
                Step::Done(done) => {
                    while let Ok(last) = news.try_recv() {
                        tell(last);
                    }
                    return done;
                }
            }
        }
    }

    /// Fails if nothing can be waited for. What a child process has after `fork` looks like its parent's, but none of its
    /// threads are there; and a thread of Blink's own, which calls a log callback, has its work to do.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_this_process() && is_own_thread() {
            return Err(Failure::invalid(
                "this call waits, which a log callback must not do; make it from another thread",
            ));
        }
        match self.is_this_process() {
            true => Ok(()),
            false => Err(Failure::new(
                blink_status::Unsupported,
                format!(
                    "this was opened by the process {}, of which this one was forked; open it again here",
                    self.pid
                ),
            )),
        }
    }

    fn is_this_process(&self) -> bool {
        self.pid == std::process::id()
    }
}

/// Whether this thread runs tasks, and so cannot wait.
fn is_own_thread() -> bool {
    tokio::runtime::Handle::try_current().is_ok()
}

impl Drop for Core {
    fn drop(&mut self) {
        // In a child process the threads are not there to end, and the sandboxes are its parent's.
        if !self.is_this_process() {
            return;
        }
        // SAFETY: nobody uses either of them afterwards.
        let (runtime, blink) = unsafe {
            (
                ManuallyDrop::take(&mut self.runtime),
                ManuallyDrop::take(&mut self.blink),
            )
        };
        let work = self.work.clone();
        let end = move || {
            work.close();
            let _blocked = pipe_signal::Blocked::here();
            let ended = async {
                work.wait().await;
                blink.settled().await;
            };
            let _ = runtime.block_on(async { tokio::time::timeout(LAST_WAIT, ended).await });
            let inside = runtime.enter();
            drop(blink);
            drop(inside);
            runtime.shutdown_timeout(LAST_WAIT);
        };
        // The last handle may have been held by a task, which cannot wait for its own end.
        match is_own_thread() {
            true => drop(std::thread::spawn(end)),
            false => end(),
        }
    }
}

/// A value of blink-core's, which must be dropped where its threads are.
pub(crate) struct Held<T> {
    value: ManuallyDrop<T>,
    core: Arc<Core>,
}

impl<T> Held<T> {
    pub(crate) fn new(core: &Arc<Core>, value: T) -> Held<T> {
        Held {
            value: ManuallyDrop::new(value),
            core: core.clone(),
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if self.core.is_this_process() {
            let _inside = self.core.runtime.enter();
            // SAFETY: nobody uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}
