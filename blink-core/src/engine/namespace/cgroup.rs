//! A control group for a sandbox, where this process may make one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::host_memory_mib;
use crate::spec::Resources;

const MOUNT: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const FREEZE: &str = "cgroup.freeze";

/// How long the kernel may take to stop everything: what waits for something that is no disk may hold it longer.
const FREEZES_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A sandbox's control group, which goes when nothing is in it any more.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    /// Makes one that holds these limits; `None` if control groups are not delegated to this process.
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

    /// Where the kernel counts whom it ends for want of memory.
    pub(super) fn memory_events(&self) -> Option<File> {
        File::open(self.path.join("memory.events")).ok()
    }

    fn limit(&self, resources: &Resources) -> std::io::Result<()> {
        const PERIOD_US: f64 = 100_000.0;
        let write = |file: &str, value: String| fs::write(self.path.join(file), value);
        write("pids.max", resources.processes.to_string())?;
        write("memory.max", memory_bytes(resources).to_string())?;
        // Swap would let a sandbox have more than its memory. Hosts without swap have no such file.
        let _ = write("memory.swap.max", "0".into());
        if let Some(cpus) = resources.cpus {
            write("cpu.max", format!("{:.0} {PERIOD_US:.0}", cpus * PERIOD_US))?;
        }
        Ok(())
    }

    /// Stops everything in it until what is returned is dropped; `None` if the kernel cannot.
    pub(super) fn freeze(&self) -> Option<Frozen> {
        fs::write(self.path.join(FREEZE), "1").ok()?;
        let mut frozen = Frozen {
            group: ControlGroup::from_path(self.path.clone()),
            was_still: false,
        };
        let deadline = Instant::now() + FREEZES_WITHIN;
        while !frozen.was_still && Instant::now() < deadline {
            thread::sleep(LOOK_EVERY);
            frozen.was_still = self.is_frozen();
        }
        Some(frozen)
    }

    /// Whether everything in it stands still.
    pub(super) fn is_frozen(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    }

    /// Lets everything in it go on.
    pub(super) fn thaw(&self) {
        let _ = fs::write(self.path.join(FREEZE), "0");
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

/// Has what is in a group use no more memory than so much.
pub(super) fn limit_memory(group: &Path, memory_mib: u64) -> std::io::Result<()> {
    let bytes = memory_mib.saturating_mul(1 << 20);
    fs::write(group.join("memory.max"), bytes.to_string())
}

/// The part of the host's memory that a sandbox has for which nothing else was said.
const DEFAULT_MEMORY_SHARE: u64 = 2;

/// The memory in MiB of a sandbox for which nothing else was said.
pub(super) fn default_memory_mib() -> u64 {
    host_memory_mib() / DEFAULT_MEMORY_SHARE
}

/// The memory of a sandbox.
pub(super) fn memory_bytes(resources: &Resources) -> u64 {
    let memory = resources.memory_mib.unwrap_or_else(default_memory_mib);
    memory.saturating_mul(1 << 20)
}

/// Everything in a group, which goes on when this is dropped.
pub(super) struct Frozen {
    group: ControlGroup,
    /// Whether it stood still when it was returned.
    was_still: bool,
}

impl Frozen {
    /// Whether all of it has stood still from the beginning until now: no program can let it go on.
    pub(super) fn is_still(&self) -> bool {
        self.was_still && self.group.is_frozen()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.group.thaw();
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
