//! The files of a sandbox.

use std::ffi::c_char;
use std::sync::Arc;

use blink_core::{Files, WriteOptions};

use crate::bytes::blink_bytes;
use crate::call::{Caller, call};
use crate::cancel::blink_cancel;
use crate::command::flag;
use crate::core::{Core, Held};
use crate::entries::{blink_entries, blink_file_info, shown};
use crate::error::blink_error;
use crate::failure::Failure;
use crate::handle;
use crate::sized::{structure, zeros};
use crate::status::blink_status;

/// The files of a sandbox. Paths are absolute. What is transferred arrives whole, or not at all.
pub struct blink_files {
    files: Held<Files>,
}

impl blink_files {
    pub(crate) fn new(core: &Arc<Core>, files: Files) -> blink_files {
        blink_files {
            files: Held::new(core, files),
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.files.core()
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }
}

/// How to write a file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_write_options {
    /// sizeof(blink_write_options), set by blink_write_options_init().
    pub size: usize,
    /// Its permission bits, such as 0755. 0: an existing file keeps its own, and a new one gets 0644.
    pub mode: u32,
    /// 1: append to the file instead of replacing it. 0 by default.
    pub append: u32,
    /// Who owns it: a user of the sandbox, by name or id. NULL: an existing file keeps its owner, and a new one belongs to the
    /// user of the handle.
    pub user: *const c_char,
}

structure!(blink_write_options, zeros());

/// Sets options to their defaults.
///
/// @param options  Written.
/// @param size     sizeof(blink_write_options).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_write_options_init(
    options: *mut blink_write_options,
    size: usize,
) -> blink_status {
    crate::call::init!(options, size)
}

impl Caller<'_> {
    pub(crate) fn write_options(
        &self,
        options: *const blink_write_options,
    ) -> Result<WriteOptions, Failure> {
        let asked = self.options(options, "options")?;
        let mut how = WriteOptions::default();
        if asked.mode > 0 {
            how = how.mode(asked.mode);
        }
        if flag(asked.append, "append")? {
            how = how.append();
        }
        if let Some(user) = self.optional_text(asked.user, "user")? {
            how = how.user(user);
        }
        Ok(how)
    }
}

/// Reads a whole file into memory; blink_files_reader() reads a part, or bit by bit.
///
/// @param files   Borrowed. May be used from several threads at once.
/// @param path    Absolute.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param out     Set on success; free with blink_bytes_free(). NULL on failure.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; IS_A_DIRECTORY; INVALID_ARGUMENT for a device and the like; CORRUPT if it did not
///         arrive as it was sent; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_read(
    files: *const blink_files,
    path: *const c_char,
    cancel: *const blink_cancel,
    out: *mut *mut blink_bytes,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        let bytes = files.core().wait(cancel, files.files.read(path))?;
        out.give(blink_bytes::new(bytes));
        Ok(())
    })
}

/// Writes a whole file that is in memory; blink_files_writer() writes bit by bit. It has its old content or all of the new one, never less, whatever happens.
///
/// @param files    Borrowed. May be used from several threads at once.
/// @param path     Absolute.
/// @param data     Bytes. NULL with a length of 0.
/// @param length   How many they are.
/// @param options  Borrowed. NULL is the defaults.
/// @param cancel   Borrowed. NULL: it cannot be cancelled.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND for a missing folder; IS_A_DIRECTORY; NOT_A_DIRECTORY; READ_ONLY;
///         RESOURCE_EXHAUSTED if the disk is full; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_write(
    files: *const blink_files,
    path: *const c_char,
    data: *const u8,
    length: usize,
    options: *const blink_write_options,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        let mut data = caller.bytes(data, length, "data")?;
        let how = caller.write_options(options)?;
        let write = files.files.write_with(path, &mut data, &how);
        files.core().wait(cancel, write).map(drop)
    })
}

/// Describes a file; a symbolic link itself.
///
/// @param files  Borrowed. May be used from several threads at once.
/// @param path   Absolute.
/// @param info   Set up with blink_file_info_init(), and filled in; its name and target are NULL.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_stat(
    files: *const blink_files,
    path: *const c_char,
    info: *mut blink_file_info,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        let metadata = files
            .core()
            .wait(std::ptr::null(), files.files.stat(path))?;
        caller.fill(info, &shown(&metadata), "info")
    })
}

/// Whether there is a file, or a link that leads to one.
///
/// @param files  Borrowed. May be used from several threads at once.
/// @param path   Absolute.
/// @param there  Set to the answer; false on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_exists(
    files: *const blink_files,
    path: *const c_char,
    there: *mut bool,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let there = caller.place(there, false)?;
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        let exists = files
            .core()
            .wait(std::ptr::null(), files.files.exists(path))?;
        caller.set(there, exists);
        Ok(())
    })
}

/// Lists a folder, sorted by name.
///
/// @param files  Borrowed. May be used from several threads at once.
/// @param path   Absolute.
/// @param out    Set on success; free with blink_entries_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; NOT_A_DIRECTORY; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_list(
    files: *const blink_files,
    path: *const c_char,
    out: *mut *mut blink_entries,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        let list = files
            .core()
            .wait(std::ptr::null(), files.files.list(path))?;
        out.give(blink_entries::new(list));
        Ok(())
    })
}

/// Makes a folder and its missing parents; content if it exists.
///
/// @param files  Borrowed. May be used from several threads at once.
/// @param path   Absolute.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_A_DIRECTORY if a part of the path is no folder; READ_ONLY; NOT_FOUND if the sandbox does
///         not know the user of blink_files_as_user(); SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_make_dir(
    files: *const blink_files,
    path: *const c_char,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        files
            .core()
            .wait(std::ptr::null(), files.files.make_dir(path))
    })
}

/// As blink_files_make_dir(), with the permission bits of a folder that is new; its missing parents get 0755.
///
/// @param files  Borrowed. May be used from several threads at once.
/// @param path   Absolute.
/// @param mode   Permission bits, such as 0750.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return As for blink_files_make_dir(); INVALID_ARGUMENT for bits that no mode has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_make_dir_with(
    files: *const blink_files,
    path: *const c_char,
    mode: u32,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        let making = files.files.make_dir_with(path, mode);
        files.core().wait(std::ptr::null(), making)
    })
}

/// Removes a file, a link or an empty folder; a folder with all that is in it if asked to. Links are removed, not
/// followed.
///
/// @param files      Borrowed. May be used from several threads at once.
/// @param path       Absolute.
/// @param recursive  Whether a folder is removed with all that is in it.
/// @param err        May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; DIRECTORY_NOT_EMPTY; READ_ONLY; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_remove(
    files: *const blink_files,
    path: *const c_char,
    recursive: bool,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let path = caller.words(path, "path")?;
        files.core().wait(std::ptr::null(), async {
            match recursive {
                false => files.files.remove(path).await,
                true => files.files.remove_all(path).await,
            }
        })
    })
}

/// The functions with two paths.
fn two_paths<'a>(
    caller: &'a Caller<'_>,
    from: *const c_char,
    to: *const c_char,
) -> Result<(&'a std::ffi::OsStr, &'a std::ffi::OsStr), Failure> {
    Ok((caller.words(from, "from")?, caller.words(to, "to")?))
}

/// Renames a file or folder, replacing a file that has the new name.
///
/// @param files  Borrowed. May be used from several threads at once.
/// @param from   Absolute.
/// @param to     Absolute.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; UNSUPPORTED across file systems; SANDBOX_DIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_rename(
    files: *const blink_files,
    from: *const c_char,
    to: *const c_char,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let (from, to) = two_paths(caller, from, to)?;
        files
            .core()
            .wait(std::ptr::null(), files.files.rename(from, to))
    })
}

/// Copies a file inside the sandbox.
///
/// @param files   Borrowed. May be used from several threads at once.
/// @param from    Absolute.
/// @param to      Absolute.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; IS_A_DIRECTORY; INVALID_ARGUMENT for a device and the like; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_copy(
    files: *const blink_files,
    from: *const c_char,
    to: *const c_char,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let (from, to) = two_paths(caller, from, to)?;
        files.core().wait(cancel, files.files.copy(from, to))
    })
}

/// Brings a file or a whole folder of the host into the sandbox. A folder is merged into one that exists. Links come as they
/// are; sockets and devices do not.
///
/// @param files   Borrowed. May be used from several threads at once.
/// @param from    The host's.
/// @param to      The sandbox's, absolute: what it is called there.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND if there is no such file; INTERNAL if it cannot be read; otherwise as
///         blink_files_write().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_upload(
    files: *const blink_files,
    from: *const c_char,
    to: *const c_char,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let (from, to) = two_paths(caller, from, to)?;
        files.core().wait(cancel, files.files.upload(from, to))
    })
}

/// Takes a file or a whole folder out of the sandbox to the host. Nothing outside `to` is touched, whatever the sandbox
/// sends.
///
/// @param files   Borrowed. May be used from several threads at once.
/// @param from    The sandbox's, absolute.
/// @param to      The host's: what it is called there.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); NOT_FOUND; CORRUPT if a folder holds what may not leave a sandbox; SANDBOX_DIED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_download(
    files: *const blink_files,
    from: *const c_char,
    to: *const c_char,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let (from, to) = two_paths(caller, from, to)?;
        files.core().wait(cancel, files.files.download(from, to))
    })
}

/// Takes a file or a whole folder out of the sandbox into a folder of the host that exists, where it keeps its name. Nothing in
/// that folder is followed, as it may have come from a sandbox earlier. What has no name of its own, as "/", is merged into it.
///
/// @param files   Borrowed. May be used from several threads at once.
/// @param from    The sandbox's, absolute.
/// @param folder  The host's.
/// @param cancel  Borrowed. NULL: it cannot be cancelled.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return As blink_files_download(); NOT_FOUND if `folder` is missing too; INVALID_ARGUMENT if something of that name is
///         there that is neither a file nor a folder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_download_into(
    files: *const blink_files,
    from: *const c_char,
    folder: *const c_char,
    cancel: *const blink_cancel,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let files = handle::get(files)?;
        let (from, folder) = two_paths(caller, from, folder)?;
        files
            .core()
            .wait(cancel, files.files.download_into(from, folder))
    })
}

/// The same files; what is made through the new handle belongs to another user of the sandbox. Without, it belongs to the
/// sandbox's own user, or to root if it has none.
///
/// @param files  Borrowed. May be used from several threads at once.
/// @param user   A user of the sandbox, by name or id. One that it does not know is NOT_FOUND when something is made.
/// @param out    Set on success; free with blink_files_free(). NULL on failure.
/// @param err    May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_files_as_user(
    files: *const blink_files,
    user: *const c_char,
    out: *mut *mut blink_files,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let out = caller.out(out)?;
        let files = handle::get(files)?;
        let user = caller.text(user, "user")?;
        let others = files.files.clone().as_user(user);
        out.give(blink_files::new(files.core(), others));
        Ok(())
    })
}

/// Frees the handle. The files stay.
///
/// @param files  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_files_free(files: *mut blink_files) {
    handle::free(files);
}
