//! The processes of a session that runs, beside whoever has the session.

use blink_core::SessionProcesses as CoreProcesses;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::arguments;
use crate::call::Call;
use crate::environment::spawned;
use crate::process::within;
use crate::slot::Slot;
use crate::values;

/// The processes of a session that runs.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct SessionProcesses {
    slot: Slot<CoreProcesses>,
    isolation: blink_core::Isolation,
}

impl SessionProcesses {
    pub(crate) fn new(processes: CoreProcesses) -> SessionProcesses {
        SessionProcesses {
            isolation: processes.isolation(),
            slot: Slot::new("view of a session's processes", processes, |processes| {
                Box::pin(async move {
                    drop(processes);
                    Ok(())
                })
            }),
        }
    }
}

#[pymethods]
impl SessionProcesses {
    #[getter]
    fn isolation<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        values::isolation(py, self.isolation)
    }

    #[getter]
    fn closed(&self) -> bool {
        self.slot.is_closed()
    }

    fn list(&self) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        let listing = async move {
            slot.with(|processes| async move { Ok(processes.list().await?) })
                .await
        };
        Ok(Call::giving(listing, |py, processes| {
            values::list(py, processes, values::process_info)
        }))
    }

    fn logs(&self, id: u64) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        let looking = async move {
            slot.with(|processes| async move { Ok(processes.logs(id).await?) })
                .await
        };
        Ok(Call::giving(looking, |py, logs| {
            values::process_logs(py, &logs)
        }))
    }

    #[pyo3(signature = (id, timeout=None))]
    fn wait(&self, id: u64, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Call> {
        let timeout = timeout
            .map(|timeout| arguments::seconds("a timeout", timeout))
            .transpose()?;
        self.slot.check()?;
        let slot = self.slot.clone();
        let waiting = async move {
            slot.with(|processes| async move {
                let ended = processes.wait(id);
                match timeout {
                    None => Ok(ended.await?),
                    Some(timeout) => Ok(within(timeout, ended).await??),
                }
            })
            .await
        };
        Ok(Call::giving(waiting, |py, status| {
            values::exit_status(py, &status)
        }))
    }

    fn signal(&self, id: u64, signal: u8) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|processes| async move { Ok(processes.signal(id, signal).await?) })
                .await
        }))
    }

    fn kill(&self, id: u64) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|processes| async move { Ok(processes.kill(id).await?) })
                .await
        }))
    }

    #[pyo3(signature = (id, stdout_offset=0, stderr_offset=0))]
    fn attach(&self, id: u64, stdout_offset: u64, stderr_offset: u64) -> PyResult<Call> {
        self.slot.check()?;
        let (slot, isolation) = (self.slot.clone(), self.isolation);
        Ok(spawned(async move {
            slot.with(|processes| async move {
                let process = processes.attach(id, stdout_offset, stderr_offset).await?;
                Ok((process, isolation))
            })
            .await
        }))
    }

    /// Lets go of them; they go on.
    fn close(&self) -> Call {
        Call::of_nothing(self.slot.clone().close())
    }
}
