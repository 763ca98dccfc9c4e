//! How changes of sessions come into the registry, and what they leave is removed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{MutexGuard, watch};
use tokio::time::Instant;

use super::layers::{Layers, Making};
use super::lease::{self, Gate, Lease};
use super::registry::Registry;
use super::{CLAIM_EVERY, Session, State, missing};
use crate::blink::Blink;
use crate::blocking::on_thread;
use crate::engine::engines;
use crate::error::{Error, Result};
use crate::lock;

/// While this lives, nobody else changes a session, in any process; whoever comes second is told what is done.
pub(super) struct Changing {
    lease: Arc<Lease>,
    _gate: Gate,
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.lease.done();
    }
}

/// What a change has other processes do that have the session open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// They stay, and see what it has changed.
    Stay,
    /// It waits until they have left a machine that runs.
    LeaveWhatRuns,
    /// It waits until they have left.
    Leave,
}

impl Session {
    /// What it is now, unless it was removed.
    pub(super) async fn there(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.core.state.lock().await;
        self.refresh(&mut state).await?;
        match state.removed {
            true => Err(missing(&state.row.name)),
            false => Ok(state),
        }
    }

    /// What it is now, unless it was removed, for one who changes it.
    ///
    /// # Errors
    /// `Busy` if others do not let it, with all of them; `NotFound`.
    pub(super) async fn changing(
        &self,
        what: &str,
        others: Others,
    ) -> Result<(MutexGuard<'_, State>, Arc<Changing>)> {
        self.change_within(self.patience, what, others).await
    }

    /// As [`changing`](Session::changing), with a patience of its own.
    pub(super) async fn change_within(
        &self,
        patience: Duration,
        what: &str,
        others: Others,
    ) -> Result<(MutexGuard<'_, State>, Arc<Changing>)> {
        let deadline = Instant::now() + patience;
        loop {
            let mut state = self.there().await?;
            let gate = match Gate::try_have(self.core.folder.path()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(missing(&state.row.name));
                }
                gate => gate.map_err(|error| Error::io("the session cannot be locked", &error))?,
            };
            if let Some(gate) = gate
                && !self.is_kept_by(others)
            {
                // Another process may have changed it.
                self.reread(&mut state).await?;
                if state.removed {
                    return Err(missing(&state.row.name));
                }
                self.core.lease.doing(what);
                let changing = Arc::new(Changing {
                    lease: self.core.lease.clone(),
                    _gate: gate,
                });
                state.changing = Arc::downgrade(&changing);
                return Ok((state, changing));
            }
            let name = state.row.name.clone();
            // Whoever only uses it goes on meanwhile.
            drop(state);
            if Instant::now() >= deadline {
                return Err(lease::busy(&name, &self.core.lease.others()));
            }
            tokio::time::sleep(CLAIM_EVERY).await;
        }
    }

    fn is_kept_by(&self, others: Others) -> bool {
        match others {
            Others::Stay => false,
            Others::LeaveWhatRuns => {
                engines::is_alive(self.core.folder.path()) && !self.core.lease.others().is_empty()
            }
            Others::Leave => !self.core.lease.others().is_empty(),
        }
    }

    /// Looks what another process, or a change that was given up, has made of it.
    pub(super) async fn reread(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        self.refresh(state).await?;
        if state.removed {
            return Ok(());
        }
        let id = state.row.id.clone();
        match self
            .core
            .blink
            .look_up(move |registry| registry.session_by_id(&id))
            .await?
        {
            Some(row) => state.row = row,
            None => state.removed = true,
        }
        Ok(())
    }

    /// Looks what has become of a change that was given up.
    pub(super) async fn refresh(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        let Some(change) = &mut state.change else {
            return Ok(());
        };
        while change.changed().await.is_ok() {}
        let id = state.row.id.clone();
        let now = self
            .core
            .blink
            .with_registry(move |registry| registry.session_by_id(&id))
            .await?;
        match now {
            Some(row) => state.row = row,
            None => state.removed = true,
        }
        state.change = None;
        Ok(())
    }

    /// Makes a change of it, for which layers were made, or are by `prepare`, before it has the registry.
    pub(super) async fn change<P, T: Send + 'static>(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: Option<&Making>,
        prepare: impl FnOnce() -> Result<P> + Send + 'static,
        change: impl FnOnce(&mut Registry, P) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let making = making.cloned();
        self.to_its_end(state, move |registry| {
            let _until_then = making;
            let prepared = prepare()?;
            change(&mut lock(registry), prepared)
        })
        .await
    }

    /// As [`change`](Session::change), and removes the layers that it frees; `making` is let go of in between.
    pub(super) async fn change_and_remove<P>(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: Option<Making>,
        prepare: impl FnOnce() -> Result<P> + Send + 'static,
        change: impl FnOnce(&mut Registry, P) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let layers = self.core.blink.layers();
        self.to_its_end(state, move |registry| {
            let prepared = prepare()?;
            change(&mut lock(registry), prepared)?;
            drop(making);
            if let Err(error) = layers.remove_forgotten(registry) {
                tracing::warn!(%error, "layers that nobody needs are collected later");
            }
            Ok(())
        })
        .await
    }

    /// Where the caller gives up meanwhile, it is done nevertheless, and the next call looks what has become of it.
    async fn to_its_end<T: Send + 'static>(
        &self,
        state: &mut MutexGuard<'_, State>,
        work: impl FnOnce(&Mutex<Registry>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (under_way, over) = watch::channel(());
        state.change = Some(over);
        let changing = state.changing.upgrade();
        let blink = self.core.blink.clone();
        let done = on_thread(move || {
            let _until_then = (under_way, changing);
            work(&*blink.registry()?)
        })
        .await?;
        state.change = None;
        Ok(done)
    }
}

impl Blink {
    /// Works with the registry, on a thread that may wait.
    pub(crate) async fn with_registry<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let blink = self.clone();
        on_thread(move || {
            let registry = blink.registry()?;
            work(&mut lock(&registry))
        })
        .await
    }

    /// Looks up a few rows: at once where nobody has the registry, since a change of thread takes longer than that. Those who
    /// read do not wait for those who write, of this process or another.
    pub(crate) async fn look_up<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if let Some(registry) = self.opened_registry()
            && let Ok(registry) = registry.try_lock()
        {
            return work(&registry);
        }
        self.with_registry(|registry| work(registry)).await
    }

    pub(crate) fn layers(&self) -> Layers {
        Layers::of(self.home())
    }

    /// Removes layers that were made and are not written down. What cannot be removed now is collected later: nothing fails for
    /// that.
    pub(crate) async fn collect_layers(&self) {
        let (blink, layers) = (self.clone(), self.layers());
        let collected = on_thread(move || layers.collect(&*blink.registry()?)).await;
        if let Err(error) = collected {
            tracing::warn!(%error, "layers that nobody needs are collected later");
        }
    }

    /// Whether the folder of a session that nobody has is a session's indeed. One that cannot be told stays.
    pub(crate) async fn is_session(&self, id: &str) -> bool {
        let id = id.to_owned();
        let row = self
            .with_registry(move |registry| registry.session_by_id(&id))
            .await;
        !matches!(row, Ok(None))
    }
}
