//! SIGPIPE, which by default ends a program whose library writes to a sandbox that has just ended. It is blocked where this
//! library writes, and a write then fails as any other; what the program itself does with the signal stays its own affair.

use std::mem::MaybeUninit;

/// While this lives, its thread gets no SIGPIPE.
pub(crate) struct Blocked {
    before: libc::sigset_t,
    /// Whether one had come before, which is the program's.
    pending: bool,
}

impl Blocked {
    pub(crate) fn here() -> Blocked {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are of the right type; the call writes the second, and cannot fail with this first argument.
        let before = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &only_pipe(), before.as_mut_ptr());
            before.assume_init()
        };
        Blocked {
            before,
            pending: is_pending(),
        }
    }

    /// For a thread of this library's own.
    pub(crate) fn for_good() {
        std::mem::forget(Blocked::here());
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if !self.pending && is_pending() {
            let now = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: takes the signal that this thread's own writes have caused, without waiting; nothing is written back.
            unsafe { libc::sigtimedwait(&only_pipe(), std::ptr::null_mut(), &now) };
        }
        // SAFETY: the set is the one that the thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

fn only_pipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the first call fills the set, and the second adds a signal that there is.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

fn is_pending() -> bool {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the first call fills the set that the second reads.
    unsafe {
        libc::sigpending(set.as_mut_ptr());
        libc::sigismember(set.as_ptr(), libc::SIGPIPE) == 1
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_write_to_nobody_fails_and_ends_nothing() {
        // Rust's own programs ignore it.
        // SAFETY: the default is what a C program has.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let blocked = Blocked::here();
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        let error = writer.write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        assert!(is_pending());
        drop(blocked);
        assert!(!is_pending());
    }
}
