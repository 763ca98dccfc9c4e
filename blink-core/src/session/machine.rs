//! The machine that a session runs in: started from the session's disk, taken up where it still runs, ended.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::MutexGuard;
use tokio_util::sync::CancellationToken;

use super::options::SessionOptions;
use super::{Session, State, idle};
use crate::command::Defaults;
use crate::engine::engines;
use crate::error::{Error, ErrorKind, Result};
use crate::sandbox::{Place, Sandbox, SandboxBuilder};

impl Session {
    /// The sandbox that it runs in; it is taken up or started where there is none.
    pub(super) async fn running(&self, state: &mut MutexGuard<'_, State>) -> Result<Arc<Sandbox>> {
        if let Some(sandbox) = &state.sandbox {
            if sandbox.death().is_none() {
                return Ok(sandbox.clone());
            }
            tracing::info!(
                session = self.id(),
                "its machine has died; starting it again from its disk"
            );
            sandbox.end("the machine has ended").await;
            state.sandbox = None;
        }
        let row = &state.row;
        let (disk, layers) = self.disk(&row.head).await?;
        let engine = self.blink.engine(row.isolation).await?;
        if row.options.asked.warm
            && let Some(machine) = engine.adopt(self.folder.path(), &disk).await?
        {
            let described = self.described(&row.options);
            let defaults = described.defaults(&row.options.config);
            let sandbox =
                Sandbox::assemble(self.folder.clone(), machine.into(), row.isolation, defaults)
                    .adopted();
            let sandbox = sandbox.reached(&row.options.asked.publish).await;
            match sandbox {
                Ok(sandbox) => {
                    return Ok(self.hold(state, sandbox));
                }
                Err(error) if error.kind() == ErrorKind::Busy => return Err(error),
                Err(error) => {
                    tracing::info!(session = self.id(), %error, "its machine does not answer");
                }
            }
        }
        engine.discard(self.folder.path()).await?;
        let described = self.described(&row.options).isolation(row.isolation.into());
        let mut parts = described.prepare_without_image().await?;
        parts.image = self
            .blink
            .stored_image(&row.options.asked.image, row.options.digest.as_deref())
            .await?;
        let place = Place {
            folder: self.folder.clone(),
            disk,
            layers,
            outlives: row.options.asked.warm,
        };
        let sandbox = described
            .boot(parts, place, CancellationToken::new())
            .await?;
        identify(&sandbox, self.id()).await;
        Ok(self.hold(state, sandbox))
    }

    fn hold(&self, state: &mut MutexGuard<'_, State>, sandbox: Sandbox) -> Arc<Sandbox> {
        let sandbox = Arc::new(sandbox);
        state.sandbox = Some(sandbox.clone());
        if let Some(after) = state.row.options.asked.idle_stop {
            idle::watch(&self.state, &sandbox, after);
        }
        sandbox
    }

    fn described(&self, options: &SessionOptions) -> SandboxBuilder {
        options.asked.describe(self.blink.sandbox())
    }

    /// Whether there may be a machine to end.
    pub(super) fn may_run(&self, state: &State) -> bool {
        state.sandbox.is_some() || engines::is_alive(self.folder.path())
    }

    /// Ends the machine; says whether there was one.
    pub(super) async fn halt(&self, state: &mut MutexGuard<'_, State>) -> Result<bool> {
        if let Some(sandbox) = state.sandbox.take() {
            let was_running = sandbox.death().is_none();
            sandbox.settle().await;
            sandbox.end("the session was stopped").await;
            let engine = self.blink.engine(state.row.isolation).await?;
            engine.discard(self.folder.path()).await?;
            return Ok(was_running);
        }
        // One that an earlier process has left running, or has not ended.
        let runs = engines::is_alive(self.folder.path());
        if runs {
            let row = &state.row;
            let engine = self.blink.engine(row.isolation).await?;
            let (disk, _) = self.disk(&row.head).await?;
            if let Some(machine) = engine.adopt(self.folder.path(), &disk).await? {
                let defaults = Defaults::default();
                let sandbox =
                    Sandbox::assemble(self.folder.clone(), machine.into(), row.isolation, defaults);
                if let Ok(sandbox) = sandbox.reached(&[]).await {
                    sandbox.settle().await;
                    sandbox.end("the session was stopped").await;
                }
            }
            engine.discard(self.folder.path()).await?;
        } else if engines::is_recorded(self.folder.path()) {
            // It has ended with an earlier process, and its engine keeps the disk for it.
            let engine = self.blink.engine(state.row.isolation).await;
            let discarded = match engine {
                Ok(engine) => engine.discard(self.folder.path()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = discarded {
                tracing::debug!(session = self.id(), %error, "what is left of its machine goes later");
            }
        }
        Ok(runs)
    }

    /// The folders of a head, and of the layers beneath it.
    pub(super) async fn disk(&self, head: &str) -> Result<(PathBuf, Vec<PathBuf>)> {
        let chain = self.chain(head).await?;
        let layers = self.blink.layers();
        let mut folders: Vec<PathBuf> = chain.iter().map(|id| layers.folder(id)).collect();
        let disk = folders.pop().ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "the session has lost its disk; remove it",
            )
        })?;
        Ok((disk, folders))
    }
}

/// What a machine is known by, and must not share with one that it was forked from.
async fn identify(sandbox: &Sandbox, id: &str) {
    const MACHINE_ID: &str = "/etc/machine-id";
    const SEEDS: [&str; 2] = [
        "/var/lib/systemd/random-seed",
        "/var/lib/urandom/random-seed",
    ];
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("blink machine {id}"));
    let mut text: String = digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    text.push('\n');
    let Ok(files) = sandbox.files() else {
        return;
    };
    if files
        .read(MACHINE_ID)
        .await
        .is_ok_and(|known| known == text.as_bytes())
    {
        return;
    }
    if let Err(error) = files.write(MACHINE_ID, text).await {
        tracing::debug!(%error, "the image takes no machine-id");
    }
    for seed in SEEDS {
        // Most have none.
        let _ = files.remove(seed).await;
    }
}
