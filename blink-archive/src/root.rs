//! Path look-ups that cannot leave a folder, by the kernel's `openat2`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::ArchiveError;
use crate::options::Links;
use crate::path;

/// A folder that look-ups cannot leave: not by `..`, not by symbolic links, not
/// by the magic links of `/proc`, and not by a rename while they run.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
}

/// How often a look-up is tried again that the kernel gave up because something
/// was renamed meanwhile. A hostile program that renames in a loop gets an error.
const MOST_TRIES: usize = 64;

impl Root {
    /// Opens the folder at `path`. A symbolic link at its end is followed, as
    /// the path is the caller's own.
    ///
    /// # Errors
    /// [`ArchiveError::Io`] where it is missing or not a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ArchiveError> {
        let path = path.as_ref();
        rustix::fs::openat(CWD, path, FOLDER, Mode::empty())
            .map(Self::from)
            .map_err(|error| ArchiveError::io(path, "opened", error))
    }

    /// Opens what `path` names inside the root. An empty path or `.` is the root.
    ///
    /// # Errors
    /// The kernel's: `ELOOP` for a link under [`Links::Refuse`], `EXDEV` for `..`
    /// out of the root.
    pub fn open_inside(
        &self,
        path: impl AsRef<Path>,
        flags: OFlags,
        links: Links,
    ) -> std::io::Result<OwnedFd> {
        self.lookup(path.as_ref(), flags, links).map_err(Into::into)
    }

    /// Opens the folder that contains `path` inside the root, and gives the name
    /// that is left. A root or a path that ends in `..` has no name.
    ///
    /// # Errors
    /// As [`Root::open_inside`], and `EINVAL` for a path without a name.
    pub fn open_parent<'a>(
        &self,
        path: &'a Path,
        links: Links,
    ) -> std::io::Result<(OwnedFd, &'a OsStr)> {
        let (folder, name) = path::split(path).ok_or(Errno::INVAL)?;
        Ok((self.lookup(folder, FOLDER, links)?, name))
    }

    pub(crate) fn lookup(
        &self,
        path: &Path,
        flags: OFlags,
        links: Links,
    ) -> Result<OwnedFd, Errno> {
        if path.as_os_str().is_empty() {
            // The root itself, which there is no way out of.
            return rustix::fs::openat(&self.folder, c".", flags | OFlags::CLOEXEC, Mode::empty());
        }
        let resolve = ResolveFlags::NO_MAGICLINKS
            | match links {
                Links::Refuse => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
                Links::InRoot => ResolveFlags::IN_ROOT,
            };
        for _ in 0..MOST_TRIES {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }
}

/// Makes a folder for this user to work in, whatever the mask of the process would make of its mode.
pub(crate) fn make_folder(parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
    rustix::fs::chmodat(&parent, name, Mode::RWXU, AtFlags::empty())
}

/// A new file to write to, whatever this process masks: only who may write to a file by its mode gives it attributes.
pub(crate) fn make_file(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat(parent, name, flags, mode)?;
    rustix::fs::fchmod(&file, mode)?;
    Ok(file)
}

impl From<OwnedFd> for Root {
    /// Takes an open folder as the root.
    fn from(folder: OwnedFd) -> Self {
        Self { folder }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// A folder opened to be read and to look up names in.
pub(crate) const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// The same, and it must not be a symbolic link.
pub(crate) const REAL_FOLDER: OFlags = FOLDER.union(OFlags::NOFOLLOW);
/// A name held still, whatever it is and whatever its mode.
pub(crate) const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What `name` is, a symbolic link being itself.
pub(crate) fn stat(folder: impl AsFd, name: &OsStr) -> Result<Stat, Errno> {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(crate) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Gives the owner every right on the folder `name`, and returns the mode before.
/// The mode is changed through a handle, so that a folder which becomes a link
/// meanwhile does not lead the change elsewhere.
pub(crate) fn open_up(folder: impl AsFd, name: &OsStr) -> Result<Mode, Errno> {
    let handle = rustix::fs::openat(folder, name, HANDLE, Mode::empty())?;
    let stat = rustix::fs::fstat(&handle)?;
    if !is_folder(&stat) {
        return Err(Errno::NOTDIR);
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.contains(Mode::RWXU) {
        return Err(Errno::ACCESS);
    }
    chmod_handle(&handle, mode | Mode::RWXU)?;
    Ok(mode)
}

pub(crate) fn chmod_handle(handle: impl AsFd, mode: Mode) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // The kernel has no fchmod for such handles before 6.6.
    let path = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())
}

/// Opens the file `name`, which its owner may not read: the right is given for as long as the opening takes.
pub(crate) fn open_file_anyway(
    folder: impl AsFd,
    name: &OsStr,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let handle = rustix::fs::openat(&folder, name, HANDLE, Mode::empty())?;
    let stat = rustix::fs::fstat(&handle)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    chmod_handle(&handle, mode | Mode::RUSR)?;
    let opened = rustix::fs::openat(&folder, name, flags, Mode::empty());
    chmod_handle(&handle, mode)?;
    opened
}

/// Opens the folder `name`, giving its owner the right to where that is missing.
pub(crate) fn open_folder_anyway(folder: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(&folder, name, REAL_FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            open_up(&folder, name)?;
            rustix::fs::openat(&folder, name, REAL_FOLDER, Mode::empty())
        }
        other => other,
    }
}

/// Opens a folder, and gives its owner the right to read and enter it where that is missing: the mode before is returned
/// then.
pub(crate) fn open_for_a_while(
    parent: BorrowedFd<'_>,
    name: &OsStr,
) -> Result<(OwnedFd, Option<Mode>), Errno> {
    let open = || rustix::fs::openat(parent, name, REAL_FOLDER, Mode::empty());
    let (folder, former) = match open() {
        Err(Errno::ACCESS) => {
            let former = open_up(parent, name)?;
            (open()?, Some(former))
        }
        opened => (opened?, None),
    };
    if former.is_some() || can_enter(&folder)? {
        return Ok((folder, former));
    }
    Ok((folder, open_up(parent, name).ok()))
}

/// Whether names in a folder can be looked up.
fn can_enter(folder: &OwnedFd) -> Result<bool, Errno> {
    match rustix::fs::statat(folder.as_fd(), ".", AtFlags::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::ACCESS) => Ok(false),
        Err(error) => Err(error),
    }
}
