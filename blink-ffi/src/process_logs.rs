//! What is kept of a process's output.

use blink_core::ProcessLogs;

use crate::failure::quietly;
use crate::handle;
use crate::output::bytes;

/// What was kept of a process's output when it was asked for: at most the last MiB of each stream. It never changes.
pub struct blink_process_logs(ProcessLogs);

impl blink_process_logs {
    pub(crate) fn new(logs: ProcessLogs) -> blink_process_logs {
        blink_process_logs(logs)
    }
}

/// What is kept of standard output, or of all output where the process has a terminal: bytes that do not end with NUL.
///
/// @param logs    Borrowed. May be used from several threads at once.
/// @param length  Set to the number of bytes. May be NULL.
/// @return There until the logs are freed. NULL if there are no bytes, and for an invalid handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_logs_stdout(
    logs: *const blink_process_logs,
    length: *mut usize,
) -> *const u8 {
    match handle::get(logs) {
        Ok(logs) => bytes(&logs.0.stdout, length),
        Err(_) => bytes(&[], length),
    }
}

/// What is kept of standard error: bytes that do not end with NUL.
///
/// @param logs    Borrowed. May be used from several threads at once.
/// @param length  Set to the number of bytes. May be NULL.
/// @return There until the logs are freed. NULL if there are no bytes, and for an invalid handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_logs_stderr(
    logs: *const blink_process_logs,
    length: *mut usize,
) -> *const u8 {
    match handle::get(logs) {
        Ok(logs) => bytes(&logs.0.stderr, length),
        Err(_) => bytes(&[], length),
    }
}

/// How many bytes of standard output came before those that are kept.
///
/// @param logs  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_process_logs_stdout_offset(logs: *const blink_process_logs) -> u64 {
    quietly(0, || {
        handle::get(logs).map_or(0, |logs| logs.0.stdout_offset)
    })
}

/// How many bytes of standard error came before those that are kept.
///
/// @param logs  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_process_logs_stderr_offset(logs: *const blink_process_logs) -> u64 {
    quietly(0, || {
        handle::get(logs).map_or(0, |logs| logs.0.stderr_offset)
    })
}

/// Frees logs with their bytes.
///
/// @param logs  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_process_logs_free(logs: *mut blink_process_logs) {
    handle::free(logs);
}
