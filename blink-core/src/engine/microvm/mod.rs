//! Sandboxes in micro-VMs, made by BoxLite: each has a kernel of its own, behind the processor's virtualisation.
//!
//! BoxLite boots, stops and copies the machines. Everything else goes through Blink's agent, which is the machine's
//! first program, over a socket of the hypervisor's that the agent dials: `docs/adr/0004-microvm-engine.md` says why.

mod archive;
mod console;
mod disk;
mod failure;
mod host_image;
mod link;
mod machine;
mod options;
mod owner;
mod qcow2;
mod record;
mod runtime;
#[cfg(test)]
mod tests;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{Engine, Machine, MachineSpec, RootForm};
use crate::error::{Error, ErrorKind, Result};
use crate::guest_binary;
use crate::home::Home;
use disk::Disk;
use machine::MicrovmMachine;
pub(crate) use record::Record;
use runtime::Runtime;

/// The engine, opened once.
pub(crate) struct MicrovmEngine {
    runtime: Arc<Runtime>,
    home: Home,
    /// The folder with the guest agent.
    agent: PathBuf,
}

impl MicrovmEngine {
    /// Opens the engine; waits a while for another process that has it.
    ///
    /// # Errors
    /// `Busy` with that process; `IsolationUnavailable` where the parts that it needs are missing.
    pub(crate) async fn open(home: &Home) -> Result<MicrovmEngine> {
        let agent = guest_binary::install(home.path()).map_err(|error| {
            Error::io("the guest agent could not be put into Blink's home", &error)
        })?;
        let runtime = Runtime::open(home).await?;
        Ok(MicrovmEngine {
            runtime,
            home: home.clone(),
            agent: agent.parent().unwrap_or(&agent).to_owned(),
        })
    }
}

impl MicrovmEngine {
    /// From the disk in the sandbox's folder, where there is one.
    async fn boot_machine(&self, spec: &MachineSpec) -> Result<MicrovmMachine> {
        let (mut root, shown) = match &spec.rootfs {
            Some(layout) => (layout.clone(), Vec::new()),
            None => self.prepare(host_image::prepare).await?,
        };
        if Disk::of(&spec.folder).exists() {
            root = self.prepare(host_image::blank).await?;
        }
        let secret = link::new_secret()?;
        let mounts = options::Mounts {
            agent: &self.agent,
            shown: &shown,
        };
        let options = options::describe(spec, &root, &mounts, &secret)?;
        MicrovmMachine::boot(&self.runtime, spec, options, secret).await
    }

    async fn prepare<T: Send + 'static>(
        &self,
        make: impl FnOnce(&Home) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let home = self.home.clone();
        let made = tokio::task::spawn_blocking(move || make(&home)).await;
        made.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
    }
}

/// The disks of sandboxes, by their folders. No machine may use the disk meanwhile.
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "sessions are to come, and nobody else has checkpoints"
    )
)]
impl MicrovmEngine {
    /// Makes a layer of what the disk holds; the disk goes on over it.
    fn snapshot(folder: &Path, layer: &Path) -> Result<()> {
        Disk::of(folder).turn_into(layer).map_err(not_kept)
    }

    /// Puts the disk back to what a layer holds, or makes one that begins with it.
    fn restore(folder: &Path, layer: &Path) -> Result<()> {
        Disk::of(folder).reset_to(layer).map_err(not_kept)
    }

    /// Writes the disk, with all that is beneath it, to a file that [`import`](MicrovmEngine::import) reads, and BoxLite
    /// as well.
    async fn export(&self, folder: &Path, archive: &Path) -> Result<()> {
        let image = self.prepare(host_image::blank).await?;
        archive::export(&self.runtime, &Disk::of(folder), &image, archive).await
    }

    /// Reads a disk into the folder of a sandbox that has none.
    async fn import(archive: &Path, folder: &Path) -> Result<()> {
        let (archive, folder) = (archive.to_owned(), folder.to_owned());
        tokio::task::spawn_blocking(move || archive::import(&archive, &folder))
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
    }
}

fn not_kept(error: std::io::Error) -> Error {
    Error::io("the sandbox's disk could not be kept", &error)
}

#[async_trait]
impl Engine for MicrovmEngine {
    fn root_form(&self) -> RootForm {
        RootForm::Layout
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>> {
        Ok(Box::new(self.boot_machine(spec).await?))
    }

    async fn adopt(&self, folder: &Path) -> Result<Option<Box<dyn Machine>>> {
        let adopted = MicrovmMachine::adopt(&self.runtime, folder).await?;
        Ok(adopted.map(|machine| Box::new(machine) as Box<dyn Machine>))
    }

    async fn discard(&self, folder: &Path) -> Result<()> {
        match Record::read(folder) {
            Some(record) => self.runtime.remove(&record.machine).await,
            None => Ok(()),
        }
    }
}
