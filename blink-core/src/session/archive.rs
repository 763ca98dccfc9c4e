//! Disks of sessions as files for others.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Session;
use super::carried::Carried;
use super::checkpoint::CheckpointOptions;
use super::layers::Making;
use super::registry::SessionRow;
use crate::error::Result;
use crate::transfer::{Tell, TransferProgress, tell_nobody};

/// What of a session is exported, and who is told how far it is.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ExportOptions {
    /// The checkpoint whose disk it is; the session's disk as it is now by default.
    pub checkpoint: Option<String>,
    progress: Option<Tell>,
}

impl fmt::Debug for ExportOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportOptions")
            .field("checkpoint", &self.checkpoint)
            .finish_non_exhaustive()
    }
}

impl ExportOptions {
    /// Exports the disk as it was at a checkpoint.
    pub fn checkpoint(mut self, name: impl Into<String>) -> ExportOptions {
        self.checkpoint = Some(name.into());
        self
    }

    /// Calls `progress` as it goes on, after every few MiB: with what was read of the disk. How much it will be is not
    /// known before.
    pub fn progress(
        mut self,
        progress: impl Fn(TransferProgress) + Send + Sync + 'static,
    ) -> ExportOptions {
        self.progress = Some(std::sync::Arc::new(progress));
        self
    }

    pub(super) fn tell(&self) -> Tell {
        self.progress.clone().unwrap_or_else(tell_nobody)
    }
}

/// A state of a disk that nobody writes to while this lives.
pub(super) struct Held {
    pub(super) session: SessionRow,
    pub(super) disk: PathBuf,
    /// The layers beneath it, the lowest first.
    pub(super) beneath: Vec<PathBuf>,
    pub(super) _making: Making,
}

impl Session {
    /// Writes its disk to one file, from which [`SessionBuilder::import`](super::SessionBuilder::import) makes a session, also
    /// on another machine. A session that runs goes on; the file holds its disk of one moment.
    ///
    /// With the disk go the name and digest of its image, its resources, environment, working directory, user and labels,
    /// and whether it is warm or stops when idle. What it sees and reaches of this host does not: its mounts, its network
    /// and its ports.
    ///
    /// # Errors
    /// `ResourceExhausted` for a full disk, with nothing left behind.
    pub async fn export(&self, archive: impl AsRef<Path>) -> Result<()> {
        self.export_with(archive, ExportOptions::default()).await
    }

    /// As [`export`](Session::export), with options.
    ///
    /// # Errors
    /// As for [`export`](Session::export); `NotFound` where there is no such checkpoint.
    pub async fn export_with(
        &self,
        archive: impl AsRef<Path>,
        options: ExportOptions,
    ) -> Result<()> {
        let held = self.hold_still(options.checkpoint.as_deref()).await?;
        let engine = self.blink.engine(held.session.isolation).await?;
        let about = Carried::of(&held.session.options).to_json();
        let (archive, tell) = (archive.as_ref(), options.tell());
        let exported = engine
            .export(&held.disk, &held.beneath, archive, &about, &tell)
            .await;
        self.let_go(held).await;
        exported
    }

    /// The disk as it is now, or was at a checkpoint. The session goes on meanwhile.
    pub(super) async fn hold_still(&self, checkpoint: Option<&str>) -> Result<Held> {
        let held = self.hold_disk(checkpoint).await;
        if held.is_err() {
            // What was made for it.
            self.blink.collect_layers().await;
        }
        held
    }

    async fn hold_disk(&self, checkpoint: Option<&str>) -> Result<Held> {
        let mut state = self.there().await?;
        let layers = self.blink.layers();
        let making = layers.making()?;
        if let Some(checkpoint) = checkpoint {
            let layer = self.existing(&state.row, checkpoint).await?.layer;
            let (disk, beneath) = self.disk(&layer).await?;
            return Ok(Held {
                session: state.row.clone(),
                disk,
                beneath,
                _making: making,
            });
        }
        let kept = self
            .keep(&mut state, &making, CheckpointOptions::default())
            .await?;
        // A head that is new is the session's from now on; a copy goes when it was exported.
        if let Some(head) = kept.head.clone() {
            let (session, new) = (state.row.clone(), kept.new.clone());
            let to = head.clone();
            self.change(&mut state, move |registry| {
                registry.set_session_head(&session, &new, &to)
            })
            .await?;
            state.row.head = head;
        }
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
        Ok(Held {
            session: state.row.clone(),
            disk: layers.folder(&kept.layer),
            beneath,
            _making: making,
        })
    }

    pub(super) async fn let_go(&self, held: Held) {
        drop(held);
        self.blink.collect_layers().await;
    }
}
