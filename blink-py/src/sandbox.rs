//! Sandboxes.

use blink_core::{Command, Output, Sandbox as CoreSandbox};
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::call::Call;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::runtime::{Boxed, to_its_end};
use crate::slot::Slot;
use crate::target::{Held, Target};
use crate::values;

/// A sandbox.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Sandbox {
    slot: Slot<Held>,
    #[pyo3(get)]
    id: String,
    isolation: blink_core::Isolation,
}

impl Sandbox {
    pub(crate) fn new(sandbox: CoreSandbox, detached: bool) -> Sandbox {
        Sandbox {
            id: sandbox.id().to_owned(),
            isolation: sandbox.isolation(),
            slot: Slot::new("sandbox", Held { sandbox, detached }, end),
        }
    }

    /// One of a pool, which removes it in the background.
    pub(crate) fn claimed(sandbox: CoreSandbox) -> Sandbox {
        Sandbox::new(sandbox, true)
    }

    /// Runs the only command of its life.
    pub(crate) async fn run_once(self, command: Command) -> Result<Output, Failure> {
        let run = self
            .slot
            .with(|held| async move { Ok(held.sandbox.exec(command).await?) });
        let result = run.await;
        let closed = to_its_end(self.slot.close()).await;
        let output = result?;
        closed.map(|()| output)
    }
}

/// A detached one goes on.
fn end(held: Held) -> Boxed<Result<(), Failure>> {
    Box::pin(async move {
        match held.detached {
            true => drop(held),
            false => held.sandbox.remove().await?,
        }
        Ok(())
    })
}

#[pymethods]
impl Sandbox {
    #[getter]
    fn isolation<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        values::isolation(py, self.isolation)
    }

    /// Why it has ended, if it has.
    #[getter]
    fn death<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBaseException>>> {
        self.slot.check()?;
        let death = self.slot.try_get()?.sandbox.death().cloned();
        let exception = |death| PyErr::from(Failure::from(death)).into_value(py);
        Ok(death.map(exception).map(|death| death.into_bound(py)))
    }

    #[getter]
    fn closed(&self) -> bool {
        self.slot.is_closed()
    }

    fn environment(&self) -> Environment {
        Environment(Target::Sandbox(self.slot.clone()))
    }

    fn remove(&self) -> Call {
        let slot = self.slot.clone();
        Call::of_nothing(to_its_end(async move {
            slot.close_with(|held| async move { Ok(held.sandbox.remove().await?) })
                .await
        }))
    }

    fn close(&self) -> Call {
        Call::of_nothing(to_its_end(self.slot.clone().close()))
    }
}
