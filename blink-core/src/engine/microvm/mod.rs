//! Sandboxes in micro-VMs, made by BoxLite: each has a kernel of its own, behind the processor's virtualisation.
//!
//! BoxLite boots, stops and copies the machines. Everything else goes through Blink's agent, which is the machine's
//! first program, over a socket of the hypervisor's that the agent dials: `docs/adr/0004-microvm-engine.md` says why.

mod archive;
mod console;
mod derived;
mod disk;
mod failure;
mod filter;
mod flat;
mod host_image;
mod import;
mod link;
mod machine;
mod options;
mod owner;
mod postscript;
mod qcow2;
mod record;
mod runtime;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;

use super::hypervisor;
use super::kind::{Capabilities, Kind, Left, Share};
use super::record as engine_record;
use super::{About, Archive, Engine, Machine, MachineSpec, PackLayer, RootForm, Target};
use crate::blocking::on_thread;
use crate::error::{Error, ErrorKind, Result};
use crate::guest_binary;
use crate::home::Home;
use crate::isolation::Isolation;
use disk::Disk;
use import::MicrovmArchive;
use machine::MicrovmMachine;
use record::Record;
use runtime::Runtime;

/// How long BoxLite waits for a machine to be ready, whatever time a boot is given.
const ENGINE_PATIENCE: Duration = Duration::from_secs(30);

/// What there is to know of the engine before it is opened.
pub(crate) struct Microvm;

#[async_trait]
impl Kind for Microvm {
    fn isolation(&self) -> Isolation {
        Isolation::Microvm
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            isolates: true,
            ..Capabilities::default()
        }
    }

    fn default_share(&self) -> Share {
        Share {
            cpus: options::default_cpus().into(),
            memory_mib: options::DEFAULT_MEMORY_MIB,
        }
    }

    async fn probe(&self, home: &Home) -> Result<std::result::Result<(), String>> {
        let home = home.path().to_owned();
        on_thread(move || Ok(hypervisor::usable(&home))).await
    }

    fn unavailable(&self) -> String {
        "micro-VMs cannot run here; to accept namespaces, which share the host's kernel, give --isolation auto, or set \
         BLINK_ISOLATION=auto ('blink doctor' says why)"
            .into()
    }

    async fn open(&self, home: &Home) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(MicrovmEngine::open(home).await?))
    }

    fn left(&self, _folder: &Path, record: Value) -> Option<Box<dyn Left>> {
        let record: Record = serde_json::from_value(record).ok()?;
        Some(Box::new(record))
    }

    fn prune(&self, home: &Path) -> std::io::Result<u64> {
        derived::prune(home)
    }
}

/// The engine, opened once.
pub(crate) struct MicrovmEngine {
    runtime: Arc<Runtime>,
    home: Home,
    /// The folder with the guest agent.
    agent: PathBuf,
    /// The program that sets the hypervisor's filter: the agent's own.
    launcher: PathBuf,
}

impl MicrovmEngine {
    /// Opens the engine; waits a while for another process that has it.
    ///
    /// # Errors
    /// `Busy` with that process; `IsolationUnavailable` if the parts that it needs are missing.
    pub(crate) async fn open(home: &Home) -> Result<MicrovmEngine> {
        let not_put = |error: &std::io::Error| {
            Error::io("the guest agent could not be put into Blink's home", error)
        };
        let agent = guest_binary::install(home.path()).map_err(|error| not_put(&error))?;
        let launcher =
            guest_binary::install_embedded(home.path()).map_err(|error| not_put(&error))?;
        let runtime = Runtime::open(home).await?;
        Ok(MicrovmEngine {
            runtime,
            home: home.clone(),
            agent: agent.parent().unwrap_or(&agent).to_owned(),
            launcher,
        })
    }
}

impl MicrovmEngine {
    /// From the disk in the sandbox's folder, where there is one.
    async fn boot_machine(&self, spec: &MachineSpec) -> Result<MicrovmMachine> {
        // Until its disk is made from it.
        let (mut root, shown, _used) = match &spec.rootfs {
            Some(layout) => (layout.clone(), Vec::new(), None),
            None => self.prepare(host_image::prepare).await?,
        };
        if Disk::of(&spec.disk).exists() {
            root = self.prepare(host_image::blank).await?;
        }
        let mounts = options::Mounts {
            agent: &self.agent,
            shown: &shown,
        };
        let started = Instant::now();
        loop {
            let secret = link::new_secret()?;
            let options = options::describe(spec, &root, &mounts, &secret)?;
            let (begun, launcher) = (Instant::now(), &*self.launcher);
            let booted =
                MicrovmMachine::boot(&self.runtime, spec, started, options, secret, launcher);
            match booted.await {
                // What was read for it is in memory now: the next attempt is faster.
                Err(error)
                    if begun.elapsed() >= ENGINE_PATIENCE
                        && started.elapsed() < spec.boot_timeout
                        && !spec.given_up.is_cancelled() =>
                {
                    tracing::debug!(%error, "a micro-VM is booted once more");
                }
                booted => return booted,
            }
        }
    }

    async fn prepare<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Home) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let home = self.home.clone();
        on_thread(move || make(&home)).await
    }
}

fn not_kept(error: std::io::Error) -> Error {
    Error::io("the sandbox's disk could not be kept", &error)
}

fn not_read(error: &std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    let what = "the session's disk cannot be read";
    match error.kind() {
        InvalidData | UnexpectedEof => Error::new(ErrorKind::Corrupt, format!("{what}: {error}")),
        _ => Error::io(what, error),
    }
}

#[async_trait]
impl Archive for MicrovmArchive {
    fn session(&self) -> Option<&[u8]> {
        self.session.as_deref()
    }

    async fn unpack(self: Box<Self>, target: &Target<'_>) -> Result<()> {
        let (disk, tell) = (target.disk.to_owned(), target.tell.clone());
        let limit_gib = options::largest_disk_gib(target.limit_mib);
        on_thread(move || self.import(&disk, limit_gib, &tell)).await
    }
}

#[async_trait]
impl Engine for MicrovmEngine {
    fn root_form(&self) -> RootForm {
        RootForm::Layout
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>> {
        Ok(Box::new(self.boot_machine(spec).await?))
    }

    fn make_disk(&self, disk: &Path, over: &Path) -> Result<()> {
        // A layer that no machine has booted from holds nothing: the image is to come.
        match Disk::of(over) {
            layer if layer.exists() => Disk::of(disk).lay_over(&layer).map_err(not_kept),
            _ => Ok(()),
        }
    }

    fn is_deep(&self, layers: &[PathBuf]) -> bool {
        layers.len() > disk::DEEPEST
    }

    async fn merge(&self, beneath: &[PathBuf], layers: &[PathBuf], into: &Path) -> Result<()> {
        let disks = |folders: &[PathBuf]| -> Vec<_> {
            let disks = folders.iter().map(|folder| Disk::of(folder));
            disks.filter(Disk::exists).collect()
        };
        let (beneath, merged, into) = (disks(beneath), disks(layers), Disk::of(into));
        let images = self.runtime.image_disks();
        on_thread(move || {
            let flat = match merged.split_last() {
                // No machine has booted from any.
                None => return Ok(()),
                Some((top, rest)) => top.merged(rest, beneath.last(), &images),
            };
            let flat = flat.map_err(|error| not_read(&error))?;
            into.write(&flat)
                .map_err(|error| Error::io("layers could not be merged", &error))
        })
        .await
    }

    fn is_settled(&self, _disk: &Path) -> Result<bool> {
        Ok(true)
    }

    async fn settle(
        &self,
        _disk: &Path,
        _layers: &[PathBuf],
        _rootfs: Option<&Path>,
    ) -> Result<()> {
        Ok(())
    }

    async fn export(
        &self,
        disk: &Path,
        layers: &[PathBuf],
        _rootfs: Option<&Path>,
        archive: &Path,
        about: About<'_>,
    ) -> Result<()> {
        let image = self.prepare(host_image::blank).await?;
        let (disk, images) = (Disk::of(disk), self.runtime.image_disks());
        let beneath: Vec<_> = layers.iter().map(|folder| Disk::of(folder)).collect();
        if !disk.exists() {
            return Err(Error::invalid(
                "the session was never started, and its disk holds nothing that could be exported; start it first",
            ));
        }
        let (archive, session, tell) = (
            archive.to_owned(),
            about.session.to_owned(),
            about.tell.clone(),
        );
        on_thread(move || {
            let flat = disk
                .flat(&beneath, &images)
                .map_err(|error| not_read(&error))?;
            archive::export(&flat, &image, &archive, &session, &tell)
        })
        .await
    }

    fn pack_layer(
        &self,
        _disk: &Path,
        _layers: &[PathBuf],
        _rootfs: Option<&Path>,
    ) -> Option<PackLayer> {
        None
    }

    async fn open_archive(&self, archive: &Path) -> Result<Box<dyn Archive>> {
        let archive = archive.to_owned();
        Ok(Box::new(
            on_thread(move || MicrovmArchive::open(&archive)).await?,
        ))
    }

    async fn adopt(&self, folder: &Path, disk: &Path) -> Result<Option<Box<dyn Machine>>> {
        let adopted = MicrovmMachine::adopt(&self.runtime, folder, disk).await?;
        Ok(adopted.map(|machine| Box::new(machine) as Box<dyn Machine>))
    }

    async fn discard(&self, folder: &Path) -> Result<()> {
        if let Some(record) = Record::read(folder) {
            record.kill();
            self.runtime.remove(&record.machine).await?;
            engine_record::remove(folder);
        }
        Ok(())
    }
}
