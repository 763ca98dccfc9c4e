//! Sessions.

use std::ffi::{CStr, CString, c_char};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blink_core::Session;

use crate::blink::blink;
use crate::call::call;
use crate::cancel::blink_cancel;
use crate::core::{Core, Held};
use crate::error::blink_error;
use crate::failure::{Failure, quietly};
use crate::handle;
use crate::sandbox::blink_sandbox;
use crate::session_options::blink_session_options;
use crate::status::blink_status;
use crate::strings::blink_strings;
use crate::text::cut;

/// A named sandbox that outlives the process. Threads and, in a namespace, processes can have one open at once, and use the
/// same sandbox.
pub struct blink_session {
    pub(crate) session: Held<Session>,
    id: CString,
    /// All names that were returned; they stay valid until the session is freed.
    names: Mutex<Vec<Box<CStr>>>,
}

impl blink_session {
    pub(crate) fn new(core: &Arc<Core>, session: Session) -> blink_session {
        blink_session {
            id: cut(session.id()),
            names: Mutex::default(),
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

/// The name that a session has now. Any process can change it: see blink_session_rename().
///
/// @param session  Borrowed. May be used from several threads at once.
/// @return There until the session is freed, also when the name changes. NULL for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_name(session: *const blink_session) -> *const c_char {
    quietly(std::ptr::null(), || {
        let name = || {
            let session = handle::get(session)?;
            let named = async { Ok::<_, Failure>(session.session.name().await) };
            let name = cut(session.core().wait(std::ptr::null(), named)?.as_str());
            let mut names = session.names.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = names.iter().find(|known| ***known == *name) {
                return Ok(known.as_ptr());
            }
            let name = name.into_boxed_c_str();
            let told = name.as_ptr();
            names.push(name);
            Ok::<_, Failure>(told)
        };
        name().unwrap_or(std::ptr::null())
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

/// Starts a session from its disk, or takes up the sandbox that still runs. Does nothing if it is running already. Whatever needs
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

/// Ends a session's sandbox; what its programs have written to its disk stays. Does nothing if it is not running.
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

/// The sandbox that a session runs in, with its commands, processes, files, connections and ports. The session is started if it is
/// not running; where it runs already, this costs next to nothing.
///
/// The sandbox ends with blink_session_stop() and blink_session_restore(): its calls fail with BLINK_STATUS_SANDBOX_DIED then, and
/// this function returns the next one. A session whose sandbox is held is not idle.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. The session may run afterwards.
/// @param out      Set on success; free with blink_sandbox_free(), which leaves the session as it is. NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_session_open(); NOT_FOUND once the session was removed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_sandbox(
    session: *const blink_session,
    cancel: *const blink_cancel,
    out: *mut *mut blink_sandbox,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let core = session.core();
        let sandbox = core.wait(cancel, session.session.sandbox())?;
        out.give(blink_sandbox::new(&core, sandbox));
        Ok(())
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
