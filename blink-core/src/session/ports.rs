//! A session's published ports, which one of the processes that use it publishes.

use std::path::Path;
use std::time::{Duration, Instant};

use blink_host::file_lock::{self, FileLock, Share};

use super::core::{Core, LOOK_EVERY};
use crate::error::{Error, Result};
use crate::publish::{self, Bound, PublishedPort};
use crate::sandbox::Sandbox;

const LOCK: &str = "ports.lock";

/// Who has published for a sandbox that has ended lets go of it when it hears of that.
const PATIENCE: Duration = Duration::from_secs(1);

/// The right to publish a session's ports.
#[derive(Debug)]
pub(super) struct Publisher {
    _lock: FileLock,
}

impl Publisher {
    /// `None` while another has it.
    fn try_be(folder: &Path) -> Result<Option<Publisher>> {
        let lock = file_lock::open(&folder.join(LOCK))
            .and_then(|file| FileLock::try_take(file, Share::Alone))
            .map_err(|error| Error::io("the session's ports cannot be locked", &error))?;
        Ok(lock.map(|_lock| Publisher { _lock }))
    }

    /// Keeps the right until the link to the sandbox ends.
    fn keep(self, sandbox: &Sandbox) -> Result<()> {
        let link = sandbox.link()?.clone();
        tokio::spawn(async move {
            link.ended().await;
            drop(self);
        });
        Ok(())
    }
}

/// Who publishes a session's ports.
pub(super) enum Ports {
    /// This process does, as long as it has the right to; a session without any needs none.
    Own(Vec<PublishedPort>, Option<Publisher>),
    /// Another process does, at these.
    Elsewhere(Vec<PublishedPort>),
}

impl Ports {
    /// Keeps the right while the link to the sandbox lives, and says to other processes where they are.
    pub(super) fn keep(self, folder: &Path, sandbox: &Sandbox) -> Result<()> {
        if let Ports::Own(_, Some(publisher)) = self {
            publish::record(folder, sandbox.published())?;
            publisher.keep(sandbox)?;
        }
        Ok(())
    }
}

impl Core {
    /// Who publishes what was asked for: those of a sandbox that boots are not taken yet, but for a moment.
    pub(super) async fn ports(&self, asked: &[PublishedPort], boots: bool) -> Result<Ports> {
        if asked.is_empty() || !self.is_shared {
            return Ok(Ports::Own(asked.to_vec(), None));
        }
        let folder = self.folder.path();
        let begun = Instant::now();
        loop {
            if let Some(publisher) = Publisher::try_be(folder)? {
                // Where they were, others know them.
                let known = match boots {
                    true => Vec::new(),
                    false => publish::recorded(folder)?,
                };
                let ports = match known.len() == asked.len() {
                    true => known,
                    false => asked.to_vec(),
                };
                return Ok(Ports::Own(ports, Some(publisher)));
            }
            if !boots || begun.elapsed() > PATIENCE {
                return Ok(Ports::Elsewhere(publish::recorded(folder)?));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Core {
    /// Publishes the ports of a sandbox that runs already, as who boots one does.
    pub(super) async fn publish_claimed(
        &self,
        sandbox: &mut Sandbox,
        asked: &[PublishedPort],
    ) -> Result<()> {
        let ports = self.ports(asked, true).await?;
        match &ports {
            Ports::Own(own, _) => sandbox.publish(Bound::bind(own)?)?,
            Ports::Elsewhere(elsewhere) => sandbox.publish_elsewhere(elsewhere.clone()),
        }
        ports.keep(self.folder.path(), sandbox)
    }
}

/// Publishes what another process did that is gone, at the addresses that others know.
pub(super) fn take_over(folder: &Path, sandbox: &Sandbox) -> Result<()> {
    if let Some(publisher) = Publisher::try_be(folder)? {
        sandbox.publish_too(Bound::bind(sandbox.published())?)?;
        publisher.keep(sandbox)?;
    }
    Ok(())
}
