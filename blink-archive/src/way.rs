//! The way down into a tree, of any depth, with a bounded number of open folders and no recursion.
//!
//! What walks a tree that somebody else has built must not recurse, as that tree may be deeper than a stack, nor hold each
//! folder open, as it may be deeper than a process may have descriptors, nor name a folder by its whole path, which may be
//! longer than the kernel takes. So a walk is a loop over a [`Way`]: down by name, back by `..`, and the folder found there
//! must be the one that was left.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::root::REAL_FOLDER;

/// Folders held open at once. More than honest trees are deep, so that these are never opened twice; several walks of one
/// process stay far below the 1024 descriptors that most may have.
const MOST_OPEN: usize = 64;

/// A walk's folders from the top to where it is, each with something of its own.
#[derive(Debug)]
pub(crate) struct Way<T> {
    trail: Trail,
    data: Vec<T>,
}

impl<T> Way<T> {
    /// A way that begins in an open folder.
    ///
    /// # Errors
    /// The kernel's, if it does not say what the folder is.
    pub(crate) fn new(top: OwnedFd, data: T) -> Result<Self, Errno> {
        Self::with_most_open(top, data, MOST_OPEN)
    }

    pub(crate) fn with_most_open(top: OwnedFd, data: T, most_open: usize) -> Result<Self, Errno> {
        let mut trail = Trail {
            levels: Vec::new(),
            open: VecDeque::new(),
            most_open,
        };
        trail.enter(top)?;
        Ok(Self {
            trail,
            data: vec![data],
        })
    }

    /// The folder where the way is.
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.trail.folder()
    }

    /// What belongs to that folder.
    pub(crate) fn data(&mut self) -> &mut T {
        let last = self.data.len() - 1;
        &mut self.data[last]
    }

    /// Folders above it.
    pub(crate) fn depth(&self) -> usize {
        self.data.len() - 1
    }

    /// Goes on into a folder in it, which is open.
    ///
    /// # Errors
    /// As for [`Way::new`].
    pub(crate) fn enter(&mut self, below: OwnedFd, data: T) -> Result<(), Errno> {
        self.trail.enter(below)?;
        self.data.push(data);
        Ok(())
    }

    /// Goes back to the folder above, and returns what belonged to the one that is left; `None` at the top, where the way
    /// stays.
    ///
    /// # Errors
    /// [`Errno::STALE`] where somebody has moved the folder meanwhile, so that the way back is lost.
    pub(crate) fn leave(&mut self) -> Result<Option<T>, Errno> {
        match self.trail.leave()? {
            true => Ok(self.data.pop()),
            false => Ok(None),
        }
    }
}

/// The folders, apart from what belongs to them.
#[derive(Debug)]
struct Trail {
    levels: Vec<Identity>,
    /// Those of the last levels; one is always there.
    open: VecDeque<OwnedFd>,
    most_open: usize,
}

/// A folder's device and inode.
type Identity = (u64, u64);

impl Trail {
    fn folder(&self) -> BorrowedFd<'_> {
        self.open[self.open.len() - 1].as_fd()
    }

    fn enter(&mut self, below: OwnedFd) -> Result<(), Errno> {
        self.levels.push(identity(below.as_fd())?);
        self.open.push_back(below);
        if self.open.len() > self.most_open {
            self.open.pop_front();
        }
        Ok(())
    }

    /// False at the top.
    fn leave(&mut self) -> Result<bool, Errno> {
        let Some(above) = self.levels.len().checked_sub(2) else {
            return Ok(false);
        };
        if self.open.len() == 1 {
            let folder = rustix::fs::openat(self.folder(), "..", REAL_FOLDER, Mode::empty())?;
            if identity(folder.as_fd())? != self.levels[above] {
                return Err(Errno::STALE);
            }
            self.open.push_front(folder);
        }
        self.open.pop_back();
        self.levels.pop();
        Ok(true)
    }
}

fn identity(folder: BorrowedFd<'_>) -> Result<Identity, Errno> {
    let stat = rustix::fs::fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;

    fn open(from: impl AsFd, name: impl AsRef<std::path::Path>) -> OwnedFd {
        rustix::fs::openat(from, name.as_ref(), REAL_FOLDER, Mode::empty()).unwrap()
    }

    #[test]
    fn few_folders_are_open_and_the_way_back_is_found() {
        const DEEP: usize = 300;
        let place = tempfile::tempdir().unwrap();
        let mut way = Way::with_most_open(open(CWD, place.path()), 0, 4).unwrap();
        for level in 1..=DEEP {
            rustix::fs::mkdirat(way.folder(), "d", Mode::RWXU).unwrap();
            way.enter(open(way.folder(), "d"), level).unwrap();
            assert!(way.trail.open.len() <= 4);
        }
        for level in (1..=DEEP).rev() {
            assert_eq!((way.depth(), *way.data()), (level, level));
            assert_eq!(way.leave().unwrap(), Some(level));
        }
        assert_eq!(way.leave().unwrap(), None);
        assert_eq!(
            identity(way.folder()).unwrap(),
            identity(open(CWD, place.path()).as_fd()).unwrap()
        );
    }

    #[test]
    fn a_way_that_was_moved_is_lost() {
        let place = tempfile::tempdir().unwrap();
        let deep = place.path().join("a/b/c/d");
        std::fs::create_dir_all(&deep).unwrap();
        let mut way = Way::with_most_open(open(CWD, place.path()), (), 2).unwrap();
        for name in ["a", "b", "c", "d"] {
            way.enter(open(way.folder(), name), ()).unwrap();
        }
        std::fs::rename(place.path().join("a/b/c"), place.path().join("c")).unwrap();
        way.leave().unwrap();
        assert_eq!(way.leave().unwrap_err(), Errno::STALE);
    }
}
