//! Programs that run, and their streams.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blink_core::{ErrorKind, Isolation, Process as CoreProcess, ProcessOutput, ProcessStdin};
use bytes::Bytes;
use pyo3::prelude::*;
use tokio::sync::OwnedMutexGuard;

use crate::arguments;
use crate::call::Call;
use crate::failure::{Failure, invalid};
use crate::runtime::{Boxed, lock};
use crate::slot::{Guard, Slot};
use crate::values;

/// A running program.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Process {
    slot: Slot<Running>,
    #[pyo3(get)]
    id: u64,
    #[pyo3(get)]
    pid: u32,
}

struct Running {
    process: CoreProcess,
    isolation: Isolation,
    stdin: Mutex<Part<ProcessStdin, InputStream>>,
    stdout: Mutex<Part<ProcessOutput, OutputStream>>,
    stderr: Mutex<Part<ProcessOutput, OutputStream>>,
}

/// A stream of a program's: nobody's yet, Python's, or none any more.
enum Part<Own, Shared> {
    Own(Own),
    Shared(Shared),
    Gone,
}

impl<Own, Shared: Clone> Part<Own, Shared> {
    fn of(stream: Option<Own>) -> Mutex<Part<Own, Shared>> {
        Mutex::new(stream.map_or(Part::Gone, Part::Own))
    }

    /// Gives it to Python; to all who ask.
    fn share(&mut self, share: impl FnOnce(Own) -> Shared) -> Option<Shared> {
        *self = match std::mem::replace(self, Part::Gone) {
            Part::Own(own) => Part::Shared(share(own)),
            other => other,
        };
        match self {
            Part::Shared(shared) => Some(shared.clone()),
            _ => None,
        }
    }

    /// Takes it unless it is Python's.
    fn take(&mut self) -> Option<Own> {
        match std::mem::replace(self, Part::Gone) {
            Part::Own(own) => Some(own),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Process {
    pub(crate) fn new(mut process: CoreProcess, isolation: Isolation) -> Process {
        let (id, pid) = (process.id(), process.pid());
        let running = Running {
            stdin: Part::of(process.take_stdin()),
            stdout: Part::of(process.take_stdout()),
            stderr: Part::of(process.take_stderr()),
            process,
            isolation,
        };
        Process {
            slot: Slot::new("process", running, let_go),
            id,
            pid,
        }
    }

    fn running(&self) -> PyResult<Guard<Running>> {
        self.slot.check()?;
        Ok(self.slot.try_get()?)
    }
}

/// The program goes on, and so does its input for whoever comes next.
fn let_go(running: Running) -> Boxed<Result<(), Failure>> {
    Box::pin(async move {
        let stdin = lock(&running.stdin).take();
        if let Some(stdin) = stdin {
            stdin.leave();
        }
        Ok(())
    })
}

#[pymethods]
impl Process {
    fn stdin(&self) -> PyResult<InputStream> {
        let running = self.running()?;
        let stdin = lock(&running.stdin).share(InputStream::new);
        stdin.ok_or_else(|| {
            invalid(
                "the program has no pipe for its standard input; spawn it with stdin=blink.PIPE",
            )
            .into()
        })
    }

    fn stdout(&self) -> PyResult<OutputStream> {
        let running = self.running()?;
        let stdout = lock(&running.stdout).share(OutputStream::new);
        stdout.ok_or_else(thrown_away)
    }

    fn stderr(&self) -> PyResult<OutputStream> {
        let running = self.running()?;
        let stderr = lock(&running.stderr).share(OutputStream::new);
        stderr.ok_or_else(thrown_away)
    }

    #[pyo3(signature = (timeout=None))]
    fn wait(&self, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Call> {
        let timeout = timeout
            .map(|timeout| arguments::seconds("a timeout", timeout))
            .transpose()?;
        self.slot.check()?;
        let slot = self.slot.clone();
        let waiting = async move {
            slot.with(|running| async move {
                drop(lock(&running.stdin).take());
                drop(lock(&running.stdout).take());
                drop(lock(&running.stderr).take());
                let exited = running.process.exited();
                match timeout {
                    None => Ok(exited.await?),
                    Some(timeout) => Ok(within(timeout, exited).await??),
                }
            })
            .await
        };
        Ok(Call::giving(waiting, |py, status| {
            values::exit_status(py, &status)
        }))
    }

    fn output(&self) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        let collecting = async move {
            slot.with(|running| async move {
                drop(lock(&running.stdin).take());
                let stdout = lock(&running.stdout).take();
                let stderr = lock(&running.stderr).take();
                let (stdout, stderr) = tokio::try_join!(all_of(stdout), all_of(stderr))?;
                let status = running.process.exited().await?;
                Ok((status, running.isolation, stdout, stderr))
            })
            .await
        };
        Ok(Call::giving(
            collecting,
            |py, (status, isolation, stdout, stderr)| {
                let counts = [stdout.len() as u64, stderr.len() as u64];
                values::captured(py, &status, [&stdout, &stderr], counts, isolation)
            },
        ))
    }

    #[pyo3(signature = (signal, tree=false))]
    fn signal(&self, signal: u8, tree: bool) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|running| async move {
                match tree {
                    true => running.process.signal_tree(signal).await?,
                    false => running.process.signal(signal).await?,
                }
                Ok(())
            })
            .await
        }))
    }

    fn kill(&self) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|running| async move { Ok(running.process.kill().await?) })
                .await
        }))
    }

    fn resize(&self, rows: u16, cols: u16) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|running| async move {
                running.process.resize(rows, cols);
                Ok(())
            })
            .await
        }))
    }

    /// Kills and forgets it.
    fn release(&self) -> Call {
        let slot = self.slot.clone();
        Call::of_nothing(async move {
            slot.close_with(|running| async move { Ok(running.process.release().await?) })
                .await
        })
    }

    /// Lets go of it.
    fn close(&self) -> Call {
        Call::of_nothing(self.slot.clone().close())
    }
}

fn thrown_away() -> PyErr {
    invalid("the program's output was captured, or thrown away by waiting for the program; ask for the stream before that")
        .into()
}

/// Waits for a program's end, for so long at most.
pub(crate) async fn within<T>(
    timeout: Duration,
    future: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::time::timeout(timeout, future).await.map_err(|_| {
        Failure::new(
            ErrorKind::Timeout,
            format!("the program has not ended within {timeout:?}; it goes on, and can be killed"),
        )
    })
}

async fn all_of(stream: Option<ProcessOutput>) -> Result<Vec<u8>, blink_core::Error> {
    let mut all = Vec::new();
    if let Some(mut stream) = stream {
        while let Some(chunk) = stream.chunk().await? {
            all.extend_from_slice(&chunk);
        }
    }
    Ok(all)
}

/// One output stream of a running program.
#[pyclass(frozen, module = "blink._blink")]
#[derive(Clone)]
pub(crate) struct OutputStream {
    slot: Slot<Reader>,
    offset: Arc<AtomicU64>,
}

struct Reader(Arc<tokio::sync::Mutex<Reading>>);

struct Reading {
    output: ProcessOutput,
    /// What has come for a reader that gave up before it got it. The end is an empty one.
    come: Option<Bytes>,
}

impl OutputStream {
    fn new(output: ProcessOutput) -> OutputStream {
        let offset = Arc::new(AtomicU64::new(output.offset()));
        let reading = Reading { output, come: None };
        let reader = Reader(Arc::new(tokio::sync::Mutex::new(reading)));
        OutputStream {
            slot: Slot::new("output stream", reader, |reader| {
                Box::pin(async move {
                    drop(reader);
                    Ok(())
                })
            }),
            offset,
        }
    }
}

async fn next(
    reader: Arc<tokio::sync::Mutex<Reading>>,
) -> Result<OwnedMutexGuard<Reading>, Failure> {
    let mut reading = reader.lock_owned().await;
    if reading.come.is_none() {
        reading.come = Some(reading.output.chunk().await?.unwrap_or_default());
    }
    Ok(reading)
}

#[pymethods]
impl OutputStream {
    /// The next bytes; none at the end.
    fn chunk(&self) -> PyResult<Call> {
        self.slot.check()?;
        let (slot, offset) = (self.slot.clone(), self.offset.clone());
        let coming = async move { slot.with(|reader| next(reader.0.clone())).await };
        // The next reader waits until these are delivered, or were not wanted any more.
        Ok(Call::giving(
            coming,
            move |py, mut reading: OwnedMutexGuard<Reading>| {
                let chunk = reading.come.take().unwrap_or_default();
                if chunk.is_empty() {
                    reading.come = Some(Bytes::new());
                }
                offset.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                values::bytes(py, &chunk)
            },
        ))
    }

    /// How many bytes of the program's stream were before the next one.
    #[getter]
    fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Throws away what is still to come.
    fn close(&self) -> Call {
        Call::of_nothing(self.slot.clone().close())
    }
}

/// The standard input of a running program.
#[pyclass(frozen, module = "blink._blink")]
#[derive(Clone)]
pub(crate) struct InputStream {
    slot: Slot<tokio::sync::Mutex<ProcessStdin>>,
}

impl InputStream {
    fn new(stdin: ProcessStdin) -> InputStream {
        InputStream {
            slot: Slot::new("standard input", tokio::sync::Mutex::new(stdin), |stdin| {
                Box::pin(async move {
                    stdin.into_inner().close().await;
                    Ok(())
                })
            }),
        }
    }
}

#[pymethods]
impl InputStream {
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<Call> {
        let data = arguments::bytes(data)?;
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|stdin| async move { Ok(stdin.lock().await.write(data).await?) })
                .await
        }))
    }

    /// Ends the input, behind what was written.
    fn close(&self) -> Call {
        Call::of_nothing(self.slot.clone().close())
    }

    /// Lets go of it without ending the input.
    fn leave(&self) -> Call {
        let slot = self.slot.clone();
        Call::of_nothing(async move {
            slot.close_with(|stdin| async move {
                stdin.into_inner().leave();
                Ok(())
            })
            .await
        })
    }
}
