//! Changes of a session, which are made by one at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use super::core::{Core, LOOK_EVERY, State, missing};
use super::lease::{self, Gate, Lease};
use crate::blocking::on_thread;
use crate::disk::{Draft, LayerRow, Registry, SessionRow};
use crate::engine::{Engine, engines};
use crate::error::{Error, Result};

/// While this lives, nobody else changes the session, in any process. The error of whoever comes second says what is being done.
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
    /// It waits until they have left a sandbox that runs.
    LeaveWhatRuns,
    /// It waits until they have left.
    Leave,
}

/// The turn of one who changes a session.
pub(super) struct Turn {
    pub(super) core: Arc<Core>,
    pub(super) state: OwnedMutexGuard<State>,
    /// For what goes on when its caller gives up.
    pub(super) changing: Arc<Changing>,
}

impl Core {
    /// Takes a turn as soon as others allow it. The error of whoever comes second says `what` is being done.
    ///
    /// # Errors
    /// `Busy` if others do not let it, with all of them; `NotFound`.
    pub(super) async fn turn(
        self: &Arc<Self>,
        patience: Duration,
        what: &str,
        others: Others,
    ) -> Result<Turn> {
        let deadline = Instant::now() + patience;
        loop {
            let state = self.there().await?;
            let name = state.row.name.clone();
            if let Some(mut turn) = self.try_turn(state, what, others)? {
                // Another process may have changed it.
                self.look_again(&mut turn.state).await?;
                return match turn.state.removed {
                    true => Err(missing(&name)),
                    false => Ok(turn),
                };
            }
            if Instant::now() >= deadline {
                return Err(lease::busy(&name, &self.lease.others()));
            }
            // Whoever only uses it goes on meanwhile.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes a turn, if others let it right now.
    pub(super) fn try_turn(
        self: &Arc<Self>,
        state: OwnedMutexGuard<State>,
        what: &str,
        others: Others,
    ) -> Result<Option<Turn>> {
        let gate = match Gate::try_have(self.folder.path()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing(&state.row.name));
            }
            gate => gate.map_err(|error| Error::io("the session cannot be locked", &error))?,
        };
        let Some(gate) = gate.filter(|_| !self.is_kept_by(others)) else {
            return Ok(None);
        };
        self.lease.doing(what);
        let changing = Changing {
            lease: self.lease.clone(),
            _gate: gate,
        };
        Ok(Some(Turn {
            core: self.clone(),
            state,
            changing: Arc::new(changing),
        }))
    }

    fn is_kept_by(&self, others: Others) -> bool {
        match others {
            Others::Stay => false,
            Others::LeaveWhatRuns => {
                engines::is_alive(self.folder.path()) && !self.lease.others().is_empty()
            }
            Others::Leave => !self.lease.others().is_empty(),
        }
    }
}

impl Turn {
    /// What the session is now.
    pub(super) fn row(&self) -> &SessionRow {
        &self.state.row
    }

    pub(super) async fn engine(&self) -> Result<Arc<dyn Engine>> {
        self.core.blink.engine(self.row().isolation).await
    }

    /// Begins a change of its disk.
    pub(super) async fn draft(&self) -> Result<Draft> {
        Draft::begin(self.core.disks(), self.engine().await?)
    }

    /// Writes down a change that needs no layers, and removes those that it frees.
    pub(super) async fn write<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&mut Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let disks = self.core.disks().clone();
        self.until_done(move || disks.write(change)).await
    }

    /// Writes down a change with the layers that were made for it, and removes those that it frees.
    pub(super) async fn commit<T: Send + 'static>(
        &mut self,
        draft: Draft,
        change: impl FnOnce(&mut Registry, &[LayerRow]) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.until_done(move || draft.write(change)).await
    }

    /// Where the caller gives up meanwhile, it is done nevertheless, and the next call looks what has become of it. Afterwards
    /// the row is what was written down.
    async fn until_done<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (under_way, over) = watch::channel(());
        self.state.change = Some(over);
        let changing = self.changing.clone();
        let done = on_thread(move || {
            let _until_then = (under_way, changing);
            work()
        })
        .await?;
        match self.core.clone().look_again(&mut self.state).await {
            Ok(()) => self.state.change = None,
            // The next call does.
            Err(error) => tracing::debug!(%error, "what a change has made is not known yet"),
        }
        Ok(done)
    }
}
