//! Disks of sessions as images.

use std::path::Path;

use blink_host::transfer::Tell;
use blink_image::{ImageStore, NewImage, NewLayer, StoredImage};
use tokio::io::AsyncWriteExt;

use super::archive::{ExportOptions, Held};
use super::handle::Session;
use tokio_util::sync::CancellationToken;

use crate::blocking::on_thread;
use crate::error::{Error, ErrorKind, Result, during};
use crate::home::Lifetime;
use crate::sandbox::{Place, Request, Sandbox};
use crate::spec::{HOST_IMAGE, SandboxSpec};

/// What a sandbox may send of its disk, as a tar: as much as an image may be unpacked.
const ROOT_LIMIT_BYTES: u64 = 68 << 30;

impl Session {
    /// Writes its disk as an image, from which sandboxes and sessions can be made with either isolation, and which other
    /// programs read: a folder in OCI layout, or a tar of one where the path ends in `.tar`. A session that runs goes on.
    ///
    /// The image runs its programs as the session's image does; the session's own environment, user and working directory
    /// are not in it. In a namespace, it has the layers of the session's image as they are, and one with what the session
    /// has changed. A micro-VM's whole root is one layer, which a machine that is booted for it reads. The same disk gives
    /// the same digests. Of extended attributes, those of users are kept.
    ///
    /// # Errors
    /// `Unsupported` for a session of the image `host`, whose programs are this machine's and on no disk, and for a disk with
    /// a file whose name begins with `.wh.`, which means something else in images; `InvalidArgument` if there is something
    /// at the path already that is not replaced (a file is, by a tar); `ResourceExhausted` for a full disk. Nothing is left
    /// behind then.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(blink: blink_core::Blink, session: blink_core::Session) -> blink_core::Result<()> {
    /// session.export_oci("./tools").await?;
    /// let sandbox = blink.sandbox().image("./tools").create().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn export_oci(&self, path: impl AsRef<Path>) -> Result<()> {
        during("export_oci", self, async {
            self.export_oci_with(path, ExportOptions::default()).await
        })
        .await
    }

    /// As [`export_oci`](Session::export_oci), with options.
    ///
    /// # Errors
    /// As for [`export_oci`](Session::export_oci); `NotFound` if there is no such checkpoint.
    pub async fn export_oci_with(
        &self,
        path: impl AsRef<Path>,
        options: ExportOptions,
    ) -> Result<()> {
        during("export_oci_with", self, async {
        let base = {
            let state = self.core.there().await?;
            let options = &state.row.options;
            if options.spec.image() == HOST_IMAGE {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the session {:?} runs this machine's own programs (the image \"host\"), which are not on its \
                         disk, so that no image can be made of it; export it as an archive, or make the session of an \
                         image such as \"debian:12\"",
                        state.row.name
                    ),
                ));
            }
            let (image, digest) = (options.spec.image(), options.digest.as_deref());
            self.core.blink.stored_image(image, digest).await?
        };
        let base = base
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the session's image has no digest"))?;
        let store = self.core.blink.image_store().await?;
        let (goal, tell) = (path.as_ref().to_owned(), options.tell());
        let (of_store, of_base) = (store.clone(), base.clone());
        let image = on_thread(move || {
            let mut image = NewImage::begin(&goal)?;
            of_store.carry_over(&of_base, &mut image)?;
            Ok(image)
        })
        .await?;
        let held = self.hold_still(options.checkpoint.as_deref()).await?;
        let image = self.write_layers(image, &held, &base, store, tell).await?;
        drop(held);
        on_thread(move || Ok(image.finish()?)).await
    })
        .await
    }

    async fn write_layers(
        &self,
        mut image: NewImage,
        held: &Held,
        base: &StoredImage,
        store: std::sync::Arc<ImageStore>,
        tell: Tell,
    ) -> Result<NewImage> {
        let engine = self.core.blink.engine(held.session.isolation).await?;
        let (disk, beneath) = (&held.disk, &held.beneath);
        if let Some(pack) = engine.pack_layer(disk, beneath, held.rootfs.as_deref()) {
            let (base, draft) = (base.clone(), held.draft.clone());
            return on_thread(move || {
                // What is read must stay until it was read, also where the caller gives up.
                let _until_then = draft;
                store.copy_layers(&base, &mut image, &tell)?;
                let mut layer = image.layer(&tell)?;
                pack(&mut layer)?;
                image.add(layer, MADE_BY)?;
                Ok(image)
            })
            .await;
        }
        let sandbox = self.boot_over(held, base).await?;
        let read = read_root(&sandbox, image.layer(&tell)?).await;
        // It has nothing that is needed again.
        let removed = sandbox.remove().await;
        let layer = read?;
        removed?;
        on_thread(move || {
            image.add(layer, MADE_BY)?;
            Ok(image)
        })
        .await
    }

    /// A sandbox of its own, which begins with what is held and changes nothing of it.
    async fn boot_over(&self, held: &Held, base: &StoredImage) -> Result<Sandbox> {
        let isolation = held.session.isolation;
        let asked = &held.session.options.spec;
        let mut spec = SandboxSpec::default();
        spec.isolation = Some(isolation.into());
        (spec.cpus, spec.memory_mib) = (asked.cpus, asked.memory_mib);
        (spec.disk_mib, spec.processes) = (asked.disk_mib, asked.processes);
        let described = Request::new(self.core.blink.clone(), spec);
        let mut parts = described.prepare_without_image().await?;
        parts.image = Some(base.clone());
        let folder = self.core.blink.home().new_sandbox(Lifetime::Process)?;
        let place = Place {
            folder: folder.clone(),
            disk: folder.path().to_owned(),
            layers: Vec::new(),
            outlives: false,
            shared: false,
        };
        let booting = async {
            self.core.blink.claim_image(Some(base), &folder).await?;
            let engine = parts.engine.clone();
            let (disk, over) = (place.disk.clone(), held.disk.clone());
            on_thread(move || engine.make_disk(&disk, &over)).await?;
            described.boot(parts, place, CancellationToken::new()).await
        };
        let booted = booting.await;
        if booted.is_err() && folder.path().exists() {
            folder.remove()?;
        }
        booted
    }
}

/// For the image's history.
const MADE_BY: &str = "what a session of Blink has changed";

/// The whole root of a machine, as a layer.
async fn read_root(sandbox: &Sandbox, mut layer: NewLayer) -> Result<NewLayer> {
    /// What may wait to be compressed.
    const WAITING_BYTES: usize = 1 << 20;
    let (mut sender, receiver) = tokio::io::duplex(WAITING_BYTES);
    let writing = tokio::task::spawn_blocking(move || {
        let receiver = std::io::Read::take(
            tokio_util::io::SyncIoBridge::new(receiver),
            ROOT_LIMIT_BYTES + 1,
        );
        let mut receiver = std::io::BufReader::with_capacity(WAITING_BYTES / 4, receiver);
        let written = std::io::copy(&mut receiver, &mut layer)
            .map_err(|error| Error::io("the image could not be written", &error))?;
        match written > ROOT_LIMIT_BYTES {
            false => Ok(layer),
            true => Err(Error::new(
                ErrorKind::ResourceExhausted,
                "the session's disk holds more than an image may",
            )),
        }
    });
    let received = sandbox.files()?.pack_layer(&mut sender).await;
    // Nothing is compressed any more when it returns.
    let _ = sender.shutdown().await;
    drop(sender);
    let written = writing
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    // Where writing failed, receiving failed only because of it.
    let layer = written?;
    received.map(|_| layer)
}
