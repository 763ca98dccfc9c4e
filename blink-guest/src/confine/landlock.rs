//! What a filter of system calls cannot say, and the kernel's Landlock can, where it is new enough.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

/// From the kernel's `landlock.h`.
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const ACCESS_FS_REFER: u64 = 1 << 13;
const RULE_PATH_BENEATH: libc::c_long = 1;

/// The kernel's `struct landlock_ruleset_attr`: file system, network, scope. An older kernel refuses what it has no field for, unless
/// that is zero.
type Attributes = [u64; 3];

/// The kernel's `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    folder: RawFd,
}

/// Abstract sockets are in no folder, and belong to the network's namespace, which may be the host's: those of others cannot be
/// connected to from here on (Linux 6.12).
pub(super) fn keep_to_own_sockets() {
    if let Some(rules) = rules(SCOPE_ABSTRACT_UNIX_SOCKET) {
        // SAFETY: a system call on an open descriptor.
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    }
}

/// Rules that forbid nothing (Linux 5.19). Whoever takes them upon itself can trace, and look into, only those that do so after it,
/// as its children do.
pub(super) fn apart() -> Option<OwnedFd> {
    rules(0)
}

/// Rules with a scope. They must be about files too: what is moved to another folder is refused by all rules that a process has
/// taken upon itself where any is about files, but for those that allow it.
fn rules(scope: u64) -> Option<OwnedFd> {
    let ruleset = ruleset([ACCESS_FS_REFER, 0, scope])?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).ok()?;
    let beneath = Beneath {
        allowed: ACCESS_FS_REFER,
        folder: root.as_raw_fd(),
    };
    // SAFETY: system calls on an open descriptor and on a struct that is read.
    let added = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const beneath,
            0,
        )
    };
    (added == 0).then_some(ruleset)
}

fn ruleset(attributes: Attributes) -> Option<OwnedFd> {
    // SAFETY: a system call on an array with its size.
    let ruleset = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            attributes.as_ptr(),
            size_of_val(&attributes),
            0,
        )
    };
    let ruleset = RawFd::try_from(ruleset)
        .ok()
        .filter(|number| *number >= 0)?;
    // SAFETY: it was just opened, and is nobody else's.
    Some(unsafe { OwnedFd::from_raw_fd(ruleset) })
}
