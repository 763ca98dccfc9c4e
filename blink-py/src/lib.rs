//! The Python extension `blink._blink`, beneath the package `blink`.
//!
//! It holds no logic: arguments become the library's, calls become waits or asyncio futures, and what they give becomes
//! the package's value classes.

mod arguments;
mod blink;
mod call;
mod connection;
mod environment;
mod failure;
mod file_streams;
mod files;
mod given;
mod mailbox;
mod pool;
mod process;
mod runtime;
mod sandbox;
mod session;
mod session_processes;
mod slot;
mod target;
mod values;

use pyo3::prelude::*;

/// Closes what is open; registered with `atexit`.
#[pyfunction]
fn farewell(py: Python<'_>) {
    py.detach(runtime::farewell);
}

/// What the package `blink` is made over.
#[pymodule]
mod _blink {
    #[pymodule_export]
    use super::farewell;
    #[pymodule_export]
    use crate::blink::Blink;
    #[pymodule_export]
    use crate::call::Call;
    #[pymodule_export]
    use crate::connection::Connection;
    #[pymodule_export]
    use crate::environment::Environment;
    #[pymodule_export]
    use crate::file_streams::{FileReader, FileWriter};
    #[pymodule_export]
    use crate::files::Files;
    #[pymodule_export]
    use crate::mailbox::Mailbox;
    #[pymodule_export]
    use crate::pool::Pool;
    #[pymodule_export]
    use crate::process::{InputStream, OutputStream, Process};
    #[pymodule_export]
    use crate::sandbox::Sandbox;
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::session_processes::SessionProcesses;

    /// The package's version.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
