//! Results on their way to an event loop, which is woken by a socket: no thread but the loop's own touches Python.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use pyo3::intern;
use pyo3::prelude::*;

use crate::failure::{Failure, lost};
use crate::given::{Given, Reporter};
use crate::runtime::lock;

/// One for each event loop, which calls it when its descriptor can be read.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Mailbox {
    expected: Mutex<Expected>,
    letters: Arc<Letters>,
    bell: UnixStream,
}

#[derive(Default)]
struct Expected {
    last_id: u64,
    calls: HashMap<u64, (Py<PyAny>, Option<Reporter>)>,
}

/// What has come and was not delivered.
struct Letters {
    waiting: Mutex<Vec<(u64, Letter)>>,
    bell: UnixStream,
}

enum Letter {
    Result(Result<Given, Failure>),
    /// There is progress to report.
    News,
}

/// The sender of one call's result.
pub(crate) struct Sender {
    id: u64,
    letters: Arc<Letters>,
    sent: bool,
}

impl Sender {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn result(mut self, result: Result<Given, Failure>) {
        self.sent = true;
        self.letters.post(self.id, Letter::Result(result));
    }

    pub(crate) fn news(&self) {
        self.letters.post(self.id, Letter::News);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // A call that panicked or was given up; for the latter nobody waits.
        if !self.sent {
            self.letters.post(self.id, Letter::Result(Err(lost())));
        }
    }
}

impl Letters {
    fn post(&self, id: u64, letter: Letter) {
        let mut waiting = lock(&self.waiting);
        let first = waiting.is_empty();
        waiting.push((id, letter));
        drop(waiting);
        if first {
            // Where it is full or closed, the loop is being woken, or has ended.
            let _ = (&self.bell).write(&[0]);
        }
    }
}

impl Mailbox {
    /// A sender for the result of `future`.
    pub(crate) fn expect(&self, future: Py<PyAny>, progress: Option<Reporter>) -> Sender {
        let mut expected = lock(&self.expected);
        expected.last_id += 1;
        let id = expected.last_id;
        expected.calls.insert(id, (future, progress));
        Sender {
            id,
            letters: self.letters.clone(),
            sent: false,
        }
    }

    /// Nobody waits for this one any more.
    pub(crate) fn forget(&self, id: u64) {
        let forgotten = lock(&self.expected).calls.remove(&id);
        drop(forgotten);
    }

    fn deliver_one(&self, py: Python<'_>, id: u64, letter: Letter) -> PyResult<()> {
        let Some((future, progress)) = lock(&self.expected).calls.remove(&id) else {
            return Ok(());
        };
        let future = future.into_bound(py);
        let is_done = future.call_method0(intern!(py, "done"))?.is_truthy()?;
        let reported = match &progress {
            Some(progress) if !is_done => progress.report(py),
            _ => Ok(()),
        };
        let result = match (letter, reported) {
            // Whoever waited has gone: what the call gave is dropped, and what a stream holds stays there.
            _ if is_done => return Ok(()),
            (_, Err(error)) => Err(error),
            (Letter::News, Ok(())) => {
                let entry = (future.unbind(), progress);
                lock(&self.expected).calls.insert(id, entry);
                return Ok(());
            }
            (Letter::Result(Ok(given)), Ok(())) => given(py),
            (Letter::Result(Err(failure)), Ok(())) => Err(failure.into()),
        };
        match result {
            Ok(value) => future.call_method1(intern!(py, "set_result"), (value,)),
            Err(error) => future.call_method1(intern!(py, "set_exception"), (error,)),
        }
        .map(drop)
    }
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> PyResult<Mailbox> {
        let (bell, ringer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ringer.set_nonblocking(true)?;
        Ok(Mailbox {
            expected: Mutex::default(),
            letters: Arc::new(Letters {
                waiting: Mutex::default(),
                bell: ringer,
            }),
            bell,
        })
    }

    /// The descriptor that can be read when there is something to deliver.
    fn fileno(&self) -> i32 {
        self.bell.as_raw_fd()
    }

    /// Delivers what has come.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        let mut rung = [0; 64];
        while (&self.bell)
            .read(&mut rung)
            .is_ok_and(|count| count == rung.len())
        {}
        // Taken after the bell is silent: what comes later rings again.
        let letters = std::mem::take(&mut *lock(&self.letters.waiting));
        for (id, letter) in letters {
            self.deliver_one(py, id, letter)?;
        }
        Ok(())
    }
}
