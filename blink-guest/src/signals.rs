//! The signals that the agent hears, as a descriptor.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{self, Errno};

/// Whoever started the host program may have made it ignore signals, which every program would inherit.
fn hear_what_was_ignored() {
    const LAST_SIGNAL: libc::c_int = 64;
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: asks for and sets a disposition; both structs are plain data, for which zeros are valid. Handlers,
        // which the standard library has set for its own, are left as they are.
        unsafe {
            let mut known = std::mem::zeroed::<libc::sigaction>();
            if libc::sigaction(signal, std::ptr::null(), &raw mut known) == 0
                && known.sa_sigaction == libc::SIG_IGN
            {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Blocks the signals that the loop hears and opens their descriptor. A broken pipe is an error of a write, no signal.
pub(crate) fn open() -> io::Result<OwnedFd> {
    hear_what_was_ignored();
    // SAFETY: the set is initialised by sigemptyset before it is used; the descriptor is new and owned by nobody else.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(last_error());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(last_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Takes what has come; `true` if the agent is asked to end.
pub(crate) fn drain(fd: &OwnedFd) -> bool {
    let mut end = false;
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    // SAFETY: the buffer is as long as the length says.
    while unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), info.len()) } > 0 {
        let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        let sender = u32::from_ne_bytes([info[12], info[13], info[14], info[15]]);
        // Who is outside the sandbox has no number in it; its own programs have no say in its end.
        let from_inside = sender != 0 && std::process::id() == 1;
        end |= number == libc::SIGTERM.cast_unsigned() && !from_inside;
    }
    end
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
