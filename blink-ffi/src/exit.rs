//! How a program ended.

use std::ffi::{CString, c_char};

use blink_core::ExitStatus;

use crate::call::init;
use crate::sized::{structure, zeros};
use crate::status::blink_status;
use crate::text::{cut, pointer};

/// How a program ended.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_exit {
    /// sizeof(blink_exit), set by blink_exit_init().
    pub size: usize,
    /// Its exit code; 128 and the signal's number if a signal ended it, as shells report it. 127 if there is no
    /// such program, 126 if it may not be executed.
    pub code: i32,
    /// The signal that ended it; 0 if none did.
    pub signal: i32,
    /// 1 if its time was over, and it was killed with everything that it had started.
    pub timed_out: u32,
    /// Always 0.
    pub reserved: u32,
    /// "memory" or "disk" if it was killed because the sandbox was over that limit; otherwise NULL. A static string.
    pub over_limit: *const c_char,
    /// Why it could not be started, if the code is 126 or 127 for that reason; otherwise NULL. It belongs to the
    /// object that was asked, and is there until that is freed.
    pub reason: *const c_char,
    /// Microseconds from its start to its end.
    pub duration_us: u64,
}

structure!(blink_exit, zeros());

/// Sets up a blink_exit to be filled in.
///
/// @param exit  Written.
/// @param size  sizeof(blink_exit).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_exit_init(exit: *mut blink_exit, size: usize) -> blink_status {
    init!(exit, size)
}

/// An exit status with the text that C may look at.
pub(crate) struct Exit {
    status: ExitStatus,
    reason: Option<CString>,
}

impl Exit {
    pub(crate) fn new(status: ExitStatus) -> Exit {
        Exit {
            reason: status.reason.clone().map(cut),
            status,
        }
    }

    pub(crate) fn status(&self) -> &ExitStatus {
        &self.status
    }

    /// Its form in C, whose text is there as long as this.
    pub(crate) fn shown(&self) -> blink_exit {
        let over_limit = match self.status.over_limit {
            None => std::ptr::null(),
            Some("memory") => c"memory".as_ptr(),
            Some("disk") => c"disk".as_ptr(),
            Some(_) => c"other".as_ptr(),
        };
        blink_exit {
            size: size_of::<blink_exit>(),
            code: self.status.code,
            signal: self.status.signal.unwrap_or(0),
            timed_out: self.status.timed_out.into(),
            reserved: 0,
            over_limit,
            reason: pointer(self.reason.as_ref()),
            duration_us: u64::try_from(self.status.duration.as_micros()).unwrap_or(u64::MAX),
        }
    }
}
