//! What is left of a sandbox that nobody has any more.

use std::sync::Arc;
use std::time::Duration;

use crate::blocking::on_thread;
use crate::budget::Share;
use crate::engine::Machine;
use crate::error::Result;
use crate::home::SandboxFolder;

/// How long the end of a machine is waited for that was killed: what takes longer goes with the next start.
const END_WAIT: Duration = Duration::from_secs(10);

/// A sandbox that was killed, and the folder that goes with it. Dropped, it goes as far as that can be had at once.
pub(crate) struct Remains {
    machine: Arc<dyn Machine>,
    folder: Option<SandboxFolder>,
    _share: Option<Share>,
}

/// Takes what is left of a sandbox whose handle was dropped.
pub(crate) type Undertaker = Box<dyn FnOnce(Remains) + Send + Sync>;

impl Remains {
    pub(crate) fn new(
        machine: Arc<dyn Machine>,
        folder: SandboxFolder,
        share: Option<Share>,
    ) -> Remains {
        Remains {
            machine,
            folder: Some(folder),
            _share: share,
        }
    }

    /// The sandbox's.
    pub(crate) fn id(&self) -> &str {
        self.folder.as_ref().map_or("", SandboxFolder::id)
    }

    /// As [`remove`](Remains::remove), where somebody else may have.
    pub(crate) async fn remove_if_there(mut self) -> Result<()> {
        if self
            .folder
            .as_ref()
            .is_some_and(|folder| !folder.path().exists())
        {
            self.folder = None;
        }
        self.remove().await
    }

    /// Waits for its end, and removes what it has left.
    pub(crate) async fn remove(mut self) -> Result<()> {
        let _ = tokio::time::timeout(END_WAIT, self.machine.gone()).await;
        match self.folder.take() {
            Some(folder) => on_thread(move || folder.remove()).await,
            None => Ok(()),
        }
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take() {
            // What cannot be removed now, because its processes are still ending, goes with the next start.
            let _ = folder.remove();
        }
    }
}
