//! The processes of a session that runs, beside whoever has the session.

use std::collections::HashMap;
use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use blink_core::SessionProcesses;

use crate::blink::blink;
use crate::call::call;
use crate::cancel::blink_cancel;
use crate::core::Held;
use crate::error::blink_error;
use crate::exit::{Exit, blink_exit};
use crate::failure::quietly;
use crate::handle;
use crate::process::{blink_process, signal_number, within};
use crate::process_logs::blink_process_logs;
use crate::processes::blink_process_list;
use crate::status::blink_status;
use crate::text::isolation;

/// The processes of a session that runs. Whoever has the session goes on, and keeps it.
pub struct blink_processes {
    processes: Held<SessionProcesses>,
    /// Of those that were waited for: C may look at their text.
    exits: Mutex<HashMap<u64, Exit>>,
}

/// The processes of a session that runs, also while another process has the session, or another handle of this one: of a
/// session that is warm and in a namespace. Others are taken first, as by blink_session_take().
///
/// @param blink   Borrowed. May be used from several threads at once.
/// @param name    The session's name.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param out     Set on success; free with blink_processes_free(). NULL on failure.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if there is no such session, and where it does not run; BUSY if another process
///         starts it right now, or has its micro-VM, for longer than 10 s; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_processes_of(
    blink: *const blink,
    name: *const c_char,
    cancel: *const blink_cancel,
    out: *mut *mut blink_processes,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let name = caller.text(name, "name")?;
        let processes = core.wait(cancel, core.blink().session_processes(name))?;
        out.give(blink_processes {
            processes: Held::new(core, processes),
            exits: Mutex::default(),
        });
        Ok(())
    })
}

/// The isolation that a session's processes have.
///
/// @param processes  Borrowed. May be used from several threads at once.
/// @return "microvm" or "namespace", a static string. NULL for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_processes_isolation(processes: *const blink_processes) -> *const c_char {
    quietly(std::ptr::null(), || {
        let processes = handle::get(processes);
        processes.map_or(std::ptr::null(), |processes| {
            isolation(processes.processes.isolation()).as_ptr()
        })
    })
}

/// Lists all processes that were spawned and not released, and those that somebody waits for right now.
///
/// @param processes  Borrowed. May be used from several threads at once.
/// @param out        Set on success; free with blink_process_list_free(). NULL on failure.
/// @param err        May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); SANDBOX_DIED if the session's sandbox has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_processes_list(
    processes: *const blink_processes,
    out: *mut *mut blink_process_list,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let processes = handle::get(processes)?;
        let core = processes.processes.core();
        let list = core.wait(std::ptr::null(), processes.processes.list())?;
        out.give(blink_process_list::new(list));
        Ok(())
    })
}

/// What is kept of a process's output so far. Whoever is attached to it goes on.
///
/// @param processes  Borrowed. May be used from several threads at once.
/// @param id         As blink_process_id() or a list gave it.
/// @param cancel     Borrowed. NULL: it cannot be cancelled.
/// @param out        Set on success; free with blink_process_logs_free(). NULL on failure.
/// @param err        May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if it was released; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_processes_logs(
    processes: *const blink_processes,
    id: u64,
    cancel: *const blink_cancel,
    out: *mut *mut blink_process_logs,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let processes = handle::get(processes)?;
        let core = processes.processes.core();
        let logs = core.wait(cancel, processes.processes.logs(id))?;
        out.give(blink_process_logs::new(logs));
        Ok(())
    })
}

/// Waits until a process has ended. Whoever is attached to it goes on.
///
/// @param processes   Borrowed. May be used from several threads at once.
/// @param id          As blink_process_id() or a list gave it.
/// @param timeout_ms  Milliseconds to wait; 0 means no limit.
/// @param exit        Set up with blink_exit_init(), and filled in; its text belongs to the blink_processes. May be NULL.
/// @param cancel      Borrowed. NULL: it cannot be cancelled. The program goes on.
/// @param err         May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); TIMEOUT if it has not ended by then, and goes on; NOT_FOUND if it was released;
///         SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_processes_wait(
    processes: *const blink_processes,
    id: u64,
    timeout_ms: u64,
    exit: *mut blink_exit,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let processes = handle::get(processes)?;
        let limit = caller.milliseconds(timeout_ms);
        let status = processes
            .processes
            .core()
            .wait(cancel, within(limit, processes.processes.wait(id)))?;
        if exit.is_null() {
            return Ok(());
        }
        let mut exits = processes
            .exits
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // What was told before stays: it does not change, and C may still look at it.
        let ended = exits.entry(id).or_insert_with(|| Exit::new(status));
        caller.fill(exit, &ended.shown(), "exit")
    })
}

/// Sends a signal to a process's group.
///
/// @param processes  Borrowed. May be used from several threads at once.
/// @param id         As blink_process_id() or a list gave it.
/// @param signal     Linux's number, such as 15 for SIGTERM.
/// @param err        May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if it is not a signal; NOT_FOUND if it was released; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_processes_signal(
    processes: *const blink_processes,
    id: u64,
    signal: i32,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let processes = handle::get(processes)?;
        let sending = processes.processes.signal(id, signal_number(signal)?);
        processes.processes.core().wait(std::ptr::null(), sending)
    })
}

/// Kills a process and everything that it has started.
///
/// @param processes  Borrowed. May be used from several threads at once.
/// @param id         As blink_process_id() or a list gave it.
/// @param err        May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if it was released; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_processes_kill(
    processes: *const blink_processes,
    id: u64,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let processes = handle::get(processes)?;
        let killing = processes.processes.kill(id);
        processes.processes.core().wait(std::ptr::null(), killing)
    })
}

/// Attaches to a process, as blink_sandbox_attach(): whoever was attached to it is not any more.
///
/// @param processes      Borrowed. May be used from several threads at once.
/// @param id             As blink_process_id() or a list gave it.
/// @param stdout_offset  Where its standard output goes on; 0 for the oldest of its last MiB.
/// @param stderr_offset  As stdout_offset, for its standard error.
/// @param cancel         Borrowed. NULL: it cannot be cancelled.
/// @param out            Set on success; free with blink_process_free(). NULL on failure. It may outlive the blink_processes.
/// @param err            May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if it was released; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_processes_attach(
    processes: *const blink_processes,
    id: u64,
    stdout_offset: u64,
    stderr_offset: u64,
    cancel: *const blink_cancel,
    out: *mut *mut blink_process,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let processes = handle::get(processes)?;
        let core = processes.processes.core();
        let attach = processes.processes.attach(id, stdout_offset, stderr_offset);
        let process = core.wait(cancel, attach)?;
        out.give(blink_process::new(core, process));
        Ok(())
    })
}

/// Lets go of a session's processes, which go on.
///
/// @param processes  Taken. NULL does nothing. Calls that are under way on it end first.
#[unsafe(no_mangle)]
pub extern "C" fn blink_processes_free(processes: *mut blink_processes) {
    handle::free(processes);
}
