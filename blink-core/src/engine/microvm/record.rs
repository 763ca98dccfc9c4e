//! What is written down about a machine in its sandbox's folder, for later processes.

use std::path::Path;

use crate::engine::kind::Left;
use crate::engine::record;
use crate::engine::tree::Tree;
use crate::isolation::Isolation;

/// What later processes must know of a machine.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    /// How the engine names it.
    pub(super) machine: String,
    /// What its agent shows when it opens a link.
    pub(super) secret: String,
    /// Its process on the host, once there is one.
    pub(super) process: Option<Tree>,
}

impl Record {
    pub(crate) fn read(folder: &Path) -> Option<Record> {
        record::read_as(folder, Isolation::Microvm)
    }

    pub(super) fn write(&self, folder: &Path) -> std::io::Result<()> {
        record::write(folder, Isolation::Microvm, self)
    }
}

impl Left for Record {
    fn is_alive(&self) -> bool {
        self.process.is_some_and(Tree::is_alive)
    }

    /// BoxLite keeps a machine until it is asked to remove it.
    fn is_kept(&self) -> bool {
        true
    }

    /// Its disk goes when the engine is next opened.
    fn kill(&self) {
        if let Some(process) = self.process {
            process.kill();
        }
    }
}
