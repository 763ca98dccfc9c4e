//! A session as this process has it.

use std::any::Any;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::lease::Lease;
use crate::blink::{Blink, OpenSessions};
use crate::disk::{Disks, SessionRow};
use crate::engine::engines;
use crate::error::{Error, ErrorKind, Result};
use crate::home::SandboxFolder;
use crate::sandbox::Sandbox;

/// How long others who use or change a session, or have a home, are waited for, unless told otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether a session is free.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A session that this process has open, once for each [`Blink`].
pub(super) struct Core {
    pub(super) blink: Blink,
    pub(super) folder: SandboxFolder,
    pub(super) state: Arc<Mutex<State>>,
    /// Handles of it that were not let go of.
    pub(super) handles: AtomicUsize,
    pub(super) lease: Arc<Lease>,
    /// Other processes have links of their own to its sandbox.
    pub(super) is_shared: bool,
}

/// What a session is, as far as this process knows.
pub(super) struct State {
    pub(super) row: SessionRow,
    pub(super) sandbox: Option<Arc<Sandbox>>,
    pub(super) used_at: Instant,
    /// Nothing of it is left.
    pub(super) removed: bool,
    /// A change whose end nobody has seen yet, when the other half of this is dropped: the row may be of before it.
    pub(super) change: Option<watch::Receiver<()>>,
}

impl State {
    /// Its machine, where this process has a link to one that runs.
    pub(super) fn alive(&self) -> Option<&Arc<Sandbox>> {
        let sandbox = self.sandbox.as_ref();
        sandbox.filter(|sandbox| sandbox.death().is_none())
    }

    /// What the registry says of it now.
    pub(super) fn is_now(&mut self, row: Option<SessionRow>) {
        match row {
            Some(row) => self.row = row,
            None => self.removed = true,
        }
    }
}

impl Core {
    /// Becomes a user of a session, of which this process has no other.
    pub(super) fn open(
        open: &mut OpenSessions,
        blink: &Blink,
        folder: SandboxFolder,
        row: SessionRow,
    ) -> Result<Arc<Core>> {
        let is_shared = engines::capabilities(row.isolation).shares_machines;
        let ends = is_shared && !row.options.spec.is_warm();
        let lease = Lease::take(folder.clone(), ends)
            .map_err(|error| Error::io("who uses the session cannot be written down", &error))?;
        let state = State {
            row,
            sandbox: None,
            used_at: Instant::now(),
            removed: false,
            change: None,
        };
        let core = Arc::new(Core {
            blink: blink.clone(),
            folder,
            state: Arc::new(Mutex::new(state)),
            handles: AtomicUsize::new(0),
            lease: Arc::new(lease),
            is_shared,
        });
        open.retain(|_, core| core.strong_count() > 0);
        let opened: Weak<dyn Any + Send + Sync> = Arc::<Core>::downgrade(&core);
        open.insert(core.folder.id().to_owned(), opened);
        Ok(core)
    }

    /// The session that this process has open, if it has.
    pub(super) fn opened(open: &OpenSessions, id: &str) -> Option<Arc<Core>> {
        open.get(id)?.upgrade()?.downcast().ok()
    }

    pub(super) fn disks(&self) -> &Disks {
        self.blink.disks()
    }

    /// What it is now, as far as changes have ended that this process has begun.
    pub(super) async fn state(&self) -> Result<OwnedMutexGuard<State>> {
        let mut state = self.state.clone().lock_owned().await;
        if let Some(change) = &mut state.change {
            while change.changed().await.is_ok() {}
            let id = self.folder.id().to_owned();
            let now = self
                .disks()
                .with_registry(move |registry| registry.session_by_id(&id))
                .await?;
            state.is_now(now);
            state.change = None;
        }
        Ok(state)
    }

    /// As [`state`](Core::state), also what other processes have made of it.
    pub(super) async fn reread(&self) -> Result<OwnedMutexGuard<State>> {
        let mut state = self.state().await?;
        if !state.removed {
            self.look_again(&mut state).await?;
        }
        Ok(state)
    }

    /// Looks what other processes have made of it.
    pub(super) async fn look_again(&self, state: &mut State) -> Result<()> {
        let id = self.folder.id().to_owned();
        let now = self
            .disks()
            .look_up(move |registry| registry.session_by_id(&id))
            .await?;
        state.is_now(now);
        Ok(())
    }

    /// What it is now, unless it was removed.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn there(&self) -> Result<OwnedMutexGuard<State>> {
        let state = self.state().await?;
        match state.removed {
            true => Err(missing(&state.row.name)),
            false => Ok(state),
        }
    }
}

pub(super) fn missing(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no session {name:?}; look for its name in the list of sessions, or use the home that it is in \
             (BLINK_HOME)"
        ),
    )
}
