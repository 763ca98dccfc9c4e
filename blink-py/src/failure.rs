//! Failures on their way to Python.

use blink_core::ErrorKind;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::values;

/// What a call failed with.
pub(crate) enum Failure {
    /// The library says so.
    Blink(blink_core::Error),
    /// The binding says so.
    Own(ErrorKind, String),
    /// Python says so.
    Python(PyErr),
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure::Own(kind, message.into())
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::InvalidArgument, message)
}

pub(crate) fn unsupported(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Unsupported, message)
}

pub(crate) fn internal(message: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Internal, message)
}

impl From<blink_core::Error> for Failure {
    fn from(error: blink_core::Error) -> Failure {
        Failure::Blink(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Failure {
        Failure::Python(error)
    }
}

/// The exception of a failure's kind.
impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        let raised = Python::attach(|py| match &failure {
            Failure::Blink(error) => {
                let output = error
                    .output()
                    .map(|output| values::output(py, output))
                    .transpose()?;
                let raised = raise(py, error.kind(), error.message(), output)?;
                // The class has the number that its kind usually means.
                if let Some(errno) = error.errno() {
                    raised.value(py).setattr("errno", errno)?;
                }
                if let Some(path) = error.path() {
                    raised.value(py).setattr("filename", path.as_os_str())?;
                }
                Ok(raised)
            }
            Failure::Own(kind, message) => raise(py, *kind, message, None),
            Failure::Python(error) => Ok(error.clone_ref(py)),
        });
        raised.unwrap_or_else(|error| error)
    }
}

fn raise(
    py: Python<'_>,
    kind: ErrorKind,
    message: &str,
    output: Option<Bound<'_, PyAny>>,
) -> PyResult<PyErr> {
    static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let classes = CLASSES.import(py, "blink.errors", "BY_KIND")?;
    let class = classes
        .get_item(kind.name())?
        .or(classes.get_item(ErrorKind::Internal.name())?)
        .ok_or_else(|| pyo3::exceptions::PyRuntimeError::new_err(message.to_owned()))?;
    let exception = class.call1((message,))?;
    exception.setattr("output", output)?;
    Ok(PyErr::from_value(exception))
}
