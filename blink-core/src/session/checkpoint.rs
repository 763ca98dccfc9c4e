//! Checkpoints of a session, and what is made of them.

use std::path::Path;
use std::time::SystemTime;

use super::layers::size_of;
use super::registry::{CheckpointRow, LayerRow, SessionRow};
use super::{Session, State, name};
use crate::engine::Consistency;
use crate::error::{Error, ErrorKind, Result};
use crate::home::Lifetime;
use tokio::sync::MutexGuard;

/// A named state of a session's disk, which never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
struct Kept {
    layer: String,
    consistency: Consistency,
    /// Layers that are not written down yet.
    new: Vec<LayerRow>,
    /// The session's own new head, where the old one is the state that is kept.
    head: Option<String>,
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
    /// As for [`checkpoint`](Session::checkpoint); `Unsupported` or `Busy` where a disk that must be frozen cannot be.
    pub async fn checkpoint_with(
        &self,
        name: impl Into<String>,
        options: CheckpointOptions,
    ) -> Result<Checkpoint> {
        let name = name.into();
        name::check("checkpoint", &name)?;
        let mut state = self.there().await?;
        if self.find(&state.row, &name).await?.is_some() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "the session {:?} has a checkpoint {name:?} already",
                    state.row.name
                ),
            ));
        }
        let layers = self.blink.layers();
        let making = layers.making()?;
        let kept = self.keep(&mut state, &making, options).await?;
        let row = CheckpointRow {
            size_bytes: size_of(&layers.folder(&kept.layer)),
            layer: kept.layer,
            name,
            parent: state.row.checkpoint.clone(),
            consistency: kept.consistency.name().to_owned(),
            created_at: SystemTime::now(),
        };
        let (session, written, head) = (state.row.clone(), row.clone(), kept.head.clone());
        self.blink
            .with_registry(move |registry| {
                registry.add_checkpoint(&session, &written, &kept.new, head.as_deref())
            })
            .await?;
        drop(making);
        state.row.checkpoint = Some(row.name.clone());
        if let Some(head) = kept.head {
            state.row.head = head;
        }
        Ok(row.public())
    }

    /// Its checkpoints, in the order in which they were made.
    ///
    /// # Errors
    /// `Corrupt` where the list of sessions is damaged.
    pub async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let id = self.id().to_owned();
        let rows = self
            .blink
            .with_registry(move |registry| registry.checkpoints(&id))
            .await?;
        Ok(rows.into_iter().map(CheckpointRow::public).collect())
    }

    /// Where it comes from, and the tree of its checkpoints.
    ///
    /// # Errors
    /// As for [`checkpoints`](Session::checkpoints).
    pub async fn lineage(&self) -> Result<Lineage> {
        let checkpoints = self.checkpoints().await?;
        let state = self.state.lock().await;
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
    /// `NotFound`; otherwise as for [`start`](Session::start).
    pub async fn restore(&self, name: &str) -> Result<()> {
        let mut state = self.there().await?;
        let checkpoint = self.existing(&state.row, name).await?;
        let was_running = self.halt(&mut state).await?;
        let layers = self.blink.layers();
        let making = layers.making()?;
        let engine = self.blink.engine(state.row.isolation).await?;
        let head = LayerRow {
            id: layers.new_layer(&making)?,
            parent: Some(checkpoint.layer.clone()),
        };
        engine
            .make_disk(&layers.folder(&head.id), &layers.folder(&checkpoint.layer))
            .await?;
        let (session, name, new) = (state.row.clone(), name.to_owned(), head.clone());
        self.blink
            .with_registry(move |registry| registry.restore(&session, &name, &new))
            .await?;
        drop(making);
        state.row.head = head.id;
        state.row.checkpoint = Some(checkpoint.name);
        self.blink.collect_layers().await?;
        match was_running {
            true => self.running(&mut state).await.map(drop),
            false => Ok(()),
        }
    }

    /// Forgets a checkpoint. What others need of it stays until they are gone.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove_checkpoint(&self, name: &str) -> Result<()> {
        let mut state = self.there().await?;
        let checkpoint = self.existing(&state.row, name).await?;
        let (id, gone) = (state.row.id.clone(), name.to_owned());
        self.blink
            .with_registry(move |registry| registry.remove_checkpoint(&id, &gone))
            .await?;
        if state.row.checkpoint.as_deref() == Some(name) {
            state.row.checkpoint = checkpoint.parent;
        }
        self.blink.collect_layers().await
    }

    /// Makes a session that begins with this one's disk as it is now, and goes its own way: it has its own name, machine-id
    /// and host name. It is not started.
    ///
    /// # Errors
    /// `InvalidArgument`; `AlreadyExists`; `ResourceExhausted`; `SandboxDied`.
    pub async fn fork(&self, name: impl Into<String>) -> Result<Session> {
        let mut forks = self.fork_many([name.into()]).await?;
        forks.pop().ok_or_else(none_made)
    }

    /// As [`fork`](Session::fork), from a checkpoint.
    ///
    /// # Errors
    /// As for [`fork`](Session::fork); `NotFound`.
    pub async fn fork_from(&self, checkpoint: &str, name: impl Into<String>) -> Result<Session> {
        let state = self.there().await?;
        let kept = self.existing(&state.row, checkpoint).await?;
        let kept = Kept {
            layer: kept.layer,
            consistency: Consistency::Stopped,
            new: Vec::new(),
            head: None,
        };
        let making = self.blink.layers().making()?;
        let origin = format!("{}@{checkpoint}", state.row.name);
        let names = vec![name.into()];
        let mut forks = self
            .make_forks(&state.row, &making, kept, &origin, names)
            .await?;
        forks.pop().ok_or_else(none_made)
    }

    /// Makes several forks at once, of the same state: all of them, or none.
    ///
    /// # Errors
    /// As for [`fork`](Session::fork).
    pub async fn fork_many(
        &self,
        names: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Session>> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        for name in &names {
            name::check("session", name)?;
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.there().await?;
        let making = self.blink.layers().making()?;
        let kept = self
            .keep(&mut state, &making, CheckpointOptions::default())
            .await?;
        let head = kept.head.clone();
        let origin = state.row.name.clone();
        let forks = self
            .make_forks(&state.row, &making, kept, &origin, names)
            .await?;
        if let Some(head) = head {
            state.row.head = head;
        }
        Ok(forks)
    }

    /// Writes its disk to one file, from which [`SessionBuilder::import`](super::SessionBuilder::import) makes a session, also
    /// on another machine. A session that runs goes on; the file holds its disk of one moment.
    ///
    /// # Errors
    /// `ResourceExhausted` for a full disk, with nothing left behind.
    pub async fn export(&self, archive: impl AsRef<Path>) -> Result<()> {
        let archive = archive.as_ref();
        let mut state = self.there().await?;
        let layers = self.blink.layers();
        let making = layers.making()?;
        let kept = self
            .keep(&mut state, &making, CheckpointOptions::default())
            .await?;
        // A head that is new is the session's from now on; a copy goes when it was exported.
        if let Some(head) = kept.head.clone() {
            let (session, new) = (state.row.clone(), kept.new.clone());
            let to = head.clone();
            self.blink
                .with_registry(move |registry| registry.set_session_head(&session, &new, &to))
                .await?;
            state.row.head = head;
        }
        let engine = self.blink.engine(state.row.isolation).await?;
        let parent = match kept.new.iter().find(|layer| layer.id == kept.layer) {
            Some(copy) => copy.parent.clone(),
            None => self.parent_of(&kept.layer).await?,
        };
        let beneath = match parent {
            Some(parent) => {
                let (top, mut below) = self.disk(&parent).await?;
                below.push(top);
                below
            }
            None => Vec::new(),
        };
        let exported = engine
            .export(&layers.folder(&kept.layer), &beneath, archive)
            .await;
        drop(making);
        self.blink.collect_layers().await?;
        exported
    }

    async fn parent_of(&self, layer: &str) -> Result<Option<String>> {
        let id = layer.to_owned();
        let row = self
            .blink
            .with_registry(move |registry| registry.layer(&id))
            .await?;
        Ok(row.and_then(|row| row.parent))
    }

    /// Afterwards the machine runs and answers, or it has ended: one that nobody reaches and that writes on would change
    /// what was kept.
    async fn settle_who_writes(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        let runs = crate::engine::engines::is_alive(self.folder.path());
        match &state.sandbox {
            Some(sandbox) if sandbox.death().is_none() => Ok(()),
            // An earlier process has left it so.
            None if runs && state.row.options.asked.warm => self.running(state).await.map(drop),
            None if !runs => Ok(()),
            _ => self.halt(state).await.map(drop),
        }
    }

    /// Makes a layer of the disk as it is now.
    async fn keep(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: &super::layers::Making,
        options: CheckpointOptions,
    ) -> Result<Kept> {
        let layers = self.blink.layers();
        let engine = self.blink.engine(state.row.isolation).await?;
        self.settle_who_writes(state).await?;
        let new = layers.new_layer(making)?;
        let head = state.row.head.clone();
        let running = state
            .sandbox
            .as_ref()
            .filter(|sandbox| sandbox.death().is_none());
        let Some(sandbox) = running else {
            engine
                .make_disk(&layers.folder(&new), &layers.folder(&head))
                .await?;
            return Ok(Kept {
                layer: head.clone(),
                consistency: Consistency::Stopped,
                new: vec![LayerRow {
                    id: new.clone(),
                    parent: Some(head),
                }],
                head: Some(new),
            });
        };
        let consistency = sandbox
            .snapshot(&layers.folder(&new), options.require_frozen)
            .await?;
        let parent = self.parent_of(&head).await?;
        Ok(Kept {
            layer: new.clone(),
            consistency,
            new: vec![LayerRow { id: new, parent }],
            head: None,
        })
    }

    async fn make_forks(
        &self,
        parent: &SessionRow,
        making: &super::layers::Making,
        kept: Kept,
        origin: &str,
        names: Vec<String>,
    ) -> Result<Vec<Session>> {
        let layers = self.blink.layers();
        let engine = self.blink.engine(parent.isolation).await?;
        let image = self
            .blink
            .stored_image(parent.options.digest.as_deref())
            .await?;
        let mut new = kept.new;
        let (mut rows, mut folders) = (Vec::new(), Vec::new());
        let made = async {
            for name in names {
                name::check("session", &name)?;
                let folder = self.blink.home().new_sandbox(Lifetime::Session)?;
                folders.push(folder.clone());
                self.blink.claim_image(image.as_ref(), &folder).await?;
                let head = layers.new_layer(making)?;
                engine
                    .make_disk(&layers.folder(&head), &layers.folder(&kept.layer))
                    .await?;
                new.push(LayerRow {
                    id: head.clone(),
                    parent: Some(kept.layer.clone()),
                });
                rows.push(SessionRow {
                    id: folder.id().to_owned(),
                    name,
                    head,
                    checkpoint: None,
                    forked_from: Some(origin.to_owned()),
                    created_at: SystemTime::now(),
                    ..parent.clone()
                });
            }
            let (written, head, id) = (rows.clone(), kept.head.clone(), parent.id.clone());
            self.blink
                .with_registry(move |registry| {
                    let head = head.as_deref().map(|head| (id.as_str(), head));
                    registry.add_sessions(&written, &new, head)
                })
                .await
        };
        if let Err(error) = made.await {
            for folder in folders {
                folder.remove()?;
            }
            return Err(error);
        }
        let forks = folders.into_iter().zip(rows);
        Ok(forks
            .map(|(folder, row)| Session::held(&self.blink, folder, row, true))
            .collect())
    }

    async fn find(&self, session: &SessionRow, name: &str) -> Result<Option<CheckpointRow>> {
        let (id, name) = (session.id.clone(), name.to_owned());
        self.blink
            .with_registry(move |registry| registry.checkpoint(&id, &name))
            .await
    }

    async fn existing(&self, session: &SessionRow, name: &str) -> Result<CheckpointRow> {
        self.find(session, name).await?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "the session {:?} has no checkpoint {name:?}; `checkpoints` lists those that it has",
                    session.name
                ),
            )
        })
    }
}

fn none_made() -> Error {
    Error::new(ErrorKind::Internal, "no fork was made")
}
