//! Sessions.

use std::sync::Arc;

use blink_core::{
    CheckpointOptions, Declined, ExportOptions, Session as CoreSession, TransferProgress,
};
use pyo3::prelude::*;

use crate::arguments::{self, path};
use crate::call::Call;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::given::Latest;
use crate::runtime::{Boxed, to_its_end};
use crate::slot::{Guard, Slot};
use crate::target::Target;
use crate::values;

/// A session, open in this process.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Session {
    slot: Slot<CoreSession>,
    #[pyo3(get)]
    id: String,
    #[pyo3(get)]
    was_created: bool,
    declined: Vec<Declined>,
}

impl Session {
    pub(crate) fn new(session: CoreSession) -> Session {
        Session {
            id: session.id().to_owned(),
            was_created: session.was_created(),
            declined: session.declined().to_vec(),
            slot: Slot::new("session", session, end),
        }
    }

    /// Does something that is not left half done.
    fn to_its_end<R: Send + 'static, F: Future<Output = blink_core::Result<R>> + Send + 'static>(
        &self,
        call: impl FnOnce(Guard<CoreSession>) -> F + Send + 'static,
    ) -> PyResult<Boxed<Result<R, Failure>>> {
        self.slot.check()?;
        let slot = self.slot.clone();
        let call: Box<dyn FnOnce(Guard<CoreSession>) -> F + Send> = Box::new(call);
        Ok(Box::pin(to_its_end(async move {
            let session = slot.guard().await?;
            Ok(call(session).await?)
        })))
    }

    fn done<F: Future<Output = blink_core::Result<()>> + Send + 'static>(
        &self,
        call: impl FnOnce(Guard<CoreSession>) -> F + Send + 'static,
    ) -> PyResult<Call> {
        Ok(Call::of_nothing(self.to_its_end(call)?))
    }
}

/// A sandbox that is not to go on, for this process or another, has its disk written first.
fn end(session: CoreSession) -> Boxed<Result<(), Failure>> {
    Box::pin(async move { Ok(session.close().await?) })
}

/// What of a session is exported, and where its progress can be heard.
fn exported(checkpoint: Option<String>) -> (ExportOptions, Arc<Latest>) {
    let latest = Arc::<Latest>::default();
    let mut options = ExportOptions::default().progress(transferred(latest.clone()));
    options.checkpoint = checkpoint;
    (options, latest)
}

/// Tells how far an export or an import is.
pub(crate) fn transferred(
    latest: Arc<Latest>,
) -> impl Fn(TransferProgress) + Send + Sync + 'static {
    move |progress| latest.tell(Box::new(move |py| values::transfer(py, progress)))
}

#[pymethods]
impl Session {
    #[getter]
    fn closed(&self) -> bool {
        self.slot.is_closed()
    }

    #[getter]
    fn declined<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        values::list(py, &self.declined, values::declined)
    }

    fn environment(&self) -> Environment {
        Environment(Target::Session(self.slot.clone()))
    }

    fn info(&self) -> PyResult<Call> {
        self.slot.check()?;
        let slot = self.slot.clone();
        let looking = async move {
            slot.with(|session| async move { Ok(session.info().await) })
                .await
        };
        Ok(Call::giving(looking, values::session_info))
    }

    fn start(&self) -> PyResult<Call> {
        self.done(|session| async move { session.start().await })
    }

    fn stop(&self) -> PyResult<Call> {
        self.done(|session| async move { session.stop().await })
    }

    fn rename(&self, name: String) -> PyResult<Call> {
        self.done(|session| async move { session.rename(name).await })
    }

    #[pyo3(signature = (name, require_frozen=false))]
    fn checkpoint(&self, name: String, require_frozen: bool) -> PyResult<Call> {
        let mut options = CheckpointOptions::default();
        options.require_frozen = require_frozen;
        let making =
            self.to_its_end(
                move |session| async move { session.checkpoint_with(name, options).await },
            )?;
        Ok(Call::giving(making, values::checkpoint))
    }

    fn checkpoints(&self) -> PyResult<Call> {
        let listing = self.to_its_end(|session| async move { session.checkpoints().await })?;
        Ok(Call::giving(listing, |py, checkpoints| {
            values::list(py, checkpoints, values::checkpoint)
        }))
    }

    fn lineage(&self) -> PyResult<Call> {
        let looking = self.to_its_end(|session| async move { session.lineage().await })?;
        Ok(Call::giving(looking, values::lineage))
    }

    fn restore(&self, checkpoint: String) -> PyResult<Call> {
        self.done(move |session| async move { session.restore(&checkpoint).await })
    }

    fn remove_checkpoint(&self, checkpoint: String) -> PyResult<Call> {
        self.done(move |session| async move { session.remove_checkpoint(&checkpoint).await })
    }

    #[pyo3(signature = (name, checkpoint=None))]
    fn fork(&self, name: String, checkpoint: Option<String>) -> PyResult<Call> {
        Ok(Call::making(self.to_its_end(
            move |session| async move {
                let fork = match checkpoint {
                    None => session.fork(name).await,
                    Some(checkpoint) => session.fork_from(&checkpoint, name).await,
                };
                fork.map(Session::new)
            },
        )?))
    }

    fn fork_many(&self, names: Vec<String>) -> PyResult<Call> {
        let forking = self.to_its_end(|session| async move {
            let forks = session.fork_many(names).await?.into_iter();
            Ok(forks.map(Session::new).collect::<Vec<_>>())
        })?;
        Ok(Call::giving(forking, |py, forks| {
            values::list(py, forks, |py, fork| {
                Bound::new(py, fork).map(Bound::into_any)
            })
        }))
    }

    #[pyo3(signature = (archive, checkpoint=None, progress=None))]
    fn export(
        &self,
        archive: &Bound<'_, PyAny>,
        checkpoint: Option<String>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Call> {
        let archive = path(archive)?;
        let (options, latest) = exported(checkpoint);
        let exporting =
            self.done(move |session| async move { session.export_with(archive, options).await })?;
        Ok(exporting.reporting(progress, latest))
    }

    #[pyo3(signature = (path, checkpoint=None, progress=None))]
    fn export_oci(
        &self,
        path: &Bound<'_, PyAny>,
        checkpoint: Option<String>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Call> {
        let image = arguments::path(path)?;
        let (options, latest) = exported(checkpoint);
        let exporting =
            self.done(move |session| async move { session.export_oci_with(image, options).await })?;
        Ok(exporting.reporting(progress, latest))
    }

    #[pyo3(signature = (force=false))]
    fn remove(&self, force: bool) -> Call {
        let slot = self.slot.clone();
        Call::of_nothing(to_its_end(async move {
            slot.close_with(move |session| async move {
                match force {
                    true => session.remove_by_force().await?,
                    false => session.remove().await?,
                }
                Ok(())
            })
            .await
        }))
    }

    fn close(&self) -> Call {
        Call::of_nothing(to_its_end(self.slot.clone().close()))
    }
}
