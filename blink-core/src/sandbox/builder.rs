//! What a sandbox is to be, and its boot.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blink_image::{ImageSource, PullProgress, StoredImage};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::handle::Sandbox;
use crate::blink::Blink;
use crate::engine::{self, Engine, Machine, MachineSpec, engines};
use crate::error::{Error, ErrorKind, Result};
use crate::home::{Lifetime, SandboxFolder};
use crate::isolation::{Isolation, IsolationChoice};
use crate::publish::{self, Bound, PublishedPort};
use crate::spec::{Mount, Network, SandboxSpec};

/// How long a boot that failed waits for its machine's end, which takes a moment.
const END_WAIT: Duration = Duration::from_secs(10);

/// A sandbox to make, from [`Blink::sandbox`]: a [`SandboxSpec`], and who makes it.
#[derive(Clone)]
pub struct SandboxBuilder {
    blink: Blink,
    pub(crate) spec: SandboxSpec,
    image_progress: Arc<dyn Fn(PullProgress) + Send + Sync>,
    pub(crate) detached: bool,
}

impl SandboxBuilder {
    pub(crate) fn new(blink: Blink) -> SandboxBuilder {
        SandboxBuilder {
            blink,
            spec: SandboxSpec::default(),
            image_progress: Arc::new(|_| {}),
            detached: false,
        }
    }

    /// Takes a whole description, in place of what was said before.
    pub fn spec(mut self, spec: SandboxSpec) -> SandboxBuilder {
        self.spec = spec;
        for mount in &mut self.spec.mounts {
            mount.pin();
        }
        self
    }

    /// Where its root file system comes from: `host` (the default: this machine's own programs, read-only, which needs
    /// no registry and no download); a registry's reference such as `alpine:3.20`, fetched where it is not stored yet;
    /// a folder in OCI layout; or a tar of one or of `docker save`.
    pub fn image(mut self, image: impl Into<String>) -> SandboxBuilder {
        self.spec.image = Some(image.into());
        self
    }

    /// Calls `progress` while the image is fetched and unpacked, some ten times a second.
    pub fn image_progress(
        mut self,
        progress: impl Fn(PullProgress) + Send + Sync + 'static,
    ) -> SandboxBuilder {
        self.image_progress = Arc::new(progress);
        self
    }

    /// The isolation; otherwise that of the [`Blink`].
    pub fn isolation(mut self, isolation: IsolationChoice) -> SandboxBuilder {
        self.spec.isolation = Some(isolation);
        self
    }

    /// Its host name; its id by default.
    pub fn hostname(mut self, hostname: impl Into<String>) -> SandboxBuilder {
        self.spec.hostname = Some(hostname.into());
        self
    }

    /// Processors that it may use; by default all of the host's for namespaces, and two for a micro-VM, or half of the
    /// host's where that is less.
    pub fn cpus(mut self, cpus: f64) -> SandboxBuilder {
        self.spec.cpus = Some(cpus);
        self
    }

    /// Memory that it may use, in MiB; by default half of the host's for namespaces, and 2048 for a micro-VM.
    pub fn memory_mib(mut self, memory_mib: u64) -> SandboxBuilder {
        self.spec.memory_mib = Some(memory_mib);
        self
    }

    /// What `/dev/shm` may hold, in MiB; half of the memory by default. It is part of the memory: what is there counts.
    pub fn shared_memory_mib(mut self, shared_memory_mib: u64) -> SandboxBuilder {
        self.spec.shared_memory_mib = Some(shared_memory_mib);
        self
    }

    /// What it may write, in MiB; 10 GiB by default.
    pub fn disk_mib(mut self, disk_mib: u64) -> SandboxBuilder {
        self.spec.disk_mib = Some(disk_mib);
        self
    }

    /// Processes and threads that it may have at once; 1024 by default.
    pub fn processes(mut self, processes: u64) -> SandboxBuilder {
        self.spec.processes = Some(processes);
        self
    }

    /// What it can reach; nothing by default.
    pub fn network(mut self, network: Network) -> SandboxBuilder {
        self.spec.network = Some(network);
        self
    }

    /// Lets it see a file or folder of the host.
    pub fn mount(mut self, mut mount: Mount) -> SandboxBuilder {
        mount.pin();
        self.spec.mounts.push(mount);
        self
    }

    /// Lets programs of the host reach a TCP port inside it, whatever its network; only those of this machine unless
    /// the port [says otherwise](PublishedPort::at). The host listens from before the boot until the sandbox ends: who
    /// connects too early waits for the boot. Where nothing in the sandbox listens, a connection is reset. At most 256 are
    /// carried at once, over all ports of a sandbox; more wait until one ends.
    pub fn publish(mut self, port: PublishedPort) -> SandboxBuilder {
        self.spec.publish.push(port);
        self
    }

    /// Sets an environment variable for all its programs, over the image's.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> SandboxBuilder {
        self.spec.env.push((name.into(), value.into()));
        self
    }

    /// The folder in which its programs run unless told otherwise, over the image's.
    pub fn current_dir(mut self, dir: impl Into<OsString>) -> SandboxBuilder {
        self.spec.current_dir = Some(dir.into().into());
        self
    }

    /// The user that its programs run as unless told otherwise, over the image's.
    pub fn user(mut self, user: impl Into<String>) -> SandboxBuilder {
        self.spec.user = Some(user.into());
        self
    }

    /// How long its boot may take: `BLINK_BOOT_TIMEOUT` in seconds, `boot_timeout` of the settings' file, or 30 s by default.
    /// Micro-VMs boot a few at once, one for two of the host's processors; the time that one waits for its turn counts.
    pub fn boot_timeout(mut self, timeout: Duration) -> SandboxBuilder {
        self.spec.boot_timeout = Some(timeout);
        self
    }

    /// Lets it go on when this process ends, until it is removed: [`Blink::open`] takes it up again.
    pub fn detached(mut self) -> SandboxBuilder {
        self.detached = true;
        self
    }

    /// Fetches the image where it is not stored, so that [`create`](SandboxBuilder::create) finds it. Given up half-way,
    /// what came so far is kept.
    ///
    /// # Errors
    /// As for [`create`](SandboxBuilder::create), as far as they can be told before a boot.
    pub async fn fetch_image(&self) -> Result<()> {
        self.spec.validate()?;
        self.blink.choose(self.spec.isolation).await?;
        let source = ImageSource::parse(self.spec.image())?;
        let image = self.blink.image(&source, &*self.image_progress).await?;
        tracing::debug!(
            digest = image.map(|image| image.digest),
            "the image is there"
        );
        Ok(())
    }

    /// Makes and boots the sandbox. Given up half-way, nothing of it stays; [`Blink::settled`] waits for that.
    ///
    /// # Errors
    /// `InvalidArgument` for invalid options; `Busy` if a port to publish is taken; `IsolationUnavailable` and `ImageUnavailable` with the ways
    /// that are left; `ResourceExhausted`; `Timeout` if it does not boot in time.
    pub async fn create(self) -> Result<Sandbox> {
        let parts = self.prepare().await?;
        let lifetime = match self.detached {
            true => Lifetime::Detached,
            false => Lifetime::Process,
        };
        let folder = self.blink.home().new_sandbox(lifetime)?;
        let recorded = match self.detached {
            true => publish::record(folder.path(), &self.spec.publish),
            false => Ok(()),
        };
        let place = Place {
            folder: folder.clone(),
            disk: folder.path().to_owned(),
            layers: Vec::new(),
            outlives: self.detached,
            shared: false,
        };
        let (outlives, blink) = (self.detached, self.blink.clone());
        let given_up = CancellationToken::new();
        let _giving_up = given_up.clone().drop_guard();
        let (taker, taken) = oneshot::channel();
        let booting = async move {
            let booted = match recorded {
                Ok(()) => self.boot(parts, place, given_up).await,
                Err(error) => Err(error),
            };
            let booted = match booted {
                // It goes again unless it is taken.
                Ok(mut sandbox) => {
                    sandbox.outlives = false;
                    Ok(sandbox)
                }
                Err(error) => {
                    if folder.path().exists() {
                        folder.remove_or_later();
                    }
                    Err(error)
                }
            };
            if let Err(Ok(sandbox)) = taker.send(booted)
                && let Err(error) = sandbox.remove().await
            {
                tracing::warn!(%error, "a sandbox that nobody wants goes later");
            }
        };
        // In a task of its own, which undoes what it has done where the caller gives up.
        blink.spawn_boot(booting.in_current_span());
        let defect = |_| {
            Error::new(
                ErrorKind::Internal,
                "the boot was stopped by a defect in Blink",
            )
        };
        let mut sandbox = taken.await.map_err(defect)??;
        sandbox.outlives = outlives;
        Ok(sandbox)
    }

    /// Checks what is asked for, and gets what a boot needs.
    pub(crate) async fn prepare(&self) -> Result<Parts> {
        self.prepare_with(None).await
    }

    /// As [`prepare`](SandboxBuilder::prepare); where there is a digest, the image is the stored one that has it.
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
        let mut sandbox = Sandbox::assemble(folder, machine, isolation, defaults);
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
