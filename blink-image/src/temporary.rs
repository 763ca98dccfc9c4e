//! Folders under construction, and what crashed processes left of theirs.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use blink_host::file_lock::{FileLock, Share};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{ImageError, shown};

const PREFIX: &str = "tmp-";

/// How often a name is tried that a sweeping process took at the same moment.
const MOST_TRIES: usize = 16;

/// A folder `tmp-…` that goes away with this value. Its owner holds a lock on
/// the folder itself; the kernel frees that when the owner dies, which tells
/// others that the folder is nobody's.
#[derive(Debug)]
pub(crate) struct TemporaryFolder {
    path: PathBuf,
    parent: OwnedFd,
    lock: FileLock,
}

impl TemporaryFolder {
    pub(crate) fn new(parent: &Path) -> Result<Self, ImageError> {
        File::open(parent)
            .and_then(|opened| Self::make(PREFIX, parent, opened.into()))
            .map_err(|error| ImageError::io(format!("make a folder in '{}'", shown(parent)), error))
    }

    /// One whose name begins otherwise, in an open folder that is not Blink's own.
    pub(crate) fn named(prefix: &str, parent: OwnedFd) -> io::Result<Self> {
        Self::make(prefix, &path_of(&parent), parent)
    }

    fn make(prefix: &str, path: &Path, parent: OwnedFd) -> io::Result<Self> {
        for _ in 0..MOST_TRIES {
            let path = tempfile::Builder::new()
                .prefix(prefix)
                .tempdir_in(path)?
                .keep();
            match lock(&path) {
                // Between the making and the locking, a sweep may have removed it.
                Ok(Some(lock)) if is_at(lock.file(), &path) => {
                    return Ok(Self { path, parent, lock });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::AGAIN.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder itself, whatever has its path meanwhile.
    pub(crate) fn folder(&self) -> &File {
        self.lock.file()
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if !self.lock.is_here() {
            return;
        }
        let name = self.path.file_name().unwrap_or_default();
        if let Err(error) = blink_archive::remove_tree(self.parent.as_fd(), name) {
            tracing::warn!(path = %shown(&self.path), %error, "a temporary folder could not be removed");
        }
    }
}

/// Where an open folder is, for as long as it is open.
fn path_of(folder: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// Removes temporary folders whose owners are gone.
pub(crate) fn sweep(parent: &Path) -> io::Result<()> {
    sweep_those(PREFIX, parent)
}

/// As [`sweep`], of those in an open folder whose names begin otherwise.
pub(crate) fn sweep_named(prefix: &str, parent: &OwnedFd) -> io::Result<()> {
    sweep_those(prefix, &path_of(parent))
}

fn sweep_those(prefix: &str, parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // What cannot be swept now is swept another time.
        if let Ok(Some(_lock)) = lock(&entry.path())
            && let Err(error) = remove(&entry.path())
        {
            tracing::warn!(path = %shown(&entry.path()), %error, "a leftover could not be removed");
        }
    }
    Ok(())
}

fn lock(path: &Path) -> io::Result<Option<FileLock>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    FileLock::try_take(folder.into(), Share::Alone)
}

fn is_at(folder: &File, path: &Path) -> bool {
    let Ok(here) = rustix::fs::fstat(folder) else {
        return false;
    };
    rustix::fs::lstat(path)
        .is_ok_and(|there| (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
}

fn remove(path: &Path) -> Result<(), ImageError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let failed = |error: io::Error| ImageError::io(format!("remove '{}'", shown(path)), error);
    let parent = File::open(parent).map_err(failed)?;
    blink_archive::remove_tree(parent.as_fd(), name)
        .map_err(|error| ImageError::archive("a temporary folder", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_nobodys_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let mine = TemporaryFolder::new(parent.path()).unwrap();
        fs::create_dir_all(parent.path().join("tmp-left/a/b")).unwrap();
        fs::create_dir(parent.path().join("other")).unwrap();
        sweep(parent.path()).unwrap();
        assert!(mine.path().exists());
        assert!(!parent.path().join("tmp-left").exists());
        assert!(parent.path().join("other").exists());
        drop(mine);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
