//! What all parts measure with: a home of its own, and a sandbox that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blink_core::{Blink, IsolationChoice, Sandbox};

use crate::measure::Result;
use crate::options::{Options, Size};

pub(crate) struct Setting {
    pub(crate) size: Size,
    pub(crate) blink: Blink,
    pub(crate) sandbox: Arc<Sandbox>,
    folder: tempfile::TempDir,
}

impl Setting {
    pub(crate) async fn new(options: &Options) -> Result<Setting> {
        fs::create_dir_all(&options.folder)?;
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&options.folder)?;
        let blink = Blink::builder()
            .home(folder.path().join("home"))
            .isolation(IsolationChoice::Namespace)
            .build()
            .await?;
        let sandbox = blink.sandbox().create().await?;
        Ok(Setting {
            size: options.size,
            blink,
            sandbox: Arc::new(sandbox),
            folder,
        })
    }

    /// So many of something, depending on how long to measure.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        self.size.pick(full, quick)
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
            serde_json::from_slice(&fs::read(folder.join("record.json"))?)?;
        record[which]["pid"]
            .as_i64()
            .ok_or_else(|| format!("record.json names no {which}").into())
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
