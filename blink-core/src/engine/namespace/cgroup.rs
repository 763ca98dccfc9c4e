//! A control group for a sandbox, where this process may make one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sandbox::Resources;

const MOUNT: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// A sandbox's control group, which goes when nothing is in it any more.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    /// Makes one that holds these limits; `None` where control groups are not delegated to this process.
    pub(crate) fn create(id: &str, resources: &Resources) -> Option<ControlGroup> {
        let parent = parent()?;
        let group = ControlGroup {
            path: parent.join(format!("blink-{id}")),
        };
        fs::create_dir(&group.path).ok()?;
        match group.limit(resources) {
            Ok(()) => Some(group),
            Err(error) => {
                tracing::debug!(%error, "control groups cannot hold this sandbox's limits");
                None
            }
        }
    }

    /// The group that an earlier process has made.
    pub(crate) fn from_path(path: PathBuf) -> ControlGroup {
        ControlGroup { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn limit(&self, resources: &Resources) -> std::io::Result<()> {
        const PERIOD_US: f64 = 100_000.0;
        let write = |file: &str, value: String| fs::write(self.path.join(file), value);
        write("pids.max", resources.processes.to_string())?;
        if let Some(memory) = resources.memory_mib {
            write("memory.max", memory.saturating_mul(1 << 20).to_string())?;
            // Swap would let a sandbox have more than its memory. Hosts without swap have no such file.
            let _ = write("memory.swap.max", "0".into());
        }
        if let Some(cpus) = resources.cpus {
            write("cpu.max", format!("{:.0} {PERIOD_US:.0}", cpus * PERIOD_US))?;
        }
        Ok(())
    }

    /// Ends everything in it.
    pub(crate) fn kill(&self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }
}

impl Drop for ControlGroup {
    /// Removes it where nothing is in it.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// A group in which this process may make others that have all the controllers: its own, or the one above.
pub(crate) fn parent() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new(MOUNT).join(own);
    let above = own
        .parent()
        .filter(|parent| parent.starts_with(MOUNT))
        .map(Path::to_owned);
    [Some(own), above].into_iter().flatten().find(|group| {
        let enabled = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
        CONTROLLERS
            .iter()
            .all(|wanted| enabled.split_ascii_whitespace().any(|name| name == *wanted))
            && rustix::fs::access(group, rustix::fs::Access::WRITE_OK).is_ok()
            && rustix::fs::access(group.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok()
    })
}
