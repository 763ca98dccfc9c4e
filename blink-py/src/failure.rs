//! Failures on their way to Python.

use std::error::Error;

use blink_core::ErrorKind;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

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

/// The failure of a call that panicked.
pub(crate) fn lost() -> Failure {
    internal("a call ended without a result; this is a defect in Blink")
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
                let value = raised.value(py);
                value.setattr("retryable", error.is_retryable())?;
                value.setattr("holders", holders(py, error)?)?;
                raised.set_cause(py, error.source().map(|cause| exception_of(py, cause)));
                Ok(raised)
            }
            Failure::Own(kind, message) => raise(py, *kind, message, None),
            Failure::Python(error) => Ok(error.clone_ref(py)),
        });
        raised.unwrap_or_else(|error| error)
    }
}

/// What caused a failure, with what caused that: an `OSError` where a system call failed.
fn exception_of(py: Python<'_>, cause: &(dyn Error + 'static)) -> PyErr {
    let text = blink_core::terminal::escape_text(&cause.to_string()).into_owned();
    let errno = cause
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::raw_os_error);
    let exception = match errno {
        // Python has the text of each number itself.
        Some(errno) => match os_error(py, errno) {
            Ok(exception) => exception,
            Err(_) => PyOSError::new_err((errno, text)),
        },
        None => PyRuntimeError::new_err(text),
    };
    exception.set_cause(py, cause.source().map(|cause| exception_of(py, cause)));
    exception
}

fn os_error(py: Python<'_>, errno: i32) -> PyResult<PyErr> {
    let text = py.import("os")?.call_method1("strerror", (errno,))?;
    Ok(PyOSError::new_err((errno, text.unbind())))
}

fn holders<'py>(py: Python<'py>, error: &blink_core::Error) -> PyResult<Bound<'py, PyTuple>> {
    static HOLDER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = HOLDER.import(py, "blink.errors", "Holder")?;
    let holders = error.holders().iter();
    let holders = holders.map(|holder| class.call1((holder.pid, holder.command.as_deref())));
    PyTuple::new(py, holders.collect::<PyResult<Vec<_>>>()?)
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
        .ok_or_else(|| PyRuntimeError::new_err(message.to_owned()))?;
    let exception = class.call1((message,))?;
    exception.setattr("output", output)?;
    Ok(PyErr::from_value(exception))
}
