//! What all parts measure with: two homes, and in each a machine that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blink_core::{
    Blink, Command, IsolationChoice, PoolBuilder, Sandbox, SandboxSpec, SessionBuilder,
};

use crate::bare::{Bare, BareMachine};
use crate::image;
use crate::measure::Result;
use crate::options::{Options, Size};

/// A folder for the run, with the image.
pub(crate) struct Setting {
    size: Size,
    folder: tempfile::TempDir,
}

impl Setting {
    pub(crate) fn new(options: &Options) -> Result<Setting> {
        fs::create_dir_all(&options.folder)?;
        // Short: the engine's sockets are far below it, and the kernel limits their paths.
        let folder = tempfile::Builder::new()
            .prefix("vm-")
            .rand_bytes(4)
            .tempdir_in(fs::canonicalize(&options.folder)?)?;
        image::write(&layout(folder.path()))?;
        Ok(Setting {
            size: options.size,
            folder,
        })
    }

    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        self.size.pick(full, quick)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A folder for files, on the same file system as the machines' disks.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

fn layout(folder: &Path) -> PathBuf {
    folder.join("image")
}

/// Blink as its users have it, with the image of the run.
#[derive(Clone)]
pub(crate) struct Ours {
    blink: Blink,
    image: String,
}

impl Ours {
    pub(crate) async fn open(folder: &Path) -> Result<Ours> {
        let blink = Blink::builder()
            .home(folder.join("blink"))
            .isolation(IsolationChoice::Microvm)
            .build()
            .await?;
        let image = layout(folder).to_string_lossy().into_owned();
        Ok(Ours { blink, image })
    }

    /// A session of the image, to open.
    pub(crate) fn session(&self, name: &str) -> SessionBuilder {
        self.blink.session(name).image(&self.image)
    }

    /// A session to import.
    pub(crate) fn imported(&self, name: &str) -> SessionBuilder {
        self.blink.session(name)
    }

    /// A pool of such machines.
    pub(crate) fn pool(&self) -> PoolBuilder {
        let mut spec = SandboxSpec::default();
        spec.image = Some(self.image.clone());
        self.blink.pool(spec)
    }

    pub(crate) async fn boot(&self) -> Result<Sandbox> {
        Ok(self.blink.sandbox().image(&self.image).create().await?)
    }
}

pub(crate) async fn open_bare(folder: &Path) -> Result<Bare> {
    Bare::open(folder.join("bare"), layout(folder)).await
}

/// One machine of each, both running.
pub(crate) struct Machines {
    pub(crate) ours: Ours,
    pub(crate) bare: Bare,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) machine: Arc<BareMachine>,
}

impl Machines {
    pub(crate) async fn boot(setting: &Setting) -> Result<Machines> {
        let ours = Ours::open(setting.folder()).await?;
        let bare = open_bare(setting.folder()).await?;
        let sandbox = ours.boot().await?;
        let machine = bare.boot().await?;
        Ok(Machines {
            ours,
            bare,
            sandbox: Arc::new(sandbox),
            machine: Arc::new(machine),
        })
    }

    /// Whether one of the two is gone.
    pub(crate) async fn have_ended(&self) -> bool {
        self.sandbox.ping().await.is_err() || self.machine.exec(&["/bin/true"]).await.is_err()
    }

    pub(crate) async fn end(self) -> Result<()> {
        if let Some(sandbox) = Arc::into_inner(self.sandbox) {
            sandbox.remove().await?;
        }
        if let Some(machine) = Arc::into_inner(self.machine) {
            self.bare.remove(machine).await?;
        }
        Ok(())
    }
}

/// Runs a command through Blink, and returns what it wrote.
pub(crate) async fn exec(sandbox: &Sandbox, words: &[&str]) -> Result<Vec<u8>> {
    let command = Command::new(words[0]).args(&words[1..]);
    let output = sandbox.exec(command).await?;
    match output.status.success() {
        true => Ok(output.stdout.to_vec()),
        false => Err(format!("{} failed: {:?}", words[0], output.status).into()),
    }
}
