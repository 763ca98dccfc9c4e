//! What a call gives to whoever waits for it: its progress, and then its result.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use tokio::sync::Notify;

use crate::runtime::lock;

/// What a call gives, made into a Python object where that is wanted. One that nobody wants any more is dropped unmade.
pub(crate) type Given = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>> + Send>;

/// Progress on its way to a function of Python's, which is called by the thread that waits.
pub(crate) struct Reporter {
    pub(crate) function: Py<PyAny>,
    pub(crate) latest: Arc<Latest>,
}

/// The last of some news; older ones are not worth telling.
#[derive(Default)]
pub(crate) struct Latest {
    news: Mutex<Option<Given>>,
    told: Notify,
}

impl Latest {
    pub(crate) fn tell(&self, news: Given) {
        *lock(&self.news) = Some(news);
        self.told.notify_one();
    }

    /// Until there are some.
    pub(crate) async fn news_told(&self) {
        self.told.notified().await;
    }

    fn take(&self) -> Option<Given> {
        lock(&self.news).take()
    }
}

impl Reporter {
    /// Passes the last news on, if there are any.
    pub(crate) fn report(&self, py: Python<'_>) -> PyResult<()> {
        match self.latest.take() {
            Some(news) => self.function.call1(py, (news(py)?,)).map(drop),
            None => Ok(()),
        }
    }
}
