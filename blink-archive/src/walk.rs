//! Looking at a whole tree.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Dir, Mode, Stat};
use rustix::io::Errno;

use crate::error::ArchiveError;
use crate::root::{self, REAL_FOLDER};
use crate::way::Way;

/// Calls `seen` once for everything beneath an open folder, in no order: each file, link and folder, but not that folder
/// itself.
///
/// Links are not followed. What vanishes meanwhile, and what may not be listed, is left out. Neither the depth of the tree
/// nor the length of its paths matters, and memory is bounded by the names of one path's folders.
///
/// # Errors
/// [`ArchiveError::Io`] with `ESTALE` if a folder was moved while the walk was deep in it, so that some of the tree was
/// not seen.
pub fn walk_tree(folder: OwnedFd, mut seen: impl FnMut(&Stat)) -> Result<(), ArchiveError> {
    walk_names(folder, |_, _, stat| seen(stat))
}

/// As [`walk_tree`], and says in which folder each is and what its name is there.
///
/// # Errors
/// As [`walk_tree`].
pub fn walk_names(
    folder: OwnedFd,
    mut seen: impl FnMut(BorrowedFd<'_>, &OsStr, &Stat),
) -> Result<(), ArchiveError> {
    let walked = walk_while(folder, &mut |folder, name, stat| {
        seen(folder, name, stat);
        true
    });
    walked.map_err(|error| ArchiveError::io("", "listed", error))
}

/// What the files beneath a folder occupy on their disk, in bytes; each counted once, whatever names it has. The folder at
/// `path` itself is not counted, and a part that cannot be looked at counts as nothing.
pub fn disk_usage(path: impl AsRef<Path>) -> u64 {
    usage(path.as_ref(), usize::MAX).unwrap_or_default()
}

/// The same, where no more than so many files are there; `None` for a tree that has more, of which no more is looked at.
pub fn disk_usage_of_few(path: impl AsRef<Path>, most: usize) -> Option<u64> {
    usage(path.as_ref(), most)
}

fn usage(path: &Path, most: usize) -> Option<u64> {
    let (mut bytes, mut files) = (0, 0);
    let mut counted = std::collections::HashSet::new();
    let Ok(folder) = rustix::fs::open(path, REAL_FOLDER, Mode::empty()) else {
        return Some(0);
    };
    // What is lost of it is in motion, and would be wrong in the next moment.
    let _ = walk_while(folder, &mut |_, _, stat| {
        let is_shared = stat.st_nlink > 1 && !root::is_folder(stat);
        if !is_shared || counted.insert((stat.st_dev, stat.st_ino)) {
            bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        }
        files += 1;
        files <= most
    });
    (files <= most).then_some(bytes)
}

/// Is called for each name, and says whether more is wanted.
trait Seen: FnMut(BorrowedFd<'_>, &OsStr, &Stat) -> bool {}
impl<F: FnMut(BorrowedFd<'_>, &OsStr, &Stat) -> bool> Seen for F {}

/// Walks for as long as more is wanted.
fn walk_while(top: OwnedFd, seen: &mut impl Seen) -> Result<(), Errno> {
    let Some(below) = look(top.as_fd(), seen) else {
        return Ok(());
    };
    let mut way = Way::new(top, below)?;
    loop {
        let Some(name) = way.data().pop() else {
            if way.leave()?.is_none() {
                return Ok(());
            }
            continue;
        };
        let Ok(folder) = rustix::fs::openat(way.folder(), &name, REAL_FOLDER, Mode::empty()) else {
            continue;
        };
        let Some(below) = look(folder.as_fd(), seen) else {
            return Ok(());
        };
        if !below.is_empty() {
            way.enter(folder, below)?;
        }
    }
}

/// Sees what is in a folder; the folders in it, unless no more is wanted.
fn look(folder: BorrowedFd<'_>, seen: &mut impl Seen) -> Option<Vec<OsString>> {
    let mut below = Vec::new();
    let Ok(entries) = Dir::read_from(folder) else {
        return Some(below);
    };
    for entry in entries.map_while(Result::ok) {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let Ok(stat) = root::stat(folder, name) else {
            continue;
        };
        if !seen(folder, name, &stat) {
            return None;
        }
        if root::is_folder(&stat) {
            below.push(name.to_os_string());
        }
    }
    Some(below)
}
