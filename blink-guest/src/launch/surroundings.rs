//! What a process gets from whoever starts it, set as every program of Blink's shall have it.

use std::ffi::c_int;

/// Enough files for any build or server; where the host process has fewer, a sandbox need not.
const OPEN_FILES: u64 = 65536;

/// What Linux gives a program.
const STACK_BYTES: u64 = 8 << 20;

/// What cannot be set without a privilege stays as it is.
pub(crate) fn reset() {
    reset_signals();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    reset_limits();
    reset_priority();
    // The folder may be one that is to be unmounted or removed.
    let _ = rustix::process::chdir("/");
}

/// Processes that lose their parent come to this one.
pub(crate) fn adopt_orphans() {
    // SAFETY: a system call on numbers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// An ignored SIGCHLD would make every wait fail, and a blocked signal would stay blocked in every program.
fn reset_signals() {
    const LAST_SIGNAL: c_int = 64;
    /// The kernel's `struct sigaction`, with nothing in it: the default.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=LAST_SIGNAL {
        // Asked of the kernel: the C library refuses those that it uses itself, which can be inherited as well.
        // SAFETY: reads a struct that lives as long as the program; the kernel refuses for the two that are never ignored.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

fn reset_limits() {
    let unlimited = libc::RLIM_INFINITY;
    for (resource, wanted) in [
        (libc::RLIMIT_AS, unlimited),
        (libc::RLIMIT_CPU, unlimited),
        (libc::RLIMIT_DATA, unlimited),
        (libc::RLIMIT_FSIZE, unlimited),
        (libc::RLIMIT_NPROC, unlimited),
        (libc::RLIMIT_RSS, unlimited),
        (libc::RLIMIT_NOFILE, OPEN_FILES),
    ] {
        let hard = hard_limit(resource);
        let raised = hard.max(wanted);
        // Only root may raise a hard limit.
        if !set_limit(resource, wanted, raised) {
            set_limit(resource, wanted.min(hard), hard);
        }
    }
    let hard = hard_limit(libc::RLIMIT_STACK);
    set_limit(libc::RLIMIT_STACK, STACK_BYTES.min(hard), hard);
    set_limit(libc::RLIMIT_CORE, 0, hard_limit(libc::RLIMIT_CORE));
}

fn hard_limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes to a local value.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit.rlim_max
}

fn set_limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> bool {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: reads a local value.
    unsafe { libc::setrlimit(resource, &raw const limit) == 0 }
}

/// A sandbox is neither before other programs nor safe from the kernel's search for memory because its host process is.
fn reset_priority() {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    const NO_IO_PRIORITY: c_int = 0;
    // SAFETY: system calls on numbers, and on a struct that is read.
    unsafe {
        let ordinary = libc::sched_param { sched_priority: 0 };
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, NO_IO_PRIORITY);
        libc::personality(0);
    }
    const OUT_OF_MEMORY: &str = "/proc/self/oom_score_adj";
    let protected = std::fs::read_to_string(OUT_OF_MEMORY)
        .is_ok_and(|score| score.trim().parse::<i32>().is_ok_and(|score| score < 0));
    if protected {
        let _ = std::fs::write(OUT_OF_MEMORY, "0");
    }
}
