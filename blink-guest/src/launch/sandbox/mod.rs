//! A sandbox: a process with namespaces of its own, whose root is made of what was opened before.
//!
//! The launcher opens what the sandbox is made of, makes the first process with all of its namespaces at once, says who
//! its users are, and lets it go on: it puts the root together, leaves the host's behind, and becomes the agent. Where the
//! launcher has no rights over the host's mounts, the first process opens everything itself: it has such rights in its own
//! namespaces, and reaches what its user reaches.

mod mounts;
mod privileges;
mod root;
mod sources;
mod users;
pub(crate) mod way;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use blink_wire::{LAUNCH_OVERLAY, LaunchPlan, SandboxPlan, SandboxUsers};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::channel::Control;
use super::{Failure, program};
use sources::{LAUNCH_OWNERS, Sources, path};
use users::Namespace;

/// Says that a start has failed, which was reported.
pub(super) const FAILED: u8 = b'f';

/// What is added to a sandbox's part of the host's memory, in thousandths, when the kernel looks for what to end.
const OUT_OF_MEMORY_SCORE: &str = "200";

/// Lets the first process go on.
const GO: u8 = b'g';

/// The first process, and the socket to it, which is open until it has become the agent.
pub(super) struct First {
    pub(super) pid: Pid,
    pub(super) socket: OwnedFd,
    /// Open for as long as the launcher lives.
    pub(super) life: OwnedFd,
}

pub(super) fn start(
    control: &Control,
    plan: &LaunchPlan,
    sandbox: &SandboxPlan,
    descriptors: &[OwnedFd],
) -> Result<First, Failure> {
    // Whose processes are waited for when the sandbox has begun.
    let mut namespaces = Vec::new();
    let (sources, users) = open_as_root(sandbox, &mut namespaces)?;
    let sandbox = &SandboxPlan {
        users,
        ..sandbox.clone()
    };
    let pair = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let (ours, theirs) = pair.map_err(Failure::at("a socket", "cannot be made"))?;
    let (life, held) =
        pipe_with(PipeFlags::CLOEXEC).map_err(Failure::at("a pipe", "cannot be made"))?;
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::SIGCHLD;
    if sandbox.own_network {
        flags |= libc::CLONE_NEWNET;
    }
    // SAFETY: without memory or a stack of its own it is a fork, of a program that has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        drop((ours, held));
        let failure = become_first(plan, sandbox, descriptors, sources, &theirs, &life);
        control.report(&failure.report());
        let _ = rustix::io::write(&theirs, &[FAILED]);
        // SAFETY: takes a number; nothing of this process's is to be run at its end.
        unsafe { libc::_exit(127) }
    }
    let error = io::Error::last_os_error();
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0);
    let pid = pid
        .and_then(Pid::from_raw)
        .ok_or_else(|| users::not_made()(error))?;
    drop((theirs, life));
    let first = First {
        pid,
        socket: ours,
        life: held,
    };
    if let Some(group) = &sandbox.group {
        let number = pid.as_raw_nonzero().to_string();
        std::fs::write(path(group), number)
            .map_err(Failure::at(path(group), "cannot be joined"))?;
    }
    users::map(pid, sandbox.users.as_ref())?;
    rustix::io::write(&first.socket, &[GO])
        .map_err(Failure::at("the sandbox's first process", "has ended"))?;
    Ok(first)
}

/// What the sandbox is made of, where this process may open it for users of the sandbox's own, and who these are.
fn open_as_root(
    sandbox: &SandboxPlan,
    namespaces: &mut Vec<Namespace>,
) -> Result<(Option<Sources>, Option<SandboxUsers>), Failure> {
    let Some(users) = &sandbox.users else {
        return Ok((None, None));
    };
    // By whom everything is stored already.
    let shared = SandboxUsers {
        base: users.stored,
        ..users.clone()
    };
    if users.base != users.stored {
        let stored = users::of_stored(users)?;
        let opened = Sources::open(sandbox, Some(&stored));
        namespaces.push(stored);
        match opened {
            Ok(sources) => return with_owners(sources, users, namespaces),
            // Before Linux 6.15, and on file systems that cannot.
            Err(failure) if matches!(failure.step, LAUNCH_OWNERS | LAUNCH_OVERLAY) => {}
            Err(failure) if failure.errno == libc::EPERM => {}
            Err(failure) => return Err(failure),
        }
    }
    match Sources::open(sandbox, None) {
        Ok(sources) => with_owners(sources, &shared, namespaces),
        // Root of a container, say.
        Err(failure) if failure.errno == libc::EPERM => Ok((None, Some(shared))),
        Err(failure) => Err(failure),
    }
}

/// Lets the owners of mounts be the sandbox's root, where their file systems can.
fn with_owners(
    sources: Sources,
    users: &SandboxUsers,
    namespaces: &mut Vec<Namespace>,
) -> Result<(Option<Sources>, Option<SandboxUsers>), Failure> {
    for mount in &sources.mounts {
        let owner = users::of_owner(mount, users)?;
        let _ = mounts::map_owners(mount, &owner);
        namespaces.push(owner);
    }
    Ok((Some(sources), Some(users.clone())))
}

/// Becomes the agent; returns where that fails.
fn become_first(
    plan: &LaunchPlan,
    sandbox: &SandboxPlan,
    descriptors: &[OwnedFd],
    sources: Option<Sources>,
    launcher: &OwnedFd,
    life: &OwnedFd,
) -> Failure {
    let own_numbers = [sandbox.programs_number, sandbox.life_number];
    let numbers: Vec<_> = plan.numbers.iter().copied().chain(own_numbers).collect();
    let enter = || -> Result<(), Failure> {
        end_with(launcher)?;
        users::become_root(sandbox.users.as_ref())?;
        // A change of user takes it back.
        end_with_parent();
        let _ = rustix::process::setsid();
        // Where the host has too little memory, sandboxes come first. Not every kernel keeps such a score.
        let _ = std::fs::write("/proc/self/oom_score_adj", OUT_OF_MEMORY_SCORE);
        privileges::leave_keyring()?;
        let sources = match sources {
            Some(sources) => sources,
            None => Sources::open(sandbox, None)?,
        };
        root::enter(sandbox, sources)?;
        rustix::system::sethostname(sandbox.host_name.as_bytes())
            .map_err(Failure::at("the sandbox's host name", "cannot be set"))?;
        if sandbox.own_network {
            start_loopback().map_err(Failure::at("the sandbox's network", "cannot be started"))?;
        }
        let users = sandbox.users.as_ref();
        let programs = users::programs(users, sandbox.processes)?;
        privileges::bound()?;
        users::become_agent(users)?;
        privileges::keep_for_agent()?;
        if users.is_some() && !is_embedded(plan) {
            privileges::keep_when_executed()?;
        }
        // A change of user takes it back.
        end_with_parent();
        let own = [programs.descriptor(), life];
        let all: Vec<_> = descriptors.iter().chain(own).collect();
        program::place_descriptors(&all, &numbers)
    };
    match enter() {
        Ok(()) if is_embedded(plan) => serve(plan, &numbers),
        Ok(()) => program::execute(plan),
        Err(failure) => failure,
    }
}

/// Whether the agent is this program. Executing it once more would cost a start some of its time, and change nothing.
fn is_embedded(plan: &LaunchPlan) -> bool {
    plan.program.is_empty()
}

/// Serves as the agent, with nothing but its own descriptors.
fn serve(plan: &LaunchPlan, numbers: &[u32]) -> ! {
    program::close_all_but(numbers);
    let arguments = plan.arguments.iter();
    let arguments = arguments.map(|argument| String::from_utf8_lossy(argument).into_owned());
    let served = crate::serve(arguments.skip(1));
    std::process::exit(match served {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("blink-guest: {error}");
            1
        }
    })
}

/// Ends this process when the launcher ends, also where that was a moment ago: it says once that it is there.
fn end_with(launcher: &OwnedFd) -> Result<(), Failure> {
    end_with_parent();
    let mut byte = [0];
    loop {
        match rustix::io::read(launcher, &mut byte) {
            Ok(1) => return Ok(()),
            Err(Errno::INTR) => {}
            // SAFETY: takes a number.
            _ => unsafe { libc::_exit(1) },
        }
    }
}

fn end_with_parent() {
    // SAFETY: a system call on numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
}

/// A network of one's own begins with a loopback that is down.
fn start_loopback() -> io::Result<()> {
    /// `IFF_UP` and `IFF_RUNNING`.
    const UP: libc::c_short = 0x41;
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: the request is plain data, for which zeros are valid; its name is shorter than its room.
    unsafe {
        let mut request = std::mem::zeroed::<libc::ifreq>();
        for (place, letter) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *place = letter.cast_signed();
        }
        request.ifr_ifru.ifru_flags = UP;
        match libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
