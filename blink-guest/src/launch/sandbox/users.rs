//! The users of a sandbox, as its user namespace maps them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use blink_wire::{LAUNCH_NAMESPACES, SandboxUsers};
use rustix::process::{Pid, getegid, geteuid};

use super::super::Failure;

/// Says who the users of the namespace that a child is in are: those of the plan, or this process's own as root.
pub(super) fn map(child: Pid, users: Option<&SandboxUsers>) -> Result<(), Failure> {
    let folder = format!("/proc/{}", child.as_raw_nonzero());
    let write = |name: &str, content: &str| {
        let path = format!("{folder}/{name}");
        std::fs::write(&path, content).map_err(Failure::at(path, "cannot be written"))
    };
    match users {
        Some(users) => {
            let map = format!("0 {} {}\n", users.base, users.count);
            write("uid_map", &map)?;
            write("gid_map", &map)
        }
        None => {
            write("uid_map", &format!("0 {} 1\n", geteuid().as_raw()))?;
            // Whoever is no root may map a group only where nobody can leave one.
            write("setgroups", "deny")?;
            write("gid_map", &format!("0 {} 1\n", getegid().as_raw()))
        }
    }
}

/// The user namespace of a child.
pub(super) fn namespace(child: Pid) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{}/ns/user", child.as_raw_nonzero());
    let file = File::open(&path).map_err(Failure::at(path, "cannot be opened"))?;
    Ok(file.into())
}

/// Becomes root among the sandbox's users, and nobody else.
pub(super) fn become_root(users: Option<&SandboxUsers>) -> Result<(), Failure> {
    // SAFETY: system calls on numbers; the pointer of setgroups is not read for a count of 0.
    let failed = unsafe {
        (users.is_some() && libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) < 0)
            || libc::syscall(libc::SYS_setresgid, 0, 0, 0) < 0
            || libc::syscall(libc::SYS_setresuid, 0, 0, 0) < 0
    };
    match failed {
        true => Err(Failure::at("the sandbox's root", "cannot be become")(
            io::Error::last_os_error(),
        )),
        false => Ok(()),
    }
}

pub(super) fn not_made() -> impl FnOnce(io::Error) -> Failure {
    Failure::at("the sandbox's user namespace", LAUNCH_NAMESPACES)
}
