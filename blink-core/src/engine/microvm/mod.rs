//! Sandboxes in micro-VMs, made by BoxLite: each has a kernel of its own, behind the processor's virtualisation.
//!
//! BoxLite boots, stops and copies the machines. Everything else goes through Blink's agent, which is the machine's
//! first program, over a socket of the hypervisor's that the agent dials: `docs/adr/0004-microvm-engine.md` says why.

mod console;
mod failure;
mod host_image;
mod link;
mod machine;
mod options;
mod owner;
mod record;
mod runtime;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{Engine, Machine, MachineSpec, RootForm};
use crate::error::{Error, ErrorKind, Result};
use crate::guest_binary;
use crate::home::Home;
use machine::MicrovmMachine;
pub(crate) use record::Record;
use runtime::Runtime;

/// The engine, opened once.
pub(crate) struct MicrovmEngine {
    runtime: Arc<Runtime>,
    home: Home,
    /// The folder with the guest agent.
    agent: PathBuf,
}

impl MicrovmEngine {
    /// Opens the engine; waits a while for another process that has it.
    ///
    /// # Errors
    /// `Busy` with that process; `IsolationUnavailable` where the parts that it needs are missing.
    pub(crate) async fn open(home: &Home) -> Result<MicrovmEngine> {
        let agent = guest_binary::install(home.path()).map_err(|error| {
            Error::io("the guest agent could not be put into Blink's home", &error)
        })?;
        let runtime = Runtime::open(home).await?;
        Ok(MicrovmEngine {
            runtime,
            home: home.clone(),
            agent: agent.parent().unwrap_or(&agent).to_owned(),
        })
    }
}

#[async_trait]
impl Engine for MicrovmEngine {
    fn root_form(&self) -> RootForm {
        RootForm::Layout
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>> {
        let (root, shown) = match &spec.rootfs {
            Some(layout) => (layout.clone(), Vec::new()),
            None => {
                let home = self.home.clone();
                let made = tokio::task::spawn_blocking(move || host_image::prepare(&home)).await;
                made.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))??
            }
        };
        let secret = link::new_secret()?;
        let mounts = options::Mounts {
            agent: &self.agent,
            shown: &shown,
        };
        let options = options::describe(spec, &root, &mounts, &secret)?;
        let machine = MicrovmMachine::boot(&self.runtime, spec, options, secret).await?;
        Ok(Box::new(machine))
    }

    async fn adopt(&self, folder: &Path) -> Result<Option<Box<dyn Machine>>> {
        let adopted = MicrovmMachine::adopt(&self.runtime, folder).await?;
        Ok(adopted.map(|machine| Box::new(machine) as Box<dyn Machine>))
    }

    async fn discard(&self, folder: &Path) -> Result<()> {
        match Record::read(folder) {
            Some(record) => self.runtime.remove(&record.machine).await,
            None => Ok(()),
        }
    }
}
