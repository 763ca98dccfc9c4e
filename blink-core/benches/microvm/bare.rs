//! BoxLite by itself, used as its documentation says.

use std::path::{Path, PathBuf};

use boxlite::{
    BoxArchive, BoxCommand, BoxOptions, BoxliteOptions, BoxliteRuntime, CloneOptions, CopyOptions,
    ExportOptions, LiteBox, NetworkSpec, RootfsSpec, SnapshotOptions,
};
use futures_util::StreamExt;

use crate::measure::Result;

/// What Blink's machines have unless told otherwise.
const CPUS: usize = 2;
const MEMORY_MIB: u32 = 2048;
const DISK_GIB: u64 = 11;

pub(crate) struct Bare {
    runtime: BoxliteRuntime,
    layout: PathBuf,
}

pub(crate) struct BareMachine {
    handle: LiteBox,
}

impl Bare {
    pub(crate) async fn open(home_dir: PathBuf, layout: PathBuf) -> Result<Bare> {
        let options = BoxliteOptions {
            home_dir,
            image_registries: Vec::new(),
            image_registry_proxy: None,
        };
        // It waits for files.
        let runtime = tokio::task::spawn_blocking(move || BoxliteRuntime::new(options)).await??;
        Ok(Bare { runtime, layout })
    }

    pub(crate) async fn boot(&self) -> Result<BareMachine> {
        let host = std::thread::available_parallelism()?.get();
        let options = BoxOptions {
            cpus: Some(u8::try_from(CPUS.min(host))?),
            memory_mib: Some(MEMORY_MIB),
            disk_size_gb: Some(DISK_GIB),
            rootfs: RootfsSpec::RootfsPath(self.layout.to_string_lossy().into_owned()),
            network: NetworkSpec::Disabled,
            auto_delete: Some(0),
            detach: false,
            ..BoxOptions::default()
        };
        let handle = self.runtime.create(options, None).await?;
        handle.start().await?;
        Ok(BareMachine { handle })
    }

    /// Ends a machine, whose disk stays.
    pub(crate) async fn stop(&self, machine: BareMachine) -> Result<BareMachine> {
        machine.handle.stop().await?;
        let id = machine.handle.id().as_str().to_owned();
        let handle = self.runtime.get(&id).await?;
        let handle = handle.ok_or("BoxLite has lost the machine")?;
        Ok(BareMachine { handle })
    }

    /// A machine whose disk comes from an archive; it is not started.
    pub(crate) async fn import(&self, archive: &Path) -> Result<BareMachine> {
        let archive = BoxArchive::new(archive);
        let handle = self.runtime.import_box(archive, None).await?;
        Ok(BareMachine { handle })
    }

    pub(crate) async fn remove(&self, machine: BareMachine) -> Result<()> {
        let id = machine.handle.id().as_str().to_owned();
        Ok(self.runtime.remove(&id, true).await?)
    }
}

impl BareMachine {
    /// Runs a command, and returns what came of what it wrote.
    pub(crate) async fn exec(&self, words: &[&str]) -> Result<Vec<String>> {
        let command = BoxCommand::new(words[0]).args(words[1..].iter().copied());
        let mut execution = self.handle.exec(command).await?;
        let missing = "the command has no output";
        let stdout = execution.stdout().ok_or(missing)?;
        let stderr = execution.stderr().ok_or(missing)?;
        let (result, stdout, _stderr) = tokio::join!(
            execution.wait(),
            stdout.collect::<Vec<String>>(),
            stderr.collect::<Vec<String>>(),
        );
        match result?.exit_code {
            0 => Ok(stdout),
            code => Err(format!("{} failed in BoxLite: {code}", words[0]).into()),
        }
    }

    pub(crate) async fn snapshot(&self, name: &str) -> Result<()> {
        let snapshots = self.handle.snapshots();
        snapshots.create(SnapshotOptions::default(), name).await?;
        Ok(())
    }

    pub(crate) async fn restore(&self, name: &str) -> Result<()> {
        Ok(self.handle.snapshots().restore(name).await?)
    }

    /// Another machine with a copy of the disk; it is not started.
    pub(crate) async fn duplicate(&self) -> Result<BareMachine> {
        let handle = self.handle.clone_box(CloneOptions::default(), None).await?;
        Ok(BareMachine { handle })
    }

    pub(crate) async fn export(&self, archive: &Path) -> Result<()> {
        self.handle
            .export(ExportOptions::default(), archive)
            .await?;
        Ok(())
    }

    pub(crate) async fn copy_into(&self, from: &std::path::Path, to: &str) -> Result<()> {
        Ok(self
            .handle
            .copy_into(from, to, CopyOptions::default())
            .await?)
    }

    pub(crate) async fn copy_out(&self, from: &str, to: &std::path::Path) -> Result<()> {
        Ok(self
            .handle
            .copy_out(from, to, CopyOptions::default())
            .await?)
    }
}
