//! Places on the host that a user has named, and the only way in which anything is written there.
//!
//! What came from a sandbox must not decide where something else is written. So a place is found once, and held by the
//! descriptor of its folder from then on:
//!
//! - What the user has named is followed, a symbolic link at its end too: the file that the link names is meant, and the link
//!   stays.
//! - [Beneath](Destination::beneath) a folder that the user has named, nothing is followed: a link there may have come from a
//!   sandbox.
//! - Only a regular file is ever replaced, by one that was written beside it and takes its name when it is whole. A device or
//!   a named pipe is written to. A socket is refused.

pub mod file;
mod stream;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use blink_archive::Root;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::failure::Failure;

/// Links followed one after another, as many as the kernel follows.
const MOST_LINKS: usize = 40;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// A place to write to.
#[derive(Debug)]
pub struct Destination {
    /// As the user has named it.
    shown: PathBuf,
    folder: OwnedFd,
    name: OsString,
    found: Found,
}

/// What was there when the place was found.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A device, a named pipe, or an open file of this process: a handle of it.
    Stream(OwnedFd),
}

impl Destination {
    /// What a user has named; links are followed.
    ///
    /// # Errors
    /// `NotFound` for a missing folder; `InvalidArgument` for a socket, links without an end, and what may not be entered.
    pub fn named(path: &Path) -> Result<Destination, Failure> {
        let place =
            follow(path).and_then(|(folder, name)| Ok((look(&folder, &name)?, folder, name)));
        let (found, folder, name) = place.map_err(|error| Failure::of(path.display(), error))?;
        Ok(Destination {
            shown: path.to_owned(),
            folder,
            name,
            found,
        })
    }

    /// `name` in a folder that a user has named. Only what is a file or a folder itself may be there.
    ///
    /// # Errors
    /// As for [`named`](Destination::named), and `InvalidArgument` for a link or a special file.
    pub fn beneath(folder: &Path, name: &OsStr) -> Result<Destination, Failure> {
        let shown = folder.join(name);
        let place = rustix::fs::open(folder, FOLDER, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|opened| {
                let kind = kind_of(&opened, name)?;
                Ok((opened, kind))
            });
        let (opened, kind) = place.map_err(|error| Failure::of(shown.display(), error))?;
        let found = match kind {
            None => Found::Nothing,
            Some(FileType::RegularFile) => Found::File,
            Some(FileType::Directory) => Found::Folder,
            Some(kind) => {
                let what = match kind {
                    FileType::Symlink => "a symbolic link",
                    _ => "a special file",
                };
                let why = format!(
                    "it is {what} and may have come from a sandbox, and is neither followed nor replaced; remove it, or name it \
                     itself as the destination"
                );
                let why = io::Error::new(io::ErrorKind::InvalidInput, why);
                return Err(Failure::of(shown.display(), why));
            }
        };
        Ok(Destination {
            shown,
            folder: opened,
            name: name.to_owned(),
            found,
        })
    }

    /// What was there when it was found.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// As the user has named it.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The folder that it is in.
    pub fn parent(&self) -> &OwnedFd {
        &self.folder
    }

    /// Whether a folder is there with nothing in it.
    pub fn is_empty_folder(&self) -> bool {
        let flags = FOLDER | OFlags::NOFOLLOW;
        let entries = rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty())
            .and_then(rustix::fs::Dir::read_from);
        // Itself and its parent are always in it.
        entries.is_ok_and(|mut entries| entries.nth(2).is_none())
    }

    /// Whether nothing is there.
    pub fn is_new(&self) -> bool {
        matches!(self.found, Found::Nothing)
    }

    /// The folder at this place, made where nothing is.
    ///
    /// # Errors
    /// `InvalidArgument` if something else is.
    pub fn folder(self) -> Result<Root, Failure> {
        let open = || -> io::Result<OwnedFd> {
            match self.found {
                // Of the user's own mask, as `mkdir` makes it.
                Found::Nothing => match rustix::fs::mkdirat(&self.folder, &self.name, ALL_RIGHTS) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                },
                Found::Folder => {}
                Found::File | Found::Stream(_) => return Err(Errno::NOTDIR.into()),
            }
            let flags = FOLDER | OFlags::NOFOLLOW;
            Ok(rustix::fs::openat(
                &self.folder,
                &self.name,
                flags,
                Mode::empty(),
            )?)
        };
        open()
            .map(Root::from)
            .map_err(|error| Failure::of(self.shown.display(), error))
    }

    /// Gives `name` in the folder `from` this place.
    ///
    /// # Errors
    /// The kernel's, where something is there that a rename does not replace.
    pub fn take(&self, from: impl AsFd, name: impl AsRef<Path>) -> io::Result<()> {
        Ok(rustix::fs::renameat(
            from,
            name.as_ref(),
            &self.folder,
            &self.name,
        )?)
    }

    /// Fails unless a file may take this place now: there is none, or one that is replaced.
    fn check_replaceable(&self) -> io::Result<()> {
        match kind_of(&self.folder, &self.name)? {
            None | Some(FileType::RegularFile) => Ok(()),
            Some(FileType::Directory) => Err(Errno::ISDIR.into()),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "something that is no regular file has taken its place meanwhile; it was not replaced",
            )),
        }
    }
}

const ALL_RIGHTS: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// The folder and the name that a path comes to in the end.
fn follow(path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let (mut folder, mut name) = open_parent(CWD, path)?;
    for _ in 0..MOST_LINKS {
        if kind_of(&folder, &name)? != Some(FileType::Symlink) || is_of_kernel(&folder)? {
            return Ok((folder, name));
        }
        let target = rustix::fs::readlinkat(&folder, &name, Vec::new())?;
        (folder, name) = open_parent(&folder, Path::new(OsStr::from_bytes(target.to_bytes())))?;
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is a symbolic link that leads to no end; name another place, or remove the link",
    ))
}

/// What a path leads to from a folder, taken apart. What has no name, such as `..`, is `.` in itself.
fn open_parent(from: impl AsFd, path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !is_meant_as_folder(path) => (parent, name),
        _ => (path, OsStr::new(".")),
    };
    let parent = match parent.as_os_str().is_empty() {
        true if path.as_os_str().is_empty() => return Err(Errno::NOENT.into()),
        true => Path::new("."),
        false => parent,
    };
    let opened = rustix::fs::openat(from, parent, FOLDER, Mode::empty());
    Ok((opened?, name.to_owned()))
}

/// Whether a path ends in `/.`, which `file_name` does not tell.
fn is_meant_as_folder(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/.")
}

fn kind_of(folder: &OwnedFd, name: &OsStr) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether links there are the kernel's: `/dev/stdout` leads to one, and it names an open file, whatever its text says.
fn is_of_kernel(folder: &OwnedFd) -> io::Result<bool> {
    const PROC: u64 = 0x9fa0;
    Ok(u64::try_from(rustix::fs::fstatfs(folder)?.f_type) == Ok(PROC))
}

fn look(folder: &OwnedFd, name: &OsStr) -> io::Result<Found> {
    let handle = match kind_of(folder, name)? {
        None => return Ok(Found::Nothing),
        Some(FileType::RegularFile) => return Ok(Found::File),
        Some(FileType::Directory) => return Ok(Found::Folder),
        // Only the kernel's own are left.
        Some(FileType::Symlink) => rustix::fs::openat(folder, name, HANDLE, Mode::empty())?,
        Some(_) => rustix::fs::openat(folder, name, HANDLE | OFlags::NOFOLLOW, Mode::empty())?,
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) {
        FileType::Directory => Err(Errno::ISDIR.into()),
        FileType::Socket => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a socket, which is neither written to nor replaced; name another place",
        )),
        FileType::Symlink => Err(Errno::LOOP.into()),
        _ => Ok(Found::Stream(handle)),
    }
}
