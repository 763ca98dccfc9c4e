//! What the agent does to a micro-VM before its first program: the machine is the sandbox's own, and the agent is the one
//! who may change it.

use std::ffi::{CStr, CString, c_ulong};
use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::{confine, names};

/// Capabilities that the agent needs and programs must not have: with one of them a program could leave the tree that it
/// is ended with, or look into the agent.
const AGENT_ONLY: [c_ulong; 3] = [
    19, // CAP_SYS_PTRACE
    21, // CAP_SYS_ADMIN
    24, // CAP_SYS_RESOURCE
];

/// Threads of the agent's own that count towards the machine's processes: its loop, its guard and its dialer. One more
/// ends a freeze, while there is one.
const OWN_THREADS: u64 = 3;

const GROUP: &str = "/run/blink/group";

/// What `serve` was told about the machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) host_name: String,
    pub(crate) processes: Option<u64>,
    pub(crate) shared_memory_bytes: Option<u64>,
}

impl Machine {
    /// Makes the machine what a sandbox is.
    pub(crate) fn set_up(&self) -> io::Result<()> {
        show_temporary_files_on_disk()?;
        give_shared_memory_its_part(self.shared_memory_bytes);
        names::change_to(&self.host_name)?;
        confine::raise_open_files();
        for capability in AGENT_ONLY {
            confine::drop_from_bounding_set(capability);
        }
        self.processes.map_or(Ok(()), limit_processes)
    }
}

/// The limit of the control group that everything of the sandbox is in. Programs are root of the machine, for whom resource
/// limits do not count processes.
fn limit_processes(limit: u64) -> io::Result<()> {
    let group = fs::read_to_string("/proc/self/cgroup")?;
    let group = group.trim().strip_prefix("0::/").unwrap_or_default();
    fs::create_dir_all(GROUP)?;
    mount(
        c"cgroup2",
        GROUP,
        c"cgroup2",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None::<&CStr>,
    )?;
    let limit = limit.saturating_add(OWN_THREADS);
    let file = Path::new(GROUP).join(group).join("pids.max");
    let limited = match fs::write(&file, limit.to_string()) {
        // More than the kernel can have is no limit.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ERANGE)) => {
            fs::write(&file, "max")
        }
        limited => limited,
    };
    unmount(GROUP, UnmountFlags::DETACH)?;
    let _ = fs::remove_dir(GROUP);
    limited
}

/// The hypervisor's agent gives shared memory 64 MiB, however large the machine is; a machine of one's own has half of its memory
/// for it, unless told otherwise. Where it is not mounted, there is nothing to give.
fn give_shared_memory_its_part(bytes: Option<u64>) {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let size = bytes.map_or("50%".to_owned(), |bytes| bytes.to_string());
    if let Ok(options) = CString::new(format!("size={size}")) {
        let _ = mount_remount("/dev/shm", flags, options.as_c_str());
    }
}

/// The hypervisor's agent mounts a file system in memory over `/tmp`. The sandbox's disk is larger, is what limits and
/// checkpoints are about, and its files are still there after a restart.
fn show_temporary_files_on_disk() -> io::Result<()> {
    const TEMPORARY: &str = "/tmp";
    // It may not be mounted, which is as well.
    let _ = unmount(TEMPORARY, UnmountFlags::DETACH);
    fs::create_dir_all(TEMPORARY)?;
    fs::set_permissions(
        TEMPORARY,
        std::os::unix::fs::PermissionsExt::from_mode(0o1777),
    )
}
