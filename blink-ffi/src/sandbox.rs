//! Sandboxes.

use std::ffi::{CString, c_char};
use std::sync::{Arc, OnceLock};

use blink_core::Sandbox;

use crate::blink::blink;
use crate::call::call;
use crate::cancel::blink_cancel;
use crate::command::blink_command;
use crate::core::{Core, Held};
use crate::error::blink_error;
use crate::failure::{Failure, quietly};
use crate::files::blink_files;
use crate::handle::{self, Lent};
use crate::output::blink_output;
use crate::process::blink_process;
use crate::processes::{blink_process_list, no_such};
use crate::progress::Telling;
use crate::sandbox_options::{blink_port, blink_sandbox_options};
use crate::shown::Shown;
use crate::status::blink_status;
use crate::strings::blink_strings;
use crate::text::{cut, isolation, pointer};

/// A sandbox: an isolated environment with processes, files and a disk of its own.
pub struct blink_sandbox {
    pub(crate) sandbox: Held<Arc<Sandbox>>,
    id: CString,
    agent: Option<CString>,
    ports: Shown<blink_port>,
    death: OnceLock<Lent<blink_error>>,
}

impl blink_sandbox {
    pub(crate) fn new(core: &Arc<Core>, sandbox: Arc<Sandbox>) -> blink_sandbox {
        blink_sandbox {
            id: cut(sandbox.id()),
            agent: sandbox.agent().map(cut),
            ports: Shown::ports(sandbox.published()),
            death: OnceLock::new(),
            sandbox: Held::new(core, sandbox),
        }
    }
}

/// Makes and boots a sandbox. If the call is cancelled, nothing is left behind.
///
/// @param blink    Borrowed. May be used from several threads at once.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param out      Set on success; free with blink_sandbox_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for options that cannot be right; BUSY if a port is taken;
///         ISOLATION_UNAVAILABLE and IMAGE_UNAVAILABLE, whose message names alternatives; RESOURCE_EXHAUSTED; TIMEOUT if it does
///         not boot in time; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_create(
    blink: *const blink,
    options: *const blink_sandbox_options,
    cancel: *const blink_cancel,
    out: *mut *mut blink_sandbox,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let core = blink.core();
        let options = caller.sandbox_options(options)?;
        let telling = Telling::new(options.progress, options.progress_data);
        let builder = options.describe(core.blink().sandbox(), &telling);
        let sandbox = telling.wait(core, cancel, builder.create())?;
        out.give(blink_sandbox::new(core, Arc::new(sandbox)));
        Ok(())
    })
}

/// Fetches the image of a sandbox where it is not stored, so that blink_sandbox_create() finds it: what is stored under a
/// name is good enough, while blink_image_pull() asks the registry again. Given up half-way, what came so far is kept.
///
/// @param blink    Borrowed. May be used from several threads at once.
/// @param options  The sandbox's. Borrowed. NULL is the defaults, which need no image.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_sandbox_create(), as far as it can be told before a boot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_fetch_image(
    blink: *const blink,
    options: *const blink_sandbox_options,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let blink = handle::get(blink)?;
        let core = blink.core();
        let options = caller.sandbox_options(options)?;
        let telling = Telling::new(options.progress, options.progress_data);
        let builder = options.describe(core.blink().sandbox(), &telling);
        telling.wait(core, cancel, builder.fetch_image())
    })
}

/// Takes up a detached sandbox that an earlier process has made. Its programs run as before; the environment, folder and
/// user that it was made with no longer apply to new ones. Its ports are published again.
///
/// @param blink   Borrowed. May be used from several threads at once.
/// @param id      As blink_sandbox_id() gave it.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param out     Set on success; free with blink_sandbox_free(). NULL on failure.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; BUSY while another process has it, or a port; SANDBOX_DIED if it has ended; PROTOCOL if
///         something other than its agent answers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_open(
    blink: *const blink,
    id: *const c_char,
    cancel: *const blink_cancel,
    out: *mut *mut blink_sandbox,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        let id = caller.text(id, "id")?;
        let sandbox = blink.core().wait(cancel, blink.core().blink().open(id))?;
        out.give(blink_sandbox::new(blink.core(), Arc::new(sandbox)));
        Ok(())
    })
}

/// Lists the ids of the sandboxes that were made detached and not removed.
///
/// @param blink  Borrowed. May be used from several threads at once.
/// @param out    Set on success; free with blink_strings_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); UNSUPPORTED in a child process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_list(
    blink: *const blink,
    out: *mut *mut blink_strings,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let blink = handle::get(blink)?;
        blink.core().check()?;
        let ids = blink.core().blink().sandboxes();
        out.give(blink_strings::new(ids));
        Ok(())
    })
}

/// Names a sandbox among all of its home.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @return There until the sandbox is freed. NULL for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_sandbox_id(sandbox: *const blink_sandbox) -> *const c_char {
    quietly(std::ptr::null(), || {
        handle::get(sandbox).map_or(std::ptr::null(), |sandbox| sandbox.id.as_ptr())
    })
}

/// The isolation that a sandbox really has.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @return "microvm" or "namespace", a static string. NULL for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_sandbox_isolation(sandbox: *const blink_sandbox) -> *const c_char {
    quietly(std::ptr::null(), || {
        let sandbox = handle::get(sandbox);
        sandbox.map_or(std::ptr::null(), |sandbox| {
            isolation(sandbox.sandbox.isolation()).as_ptr()
        })
    })
}

/// The version of a sandbox's guest agent: of one that an earlier process has made, perhaps an older one.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @return Its name and version, there until the sandbox is freed. NULL for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_sandbox_agent(sandbox: *const blink_sandbox) -> *const c_char {
    quietly(std::ptr::null(), || {
        let sandbox = handle::get(sandbox);
        sandbox.map_or(std::ptr::null(), |sandbox| pointer(sandbox.agent.as_ref()))
    })
}

/// Why a sandbox has ended, if it has: the failure that all calls in it meet.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @return Borrowed from the sandbox, and there until that is freed: do not free it. NULL while it has not ended, and for NULL
///         or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_sandbox_death(sandbox: *const blink_sandbox) -> *const blink_error {
    quietly(std::ptr::null(), || {
        let Ok(sandbox) = handle::get(sandbox) else {
            return std::ptr::null();
        };
        let death = sandbox.sandbox.death().cloned();
        death.map_or(std::ptr::null(), |death| {
            let lend = || Lent::new(blink_error::from(Failure::from(death)));
            sandbox.death.get_or_init(lend).pointer()
        })
    })
}

/// A port of a sandbox that programs of the host reach.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param index    From 0, in the order in which the ports were asked for.
/// @param port     Set to the port, with the one that the host really has; its text belongs to the sandbox.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT also if the index is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_published(
    sandbox: *const blink_sandbox,
    index: usize,
    port: *mut blink_port,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let place = caller.place(port, blink_port::none())?;
        let sandbox = handle::get(sandbox)?;
        let port = sandbox.ports.get(index).ok_or_else(|| no_such(index))?;
        caller.set(place, *port);
        Ok(())
    })
}

/// The host's port that leads into a sandbox.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param index    From 0, in the order in which the ports were asked for.
/// @return 0 if the index is out of range, and for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_sandbox_published_port(sandbox: *const blink_sandbox, index: usize) -> u16 {
    quietly(0, || {
        let sandbox = handle::get(sandbox).ok();
        let port = sandbox
            .as_ref()
            .and_then(|sandbox| sandbox.ports.get(index));
        port.map_or(0, |port| port.host_port)
    })
}

/// Runs a command and waits for it. A command that exits with another code than 0, or is killed when its time is over, is no
/// failure: the output says so; blink_output_check() makes one of it.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param command  Borrowed.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. A cancelled command is killed with all that it has started.
/// @param out      Set on success; free with blink_output_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT and NOT_FOUND for a command that cannot be right; RESOURCE_EXHAUSTED;
///         SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_exec(
    sandbox: *const blink_sandbox,
    command: *const blink_command,
    cancel: *const blink_cancel,
    out: *mut *mut blink_output,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let sandbox = handle::get(sandbox)?;
        let command = caller.command(command)?;
        let core = sandbox.sandbox.core();
        let output = core.wait(cancel, sandbox.sandbox.exec(command))?;
        out.give(blink_output::new(output));
        Ok(())
    })
}

/// Starts a command, whose input and output stream.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param command  Borrowed.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. It cancels the start only.
/// @param out      Set on success; free with blink_process_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return As blink_sandbox_exec().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_spawn(
    sandbox: *const blink_sandbox,
    command: *const blink_command,
    cancel: *const blink_cancel,
    out: *mut *mut blink_process,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let sandbox = handle::get(sandbox)?;
        let command = caller.command(command)?;
        let core = sandbox.sandbox.core();
        let process = core.wait(cancel, sandbox.sandbox.spawn(command))?;
        out.give(blink_process::new(core, process));
        Ok(())
    })
}

/// Attaches to a process that was spawned earlier, also by an earlier host process. Whoever was attached to it is not any
/// more.
///
/// @param sandbox        Borrowed. May be used from several threads at once.
/// @param id             As blink_process_id() gave it.
/// @param stdout_offset  Where its standard output goes on: the bytes that were read; 0 for the oldest of its last MiB.
/// @param stderr_offset  As stdout_offset, for its standard error.
/// @param cancel         Borrowed. NULL: it cannot be cancelled.
/// @param out            Set on success; free with blink_process_free(). NULL on failure.
/// @param err            May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if it was released; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_attach(
    sandbox: *const blink_sandbox,
    id: u64,
    stdout_offset: u64,
    stderr_offset: u64,
    cancel: *const blink_cancel,
    out: *mut *mut blink_process,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let sandbox = handle::get(sandbox)?;
        let core = sandbox.sandbox.core();
        let attach = sandbox.sandbox.process(id, stdout_offset, stderr_offset);
        let process = core.wait(cancel, attach)?;
        out.give(blink_process::new(core, process));
        Ok(())
    })
}

/// Lists the spawned processes that were not released.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param out      Set on success; free with blink_process_list_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_processes(
    sandbox: *const blink_sandbox,
    out: *mut *mut blink_process_list,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let sandbox = handle::get(sandbox)?;
        let core = sandbox.sandbox.core();
        let list = core.wait(std::ptr::null(), sandbox.sandbox.processes())?;
        out.give(blink_process_list::new(list));
        Ok(())
    })
}

/// The files of a sandbox.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param out      Set on success; free with blink_files_free(). NULL on failure. It may outlive the sandbox's handle.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), even if it has ended: what is done with the files fails then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_files(
    sandbox: *const blink_sandbox,
    out: *mut *mut blink_files,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let sandbox = handle::get(sandbox)?;
        sandbox.sandbox.core().check()?;
        let files = sandbox.sandbox.files()?;
        out.give(blink_files::new(sandbox.sandbox.core(), files));
        Ok(())
    })
}

/// Asks a sandbox's agent for a sign of life.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_ping(
    sandbox: *const blink_sandbox,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let sandbox = handle::get(sandbox)?;
        let core = sandbox.sandbox.core();
        core.wait(cancel, sandbox.sandbox.ping())
    })
}

/// Ends a sandbox and deletes everything in it, even if it is detached. Calls that are under way in it, and all that come
/// later, fail with BLINK_STATUS_SANDBOX_DIED; only this one does nothing then. The handle still wants to be freed.
///
/// @param sandbox  Borrowed. May be used from several threads at once.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INTERNAL if something of it could not be removed, which the message names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_remove(
    sandbox: *const blink_sandbox,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        let sandbox = handle::get(sandbox)?;
        let core = sandbox.sandbox.core().clone();
        core.finish(
            std::ptr::null(),
            async move { sandbox.sandbox.remove().await },
        )
    })
}

/// Frees a sandbox's handle. The sandbox ends and is removed with it, unless it is detached or a session's.
///
/// @param sandbox  Taken. NULL does nothing. Calls that are under way on it end first.
#[unsafe(no_mangle)]
pub extern "C" fn blink_sandbox_free(sandbox: *mut blink_sandbox) {
    handle::free(sandbox);
}
