//! Machines that processes that are gone have left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::machine::{self, Record, SOCKET};
use crate::engine::kind::Left;
use crate::error::{Error, ErrorKind, Result};
use crate::link::LinkIo;

/// How long the kernel may take to end what was killed.
const END_WAIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A machine as it is recorded.
pub(super) struct LeftMachine {
    folder: PathBuf,
    record: Record,
}

impl LeftMachine {
    pub(super) fn new(folder: &Path, record: Record) -> LeftMachine {
        LeftMachine {
            folder: folder.to_owned(),
            record,
        }
    }
}

#[async_trait]
impl Left for LeftMachine {
    fn is_alive(&self) -> bool {
        self.record.is_alive()
    }

    fn ends_with_its_links(&self) -> bool {
        self.record.is_leased()
    }

    fn is_held_still(&self) -> bool {
        self.record.is_held_still()
    }

    fn resume(&self) {
        self.record.resume();
    }

    /// # Errors
    /// `Busy` while it is not written down that it stays, `SandboxDied` if it has ended.
    fn link(&self) -> Option<Result<LinkIo>> {
        if !self.folder.join(SOCKET).exists() {
            return None;
        }
        Some(match self.record.is_leashed() {
            true => Err(Error::new(
                ErrorKind::Busy,
                "another process starts the sandbox right now; try again when it has",
            )),
            false => machine::connect(&self.folder).and_then(machine::link_io),
        })
    }

    fn kill(&self) {
        self.record.kill();
    }

    async fn end(&self) {
        self.kill();
        let ending = async {
            while self.is_alive() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(END_WAIT, ending).await.is_err() {
            tracing::warn!(folder = %self.folder.display(), "a left-over sandbox does not end");
        }
        drop(self.record.group());
    }
}
