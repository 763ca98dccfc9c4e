//! The way in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, UNIX_EPOCH};

use blink_archive::Limits;
use once_cell::sync::OnceCell;
use tokio_util::task::TaskTracker;

use crate::blocking::on_thread;
use crate::child::{self, Launcher};
use crate::command::{Command, Defaults};
use crate::engine::Engine;
use crate::engine::engines::{self, Engines};
use crate::error::{Error, ErrorKind, Result};
use crate::home::{self, Home, Lifetime, SandboxFolder};
use crate::image::{
    DEFAULT_IMAGE_LIMIT_BYTES, IdMap, ImageStore, PullOptions, PullPolicy, RegistryOptions,
};
use crate::isolation::{Isolation, IsolationChoice};
use crate::output::Output;
use crate::publish::{self, Bound};
use crate::sandbox::{Sandbox, SandboxBuilder, SandboxInfo};
use crate::session::{self, Registry};
use crate::settings::Settings;
use crate::spec::DEFAULT_BOOT_TIMEOUT;

/// Everything that Blink does begins here. Cheap to clone; all clones are one.
///
/// It must be used inside a Tokio runtime, and lives as long as that runtime.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> blink_core::Result<()> {
/// use blink_core::{Blink, Command, IsolationChoice};
/// let blink = Blink::builder().isolation(IsolationChoice::Auto).build().await?;
/// let output = blink.run(Command::new("python3").args(["-c", "print(6 * 7)"])).await?;
/// assert_eq!(output.text(), "42\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Blink {
    shared: Arc<Shared>,
}

struct Shared {
    home: Home,
    isolation: IsolationChoice,
    /// Whether the program has asked for that itself.
    isolation_is_asked: bool,
    boot_timeout: Duration,
    engines: Engines,
    images: OnceCell<Arc<ImageStore>>,
    registry: OnceCell<Arc<Mutex<Registry>>>,
    /// The sessions that are open, by their ids: however often one is opened, it is one.
    sessions: Mutex<HashMap<String, Weak<session::Core>>>,
    /// What opening the registry has freed, until somebody is told.
    freed_bytes: AtomicU64,
    pull: PullOptions,
    image_limit_bytes: u64,
    /// Boots, which come to their end, or are undone, whoever waits for them. Closed from the beginning, which ends nothing:
    /// it can be waited for.
    boots: TaskTracker,
}

/// How to build a [`Blink`].
#[derive(Debug, Clone, Default)]
pub struct BlinkBuilder {
    home: Option<PathBuf>,
    isolation: Option<IsolationChoice>,
    offline: Option<bool>,
    registry: RegistryOptions,
    image_limit_bytes: Option<u64>,
}

impl BlinkBuilder {
    /// The folder for everything that Blink keeps: sandboxes, images. `BLINK_HOME`, `home` of the settings' file, or `~/.blink` by
    /// default.
    pub fn home(mut self, home: impl Into<PathBuf>) -> BlinkBuilder {
        self.home = Some(home.into());
        self
    }

    /// The isolation of sandboxes that do not say: `BLINK_ISOLATION`, `isolation` of the settings' file, or `Microvm` by default.
    pub fn isolation(mut self, isolation: IsolationChoice) -> BlinkBuilder {
        self.isolation = Some(isolation);
        self
    }

    /// Whether the network is never used: then images are those that are stored, and those of folders and files.
    /// `BLINK_OFFLINE`, `offline` of the settings' file, or `false` by default.
    pub fn with_offline(mut self, offline: bool) -> BlinkBuilder {
        self.offline = Some(offline);
        self
    }

    /// How registries are reached: mirrors, plain HTTP, private certificate authorities, credentials.
    pub fn with_registry(mut self, registry: RegistryOptions) -> BlinkBuilder {
        self.registry = registry;
        self
    }

    /// How many bytes the layers of an image may have together, as they are stored and as they are unpacked;
    /// [`DEFAULT_IMAGE_LIMIT_BYTES`](crate::image::DEFAULT_IMAGE_LIMIT_BYTES), which is 16 GiB, by default. A larger one is
    /// refused with `ResourceExhausted`, as is what would take the last of the disk, and nothing of it stays.
    pub fn image_limit_bytes(mut self, bytes: u64) -> BlinkBuilder {
        self.image_limit_bytes = Some(bytes);
        self
    }

    /// Opens the home, and removes what host processes that are gone have left in it.
    ///
    /// What this does not say is taken from the environment, and then from the settings' file, `blink/config.toml` in
    /// `XDG_CONFIG_HOME` or `~/.config`.
    ///
    /// # Errors
    /// `InvalidArgument` if the home cannot be used, or is another user's, or settings cannot be right; `Busy` if another process that uses it is
    /// stopped at a moment at which nobody else can.
    pub async fn build(self) -> Result<Blink> {
        child::fill_standard_descriptors();
        if self.image_limit_bytes == Some(0) {
            return Err(Error::invalid(
                "image_limit_bytes is 0, which no image fits; leave it out for 16 GiB",
            ));
        }
        let settings = Settings::load()?;
        let home = Home::open(self.home.or(settings.home))?;
        let policy = if self.offline.or(settings.offline).unwrap_or_default() {
            PullPolicy::Never
        } else {
            PullPolicy::Missing
        };
        let mut registry = self.registry.or(settings.registry);
        registry.launcher = Some(Launcher::in_home(home.path()));
        let shared = Shared {
            engines: Engines::new(home.clone()),
            home,
            isolation_is_asked: self.isolation.is_some(),
            isolation: self.isolation.or(settings.isolation).unwrap_or_default(),
            boot_timeout: settings.boot_timeout.unwrap_or(DEFAULT_BOOT_TIMEOUT),
            images: OnceCell::new(),
            registry: OnceCell::new(),
            sessions: Mutex::default(),
            freed_bytes: AtomicU64::new(0),
            pull: PullOptions::default()
                .with_policy(policy)
                .with_registry(registry),
            image_limit_bytes: self.image_limit_bytes.unwrap_or(DEFAULT_IMAGE_LIMIT_BYTES),
            boots: TaskTracker::new(),
        };
        shared.boots.close();
        let blink = Blink {
            shared: Arc::new(shared),
        };
        blink.sweep().await?;
        Ok(blink)
    }
}

impl Blink {
    /// Starts to describe a `Blink`.
    pub fn builder() -> BlinkBuilder {
        BlinkBuilder::default()
    }

    /// Runs one command in a sandbox of its own, which is gone afterwards.
    ///
    /// # Errors
    /// Those of [`SandboxBuilder::create`] and [`Sandbox::exec`].
    pub async fn run(&self, command: Command) -> Result<Output> {
        let sandbox = self.sandbox().create().await?;
        let result = sandbox.exec(command).await;
        let removed = sandbox.remove().await;
        let output = result?;
        removed.map(|()| output)
    }

    /// Describes a sandbox to make.
    pub fn sandbox(&self) -> SandboxBuilder {
        SandboxBuilder::new(self.clone())
    }

    /// Waits until all sandboxes that are being made are made, and nothing is left of those that were given up while they
    /// were. What a program does before it ends, if it gives some up.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(blink: blink_core::Blink) -> blink_core::Result<()> {
    /// let patience = std::time::Duration::from_millis(100);
    /// let made = tokio::time::timeout(patience, blink.sandbox().create()).await;
    /// # drop(made);
    /// blink.settled().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn settled(&self) {
        self.shared.boots.wait().await;
    }

    /// Boots in a task of its own.
    pub(crate) fn spawn_boot(&self, boot: impl Future<Output = ()> + Send + 'static) {
        self.shared.boots.spawn(boot);
    }

    /// The ids of the sandboxes that were made detached and not removed.
    pub fn sandboxes(&self) -> Vec<String> {
        self.shared.home.detached()
    }

    /// Details of a detached sandbox, whoever has it.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn sandbox_info(&self, id: &str) -> Result<SandboxInfo> {
        let home = &self.shared.home;
        let found = home.detached().into_iter().find(|known| known == id);
        let folder = found.map(|id| home.sandboxes().join(id));
        let made = folder
            .as_ref()
            .and_then(|folder| std::fs::metadata(folder).ok());
        let (Some(folder), Some(made)) = (folder, made) else {
            return Err(home::missing(id));
        };
        // Its boot is not over, or was broken off.
        let isolation = engines::isolation_of(&folder).ok_or_else(|| home::missing(id))?;
        Ok(SandboxInfo {
            id: id.to_owned(),
            isolation,
            running: engines::is_alive(&folder),
            created_at: made.created().or(made.modified()).unwrap_or(UNIX_EPOCH),
        })
    }

    /// The folder where everything is kept.
    pub fn home_path(&self) -> &Path {
        self.shared.home.path()
    }

    /// The isolation of sandboxes that do not ask for one.
    pub fn default_isolation(&self) -> IsolationChoice {
        self.shared.isolation
    }

    /// Takes up a detached sandbox that an earlier process has made.
    ///
    /// Its programs run as before; the environment, folder and user that it was made with no longer apply to new ones.
    /// Its ports are published again; where any port of the host was asked for, it may be another than before.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while another process has it, or a port to publish; `SandboxDied` if it has ended.
    pub async fn open(&self, id: &str) -> Result<Sandbox> {
        let folder = self.take_folder(id).await?;
        let Some((machine, isolation)) = self
            .shared
            .engines
            .adopt(folder.path(), folder.path())
            .await?
        else {
            folder.remove()?;
            let message = format!("the sandbox {id} has ended, and was removed");
            return Err(Error::new(ErrorKind::SandboxDied, message));
        };
        let ports = publish::recorded(folder.path());
        let mut sandbox =
            Sandbox::assemble(folder, machine.into(), isolation, Defaults::default()).adopted();
        let ports = Bound::bind(&ports?)?;
        sandbox
            .connect(std::time::Instant::now(), DEFAULT_BOOT_TIMEOUT)
            .await?;
        sandbox.publish(ports)?;
        Ok(sandbox)
    }

    /// The folder of a detached sandbox. A start of another process looks at each for a moment, which is waited for.
    async fn take_folder(&self, id: &str) -> Result<SandboxFolder> {
        const TRIES: u32 = 50;
        const PAUSE: Duration = Duration::from_millis(10);
        for _ in 0..TRIES {
            match self.shared.home.open_sandbox(id, Lifetime::Detached) {
                Err(error) if error.kind() == ErrorKind::Busy => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
        }
        self.shared.home.open_sandbox(id, Lifetime::Detached)
    }

    pub(crate) fn home(&self) -> &Home {
        &self.shared.home
    }

    /// How long the boot of a sandbox may take that does not say.
    pub(crate) fn boot_timeout(&self) -> Duration {
        self.shared.boot_timeout
    }

    /// The isolation that the program has asked for, whatever a machine's settings are.
    pub(crate) fn asked_isolation(&self) -> Option<IsolationChoice> {
        self.shared
            .isolation_is_asked
            .then_some(self.shared.isolation)
    }

    /// The isolation of a sandbox that asks for `choice`.
    pub(crate) async fn choose(&self, choice: Option<IsolationChoice>) -> Result<Isolation> {
        let choice = choice.unwrap_or(self.shared.isolation);
        self.shared.engines.choose(choice).await
    }

    pub(crate) async fn engine(&self, isolation: Isolation) -> Result<Arc<dyn Engine>> {
        self.shared.engines.open(isolation).await
    }

    /// The list of sessions; it may take a moment to open it.
    pub(crate) fn registry(&self) -> Result<Arc<Mutex<Registry>>> {
        let open = || {
            let registry = Arc::new(Mutex::new(Registry::open(self.shared.home.path())?));
            // What processes that are gone were making. What cannot be told stays.
            match self.layers().prune(&registry) {
                Ok(freed_bytes) => {
                    let counted = &self.shared.freed_bytes;
                    counted.fetch_add(freed_bytes, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::debug!(%error, "layers that nobody needs are collected later")
                }
            }
            Ok::<_, Error>(registry)
        };
        self.shared.registry.get_or_try_init(open).cloned()
    }

    /// The registry, where it was opened already.
    pub(crate) fn opened_registry(&self) -> Option<Arc<Mutex<Registry>>> {
        self.shared.registry.get().cloned()
    }

    /// The bytes that opening the registry has freed, told once.
    pub(crate) fn take_freed_bytes(&self) -> u64 {
        self.shared.freed_bytes.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn open_sessions(&self) -> &Mutex<HashMap<String, Weak<session::Core>>> {
        &self.shared.sessions
    }

    pub(crate) fn pull_options(&self) -> &PullOptions {
        &self.shared.pull
    }

    /// The store of images; it looks at all files under construction in it, so that this may take a moment.
    pub(crate) fn open_image_store(&self) -> Result<Arc<ImageStore>> {
        let ids = match crate::engine::namespace::id_base() {
            Some(uid_base) => IdMap {
                uid_base,
                single: false,
            },
            None => IdMap {
                uid_base: 0,
                single: true,
            },
        };
        let home = &self.shared.home;
        let open = || -> Result<Arc<ImageStore>> {
            let limits = Limits::default().with_total_bytes(self.shared.image_limit_bytes);
            let store = ImageStore::open(home.images(), ids)?
                .with_users(home.sandboxes())
                .with_limits(limits);
            Ok(Arc::new(store))
        };
        self.shared.images.get_or_try_init(open).cloned()
    }

    /// Removes what processes that are gone have left. What fails here is tried again at the next start.
    ///
    /// # Errors
    /// `Busy` if another process that is making a sandbox does not come to its end.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let home = self.shared.home.clone();
        for folder in on_thread(move || home.orphans()).await? {
            let outlives = folder.lifetime() != Lifetime::Process;
            if outlives && engines::is_alive(folder.path()) {
                // Its agent should have seen that nobody is left.
                if engines::is_overdue(folder.path()) {
                    engines::end(folder.path()).await;
                }
                continue;
            }
            if folder.lifetime() == Lifetime::Session && self.is_session(folder.id()).await {
                continue;
            }
            engines::end(folder.path()).await;
            tracing::info!(
                sandbox = folder.id(),
                "removing what a host process has left"
            );
            if let Err(error) = folder.remove() {
                tracing::warn!(%error, "a left-over sandbox could not be removed");
            }
        }
        Ok(())
    }
}
