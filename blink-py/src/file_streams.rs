//! Files of a sandbox or session that are read and written bit by bit.

use std::sync::Arc;

use blink_core::{FileReader as CoreReader, FileWriter as CoreWriter};
use bytes::Bytes;
use pyo3::prelude::*;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::arguments;
use crate::call::Call;
use crate::failure::Failure;
use crate::slot::Slot;
use crate::values;

/// A file that is read bit by bit.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct FileReader {
    slot: Slot<Arc<Mutex<Reading>>>,
}

struct Reading {
    reader: CoreReader,
    /// What has come for a reader that gave up before it got it.
    come: Option<Bytes>,
}

impl FileReader {
    pub(crate) fn new(reader: CoreReader) -> FileReader {
        let reading = Arc::new(Mutex::new(Reading { reader, come: None }));
        FileReader {
            slot: Slot::new("file reader", reading, |reading| {
                Box::pin(async move {
                    drop(reading);
                    Ok(())
                })
            }),
        }
    }
}

async fn next(reading: Arc<Mutex<Reading>>) -> Result<OwnedMutexGuard<Reading>, Failure> {
    let mut reading = reading.lock_owned().await;
    if reading.come.is_none() {
        reading.come = Some(reading.reader.chunk().await?.unwrap_or_default());
    }
    Ok(reading)
}

#[pymethods]
impl FileReader {
    /// The next bytes; none at the end.
    fn chunk(&self) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        let coming = async move { slot.with(|reading| next(Arc::clone(&reading))).await };
        Ok(Call::giving(
            coming,
            |py, mut reading: OwnedMutexGuard<Reading>| {
                let chunk = reading.come.take().unwrap_or_default();
                values::bytes(py, &chunk)
            },
        ))
    }

    /// Gives up what was not read.
    fn close(&self) -> Call {
        Call::of_nothing(self.slot.clone().close())
    }
}

/// A file that is written bit by bit.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct FileWriter {
    slot: Slot<Mutex<CoreWriter>>,
}

impl FileWriter {
    pub(crate) fn new(writer: CoreWriter) -> FileWriter {
        FileWriter {
            slot: Slot::new("file writer", Mutex::new(writer), |writer| {
                Box::pin(async move {
                    drop(writer);
                    Ok(())
                })
            }),
        }
    }
}

#[pymethods]
impl FileWriter {
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<Call> {
        let data = arguments::bytes(data)?;
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|writer| async move { Ok(writer.lock().await.write(data).await?) })
                .await
        }))
    }

    /// Makes what was written the file's content.
    fn finish(&self) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.close_with(|writer| async move {
                writer.into_inner().finish().await?;
                Ok(())
            })
            .await
        }))
    }

    /// Gives up what was not finished.
    fn close(&self) -> Call {
        Call::of_nothing(self.slot.clone().close())
    }
}
