//! Disks of sessions as files for others.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;

use blink_core::ExportOptions;

use crate::blink::blink;
use crate::call::{Caller, call, init};
use crate::cancel::blink_cancel;
use crate::error::blink_error;
use crate::failure::Failure;
use crate::handle;
use crate::progress::{Telling, blink_transfer_callback};
use crate::session::blink_session;
use crate::session_options::blink_session_options;
use crate::sized::{structure, zeros};
use crate::status::blink_status;

/// What of a session to export. Everything is borrowed for the call that it is given to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_export_options {
    /// sizeof(blink_export_options), set by blink_export_options_init().
    pub size: usize,
    /// The checkpoint whose disk it is. NULL: the disk as it is now.
    pub checkpoint: *const c_char,
    /// Is told how much of the disk was read; how much it will be is not known before. NULL: nobody.
    pub transfer: blink_transfer_callback,
    /// Given to the callback.
    pub transfer_data: *mut c_void,
}

structure!(blink_export_options, zeros());

/// Sets options to their defaults.
///
/// @param options  Written.
/// @param size     sizeof(blink_export_options).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_export_options_init(
    options: *mut blink_export_options,
    size: usize,
) -> blink_status {
    init!(options, size)
}

impl Caller<'_> {
    fn export_options(
        &self,
        options: *const blink_export_options,
    ) -> Result<(ExportOptions, Telling), Failure> {
        let asked = self.options(options, "the export's options")?;
        let telling = Telling::new(None, std::ptr::null_mut())
            .of_transfer(asked.transfer, asked.transfer_data);
        let mut options = ExportOptions::default().progress(telling.hear_transfer());
        if let Some(checkpoint) = self.optional_text(asked.checkpoint, "checkpoint")? {
            options = options.checkpoint(checkpoint);
        }
        Ok((options, telling))
    }
}

/// Writes a session's disk to one file, from which blink_session_import() makes a session, also on another machine. A session
/// that runs goes on; the file holds its disk of one moment. With it go the session's image by its name, resources,
/// environment, working directory, user and labels; not its mounts, network and ports.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param archive  The path on the host of the file to write.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. The file may be there afterwards.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if there is no such checkpoint; RESOURCE_EXHAUSTED for a full disk, with nothing
///         left behind; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_export(
    session: *const blink_session,
    archive: *const c_char,
    options: *const blink_export_options,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let session = handle::get(session)?;
        let archive = PathBuf::from(caller.words(archive, "archive")?);
        let (options, telling) = caller.export_options(options)?;
        let core = session.core();
        let exporting =
            core.whole(async move { session.session.export_with(archive, options).await });
        telling.wait(&core, cancel, exporting)
    })
}

/// Writes a session's disk as an image, from which sandboxes and sessions of either isolation are made, and which other
/// programs read: a folder in OCI layout, or a tar of one where the path ends in ".tar". A session that runs goes on.
///
/// @param session  Borrowed. May be used from several threads at once.
/// @param path     The path on the host of the folder or tar to write. A tar that is there is replaced; nothing else is.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. The image may be there afterwards.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); UNSUPPORTED for a session of the image "host", whose programs are this machine's;
///         INVALID_ARGUMENT if there is something at the path already; otherwise as blink_session_export().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_export_oci(
    session: *const blink_session,
    path: *const c_char,
    options: *const blink_export_options,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let session = handle::get(session)?;
        let path = PathBuf::from(caller.words(path, "path")?);
        let (options, telling) = caller.export_options(options)?;
        let core = session.core();
        let exporting =
            core.whole(async move { session.session.export_oci_with(path, options).await });
        telling.wait(&core, cancel, exporting)
    })
}

/// Makes a session whose disk is read from an archive that blink_session_export() has written. It is not started. The archive
/// may be anybody's: what the options say holds, otherwise it gets no more than the defaults, and its image must be stored.
///
/// @param blink    Borrowed. May be used from several threads at once.
/// @param name     Its name.
/// @param archive  The archive's path on the host.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled. The session may be there afterwards.
/// @param out      Set on success; free with blink_session_free(). NULL on failure.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); ALREADY_EXISTS; CORRUPT if it is not a complete archive; UNSUPPORTED if a later version wrote it,
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
        let builder = core.blink().session(name);
        let builder = options
            .describe(builder, &telling)
            .import_progress(telling.hear_transfer());
        let session = telling.wait(core, cancel, core.whole(builder.import(archive)))?;
        out.give(blink_session::new(core, session));
        Ok(())
    })
}
