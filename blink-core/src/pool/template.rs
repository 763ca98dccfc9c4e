//! What all members of a pool share: an image, and the disk that the commands of its warmup have left.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blink_host::fault::{self, Step};
use blink_host::new_id;
use blink_host::private;
use blink_image::StoredImage;
use tokio_util::sync::CancellationToken;

use super::boot::{boot_in, run};
use crate::blocking::on_thread;
use crate::command::Command;
use crate::disk::{self, LayerRow};
use crate::engine::{Engine, engines};
use crate::error::{Error, Result};
use crate::home::{Lifetime, SandboxFolder};
use crate::isolation::Isolation;
use crate::publish::Bound;
use crate::sandbox::{Parts, Place, Request};

/// A frozen disk over an image.
pub(super) struct Template {
    request: Request,
    isolation: Isolation,
    engine: Arc<dyn Engine>,
    image: Option<StoredImage>,
    /// Says, for as long as this process lives, that the image and the layer are in use.
    folder: SandboxFolder,
    layer: Option<(String, PathBuf)>,
}

impl Template {
    /// Runs the commands once, each of which must succeed, and keeps the disk that they leave.
    pub(super) async fn make(
        request: &Request,
        warmup: &[Command],
        timeout: Duration,
        given_up: &CancellationToken,
    ) -> Result<Template> {
        let Parts {
            isolation,
            engine,
            image,
            ..
        } = request.prepare().await?;
        let home = request.blink.home().clone();
        let folder = on_thread(move || home.new_sandbox(Lifetime::Process)).await?;
        let mut template = Template {
            request: request.clone(),
            isolation,
            engine,
            image,
            folder,
            layer: None,
        };
        let (image, folder) = (template.image.as_ref(), &template.folder);
        let warmed = match request.blink.claim_image(image, folder).await {
            Ok(()) if warmup.is_empty() => Ok(()),
            Ok(()) => template.warm(warmup, timeout, given_up).await,
            Err(error) => Err(error),
        };
        match warmed {
            Ok(()) => Ok(template),
            Err(error) => {
                template.remove().await;
                Err(error)
            }
        }
    }

    async fn warm(
        &mut self,
        warmup: &[Command],
        timeout: Duration,
        given_up: &CancellationToken,
    ) -> Result<()> {
        let (id, pin) = (new_id()?, self.folder.path().to_owned());
        let layer = self.request.blink.disks().folder(&id);
        self.layer = Some((id.clone(), layer.clone()));
        let (home, made) = (self.request.blink.home().clone(), layer.clone());
        // In this order: nobody collects a layer that is in use.
        let folder = on_thread(move || {
            disk::pin(&pin, &id)
                .and_then(|()| private::make_folder(&made))
                .map_err(|error| Error::io("the disk of a pool could not be made", &error))?;
            home.new_sandbox(Lifetime::Process)
        })
        .await?;
        let place = Place {
            folder: folder.clone(),
            disk: layer.clone(),
            layers: Vec::new(),
            outlives: false,
            shared: false,
        };
        let sandbox = boot_in(&self.request, self.parts(), place, folder.clone(), given_up).await?;
        let mut warmed = Ok(());
        for command in warmup {
            warmed = run(&sandbox, command, timeout, given_up).await;
            if warmed.is_err() {
                break;
            }
        }
        let warmed = warmed.and_then(|()| {
            fault::before(Step::PoolWarmed)
                .map_err(|error| Error::io("the disk of a pool could not be made", &error))
        });
        sandbox.settle().await;
        let removed = sandbox.remove().await;
        warmed.and(removed)?;
        self.engine.discard(folder.path()).await?;
        if !self.engine.is_settled(&layer)? {
            let rootfs = self
                .request
                .rootfs(&*self.engine, self.image.as_ref(), &self.folder)
                .await?;
            self.engine.settle(&layer, &[], rootfs.as_deref()).await?;
        }
        Ok(())
    }

    /// What the boot of a member needs.
    pub(super) fn parts(&self) -> Parts {
        Parts {
            isolation: self.isolation,
            engine: self.engine.clone(),
            image: self.image.clone(),
            ports: Bound::default(),
        }
    }

    /// The layers beneath a member's disk.
    pub(super) fn layers(&self) -> Vec<PathBuf> {
        let layer = self.layer.iter();
        layer.map(|(_, folder)| folder.clone()).collect()
    }

    pub(super) fn layer(&self) -> Option<&(String, PathBuf)> {
        self.layer.as_ref()
    }

    /// The row of its layer, for the registry.
    pub(super) fn row(&self) -> Option<LayerRow> {
        let layer = self.layer.as_ref();
        layer.map(|(id, _)| LayerRow {
            id: id.clone(),
            parent: None,
        })
    }

    pub(super) fn isolation(&self) -> Isolation {
        self.isolation
    }

    pub(super) fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    pub(super) fn image(&self) -> Option<&StoredImage> {
        self.image.as_ref()
    }

    pub(super) fn shares_machines(&self) -> bool {
        engines::capabilities(self.isolation).shares_machines
    }

    /// Lets go of it: the layer stays where a session has it.
    pub(super) async fn remove(&self) {
        let (folder, disks) = (self.folder.clone(), self.request.blink.disks().clone());
        let has_layer = self.layer.is_some();
        let removed = on_thread(move || {
            folder.remove_or_later();
            if has_layer {
                disks.collect();
            }
            Ok(())
        });
        let _ = removed.await;
    }
}
