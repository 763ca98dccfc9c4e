//! Whiteouts of OCI layers: entries that remove what lower layers gave.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Dir, Mode};
use rustix::io::Errno;

use crate::error::ArchiveError;
use crate::layer::{META, OPAQUE, WHITEOUT};
use crate::root;
use crate::way::Way;

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
    /// With no name, it is the folder itself, in which nothing of lower layers is left: a layer that hides the same folder
    /// again and again must not cost a walk each time.
    names: HashSet<(u64, Box<OsStr>)>,
}

const CLEARED: &str = "";

/// A folder from which lower layers' names are being removed.
struct Cleared {
    name: OsString,
    inode: u64,
    /// The folder itself was given by this layer.
    given: bool,
    /// Folders in it that are still to be cleared.
    below: Vec<OsString>,
}

impl Given {
    pub(super) fn insert(&mut self, folder: u64, name: &OsStr) {
        self.names.insert((folder, name.into()));
    }

    fn contains(&self, folder: u64, name: &OsStr) -> bool {
        self.names.contains(&(folder, name.into()))
    }

    fn is_cleared(&self, folder: u64) -> bool {
        self.contains(folder, OsStr::new(CLEARED))
    }

    /// Removes from a folder what lower layers have in it. A folder stays where
    /// this layer gave it or something in it.
    pub(super) fn clear_lower(&mut self, folder: BorrowedFd<'_>, inode: u64) -> Result<(), Errno> {
        if self.is_cleared(inode) {
            return Ok(());
        }
        let top = Cleared {
            name: OsString::new(),
            inode,
            given: true,
            below: self.remove_lower_files(folder, inode)?,
        };
        let mut way = Way::new(rustix::io::fcntl_dupfd_cloexec(folder, 0)?, top)?;
        loop {
            if let Some(name) = way.data().below.pop() {
                self.enter(&mut way, name)?;
                continue;
            }
            self.insert(way.data().inode, OsStr::new(CLEARED));
            let Some(left) = way.leave()? else {
                return Ok(());
            };
            if !left.given {
                remove_empty(way.folder(), &left.name)?;
            }
        }
    }

    /// Removes a name as far as lower layers gave it.
    pub(super) fn remove_lower(
        &mut self,
        parent: BorrowedFd<'_>,
        inode: u64,
        name: &OsStr,
    ) -> Result<(), Errno> {
        if self.is_cleared(inode) {
            return Ok(());
        }
        let stat = match root::stat(parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let given = self.contains(inode, name);
        if !root::is_folder(&stat) {
            return match given {
                true => Ok(()),
                false => rustix::fs::unlinkat(parent, name, AtFlags::empty()),
            };
        }
        let folder = root::open_folder_anyway(parent, name)?;
        self.clear_lower(folder.as_fd(), stat.st_ino)?;
        match given {
            true => Ok(()),
            false => remove_empty(parent, name),
        }
    }

    fn enter(&mut self, way: &mut Way<Cleared>, name: OsString) -> Result<(), Errno> {
        let folder = root::open_folder_anyway(way.folder(), &name)?;
        let inode = rustix::fs::fstat(&folder)?.st_ino;
        let given = self.contains(way.data().inode, &name);
        let below = match self.is_cleared(inode) {
            true => Vec::new(),
            false => self.remove_lower_files(folder.as_fd(), inode)?,
        };
        let cleared = Cleared {
            name,
            inode,
            given,
            below,
        };
        way.enter(folder, cleared)
    }

    /// Removes what lower layers have in a folder apart from folders; these.
    fn remove_lower_files(
        &self,
        folder: BorrowedFd<'_>,
        inode: u64,
    ) -> Result<Vec<OsString>, Errno> {
        let mode = Mode::from_raw_mode(rustix::fs::fstat(folder)?.st_mode);
        if !mode.contains(Mode::RWXU) {
            // If this is refused, the removal below fails and reports it.
            let _ = rustix::fs::fchmod(folder, mode | Mode::RWXU);
        }
        let mut below = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if root::is_folder(&root::stat(folder, name)?) {
                below.push(name.to_os_string());
            } else if !self.contains(inode, name) {
                rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
            }
        }
        Ok(below)
    }
}

/// Removes a folder unless something is left in it.
fn remove_empty(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        other => other,
    }
}
