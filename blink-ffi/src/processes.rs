//! Lists of processes.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;

use blink_core::ProcessInfo;

use crate::call::{call, init};
use crate::error::blink_error;
use crate::exit::{Exit, blink_exit};
use crate::failure::{Failure, quietly};
use crate::handle;
use crate::sized::{structure, zeros};
use crate::status::blink_status;
use crate::text::{cut, pointer};

/// A list of processes. It never changes.
pub struct blink_process_list(Vec<Shown>);

struct Shown {
    info: ProcessInfo,
    argv: Vec<CString>,
    argv_pointers: Vec<usize>,
    key: Option<CString>,
    exit: Option<Exit>,
}

impl blink_process_list {
    pub(crate) fn new(list: Vec<ProcessInfo>) -> blink_process_list {
        let show = |info: ProcessInfo| {
            let argv: Vec<CString> = info.argv.iter().map(|arg| cut(arg.as_bytes())).collect();
            let pointers = argv.iter().map(|arg| arg.as_ptr().expose_provenance());
            Shown {
                argv_pointers: pointers.chain([0]).collect(),
                argv,
                key: info.key.clone().map(cut),
                exit: info.status.clone().map(Exit::new),
                info,
            }
        };
        blink_process_list(list.into_iter().map(show).collect())
    }
}

/// A process in a list. Its strings belong to the list.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_process_info {
    /// sizeof(blink_process_info), set by blink_process_info_init().
    pub size: usize,
    /// Names it: blink_sandbox_attach() takes it.
    pub id: u64,
    /// Its number among the sandbox's processes.
    pub pid: u32,
    /// 1 if it has a terminal.
    pub pty: u32,
    /// The program and its arguments, with NULL behind.
    pub argv: *const *const c_char,
    /// How many they are.
    pub argv_count: usize,
    /// Bytes of standard output so far.
    pub stdout_bytes: u64,
    /// Bytes of standard error so far.
    pub stderr_bytes: u64,
    /// The key that it was spawned with; NULL if there was none.
    pub key: *const c_char,
    /// 1 if it has ended; then blink_process_list_exit() tells how.
    pub ended: u32,
    /// Always 0.
    pub reserved: u32,
}

structure!(blink_process_info, zeros());

/// Sets up a blink_process_info to be filled in.
///
/// @param info  Written.
/// @param size  sizeof(blink_process_info).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_info_init(
    info: *mut blink_process_info,
    size: usize,
) -> blink_status {
    init!(info, size)
}

/// The number of processes in a list.
///
/// @param list  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_process_list_count(list: *const blink_process_list) -> usize {
    quietly(0, || handle::get(list).map_or(0, |list| list.0.len()))
}

/// A process of a list.
///
/// @param list   Borrowed. May be used from several threads at once.
/// @param index  From 0.
/// @param info   Set up with blink_process_info_init(), and filled in. Its strings belong to the list.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_list_get(
    list: *const blink_process_list,
    index: usize,
    info: *mut blink_process_info,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let list = handle::get(list)?;
        let shown = list.0.get(index).ok_or_else(|| no_such(index))?;
        let filled = blink_process_info {
            size: 0,
            id: shown.info.id,
            pid: shown.info.pid,
            pty: shown.info.pty.into(),
            argv: shown.argv_pointers.as_ptr().cast(),
            argv_count: shown.argv.len(),
            stdout_bytes: shown.info.stdout_bytes,
            stderr_bytes: shown.info.stderr_bytes,
            key: pointer(shown.key.as_ref()),
            ended: shown.exit.is_some().into(),
            reserved: 0,
        };
        caller.fill(info, &filled, "info")
    })
}

/// How a process of a list has ended.
///
/// @param list   Borrowed. May be used from several threads at once.
/// @param index  From 0.
/// @param exit   Set up with blink_exit_init(), and filled in. Its text belongs to the list.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); BUSY if it still runs; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_process_list_exit(
    list: *const blink_process_list,
    index: usize,
    exit: *mut blink_exit,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let list = handle::get(list)?;
        let shown = list.0.get(index).ok_or_else(|| no_such(index))?;
        let ended = shown
            .exit
            .as_ref()
            .ok_or_else(|| Failure::new(blink_status::Busy, "the process still runs"))?;
        caller.fill(exit, &ended.shown(), "exit")
    })
}

/// Frees a list with its strings.
///
/// @param list  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_process_list_free(list: *mut blink_process_list) {
    handle::free(list);
}

pub(crate) fn no_such(index: usize) -> Failure {
    Failure::invalid(format!("the list has no element {index}"))
}
