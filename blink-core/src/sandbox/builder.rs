//! What a sandbox is to be, and its boot.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Sandbox;
use crate::blink::Blink;
use crate::command::{Defaults, check_variable, set_variable};
use crate::engine::{self, Engine, Machine, MachineSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::home::{Lifetime, SandboxFolder};
use crate::image::{ImageSource, Progress, StoredImage};
use crate::isolation::{Isolation, IsolationChoice};
use crate::publish::{self, Bound, PublishedPort};

/// Processes of a sandbox at once, unless told otherwise: a parallel build fits, a fork bomb ends soon.
pub const DEFAULT_PROCESSES: u64 = 1024;

/// The disk of a sandbox, unless told otherwise.
pub const DEFAULT_DISK_MIB: u64 = 10 * 1024;

/// How long a boot may take, unless told otherwise.
pub const DEFAULT_BOOT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a boot that failed waits for its machine's end, which takes a moment.
const END_WAIT: Duration = Duration::from_secs(10);

/// What a sandbox can use of the machine.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Resources {
    /// Processors; where there is none, all of the host's for namespaces, and two for a micro-VM, or half of the host's
    /// where that is less. A part of one is possible where control groups divide time.
    pub cpus: Option<f64>,
    /// Memory in MiB; where there is none, half of the host's for namespaces, and 2048 for a micro-VM.
    pub memory_mib: Option<u64>,
    /// What `/dev/shm` may hold of the memory, in MiB; where there is none, half of it.
    #[serde(default)]
    pub shared_memory_mib: Option<u64>,
    /// What it may write, in MiB.
    pub disk_mib: u64,
    /// Processes and threads at once.
    pub processes: u64,
}

impl Default for Resources {
    fn default() -> Resources {
        Resources {
            cpus: None,
            memory_mib: None,
            shared_memory_mib: None,
            disk_mib: DEFAULT_DISK_MIB,
            processes: DEFAULT_PROCESSES,
        }
    }
}

/// What a sandbox can reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Network {
    /// Nothing but itself. The default.
    #[default]
    None,
    /// Everything that the host can reach. In a namespace that is the host's own network, its loopback services among
    /// it; a micro-VM has an address of its own, and reaches the host's loopback services at `host.boxlite.internal`.
    Host,
    /// These hosts and no others: names such as `pypi.org`, all names below one such as `*.pypi.org`, IPv4 addresses,
    /// and networks such as `10.1.0.0/16`; a list of none is [`None`](Network::None). In micro-VMs only; `Unsupported`
    /// elsewhere.
    Hosts(Vec<String>),
}

/// A file or folder of the host that a sandbox sees.
///
/// A single file can be written to, and not replaced by another of its name (`EBUSY`), which [`Files::write`] and some editors
/// do: mount its folder for that. In a micro-VM, the owners of what is mounted cannot be changed (`EINVAL`).
///
/// [`Files::write`]: crate::Files::write
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Mount {
    /// What the sandbox sees. Of a micro-VM, nothing that has Blink's home in it.
    pub host: PathBuf,
    /// Where it sees it.
    pub guest: PathBuf,
    /// Whether it may not change it.
    pub read_only: bool,
    /// What was there when it was asked for: a start that finds another is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pinned: Option<Pinned>,
}

/// What tells a file or folder of the host from all others that are there at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Pinned {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Mount {
    /// Lets a sandbox see and change `host` at `guest`.
    pub fn new(host: impl Into<PathBuf>, guest: impl Into<PathBuf>) -> Mount {
        Mount {
            host: host.into(),
            guest: guest.into(),
            read_only: false,
            pinned: None,
        }
    }

    /// Lets it only see it.
    pub fn read_only(mut self) -> Mount {
        self.read_only = true;
        self
    }

    /// Holds on to what is there now, unless it does already. What is not there at all is refused later.
    fn pin(&mut self) {
        use std::os::unix::fs::MetadataExt;
        if let (None, Ok(found)) = (self.pinned, std::fs::metadata(&self.host)) {
            self.pinned = Some(Pinned {
                device: found.dev(),
                inode: found.ino(),
            });
        }
    }
}

/// Of what has a default, whether it was asked for. The rest says so itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Explicit {
    pub(crate) image: bool,
    pub(crate) disk_mib: bool,
    pub(crate) processes: bool,
}

/// A sandbox to make, from [`Blink::sandbox`].
#[derive(Clone)]
pub struct SandboxBuilder {
    blink: Blink,
    pub(crate) image: String,
    image_progress: Arc<dyn Fn(Progress) + Send + Sync>,
    pub(crate) isolation: Option<IsolationChoice>,
    pub(crate) resources: Resources,
    /// What was asked for also where it is the default.
    pub(crate) explicit: Explicit,
    pub(crate) network: Network,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) publish: Vec<PublishedPort>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) current_dir: Option<OsString>,
    pub(crate) user: Option<String>,
    pub(crate) boot_timeout: Duration,
    pub(crate) detached: bool,
}

impl SandboxBuilder {
    pub(crate) fn new(blink: Blink) -> SandboxBuilder {
        SandboxBuilder {
            boot_timeout: blink.boot_timeout(),
            blink,
            image: "host".into(),
            image_progress: Arc::new(|_| {}),
            isolation: None,
            resources: Resources::default(),
            explicit: Explicit::default(),
            network: Network::None,
            mounts: Vec::new(),
            publish: Vec::new(),
            env: Vec::new(),
            current_dir: None,
            user: None,
            detached: false,
        }
    }

    /// Where its root file system comes from: `host` (the default: this machine's own programs, read-only, which needs
    /// no registry and no download); a registry's reference such as `alpine:3.20`, fetched where it is not stored yet;
    /// a folder in OCI layout; or a tar of one or of `docker save`.
    pub fn image(mut self, image: impl Into<String>) -> SandboxBuilder {
        self.image = image.into();
        self.explicit.image = true;
        self
    }

    /// Calls `progress` while the image is fetched and unpacked, some ten times a second.
    pub fn image_progress(
        mut self,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> SandboxBuilder {
        self.image_progress = Arc::new(progress);
        self
    }

    /// The isolation; otherwise that of the [`Blink`].
    pub fn isolation(mut self, isolation: IsolationChoice) -> SandboxBuilder {
        self.isolation = Some(isolation);
        self
    }

    /// Processors that it may use; by default all of the host's for namespaces, and two for a micro-VM, or half of the
    /// host's where that is less.
    pub fn cpus(mut self, cpus: f64) -> SandboxBuilder {
        self.resources.cpus = Some(cpus);
        self
    }

    /// Memory that it may use, in MiB; by default half of the host's for namespaces, and 2048 for a micro-VM.
    pub fn memory_mib(mut self, memory_mib: u64) -> SandboxBuilder {
        self.resources.memory_mib = Some(memory_mib);
        self
    }

    /// What `/dev/shm` may hold, in MiB; half of the memory by default. It is part of the memory: what is there counts.
    pub fn shared_memory_mib(mut self, shared_memory_mib: u64) -> SandboxBuilder {
        self.resources.shared_memory_mib = Some(shared_memory_mib);
        self
    }

    /// What it may write, in MiB; 10 GiB by default.
    pub fn disk_mib(mut self, disk_mib: u64) -> SandboxBuilder {
        self.resources.disk_mib = disk_mib;
        self.explicit.disk_mib = true;
        self
    }

    /// Processes and threads that it may have at once; 1024 by default.
    pub fn processes(mut self, processes: u64) -> SandboxBuilder {
        self.resources.processes = processes;
        self.explicit.processes = true;
        self
    }

    /// What it can reach; nothing by default.
    pub fn network(mut self, network: Network) -> SandboxBuilder {
        self.network = network;
        self
    }

    /// Lets it see a file or folder of the host.
    pub fn mount(mut self, mut mount: Mount) -> SandboxBuilder {
        mount.pin();
        self.mounts.push(mount);
        self
    }

    /// Lets programs of the host reach a TCP port inside it, whatever its network; only those of this machine unless
    /// the port [says otherwise](PublishedPort::at). The host listens from before the boot until the sandbox ends: who
    /// connects too early waits for the boot. Where nothing in the sandbox listens, a connection is reset. At most 256 are
    /// carried at once, over all ports of a sandbox; more wait until one ends.
    pub fn publish(mut self, port: PublishedPort) -> SandboxBuilder {
        self.publish.push(port);
        self
    }

    /// Sets an environment variable for all its programs, over the image's.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> SandboxBuilder {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The folder in which its programs run unless told otherwise, over the image's.
    pub fn current_dir(mut self, dir: impl Into<OsString>) -> SandboxBuilder {
        self.current_dir = Some(dir.into());
        self
    }

    /// The user that its programs run as unless told otherwise, over the image's.
    pub fn user(mut self, user: impl Into<String>) -> SandboxBuilder {
        self.user = Some(user.into());
        self
    }

    /// How long its boot may take: `BLINK_BOOT_TIMEOUT` in seconds, `boot_timeout` of the settings' file, or 30 s by default.
    /// Micro-VMs boot a few at once, one for two of the host's processors; the time that one waits for its turn counts.
    pub fn boot_timeout(mut self, timeout: Duration) -> SandboxBuilder {
        self.boot_timeout = timeout;
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
        self.check()?;
        self.blink.choose(self.isolation).await?;
        let source = ImageSource::parse(&self.image)?;
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
    /// `InvalidArgument` for options that cannot be right; `Busy` where a port to publish is taken; `IsolationUnavailable` and `ImageUnavailable` with the ways
    /// that are left; `ResourceExhausted`; `Timeout` where it does not boot in time.
    pub async fn create(self) -> Result<Sandbox> {
        let parts = self.prepare().await?;
        let lifetime = match self.detached {
            true => Lifetime::Detached,
            false => Lifetime::Process,
        };
        let folder = self.blink.home().new_sandbox(lifetime)?;
        let recorded = match self.detached {
            true => publish::record(folder.path(), &self.publish),
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
            Some(digest) => Some(self.blink.image_by_digest(&self.image, digest).await?),
            None => {
                let source = ImageSource::parse(&self.image)?;
                self.blink.image(&source, progress).await?
            }
        };
        Ok(parts)
    }

    pub(crate) async fn prepare_without_image(&self) -> Result<Parts> {
        self.check()?;
        let isolation = self.blink.choose(self.isolation).await?;
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
        let ports = Bound::bind(&self.publish)?;
        if isolation == Isolation::Namespace && self.network == Network::Host {
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
        let spec = MachineSpec {
            id: folder.id().to_owned(),
            host_name: folder.id().to_owned(),
            folder: folder.path().to_owned(),
            disk: place.disk,
            layers: place.layers,
            rootfs,
            resources: self.resources,
            network: self.network.effective(),
            mounts: self.mounts.clone(),
            detached: place.outlives,
            shared: place.shared,
            boot_timeout: self.boot_timeout,
            given_up: given_up.clone(),
        };
        let config = image.map(|image| image.config).unwrap_or_default();
        let defaults = self.defaults(&config);
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
            connected = sandbox.connect(started, self.boot_timeout) => connected,
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
        if let (None, Some(folder)) = (&self.current_dir, &config.workdir) {
            // One that no layer has is made, as docker does it. Where that cannot be, commands say so.
            let folder = Path::new("/").join(folder);
            let _ = sandbox.files()?.owned_by(None).make_dir(folder).await;
        }
        sandbox.outlives = place.outlives || place.shared;
        sandbox.publish(ports)?;
        tracing::debug!(sandbox = sandbox.id(), elapsed = ?started.elapsed(), "booted");
        Ok(sandbox)
    }

    pub(crate) fn defaults(&self, config: &crate::image::ImageConfig) -> Defaults {
        let mut env: Vec<(OsString, OsString)> = Vec::new();
        for variable in &config.env {
            if let Some((name, value)) = variable.split_once('=') {
                set_variable(&mut env, name.as_ref(), value.as_ref());
            }
        }
        for (name, value) in &self.env {
            set_variable(&mut env, name, value);
        }
        Defaults {
            env,
            current_dir: self
                .current_dir
                .clone()
                .or_else(|| config.workdir.clone().map(Into::into)),
            user: self.user.clone().or_else(|| config.user.clone()),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        /// Less than this and nothing starts.
        const LEAST_MEMORY_MIB: u64 = 4;
        const LEAST_PROCESSES: u64 = 4;
        for (name, value) in &self.env {
            check_variable(name, value)?;
        }
        if let Some(cpus) = self.resources.cpus
            && !(cpus.is_finite() && cpus > 0.0)
        {
            return Err(Error::invalid(format!(
                "{cpus} is not a number of processors; give one above 0"
            )));
        }
        if self
            .resources
            .memory_mib
            .is_some_and(|memory| memory < LEAST_MEMORY_MIB)
        {
            return Err(Error::invalid(format!(
                "a sandbox needs at least {LEAST_MEMORY_MIB} MiB of memory"
            )));
        }
        if self.resources.shared_memory_mib == Some(0) {
            return Err(Error::invalid(
                "shared memory needs at least 1 MiB; leave the option out for half of the memory",
            ));
        }
        if self.resources.disk_mib == 0 {
            return Err(Error::invalid("a sandbox needs at least 1 MiB of disk"));
        }
        if self.resources.processes < LEAST_PROCESSES {
            return Err(Error::invalid(format!(
                "a sandbox needs at least {LEAST_PROCESSES} processes"
            )));
        }
        for mount in &self.mounts {
            check_mount(mount)?;
        }
        self.network.check()?;
        publish::check(&self.publish)
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

fn check_mount(mount: &Mount) -> Result<()> {
    let (host, guest) = (mount.host.display(), mount.guest.display());
    if !mount.host.exists() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("the mount {host} does not exist on this machine"),
        ));
    }
    const RESERVED: [&str; 5] = ["/proc", "/dev", "/sys", "/.blink", "/run/blink"];
    let unclear = mount
        .guest
        .components()
        .any(|part| part.as_os_str() == "..")
        || mount.guest.as_os_str().as_bytes().contains(&0);
    if !mount.guest.is_absolute() || unclear {
        return Err(Error::invalid(format!(
            "{guest} is not a path in a sandbox; begin it with / and leave out .."
        )));
    }
    let is_root = mount.guest.components().count() == 1;
    if is_root || RESERVED.iter().any(|path| mount.guest.starts_with(path)) {
        return Err(Error::invalid(format!(
            "{guest} belongs to the sandbox itself; mount {host} somewhere else"
        )));
    }
    Ok(())
}
