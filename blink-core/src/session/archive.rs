//! Disks of sessions as files for others.

use std::fmt;
use std::path::{Path, PathBuf};

use tokio::sync::MutexGuard;

use super::carried::Carried;
use super::change::Others;
use super::checkpoint::CheckpointOptions;
use super::layers::Making;
use super::registry::SessionRow;
use super::{Session, State};
use crate::blink::Blink;
use crate::engine::About;
use crate::error::{Error, ErrorKind, Result};
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
    /// The image beneath these, in the engine's form; `None` is the host's own programs.
    pub(super) rootfs: Option<PathBuf>,
    pub(super) making: Making,
}

impl Session {
    /// Writes its disk to one file, from which [`SessionBuilder::import`](super::SessionBuilder::import) makes a session, also
    /// on another machine. A session that runs goes on; the file holds its disk of one moment.
    ///
    /// With the disk go the name and digest of its image, its resources, environment, working directory, user and labels,
    /// and whether it is warm or stops when idle. What it sees and reaches of this host does not: its mounts, its network
    /// and its ports.
    ///
    /// Where the caller gives up, it goes on by itself: there is a whole file at its end, or none.
    ///
    /// # Errors
    /// `ResourceExhausted` for a full disk, with nothing left behind; `Corrupt` for a disk that is damaged.
    pub async fn export(&self, archive: impl AsRef<Path>) -> Result<()> {
        self.export_with(archive, ExportOptions::default()).await
    }

    /// As [`export`](Session::export), with options.
    ///
    /// # Errors
    /// As for [`export`](Session::export); `NotFound` if there is no such checkpoint.
    pub async fn export_with(
        &self,
        archive: impl AsRef<Path>,
        options: ExportOptions,
    ) -> Result<()> {
        let held = self.hold_still(options.checkpoint.as_deref()).await?;
        let engine = self.core.blink.engine(held.session.isolation).await?;
        let about = Carried::of(&held.session.options).to_json();
        let (blink, archive, tell) = (
            self.core.blink.clone(),
            archive.as_ref().to_owned(),
            options.tell(),
        );
        // In a task: where the caller gives up, what is read must stay until it was read.
        let exporting = tokio::spawn(async move {
            let about = About {
                session: &about,
                tell: &tell,
            };
            let (disk, beneath) = (&held.disk, &held.beneath);
            let exported = engine
                .export(disk, beneath, held.rootfs.as_deref(), &archive, about)
                .await;
            held.let_go(&blink).await;
            exported
        });
        exporting
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
    }

    /// The disk as it is now, or was at a checkpoint. The session goes on meanwhile.
    pub(super) async fn hold_still(&self, checkpoint: Option<&str>) -> Result<Held> {
        let held = self.hold_disk(checkpoint).await;
        if held.is_err() {
            // What was made for it.
            self.core.blink.collect_layers().await;
        }
        held
    }

    async fn hold_disk(&self, checkpoint: Option<&str>) -> Result<Held> {
        let (mut state, _changing) = self
            .changing("has been beginning an export of it", Others::Stay)
            .await?;
        let engine = self.core.blink.engine(state.row.isolation).await?;
        let rootfs = self.rootfs(&state.row, &*engine).await?;
        let making = self.core.blink.layers().making()?;
        let chain = match checkpoint {
            Some(checkpoint) => self.existing(&state.row, checkpoint).await?.1,
            None => self.keep_to_export(&mut state, &making).await?,
        };
        let layers = self.core.blink.layers();
        let mut folders: Vec<_> = chain.iter().map(|id| layers.folder(id)).collect();
        Ok(Held {
            session: state.row.clone(),
            disk: folders.pop().unwrap_or_default(),
            beneath: folders,
            rootfs,
            making,
        })
    }

    async fn keep_to_export(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: &Making,
    ) -> Result<Vec<String>> {
        let kept = self
            .keep(state, making, None, CheckpointOptions::default())
            .await?;
        // A head that is new is the session's from now on; a copy goes when it was exported.
        if let Some(head) = kept.head {
            let (session, id) = (state.row.clone(), head.id().to_owned());
            let to = id.clone();
            self.change(
                state,
                Some(making),
                move || head.make(),
                move |registry, made| {
                    let new = [kept.new, vec![made]].concat();
                    registry.set_session_head(&session, &new, &to)
                },
            )
            .await?;
            state.row.head = id;
        }
        Ok(kept.chain)
    }
}

impl Held {
    pub(super) async fn let_go(self, blink: &Blink) {
        drop(self);
        blink.collect_layers().await;
    }
}
