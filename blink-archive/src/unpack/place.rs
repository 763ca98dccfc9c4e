//! Finding and freeing the place where an entry belongs.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::folders::FolderMetadata;
use super::owner::Owner;
use super::{Parent, Place, Unpacker};
use crate::error::ArchiveError;
use crate::path;
use crate::remove::remove_tree;
use crate::root::{self, FOLDER};

/// How often an entry's place is freed again because something took it.
const MOST_TRIES: usize = 8;

impl Unpacker<'_> {
    /// The folder that an entry belongs in, made where it is missing.
    pub(super) fn parent(
        &mut self,
        folder: &Path,
        entry: &Path,
    ) -> Result<Rc<Parent>, ArchiveError> {
        if let Some(parent) = self.existing_parent(folder, entry)? {
            return Ok(parent);
        }
        for missing in ancestors(folder) {
            if self.existing_parent(missing, entry)?.is_none() {
                self.make_implied(missing, entry)?;
            }
        }
        self.existing_parent(folder, entry)?
            .ok_or_else(|| ArchiveError::io(folder, "opened", Errno::NOENT))
    }

    /// The folder at `folder`, or `None` if nothing is there.
    pub(super) fn existing_parent(
        &mut self,
        folder: &Path,
        entry: &Path,
    ) -> Result<Option<Rc<Parent>>, ArchiveError> {
        if let Some((path, parent)) = &self.last_parent
            && path == folder
        {
            return Ok(Some(Rc::clone(parent)));
        }
        let links = self.options.links();
        let opened = match self.root.lookup(folder, FOLDER, links) {
            Err(Errno::ACCESS) => {
                self.open_up_ancestors(folder)?;
                self.root.lookup(folder, FOLDER, links)
            }
            other => other,
        };
        match opened {
            Ok(opened) => self.remember(folder, opened).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(ArchiveError::hostile(
                entry,
                "a folder in its path is a symbolic link",
            )),
            Err(Errno::XDEV) => Err(ArchiveError::hostile(entry, "its path leads outside")),
            Err(Errno::NOTDIR) => Err(ArchiveError::hostile(
                entry,
                "a folder in its path is a file",
            )),
            Err(error) => Err(ArchiveError::io(folder, "opened", error)),
        }
    }

    fn remember(&mut self, path: &Path, folder: OwnedFd) -> Result<Rc<Parent>, ArchiveError> {
        let failed = |error: Errno| ArchiveError::io(path, "examined", error);
        let stat = rustix::fs::fstat(&folder).map_err(failed)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        // An ordinary user needs the right to write; who may not give it to
        // himself is told so when the entry is made.
        if !mode.contains(Mode::RWXU) && rustix::fs::fchmod(&folder, mode | Mode::RWXU).is_ok() {
            self.folders.restore(path, mode)?;
        }
        let parent = Rc::new(Parent {
            folder,
            inode: stat.st_ino,
        });
        self.last_parent = Some((path.to_path_buf(), Rc::clone(&parent)));
        Ok(parent)
    }

    /// Gives the owner the right to enter each folder on the way.
    fn open_up_ancestors(&mut self, folder: &Path) -> Result<(), ArchiveError> {
        for path in ancestors(folder) {
            let Some((above, name)) = path::split(path) else {
                continue;
            };
            let opened_up = self
                .root
                .lookup(above, FOLDER, self.options.links())
                .and_then(|above| root::open_up(above, name));
            if let Ok(mode) = opened_up {
                self.folders.restore(path, mode)?;
            }
        }
        Ok(())
    }

    /// Makes a folder that the archive has no entry for.
    fn make_implied(&mut self, path: &Path, entry: &Path) -> Result<(), ArchiveError> {
        let Some((above, name)) = path::split(path) else {
            return Ok(());
        };
        let Some(parent) = self.existing_parent(above, entry)? else {
            return Err(ArchiveError::io(above, "opened", Errno::NOENT));
        };
        match root::make_folder(&parent.folder, name) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                return Err(ArchiveError::hostile(
                    entry,
                    "a folder in its path is a link to nothing",
                ));
            }
            Err(error) => return Err(ArchiveError::io(path, "created", error)),
        }
        self.gave(&parent, name);
        let metadata = FolderMetadata {
            mode: Mode::from_raw_mode(0o755),
            owner: Owner::first(self.options.ownership),
            mtime: None,
        };
        self.folders.set(path, metadata)
    }

    /// Makes an entry, freeing its place where something is there. False where
    /// `merge` allowed a folder to stay that was there.
    pub(super) fn make(
        &mut self,
        place: &Place<'_>,
        merge: bool,
        mut make: impl FnMut(BorrowedFd<'_>, &OsStr) -> Result<(), Errno>,
    ) -> Result<bool, ArchiveError> {
        for _ in 0..MOST_TRIES {
            match make(place.parent.folder.as_fd(), place.name) {
                Ok(()) => {
                    self.gave(&place.parent, place.name);
                    return Ok(true);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(ArchiveError::io(place.path, "created", error)),
            }
            if self.free(place, merge)? {
                self.gave(&place.parent, place.name);
                return Ok(false);
            }
        }
        Err(ArchiveError::io(place.path, "created", Errno::EXIST))
    }

    /// Removes what is in an entry's place; true where a folder stays.
    fn free(&mut self, place: &Place<'_>, merge: bool) -> Result<bool, ArchiveError> {
        let failed = |error: Errno| ArchiveError::io(place.path, "replaced", error);
        let folder = place.parent.folder.as_fd();
        let stat = match root::stat(folder, place.name) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(failed)?,
        };
        let is_folder = root::is_folder(&stat);
        if is_folder && merge {
            return Ok(true);
        }
        if !self.options.overwrite {
            return Err(ArchiveError::Exists {
                path: place.path.to_path_buf(),
            });
        }
        self.last_parent = None;
        self.folders.forget(place.path);
        if is_folder && self.options.whiteouts {
            remove_tree(folder, place.name)?;
            return Ok(false);
        }
        let flags = if is_folder {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match rustix::fs::unlinkat(folder, place.name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(false),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(ArchiveError::Exists {
                path: place.path.to_path_buf(),
            }),
            Err(error) => Err(failed(error)),
        }
    }

    fn gave(&mut self, parent: &Parent, name: &OsStr) {
        if self.options.whiteouts {
            self.given.insert(parent.inode, name);
        }
    }
}

/// `a/b/c` gives `a`, `a/b`, `a/b/c`.
fn ancestors(path: &Path) -> impl Iterator<Item = &Path> {
    let all: Vec<_> = path
        .ancestors()
        .filter(|path| *path != PathBuf::new())
        .collect();
    all.into_iter().rev()
}
