//! Why a call failed, for a person.

use std::ffi::{CString, c_char, c_int};

use crate::call::{Failure, quietly};
use crate::handle::{self, Lent};
use crate::output::blink_output;
use crate::status::blink_status;
use crate::text::cut;

/// Why a call failed: a status, a sentence for a person, the error number behind it, and what the program had written
/// where it was cut off.
pub struct blink_error {
    status: blink_status,
    message: CString,
    errno: c_int,
    output: Option<Lent<blink_output>>,
}

impl blink_error {
    pub(crate) fn new(failure: Failure) -> blink_error {
        let output = failure.output.map(|output| blink_output::new(*output));
        blink_error {
            status: failure.status,
            message: cut(failure.message),
            errno: failure.errno,
            output: output.map(Lent::new),
        }
    }
}

/// Says what the caller can do about an error.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @return The status that the call has returned; BLINK_STATUS_INVALID_ARGUMENT for NULL and what is no error.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_status(error: *const blink_error) -> blink_status {
    quietly(blink_status::InvalidArgument, || {
        handle::get(error).map_or(blink_status::InvalidArgument, |error| error.status)
    })
}

/// What was tried, what went wrong, and what to do.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @return Text in UTF-8, there until the error is freed. "" for NULL and what is no error.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_message(error: *const blink_error) -> *const c_char {
    quietly(c"".as_ptr(), || {
        handle::get(error).map_or(c"".as_ptr(), |error| error.message.as_ptr())
    })
}

/// The error number of the system call that failed, in the sandbox or on the host, as in <errno.h> of Linux.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @return Such as ENOSPC or EISDIR. 0 where no system call failed, for NULL and what is no error.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_errno(error: *const blink_error) -> c_int {
    quietly(0, || handle::get(error).map_or(0, |error| error.errno))
}

/// What the program had written when it was cut off.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @return Borrowed from the error, and there until that is freed: do not free it. NULL where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_output(error: *const blink_error) -> *const blink_output {
    quietly(std::ptr::null(), || {
        let error = handle::get(error).ok();
        let output = error.as_ref().and_then(|error| error.output.as_ref());
        output.map_or(std::ptr::null(), Lent::pointer)
    })
}

/// Frees an error, with its message and its output.
///
/// @param error  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_free(error: *mut blink_error) {
    handle::free(error);
}
