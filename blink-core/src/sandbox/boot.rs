//! The boot of what was asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blink_image::{ImageSource, PullProgress, StoredImage};
use tokio_util::sync::CancellationToken;

use super::handle::Sandbox;
use crate::blink::Blink;
use crate::budget::Need;
use crate::engine::{self, Engine, Machine, MachineSpec, engines};
use crate::error::{ErrorKind, Result};
use crate::home::SandboxFolder;
use crate::isolation::Isolation;
use crate::publish::{self, Bound};
use crate::spec::{Network, SandboxSpec};

/// How long a boot that failed waits for its machine's end, which takes a moment.
const END_WAIT: Duration = Duration::from_secs(10);

/// A sandbox that is asked for: what it is to be, and who makes it.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) blink: Blink,
    pub(crate) spec: SandboxSpec,
    pub(crate) image_progress: Arc<dyn Fn(PullProgress) + Send + Sync>,
    /// How much it is needed.
    pub(crate) need: Need,
}

impl Request {
    /// Asks for what the description says. A mount is of what is there now.
    pub(crate) fn new(blink: Blink, mut spec: SandboxSpec) -> Request {
        for mount in &mut spec.mounts {
            mount.pin();
        }
        Request {
            blink,
            spec,
            image_progress: Arc::new(|_| {}),
            need: Need::Now,
        }
    }

    /// Checks what is asked for, and gets what a boot needs.
    pub(crate) async fn prepare(&self) -> Result<Parts> {
        self.prepare_with(None).await
    }

    /// As [`prepare`](Request::prepare); where there is a digest, the image is the stored one that has it.
    pub(crate) async fn prepare_with(&self, digest: Option<&str>) -> Result<Parts> {
        let mut parts = self.prepare_without_image().await?;
        let progress = &*self.image_progress;
        parts.image = match digest {
            Some(digest) => Some(
                self.blink
                    .image_by_digest(self.spec.image(), digest)
                    .await?,
            ),
            None => {
                let source = ImageSource::parse(self.spec.image())?;
                self.blink.image(&source, progress).await?
            }
        };
        Ok(parts)
    }

    pub(crate) async fn prepare_without_image(&self) -> Result<Parts> {
        self.spec.validate()?;
        let isolation = self.blink.choose(self.spec.isolation).await?;
        // First of all: nothing needs to be undone where one is taken.
        let ports = self.bind(isolation)?;
        let engine = self.blink.engine(isolation).await?;
        Ok(Parts {
            isolation,
            engine,
            image: None,
            ports,
        })
    }

    /// Takes the host's ports that are published.
    pub(crate) fn bind(&self, isolation: Isolation) -> Result<Bound> {
        let ports = Bound::bind(&self.spec.publish)?;
        if engines::capabilities(isolation).shares_network && self.spec.network() == Network::Host {
            publish::check_for_loops(&ports)?;
        }
        Ok(ports)
    }

    /// The image in the engine's form; `None` for the host's own programs.
    pub(crate) async fn rootfs(
        &self,
        engine: &dyn Engine,
        image: Option<&StoredImage>,
        folder: &SandboxFolder,
    ) -> Result<Option<PathBuf>> {
        let Some(image) = image else { return Ok(None) };
        let (progress, form) = (self.image_progress.clone(), engine.root_form());
        let rootfs = self.blink.rootfs(image, form, folder, progress).await?;
        Ok(Some(rootfs))
    }

    /// Boots a machine in a place that was made for it. What a boot that fails has left there stays, but does not run.
    pub(crate) async fn boot(
        &self,
        parts: Parts,
        place: Place,
        given_up: CancellationToken,
    ) -> Result<Sandbox> {
        let Parts {
            isolation,
            engine,
            image,
            ports,
        } = parts;
        let memory_mib = match self.spec.memory_mib {
            Some(memory_mib) => memory_mib,
            None => engines::default_share(isolation)?.memory_mib,
        };
        let share = self.blink.budget().take(memory_mib, self.need).await?;
        let folder = place.folder;
        let rootfs = self.rootfs(&*engine, image.as_ref(), &folder).await?;
        let boot_timeout = self.spec.boot_timeout;
        let boot_timeout = boot_timeout.unwrap_or(self.blink.boot_timeout());
        let hostname = self.spec.hostname.as_deref();
        let spec = MachineSpec {
            id: folder.id().to_owned(),
            host_name: hostname.unwrap_or(folder.id()).to_owned(),
            folder: folder.path().to_owned(),
            disk: place.disk,
            layers: place.layers,
            rootfs,
            resources: self.spec.resources(),
            network: self.spec.network(),
            mounts: self.spec.mounts.clone(),
            detached: place.outlives,
            shared: place.shared,
            boot_timeout,
            given_up: given_up.clone(),
        };
        let config = image.map(|image| image.config).unwrap_or_default();
        let defaults = self.spec.defaults(&config);
        let started = std::time::Instant::now();
        let span = tracing::info_span!("boot", sandbox = folder.id(), %isolation);
        let booted = {
            let _entered = span.enter();
            engine.boot(&spec)
        }
        .await;
        let machine: Arc<dyn Machine> = booted?.into();
        let mut sandbox = Sandbox::assemble(folder, machine, isolation, defaults).within(share);
        let connected = tokio::select! {
            biased;
            () = given_up.cancelled() => Err(engine::given_up()),
            connected = sandbox.connect(started, boot_timeout) => connected,
        };
        if let Err(error) = connected {
            let error = match error.kind() {
                ErrorKind::SandboxDied => sandbox.machine.boot_failure().await.unwrap_or(error),
                _ => error,
            };
            // What does not end in time goes with the next start.
            let _ = tokio::time::timeout(END_WAIT, sandbox.end("it did not boot")).await;
            return Err(error);
        }
        if let (None, Some(folder)) = (&self.spec.current_dir, &config.workdir) {
            // One that no layer has is made, as docker does it. Where that cannot be, commands say so.
            let folder = Path::new("/").join(folder);
            let _ = sandbox.files()?.owned_by(None).make_dir(folder).await;
        }
        sandbox.outlives = place.outlives || place.shared;
        sandbox.publish(ports)?;
        tracing::debug!(sandbox = sandbox.id(), elapsed = ?started.elapsed(), "booted");
        Ok(sandbox)
    }
}

/// What a boot needs that is the same for each.
pub(crate) struct Parts {
    pub(crate) isolation: Isolation,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) image: Option<StoredImage>,
    pub(crate) ports: Bound,
}

/// Where a machine is booted.
pub(crate) struct Place {
    pub(crate) folder: SandboxFolder,
    /// The folder of what it writes.
    pub(crate) disk: PathBuf,
    /// The folders of the layers beneath, the lowest first.
    pub(crate) layers: Vec<PathBuf>,
    /// The machine goes on when this process ends.
    pub(crate) outlives: bool,
    /// Other processes use it too, and it goes on while any does.
    pub(crate) shared: bool,
}
