//! The machine that a session runs in: started from the session's disk, taken up where it runs already, ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::core::{Core, LOOK_EVERY, State};
use super::idle::{self, Stop};
use super::ports::Ports;
use super::turn::Turn;
use super::watch;
use crate::command::Defaults;
use crate::disk::SessionRow;
use crate::engine::{Engine, engines};
use crate::error::{Error, ErrorKind, Result};
use crate::sandbox::{Place, Request, Sandbox, identify};

/// How long a machine that takes no links may take to end: its agent ends with its last link, or is killed.
const END_PATIENCE: Duration = Duration::from_secs(5);

impl Core {
    /// Somebody uses it, which others may want to know before they stop it.
    pub(super) fn use_now(&self, state: &mut State) {
        state.used_at = Instant::now();
        if state.row.options.spec.idle_stop.is_some() {
            self.lease.touch();
        }
    }

    /// Whether another process may have begun to stop it before this one said that it uses it.
    pub(super) fn may_be_stopped(&self, state: &State, sandbox: &Sandbox) -> bool {
        let others_stop_it = self.is_shared && state.row.options.spec.idle_stop.is_some();
        others_stop_it && (Stop::of(self.folder.path()).is_some() || !sandbox.is_running())
    }
}

impl Turn {
    /// The sandbox that it runs in; it is taken up or started where this process has none. Whoever asks changes the session.
    pub(super) async fn running(&mut self) -> Result<Arc<Sandbox>> {
        if let Some(stop) = Stop::of(self.core.folder.path()) {
            // Nobody else changes the session: whoever has announced it has done it, or is gone.
            stop.take_back();
        }
        if let Some(sandbox) = self.state.alive()
            && sandbox.is_running()
        {
            return Ok(sandbox.clone());
        }
        self.drop_dead().await;
        let (disk, layers) = self.disk().await?;
        let engine = self.engine().await?;
        if let Some(sandbox) = self.linked(&*engine, &disk).await? {
            return Ok(self.hold(sandbox));
        }
        engine.discard(self.core.folder.path()).await?;
        let sandbox = self.boot(disk, layers).await?;
        Ok(self.hold(sandbox))
    }

    /// Links to the machine, where one runs; says whether one does. Whoever asks changes the session.
    pub(super) async fn is_linked(&mut self) -> Result<bool> {
        self.drop_dead().await;
        let (disk, _) = self.disk().await?;
        let engine = self.engine().await?;
        let linked = self.linked(&*engine, &disk).await?;
        let is_there = linked.is_some();
        if let Some(sandbox) = linked {
            self.hold(sandbox);
        }
        Ok(is_there)
    }

    async fn drop_dead(&mut self) {
        let Some(dead) = self.state.sandbox.take() else {
            return;
        };
        tracing::info!(
            session = self.core.folder.id(),
            "its machine, or the link to it, has ended"
        );
        // Others may have links that work.
        if !self.core.is_shared || self.core.lease.others().is_empty() {
            dead.end("the machine has ended").await;
        }
    }

    /// A link to the machine that runs, where one does.
    async fn linked(&self, engine: &dyn Engine, disk: &Path) -> Result<Option<Sandbox>> {
        let (row, folder) = (self.row(), self.core.folder.path());
        if !self.core.is_shared && !row.options.spec.is_warm() {
            return Ok(None);
        }
        if self.core.is_shared {
            // Nobody else changes the session: whoever has stopped it is gone.
            watch::let_go_on(folder);
        }
        let Some(machine) = engine.adopt(folder, disk).await? else {
            return Ok(None);
        };
        let defaults = row.options.spec.defaults(&row.options.config);
        let own = self.core.folder.clone();
        let sandbox = Sandbox::assemble(own, machine.into(), row.isolation, defaults).adopted();
        let ports = self.core.ports(&row.options.spec.publish, false).await?;
        let reached = match &ports {
            Ports::Own(ports, _) => sandbox.reached(ports).await,
            Ports::Elsewhere(ports) => sandbox.reached_beside(ports.clone()).await,
        };
        match reached {
            Ok(sandbox) => {
                ports.keep(folder, &sandbox)?;
                Ok(Some(sandbox.used_by(self.core.lease.clone())))
            }
            Err(error) if error.kind() == ErrorKind::Busy => Err(error),
            Err(error) if self.core.is_shared && !self.ends().await => Err(error),
            Err(error) => {
                tracing::info!(session = self.core.folder.id(), %error, "its machine does not answer");
                Ok(None)
            }
        }
    }

    /// Whether a machine that takes no link from this process may be ended by it, or ends by itself: not while others have
    /// theirs.
    async fn ends(&self) -> bool {
        let begun = Instant::now();
        while engines::is_alive(self.core.folder.path()) {
            if self.core.lease.others().is_empty() {
                return true;
            }
            if begun.elapsed() > END_PATIENCE {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Boots a machine. Where nobody waits for it any more, it is undone; until then, nobody else changes the session.
    async fn boot(&self, disk: PathBuf, layers: Vec<PathBuf>) -> Result<Sandbox> {
        let row = self.row();
        let mut described = self.described(row);
        let asked = std::mem::take(&mut described.spec.publish);
        let mut parts = described.prepare_without_image().await?;
        let mut ports = self.core.ports(&asked, true).await?;
        if let Ports::Own(own, _) = &ports {
            described.spec.publish.clone_from(own);
            parts.ports = described.bind(row.isolation)?;
        }
        parts.image = self
            .core
            .blink
            .stored_image(row.options.spec.image(), row.options.digest.as_deref())
            .await?;
        let place = Place {
            folder: self.core.folder.clone(),
            disk,
            layers,
            outlives: row.options.spec.is_warm(),
            shared: self.core.is_shared,
        };
        let (taker, taken) = oneshot::channel();
        let given_up = CancellationToken::new();
        let _giving_up = given_up.clone().drop_guard();
        let (changing, id) = (self.changing.clone(), self.core.folder.id().to_owned());
        let booting = async move {
            let booted = described.boot(parts, place, given_up).await;
            if let Ok(sandbox) = &booted {
                identify(sandbox, &id).await;
            }
            if let Err(Ok(sandbox)) = taker.send(booted) {
                sandbox.end("nobody waits for it any more").await;
            }
            drop(changing);
        };
        self.core.blink.spawn_boot(booting.in_current_span());
        let mut sandbox = taken.await.map_err(|_| {
            Error::new(
                ErrorKind::Internal,
                "the boot was stopped by a defect in Blink",
            )
        })??;
        if let Ports::Elsewhere(elsewhere) = &mut ports {
            sandbox.publish_elsewhere(std::mem::take(elsewhere));
        }
        ports.keep(self.core.folder.path(), &sandbox)?;
        Ok(sandbox.used_by(self.core.lease.clone()))
    }

    pub(super) fn hold(&mut self, sandbox: Sandbox) -> Arc<Sandbox> {
        let sandbox = Arc::new(sandbox);
        self.state.sandbox = Some(sandbox.clone());
        self.core.clone().use_now(&mut self.state);
        if let Some(after) = self.state.row.options.spec.idle_stop {
            idle::watch(&self.core, &sandbox, after);
        }
        if self.core.is_shared {
            watch::start(self.core.folder.path(), &sandbox);
        }
        sandbox
    }

    fn described(&self, row: &SessionRow) -> Request {
        let mut spec = row.options.spec.clone();
        spec.isolation = Some(row.isolation.into());
        Request::new(self.core.blink.clone(), spec)
    }

    /// Whether there may be a machine to end.
    pub(super) fn may_run(&self) -> bool {
        self.state.sandbox.is_some() || engines::is_alive(self.core.folder.path())
    }

    /// Ends the machine; says whether there was one. Whoever asks changes the session.
    pub(super) async fn halt(&mut self) -> Result<bool> {
        let folder = self.core.folder.path();
        let runs = engines::is_alive(folder);
        if let Some(sandbox) = self.state.sandbox.take() {
            let was_running = runs || sandbox.death().is_none();
            sandbox.settle().await;
            sandbox.end("the session was stopped").await;
            let engine = self.engine().await?;
            engine.discard(folder).await?;
            return Ok(was_running);
        }
        // One that another process has left running, or has not ended.
        if runs {
            let engine = self.engine().await?;
            if !engines::capabilities(self.row().isolation).writes_through {
                self.settle_and_end(&*engine).await?;
            }
            engine.discard(folder).await?;
        } else if engines::is_kept(folder) {
            // It has ended with an earlier process, and its engine keeps the disk for it.
            let engine = self.engine().await;
            let discarded = match engine {
                Ok(engine) => engine.discard(folder).await,
                Err(error) => Err(error),
            };
            if let Err(error) = discarded {
                tracing::debug!(session = self.core.folder.id(), %error, "what is left of its machine goes later");
            }
        }
        Ok(runs)
    }

    async fn settle_and_end(&self, engine: &dyn Engine) -> Result<()> {
        let folder = self.core.folder.clone();
        let (disk, _) = self.disk().await?;
        let Some(machine) = engine.adopt(folder.path(), &disk).await? else {
            return Ok(());
        };
        let defaults = Defaults::default();
        let sandbox = Sandbox::assemble(folder, machine.into(), self.row().isolation, defaults);
        if let Ok(sandbox) = sandbox.reached(&[]).await {
            sandbox.settle().await;
            sandbox.end("the session was stopped").await;
        }
        Ok(())
    }

    /// The folders of its head, and of the layers beneath it.
    async fn disk(&self) -> Result<(PathBuf, Vec<PathBuf>)> {
        let chain = self.core.disks().chain(&self.row().head).await?;
        let mut folders = self.core.disks().folders(&chain);
        let disk = folders.pop().ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "the session has lost its disk; remove it",
            )
        })?;
        Ok((disk, folders))
    }
}
