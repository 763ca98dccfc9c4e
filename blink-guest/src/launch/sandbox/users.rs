//! The users of a sandbox, as its two user namespaces map them.
//!
//! The agent, the mounts, the network and the host's name belong to the outer one. Programs are in the inner one, with the same
//! ids: they can have a container root's capabilities there, and none over what belongs to the outer one. Where the launcher
//! may map ids, the agent's own is none of theirs.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use blink_wire::{LAUNCH_NAMESPACES, SandboxUsers};
use rustix::process::{Pid, Signal, getegid, geteuid, getpid, kill_process};

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
            let SandboxUsers {
                base, count, agent, ..
            } = users;
            let map = format!("0 {base} {count}\n{count} {agent} 1\n");
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

/// Makes the programs' namespace; it lives as long as its descriptor or a process in it. `processes` is what all of its users
/// together may have.
pub(super) fn programs(users: Option<&SandboxUsers>, processes: u64) -> Result<Namespace, Failure> {
    let failed = || Failure::at("the programs' user namespace", LAUNCH_NAMESPACES);
    // A change of user has made what `/proc` has of this process, and of the one that comes of it, the host's root's.
    // SAFETY: a system call on numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    let before = limit_processes(processes).map_err(failed())?;
    let map = format!("0 0 {}\n", users.map_or(1, |users| users.count));
    let made = make(&map, &map);
    // SAFETY: reads a local value.
    unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const before) };
    made
}

/// By which the files of layers and disks belong to a sandbox's own users. They stay as they are there. What is the host's root's,
/// such as the folder of a disk, stays that, so that the launcher reaches it.
pub(super) fn of_stored(users: &SandboxUsers) -> Result<Namespace, Failure> {
    let SandboxUsers {
        base,
        count,
        stored,
        ..
    } = users;
    let map = format!("0 0 1\n{stored} {base} {count}\n");
    make(&map, &map)
}

/// By which the owner of what is mounted is the sandbox's root there. Others have the same number inside as outside, but for the
/// host's root, who is nobody there.
pub(super) fn of_owner(mount: &OwnedFd, users: &SandboxUsers) -> Result<Namespace, Failure> {
    let found = rustix::fs::fstat(mount).map_err(Failure::at("a mount", "cannot be looked at"))?;
    make(
        &owner_map(found.st_uid, users),
        &owner_map(found.st_gid, users),
    )
}

fn owner_map(owner: u32, users: &SandboxUsers) -> String {
    let SandboxUsers { base, count, .. } = *users;
    if owner == 0 {
        return format!("0 {base} {count}\n");
    }
    let below = owner.min(count) - 1;
    let above = count.saturating_sub(owner.saturating_add(1));
    let mut map = format!("{owner} {base} 1\n");
    for (first, many) in [(1, below), (owner.saturating_add(1), above)] {
        if many > 0 {
            map.push_str(&format!("{first} {} {many}\n", base + first));
        }
    }
    map
}

/// A user namespace in which nobody is.
pub(super) struct Namespace {
    descriptor: OwnedFd,
    /// The process that has made it, and ends; whoever drops this waits for that.
    _holder: Holder,
}

impl Namespace {
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }
}

/// A process that does nothing, with this one's memory but a stack of its own.
struct Holder {
    pid: Pid,
    _stack: Vec<u128>,
}

impl Holder {
    /// Starts one in a user namespace of its own.
    fn start() -> io::Result<Holder> {
        const STACK_BYTES: usize = 4 << 10;
        extern "C" fn wait_for_the_end(parent: *mut c_void) -> c_int {
            // SAFETY: system calls on numbers. It waits for the signal that its parent, or the parent's end, sends.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                while libc::getppid() as usize == parent as usize {
                    libc::poll(std::ptr::null_mut(), 0, -1);
                }
            }
            0
        }
        let parent = getpid().as_raw_nonzero().get() as usize as *mut c_void;
        let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
        let top = stack.as_mut_ptr_range().end.cast();
        let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::SIGCHLD;
        // SAFETY: `top` is the aligned end of a buffer that nothing else uses, and that lives for as long as the process: what
        // drops it waits for that. The process makes system calls on numbers, and touches no other memory.
        let pid = unsafe { libc::clone(wait_for_the_end, top, flags, parent) };
        match Pid::from_raw(pid).filter(|_| pid > 0) {
            Some(pid) => Ok(Holder { pid, _stack: stack }),
            None => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let number = self.pid.as_raw_nonzero().get();
        // SAFETY: ends and collects a child of this process; a null status is not written to.
        unsafe {
            libc::kill(number, libc::SIGKILL);
            libc::waitpid(number, std::ptr::null_mut(), 0);
        }
    }
}

/// A user namespace with these maps.
fn make(uid_map: &str, gid_map: &str) -> Result<Namespace, Failure> {
    let holder = Holder::start().map_err(Failure::at("a user namespace", LAUNCH_NAMESPACES))?;
    let folder = format!("/proc/{}", holder.pid.as_raw_nonzero());
    let write = |name: &str, map: &str| {
        let path = format!("{folder}/{name}");
        std::fs::write(&path, map).map_err(Failure::at(path, "cannot be written"))
    };
    write("uid_map", uid_map)?;
    write("gid_map", gid_map)?;
    let descriptor = namespace(holder.pid)?;
    let _ = kill_process(holder.pid, Signal::KILL);
    Ok(Namespace {
        descriptor,
        _holder: holder,
    })
}

/// Sets the limit that a user namespace keeps for all that is in it, and returns what it was.
fn limit_processes(processes: u64) -> io::Result<libc::rlimit> {
    let mut before = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes to a local value, and reads one.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NPROC, &raw mut before) < 0 {
            return Err(io::Error::last_os_error());
        }
        let limit = libc::rlimit {
            rlim_cur: processes.min(before.rlim_max),
            rlim_max: before.rlim_max,
        };
        match libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) {
            0 => Ok(before),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Becomes the agent's user, whose capabilities stay; without users of the sandbox's own, that is its root.
pub(super) fn become_agent(users: Option<&SandboxUsers>) -> Result<(), Failure> {
    let Some(users) = users else { return Ok(()) };
    let id = users.count;
    // SAFETY: system calls on numbers.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0
            || libc::syscall(libc::SYS_setresgid, id, id, id) < 0
            || libc::syscall(libc::SYS_setresuid, id, id, id) < 0
            || libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0
    };
    match failed {
        true => Err(Failure::at("the agent's user", "cannot be become")(
            io::Error::last_os_error(),
        )),
        false => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_root_and_the_hosts_root_is_nobody() {
        let users = SandboxUsers {
            base: 1_000_000,
            count: 65536,
            agent: 7,
            stored: 9,
        };
        let maps = [
            (0, "0 1000000 65536\n"),
            (1, "1 1000000 1\n2 1000002 65534\n"),
            (2, "2 1000000 1\n1 1000001 1\n3 1000003 65533\n"),
            (1000, "1000 1000000 1\n1 1000001 999\n1001 1001001 64535\n"),
            (65535, "65535 1000000 1\n1 1000001 65534\n"),
            (65536, "65536 1000000 1\n1 1000001 65535\n"),
            (u32::MAX, "4294967295 1000000 1\n1 1000001 65535\n"),
        ];
        for (owner, map) in maps {
            assert_eq!(owner_map(owner, &users), map);
        }
    }
}
