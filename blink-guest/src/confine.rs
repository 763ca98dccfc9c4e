//! What a program in a sandbox may not do, beyond what the engine's walls already say: no capability, no new
//! privilege, a list of system calls, and resource limits. The agent passes through the same filter of system calls,
//! loaded once, which every program inherits: loading it for each would cost more than starting it. Without `serve --confine` (a sandbox with its own kernel)
//! only the resource limits apply.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use libc::{c_long, c_ulong};
use rustix::fs;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

mod landlock;
pub(crate) mod syscalls;

/// Enough files for any build or server, and far from what would exhaust the host's kernel.
const OPEN_FILES: u64 = 65536;

/// What `serve` was told.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) confine: bool,
    pub(crate) processes: Option<u64>,
    /// Bytes of memory that one process may have, where no control group counts them all.
    pub(crate) memory_bytes: Option<u64>,
    /// Bytes that one file may have.
    pub(crate) file_bytes: Option<u64>,
    /// Processors that all programs together may use, where no control group divides their time.
    pub(crate) cpus: Option<usize>,
    /// No file may run as its owner, because the host sees some of them.
    pub(crate) keep_owners: bool,
    /// The user namespace of the programs, where they have one of their own.
    pub(crate) programs: Option<OwnedFd>,
}

/// A prepared confinement, applied by each child to itself.
pub(crate) struct Confinement {
    /// Resource and limit, soft and hard alike.
    pub(crate) resource_limits: Vec<(c_int, u64)>,
    confine: bool,
    programs: Option<OwnedFd>,
    /// What keeps a tree of programs from looking into others, where the kernel has it.
    apart: Option<OwnedFd>,
}

impl Confinement {
    /// Prepares a confinement, and gives the agent itself what its children inherit.
    pub(crate) fn prepare(settings: Settings) -> Result<Confinement, Box<dyn std::error::Error>> {
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
            if settings.programs.is_none() {
                drop_bounding_set();
            }
            give_up_new_privileges()?;
            landlock::keep_to_own_sockets();
            let keeps_owners = settings.keep_owners;
            seccompiler::apply_filter(&unknown_calls_do_not_exist(keeps_owners)?)?;
            let pin_processors = settings.cpus.is_some();
            let refused = refused_calls_are_not_permitted(pin_processors, keeps_owners)?;
            seccompiler::apply_filter(&refused)?;
        }
        Ok(Confinement {
            resource_limits,
            confine: settings.confine,
            programs: settings.programs,
            apart: landlock::apart(),
        })
    }

    /// Whether programs have users of which the agent is none, so that each is given one.
    pub(crate) fn has_own_users(&self) -> bool {
        self.programs.is_some() && !rustix::process::getuid().is_root()
    }

    /// Enters the programs' user namespace; negative with `errno` set on failure.
    ///
    /// # Safety
    /// Only for a child that shares its parent's memory: it makes system calls and touches nothing else.
    pub(crate) unsafe fn enter_in_child(&self) -> c_long {
        match &self.programs {
            // SAFETY: a system call on an open descriptor.
            Some(programs) => unsafe {
                libc::syscall(libc::SYS_setns, programs.as_raw_fd(), libc::CLONE_NEWUSER)
            },
            None => 0,
        }
    }

    /// Keeps the program and all that it starts from tracing and changing processes that it has not started: one that is traced
    /// could make others that no timeout of its tracer's reaches. Negative with `errno` set on failure.
    ///
    /// # Safety
    /// Only for a child that shares its parent's memory: it makes system calls and touches nothing else.
    pub(crate) unsafe fn keep_apart_in_child(&self) -> c_long {
        match &self.apart {
            // SAFETY: a system call on an open descriptor.
            Some(apart) => unsafe {
                libc::syscall(libc::SYS_landlock_restrict_self, apart.as_raw_fd(), 0)
            },
            None => 0,
        }
    }

    /// Gives up every capability, or what root of a container does not have; negative with `errno` set on failure.
    ///
    /// # Safety
    /// Only for a child that shares its parent's memory: it makes system calls and touches nothing else.
    pub(crate) unsafe fn apply_in_child(&self, is_root: bool) -> c_long {
        if !self.confine {
            return 0;
        }
        let own = match (is_root, &self.programs) {
            (true, Some(_)) => ROOT,
            _ => 0,
        };
        // SAFETY: system calls on numbers.
        unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_CLEAR_ALL,
                0,
                0,
                0,
            );
            if self.programs.is_some() {
                // A new namespace is entered with all of them.
                for capability in (0..CAPABILITIES).filter(|number| ROOT & (1 << number) == 0) {
                    libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
                }
            }
        }
        match set_capabilities(own, 0) {
            Ok(()) => 0,
            Err(_) => -1,
        }
    }
}

/// What root of a container has, over the sandbox's own users and nothing else: as Docker's, less raw sockets and devices.
/// Of its network, see the launcher.
const ROOT: u64 = 1 << 0 // chown
    | 1 << 1 // dac_override
    | 1 << 3 // fowner
    | 1 << 4 // fsetid
    | 1 << 5 // kill
    | 1 << 6 // setgid
    | 1 << 7 // setuid
    | 1 << 8 // setpcap
    | 1 << 10 // net_bind_service
    | 1 << 18 // sys_chroot
    | 1 << 29 // audit_write
    | 1 << 31; // setfcap

/// Capabilities that this version knows of, and more than there are.
const CAPABILITIES: u32 = 64;

/// Sets the effective and permitted capabilities of this thread, and the inheritable ones. It makes one system call.
pub(crate) fn set_capabilities(permitted: u64, inheritable: u64) -> io::Result<()> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let half = |set: u64, shift: u32| u32::try_from(set >> shift & 0xffff_ffff).unwrap_or(0);
    let sets = [0, 32].map(|shift| CapabilitySets {
        effective: half(permitted, shift),
        permitted: half(permitted, shift),
        inheritable: half(inheritable, shift),
    });
    // SAFETY: a system call on pointers to values that live until it returns.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
fn unknown_calls_do_not_exist(keeps_owners: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let known = syscalls::ALLOWED
        .iter()
        .chain(syscalls::REFUSED)
        // A filter cannot read the mode that it is told.
        .filter(|call| !keeps_owners || **call != libc::SYS_openat2)
        .map(|&call| (call, Vec::new()))
        .collect();
    let missing = SeccompAction::Errno(errno(libc::ENOSYS));
    SeccompFilter::new(known, missing, SeccompAction::Allow, arch())?.try_into()
}

/// Calls that could reach out of a sandbox are not permitted, as for any user without privileges.
fn refused_calls_are_not_permitted(
    pin_processors: bool,
    keeps_owners: bool,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut refused: std::collections::BTreeMap<i64, Vec<SeccompRule>> = syscalls::REFUSED
        .iter()
        .map(|&call| (call, Vec::new()))
        .collect();
    // The agent marks each tree with a namespace of this one kind; a program has no privilege to.
    let marker = u64::from(libc::CLONE_NEWUTS.cast_unsigned());
    let others = (0, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, marker);
    refused.insert(libc::SYS_unshare, vec![rule(&[others])?]);
    // Each program enters the programs' own; nobody else can enter any, as that takes a privilege over it.
    let programs = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
    refused.insert(libc::SYS_setns, none_of(1, &[programs])?);
    if pin_processors {
        refused.insert(libc::SYS_sched_setaffinity, Vec::new());
    }
    let new_namespaces = namespace_bits(NEW_NAMESPACES)
        .map(|bit| rule(&[(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit)]));
    refused.insert(libc::SYS_clone, new_namespaces.collect::<Result<_, _>>()?);
    // Bytes typed into somebody else's terminal: two ioctls, compared as the kernel does, by their lower 32 bits.
    refused.insert(libc::SYS_ioctl, one_of(1, &[0x5412, 0x541c])?);
    // Socket families that only reach the kernel or hardware: packet, netlink beyond routes, vsock, Bluetooth, CAN, …
    let mut families = one_of(0, syscalls::REFUSED_SOCKET_FAMILIES)?;
    let netlink = u64::from(libc::AF_NETLINK.cast_unsigned());
    let routes = u64::from(libc::NETLINK_ROUTE.cast_unsigned());
    families.push(rule(&[
        (0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, netlink),
        (2, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, routes),
    ])?);
    refused.insert(libc::SYS_socket, families);
    let local = u64::from(libc::AF_UNIX.cast_unsigned());
    refused.insert(libc::SYS_socketpair, none_of(0, &[local])?);
    refused.insert(libc::SYS_personality, none_of(0, syscalls::PERSONALITIES)?);
    // Limits of other processes, which may be the agent.
    refused.insert(libc::SYS_prlimit64, none_of(0, &[0])?);
    if keeps_owners {
        for &(call, argument) in syscalls::MODES {
            let bits = [libc::S_ISUID, libc::S_ISGID].map(u64::from);
            let rules = bits.map(|bit| {
                let op = SeccompCmpOp::MaskedEq(bit);
                rule(&[(argument, SeccompCmpArgLen::Dword, op, bit)])
            });
            refused.insert(call, rules.into_iter().collect::<Result<_, _>>()?);
        }
    }
    let not_permitted = SeccompAction::Errno(errno(libc::EPERM));
    SeccompFilter::new(refused, SeccompAction::Allow, not_permitted, arch())?.try_into()
}

/// An argument's number, how much of it counts, and what it is compared with.
type Comparison = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

/// Where all comparisons hold.
fn rule(comparisons: &[Comparison]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = comparisons.iter().map(|(argument, length, op, value)| {
        SeccompCondition::new(*argument, length.clone(), op.clone(), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// Where an argument, by its lower 32 bits, is one of some values.
fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let equal =
        |value: &u64| rule(&[(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value)]);
    values.iter().map(equal).collect()
}

/// Where it is none of them.
fn none_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let differs = |value: &u64| (argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *value);
    let all: Vec<_> = values.iter().map(differs).collect();
    Ok(vec![rule(&all)?])
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

/// Files that the agent makes belong to the sandbox's root, though the agent has a user of its own. That takes back that it ends
/// with the launcher, whose end `life` tells of.
pub(crate) fn write_files_as_root(life: &OwnedFd) -> io::Result<()> {
    // SAFETY: system calls on numbers, and on a struct that is written to.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, 0);
        libc::syscall(libc::SYS_setfsuid, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        let mut watched = libc::pollfd {
            fd: life.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        match libc::poll(&raw mut watched, 1, 0) {
            0 => Ok(()),
            _ => Err(io::Error::other("the launcher has ended")),
        }
    }
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
            unknown_calls_do_not_exist(true).unwrap(),
            refused_calls_are_not_permitted(true, true).unwrap(),
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
