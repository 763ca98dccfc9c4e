//! What provides sandboxes. An engine makes, boots and ends machines and opens links to their agents; everything else
//! goes through the agent, the same for every engine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use blink_host::transfer::Tell;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::link::LinkIo;
use crate::spec::{Mount, Network, Resources};

pub(crate) mod engines;
mod host_root;
pub(crate) mod hypervisor;
pub(crate) mod kind;
#[cfg(feature = "microvm")]
pub(crate) mod microvm;
pub(crate) mod namespace;
mod record;
#[cfg(any(test, feature = "scripted"))]
pub mod scripted;
pub(crate) mod tree;
mod unfinished;

/// A machine to boot.
#[derive(Debug, Clone)]
pub(crate) struct MachineSpec {
    /// Names the machine among all of this home's.
    pub(crate) id: String,
    pub(crate) host_name: String,
    /// The machine's own folder, which exists.
    pub(crate) folder: PathBuf,
    /// The folder of what it writes, which [`Engine::make_disk`] has made, or which is empty.
    pub(crate) disk: PathBuf,
    /// The folders of the layers between the image and the disk, the lowest first.
    pub(crate) layers: Vec<PathBuf>,
    /// The image, in the engine's form; `None` is the host's own programs.
    pub(crate) rootfs: Option<PathBuf>,
    pub(crate) resources: Resources,
    pub(crate) network: Network,
    pub(crate) mounts: Vec<Mount>,
    /// Goes on when this process ends.
    pub(crate) detached: bool,
    /// Other processes open links of their own to it. Where it does not go on by itself, it ends with the last link.
    pub(crate) shared: bool,
    /// How long it may take until it is up.
    pub(crate) boot_timeout: Duration,
    /// Nobody waits for it any more: the boot ends, and undoes what it has done.
    #[cfg_attr(
        not(feature = "microvm"),
        expect(dead_code, reason = "only micro-VMs take long")
    )]
    pub(crate) given_up: CancellationToken,
}

/// What an engine makes a machine's root of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootForm {
    /// A folder that can be mounted.
    Folder,
    /// A folder in OCI layout.
    #[cfg_attr(
        not(feature = "microvm"),
        expect(dead_code, reason = "only micro-VMs need it")
    )]
    Layout,
}

/// What a copy of a disk is worth.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Consistency {
    /// As after a power cut: what programs had not written to the disk is not there.
    Crash,
    /// All that programs had written at one moment is there.
    Frozen,
    /// No program ran.
    Stopped,
}

impl Consistency {
    /// `stopped`, `frozen` or `crash`.
    pub const fn name(self) -> &'static str {
        match self {
            Consistency::Crash => "crash",
            Consistency::Frozen => "frozen",
            Consistency::Stopped => "stopped",
        }
    }
}

/// What a boot that was given up comes to. Nobody is there to be told.
pub(crate) fn given_up() -> Error {
    Error::new(ErrorKind::Timeout, "the boot was given up")
}

/// The memory of this host.
pub(crate) fn host_memory_mib() -> u64 {
    let info = rustix::system::sysinfo();
    let bytes = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    bytes >> 20
}

/// Boots machines of one kind.
#[async_trait]
pub(crate) trait Engine: Send + Sync {
    fn root_form(&self) -> RootForm;

    /// Boots a machine; it is ready when its first link answers. Where it fails, nothing of it runs any more.
    async fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>>;

    /// Makes a disk in an empty folder that begins with what a layer holds. Neither may be in use by a machine; the
    /// layer's disk is never written to again. Waits for the disk.
    fn make_disk(&self, disk: &Path, over: &Path) -> Result<()>;

    /// Whether a disk over these layers, the lowest first, is better had over fewer: [`Engine::merge`] makes one of several.
    fn is_deep(&self, layers: &[PathBuf]) -> bool;

    /// Makes in an empty folder a layer that shows what several do, the lowest first, over those beneath them, which go
    /// before. None of them is ever written to again.
    async fn merge(&self, beneath: &[PathBuf], layers: &[PathBuf], into: &Path) -> Result<()>;

    /// Whether a disk can become a layer as it is. Otherwise [`Engine::settle`] comes first.
    fn is_settled(&self, disk: &Path) -> Result<bool>;

    /// Makes a disk ready to become a layer, over the layers beneath it, the lowest first, and the image beneath these. No
    /// machine may use it.
    async fn settle(&self, disk: &Path, layers: &[PathBuf], rootfs: Option<&Path>) -> Result<()>;

    /// Writes a disk and all layers beneath it, the lowest first, to a file that is there whole or not at all, with what
    /// there is to say of the session. No machine may use them.
    async fn export(
        &self,
        disk: &Path,
        layers: &[PathBuf],
        rootfs: Option<&Path>,
        archive: &Path,
        about: About<'_>,
    ) -> Result<()>;

    /// How to write what a disk and the layers beneath it, the lowest first, come to over their image. `None` if only a
    /// machine can read a disk, and gives the whole root.
    fn pack_layer(
        &self,
        disk: &Path,
        layers: &[PathBuf],
        rootfs: Option<&Path>,
    ) -> Option<PackLayer>;

    /// Opens what [`export`](Engine::export) has written, or someone else: it is checked first.
    async fn open_archive(&self, archive: &Path) -> Result<Box<dyn Archive>>;

    /// Takes over a machine that an earlier process has booted; `None` if it does not run.
    async fn adopt(&self, folder: &Path, disk: &Path) -> Result<Option<Box<dyn Machine>>>;

    /// Ends whatever runs of a machine whose process is gone, and removes its folder.
    async fn discard(&self, folder: &Path) -> Result<()>;
}

/// Writes a layer of an image, as a tar.
pub(crate) type PackLayer = Box<dyn FnOnce(&mut dyn Write) -> Result<()> + Send>;

/// What an export says of the session, and to whom it tells how far it is.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) session: &'a [u8],
    pub(crate) tell: &'a Tell,
}

/// A disk in a file.
#[async_trait]
pub(crate) trait Archive: Send {
    /// What was said of its session.
    fn session(&self) -> Option<&[u8]>;

    /// Reads the disk into an empty folder. Where it fails, nothing is left there.
    async fn unpack(self: Box<Self>, target: &Target<'_>) -> Result<()>;
}

/// Where the disk of an archive goes.
pub(crate) struct Target<'a> {
    /// An empty folder. The disk stands alone, but for the image.
    pub(crate) disk: &'a Path,
    /// The image, in the engine's form; `None` is the host's own programs.
    pub(crate) rootfs: Option<&'a Path>,
    /// What the disk may hold.
    pub(crate) limit_mib: u64,
    pub(crate) tell: &'a Tell,
}

/// One machine that was booted.
#[async_trait]
pub(crate) trait Machine: Send + Sync {
    /// Opens a channel to the agent.
    async fn open_link(&self) -> Result<LinkIo>;

    /// Waits a moment for the machine's end; says how it ended and what it printed last. `None` if it goes on.
    async fn last_words(&self) -> Option<String>;

    /// Why the machine did not boot, where it ended before its first link was answered; `None` if it goes on, or
    /// the engine knows no more than its last words.
    async fn boot_failure(&self) -> Option<Error>;

    /// Copies what the disk holds at this moment to an empty folder, while the machine stands still. Its parent is the
    /// disk's own. `frozen` says that the agent has written everything to the disk.
    async fn snapshot(&self, layer: &Path, frozen: bool) -> Result<Consistency>;

    /// Has its programs use no more of the memory from now on; `false` if that is for its agent to see to.
    fn limit_memory(&self, _memory_mib: u64) -> Result<bool> {
        Ok(false)
    }

    /// The folder of its disk is somewhere else now.
    fn disk_moved(&self, disk: &Path);

    /// Whether it runs, which its links hear of a moment later.
    fn is_alive(&self) -> bool;

    /// Ends the machine now. Does not wait.
    fn kill(&self);

    /// Waits until nothing of the machine runs.
    async fn gone(&self);
}
