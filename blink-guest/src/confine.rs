//! What a program in a sandbox may not do, beyond what the engine's walls already say: no capability, no new
//! privilege, a list of system calls, and resource limits. The agent passes through the same filter of system calls,
//! loaded once, which every program inherits: loading it for each would cost more than starting it. Without `serve --confine` (a sandbox with its own kernel)
//! only the resource limits apply.

use std::ffi::c_int;
use std::io;
use std::os::unix::fs::FileExt;

use libc::{c_long, c_ulong};
use rustix::fs;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

pub(crate) mod syscalls;

/// Enough files for any build or server, and far from what would exhaust the host's kernel.
const OPEN_FILES: u64 = 65536;

/// What `serve` was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) confine: bool,
    pub(crate) processes: Option<u64>,
    /// Bytes of memory that one process may have, where no control group counts them all.
    pub(crate) memory_bytes: Option<u64>,
    /// Bytes that one file may have.
    pub(crate) file_bytes: Option<u64>,
    /// Processors that all programs together may use, where no control group divides their time.
    pub(crate) cpus: Option<usize>,
}

/// A prepared confinement, applied by each child to itself.
pub(crate) struct Confinement {
    /// Resource and limit, soft and hard alike.
    pub(crate) resource_limits: Vec<(c_int, u64)>,
    confine: bool,
}

impl Confinement {
    /// Prepares a confinement, and gives the agent itself what its children inherit.
    pub(crate) fn prepare(settings: &Settings) -> Result<Confinement, Box<dyn std::error::Error>> {
        let mut resource_limits = vec![
            (resource(libc::RLIMIT_CORE), 0),
            (resource(libc::RLIMIT_NOFILE), open_files()),
        ];
        let optional = [
            (libc::RLIMIT_NPROC, settings.processes),
            (libc::RLIMIT_DATA, settings.memory_bytes),
            (libc::RLIMIT_FSIZE, settings.file_bytes),
        ];
        resource_limits.extend(
            optional
                .into_iter()
                .filter_map(|(name, limit)| Some((resource(name), limit?.min(hard_limit(name))))),
        );
        if let Some(cpus) = settings.cpus {
            limit_processors(cpus);
        }
        if settings.confine {
            drop_bounding_set();
            give_up_new_privileges()?;
            seccompiler::apply_filter(&unknown_calls_do_not_exist()?)?;
            seccompiler::apply_filter(&refused_calls_are_not_permitted(settings.cpus.is_some())?)?;
        }
        Ok(Confinement {
            resource_limits,
            confine: settings.confine,
        })
    }

    /// Gives up every capability; negative with `errno` set on failure.
    ///
    /// # Safety
    /// Only for a child that shares its parent's memory: it makes system calls and touches nothing else.
    pub(crate) unsafe fn apply_in_child(&self) -> c_long {
        if !self.confine {
            return 0;
        }
        let header = CapabilityHeader {
            version: CAPABILITY_VERSION_3,
            pid: 0,
        };
        let nothing = [CapabilitySets::default(); 2];
        // SAFETY: system calls on numbers and on pointers to values that live until they return.
        unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_CLEAR_ALL,
                0,
                0,
                0,
            );
            libc::syscall(libc::SYS_capset, &raw const header, nothing.as_ptr())
        }
    }
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn resource(name: libc::__rlimit_resource_t) -> c_int {
    c_int::try_from(name).unwrap_or_default()
}

fn open_files() -> u64 {
    hard_limit(libc::RLIMIT_NOFILE).min(OPEN_FILES)
}

/// The agent's own hard limit bounds what it can give.
fn hard_limit(name: libc::__rlimit_resource_t) -> u64 {
    let mut own = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: writes to a local value; where it fails, that says "no limit".
    unsafe { libc::getrlimit(name, &raw mut own) };
    own.rlim_max
}

/// Programs that are executed later cannot get back any capability, whatever their file says.
fn drop_bounding_set() {
    (0..64).for_each(drop_from_bounding_set);
}

/// No program that is executed later has this capability, root's among them.
pub(crate) fn drop_from_bounding_set(capability: c_ulong) {
    // SAFETY: a system call on a number; the kernel refuses those that it does not know.
    unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
}

/// Lets programs open as many files as the agent would give them, where whoever started it gave it fewer.
pub(crate) fn raise_open_files() {
    let limit = libc::rlimit {
        rlim_cur: OPEN_FILES,
        rlim_max: OPEN_FILES.max(hard_limit(libc::RLIMIT_NOFILE)),
    };
    // SAFETY: reads a local value; where it is not permitted, the former limit holds.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// Pins the agent, and with it every program, to some of the host's processors.
fn limit_processors(count: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&processor| allowed.is_set(processor))
        .collect();
    // Sandboxes that begin at different processors share the machine evenly.
    let first = usize::from(random_byte()) % processors.len().max(1);
    let mut chosen = CpuSet::new();
    for &processor in processors
        .iter()
        .cycle()
        .skip(first)
        .take(count.min(processors.len()))
    {
        chosen.set(processor);
    }
    // A host that does not allow it has its own limit on processors.
    let _ = sched_setaffinity(None, &chosen);
}

fn random_byte() -> u8 {
    let mut byte = [0];
    let file = fs::open(
        "/dev/urandom",
        fs::OFlags::RDONLY | fs::OFlags::CLOEXEC,
        fs::Mode::empty(),
    );
    if let Ok(file) = file {
        let _ = rustix::io::read(file, &mut byte);
    }
    byte[0]
}

/// What `clone` is told to make a new namespace.
pub(crate) const NEW_NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u64;

/// A call that is neither known good nor known bad does not exist, so that libraries fall back to an older one.
fn unknown_calls_do_not_exist() -> Result<BpfProgram, seccompiler::BackendError> {
    let known = syscalls::ALLOWED
        .iter()
        .chain(syscalls::REFUSED)
        .map(|&call| (call, Vec::new()))
        .collect();
    let missing = SeccompAction::Errno(errno(libc::ENOSYS));
    SeccompFilter::new(known, missing, SeccompAction::Allow, arch())?.try_into()
}

/// Calls that could reach out of a sandbox are not permitted, as for any user without privileges.
fn refused_calls_are_not_permitted(
    pin_processors: bool,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut refused: std::collections::BTreeMap<i64, Vec<SeccompRule>> = syscalls::REFUSED
        .iter()
        .map(|&call| (call, Vec::new()))
        .collect();
    // The agent marks each tree with a namespace of this one kind; a program has no privilege to.
    let other_namespaces = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::Ne,
        u64::from(libc::CLONE_NEWUTS.cast_unsigned()),
    )?;
    refused.insert(
        libc::SYS_unshare,
        vec![SeccompRule::new(vec![other_namespaces])?],
    );
    if pin_processors {
        refused.insert(libc::SYS_sched_setaffinity, Vec::new());
    }
    let new_namespace = namespace_bits(NEW_NAMESPACES)
        .map(|bit| {
            SeccompRule::new(vec![SeccompCondition::new(
                0,
                SeccompCmpArgLen::Qword,
                SeccompCmpOp::MaskedEq(bit),
                bit,
            )?])
        })
        .collect::<Result<Vec<_>, _>>()?;
    refused.insert(libc::SYS_clone, new_namespace);
    // Bytes typed into somebody else's terminal: two ioctls, compared as the kernel does, by their lower 32 bits.
    let typing = [0x5412_u64, 0x541c]
        .into_iter()
        .map(|request| {
            SeccompRule::new(vec![SeccompCondition::new(
                1,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Eq,
                request,
            )?])
        })
        .collect::<Result<Vec<_>, _>>()?;
    refused.insert(libc::SYS_ioctl, typing);
    // Socket families that only reach the kernel or hardware: packet, netlink beyond routes, vsock, Bluetooth, CAN, …
    let families = syscalls::REFUSED_SOCKET_FAMILIES
        .iter()
        .map(|&family| {
            SeccompRule::new(vec![SeccompCondition::new(
                0,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Eq,
                family,
            )?])
        })
        .collect::<Result<Vec<_>, _>>()?;
    refused.insert(libc::SYS_socket, families);
    let not_permitted = SeccompAction::Errno(errno(libc::EPERM));
    SeccompFilter::new(refused, SeccompAction::Allow, not_permitted, arch())?.try_into()
}

fn namespace_bits(mask: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS)
        .map(|bit| 1 << bit)
        .filter(move |bit| mask & bit != 0)
}

fn errno(number: c_int) -> u32 {
    number.cast_unsigned()
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn arch() -> TargetArch {
    TargetArch::x86_64
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn arch() -> TargetArch {
    TargetArch::aarch64
}

/// Nothing that is started from here on gains a privilege by its file's owner or capabilities.
fn give_up_new_privileges() -> io::Result<()> {
    // SAFETY: a system call on numbers.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes a secret out of the agent's own arguments, which every program can read. It came as one because a machine's
/// environment is in its kernel's command line, and that cannot be changed.
pub(crate) fn hide_argument(secret: &str) -> io::Result<()> {
    let fields = std::fs::read_to_string("/proc/self/stat")?;
    // The 48th field is where the arguments begin; the third is the first behind the name.
    let begin: u64 = fields
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(45)?.parse().ok())
        .ok_or_else(|| io::Error::other("the kernel does not tell where the arguments are"))?;
    let arguments = std::fs::read("/proc/self/cmdline")?;
    let memory = std::fs::File::options()
        .write(true)
        .open("/proc/self/mem")?;
    let places = arguments
        .windows(secret.len())
        .enumerate()
        .filter(|(_, window)| *window == secret.as_bytes());
    for (offset, _) in places {
        memory.write_all_at(&vec![b'x'; secret.len()], begin + offset as u64)?;
    }
    Ok(())
}

/// Makes the agent itself opaque to the programs of the sandbox.
pub(crate) fn hide_agent() -> io::Result<()> {
    // SAFETY: a system call on numbers.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_fit_into_the_kernels_limit() {
        for filter in [
            unknown_calls_do_not_exist().unwrap(),
            refused_calls_are_not_permitted(true).unwrap(),
        ] {
            assert!(filter.len() < 4096, "{}", filter.len());
        }
    }

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        for call in syscalls::REFUSED {
            assert!(!syscalls::ALLOWED.contains(call), "{call}");
        }
    }
}
