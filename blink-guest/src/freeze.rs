//! Holds the disk still while the host copies it.

use std::ffi::c_ulong;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use blink_wire::{ErrorBody, ErrorKind};

use crate::failure::{errno_of, failed_as};

/// A host that dies meanwhile must not leave the disk as it is: programs that write wait for it.
const LONGEST: Duration = Duration::from_secs(10);

/// The kernel's requests, `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`.
const FIFREEZE: c_ulong = 0xC004_5877;
const FITHAW: c_ulong = 0xC004_5878;

/// Counts the times that the disk was frozen: each has an end of its own.
static TIMES: AtomicU64 = AtomicU64::new(0);

pub(crate) fn freeze() -> Result<(), ErrorBody> {
    let failed = |error: io::Error| {
        let kind = match error.raw_os_error() {
            Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOTTY) => ErrorKind::Unsupported,
            Some(libc::EBUSY) => ErrorKind::Busy,
            _ => ErrorKind::Internal,
        };
        let message = format!("the disk cannot be frozen: {error}");
        failed_as(kind, errno_of(&error), message)
    };
    ask(FIFREEZE).map_err(failed)?;
    let time = TIMES.fetch_add(1, Ordering::AcqRel) + 1;
    let timer = thread::Builder::new().spawn(move || {
        thread::sleep(LONGEST);
        if TIMES.load(Ordering::Acquire) == time {
            let _ = ask(FITHAW);
        }
    });
    timer.map(drop).map_err(|error| {
        let _ = ask(FITHAW);
        failed(error)
    })
}

pub(crate) fn thaw() -> Result<(), ErrorBody> {
    match ask(FITHAW) {
        // It is not frozen: its time was over.
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(failed_as(
            ErrorKind::Internal,
            errno_of(&error),
            format!("the disk cannot be thawed: {error}"),
        )),
        _ => Ok(()),
    }
}

fn ask(request: c_ulong) -> io::Result<()> {
    let root = File::open("/")?;
    // SAFETY: the descriptor is open, and the kernel reads and writes nothing behind the third argument.
    match unsafe { libc::ioctl(root.as_raw_fd(), request as _, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
