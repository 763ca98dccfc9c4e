//! Bytes for a device, a named pipe or an open file. Nothing here waits for ever: a pipe that nobody reads ends it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How long somebody is waited for who opens a named pipe to read it, or reads on: a person who types the other command is
/// done by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pipe without a reader can only be looked at again and again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a pipe takes at once.
const CHUNK: usize = 64 << 10;

/// Sends all of a file.
///
/// # Errors
/// `TimedOut` if nobody reads; what the device or the pipe says.
pub(super) fn send(to: &OwnedFd, file: &mut File) -> io::Result<()> {
    let _unharmed = NoPipeSignal::begin();
    let mut to = open(to)?;
    file.rewind()?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(&to)?,
                Err(error) => return Err(error),
            }
        }
    }
}

fn open(handle: &OwnedFd) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let begun = Instant::now();
    loop {
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => return Ok(file.into()),
            // Nobody has opened the pipe to read it.
            Err(Errno::NXIO) if begun.elapsed() < PATIENCE => std::thread::sleep(LOOK_EVERY),
            Err(Errno::NXIO) => return Err(unread()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait(to: &File) -> io::Result<()> {
    let patience = Timespec {
        tv_sec: PATIENCE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let mut polled = [PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT)];
    match poll(&mut polled, Some(&patience)) {
        Ok(0) => Err(unread()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn unread() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("nobody has read from it for {} seconds", PATIENCE.as_secs()),
    )
}

/// While this lives, a pipe whose reader has gone is an error to this thread, and no signal, which would end a process that
/// has not asked for it to be ignored.
struct NoPipeSignal {
    former: libc::sigset_t,
    /// It waited to be handled before, and stays.
    was_pending: bool,
}

impl NoPipeSignal {
    fn begin() -> NoPipeSignal {
        let mut former = MaybeUninit::uninit();
        let was_pending = is_pending();
        let signal = pipe_signal();
        // SAFETY: both sets are of this frame; the kernel writes the former mask, and the call cannot fail with these
        // arguments.
        let former = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &signal, former.as_mut_ptr());
            former.assume_init()
        };
        NoPipeSignal {
            former,
            was_pending,
        }
    }
}

impl Drop for NoPipeSignal {
    fn drop(&mut self) {
        let signal = pipe_signal();
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the set and the time are of this frame, and the kernel may leave out what it would say of the signal.
        let took_one = !self.was_pending
            && is_pending()
            && unsafe { libc::sigtimedwait(&signal, std::ptr::null_mut(), &at_once) } >= 0;
        if took_one {
            tracing::debug!("the reader of a pipe has gone");
        }
        // SAFETY: the mask is the one that this thread had, and where that was is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.former, std::ptr::null_mut()) };
    }
}

fn pipe_signal() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is initialized by the first call, as the second needs it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

fn is_pending() -> bool {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the kernel writes the whole set before it is looked at.
    unsafe {
        libc::sigpending(set.as_mut_ptr()) == 0
            && libc::sigismember(set.as_ptr(), libc::SIGPIPE) == 1
    }
}
