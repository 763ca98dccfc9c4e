//! Disks of sessions as files for others.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blink_host::transfer::{Tell, TransferProgress, tell_nobody};

use super::carried::Carried;
use super::checkpoint::CheckpointOptions;
use super::handle::Session;
use super::turn::{Others, Turn};
use crate::disk::{Draft, SessionRow};
use crate::engine::About;
use crate::error::{Error, ErrorKind, Result, during};

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
        self.progress = Some(Arc::new(progress));
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
    /// What was made for it, which goes with the last of these.
    pub(super) draft: Arc<Draft>,
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
        during("export", self, async {
            self.export_with(archive, ExportOptions::default()).await
        })
        .await
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
        during("export_with", self, async {
            let held = self.hold_still(options.checkpoint.as_deref()).await?;
            let engine = self.core.blink.engine(held.session.isolation).await?;
            let about = Carried::of(&held.session.options).to_json();
            let (archive, tell) = (archive.as_ref().to_owned(), options.tell());
            // In a task: where the caller gives up, what is read must stay until it was read.
            let exporting = tokio::spawn(async move {
                let about = About {
                    session: &about,
                    tell: &tell,
                };
                let (disk, beneath) = (&held.disk, &held.beneath);
                engine
                    .export(disk, beneath, held.rootfs.as_deref(), &archive, about)
                    .await
            });
            exporting
                .await
                .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
        })
        .await
    }

    /// The disk as it is now, or was at a checkpoint. The session goes on meanwhile.
    pub(super) async fn hold_still(&self, checkpoint: Option<&str>) -> Result<Held> {
        let what = "has been beginning an export of it";
        let mut turn = self.turn(what, Others::Stay).await?;
        let rootfs = turn.rootfs(&*turn.engine().await?).await?;
        let (chain, draft) = match checkpoint {
            Some(name) => {
                let draft = turn.draft().await?;
                (turn.core.existing(turn.row(), name).await?.1, draft)
            }
            None => turn.keep_to_export().await?,
        };
        let mut folders = self.core.disks().folders(&chain);
        Ok(Held {
            session: turn.row().clone(),
            disk: folders.pop().unwrap_or_default(),
            beneath: folders,
            rootfs,
            draft: Arc::new(draft),
        })
    }
}

impl Turn {
    /// A chain of layers, and what keeps it there.
    async fn keep_to_export(&mut self) -> Result<(Vec<String>, Draft)> {
        let mut draft = self.draft().await?;
        let kept = self
            .keep(&mut draft, None, CheckpointOptions::default())
            .await?;
        // A head that is new is the session's from now on; a copy goes when it was exported.
        let Some(head) = kept.head else {
            return Ok((kept.chain, draft));
        };
        let reading = self.draft().await?;
        let session = self.row().clone();
        self.commit(draft, move |registry, made| {
            registry.set_session_head(&session, made, &head)
        })
        .await?;
        Ok((kept.chain, reading))
    }
}
