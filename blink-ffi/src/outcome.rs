//! How a captured program ended, and whether that is what was wanted.

use crate::call::call;
use crate::error::blink_error;
use crate::exit::blink_exit;
use crate::handle;
use crate::output::blink_output;
use crate::status::blink_status;

/// How the program ended.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @param exit    Set up with blink_exit_init(), and filled in. Its text belongs to the output.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK, or BLINK_STATUS_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_output_exit(
    output: *const blink_output,
    exit: *mut blink_exit,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let output = handle::get(output)?;
        caller.fill(exit, &output.exit().shown(), "exit")
    })
}

/// Turns a timeout or an exceeded limit into an error that carries the output. Neither is one by itself: what the program
/// wrote until then may be all that is wanted.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @param err     May be NULL. If set, free with blink_error_free(); it has a copy of the output.
/// @return BLINK_STATUS_OK, BLINK_STATUS_TIMEOUT, BLINK_STATUS_RESOURCE_EXHAUSTED or BLINK_STATUS_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_output_check(
    output: *const blink_output,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let output = handle::get(output)?;
        output.captured().clone().check_limits()?;
        Ok(())
    })
}
