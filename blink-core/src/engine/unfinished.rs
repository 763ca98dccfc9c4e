//! Archives on their way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fault::{self, Step};

/// An archive that has no name before it is whole, so that nothing is left of it where its process ends; where the file
/// system cannot do that, one that has another name.
pub(crate) struct Unfinished<'a> {
    path: &'a Path,
    form: Form,
}

enum Form {
    Nameless(File),
    Named(tempfile::NamedTempFile),
}

impl<'a> Unfinished<'a> {
    /// # Errors
    /// `InvalidArgument` where it would take a folder's name.
    pub(crate) fn create(path: &'a Path) -> Result<Unfinished<'a>> {
        if path.is_dir() {
            return Err(Error::invalid(format!(
                "{} is a folder; name a file in it",
                path.display()
            )));
        }
        let form = fault::before(Step::Export)
            .and_then(|()| Form::create(folder_of(path)))
            .map_err(|error| not_written(path, &error))?;
        Ok(Unfinished { path, form })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        match &mut self.form {
            Form::Nameless(file) => file,
            Form::Named(file) => file.as_file_mut(),
        }
    }

    /// Gives it its name, also where another file has that.
    pub(crate) fn finish(mut self) -> Result<()> {
        let path = self.path;
        let finished = fault::before(Step::ExportWritten)
            .and_then(|()| self.file().sync_all())
            .and_then(|()| fault::before(Step::ExportSynced))
            .and_then(|()| self.form.name(path));
        finished.map_err(|error| not_written(path, &error))?;
        fault::after(Step::Exported);
        Ok(())
    }
}

impl Form {
    fn create(folder: &Path) -> io::Result<Form> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Form::Nameless(file.into())),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                named().tempfile_in(folder).map(Form::Named)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn name(self, path: &Path) -> io::Result<()> {
        let file = match self {
            Form::Named(file) => return Ok(file.persist(path).map(drop)?),
            Form::Nameless(file) => file,
        };
        match link(&file, path) {
            // Only a rename replaces. Between the two, a crash leaves the whole archive under the other name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let linked = named().make_in(folder_of(path), |other| link(&file, other))?;
                Ok(linked.persist(path).map(drop)?)
            }
            linked => linked,
        }
    }
}

/// Why there is no archive.
pub(crate) fn not_written(path: &Path, error: &io::Error) -> Error {
    let what = format!("the archive {} could not be written", path.display());
    Error::io(what, error)
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
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
