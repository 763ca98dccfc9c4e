//! The way in.

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use blink_archive::Limits;
use blink_image::{
    DEFAULT_IMAGE_LIMIT_BYTES, IdMap, ImageStore, PullOptions, PullPolicy, RegistryOptions,
};
use once_cell::sync::OnceCell;
use tokio_util::task::TaskTracker;

use crate::blocking::on_thread;
use crate::budget::Budget;
use crate::child::{self, Launcher};
use crate::disk::Disks;
use crate::engine::engines::{self, Engines};
use crate::engine::{Engine, Machine};
use crate::error::{Error, Result, Subject};
use crate::home::{Home, Lifetime};
use crate::isolation::{Isolation, IsolationChoice};
use crate::keys;
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

/// The sessions that are open in this process, by their ids: however often one is opened, it is one. What they are, only their
/// own module knows.
pub(crate) type OpenSessions = HashMap<String, Weak<dyn Any + Send + Sync>>;

struct Shared {
    home: Home,
    isolation: IsolationChoice,
    /// Whether the program has asked for that itself.
    isolation_is_asked: bool,
    boot_timeout: Duration,
    engines: Engines,
    images: OnceCell<Arc<ImageStore>>,
    disks: Disks,
    sessions: Mutex<OpenSessions>,
    pull: PullOptions,
    image_limit_bytes: u64,
    budget: Arc<Budget>,
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
    budget_memory_mib: Option<u64>,
    budget_sandboxes: Option<usize>,
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
    /// [`DEFAULT_IMAGE_LIMIT_BYTES`](blink_image::DEFAULT_IMAGE_LIMIT_BYTES), which is 16 GiB, by default. A larger one is
    /// refused with `ResourceExhausted`, as is what would take the last of the disk, and nothing of it stays.
    pub fn image_limit_bytes(mut self, bytes: u64) -> BlinkBuilder {
        self.image_limit_bytes = Some(bytes);
        self
    }

    /// What all sandboxes together may have that run for this `Blink`, of all its pools and beside them: memory in MiB, counted by
    /// their limits, and their number; no limit by default.
    ///
    /// What a pool keeps ready makes room for what somebody waits for. What does not fit then fails with `ResourceExhausted`.
    pub fn budget(
        mut self,
        memory_mib: impl Into<Option<u64>>,
        sandboxes: impl Into<Option<usize>>,
    ) -> BlinkBuilder {
        self.budget_memory_mib = memory_mib.into();
        self.budget_sandboxes = sandboxes.into();
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
        if self.budget_memory_mib == Some(0) || self.budget_sandboxes == Some(0) {
            return Err(Error::invalid(
                "a budget of 0 has room for no sandbox; leave it out for no limit",
            ));
        }
        let settings = Settings::load()?;
        let home = Home::open(self.home.or(settings.home))?;
        let policy = if self.offline.or(settings.offline).unwrap_or_default() {
            PullPolicy::Never
        } else {
            PullPolicy::Missing
        };
        let launcher = Launcher::in_home(home.path());
        let registry = settings
            .registry
            .beside(self.registry)
            .with_helpers(Arc::new(launcher));
        let shared = Shared {
            engines: Engines::new(home.clone()),
            disks: Disks::of(&home),
            home,
            isolation_is_asked: self.isolation.is_some(),
            isolation: self.isolation.or(settings.isolation).unwrap_or_default(),
            boot_timeout: settings.boot_timeout.unwrap_or(DEFAULT_BOOT_TIMEOUT),
            images: OnceCell::new(),
            sessions: Mutex::default(),
            pull: PullOptions::default()
                .with_policy(policy)
                .with_registry(registry),
            image_limit_bytes: self.image_limit_bytes.unwrap_or(DEFAULT_IMAGE_LIMIT_BYTES),
            budget: Budget::new(self.budget_memory_mib, self.budget_sandboxes),
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

impl Subject for Blink {
    fn subject(&self) -> String {
        format!("home {}", self.home_path().display())
    }
}

impl Blink {
    /// Starts to describe a `Blink`.
    pub fn builder() -> BlinkBuilder {
        BlinkBuilder::default()
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

    /// Takes over the machine in a folder, if it runs.
    pub(crate) async fn adopt(
        &self,
        folder: &Path,
    ) -> Result<Option<(Box<dyn Machine>, Isolation)>> {
        self.adopt_over(folder, folder).await
    }

    /// As [`adopt`](Blink::adopt), with a disk that is elsewhere.
    pub(crate) async fn adopt_over(
        &self,
        folder: &Path,
        disk: &Path,
    ) -> Result<Option<(Box<dyn Machine>, Isolation)>> {
        self.shared.engines.adopt(folder, disk).await
    }

    /// Boots in a task of its own.
    pub(crate) fn spawn_boot(&self, boot: impl Future<Output = ()> + Send + 'static) {
        self.shared.boots.spawn(boot);
    }

    /// As [`spawn_boot`](Blink::spawn_boot), on a runtime that the caller need not be in.
    pub(crate) fn spawn_boot_on(
        &self,
        runtime: &tokio::runtime::Handle,
        boot: impl Future<Output = ()> + Send + 'static,
    ) {
        self.shared.boots.spawn_on(boot, runtime);
    }

    /// The folder where everything is kept.
    pub fn home_path(&self) -> &Path {
        self.shared.home.path()
    }

    /// The isolation of sandboxes that do not ask for one.
    pub fn default_isolation(&self) -> IsolationChoice {
        self.shared.isolation
    }

    pub(crate) fn home(&self) -> &Home {
        &self.shared.home
    }

    /// How long the boot of a sandbox may take that does not say.
    pub(crate) fn boot_timeout(&self) -> Duration {
        self.shared.boot_timeout
    }

    /// The isolation that the program has asked for, whatever the host's settings are.
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

    /// What all sandboxes may have together.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    /// The disks of sessions.
    pub(crate) fn disks(&self) -> &Disks {
        &self.shared.disks
    }

    /// What has this locked opens sessions, and nobody else does meanwhile.
    pub(crate) fn open_sessions(&self) -> &Mutex<OpenSessions> {
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
        let orphans = on_thread(move || {
            keys::sweep(&home);
            home.orphans()
        });
        for folder in orphans.await? {
            let outlives = matches!(folder.lifetime(), Lifetime::Detached | Lifetime::Session);
            if outlives && engines::is_alive(folder.path()) {
                // Its agent should have seen that nobody is left.
                if engines::is_overdue(folder.path()) {
                    engines::end(folder.path()).await;
                }
                continue;
            }
            if folder.lifetime() == Lifetime::Session && self.has_session(folder.id()).await {
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

    /// Whether the registry knows a session of this id. If it cannot tell, it may.
    async fn has_session(&self, id: &str) -> bool {
        let id = id.to_owned();
        let row = self
            .disks()
            .with_registry(move |registry| registry.session_by_id(&id))
            .await;
        !matches!(row, Ok(None))
    }
}
