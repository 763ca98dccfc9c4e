//! Connections into a sandbox.

use std::sync::Arc;

use blink_core::{Connection as CoreConnection, ErrorKind};
use pyo3::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::arguments;
use crate::call::Call;
use crate::failure::Failure;
use crate::slot::Slot;
use crate::values;

/// What is read at once.
const READ_BYTES: usize = 64 << 10;

/// A byte stream to a port or socket inside.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Connection {
    slot: Slot<Halves>,
}

struct Halves {
    reading: Arc<Mutex<Reading>>,
    writing: Mutex<WriteHalf<CoreConnection>>,
}

struct Reading {
    half: ReadHalf<CoreConnection>,
    /// What has come for a reader that gave up before it got it.
    come: Vec<u8>,
}

/// A call that gives a connection.
pub(crate) fn opened(
    opening: impl Future<Output = Result<CoreConnection, Failure>> + Send + 'static,
) -> Call {
    Call::making(async move {
        let (half, writing) = tokio::io::split(opening.await?);
        let reading = Reading {
            half,
            come: Vec::new(),
        };
        let halves = Halves {
            reading: Arc::new(Mutex::new(reading)),
            writing: Mutex::new(writing),
        };
        let slot = Slot::new("connection", halves, |halves| {
            Box::pin(async move {
                drop(halves);
                Ok(())
            })
        });
        Ok(Connection { slot })
    })
}

async fn next(reading: Arc<Mutex<Reading>>) -> Result<OwnedMutexGuard<Reading>, Failure> {
    let mut reading = reading.lock_owned().await;
    if reading.come.is_empty() {
        let mut come = Vec::with_capacity(READ_BYTES);
        reading.half.read_buf(&mut come).await.map_err(broken)?;
        reading.come = come;
    }
    Ok(reading)
}

fn broken(error: std::io::Error) -> Failure {
    let message = format!("the connection into the sandbox is broken: {error}");
    Failure::new(ErrorKind::SandboxDied, message)
}

#[pymethods]
impl Connection {
    /// The next bytes, at most so many; none at the end.
    #[pyo3(signature = (most=65536))]
    fn read(&self, most: usize) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        let coming = async move { slot.with(|halves| next(halves.reading.clone())).await };
        Ok(Call::giving(
            coming,
            move |py, mut reading: OwnedMutexGuard<Reading>| {
                let count = most.min(reading.come.len());
                let rest = reading.come.split_off(count);
                let given = std::mem::replace(&mut reading.come, rest);
                values::bytes(py, &given)
            },
        ))
    }

    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<Call> {
        let data = arguments::bytes(data)?;
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|halves| async move {
                let mut writing = halves.writing.lock().await;
                writing.write_all(&data).await.map_err(broken)?;
                writing.flush().await.map_err(broken)
            })
            .await
        }))
    }

    /// Ends the writing side.
    fn end(&self) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|halves| async move {
                halves.writing.lock().await.shutdown().await.map_err(broken)
            })
            .await
        }))
    }

    fn close(&self) -> Call {
        Call::of_nothing(self.slot.clone().close())
    }
}
