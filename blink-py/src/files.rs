//! Files of a sandbox or session.

use blink_core::{Files as CoreFiles, WriteOptions};
use pyo3::prelude::*;

use crate::arguments::{self, path};
use crate::call::Call;
use crate::failure::Failure;
use crate::file_streams::{FileReader, FileWriter};
use crate::runtime::Boxed;
use crate::target::Target;
use crate::values;

/// The files of what programs run in.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Files {
    target: Target,
    /// To whom belongs what is made, if not to the sandbox's own user.
    user: Option<String>,
}

impl Files {
    pub(crate) fn new(target: Target) -> Files {
        Files { target, user: None }
    }

    /// Does something with the files; what a guard holds is given back when that is done.
    fn with<R: Send + 'static, F: Future<Output = blink_core::Result<R>> + Send + 'static>(
        &self,
        call: impl FnOnce(CoreFiles) -> F + Send + 'static,
    ) -> PyResult<Boxed<Result<R, Failure>>> {
        self.target.check()?;
        let (target, user) = (self.target.clone(), self.user.clone());
        let call: Box<dyn FnOnce(CoreFiles) -> F + Send> = Box::new(call);
        Ok(Box::pin(async move {
            target
                .with(|sandbox| async move {
                    let mut files = sandbox.files()?;
                    if let Some(user) = user {
                        files = files.as_user(user);
                    }
                    Ok(call(files).await?)
                })
                .await
        }))
    }

    fn done<F: Future<Output = blink_core::Result<()>> + Send + 'static>(
        &self,
        call: impl FnOnce(CoreFiles) -> F + Send + 'static,
    ) -> PyResult<Call> {
        Ok(Call::of_nothing(self.with(call)?))
    }
}

fn written(mode: Option<u32>, append: bool, user: Option<String>) -> WriteOptions {
    let mut options = WriteOptions::default();
    (options.mode, options.append, options.user) = (mode, append, user);
    options
}

#[pymethods]
impl Files {
    fn as_user(&self, user: String) -> Files {
        Files {
            target: self.target.clone(),
            user: Some(user),
        }
    }

    #[pyo3(signature = (at, offset=0, length=None))]
    fn read(&self, at: &Bound<'_, PyAny>, offset: u64, length: Option<u64>) -> PyResult<Call> {
        let at = path(at)?;
        let read = self.with(move |files| async move {
            let mut bytes = Vec::new();
            files.read_part(at, offset, length, &mut bytes).await?;
            Ok(bytes)
        })?;
        Ok(Call::giving(read, |py, bytes| values::bytes(py, &bytes)))
    }

    #[pyo3(signature = (at, data, mode=None, append=false, user=None))]
    fn write(
        &self,
        at: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        mode: Option<u32>,
        append: bool,
        user: Option<String>,
    ) -> PyResult<Call> {
        let (at, data) = (path(at)?, arguments::bytes(data)?);
        let options = written(mode, append, user);
        self.done(move |files| async move {
            let mut data = std::io::Cursor::new(data);
            files.write_with(at, &mut data, &options).await.map(drop)
        })
    }

    /// Opens a file to be read bit by bit.
    #[pyo3(signature = (at, offset=0, length=None))]
    fn reader(&self, at: &Bound<'_, PyAny>, offset: u64, length: Option<u64>) -> PyResult<Call> {
        let at = path(at)?;
        let opening =
            self.with(move |files| async move { files.reader(at, offset, length).await })?;
        Ok(Call::making(
            async move { Ok(FileReader::new(opening.await?)) },
        ))
    }

    /// Opens a file to be written bit by bit.
    #[pyo3(signature = (at, mode=None, append=false, user=None))]
    fn writer(
        &self,
        at: &Bound<'_, PyAny>,
        mode: Option<u32>,
        append: bool,
        user: Option<String>,
    ) -> PyResult<Call> {
        let at = path(at)?;
        let options = written(mode, append, user);
        let opening = self.with(move |files| async move { files.writer(at, &options) })?;
        Ok(Call::making(
            async move { Ok(FileWriter::new(opening.await?)) },
        ))
    }

    fn stat(&self, at: &Bound<'_, PyAny>) -> PyResult<Call> {
        let at = path(at)?;
        let stat = self.with(move |files| async move { files.stat(at).await })?;
        Ok(Call::giving(stat, |py, metadata| {
            values::metadata(py, &metadata)
        }))
    }

    fn exists(&self, at: &Bound<'_, PyAny>) -> PyResult<Call> {
        let at = path(at)?;
        let exists = self.with(move |files| async move { files.exists(at).await })?;
        Ok(Call::giving(exists, values::boolean))
    }

    fn list(&self, at: &Bound<'_, PyAny>) -> PyResult<Call> {
        let at = path(at)?;
        let list = self.with(move |files| async move { files.list(at).await })?;
        Ok(Call::giving(list, |py, entries| {
            values::list(py, entries, values::dir_entry)
        }))
    }

    #[pyo3(signature = (at, mode=0o755))]
    fn make_dir(&self, at: &Bound<'_, PyAny>, mode: u32) -> PyResult<Call> {
        let at = path(at)?;
        self.done(move |files| async move { files.make_dir_with(at, mode).await })
    }

    #[pyo3(signature = (at, recursive=false))]
    fn remove(&self, at: &Bound<'_, PyAny>, recursive: bool) -> PyResult<Call> {
        let at = path(at)?;
        self.done(move |files| async move {
            match recursive {
                true => files.remove_all(at).await,
                false => files.remove(at).await,
            }
        })
    }

    fn rename(&self, at: &Bound<'_, PyAny>, to: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (at, to) = (path(at)?, path(to)?);
        self.done(move |files| async move { files.rename(at, to).await })
    }

    fn copy(&self, at: &Bound<'_, PyAny>, to: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (at, to) = (path(at)?, path(to)?);
        self.done(move |files| async move { files.copy(at, to).await })
    }

    fn upload(&self, from_: &Bound<'_, PyAny>, to: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (from, to) = (path(from_)?, path(to)?);
        self.done(move |files| async move { files.upload(from, to).await })
    }

    fn download(&self, from_: &Bound<'_, PyAny>, to: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (from, to) = (path(from_)?, path(to)?);
        self.done(move |files| async move { files.download(from, to).await })
    }

    fn download_into(&self, from_: &Bound<'_, PyAny>, folder: &Bound<'_, PyAny>) -> PyResult<Call> {
        let (from, folder) = (path(from_)?, path(folder)?);
        self.done(move |files| async move { files.download_into(from, folder).await })
    }
}
