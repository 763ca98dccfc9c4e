//! Sessions.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use blink_core::{CheckpointOptions, Session};

use crate::blink::blink;
use crate::call::{call, quietly};
use crate::cancel::blink_cancel;
use crate::command::blink_command;
use crate::core::{Core, Held};
use crate::error::blink_error;
use crate::files::blink_files;
use crate::handle::{self, Handle};
use crate::lineage::{blink_lineage, consistency};
use crate::output::blink_output;
use crate::process::blink_process;
use crate::processes::blink_process_list;
use crate::session_list::blink_session_list;
use crate::session_options::blink_session_options;
use crate::status::blink_status;
use crate::text::cut;

/// A named sandbox that outlives the process, held by this one: no other can open it meanwhile.
pub struct blink_session {
    session: Held<Session>,
    id: CString,
}

impl Handle for blink_session {
    const NAME: &'static CStr = c"blink_session";
}

impl blink_session {
    fn new(core: &Arc<Core>, session: Session) -> blink_session {
        blink_session {
            id: cut(session.id()),
            session: Held::new(core, session),
        }
    }

    fn core(&self) -> Arc<Core> {
        self.session.core().clone()
    }
}

/// Opens a session and starts it, or makes it where there is none of that name.
///
/// @param blink    Borrowed. May be used from several threads at once.
/// @param name     Its name.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. A session that is being made may be there afterwards.
/// @param out      Set on success; free with blink_session_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for a name that is none, and for options that the session was not made with;
///         BUSY while another process has it, which the message names; otherwise as blink_sandbox_create().
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

/// Takes a session that is there, without starting it.
///
/// @param blink        Borrowed. May be used from several threads at once.
/// @param name         Its name.
/// @param patience_ms  Milliseconds for which another process that has it is waited for; 0 does not wait.
/// @param cancel       Borrowed. NULL: it cannot be cancelled.
/// @param out          Set on success; free with blink_session_free(). NULL on failure.
/// @param err          May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; BUSY where another process has it; CANCELLED.
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

/// Makes a session whose disk is read from an archive that blink_session_export() has written. It is not started.
///
/// @param blink    Borrowed. May be used from several threads at once.
/// @param name     Its name.
/// @param archive  The archive's path on the host.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. The session may be there afterwards.
/// @param out      Set on success; free with blink_session_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); ALREADY_EXISTS; CORRUPT for what is no whole archive, and UNSUPPORTED for one of the future,
///         with nothing left behind; otherwise as blink_session_open().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_import(
    blink: *const blink,
    name: *const c_char,
    archive: *const c_char,
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
        let archive = PathBuf::from(caller.words(archive, "archive")?);
        let options = caller.session_options(options)?;
        let telling = options.telling();
        let builder = options.describe(core.blink().session(name), &telling);
        let session = telling.wait(core, cancel, core.whole(builder.import(archive)))?;
        out.give(blink_session::new(core, session));
        Ok(())
    })
}

/// Lists all sessions of the home, by name, whoever has them.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param out    Set on success; free with blink_session_list_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); CORRUPT and UNSUPPORTED for what is no list of sessions of this version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_list_all(
    blink: *const blink,
    out: *mut *mut blink_session_list,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let list = core.wait(std::ptr::null(), core.blink().sessions())?;
        out.give(blink_session_list::new(list));
        Ok(())
    })
}

/// What there is to say about one session, whoever has it: a list of one.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param name   Its name.
/// @param out    Set on success; free with blink_session_list_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_list_one(
    blink: *const blink,
    name: *const c_char,
    out: *mut *mut blink_session_list,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let name = caller.text(name, "name")?;
        let info = core.wait(std::ptr::null(), core.blink().session_info(name))?;
        out.give(blink_session_list::new(vec![info]));
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

/// Names a session for good: it stays the same when the session is renamed.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @return There until the session is freed. NULL for NULL and what is no session.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_id(session: *const blink_session) -> *const c_char {
    quietly(std::ptr::null(), || {
        handle::get(session).map_or(std::ptr::null(), |session| session.id.as_ptr())
    })
}

/// Whether opening a session has made it.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @return false for NULL and what is no session.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_was_created(session: *const blink_session) -> bool {
    quietly(false, || {
        handle::get(session).is_ok_and(|session| session.session.was_created())
    })
}

/// Starts a session from its disk, or takes up the machine that still runs. Does nothing where it runs already. Whatever needs
/// it to run starts it by itself.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. It may run afterwards.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_session_open().
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

/// Ends a session's machine; what its programs have written to its disk stays. Does nothing where it does not run.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INTERNAL where the machine cannot be ended.
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
/// @return BLINK_STATUS_OK (0); NOT_FOUND where it was released, or its machine has ended since; SANDBOX_DIED; CANCELLED.
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

/// The files of a session, which is started where it does not run. They end with its machine: ask again after
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

/// Keeps a session's disk as it is now, under a name. A session that runs is held still for the moment that it takes.
///
/// @param session         Borrowed. May be used from several threads at once.
/// @param name            The checkpoint's name.
/// @param require_frozen  Whether a copy that is worth less than BLINK_CONSISTENCY_FROZEN is refused.
/// @param consistency     Set to what it is worth, a blink_consistency. May be NULL.
/// @param cancel          Borrowed. NULL: it cannot be cancelled. The checkpoint may be there afterwards.
/// @param err             May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; ALREADY_EXISTS; RESOURCE_EXHAUSTED; SANDBOX_DIED; UNSUPPORTED or BUSY where
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
/// @return BLINK_STATUS_OK (0); CORRUPT where the list of sessions is damaged.
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

/// Writes a session's disk to one file, from which blink_session_import() makes a session, also on another machine. A session
/// that runs goes on; the file holds its disk of one moment.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param archive  The path on the host of the file to write.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. The file may be there afterwards.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); RESOURCE_EXHAUSTED for a full disk, with nothing left behind; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_export(
    session: *const blink_session,
    archive: *const c_char,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let session = handle::get(session)?;
        let archive = PathBuf::from(caller.words(archive, "archive")?);
        let core = session.core();
        core.finish(cancel, async move { session.session.export(archive).await })
    })
}

/// Ends a session and removes everything of it: its disk, its checkpoints, its name. Forks of it stay whole. Calls that come
/// later fail with BLINK_STATUS_NOT_FOUND; only this one does nothing then. The handle still wants to be freed.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INTERNAL where something of it could not be removed, which the message names.
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

/// Lets go of a session, which stays. Its machine ends, unless it is warm: for a micro-VM that is a power cut, so call
/// blink_session_stop() first where the last seconds' writes matter.
///
/// @param session  Taken. NULL does nothing. Calls that are under way on it end first.
#[unsafe(no_mangle)]
pub extern "C" fn blink_session_free(session: *mut blink_session) {
    handle::free(session);
}
