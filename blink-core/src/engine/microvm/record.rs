//! What is written down about a machine in its sandbox's folder, for later processes.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::engine::tree::Tree;

const RECORD: &str = "microvm.json";

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
        serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()
    }

    pub(super) fn write(&self, folder: &Path) -> std::io::Result<()> {
        let new = folder.join(format!("{RECORD}.new"));
        let mut file = crate::private::create_file(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(new, folder.join(RECORD))
    }

    /// Whether the machine still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.process.is_some_and(Tree::is_alive)
    }

    /// Ends what runs of the machine. Its disk goes when the engine is next opened.
    pub(crate) fn kill(&self) {
        if let Some(process) = self.process {
            process.kill();
        }
    }
}

/// There is no machine any more.
pub(super) fn remove(folder: &Path) {
    let _ = fs::remove_file(folder.join(RECORD));
}
