//! What sandboxes and sessions can do alike.

use blink_core::{Command, Isolation, Process as CoreProcess};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arguments;
use crate::call::Call;
use crate::connection;
use crate::failure::Failure;
use crate::files::Files;
use crate::process::Process;
use crate::target::Target;
use crate::values;

/// The running side of a sandbox or session.
#[pyclass(frozen, module = "blink._blink")]
pub(crate) struct Environment(pub(crate) Target);

impl Environment {
    fn run(&self, command: Command) -> PyResult<Call> {
        self.0.check()?;
        let target = self.0.clone();
        let running = async move { target.exec(command).await };
        Ok(Call::giving(running, |py, output| {
            values::output(py, &output)
        }))
    }

    fn start(&self, command: Command) -> PyResult<Call> {
        self.0.check()?;
        let target = self.0.clone();
        Ok(spawned(async move { target.spawn(command).await }))
    }
}

/// A call that gives a process.
pub(crate) fn spawned(
    spawning: impl Future<Output = Result<(CoreProcess, Isolation), Failure>> + Send + 'static,
) -> Call {
    Call::making(async move {
        let (process, isolation) = spawning.await?;
        Ok(Process::new(process, isolation))
    })
}

#[pymethods]
impl Environment {
    fn exec(&self, argv: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        let command = arguments::command(argv, options)?;
        arguments::all_known("exec", options)?;
        self.run(command)
    }

    fn run_code(&self, code: &str, language: &str, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        let command = arguments::code(code, language, options)?;
        arguments::all_known("run_code", options)?;
        self.run(command)
    }

    fn spawn(&self, argv: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Call> {
        let command = arguments::command(argv, options)?;
        arguments::all_known("spawn", options)?;
        self.start(command)
    }

    #[pyo3(signature = (id, stdout_offset=0, stderr_offset=0))]
    fn process(&self, id: u64, stdout_offset: u64, stderr_offset: u64) -> PyResult<Call> {
        self.0.check()?;
        let target = self.0.clone();
        Ok(spawned(async move {
            target
                .with(|sandbox| async move {
                    let process = sandbox.process(id, stdout_offset, stderr_offset).await?;
                    Ok((process, sandbox.isolation()))
                })
                .await
        }))
    }

    fn processes(&self) -> PyResult<Call> {
        self.0.check()?;
        let target = self.0.clone();
        let listing = async move {
            target
                .with(|sandbox| async move { Ok(sandbox.processes().await?) })
                .await
        };
        Ok(Call::giving(listing, |py, processes| {
            values::list(py, processes, values::process_info)
        }))
    }

    fn files(&self) -> Files {
        Files::new(self.0.clone())
    }

    fn connect_tcp(&self, host: String, port: u16) -> PyResult<Call> {
        self.0.check()?;
        let target = self.0.clone();
        Ok(connection::opened(async move {
            target
                .with(|sandbox| async move { Ok(sandbox.connect_tcp(&host, port).await?) })
                .await
        }))
    }

    fn connect_unix(&self, path: &Bound<'_, PyAny>) -> PyResult<Call> {
        let path = arguments::path(path)?;
        self.0.check()?;
        let target = self.0.clone();
        Ok(connection::opened(async move {
            target
                .with(|sandbox| async move { Ok(sandbox.connect_unix(path).await?) })
                .await
        }))
    }

    /// Its published ports, with those that the host really has.
    fn published(&self) -> PyResult<Call> {
        self.0.check()?;
        let target = self.0.clone();
        let looking = async move {
            target
                .with(|sandbox| async move { Ok(sandbox.published().to_vec()) })
                .await
        };
        Ok(Call::giving(looking, |py, ports| {
            values::list(py, ports, values::published_port)
        }))
    }

    /// The version of its guest agent.
    fn agent(&self) -> PyResult<Call> {
        self.0.check()?;
        let target = self.0.clone();
        let looking = async move {
            target
                .with(|sandbox| async move { Ok(sandbox.agent().map(str::to_owned)) })
                .await
        };
        Ok(Call::giving(looking, |py, agent| {
            values::text(py, agent.unwrap_or_default())
        }))
    }

    fn ping(&self) -> PyResult<Call> {
        self.0.check()?;
        let target = self.0.clone();
        Ok(Call::of_nothing(async move {
            target
                .with(|sandbox| async move { Ok(sandbox.ping().await?) })
                .await
        }))
    }
}
