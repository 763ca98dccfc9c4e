//! Files on their way to their place.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{Destination, Found, stream};
use crate::failure::Failure;
use crate::id::new_id;

/// What the names of files and folders begin with that are not whole.
pub const PREFIX: &str = ".blink-export-";

impl Destination {
    /// Begins a file that takes this place when it is whole.
    ///
    /// # Errors
    /// `InvalidArgument` for a folder's place; `ResourceExhausted` if the disk has no room.
    pub fn new_file(self) -> Result<NewFile, Failure> {
        NewFile::begin(self)
    }
}

/// A file that has no name before it is whole, so that nothing is left of it where its process ends; where the file system
/// cannot do that, one that has another name. What goes to a device or a pipe is kept aside until then.
#[derive(Debug)]
pub struct NewFile {
    destination: Destination,
    file: File,
    /// Its other name, while it has one.
    temporary: Option<OsString>,
}

impl NewFile {
    pub(super) fn begin(destination: Destination) -> Result<NewFile, Failure> {
        let begun = match destination.found {
            Found::Folder => Err(Errno::ISDIR.into()),
            Found::Stream(_) => tempfile::tempfile().map(|file| (file, None)),
            Found::Nothing | Found::File => destination
                .check_replaceable()
                .and_then(|()| make(&destination.folder)),
        };
        let (file, temporary) = begun.map_err(|error| match error.raw_os_error() {
            Some(number) if number == Errno::ISDIR.raw_os_error() => Failure::of(
                format_args!(
                    "{} is a folder; name a file in it",
                    destination.shown.display()
                ),
                error,
            ),
            _ => Failure::of(destination.shown.display(), error),
        })?;
        Ok(NewFile {
            destination,
            file,
            temporary,
        })
    }

    /// What is written of it.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives it its name, even if another file has that; or sends its bytes where they belong.
    ///
    /// # Errors
    /// The kernel's. Nothing is there then that was not there before, but for what a device or a pipe has taken already.
    pub fn finish(mut self) -> io::Result<()> {
        if let Found::Stream(handle) = &self.destination.found {
            return stream::send(handle, &mut self.file);
        }
        if self.temporary.is_none() {
            match link(&self.file, &self.destination.folder, &self.destination.name) {
                // Only a rename replaces. Between the two, a crash leaves the whole file under the other name.
                Err(Errno::EXIST) => {
                    let name = temporary_name()?;
                    link(&self.file, &self.destination.folder, &name)?;
                    self.temporary = Some(name);
                }
                linked => return Ok(linked?),
            }
        }
        if let Some(name) = &self.temporary {
            self.destination.check_replaceable()?;
            self.destination.take(&self.destination.folder, name)?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl AsFd for NewFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            let _ = rustix::fs::unlinkat(&self.destination.folder, name, AtFlags::empty());
        }
    }
}

fn make(folder: &OwnedFd) -> io::Result<(File, Option<OsString>)> {
    const OWN: Mode = Mode::RUSR.union(Mode::WUSR);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, ".", flags | OFlags::TMPFILE, OWN) {
        Ok(file) => Ok((file.into(), None)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let name = temporary_name()?;
            let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(folder, &name, flags, OWN)?;
            Ok((file.into(), Some(name)))
        }
        Err(error) => Err(error.into()),
    }
}

fn temporary_name() -> io::Result<OsString> {
    let id = new_id().map_err(|failure| failure.source)?;
    Ok(format!("{PREFIX}{id}").into())
}

fn link(file: &File, folder: &OwnedFd, name: impl AsRef<Path>) -> Result<(), Errno> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(
        CWD,
        nameless,
        folder,
        name.as_ref(),
        AtFlags::SYMLINK_FOLLOW,
    )
}
