//! Pools.

use std::time::Duration;

use blink_core::{Claim, Pool as CorePool, PoolStats, Session as CoreSession, SharedPool};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments;
use crate::call::Call;
use crate::failure::Failure;
use crate::runtime::{Boxed, to_its_end};
use crate::sandbox::Sandbox;
use crate::session::Session;
use crate::slot::Slot;
use crate::values;

/// A pool: this process's own, or one that another keeps.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Pool {
    slot: Slot<Either>,
    #[pyo3(get)]
    name: Option<String>,
}

enum Either {
    Own(CorePool),
    Other(SharedPool),
}

impl Either {
    fn claim(&self) -> Claim {
        match self {
            Either::Own(pool) => pool.claim(),
            Either::Other(pool) => pool.claim(),
        }
    }

    async fn stats(&self) -> blink_core::Result<PoolStats> {
        match self {
            Either::Own(pool) => Ok(pool.stats()),
            Either::Other(pool) => pool.stats().await,
        }
    }
}

impl Pool {
    pub(crate) fn own(pool: CorePool) -> Pool {
        Pool {
            name: pool.name().map(str::to_owned),
            slot: Slot::new("pool", Either::Own(pool), end),
        }
    }

    pub(crate) fn other(pool: SharedPool) -> Pool {
        Pool {
            name: Some(pool.name().to_owned()),
            slot: Slot::new("pool", Either::Other(pool), end),
        }
    }
}

/// Another process's goes on.
fn end(pool: Either) -> Boxed<Result<(), Failure>> {
    Box::pin(async move {
        if let Either::Own(pool) = pool {
            pool.close().await;
        }
        Ok(())
    })
}

#[pymethods]
impl Pool {
    #[getter]
    fn closed(&self) -> bool {
        self.slot.is_closed()
    }

    fn claim(&self, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        self.slot.check()?;
        let change = arguments::claim("claim", options)?;
        let slot = self.slot.clone();
        Ok(Call::making(async move {
            slot.with(|pool| async move { Ok(Sandbox::claimed(change(pool.claim()).await?)) })
                .await
        }))
    }

    fn claim_as(&self, name: String, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        self.slot.check()?;
        let change = arguments::claim("claim_as", options)?;
        let slot = self.slot.clone();
        Ok(Call::making(to_its_end(async move {
            slot.with(|pool| async move {
                let session: CoreSession = change(pool.claim()).into_session(name).await?;
                Ok(Session::new(session))
            })
            .await
        })))
    }

    fn ready(&self) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|pool| async move {
                match &*pool {
                    Either::Own(pool) => pool.ready().await?,
                    // Whoever has made it has waited for that.
                    Either::Other(pool) => drop(pool.stats().await?),
                }
                Ok(())
            })
            .await
        }))
    }

    fn stats(&self) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        let asking = async move {
            slot.with(|pool| async move { Ok(pool.stats().await?) })
                .await
        };
        Ok(Call::giving(asking, values::pool_stats))
    }

    #[pyo3(signature = (timeout))]
    fn drain(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Call> {
        self.slot.check()?;
        let patience: Duration = arguments::seconds("a timeout", timeout)?;
        let slot = self.slot.clone();
        Ok(Call::of_nothing(async move {
            slot.with(|pool| async move {
                match &*pool {
                    Either::Own(pool) => pool.drain(patience).await?,
                    Either::Other(pool) => pool.drain(patience).await?,
                }
                Ok(())
            })
            .await
        }))
    }

    fn close(&self) -> Call {
        Call::of_nothing(to_its_end(self.slot.clone().close()))
    }
}
