//! Sessions.

use std::ffi::{CString, c_char};
use std::sync::Arc;
use std::time::Duration;

use blink_core::Session;

use crate::blink::blink;
use crate::call::{call, quietly};
use crate::cancel::blink_cancel;
use crate::command::blink_command;
use crate::core::{Core, Held};
use crate::error::blink_error;
use crate::files::blink_files;
use crate::handle;
use crate::output::blink_output;
use crate::process::blink_process;
use crate::processes::{blink_process_list, no_such};
use crate::session_options::blink_session_options;
use crate::status::blink_status;
use crate::strings::blink_strings;
use crate::text::cut;

/// A named sandbox that outlives the process. Threads and, in a namespace, processes can have one open at once, and use the
/// same machine.
pub struct blink_session {
    pub(crate) session: Held<Session>,
    id: CString,
}

impl blink_session {
    pub(crate) fn new(core: &Arc<Core>, session: Session) -> blink_session {
        blink_session {
            id: cut(session.id()),
            session: Held::new(core, session),
        }
    }

    pub(crate) fn core(&self) -> Arc<Core> {
        self.session.core().clone()
    }
}

/// Opens a session and starts it, or creates it if there is none of that name.
///
/// @param blink    Borrowed. May be used from several threads at once.
/// @param name     Its name.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. A session that is being made may be there afterwards.
/// @param out      Set on success; free with blink_session_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if the name is invalid, and for options that the session was not made with;
///         BUSY while another process changes it, or has its micro-VM, which the message names; otherwise as
///         blink_sandbox_create().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_open(
    blink: *const blink,
    name: *const c_char,
    options: *const blink_session_options,
    cancel: *const blink_cancel,
    out: *mut *mut blink_session,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let name = caller.text(name, "name")?;
        let options = caller.session_options(options)?;
        let telling = options.telling();
        let builder = options.describe(core.blink().session(name), &telling);
        let session = telling.wait(core, cancel, core.whole(builder.open()))?;
        out.give(blink_session::new(core, session));
        Ok(())
    })
}

/// Opens a session that is there, without starting it.
///
/// @param blink        Borrowed. May be used from several threads at once.
/// @param name         Its name.
/// @param patience_ms  Milliseconds for which others are waited for that change it, or keep it from being changed later; 0
///                     does not wait.
/// @param cancel       Borrowed. NULL: it cannot be cancelled.
/// @param out          Set on success; free with blink_session_free(). NULL on failure.
/// @param err          May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; BUSY if another process changes it, or has its micro-VM; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_take(
    blink: *const blink,
    name: *const c_char,
    patience_ms: u64,
    cancel: *const blink_cancel,
    out: *mut *mut blink_session,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let name = caller.text(name, "name")?;
        let patience = Duration::from_millis(patience_ms);
        let session = core.wait(cancel, core.blink().take_session(name, patience))?;
        out.give(blink_session::new(core, session));
        Ok(())
    })
}

/// Removes what no session, checkpoint or fork needs, and what processes that ended half-way have left.
///
/// @param blink        Borrowed. May be used from several threads at once.
/// @param freed_bytes  Set to how many bytes that has freed. May be NULL.
/// @param err          May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); BUSY while another process makes or removes something of the kind.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_prune(
    blink: *const blink,
    freed_bytes: *mut u64,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        caller.set(freed_bytes, 0);
        let blink = handle::get(blink)?;
        let all = blink.core().blink().clone();
        let freed = blink
            .core()
            .finish(std::ptr::null(), async move { all.prune_sessions().await })?;
        caller.set(freed_bytes, freed);
        Ok(())
    })
}

/// Names a session it stays the same when the session is renamed.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @return There until the session is freed. NULL for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_id(session: *const blink_session) -> *const c_char {
    quietly(std::ptr::null(), || {
        handle::get(session).map_or(std::ptr::null(), |session| session.id.as_ptr())
    })
}

/// Whether opening a session has made it.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @return false for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_was_created(session: *const blink_session) -> bool {
    quietly(false, || {
        handle::get(session).is_ok_and(|session| session.session.was_created())
    })
}

/// What the archive that a session was imported from has asked for and was not given, each as "disk_mib 65536 (it is 2048)".
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param out      Set on success to a list, empty for a session that was opened; free with blink_strings_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_declined(
    session: *const blink_session,
    out: *mut *mut blink_strings,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let declined = session.session.declined().iter();
        out.give(blink_strings::new(declined.map(ToString::to_string)));
        Ok(())
    })
}

/// Starts a session from its disk, or takes up the machine that still runs. Does nothing if it is running already. Whatever needs
/// it to run starts it by itself.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. It may run afterwards.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_session_open(); NOT_FOUND once it was removed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_start(
    session: *const blink_session,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let session = handle::get(session)?;
        let core = session.core();
        core.finish(cancel, async move { session.session.start().await })
    })
}

/// Ends a session's machine; what its programs have written to its disk stays. Does nothing if it is not running.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); BUSY while other processes use it, whom the message names; INTERNAL if the machine cannot be
///         ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_stop(
    session: *const blink_session,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let session = handle::get(session)?;
        let core = session.core();
        core.finish(
            std::ptr::null(),
            async move { session.session.stop().await },
        )
    })
}

/// Runs a command in a session and waits for it, as blink_sandbox_exec().
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param command  Borrowed.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. A cancelled command is killed with all that it has started.
/// @param out      Set on success; free with blink_output_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_sandbox_exec(); NOT_FOUND once the session was removed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_exec(
    session: *const blink_session,
    command: *const blink_command,
    cancel: *const blink_cancel,
    out: *mut *mut blink_output,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let command = caller.command(command)?;
        let output = session.core().wait(cancel, session.session.exec(command))?;
        out.give(blink_output::new(output));
        Ok(())
    })
}

/// Starts a command in a session, as blink_sandbox_spawn(). Its number stays its own, also in later processes.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param command  Borrowed.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. It cancels the start only.
/// @param out      Set on success; free with blink_process_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_session_exec().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_spawn(
    session: *const blink_session,
    command: *const blink_command,
    cancel: *const blink_cancel,
    out: *mut *mut blink_process,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let command = caller.command(command)?;
        let core = session.core();
        let process = core.wait(cancel, session.session.spawn(command))?;
        out.give(blink_process::new(&core, process));
        Ok(())
    })
}

/// Attaches to a process of a session, as blink_sandbox_attach().
///
/// @param session        Borrowed. May be used from several threads at once.
/// @param id             As blink_process_id() gave it.
/// @param stdout_offset  Where its standard output goes on; 0 for the oldest of its last MiB.
/// @param stderr_offset  As stdout_offset, for its standard error.
/// @param cancel         Borrowed. NULL: it cannot be cancelled.
/// @param out            Set on success; free with blink_process_free(). NULL on failure.
/// @param err            May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if it was released, or its machine has ended since; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_attach(
    session: *const blink_session,
    id: u64,
    stdout_offset: u64,
    stderr_offset: u64,
    cancel: *const blink_cancel,
    out: *mut *mut blink_process,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let core = session.core();
        let attach = session.session.process(id, stdout_offset, stderr_offset);
        let process = core.wait(cancel, attach)?;
        out.give(blink_process::new(&core, process));
        Ok(())
    })
}

/// Lists a session's spawned processes that were not released.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param out      Set on success; free with blink_process_list_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_processes(
    session: *const blink_session,
    out: *mut *mut blink_process_list,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let list = session
            .core()
            .wait(std::ptr::null(), session.session.processes())?;
        out.give(blink_process_list::new(list));
        Ok(())
    })
}

/// The files of a session, which is started if it is not running. They end with its machine: ask again after
/// blink_session_stop() and blink_session_restore().
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param out      Set on success; free with blink_files_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_session_start().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_files(
    session: *const blink_session,
    out: *mut *mut blink_files,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let core = session.core();
        let files = core.wait(std::ptr::null(), session.session.files())?;
        out.give(blink_files::new(&core, files));
        Ok(())
    })
}

/// The host's port that leads into a session, which is started if it is not running.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param index    From 0, in the order in which the ports were asked for when it was made.
/// @param port     Set to the port; 0 on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT if the index is out of range; otherwise as blink_session_start().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_published_port(
    session: *const blink_session,
    index: usize,
    port: *mut u16,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let place = caller.place(port, 0)?;
        let session = handle::get(session)?;
        let running = session
            .core()
            .wait(std::ptr::null(), session.session.sandbox())?;
        let port = running
            .published()
            .get(index)
            .ok_or_else(|| no_such(index))?;
        caller.set(place, port.host.port());
        Ok(())
    })
}

/// The version of a session's guest agent. The session is started if it is not running.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param out      Set on success to a list of one, its name and version; free with blink_strings_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_session_start().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_agent(
    session: *const blink_session,
    out: *mut *mut blink_strings,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let running = session
            .core()
            .wait(std::ptr::null(), session.session.sandbox())?;
        out.give(blink_strings::new(running.agent().map(str::to_owned)));
        Ok(())
    })
}

/// Asks a session's agent for a sign of life. The session is started if it is not running.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_session_start(); SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_ping(
    session: *const blink_session,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let session = handle::get(session)?;
        session.core().wait(cancel, async {
            session.session.sandbox().await?.ping().await
        })
    })
}

/// Gives a session another name.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param name     The new one.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; ALREADY_EXISTS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_rename(
    session: *const blink_session,
    name: *const c_char,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let session = handle::get(session)?;
        let name = caller.text(name, "name")?.to_owned();
        let core = session.core();
        core.finish(std::ptr::null(), async move {
            session.session.rename(name).await
        })
    })
}

/// Ends a session and removes everything of it: its disk, its checkpoints, its name. Forks of it stay whole. Calls that come
/// later fail with BLINK_STATUS_NOT_FOUND; only this one does nothing then. The handle still wants to be freed.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); BUSY while other processes have it open, whom the message names; INTERNAL if something of it
///         could not be removed, which the message names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_remove(
    session: *const blink_session,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let session = handle::get(session)?;
        let core = session.core();
        core.finish(
            std::ptr::null(),
            async move { session.session.remove().await },
        )
    })
}

/// As blink_session_remove(), also while other processes have the session open: their calls fail from then on.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); BUSY while another process changes it; INTERNAL if something of it could not be removed, which
///         the message names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_remove_by_force(
    session: *const blink_session,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let session = handle::get(session)?;
        let core = session.core();
        core.finish(std::ptr::null(), async move {
            session.session.remove_by_force().await
        })
    })
}

/// Lets go of a session, which stays. Its machine ends with its last user, unless it is warm: for a micro-VM that is a power
/// cut, so call blink_session_stop() first where the last seconds' writes matter.
///
/// @param session  Taken. NULL does nothing. Calls that are under way on it end first.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_free(session: *mut blink_session) {
    handle::free(session);
}
