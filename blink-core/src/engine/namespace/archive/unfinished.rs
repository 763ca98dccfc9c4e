//! Files on their way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// A file that has no name before it is whole, so that nothing is left of it where its process ends; where the file system
/// cannot do that, one that has another name.
pub(super) enum Unfinished {
    Nameless(File),
    Named(tempfile::NamedTempFile),
}

impl Unfinished {
    pub(super) fn create(folder: &Path) -> io::Result<Unfinished> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Unfinished::Nameless(file.into())),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                named().tempfile_in(folder).map(Unfinished::Named)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn file(&mut self) -> &mut File {
        match self {
            Unfinished::Nameless(file) => file,
            Unfinished::Named(file) => file.as_file_mut(),
        }
    }

    /// Gives it its name, also where another file has that.
    pub(super) fn name(self, path: &Path, folder: &Path) -> io::Result<()> {
        let file = match self {
            Unfinished::Named(file) => return Ok(file.persist(path).map(drop)?),
            Unfinished::Nameless(file) => file,
        };
        match link(&file, path) {
            // Only a rename replaces. Between the two, a crash leaves the whole archive under the other name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let linked = named().make_in(folder, |other| link(&file, other))?;
                Ok(linked.persist(path).map(drop)?)
            }
            linked => linked,
        }
    }
}

fn named() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".blink-export-");
    builder
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(
        CWD,
        nameless,
        CWD,
        path,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}
