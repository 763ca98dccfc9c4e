//! Removing a tree that a hostile program built.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::error::ArchiveError;
use crate::root::{self, FOLDER};

/// Folders held open at once; below that, the way back is found through `..`.
/// A hostile tree can be deeper than there are file descriptors.
const MOST_OPEN: usize = 32;

/// How often a folder is emptied again because something appeared in it.
const MOST_ROUNDS: usize = 16;

/// Removes `name` in the folder `parent`, with everything beneath it.
///
/// Symbolic links are removed, never followed. Folders without the right to
/// list or change them are given it. What vanishes meanwhile is no error,
/// nor is a name that is not there.
///
/// # Errors
/// [`ArchiveError::Io`] with the name that could not be removed: a mount point,
/// a file of someone else, or a folder that somebody keeps filling.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), ArchiveError> {
    let result =
        if name.is_empty() || name == "." || name == ".." || name.as_bytes().contains(&b'/') {
            Err(Errno::INVAL)
        } else {
            remove(parent, name, 0)
        };
    result.map_err(|error| ArchiveError::io(Path::new(name), "removed", error))
}

/// Removes everything in `folder` and keeps the folder.
pub(crate) fn clear(folder: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            remove(folder, name, depth)?;
        }
    }
    Ok(())
}

fn remove(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<(), Errno> {
    for _ in 0..MOST_ROUNDS {
        match unlink(parent, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            other => return other,
        }
        match root::open_folder_anyway(parent, name) {
            Ok(folder) if depth < MOST_OPEN => clear_anyway(&folder, parent, name, depth)?,
            Ok(folder) => {
                let _ = root::open_up(parent, name);
                clear_deep(folder)?;
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::NOTEMPTY)
}

fn clear_anyway(
    folder: &OwnedFd,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    depth: usize,
) -> Result<(), Errno> {
    match clear(folder.as_fd(), depth + 1) {
        Err(Errno::ACCESS) => {
            root::open_up(parent, name)?;
            clear(folder.as_fd(), depth + 1)
        }
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

/// Empties a folder of any depth with two open folders: down by name, back by
/// `..`, each time checking that it is the folder left before. Where something
/// was moved meanwhile it stops; the caller begins again.
fn clear_deep(top: OwnedFd) -> Result<(), Errno> {
    let mut way: Vec<(u64, u64, OsString)> = Vec::new();
    let mut here = top;
    loop {
        match first_full_folder(here.as_fd())? {
            Some(name) => {
                let stat = rustix::fs::fstat(&here)?;
                let below = match root::open_folder_anyway(&here, &name) {
                    Ok(below) => below,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(error) => return Err(error),
                };
                if !Mode::from_raw_mode(rustix::fs::fstat(&below)?.st_mode).contains(Mode::RWXU) {
                    let _ = root::open_up(&here, &name);
                }
                way.push((stat.st_dev, stat.st_ino, name));
                here = below;
            }
            None => {
                let Some((device, inode, name)) = way.pop() else {
                    return Ok(());
                };
                let above =
                    rustix::fs::openat(&here, "..", FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
                let stat = rustix::fs::fstat(&above)?;
                if (stat.st_dev, stat.st_ino) != (device, inode) {
                    return Ok(());
                }
                unlink(above.as_fd(), &name)?;
                here = above;
            }
        }
    }
}

/// Removes what can be removed at once; the first folder that is not empty.
fn first_full_folder(folder: BorrowedFd<'_>) -> Result<Option<OsString>, Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match unlink(folder, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_os_string())),
            other => other?,
        }
    }
    Ok(None)
}
