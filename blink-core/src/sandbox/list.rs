//! The sandboxes of a home.

use std::time::{Duration, UNIX_EPOCH};

use super::builder::{Builder, OfSandbox, SandboxBuilder};
use super::handle::Sandbox;
use super::info::SandboxInfo;
use crate::blink::Blink;
use crate::command::{Command, Defaults};
use crate::engine::engines;
use crate::error::{Error, ErrorKind, Result, during};
use crate::home::{self, Lifetime, SandboxFolder};
use crate::output::Output;
use crate::publish::{self, Bound};
use crate::spec::DEFAULT_BOOT_TIMEOUT;

impl Blink {
    /// Runs one command in a sandbox of its own, which is gone afterwards.
    ///
    /// # Errors
    /// Those of [`SandboxBuilder::create`] and [`Sandbox::exec`].
    pub async fn run(&self, command: Command) -> Result<Output> {
        during("run", self, async {
            let sandbox = self.sandbox().create().await?;
            let result = sandbox.exec(command).await;
            let removed = sandbox.remove().await;
            let output = result?;
            removed.map(|()| output)
        })
        .await
    }

    /// Describes a sandbox to make.
    pub fn sandbox(&self) -> SandboxBuilder {
        Builder::new(self.clone(), OfSandbox::default())
    }

    /// The ids of the sandboxes that were made detached and not removed.
    pub fn sandboxes(&self) -> Vec<String> {
        self.home().detached()
    }

    /// Details of a detached sandbox, whoever has it.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn sandbox_info(&self, id: &str) -> Result<SandboxInfo> {
        let home = self.home();
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

    /// Takes up a detached sandbox that an earlier process has made.
    ///
    /// Its programs run as before; the environment, folder and user that it was made with no longer apply to new ones.
    /// Its ports are published again; where any port of the host was asked for, it may be another than before.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while another process has it, or a port to publish; `SandboxDied` if it has ended.
    pub async fn open(&self, id: &str) -> Result<Sandbox> {
        during("open", &*format!("sandbox {id}"), async {
            let folder = self.take_folder(id).await?;
            let Some((machine, isolation)) = self.adopt(folder.path()).await? else {
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
        })
        .await
    }

    /// The folder of a detached sandbox. A start of another process looks at each for a moment, which is waited for.
    async fn take_folder(&self, id: &str) -> Result<SandboxFolder> {
        const TRIES: u32 = 50;
        const PAUSE: Duration = Duration::from_millis(10);
        for _ in 0..TRIES {
            match self.home().open_sandbox(id, Lifetime::Detached) {
                Err(error) if error.kind() == ErrorKind::Busy => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
        }
        self.home().open_sandbox(id, Lifetime::Detached)
    }
}
