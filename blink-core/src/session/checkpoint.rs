//! Checkpoints of a session, and what is made of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::change::Others;
use super::head::{self, NewHead};
use super::registry::{CheckpointRow, LayerRow, SessionRow};
use super::{Session, State, name, registry};
use crate::blocking::on_thread;
use crate::engine::{Consistency, Engine, engines};
use crate::error::{Error, ErrorKind, Result, during};
use crate::json;
use serde::Serialize;
use tokio::sync::MutexGuard;

/// A named state of a session's disk, which never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Names it in its session.
    pub name: String,
    /// What it is worth.
    pub consistency: Consistency,
    /// What it occupies beyond the layers beneath it.
    pub size_bytes: u64,
    /// The checkpoint that the session's disk was at before.
    pub parent: Option<String>,
    /// When it was made, to the second.
    #[serde(serialize_with = "json::time")]
    pub created_at: SystemTime,
}

/// How a checkpoint is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointOptions {
    /// Refuses a copy that is worth less than `frozen`. `false` by default.
    pub require_frozen: bool,
}

impl CheckpointOptions {
    /// Refuses a copy that is worth less than `frozen`.
    pub fn require_frozen(mut self) -> CheckpointOptions {
        self.require_frozen = true;
        self
    }
}

/// Where a session comes from, and the tree of its checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Lineage {
    /// The session that it was forked from, as `session` or `session@checkpoint`.
    pub forked_from: Option<String>,
    /// The checkpoint that its disk was last at.
    pub current: Option<String>,
    /// All of them, in the order in which they were made; each tells its parent.
    pub checkpoints: Vec<Checkpoint>,
}

impl Lineage {
    pub(super) fn of(session: SessionRow, checkpoints: Vec<CheckpointRow>) -> Lineage {
        Lineage {
            forked_from: session.forked_from,
            current: session.checkpoint,
            checkpoints: checkpoints.into_iter().map(CheckpointRow::public).collect(),
        }
    }
}

impl CheckpointRow {
    fn public(self) -> Checkpoint {
        let consistency = [Consistency::Stopped, Consistency::Frozen]
            .into_iter()
            .find(|consistency| consistency.name() == self.consistency)
            .unwrap_or(Consistency::Crash);
        Checkpoint {
            name: self.name,
            consistency,
            size_bytes: self.size_bytes,
            parent: self.parent,
            created_at: self.created_at,
        }
    }
}

/// A state of a disk that others can begin with.
pub(super) struct Kept {
    /// Its layer, and all beneath it before it.
    pub(super) chain: Vec<String>,
    consistency: Consistency,
    /// Layers that are not written down yet.
    pub(super) new: Vec<LayerRow>,
    /// The session's own new head, where the old one is the state that is kept.
    pub(super) head: Option<NewHead>,
}

impl Session {
    /// Keeps the disk as it is now, under a name. A session that runs is held still for the moment that it takes, and the
    /// answer says what the copy is worth.
    ///
    /// # Errors
    /// `InvalidArgument`; `AlreadyExists`; `ResourceExhausted`; `SandboxDied`.
    pub async fn checkpoint(&self, name: impl Into<String>) -> Result<Checkpoint> {
        self.checkpoint_with(name, CheckpointOptions::default())
            .await
    }

    /// As [`checkpoint`](Session::checkpoint), with options.
    ///
    /// # Errors
    /// As for [`checkpoint`](Session::checkpoint); `Unsupported` or `Busy` if a disk that must be frozen cannot be.
    pub async fn checkpoint_with(
        &self,
        name: impl Into<String>,
        options: CheckpointOptions,
    ) -> Result<Checkpoint> {
        during("checkpoint_with", self, async {
            let name = name.into();
            name::check("checkpoint", &name)?;
            let (mut state, _changing) = self
                .changing("has been making a checkpoint of it", Others::Stay)
                .await?;
            let made = self.make_checkpoint(&mut state, name, options).await;
            if made.is_err() {
                // What was made for it.
                self.core.blink.collect_layers().await;
            }
            made
        })
        .await
    }

    async fn make_checkpoint(
        &self,
        state: &mut MutexGuard<'_, State>,
        name: String,
        options: CheckpointOptions,
    ) -> Result<Checkpoint> {
        let layers = self.core.blink.layers();
        let making = layers.making()?;
        let kept = self.keep(state, &making, Some(&name), options).await?;
        let layer = kept.chain.last().cloned().unwrap_or_default();
        let session = state.row.clone();
        let measured = layers.clone();
        let mut row = CheckpointRow {
            layer: layer.clone(),
            name,
            parent: session.checkpoint.clone(),
            consistency: kept.consistency.name().to_owned(),
            size_bytes: 0,
            created_at: SystemTime::now(),
        };
        let (new, heads) = (kept.new, kept.head);
        let (head, row) = self
            .change(
                state,
                Some(&making),
                move || {
                    row.size_bytes = measured.usage(&layer);
                    Ok((row, head::make(heads)?))
                },
                move |registry, (row, made)| {
                    let head = made.first().map(|head| head.id.clone());
                    let new = [new, made].concat();
                    registry.add_checkpoint(&session, &row, &new, head.as_deref())?;
                    Ok((head, row))
                },
            )
            .await?;
        drop(making);
        state.row.checkpoint = Some(row.name.clone());
        if let Some(head) = head {
            state.row.head = head;
        }
        Ok(row.public())
    }

    /// Its checkpoints, in the order in which they were made.
    ///
    /// # Errors
    /// `Corrupt` if the list of sessions is damaged.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        during("checkpoints", self, async {
            let id = self.id().to_owned();
            let rows = self
                .core
                .blink
                .with_registry(move |registry| registry.checkpoints(&id))
                .await?;
            Ok(rows.into_iter().map(CheckpointRow::public).collect())
        })
        .await
    }

    /// Where it comes from, and the tree of its checkpoints.
    ///
    /// # Errors
    /// As for [`checkpoints`](Session::checkpoints).
    pub async fn lineage(&self) -> Result<Lineage> {
        let mut state = self.core.state.lock().await;
        self.reread(&mut state).await?;
        let checkpoints = self.checkpoints().await?;
        Ok(Lineage {
            forked_from: state.row.forked_from.clone(),
            current: state.row.checkpoint.clone(),
            checkpoints,
        })
    }

    /// Puts the disk back to what it was at a checkpoint; what it holds now is lost. A session that runs is stopped for
    /// that, and started again.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while other processes use it, with all of them; otherwise as for [`start`](Session::start).
    pub async fn restore(&self, name: &str) -> Result<()> {
        during("restore", self, async {
            let (mut state, _changing) = self
                .changing("has been restoring it", Others::LeaveWhatRuns)
                .await?;
            let put_back = self.put_back(&mut state, name).await;
            if put_back.is_err() {
                // What was made for it.
                self.core.blink.collect_layers().await;
            }
            let was_running = put_back?;
            if was_running && let Err(error) = self.running(&mut state).await {
                // Its disk is what was asked for, and the next call starts it, or says the same.
                tracing::warn!(session = self.id(), %error, "the restored session did not start");
            }
            Ok(())
        })
        .await
    }

    /// Says whether its machine ran.
    async fn put_back(&self, state: &mut MutexGuard<'_, State>, name: &str) -> Result<bool> {
        let making = self.core.blink.layers().making()?;
        let (checkpoint, chain) = self.existing(&state.row, name).await?;
        let engine = self.core.blink.engine(state.row.isolation).await?;
        let base = self.base(&*engine, &making, chain, Vec::new()).await?;
        let head = self.new_head(&engine, &making, &base.chain)?;
        let id = head.id().to_owned();
        let (mut new, mut heads) = (base.new, vec![head]);
        if self.may_run(state) {
            // What can fail fails before the machine goes.
            let head = std::mem::take(&mut heads);
            new.extend(on_thread(move || head::make(head)).await?);
        }
        let was_running = self.halt(state).await?;
        let (session, name, head) = (state.row.clone(), checkpoint.name.clone(), id.clone());
        self.change_and_remove(
            state,
            Some(making),
            move || head::make(heads),
            move |registry, made| {
                new.extend(made);
                registry.restore(&session, &name, &new, &head)
            },
        )
        .await?;
        state.row.head = id;
        state.row.checkpoint = Some(checkpoint.name);
        Ok(was_running)
    }

    /// Forgets a checkpoint. What others need of it stays until they are gone.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove_checkpoint(&self, name: &str) -> Result<()> {
        during("remove_checkpoint", self, async {
            let (mut state, _changing) = self
                .changing("has been removing a checkpoint of it", Others::Stay)
                .await?;
            let (checkpoint, _) = self.existing(&state.row, name).await?;
            let (id, gone) = (state.row.id.clone(), name.to_owned());
            self.change_and_remove(
                &mut state,
                None,
                || Ok(()),
                move |registry, ()| registry.remove_checkpoint(&id, &gone),
            )
            .await?;
            if state.row.checkpoint.as_deref() == Some(name) {
                state.row.checkpoint = checkpoint.parent;
            }

            Ok(())
        })
        .await
    }

    /// Makes a session that begins with this one's disk as it is now, and goes its own way: it has its own name, machine-id
    /// and host name. It is not started.
    ///
    /// # Errors
    /// `InvalidArgument`; `AlreadyExists`; `ResourceExhausted`; `SandboxDied`.
    pub async fn fork(&self, name: impl Into<String>) -> Result<Session> {
        during("fork", self, async {
            let mut forks = self.fork_many([name.into()]).await?;
            forks.pop().ok_or_else(none_made)
        })
        .await
    }

    /// As [`fork`](Session::fork), from a checkpoint.
    ///
    /// # Errors
    /// As for [`fork`](Session::fork); `NotFound`.
    pub async fn fork_from(&self, checkpoint: &str, name: impl Into<String>) -> Result<Session> {
        during("fork_from", self, async {
            let (mut state, _changing) = self.changing("has been forking it", Others::Stay).await?;
            let (_, chain) = self.existing(&state.row, checkpoint).await?;
            let kept = Kept {
                chain,
                consistency: Consistency::Stopped,
                new: Vec::new(),
                head: None,
            };
            let origin = format!("{}@{checkpoint}", state.row.name);
            let making = self.core.blink.layers().making()?;
            let forks = self
                .make_forks(&mut state, &making, kept, &origin, vec![name.into()])
                .await;
            drop(making);
            if forks.is_err() {
                self.core.blink.collect_layers().await;
            }
            forks?.pop().ok_or_else(none_made)
        })
        .await
    }

    /// Makes several forks at once, of the same state: all of them, or none.
    ///
    /// # Errors
    /// As for [`fork`](Session::fork).
    pub async fn fork_many(
        &self,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Session>> {
        during("fork_many", self, async {
            let names: Vec<String> = names.into_iter().map(Into::into).collect();
            for name in &names {
                name::check("session", name)?;
            }
            if names.is_empty() {
                return Ok(Vec::new());
            }
            let (mut state, _changing) = self.changing("has been forking it", Others::Stay).await?;
            let forks = self.keep_and_fork(&mut state, names).await;
            if forks.is_err() {
                self.core.blink.collect_layers().await;
            }
            forks
        })
        .await
    }

    async fn keep_and_fork(
        &self,
        state: &mut MutexGuard<'_, State>,
        names: Vec<String>,
    ) -> Result<Vec<Session>> {
        let making = self.core.blink.layers().making()?;
        let kept = self
            .keep(state, &making, None, CheckpointOptions::default())
            .await?;
        let head = kept.head.as_ref().map(|head| head.id().to_owned());
        let origin = state.row.name.clone();
        let forks = self
            .make_forks(state, &making, kept, &origin, names)
            .await?;
        if let Some(head) = head {
            state.row.head = head;
        }
        Ok(forks)
    }

    /// Afterwards the machine runs and answers, or it has ended: one that nobody reaches and that writes on would change
    /// what was kept.
    async fn settle_who_writes(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        // Asked, as its end may not have been heard of yet.
        if let Some(sandbox) = &state.sandbox
            && sandbox.ping().await.is_ok()
        {
            return Ok(());
        }
        let runs = engines::is_alive(self.core.folder.path());
        // Another process has started it, or an earlier one has left it so.
        if runs && self.is_linked(state).await? {
            return Ok(());
        }
        if runs || state.sandbox.is_some() {
            self.halt(state).await?;
        }
        Ok(())
    }

    /// Makes a layer of the disk as it is now, for a checkpoint that is not there yet, if it is for one.
    pub(super) async fn keep(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: &super::layers::Making,
        checkpoint: Option<&str>,
        options: CheckpointOptions,
    ) -> Result<Kept> {
        let layers = self.core.blink.layers();
        let engine = self.core.blink.engine(state.row.isolation).await?;
        let mut chain = self.chain_for(&state.row, checkpoint).await?;
        self.settle_who_writes(state).await?;
        let Some(sandbox) = state.alive() else {
            self.settle(state, &engine, &chain).await?;
            let base = self
                .base(&*engine, making, chain.clone(), Vec::new())
                .await?;
            return Ok(Kept {
                chain,
                consistency: Consistency::Stopped,
                new: base.new,
                head: Some(self.new_head(&engine, making, &base.chain)?),
            });
        };
        let new = layers.new_layer(making)?;
        let consistency = sandbox
            .snapshot(&layers.folder(&new), options.require_frozen)
            .await?;
        chain.pop();
        let parent = chain.last().cloned();
        chain.push(new.clone());
        self.settle(state, &engine, &chain).await?;
        Ok(Kept {
            chain,
            consistency,
            new: vec![LayerRow { id: new, parent }],
            head: None,
        })
    }

    /// Makes the uppermost of a chain of disks ready to become a layer.
    async fn settle(
        &self,
        state: &State,
        engine: &Arc<dyn Engine>,
        chain: &[String],
    ) -> Result<()> {
        let layers = self.core.blink.layers();
        let mut folders: Vec<_> = chain.iter().map(|id| layers.folder(id)).collect();
        let Some(disk) = folders.pop() else {
            return Ok(());
        };
        // A look at one folder, most often an empty one: another thread would take longer.
        if engine.is_settled(&disk)? {
            return Ok(());
        }
        let rootfs = self.rootfs(&state.row, &**engine).await?;
        engine.settle(&disk, &folders, rootfs.as_deref()).await
    }

    /// The image that it was made of, in the engine's form; `None` for the host's own programs.
    pub(super) async fn rootfs(
        &self,
        session: &SessionRow,
        engine: &dyn Engine,
    ) -> Result<Option<PathBuf>> {
        let (blink, options) = (&self.core.blink, &session.options);
        let (name, digest) = (options.spec.image(), options.digest.as_deref());
        let Some(image) = blink.stored_image(name, digest).await? else {
            return Ok(None);
        };
        let (form, tell_nobody) = (engine.root_form(), Arc::new(|_| {}));
        let rootfs = blink.rootfs(&image, form, &self.core.folder, tell_nobody);
        rootfs.await.map(Some)
    }

    /// Its head and all beneath it, if it has no such checkpoint yet.
    async fn chain_for(
        &self,
        session: &SessionRow,
        checkpoint: Option<&str>,
    ) -> Result<Vec<String>> {
        let (session, checkpoint) = (session.clone(), checkpoint.map(str::to_owned));
        self.core
            .blink
            .look_up(move |registry| {
                if let Some(name) = checkpoint
                    && registry.checkpoint(&session.id, &name)?.is_some()
                {
                    return Err(registry::checkpoint_taken(&session.name, &name));
                }
                registry.chain(&session.head)
            })
            .await
    }

    async fn make_forks(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: &super::layers::Making,
        kept: Kept,
        origin: &str,
        names: Vec<String>,
    ) -> Result<Vec<Session>> {
        let parent = state.row.clone();
        let engine = self.core.blink.engine(parent.isolation).await?;
        let base = self.base(&*engine, making, kept.chain, kept.new).await?;
        let (mut rows, mut heads, mut folders) = (Vec::new(), Vec::new(), Vec::new());
        let made = async {
            for name in &names {
                name::check("session", name)?;
                folders.push(self.core.blink.new_session_folder()?);
            }
            let image = parent.options.spec.image();
            let digest = parent.options.digest.as_deref();
            self.core
                .blink
                .claim_stored_image(image, digest, &folders)
                .await?;
            for (name, folder) in names.into_iter().zip(&folders) {
                let head = self.new_head(&engine, making, &base.chain)?;
                rows.push(SessionRow {
                    id: folder.id().to_owned(),
                    name,
                    head: head.id().to_owned(),
                    checkpoint: None,
                    forked_from: Some(origin.to_owned()),
                    created_at: SystemTime::now(),
                    ..parent.clone()
                });
                heads.push(head);
            }
            let own = kept.head.as_ref().map(|head| head.id().to_owned());
            heads.extend(kept.head);
            let (written, id) = (rows.clone(), parent.id.clone());
            self.change(
                state,
                Some(making),
                move || head::make(heads),
                move |registry, made| {
                    let head = own.as_deref().map(|head| (id.as_str(), head));
                    registry.add_sessions(&written, &[base.new, made].concat(), head)
                },
            )
            .await
        };
        if let Err(error) = made.await {
            for folder in folders {
                folder.remove_or_later();
            }
            return Err(error);
        }
        let forks = folders.into_iter().zip(rows);
        forks
            .map(|(folder, row)| Session::made(&self.core.blink, folder, row))
            .collect()
    }

    /// A checkpoint, with its layer and all beneath it.
    pub(super) async fn existing(
        &self,
        session: &SessionRow,
        name: &str,
    ) -> Result<(CheckpointRow, Vec<String>)> {
        let (id, wanted) = (session.id.clone(), name.to_owned());
        let found = self
            .core
            .blink
            .look_up(move |registry| {
                let found = registry.checkpoint(&id, &wanted)?;
                found
                    .map(|row| {
                        let chain = registry.chain(&row.layer)?;
                        Ok((row, chain))
                    })
                    .transpose()
            })
            .await?;
        if let Some(found) = found {
            return Ok(found);
        }
        let all = self.checkpoints().await?;
        let all: Vec<_> = all.iter().map(|known| known.name.as_str()).collect();
        let others = match all.is_empty() {
            true => "it has none".to_owned(),
            false => format!("it has: {}", all.join(", ")),
        };
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "the session {:?} has no checkpoint {name:?}; {others}",
                session.name
            ),
        ))
    }
}

fn none_made() -> Error {
    Error::new(ErrorKind::Internal, "no fork was made")
}
