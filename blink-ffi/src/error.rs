//! Why a call failed.

use std::ffi::{CString, c_char, c_int};

use blink_core::Holder;

use crate::failure::{Failure, quietly};
use crate::handle::{self, Lent};
use crate::output::blink_output;
use crate::status::blink_status;
use crate::text::cut;

/// Why a call failed: a status for the program, a message for a person, and what is known beside: the error number, the causes,
/// who is using what was asked for, and what the program had written where it was cut off.
pub struct blink_error {
    status: blink_status,
    message: CString,
    errno: c_int,
    retryable: bool,
    causes: Vec<CString>,
    holders: Vec<(i64, CString)>,
    output: Option<Lent<blink_output>>,
}

impl From<Failure> for blink_error {
    fn from(failure: Failure) -> blink_error {
        let output = failure.output.map(|output| blink_output::new(*output));
        blink_error {
            status: failure.status,
            message: cut(failure.message),
            errno: failure.errno,
            retryable: failure.retryable,
            causes: failure.causes.into_iter().map(cut).collect(),
            holders: failure.holders.into_iter().map(told).collect(),
            output: output.map(Lent::new),
        }
    }
}

fn told(holder: Holder) -> (i64, CString) {
    let pid = holder.pid.map_or(0, i64::from);
    (pid, cut(holder.command.unwrap_or_default()))
}

/// Says what the caller can do about an error.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @return The status that the call has returned; BLINK_STATUS_INVALID_ARGUMENT for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_status(error: *const blink_error) -> blink_status {
    quietly(blink_status::InvalidArgument, || {
        handle::get(error).map_or(blink_status::InvalidArgument, |error| error.status)
    })
}

/// What was tried, what went wrong, and what to do.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @return Text in UTF-8, valid until the error is freed. "" for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_message(error: *const blink_error) -> *const c_char {
    quietly(c"".as_ptr(), || {
        handle::get(error).map_or(c"".as_ptr(), |error| error.message.as_ptr())
    })
}

/// The error number of the system call that failed, in the sandbox or on the host, as in <errno.h> of Linux.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @return Such as ENOSPC or EISDIR. 0 if no system call failed, for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_errno(error: *const blink_error) -> c_int {
    quietly(0, || handle::get(error).map_or(0, |error| error.errno))
}

/// Whether the same call may succeed later without anyone changing anything.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @return true if something was in use, or a registry could not be reached. false for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_is_retryable(error: *const blink_error) -> bool {
    quietly(false, || {
        handle::get(error).is_ok_and(|error| error.retryable)
    })
}

/// What has caused an error, which its message includes: cause 0 is the nearest, the last one the root.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @param index  From 0.
/// @return Text in UTF-8, valid until the error is freed. NULL if there are no more, for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_error_cause(error: *const blink_error, index: usize) -> *const c_char {
    quietly(std::ptr::null(), || {
        let error = handle::get(error).ok();
        let cause = error.as_ref().and_then(|error| error.causes.get(index));
        cause.map_or(std::ptr::null(), |cause| cause.as_ptr())
    })
}

/// A process that is using what was asked for, where the status is BLINK_STATUS_BUSY.
///
/// @param error    Borrowed. May be used from several threads at once.
/// @param index    From 0.
/// @param command  May be NULL. Set to the beginning of the process's command line, valid until the error is freed; "" where
///                 that could not be read. NULL if the return value is -1.
/// @return The process's number on this host; 0 if it could not be told. -1 if there are no more, for NULL and what is no
///         error.
///
/// # Safety
/// `command` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_error_holder(
    error: *const blink_error,
    index: usize,
    command: *mut *const c_char,
) -> i64 {
    let (pid, text) = quietly((-1, std::ptr::null()), || {
        let error = handle::get(error).ok();
        let holder = error.as_ref().and_then(|error| error.holders.get(index));
        holder.map_or((-1, std::ptr::null()), |(pid, command)| {
            (*pid, command.as_ptr())
        })
    });
    if !command.is_null() {
        // SAFETY: the caller says that it can be written.
        unsafe { command.write(text) };
    }
    pid
}

/// What the program had written when it was cut off.
///
/// @param error  Borrowed. May be used from several threads at once.
/// @return Borrowed from the error, and there until that is freed: do not free it. NULL if there is none.
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
