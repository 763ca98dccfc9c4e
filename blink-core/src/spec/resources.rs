//! What a sandbox can use of the machine.

use serde::{Deserialize, Serialize};

/// Processes of a sandbox at once, unless told otherwise: a parallel build fits, a fork bomb ends soon.
pub const DEFAULT_PROCESSES: u64 = 1024;

/// The disk of a sandbox, unless told otherwise.
pub const DEFAULT_DISK_MIB: u64 = 10 * 1024;

/// What a sandbox can use of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resources {
    /// Processors; if there is none, all of the host's for namespaces, and two for a micro-VM, or half of the host's
    /// where that is less. A part of one is possible where control groups divide time.
    pub cpus: Option<f64>,
    /// Memory in MiB; if there is none, half of the host's for namespaces, and 2048 for a micro-VM.
    pub memory_mib: Option<u64>,
    /// What `/dev/shm` may hold of the memory, in MiB; if there is none, half of it.
    #[serde(default)]
    pub shared_memory_mib: Option<u64>,
    /// What it may write, in MiB.
    pub disk_mib: u64,
    /// Processes and threads at once.
    pub processes: u64,
}

impl Default for Resources {
    fn default() -> Resources {
        Resources {
            cpus: None,
            memory_mib: None,
            shared_memory_mib: None,
            disk_mib: DEFAULT_DISK_MIB,
            processes: DEFAULT_PROCESSES,
        }
    }
}
