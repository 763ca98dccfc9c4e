//! Whiteouts of OCI layers: entries that remove what lower layers gave.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Dir, Mode};
use rustix::io::Errno;

use crate::error::ArchiveError;
use crate::layer::{META, OPAQUE, WHITEOUT};
use crate::root;

/// What an entry's name means in a layer.
pub(super) enum Marker<'a> {
    /// An entry like any other.
    None,
    /// Bookkeeping that means nothing outside the file system that wrote it.
    Ignored,
    /// The folder hides all that lower layers have in it.
    Opaque,
    /// The name is removed.
    Remove(&'a OsStr),
}

pub(super) fn marker(path: &Path) -> Result<Marker<'_>, ArchiveError> {
    let refused = |why| Err(ArchiveError::hostile(path, why));
    let mut components = path
        .components()
        .map(Component::as_os_str)
        .map(OsStr::as_bytes)
        .peekable();
    while let Some(component) = components.next() {
        let last = components.peek().is_none();
        if last && component == OPAQUE {
            return Ok(Marker::Opaque);
        }
        if component.starts_with(META) {
            return Ok(Marker::Ignored);
        }
        let Some(name) = component.strip_prefix(WHITEOUT) else {
            continue;
        };
        if !last {
            return refused("it is inside a whiteout");
        }
        if matches!(name, b"" | b"." | b"..") {
            return refused("it is a whiteout of no valid name");
        }
        return Ok(Marker::Remove(OsStr::from_bytes(name)));
    }
    Ok(Marker::None)
}

/// What this layer gave, which its own whiteouts leave alone. By the inode of
/// the folder and the name in it, so that it does not matter by which of several
/// paths a later entry comes.
#[derive(Default)]
pub(super) struct Given {
    names: HashSet<(u64, Box<OsStr>)>,
}

impl Given {
    pub(super) fn insert(&mut self, folder: u64, name: &OsStr) {
        self.names.insert((folder, name.into()));
    }

    fn contains(&self, folder: u64, name: &OsStr) -> bool {
        self.names.contains(&(folder, name.into()))
    }

    /// Removes from a folder what lower layers have in it.
    pub(super) fn clear_lower(&self, folder: BorrowedFd<'_>, inode: u64) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(rustix::fs::fstat(folder)?.st_mode);
        if !mode.contains(Mode::RWXU) {
            // Who cannot is told by the removal that fails.
            let _ = rustix::fs::fchmod(folder, mode | Mode::RWXU);
        }
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.remove_lower(folder, inode, name)?;
            }
        }
        Ok(())
    }

    /// Removes a name as far as lower layers gave it. A folder stays where this
    /// layer gave it or something in it.
    pub(super) fn remove_lower(
        &self,
        parent: BorrowedFd<'_>,
        inode: u64,
        name: &OsStr,
    ) -> Result<(), Errno> {
        let stat = match root::stat(parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let given = self.contains(inode, name);
        if !root::is_folder(&stat) {
            return if given {
                Ok(())
            } else {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
            };
        }
        let folder = root::open_folder_anyway(parent, name)?;
        self.clear_lower(folder.as_fd(), stat.st_ino)?;
        if given {
            return Ok(());
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            other => other,
        }
    }
}
