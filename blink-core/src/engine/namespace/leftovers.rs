//! What processes that are gone have left running.

use std::path::Path;
use std::time::Duration;

use super::machine::{self, Record, SOCKET};
use crate::error::{Error, ErrorKind, Result};
use crate::link::LinkIo;

/// How long the kernel may take to end what was killed.
const END_WAIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Deals with folders whose owner is gone. Needs nothing of the engine: it works where the engine cannot be opened.
pub(crate) struct Leftovers;

impl Leftovers {
    /// Whether the folder's machine still runs.
    pub(crate) fn is_alive(&self, folder: &Path) -> bool {
        Record::read(folder).is_some_and(|record| record.is_alive())
    }

    /// Whether it still runs, and is one that ends with its last link.
    pub(crate) fn is_overdue(&self, folder: &Path) -> bool {
        Record::read(folder).is_some_and(|record| record.is_leased() && record.is_alive())
    }

    /// Ends it now. Does not wait.
    pub(crate) fn kill(&self, folder: &Path) {
        if let Some(record) = Record::read(folder) {
            record.kill();
        }
    }

    /// Whether its agent is stopped.
    pub(crate) fn is_held_still(&self, folder: &Path) -> bool {
        Record::read(folder).is_some_and(|record| record.is_held_still())
    }

    /// Lets it go on.
    pub(crate) fn resume(&self, folder: &Path) {
        if let Some(record) = Record::read(folder) {
            record.resume();
        }
    }

    /// Opens a link to the folder's machine; `None` if that takes none but its owner's, with whom it ends.
    ///
    /// # Errors
    /// `Busy` while it is not written down that it stays, `SandboxDied` if it has ended.
    pub(crate) fn visit(&self, folder: &Path) -> Option<Result<LinkIo>> {
        if !folder.join(SOCKET).exists() {
            return None;
        }
        Some(match Record::read(folder) {
            Some(record) if record.is_leashed() => Err(Error::new(
                ErrorKind::Busy,
                "another process starts the sandbox right now; try again when it has",
            )),
            _ => machine::connect(folder).and_then(machine::link_io),
        })
    }

    /// Ends what still runs of the folder's machine.
    pub(crate) async fn end(&self, folder: &Path) {
        let Some(record) = Record::read(folder) else {
            return;
        };
        record.kill();
        let ending = async {
            while record.is_alive() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(END_WAIT, ending).await.is_err() {
            tracing::warn!(folder = %folder.display(), "a left-over sandbox does not end");
        }
        drop(record.group());
    }
}
