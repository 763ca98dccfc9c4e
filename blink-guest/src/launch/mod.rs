//! The launcher: this program on the host, where it starts other programs for the library.
//!
//! The process that embeds Blink never runs code between a fork and an exec: it has threads, locks and descriptors that
//! nobody here knows. It spawns `blink-guest launch` with one socket, over which a plan and its descriptors come. The
//! launcher has one thread and nothing open, so it can fork safely; whatever the host process was given by whoever started
//! it (signals, masks, limits, descriptors) ends here. It stays as long as its program, and is its leash: where the host
//! process ends, by whatever means and at whatever moment, the program ends with all that it has started.

mod channel;
mod program;
pub(crate) mod sandbox;
mod surroundings;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use blink_wire::{LAUNCH_END, LAUNCH_RELEASE, LaunchFailure, LaunchPlan, LaunchReport};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getppid, kill_process, pidfd_open, wait, waitpid,
};

use channel::{Control, Received};

/// The step of a start that failed, and what it was done to.
#[derive(Debug)]
pub(crate) struct Failure {
    what: PathBuf,
    step: &'static str,
    errno: i32,
}

impl Failure {
    pub(crate) fn at<E: Into<std::io::Error>>(
        what: impl Into<PathBuf>,
        step: &'static str,
    ) -> impl FnOnce(E) -> Failure {
        let what = what.into();
        move |error| Failure {
            what,
            step,
            errno: error.into().raw_os_error().unwrap_or(libc::EIO),
        }
    }

    fn report(self) -> LaunchReport {
        use std::os::unix::ffi::OsStringExt;
        LaunchReport::Failed(LaunchFailure {
            step: self.step.to_owned(),
            path: self.what.into_os_string().into_vec().into(),
            errno: self.errno,
        })
    }
}

/// Does what the plan on the standard input says.
pub(crate) fn run() -> ExitCode {
    let Ok(control) = Control::take() else {
        return ExitCode::FAILURE;
    };
    match launch(&control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            control.report(&failure.report());
            ExitCode::FAILURE
        }
    }
}

fn launch(control: &Control) -> Result<(), Failure> {
    channel::replace_standard_descriptors()?;
    surroundings::reset();
    // Nobody waits for what was not said to its end.
    let Some(received) = control.receive() else {
        return Ok(());
    };
    let Received {
        plan,
        descriptors,
        kept: _kept,
    } = received;
    let Some(parent) = watch_parent(plan.parent) else {
        return Ok(());
    };
    surroundings::adopt_orphans();
    if plan.sandbox.is_some() {
        // Signals of the terminal are the host program's, which passes on what it wants to.
        let _ = rustix::process::setsid();
    }
    let child = start(control, &plan, &descriptors)?;
    child.follow(control, &parent, plan.sandbox.is_some());
    Ok(())
}

/// A handle of the host process; `None` where it has ended.
fn watch_parent(parent: i32) -> Option<OwnedFd> {
    let parent = Pid::from_raw(parent)?;
    let handle = pidfd_open(parent, PidfdFlags::empty()).ok()?;
    // Its number cannot have changed hands while it was the parent.
    (getppid() == Some(parent)).then_some(handle)
}

fn start(control: &Control, plan: &LaunchPlan, descriptors: &[OwnedFd]) -> Result<Child, Failure> {
    let (pid, info, life) = match &plan.sandbox {
        Some(sandbox) => {
            let first = sandbox::start(control, plan, sandbox, descriptors)?;
            (first.pid, Some(first.socket), Some(first.life))
        }
        None => (fork(control, plan, descriptors)?, None, None),
    };
    // The child is not waited for yet, so the number is its own.
    let handle = pidfd_open(pid, PidfdFlags::empty());
    let handle = handle.map_err(Failure::at("a process's handle", "cannot be opened"))?;
    Ok(Child {
        pid,
        handle,
        info,
        _life: life,
    })
}

/// Starts a program of the host's.
fn fork(control: &Control, plan: &LaunchPlan, descriptors: &[OwnedFd]) -> Result<Pid, Failure> {
    let launcher = rustix::process::getpid();
    // SAFETY: this program has one thread, so that its child may do everything that it may.
    match unsafe { libc::fork() } {
        0 => {
            control.report(&program::run(plan, descriptors, launcher).report());
            // SAFETY: takes a number; nothing of this process's is to be run at its end.
            unsafe { libc::_exit(127) }
        }
        number => Pid::from_raw(number).filter(|_| number > 0).ok_or_else(|| {
            Failure::at("a process", "cannot be made")(std::io::Error::last_os_error())
        }),
    }
}

/// The program, and the socket to a sandbox's first process, which is open until that has become the agent.
struct Child {
    pid: Pid,
    handle: OwnedFd,
    info: Option<OwnedFd>,
    /// By its end, the sandbox's first process knows of this one's.
    _life: Option<OwnedFd>,
}

impl Child {
    /// Until its end, which comes with the host process's unless it was released.
    fn follow(mut self, control: &Control, parent: &OwnedFd, is_sandbox: bool) {
        let (mut leashed, mut hears) = (true, true);
        loop {
            let [ended, has_told, asked, orphaned] = wait_for([
                Some(self.handle.as_fd()),
                self.info.as_ref().map(AsFd::as_fd),
                hears.then_some(control.as_fd()),
                leashed.then_some(parent.as_fd()),
            ]);
            if orphaned {
                return end_all();
            }
            if asked {
                match control.hear() {
                    Some(LAUNCH_RELEASE) => leashed = false,
                    Some(LAUNCH_END) => return end_all(),
                    Some(_) => {}
                    None if leashed => return end_all(),
                    None => hears = false,
                }
            }
            if has_told {
                if self.has_begun() {
                    control.report(&LaunchReport::Inside(self.pid.as_raw_nonzero().get()));
                }
                self.info = None;
            } else if ended && self.info.is_none() {
                control.report(&LaunchReport::Ended(self.code()));
                // What a program of the host's has left running was meant to go on.
                return if is_sandbox {
                    end_all()
                };
            }
        }
    }

    /// Whether the first process has become the agent: otherwise it has said that it failed.
    fn has_begun(&self) -> bool {
        let mut byte = [0];
        let said = self
            .info
            .as_ref()
            .map(|info| rustix::io::read(info, &mut byte));
        !matches!(said, Some(Ok(1)) if byte == [sandbox::FAILED])
    }

    fn code(&self) -> i32 {
        match waitpid(Some(self.pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                (None, None) => -1,
            },
            _ => -1,
        }
    }
}

/// Waits until something has come to one of them, or it has ended.
fn wait_for<const N: usize>(descriptors: [Option<BorrowedFd<'_>>; N]) -> [bool; N] {
    let mut watched = descriptors.map(|descriptor| libc::pollfd {
        fd: descriptor.map_or(-1, |descriptor| descriptor.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: the pointer and the length are those of an array of ours.
    unsafe { libc::poll(watched.as_mut_ptr(), N as libc::nfds_t, -1) };
    watched.map(|one| one.revents != 0)
}

/// Ends all that this process has started: who loses its parent becomes this process's own child, so that the last has ended
/// when there is none.
fn end_all() {
    loop {
        for child in children() {
            let _ = kill_process(child, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero();
    let listed = std::fs::read_to_string(format!("/proc/self/task/{own}/children"));
    let numbers = listed.unwrap_or_default();
    let numbers = numbers.split_ascii_whitespace().map(str::parse);
    numbers.flatten().filter_map(Pid::from_raw).collect()
}
