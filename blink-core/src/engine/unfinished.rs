//! Archives on their way.

use std::fs::File;
use std::io;
use std::path::Path;

use blink_host::destination::Destination;
use blink_host::destination::file::NewFile;
use blink_host::fault::{self, Step};

use crate::error::{Error, Result};

/// An archive that is there whole or not at all.
pub(crate) struct Unfinished<'a> {
    path: &'a Path,
    file: NewFile,
}

impl<'a> Unfinished<'a> {
    /// # Errors
    /// As for [`Destination::named`] and [`Destination::new_file`].
    pub(crate) fn create(path: &'a Path) -> Result<Unfinished<'a>> {
        let destination = Destination::named(path)?;
        fault::before(Step::Export).map_err(|error| not_written(path, &error))?;
        let file = destination.new_file()?;
        Ok(Unfinished { path, file })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        self.file.file()
    }

    /// Gives it its name, even if another file has that.
    pub(crate) fn finish(mut self) -> Result<()> {
        let path = self.path;
        let finished = fault::before(Step::ExportWritten)
            .and_then(|()| self.file().sync_all())
            .and_then(|()| fault::before(Step::ExportSynced))
            .and_then(|()| self.file.finish());
        finished.map_err(|error| not_written(path, &error))?;
        fault::after(Step::Exported);
        Ok(())
    }
}

/// Why there is no archive.
pub(crate) fn not_written(path: &Path, error: &io::Error) -> Error {
    let what = format!("the archive {} could not be written", path.display());
    Error::io(what, error)
}
