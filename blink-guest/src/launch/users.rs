//! Users that nobody else on the host has: a user namespace, and mounts whose owners are mapped into it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use blink_wire::SandboxUsers;

use super::Failure;

/// Makes the namespace; it lives as long as its descriptor or a process in it.
pub(crate) fn make_namespace(users: &SandboxUsers) -> Result<OwnedFd, Failure> {
    let failed = || Failure::at("a user namespace", "cannot be made");
    let launcher = rustix::process::getpid();
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: without memory or a stack of its own it is a fork, of a program that has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        hold_namespace(launcher);
    }
    let holder = i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| failed()(io::Error::last_os_error()))?;
    let map = format!("0 {} {}\n", users.base, users.count);
    let folder = format!("/proc/{holder}");
    let write = |name: &str| {
        let path = format!("{folder}/{name}");
        std::fs::write(&path, &map).map_err(Failure::at(path, "cannot be written"))
    };
    let path = format!("{folder}/ns/user");
    let namespace = write("uid_map")
        .and_then(|()| write("gid_map"))
        .and_then(|()| File::open(&path).map_err(Failure::at(path, "cannot be opened")));
    // SAFETY: ends and collects the child that was just made; a null status is not written to.
    unsafe {
        libc::kill(holder, libc::SIGKILL);
        libc::waitpid(holder, std::ptr::null_mut(), 0);
    }
    Ok(namespace?.into())
}

/// The first process of the namespace: it is there until the namespace is opened, or the launcher has ended.
fn hold_namespace(launcher: rustix::process::Pid) -> ! {
    super::enter::die_with(launcher);
    loop {
        // SAFETY: it waits for the signal that ends it.
        unsafe { libc::pause() };
    }
}

/// Lets a mount's owners be the namespace's, where its file system can.
pub(crate) fn map_owners(tree: &OwnedFd, namespace: &OwnedFd) {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).unwrap_or_default(),
    };
    // SAFETY: the path is a NUL-terminated string, and the size is that of the struct.
    unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
}
