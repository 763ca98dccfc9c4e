//! Removing a tree that a hostile program built.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode};
use rustix::io::Errno;

use crate::error::ArchiveError;
use crate::root;
use crate::way::Way;

/// How often a folder is emptied again because something appeared in it, or was moved.
const MOST_ROUNDS: usize = 16;

/// Removes `name` in the folder `parent`, with everything beneath it.
///
/// Symbolic links are removed, never followed. Folders without the right to
/// list or change them are given it. What vanishes meanwhile is no error,
/// nor is a name that is not there. It takes time in proportion to what there is,
/// however deep the folders are.
///
/// # Errors
/// [`ArchiveError::Io`] with the name that could not be removed: a mount point,
/// a file of someone else, or a folder that somebody keeps filling.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), ArchiveError> {
    let result =
        if name.is_empty() || name == "." || name == ".." || name.as_bytes().contains(&b'/') {
            Err(Errno::INVAL)
        } else {
            remove(parent, name)
        };
    result.map_err(|error| ArchiveError::io(Path::new(name), "removed", error))
}

fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    for _ in 0..MOST_ROUNDS {
        match unlink(parent, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            other => return other,
        }
        if let Some(folder) = open(parent, name)? {
            match clear(folder) {
                // Begun anew from here, nothing is lost.
                Ok(()) | Err(Errno::STALE) => {}
                other => return other,
            }
        }
    }
    Err(Errno::NOTEMPTY)
}

/// Opens a folder with all rights on it; `None` if it is none, or gone.
fn open(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
    let folder = match root::open_folder_anyway(parent, name) {
        Ok(folder) => folder,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !Mode::from_raw_mode(rustix::fs::fstat(&folder)?.st_mode).contains(Mode::RWXU) {
        // If this is refused, the removal below fails and reports it.
        let _ = root::open_up(parent, name);
    }
    Ok(Some(folder))
}

/// A folder that is being emptied.
struct Emptied {
    name: OsString,
    /// Folders in it that are not empty.
    full: Vec<OsString>,
}

/// Empties a folder.
fn clear(top: OwnedFd) -> Result<(), Errno> {
    let full = remove_all_but_full_folders(top.as_fd())?;
    let name = OsString::new();
    let mut way = Way::new(top, Emptied { name, full })?;
    loop {
        let Some(name) = way.data().full.pop() else {
            match way.leave()? {
                None => return Ok(()),
                Some(left) => unlink_if_empty(way.folder(), &left.name)?,
            }
            continue;
        };
        let Some(below) = open(way.folder(), &name)? else {
            continue;
        };
        let full = remove_all_but_full_folders(below.as_fd())?;
        match full.is_empty() {
            true => unlink_if_empty(way.folder(), &name)?,
            false => way.enter(below, Emptied { name, full })?,
        }
    }
}

/// Removes what can be removed at once; the folders that are not empty.
fn remove_all_but_full_folders(folder: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    let mut full = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match unlink(folder, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => full.push(name.to_os_string()),
            other => other?,
        }
    }
    Ok(full)
}

/// What somebody has filled again meanwhile is left for another round.
fn unlink_if_empty(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match unlink(parent, name) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Removes a name that is not a folder with something in it.
fn unlink(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let result = match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR),
        other => other,
    };
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
