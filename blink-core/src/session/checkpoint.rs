//! Checkpoints of a session, and what is made of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::core::{Core, missing};
use super::handle::Session;
use super::list::new_session_folder;
use super::name;
use super::turn::{Others, Turn};
use crate::blink::Blink;
use crate::blocking::on_thread;
use crate::disk::{CheckpointRow, Draft, SessionRow, checkpoint_taken};
use crate::engine::{Consistency, Engine, engines};
use crate::error::{Error, ErrorKind, Result, during};
use serde::Serialize;

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
    #[serde(serialize_with = "blink_host::json::time")]
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
    /// The session's own new head, where the old one is the state that is kept.
    pub(super) head: Option<String>,
}

impl Blink {
    /// Where a session comes from, and the tree of its checkpoints, whoever has it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn session_lineage(&self, name: &str) -> Result<Lineage> {
        during("session_lineage", &*format!("session {name:?}"), async {
            let wanted = name.to_owned();
            let found = self
                .disks()
                .with_registry(move |registry| {
                    let Some(row) = registry.session(&wanted)? else {
                        return Ok(None);
                    };
                    let checkpoints = registry.checkpoints(&row.id)?;
                    Ok(Some(Lineage::of(row, checkpoints)))
                })
                .await?;
            found.ok_or_else(|| missing(name))
        })
        .await
    }
}

impl Session {
    /// Keeps the disk as it is now, under a name. A session that runs is held still for the moment that it takes, and the
    /// answer says what the copy is worth.
    ///
    /// # Errors
    /// `InvalidArgument`; `AlreadyExists`; `ResourceExhausted`; `SandboxDied`.
    pub async fn checkpoint(&self, name: impl Into<String>) -> Result<Checkpoint> {
        during("checkpoint", self, async {
            self.checkpoint_with(name, CheckpointOptions::default())
                .await
        })
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
            let what = "has been making a checkpoint of it";
            let mut turn = self.turn(what, Others::Stay).await?;
            let mut draft = turn.draft().await?;
            let kept = turn.keep(&mut draft, Some(&name), options).await?;
            let layer = kept.chain.last().cloned().unwrap_or_default();
            let (session, disks) = (turn.row().clone(), self.core.disks().clone());
            let mut row = CheckpointRow {
                layer,
                name,
                parent: session.checkpoint.clone(),
                consistency: kept.consistency.name().to_owned(),
                size_bytes: 0,
                created_at: SystemTime::now(),
            };
            row.size_bytes = {
                let layer = row.layer.clone();
                on_thread(move || Ok(disks.usage(&layer))).await?
            };
            let written = row.clone();
            turn.commit(draft, move |registry, made| {
                registry.add_checkpoint(&session, &written, made, kept.head.as_deref())
            })
            .await?;
            Ok(row.public())
        })
        .await
    }

    /// Its checkpoints, in the order in which they were made.
    ///
    /// # Errors
    /// `Corrupt` if the list of sessions is damaged.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        during("checkpoints", self, async { self.core.checkpoints().await }).await
    }

    /// Where it comes from, and the tree of its checkpoints.
    ///
    /// # Errors
    /// As for [`checkpoints`](Session::checkpoints).
    pub async fn lineage(&self) -> Result<Lineage> {
        during("lineage", self, async {
            let state = self.core.reread().await?;
            let checkpoints = self.checkpoints().await?;
            Ok(Lineage {
                forked_from: state.row.forked_from.clone(),
                current: state.row.checkpoint.clone(),
                checkpoints,
            })
        })
        .await
    }

    /// Puts the disk back to what it was at a checkpoint; what it holds now is lost. A session that runs is stopped for
    /// that, and started again.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while other processes use it, with all of them; otherwise as for [`start`](Session::start).
    pub async fn restore(&self, name: &str) -> Result<()> {
        during("restore", self, async {
            let what = "has been restoring it";
            let mut turn = self.turn(what, Others::LeaveWhatRuns).await?;
            let was_running = turn.put_back(name).await?;
            if was_running && let Err(error) = turn.running().await {
                // Its disk is what was asked for, and the next call starts it, or says the same.
                tracing::warn!(session = self.id(), %error, "the restored session did not start");
            }
            Ok(())
        })
        .await
    }

    /// Forgets a checkpoint. What others need of it stays until they are gone.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove_checkpoint(&self, name: &str) -> Result<()> {
        during("remove_checkpoint", self, async {
            let what = "has been removing a checkpoint of it";
            let mut turn = self.turn(what, Others::Stay).await?;
            turn.core.existing(turn.row(), name).await?;
            let (id, gone) = (turn.row().id.clone(), name.to_owned());
            turn.write(move |registry| registry.remove_checkpoint(&id, &gone))
                .await
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
            let mut turn = self.turn("has been forking it", Others::Stay).await?;
            let (_, chain) = turn.core.existing(turn.row(), checkpoint).await?;
            let kept = Kept {
                chain,
                consistency: Consistency::Stopped,
                head: None,
            };
            let origin = format!("{}@{checkpoint}", turn.row().name);
            let draft = turn.draft().await?;
            let mut forks = turn
                .make_forks(draft, kept, &origin, vec![name.into()])
                .await?;
            forks.pop().ok_or_else(none_made)
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
            let mut turn = self.turn("has been forking it", Others::Stay).await?;
            let mut draft = turn.draft().await?;
            let kept = turn
                .keep(&mut draft, None, CheckpointOptions::default())
                .await?;
            let origin = turn.row().name.clone();
            turn.make_forks(draft, kept, &origin, names).await
        })
        .await
    }
}

impl Turn {
    /// Says whether its sandbox ran.
    async fn put_back(&mut self, name: &str) -> Result<bool> {
        let (checkpoint, chain) = self.core.existing(self.row(), name).await?;
        let mut draft = self.draft().await?;
        let base = draft.shortened(chain).await?;
        let head = draft.head(&base)?;
        if self.may_run() {
            // What can fail fails before the sandbox goes.
            draft = draft.make_heads().await?;
        }
        let was_running = self.halt().await?;
        let session = self.row().clone();
        self.commit(draft, move |registry, made| {
            registry.restore(&session, &checkpoint.name, made, &head)
        })
        .await?;
        Ok(was_running)
    }

    /// Afterwards the sandbox runs and answers, or it has ended: one that nobody reaches and that writes on would change
    /// what was kept.
    async fn settle_who_writes(&mut self) -> Result<()> {
        // Asked, as its end may not have been heard of yet.
        if let Some(sandbox) = &self.state.sandbox
            && sandbox.ping().await.is_ok()
        {
            return Ok(());
        }
        let runs = engines::is_alive(self.core.folder.path());
        // Another process has started it, or an earlier one has left it so.
        if runs && self.is_linked().await? {
            return Ok(());
        }
        if runs || self.state.sandbox.is_some() {
            self.halt().await?;
        }
        Ok(())
    }

    /// Keeps the disk as it is now, for a checkpoint that is not there yet, if it is for one.
    pub(super) async fn keep(
        &mut self,
        draft: &mut Draft,
        checkpoint: Option<&str>,
        options: CheckpointOptions,
    ) -> Result<Kept> {
        let mut chain = self.chain_for(checkpoint).await?;
        self.settle_who_writes().await?;
        let Some(sandbox) = self.state.alive() else {
            self.settle(&chain).await?;
            let base = draft.shortened(chain.clone()).await?;
            return Ok(Kept {
                chain,
                consistency: Consistency::Stopped,
                head: Some(draft.head(&base)?),
            });
        };
        chain.pop();
        let (layer, folder) = draft.layer(chain.last().map(String::as_str))?;
        let consistency = sandbox.snapshot(&folder, options.require_frozen).await?;
        chain.push(layer);
        self.settle(&chain).await?;
        Ok(Kept {
            chain,
            consistency,
            head: None,
        })
    }

    /// Makes the uppermost of a chain of disks ready to become a layer.
    async fn settle(&self, chain: &[String]) -> Result<()> {
        let engine = self.engine().await?;
        let mut folders = self.core.disks().folders(chain);
        let Some(disk) = folders.pop() else {
            return Ok(());
        };
        // A look at one folder, most often an empty one: another thread would take longer.
        if engine.is_settled(&disk)? {
            return Ok(());
        }
        let rootfs = self.rootfs(&*engine).await?;
        engine.settle(&disk, &folders, rootfs.as_deref()).await
    }

    /// The image that it was made of, in the engine's form; `None` for the host's own programs.
    pub(super) async fn rootfs(&self, engine: &dyn Engine) -> Result<Option<PathBuf>> {
        let (blink, options) = (&self.core.blink, &self.row().options);
        let (name, digest) = (options.spec.image(), options.digest.as_deref());
        let Some(image) = blink.stored_image(name, digest).await? else {
            return Ok(None);
        };
        let (form, tell_nobody) = (engine.root_form(), Arc::new(|_| {}));
        let rootfs = blink.rootfs(&image, form, &self.core.folder, tell_nobody);
        rootfs.await.map(Some)
    }

    /// Its head and all beneath it, if it has no such checkpoint yet.
    async fn chain_for(&self, checkpoint: Option<&str>) -> Result<Vec<String>> {
        let (session, checkpoint) = (self.row().clone(), checkpoint.map(str::to_owned));
        self.core
            .disks()
            .look_up(move |registry| {
                if let Some(name) = checkpoint
                    && registry.checkpoint(&session.id, &name)?.is_some()
                {
                    return Err(checkpoint_taken(&session.name, &name));
                }
                registry.chain(&session.head)
            })
            .await
    }

    async fn make_forks(
        &mut self,
        mut draft: Draft,
        kept: Kept,
        origin: &str,
        names: Vec<String>,
    ) -> Result<Vec<Session>> {
        for name in &names {
            name::check("session", name)?;
        }
        let (blink, parent) = (self.core.blink.clone(), self.row().clone());
        let base = draft.shortened(kept.chain).await?;
        let (mut rows, mut folders) = (Vec::new(), Vec::new());
        let made = async {
            for _ in &names {
                folders.push(new_session_folder(&blink)?);
            }
            let image = parent.options.spec.image();
            let digest = parent.options.digest.as_deref();
            blink.claim_stored_image(image, digest, &folders).await?;
            for (name, folder) in names.into_iter().zip(&folders) {
                rows.push(SessionRow {
                    id: folder.id().to_owned(),
                    name,
                    head: draft.head(&base)?,
                    checkpoint: None,
                    forked_from: Some(origin.to_owned()),
                    created_at: SystemTime::now(),
                    ..parent.clone()
                });
            }
            let (written, id) = (rows.clone(), parent.id.clone());
            self.commit(draft, move |registry, made| {
                let head = kept.head.as_deref().map(|head| (id.as_str(), head));
                registry.add_sessions(&written, made, head)
            })
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
            .map(|(folder, row)| Session::made(&blink, folder, row))
            .collect()
    }
}

impl Core {
    async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let id = self.folder.id().to_owned();
        let rows = self
            .disks()
            .with_registry(move |registry| registry.checkpoints(&id))
            .await?;
        Ok(rows.into_iter().map(CheckpointRow::public).collect())
    }

    /// A checkpoint, with its layer and all beneath it.
    pub(super) async fn existing(
        &self,
        session: &SessionRow,
        name: &str,
    ) -> Result<(CheckpointRow, Vec<String>)> {
        let (id, wanted) = (session.id.clone(), name.to_owned());
        let found = self
            .disks()
            .look_up(move |registry| {
                let Some(row) = registry.checkpoint(&id, &wanted)? else {
                    return Ok(None);
                };
                let chain = registry.chain(&row.layer)?;
                Ok(Some((row, chain)))
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
