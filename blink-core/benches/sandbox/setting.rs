//! What all parts measure with: a home of its own, and a sandbox that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blink_core::{Blink, IsolationChoice, Sandbox};

use crate::measure::Result;

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Quick,
    Full,
}

pub(crate) struct Setting {
    pub(crate) size: Size,
    pub(crate) blink: Blink,
    pub(crate) sandbox: Arc<Sandbox>,
    folder: tempfile::TempDir,
}

impl Setting {
    pub(crate) async fn new(size: Size) -> Result<Setting> {
        // In the target folder: on a disk, as a home is; many machines have /tmp in memory.
        fs::create_dir_all(env!("CARGO_TARGET_TMPDIR"))?;
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let blink = Blink::builder()
            .home(folder.path().join("home"))
            .isolation(IsolationChoice::Namespace)
            .build()
            .await?;
        let sandbox = blink.sandbox().create().await?;
        Ok(Setting {
            size,
            blink,
            sandbox: Arc::new(sandbox),
            folder,
        })
    }

    /// So many of something, depending on how long to measure.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        match self.size {
            Size::Full => full,
            Size::Quick => quick,
        }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A folder for peers, on the same file system as the sandboxes' disks.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// What the engine has written down about the sandbox: the process `agent` or `monitor`.
    pub(crate) fn process(&self, which: &str) -> Result<i64> {
        self.process_of(&self.sandbox, which)
    }

    pub(crate) fn process_of(&self, sandbox: &Sandbox, which: &str) -> Result<i64> {
        let folder = self.home().join("sandboxes").join(sandbox.id());
        let record: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("machine.json"))?)?;
        record[which]["pid"]
            .as_i64()
            .ok_or_else(|| format!("machine.json names no {which}").into())
    }

    /// The type of the file system that the home is on.
    pub(crate) fn file_system(&self) -> Result<String> {
        let output = std::process::Command::new("stat")
            .args(["--file-system", "--format", "%T"])
            .arg(self.folder.path())
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub(crate) async fn end(self) -> Result<()> {
        if let Some(sandbox) = Arc::into_inner(self.sandbox) {
            sandbox.remove().await?;
        }
        Ok(())
    }
}

/// Kibibytes of a line of `/proc/PID/status`.
pub(crate) fn status_kib(process: &str, line: &str) -> Result<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(process).join("status"))?;
    status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok())
        .ok_or_else(|| format!("/proc/{process}/status has no {line}").into())
}
