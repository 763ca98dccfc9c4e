//! What a sandbox is to be.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use blink_host::Holder;
use blink_host::file_lock::PATIENCE;
use blink_image::{ImageSource, PullProgress};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::boot::{Place, Request};
use super::handle::Sandbox;
use crate::blink::Blink;
use crate::error::{Error, ErrorKind, Result, during};
use crate::home::Lifetime;
use crate::isolation::IsolationChoice;
use crate::keys::Key;
use crate::publish::{self, PublishedPort};
use crate::spec::{Mount, Network, SandboxSpec};

/// A sandbox to make or a session to open: a [`SandboxSpec`], and who makes it. Both have the options that are here.
#[derive(Clone)]
#[must_use = "nothing is made before it is asked for"]
pub struct Builder<Of> {
    pub(crate) request: Request,
    pub(crate) of: Of,
}

/// A sandbox to make, from [`Blink::sandbox`].
pub type SandboxBuilder = Builder<OfSandbox>;

/// What is said of sandboxes only.
#[derive(Debug, Clone, Default)]
pub struct OfSandbox {
    detached: bool,
    key: Option<String>,
}

impl<Of> Builder<Of> {
    pub(crate) fn new(blink: Blink, of: Of) -> Builder<Of> {
        let request = Request::new(blink, SandboxSpec::default());
        Builder { request, of }
    }

    /// Takes a whole description, in place of what was said before.
    pub fn spec(mut self, spec: SandboxSpec) -> Builder<Of> {
        let Request {
            image_progress,
            need,
            ..
        } = self.request.clone();
        self.request = Request {
            image_progress,
            need,
            ..Request::new(self.request.blink, spec)
        };
        self
    }

    /// Where its root file system comes from: `host` (the default: this machine's own programs, read-only, which needs
    /// no registry and no download); a registry's reference such as `alpine:3.20`, fetched where it is not stored yet;
    /// a folder in OCI layout; or a tar of one or of `docker save`.
    pub fn image(mut self, image: impl Into<String>) -> Builder<Of> {
        self.request.spec.image = Some(image.into());
        self
    }

    /// Calls `progress` while the image is fetched and unpacked, some ten times a second.
    pub fn image_progress(
        mut self,
        progress: impl Fn(PullProgress) + Send + Sync + 'static,
    ) -> Builder<Of> {
        self.request.image_progress = Arc::new(progress);
        self
    }

    /// The isolation; otherwise that of the [`Blink`]. A session has the same each time that it runs.
    pub fn isolation(mut self, isolation: IsolationChoice) -> Builder<Of> {
        self.request.spec.isolation = Some(isolation);
        self
    }

    /// Its host name; its id by default.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Builder<Of> {
        self.request.spec.hostname = Some(hostname.into());
        self
    }

    /// Processors that it may use; by default all of the host's for namespaces, and two for a micro-VM, or half of the
    /// host's where that is less.
    pub fn cpus(mut self, cpus: f64) -> Builder<Of> {
        self.request.spec.cpus = Some(cpus);
        self
    }

    /// Memory that it may use, in MiB; by default half of the host's for namespaces, and 2048 for a micro-VM.
    pub fn memory_mib(mut self, memory_mib: u64) -> Builder<Of> {
        self.request.spec.memory_mib = Some(memory_mib);
        self
    }

    /// What `/dev/shm` may hold, in MiB; half of the memory by default. It is part of the memory: what is there counts.
    pub fn shared_memory_mib(mut self, shared_memory_mib: u64) -> Builder<Of> {
        self.request.spec.shared_memory_mib = Some(shared_memory_mib);
        self
    }

    /// What it may write, in MiB; 10 GiB by default.
    pub fn disk_mib(mut self, disk_mib: u64) -> Builder<Of> {
        self.request.spec.disk_mib = Some(disk_mib);
        self
    }

    /// Processes and threads that it may have at once; 1024 by default.
    pub fn processes(mut self, processes: u64) -> Builder<Of> {
        self.request.spec.processes = Some(processes);
        self
    }

    /// What it can reach; nothing by default.
    pub fn network(mut self, network: Network) -> Builder<Of> {
        self.request.spec.network = Some(network);
        self
    }

    /// Lets it see a file or folder of the host.
    pub fn mount(mut self, mut mount: Mount) -> Builder<Of> {
        mount.pin();
        self.request.spec.mounts.push(mount);
        self
    }

    /// Lets programs of the host reach a TCP port inside it, whatever its network; only those of this machine unless
    /// the port [says otherwise](PublishedPort::at). The host listens from before the boot until the sandbox ends: who
    /// connects too early waits for the boot. Where nothing in the sandbox listens, a connection is reset. At most 256 are
    /// carried at once, over all ports of a sandbox; more wait until one ends.
    pub fn publish(mut self, port: PublishedPort) -> Builder<Of> {
        self.request.spec.publish.push(port);
        self
    }

    /// Sets an environment variable for all its programs, over the image's. A session's must be text.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Builder<Of> {
        self.request.spec.env.push((name.into(), value.into()));
        self
    }

    /// The folder in which its programs run unless told otherwise, over the image's. A session's must be text.
    pub fn current_dir(mut self, dir: impl Into<OsString>) -> Builder<Of> {
        self.request.spec.current_dir = Some(dir.into().into());
        self
    }

    /// The user that its programs run as unless told otherwise, over the image's.
    pub fn user(mut self, user: impl Into<String>) -> Builder<Of> {
        self.request.spec.user = Some(user.into());
        self
    }

    /// How long its boot may take: `BLINK_BOOT_TIMEOUT` in seconds, `boot_timeout` of the settings' file, or 30 s by default.
    /// Micro-VMs boot a few at once, one for two of the host's processors; the time that one waits for its turn counts.
    pub fn boot_timeout(mut self, timeout: Duration) -> Builder<Of> {
        self.request.spec.boot_timeout = Some(timeout);
        self
    }
}

/// What a key has made.
enum Known {
    Made(Box<Sandbox>),
    Free(Key),
}

impl SandboxBuilder {
    /// What was made with the key, if it is there.
    async fn known(&self, key: &str) -> Result<Known> {
        let Request { blink, spec, .. } = &self.request;
        let patience = spec.boot_timeout.unwrap_or(blink.boot_timeout()) + PATIENCE;
        let asked = ("create", self.of.detached, spec);
        let (key, id) = Key::take(blink.home(), key, &asked, patience).await?;
        let Some(id) = id else {
            return Ok(Known::Free(key));
        };
        if !self.of.detached {
            return match blink.home().owner(&id) {
                Some(holder) => Err(made_already(&id, holder)),
                None => Ok(Known::Free(key)),
            };
        }
        match blink.open(&id).await {
            Ok(mut sandbox) => {
                let source = ImageSource::parse(spec.image())?;
                let image = blink.image(&source, &*self.request.image_progress).await?;
                let config = image.map(|image| image.config).unwrap_or_default();
                sandbox.set_defaults(spec.defaults(&config));
                Ok(Known::Made(Box::new(sandbox)))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::SandboxDied) => {
                Ok(Known::Free(key))
            }
            Err(error) => Err(error),
        }
    }

    /// Lets it go on when this process ends, until it is removed: [`Blink::open`] takes it up again.
    pub fn detached(mut self) -> SandboxBuilder {
        self.of.detached = true;
        self
    }

    /// Makes a repeated call harmless: while what a key has made is there, [`create`](SandboxBuilder::create) with the same key makes
    /// nothing else, for 24 h, also after a crash of this process. A [detached](SandboxBuilder::detached) sandbox is opened again; one
    /// that this or another process has is `Busy`. A key has 256 bytes at most, and belongs to what was first asked for with it.
    pub fn key(mut self, key: impl Into<String>) -> SandboxBuilder {
        self.of.key = Some(key.into());
        self
    }

    /// Fetches the image where it is not stored, so that [`create`](SandboxBuilder::create) finds it. Given up half-way,
    /// what came so far is kept.
    ///
    /// # Errors
    /// As for [`create`](SandboxBuilder::create), as far as they can be told before a boot.
    pub async fn fetch_image(&self) -> Result<()> {
        during(
            "fetch_image",
            &*format!("image {:?}", self.request.spec.image()),
            async {
                self.request.spec.validate()?;
                self.request
                    .blink
                    .choose(self.request.spec.isolation)
                    .await?;
                let source = ImageSource::parse(self.request.spec.image())?;
                let image = self
                    .request
                    .blink
                    .image(&source, &*self.request.image_progress)
                    .await?;
                tracing::debug!(
                    digest = image.map(|image| image.digest),
                    "the image is there"
                );
                Ok(())
            },
        )
        .await
    }

    /// Makes and boots the sandbox. Given up half-way, nothing of it stays; [`Blink::settled`] waits for that.
    ///
    /// # Errors
    /// `InvalidArgument` for invalid options; `Busy` if a port to publish is taken; `IsolationUnavailable` and `ImageUnavailable` with the ways
    /// that are left; `ResourceExhausted`; `Timeout` if it does not boot in time.
    pub async fn create(self) -> Result<Sandbox> {
        let subject = format!("sandbox of the image {:?}", self.request.spec.image());
        during("create", &*subject, async move {
            let key = match &self.of.key {
                Some(key) => match self.known(key).await? {
                    Known::Made(sandbox) => return Ok(*sandbox),
                    Known::Free(key) => Some(key),
                },
                None => None,
            };
            let parts = self.request.prepare().await?;
            let lifetime = match self.of.detached {
                true => Lifetime::Detached,
                false => Lifetime::Process,
            };
            let folder = self.request.blink.home().new_sandbox(lifetime)?;
            let recorded = match self.of.detached {
                true => publish::record(folder.path(), &self.request.spec.publish),
                false => Ok(()),
            };
            let recorded = recorded.and_then(|()| match &key {
                Some(key) => key.makes(folder.id()),
                None => Ok(()),
            });
            let place = Place {
                folder: folder.clone(),
                disk: folder.path().to_owned(),
                layers: Vec::new(),
                outlives: self.of.detached,
                shared: false,
            };
            let (outlives, blink) = (self.of.detached, self.request.blink.clone());
            let given_up = CancellationToken::new();
            let _giving_up = given_up.clone().drop_guard();
            let (taker, taken) = oneshot::channel();
            let booting = async move {
                // Nobody makes another with it meanwhile.
                let _key = key;
                let booted = match recorded {
                    Ok(()) => self.request.boot(parts, place, given_up).await,
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
        })
        .await
    }
}

/// The failure of whoever asks again for what somebody has.
pub(crate) fn made_already(id: &str, holder: Holder) -> Error {
    let message = format!(
        "the sandbox {id} was made with this key, and belongs to {holder}; use that, or another key"
    );
    Error::new(ErrorKind::Busy, message).held_by([holder])
}
