//! Checkpoints of sessions, and forks.

use std::ffi::c_char;

use blink_core::CheckpointOptions;

use crate::blink::blink;
use crate::call::call;
use crate::cancel::blink_cancel;
use crate::error::blink_error;
use crate::handle;
use crate::lineage::{blink_lineage, consistency};
use crate::session::blink_session;
use crate::status::blink_status;

/// Keeps a session's disk as it is now, under a name. A session that runs is held still for the moment that it takes.
///
/// @param session         Borrowed. May be used from several threads at once.
/// @param name            The checkpoint's name.
/// @param require_frozen  Whether a copy that is worth less than BLINK_CONSISTENCY_FROZEN is refused.
/// @param consistency     Set to what it is worth, a blink_consistency. May be NULL.
/// @param cancel          Borrowed. NULL: it cannot be cancelled. The checkpoint may be there afterwards.
/// @param err             May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; ALREADY_EXISTS; RESOURCE_EXHAUSTED; SANDBOX_DIED; UNSUPPORTED or BUSY if
///         a disk that must be frozen cannot be; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_checkpoint(
    session: *const blink_session,
    name: *const c_char,
    require_frozen: bool,
    consistency_out: *mut i32,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        caller.set(consistency_out, 0);
        let session = handle::get(session)?;
        let name = caller.text(name, "name")?.to_owned();
        let mut options = CheckpointOptions::default();
        if require_frozen {
            options = options.require_frozen();
        }
        let core = session.core();
        let made = core.finish(cancel, async move {
            session.session.checkpoint_with(name, options).await
        })?;
        caller.set(consistency_out, consistency(made.consistency));
        Ok(())
    })
}

/// Puts a session's disk back to what it was at a checkpoint; what it holds now is lost. A session that runs is stopped for
/// that, and started again.
///
/// @param session     Borrowed. May be used from several threads at once.
/// @param checkpoint  The checkpoint's name.
/// @param cancel      Borrowed. NULL: it cannot be cancelled. The disk may be put back all the same.
/// @param err         May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; otherwise as blink_session_start().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_restore(
    session: *const blink_session,
    checkpoint: *const c_char,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let session = handle::get(session)?;
        let name = caller.text(checkpoint, "checkpoint")?.to_owned();
        let core = session.core();
        core.finish(cancel, async move { session.session.restore(&name).await })
    })
}

/// Forgets a checkpoint. What others need of it stays until they are gone.
///
/// @param session     Borrowed. May be used from several threads at once.
/// @param checkpoint  The checkpoint's name.
/// @param err         May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_remove_checkpoint(
    session: *const blink_session,
    checkpoint: *const c_char,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let session = handle::get(session)?;
        let name = caller.text(checkpoint, "checkpoint")?.to_owned();
        let core = session.core();
        core.finish(std::ptr::null(), async move {
            session.session.remove_checkpoint(&name).await
        })
    })
}

/// Where a session comes from, and the tree of its checkpoints.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param out      Set on success; free with blink_lineage_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); CORRUPT if the list of sessions is damaged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_lineage(
    session: *const blink_session,
    out: *mut *mut blink_lineage,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let lineage = session
            .core()
            .wait(std::ptr::null(), session.session.lineage())?;
        out.give(blink_lineage::new(lineage));
        Ok(())
    })
}

/// As blink_session_lineage(), of a session by its name, whoever has it.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param name   The session's name.
/// @param out    Set on success; free with blink_lineage_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_lineage_of(
    blink: *const blink,
    name: *const c_char,
    out: *mut *mut blink_lineage,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let name = caller.text(name, "name")?;
        let core = blink.core();
        let lineage = core.wait(std::ptr::null(), core.blink().session_lineage(name))?;
        out.give(blink_lineage::new(lineage));
        Ok(())
    })
}

/// Makes a session that begins with this one's disk, and goes its own way: it has its own name, machine-id and host name. It is
/// not started.
///
/// @param session     Borrowed. May be used from several threads at once.
/// @param checkpoint  The checkpoint to begin with. NULL: the disk as it is now.
/// @param name        The fork's name.
/// @param cancel      Borrowed. NULL: it cannot be cancelled. The fork may be there afterwards.
/// @param out         Set on success; free with blink_session_free(). NULL on failure.
/// @param err         May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; ALREADY_EXISTS; NOT_FOUND; RESOURCE_EXHAUSTED; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_fork(
    session: *const blink_session,
    checkpoint: *const c_char,
    name: *const c_char,
    cancel: *const blink_cancel,
    out: *mut *mut blink_session,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let session = handle::get(session)?;
        let checkpoint = caller
            .optional_text(checkpoint, "checkpoint")?
            .map(str::to_owned);
        let name = caller.text(name, "name")?.to_owned();
        let core = session.core();
        let fork = core.finish(cancel, async move {
            match checkpoint {
                None => session.session.fork(name).await,
                Some(checkpoint) => session.session.fork_from(&checkpoint, name).await,
            }
        })?;
        out.give(blink_session::new(&core, fork));
        Ok(())
    })
}

/// Makes several forks at once, of the same state of this session's disk: all of them, or none. None is started.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param names    The forks' names.
/// @param count    How many they are.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. The forks may be there afterwards.
/// @param out      Room for `count` handles: all set on success, to be freed with blink_session_free(); all NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_session_fork().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_fork_many(
    session: *const blink_session,
    names: *const *const c_char,
    count: usize,
    cancel: *const blink_cancel,
    out: *mut *mut blink_session,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let places = caller.outs(out, count)?;
        let session = handle::get(session)?;
        let names: Vec<String> = caller
            .all_texts(names, count, "names")?
            .into_iter()
            .map(str::to_owned)
            .collect();
        let core = session.core();
        let forks = core.finish(
            cancel,
            async move { session.session.fork_many(names).await },
        )?;
        for (place, fork) in places.into_iter().zip(forks) {
            place.give(blink_session::new(&core, fork));
        }
        Ok(())
    })
}
