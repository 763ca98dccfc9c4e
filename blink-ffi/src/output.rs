//! The captured result of a program.

use std::ffi::c_char;

use blink_core::Output;

use crate::exit::Exit;
use crate::failure::quietly;
use crate::handle;
use crate::text;

/// The captured result of a program: what it wrote, byte for byte, and how it ended. It never changes.
pub struct blink_output {
    output: Output,
    exit: Exit,
}

impl blink_output {
    pub(crate) fn new(output: Output) -> blink_output {
        blink_output {
            exit: Exit::new(output.status.clone()),
            output,
        }
    }

    pub(crate) fn captured(&self) -> &Output {
        &self.output
    }

    pub(crate) fn exit(&self) -> &Exit {
        &self.exit
    }
}

fn look<T>(output: *const blink_output, otherwise: T, look: impl FnOnce(&blink_output) -> T) -> T
where
    T: Clone,
{
    quietly(otherwise.clone(), || match handle::get(output) {
        Ok(output) => look(&output),
        Err(_) => otherwise,
    })
}

/// Bytes with their length; NULL if there are none.
pub(crate) fn bytes(bytes: &[u8], length: *mut usize) -> *const u8 {
    // SAFETY: whoever calls an exported function keeps to what the header says of its pointers.
    unsafe {
        if !length.is_null() {
            length.write(bytes.len());
        }
    }
    match bytes.is_empty() {
        true => std::ptr::null(),
        false => bytes.as_ptr(),
    }
}

/// The program's exit code.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @return As `code` of blink_exit. -1 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_output_exit_code(output: *const blink_output) -> i32 {
    look(output, -1, |output| output.exit.status().code)
}

/// Whether the program's time was over, so that it was killed with everything that it had started.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @return false for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_output_timed_out(output: *const blink_output) -> bool {
    look(output, false, |output| output.exit.status().timed_out)
}

/// What the program wrote to standard output, as far as it was captured: bytes that do not end with NUL.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @param length  Set to the number of bytes. May be NULL.
/// @return There until the output is freed. NULL if there are no bytes, and for an invalid handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_output_stdout(
    output: *const blink_output,
    length: *mut usize,
) -> *const u8 {
    match handle::get(output) {
        Ok(output) => bytes(&output.output.stdout, length),
        Err(_) => bytes(&[], length),
    }
}

/// What the program wrote to standard error, as far as it was captured: bytes that do not end with NUL.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @param length  Set to the number of bytes. May be NULL.
/// @return There until the output is freed. NULL if there are no bytes, and for an invalid handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_output_stderr(
    output: *const blink_output,
    length: *mut usize,
) -> *const u8 {
    match handle::get(output) {
        Ok(output) => bytes(&output.output.stderr, length),
        Err(_) => bytes(&[], length),
    }
}

/// How many bytes the program wrote to standard output in all, also beyond the capture's limit.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_output_stdout_total(output: *const blink_output) -> u64 {
    look(output, 0, |output| output.output.stdout_bytes)
}

/// How many bytes the program wrote to standard error in all, also beyond the capture's limit.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_output_stderr_total(output: *const blink_output) -> u64 {
    look(output, 0, |output| output.output.stderr_bytes)
}

/// Whether the program wrote more to a stream than was captured.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @return false for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_output_truncated(output: *const blink_output) -> bool {
    look(output, false, |output| output.output.truncated())
}

/// The isolation that the program really ran with.
///
/// @param output  Borrowed. May be used from several threads at once.
/// @return "microvm" or "namespace", a static string. NULL for an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_output_isolation(output: *const blink_output) -> *const c_char {
    look(output, std::ptr::null(), |output| {
        text::isolation(output.output.isolation).as_ptr()
    })
}

/// Frees an output, with its bytes.
///
/// @param output  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_output_free(output: *mut blink_output) {
    handle::free(output);
}
