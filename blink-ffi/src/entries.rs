//! Descriptions of files, and lists of them.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use blink_core::{DirEntry, FileType, Metadata};

use crate::call::{call, init};
use crate::error::blink_error;
use crate::failure::quietly;
use crate::handle;
use crate::processes::no_such;
use crate::sized::{structure, zeros};
use crate::status::blink_status;
use crate::text::{cut, pointer};

/// What a file is.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum blink_file_type {
    /// A device, pipe or socket.
    Other = 0,
    /// A regular file.
    File = 1,
    /// A folder.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
}

/// The description of a file. Its strings belong to the list that it is from.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_file_info {
    /// sizeof(blink_file_info), set by blink_file_info_init().
    pub size: usize,
    /// Its name in its folder: any bytes but NUL and "/".
    pub name: *const c_char,
    /// Where a symbolic link points; otherwise NULL.
    pub target: *const c_char,
    /// A blink_file_type.
    pub file_type: i32,
    /// Its permission bits.
    pub mode: u32,
    /// The user that owns it, as the sandbox numbers users.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was last changed, in milliseconds since 1970; negative before.
    pub modified_ms: i64,
}

structure!(blink_file_info, zeros());

/// Sets up a blink_file_info to be filled in.
///
/// @param info  Written.
/// @param size  sizeof(blink_file_info).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_file_info_init(
    info: *mut blink_file_info,
    size: usize,
) -> blink_status {
    init!(info, size)
}

/// The entries of a folder. They never change.
pub struct blink_entries(Vec<Shown>);

struct Shown {
    name: CString,
    target: Option<CString>,
    metadata: Metadata,
}

impl blink_entries {
    pub(crate) fn new(entries: Vec<DirEntry>) -> blink_entries {
        let show = |entry: DirEntry| Shown {
            name: cut(entry.name.as_bytes()),
            target: entry
                .metadata
                .target
                .as_ref()
                .map(|target| cut(target.as_os_str().as_bytes())),
            metadata: entry.metadata,
        };
        blink_entries(entries.into_iter().map(show).collect())
    }
}

pub(crate) fn shown(metadata: &Metadata) -> blink_file_info {
    let file_type = match metadata.file_type {
        FileType::File => blink_file_type::File,
        FileType::Directory => blink_file_type::Directory,
        FileType::Symlink => blink_file_type::Symlink,
        _ => blink_file_type::Other,
    };
    blink_file_info {
        file_type: file_type as i32,
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        size_bytes: metadata.size,
        modified_ms: milliseconds(metadata.modified),
        ..zeros()
    }
}

/// Since 1970.
pub(crate) fn milliseconds(time: SystemTime) -> i64 {
    let number = |since: std::time::Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => number(since),
        Err(before) => -number(before.duration()),
    }
}

/// The number of entries of a folder.
///
/// @param entries  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_entries_count(entries: *const blink_entries) -> usize {
    quietly(0, || {
        handle::get(entries).map_or(0, |entries| entries.0.len())
    })
}

/// An entry of a folder.
///
/// @param entries  Borrowed. May be used from several threads at once.
/// @param index    From 0.
/// @param info     Set up with blink_file_info_init(), and filled in. Its strings belong to the list.
/// @param err      May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_entries_get(
    entries: *const blink_entries,
    index: usize,
    info: *mut blink_file_info,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let entries = handle::get(entries)?;
        let entry = entries.0.get(index).ok_or_else(|| no_such(index))?;
        let filled = blink_file_info {
            name: entry.name.as_ptr(),
            target: pointer(entry.target.as_ref()),
            ..shown(&entry.metadata)
        };
        caller.fill(info, &filled, "info")
    })
}

/// Frees a list with its strings.
///
/// @param entries  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_entries_free(entries: *mut blink_entries) {
    handle::free(entries);
}
