//! Why a call failed, a panic among the reasons.

use std::panic::{AssertUnwindSafe, catch_unwind};

use blink_core::{ErrorKind, Holder, Output};

use crate::status::blink_status;

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: blink_status,
    pub(crate) message: String,
    /// 0 if no system call failed.
    pub(crate) errno: i32,
    pub(crate) retryable: bool,
    pub(crate) causes: Vec<String>,
    pub(crate) holders: Vec<Holder>,
    /// Boxed, so that results stay small.
    pub(crate) output: Option<Box<Output>>,
}

impl Failure {
    pub(crate) fn new(status: blink_status, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: message.into(),
            errno: 0,
            retryable: false,
            causes: Vec::new(),
            holders: Vec::new(),
            output: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(blink_status::InvalidArgument, message)
    }

    pub(crate) fn cancelled() -> Failure {
        Failure::new(blink_status::Cancelled, "the call was cancelled")
    }

    /// For what takes a file descriptor that cannot be had.
    pub(crate) fn descriptors(what: &str, error: std::io::Error) -> Failure {
        let message = format!(
            "no file descriptor could be made {what}: {error}; close some, or raise the limit (ulimit -n)"
        );
        Failure {
            errno: error.raw_os_error().unwrap_or_default(),
            ..Failure::new(blink_status::ResourceExhausted, message)
        }
    }

    pub(crate) fn would_block() -> Failure {
        Failure::new(blink_status::WouldBlock, "there is nothing to read now")
    }
}

impl From<blink_core::Error> for Failure {
    fn from(error: blink_core::Error) -> Failure {
        Failure {
            status: blink_status::of(error.kind()),
            message: error.message().to_owned(),
            errno: error.errno().unwrap_or_default(),
            retryable: error.is_retryable(),
            causes: error.causes().collect(),
            holders: error.holders().to_vec(),
            output: error.output().cloned().map(Box::new),
        }
    }
}

/// One that came through a byte stream keeps its kind.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<blink_core::Error>());
        match inner {
            Some(inner) => inner.clone().into(),
            None => Failure::new(blink_status::of(ErrorKind::Internal), error.to_string()),
        }
    }
}

/// Runs a body that may panic, which is a failure then.
pub(crate) fn caught<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let what = words(&*panic).to_owned();
        // Its own drop could panic.
        std::mem::forget(panic);
        Err(Failure::new(
            blink_status::Internal,
            format!("a defect in Blink stopped the call: {what}"),
        ))
    })
}

/// Runs the body of an exported function that has no way to fail; `otherwise` is its answer after a panic.
pub(crate) fn quietly<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        std::mem::forget(panic);
        otherwise
    })
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it left no words")
}
