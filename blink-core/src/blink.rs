//! The way in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::OnceCell;

use crate::command::{Command, Defaults, Output};
use crate::engine::Engine;
use crate::engine::namespace::NamespaceEngine;
use crate::error::{Error, ErrorKind, Result};
use crate::home::{Home, SandboxFolder};
use crate::image::{IdMap, ImageSource, ImageStore, Rootfs};
use crate::isolation::IsolationChoice;
use crate::sandbox::{Sandbox, SandboxBuilder};

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
    /// Made when the first sandbox asks for it: a machine that cannot have one can still do everything else.
    namespace: OnceCell<Arc<NamespaceEngine>>,
    images: OnceCell<Arc<ImageStore>>,
}

/// How to build a [`Blink`].
#[derive(Debug, Clone, Default)]
pub struct BlinkBuilder {
    home: Option<PathBuf>,
    isolation: IsolationChoice,
}

impl BlinkBuilder {
    /// The folder for everything that Blink keeps: sandboxes, images. `BLINK_HOME` or `~/.blink` by default.
    pub fn home(mut self, home: impl Into<PathBuf>) -> BlinkBuilder {
        self.home = Some(home.into());
        self
    }

    /// The isolation of sandboxes that do not say: `Microvm` by default.
    pub fn isolation(mut self, isolation: IsolationChoice) -> BlinkBuilder {
        self.isolation = isolation;
        self
    }

    /// Opens the home, and removes what host processes that are gone have left in it.
    ///
    /// # Errors
    /// `InvalidArgument` where the home cannot be used.
    pub async fn build(self) -> Result<Blink> {
        let home = Home::open(self.home)?;
        let shared = Shared {
            home,
            isolation: self.isolation,
            namespace: OnceCell::new(),
            images: OnceCell::new(),
        };
        let blink = Blink {
            shared: Arc::new(shared),
        };
        blink.sweep().await;
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

    /// The ids of the sandboxes that were made detached and not removed.
    pub fn sandboxes(&self) -> Vec<String> {
        self.shared.home.detached()
    }

    /// Takes up a detached sandbox that an earlier process has made.
    ///
    /// Its programs run as before; the environment, folder and user that it was made with no longer apply to new ones.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while another process has it; `SandboxDied` where it has ended.
    pub async fn open(&self, id: &str) -> Result<Sandbox> {
        let folder = self.take_folder(id).await?;
        let engine = self.namespace()?;
        let Some(machine) = engine.adopt(folder.path()).await? else {
            let message = format!("the sandbox {id} has ended, and was removed");
            engine.discard(folder.path()).await?;
            folder.remove()?;
            return Err(Error::new(ErrorKind::SandboxDied, message));
        };
        let mut sandbox = Sandbox::assemble(
            folder,
            machine.into(),
            engine.isolation(),
            Defaults::default(),
        )
        .adopted();
        sandbox
            .connect(crate::sandbox::DEFAULT_BOOT_TIMEOUT)
            .await?;
        Ok(sandbox)
    }

    /// The folder of a detached sandbox. A start of another process looks at each for a moment, which is waited for.
    async fn take_folder(&self, id: &str) -> Result<SandboxFolder> {
        const TRIES: u32 = 50;
        const PAUSE: Duration = Duration::from_millis(10);
        for _ in 0..TRIES {
            match self.shared.home.open_sandbox(id) {
                Err(error) if error.kind() == ErrorKind::Busy => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
        }
        self.shared.home.open_sandbox(id)
    }

    pub(crate) fn home(&self) -> &Home {
        &self.shared.home
    }

    /// The engine for an isolation.
    pub(crate) fn engine(&self, asked: Option<IsolationChoice>) -> Result<Arc<dyn Engine>> {
        match asked.unwrap_or(self.shared.isolation) {
            IsolationChoice::Microvm => Err(Error::new(
                ErrorKind::IsolationUnavailable,
                "this version of Blink has no micro-VMs yet; to accept namespaces, which share the host's kernel, \
                 ask for isolation \"namespace\", or \"auto\" for the strongest that works (--isolation auto)",
            )),
            IsolationChoice::Namespace | IsolationChoice::Auto => Ok(self.namespace()?),
        }
    }

    fn namespace(&self) -> Result<Arc<NamespaceEngine>> {
        self.shared
            .namespace
            .get_or_try_init(|| NamespaceEngine::open(&self.shared.home).map(Arc::new))
            .cloned()
    }

    /// The root folder of an image; `None` for the host's own programs.
    pub(crate) async fn rootfs(&self, source: ImageSource) -> Result<Option<Rootfs>> {
        if source == ImageSource::Host {
            return Ok(None);
        }
        let shared = self.shared.clone();
        let unpacking = tokio::task::spawn_blocking(move || -> Result<Rootfs> {
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
            let store = shared
                .images
                .get_or_try_init(|| ImageStore::open(shared.home.images(), ids).map(Arc::new))?;
            Ok(store.rootfs(&source, &|_| {})?)
        });
        unpacking
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
            .map(Some)
    }

    /// Removes what processes that are gone have left. What fails here is tried again at the next start.
    async fn sweep(&self) {
        for folder in self.shared.home.orphans() {
            let engine = crate::engine::namespace::Leftovers;
            if folder.detached() && engine.is_alive(folder.path()) {
                continue;
            }
            engine.end(folder.path()).await;
            tracing::info!(
                sandbox = folder.id(),
                "removing what a host process has left"
            );
            if let Err(error) = folder.remove() {
                tracing::warn!(%error, "a left-over sandbox could not be removed");
            }
        }
    }
}
