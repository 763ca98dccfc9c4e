//! A call of the library: waited for by a thread, or awaited by an event loop.
//!
//! No thread of Blink's ever holds the interpreter. What a call gives becomes Python objects in the thread that waits
//! for it, so that the end of the interpreter needs no care, and a busy interpreter holds up no link.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::failure::Failure;
use crate::given::{Given, Latest, Reporter};
use crate::mailbox::{Mailbox, Sender};
use crate::runtime::{self, Boxed, lock};

/// How often a waiting thread looks for signals, so that Ctrl-C works within twice this.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(50);

/// One call, which can be waited for once.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Call {
    state: Mutex<State>,
    progress: Option<Reporter>,
}

enum State {
    New(Boxed<Result<Given, Failure>>),
    Started {
        task: AbortHandle,
        mailbox: Py<Mailbox>,
        id: u64,
    },
    Over,
}

impl Call {
    /// A call whose result is made into a Python object where it is wanted.
    pub(crate) fn giving<T: Send + 'static>(
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
        make: impl for<'py> FnOnce(Python<'py>, T) -> PyResult<Bound<'py, PyAny>> + Send + 'static,
    ) -> Call {
        let work = async move {
            let result = runtime::while_it_matters(work).await?;
            let given: Given = Box::new(move |py| make(py, result));
            Ok(given)
        };
        Call {
            state: Mutex::new(State::New(Box::pin(work))),
            progress: None,
        }
    }

    /// A call that gives nothing.
    pub(crate) fn of_nothing(
        work: impl Future<Output = Result<(), Failure>> + Send + 'static,
    ) -> Call {
        Call::giving(work, |py, ()| Ok(py.None().into_bound(py)))
    }

    /// A call that gives an object of a class of this extension's.
    pub(crate) fn making<T>(work: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Call
    where
        T: pyo3::PyClass + Into<PyClassInitializer<T>> + Send + 'static,
    {
        Call::giving(work, |py, object| {
            Bound::new(py, object).map(Bound::into_any)
        })
    }

    /// Tells a function of Python's what `latest` is told.
    pub(crate) fn reporting(mut self, function: Option<Py<PyAny>>, latest: Arc<Latest>) -> Call {
        self.progress = function.map(|function| Reporter { function, latest });
        self
    }

    fn take(&self) -> PyResult<Boxed<Result<Given, Failure>>> {
        match std::mem::replace(&mut *lock(&self.state), State::Over) {
            State::New(work) => Ok(work),
            other => {
                *lock(&self.state) = other;
                Err(PyRuntimeError::new_err("a call can be waited for once"))
            }
        }
    }
}

#[pymethods]
impl Call {
    /// Waits in this thread. A signal's exception gives the call up.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = runtime::handle()?;
        let mut work = self.take()?;
        loop {
            let looked = py.detach(|| poll_for(handle, work.as_mut(), LOOK_FOR_SIGNALS));
            let reported = match &self.progress {
                Some(progress) => progress.report(py),
                None => Ok(()),
            };
            match looked {
                Poll::Ready(result) => {
                    reported?;
                    return result?(py);
                }
                Poll::Pending => {
                    if let Err(error) = reported.and_then(|()| py.check_signals()) {
                        runtime::drop_later(work);
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Starts it; `mailbox` sets the result of `future`, an asyncio future of its loop.
    fn start(
        &self,
        py: Python<'_>,
        mailbox: &Bound<'_, Mailbox>,
        future: Py<PyAny>,
    ) -> PyResult<()> {
        let handle = runtime::handle()?;
        let work = self.take()?;
        let (reporter, latest) = match &self.progress {
            None => (None, None),
            Some(reporter) => (
                Some(Reporter {
                    function: reporter.function.clone_ref(py),
                    latest: reporter.latest.clone(),
                }),
                Some(reporter.latest.clone()),
            ),
        };
        let sender = mailbox.get().expect(future, reporter);
        let id = sender.id();
        let task = handle.spawn(send(work, latest, sender));
        *lock(&self.state) = State::Started {
            task: task.abort_handle(),
            mailbox: mailbox.clone().unbind(),
            id,
        };
        Ok(())
    }

    /// Gives it up; no-op once it is over.
    fn cancel(&self) {
        match std::mem::replace(&mut *lock(&self.state), State::Over) {
            State::New(work) => runtime::drop_later(work),
            State::Started { task, mailbox, id } => {
                task.abort();
                mailbox.get().forget(id);
            }
            State::Over => {}
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let State::New(work) = std::mem::replace(&mut *lock(&self.state), State::Over) {
            runtime::drop_later(work);
        }
    }
}

/// Wakes a thread that polls.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls a future in this thread for so long. A timer of the runtime's would wake another thread for each call, which
/// costs more than all else here.
fn poll_for<T>(
    handle: &Handle,
    mut future: Pin<&mut (impl Future<Output = T> + ?Sized)>,
    time: Duration,
) -> Poll<T> {
    let _entered = handle.enter();
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let started = Instant::now();
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return Poll::Ready(result);
        }
        match time.checked_sub(started.elapsed()) {
            Some(left) => thread::park_timeout(left),
            None => return Poll::Pending,
        }
    }
}

async fn send(
    mut work: Boxed<Result<Given, Failure>>,
    latest: Option<Arc<Latest>>,
    sender: Sender,
) {
    let result = match latest {
        None => work.await,
        Some(latest) => loop {
            tokio::select! {
                biased;
                result = &mut work => break result,
                () = latest.news_told() => sender.news(),
            }
        },
    };
    sender.result(result);
}
