//! What a program in a sandbox may not do, beyond what the engine's walls already say: no capability, no new
//! privilege, a list of system calls, and resource limits. The agent passes through the same filter of system calls,
//! loaded once, which every program inherits: loading it for each would cost more than starting it. Without `serve --confine` (a sandbox with its own kernel)
//! only the resource limits apply.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use filter::{Answer, Filter, Rule, Test};
use libc::{c_long, c_ulong};
use rustix::fs;

#[cfg(target_arch = "x86_64")]
mod compat;
pub(crate) mod filter;
mod landlock;
pub(crate) mod syscalls;

/// Enough files for any build or server, and far from what would exhaust the host's kernel.
const OPEN_FILES: u64 = 65536;

/// What `serve` was told.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) confine: bool,
    pub(crate) processes: Option<u64>,
    /// Processors that all programs together may use, where no control group divides their time.
    pub(crate) cpus: Option<usize>,
    /// No file may run as its owner, because the host sees some of them.
    pub(crate) keep_owners: bool,
    /// The user namespace of the programs, where they have one of their own.
    pub(crate) programs: Option<OwnedFd>,
    /// Where the kernel counts the programs that it ends for want of memory, if it counts those of the sandbox alone.
    pub(crate) memory_events: Option<File>,
}

/// A prepared confinement, applied by each child to itself.
pub(crate) struct Confinement {
    /// Resource and limit, soft and hard alike.
    pub(crate) resource_limits: Vec<(c_int, u64)>,
    pub(crate) memory_events: Option<File>,
    confine: bool,
    programs: Option<OwnedFd>,
    dropped: Vec<c_ulong>,
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
        if let Some(processes) = settings.processes {
            let name = libc::RLIMIT_NPROC;
            resource_limits.push((resource(name), processes.min(hard_limit(name))));
        }
        if let Some(cpus) = settings.cpus {
            limit_processors(cpus);
        }
        if settings.confine {
            if settings.programs.is_none() {
                drop_bounding_set();
            }
            give_up_new_privileges()?;
            landlock::keep_to_own_sockets();
            filter_of_programs(settings.cpus.is_some(), settings.keep_owners).apply()?;
        }
        Ok(Confinement {
            resource_limits,
            memory_events: settings.memory_events,
            confine: settings.confine,
            programs: settings.programs,
            dropped: dropped(),
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
                for capability in &self.dropped {
                    libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0);
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

/// What programs can never have of the capabilities that the kernel has.
fn dropped() -> Vec<c_ulong> {
    // SAFETY: a system call on numbers; the kernel refuses those that it does not know.
    let is_known =
        |number: &c_ulong| unsafe { libc::prctl(libc::PR_CAPBSET_READ, *number, 0, 0, 0) >= 0 };
    (0..64)
        .take_while(is_known)
        .filter(|number| ROOT & (1 << number) == 0)
        .collect()
}

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
pub(crate) const NEW_NAMESPACES: u32 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP)
    .cast_unsigned();

/// Calls that could reach out of a sandbox are not permitted, as for any user without privileges. One that is neither
/// known good nor known bad does not exist, so that libraries fall back to an older one.
fn filter_of_programs(pin_processors: bool, keep_owners: bool) -> Filter {
    let not_permitted = Answer::Fails(libc::EPERM);
    let unless = |tests: &[Test]| {
        let rules = tests.iter().map(|test| Rule {
            error: libc::EPERM,
            tests: vec![test.clone()],
        });
        Answer::FailsIf(rules.collect())
    };
    let mut filter = Filter::new(libc::ENOSYS);
    filter.answer(syscalls::ALLOWED, &Answer::Allowed);
    filter.answer(syscalls::REFUSED, &not_permitted);
    // The agent marks each tree with a namespace of this one kind; a program has no privilege to.
    let marker = libc::CLONE_NEWUTS.cast_unsigned();
    filter.answer(
        &[libc::SYS_unshare],
        &unless(&[Test::none_of(0, &[marker])]),
    );
    // Each program enters the programs' own; nobody else can enter any, as that takes a privilege over it.
    let programs = libc::CLONE_NEWUSER.cast_unsigned();
    filter.answer(
        &[libc::SYS_setns],
        &unless(&[Test::none_of(1, &[programs])]),
    );
    if pin_processors {
        // A program that chooses among the sandbox's processors runs on all of them.
        filter.answer(&[libc::SYS_sched_setaffinity], &Answer::Fails(0));
    }
    filter.answer(
        &[libc::SYS_clone],
        &unless(&[Test::has_any_of(0, NEW_NAMESPACES)]),
    );
    // Bytes typed into somebody else's terminal: two ioctls, compared as the kernel does, by their lower 32 bits.
    filter.answer(
        &[libc::SYS_ioctl],
        &unless(&[Test::one_of(1, &[0x5412, 0x541c])]),
    );
    // Socket families that only reach the kernel or hardware: packet, netlink beyond routes, vsock, Bluetooth, CAN, …
    let netlink = libc::AF_NETLINK.cast_unsigned();
    let routes = libc::NETLINK_ROUTE.cast_unsigned();
    let audit = libc::NETLINK_AUDIT.cast_unsigned();
    let families = vec![
        Rule {
            error: libc::EPERM,
            tests: vec![Test::one_of(0, syscalls::REFUSED_SOCKET_FAMILIES)],
        },
        // As a kernel without it says: programs that would report to it go on then.
        Rule {
            error: libc::EPROTONOSUPPORT,
            tests: vec![Test::one_of(0, &[netlink]), Test::one_of(2, &[audit])],
        },
        Rule {
            error: libc::EPERM,
            tests: vec![Test::one_of(0, &[netlink]), Test::none_of(2, &[routes])],
        },
    ];
    filter.answer(&[libc::SYS_socket], &Answer::FailsIf(families));
    let local = libc::AF_UNIX.cast_unsigned();
    filter.answer(
        &[libc::SYS_socketpair],
        &unless(&[Test::none_of(0, &[local])]),
    );
    filter.answer(
        &[libc::SYS_personality],
        &unless(&[Test::none_of(0, syscalls::PERSONALITIES)]),
    );
    // Limits of other processes, which may be the agent.
    filter.answer(&[libc::SYS_prlimit64], &unless(&[Test::none_of(0, &[0])]));
    if keep_owners {
        // A filter cannot read the mode that this one is told.
        filter.answer(&[libc::SYS_openat2], &Answer::Fails(libc::ENOSYS));
        let bits = libc::S_ISUID | libc::S_ISGID;
        for &(call, argument) in syscalls::MODES {
            filter.answer(&[call], &unless(&[Test::has_any_of(argument, bits)]));
        }
    }
    #[cfg(target_arch = "x86_64")]
    compat::add_to(&mut filter);
    filter
}

/// Nothing that is started from here on gains a privilege by its file's owner or capabilities.
pub(crate) fn give_up_new_privileges() -> io::Result<()> {
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

/// The files that this thread makes belong to another user than root, until this is dropped. It may still do what root may.
pub(crate) struct MakeFilesFor;

impl MakeFilesFor {
    pub(crate) fn user(uid: u32, gid: u32) -> MakeFilesFor {
        set_maker(uid, gid);
        MakeFilesFor
    }
}

impl Drop for MakeFilesFor {
    fn drop(&mut self) {
        set_maker(0, 0);
    }
}

/// Where there are no other users than root, this changes nothing.
fn set_maker(uid: u32, gid: u32) {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut sets = [CapabilitySets::default(); 2];
    // SAFETY: system calls on numbers, and on pointers to values that live until they return.
    unsafe {
        let known = libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr());
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        // The kernel takes what is about files from whoever is not root any more.
        if known == 0 {
            libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr());
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
    fn what_a_filter_tests_is_refused_by_any_of_its_rules() {
        let filter = filter_of_programs(false, true);
        let allows = |call, first: i32, second: i32, third: i32| {
            let [first, second, third] =
                [first, second, third].map(|value| u64::from(value.cast_unsigned()));
            filter::tests::allows(&filter, call, [first, second, third, 0, 0, 0])
        };
        assert!(allows(libc::SYS_socket, libc::AF_INET, 0, 0));
        assert!(!allows(libc::SYS_socket, libc::AF_PACKET, 0, 0));
        assert!(allows(
            libc::SYS_socket,
            libc::AF_NETLINK,
            0,
            libc::NETLINK_ROUTE
        ));
        assert!(!allows(
            libc::SYS_socket,
            libc::AF_NETLINK,
            0,
            libc::NETLINK_AUDIT
        ));
        assert!(allows(
            libc::SYS_clone,
            libc::CLONE_VM | libc::SIGCHLD,
            0,
            0
        ));
        assert!(!allows(
            libc::SYS_clone,
            libc::CLONE_NEWNET | libc::SIGCHLD,
            0,
            0
        ));
        assert!(allows(libc::SYS_fchmod, 3, 0o755, 0));
        assert!(!allows(libc::SYS_fchmod, 3, 0o2755, 0));
        assert!(!allows(libc::SYS_fchmod, 3, 0o4755, 0));
        assert!(!allows(libc::SYS_openat2, 0, 0, 0));
        assert!(!allows(libc::SYS_mount, 0, 0, 0));
        assert!(!allows(libc::SYS_clone3, 0, 0, 0));
    }

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        for call in syscalls::REFUSED {
            assert!(!syscalls::ALLOWED.contains(call), "{call}");
        }
    }
}
