//! Kinds of engines, and what each of them can do. Generic code asks for a capability, not for an engine by its name.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::engine::Engine;
use crate::error::Result;
use crate::home::Home;
use crate::isolation::Isolation;
use crate::link::LinkIo;

/// What an engine's machines can do. Without a word for it, they cannot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Several processes of the host can have links to a machine at once; one that is shared ends with its last link.
    pub(crate) shares_machines: bool,
    /// What programs have written is on the disk, whenever their machine ends and whether it was frozen or not.
    pub(crate) writes_through: bool,
    /// With the host's network, programs reach what the host listens at, which includes their own published ports.
    pub(crate) shares_network: bool,
    /// It isolates programs, so that whoever asks for the strongest isolation may be given it.
    pub(crate) isolates: bool,
}

/// What a sandbox is given for which nothing was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    pub(crate) cpus: f64,
    pub(crate) memory_mib: u64,
}

/// A kind of engine: what there is to know of it before one is opened.
#[async_trait]
pub(crate) trait Kind: Send + Sync {
    /// The isolation that its sandboxes have, whose name is in records.
    fn isolation(&self) -> Isolation;

    fn capabilities(&self) -> Capabilities;

    fn default_share(&self) -> Share;

    /// Tries whether it can run sandboxes on this host. The inner error says why not.
    async fn probe(&self, _home: &Home) -> Result<std::result::Result<(), String>> {
        Ok(Ok(()))
    }

    /// What an error says, where it cannot, and how to accept another.
    fn unavailable(&self) -> String {
        format!(
            "{} cannot run here ('blink doctor' says why)",
            self.isolation()
        )
    }

    /// Opens the engine in a home.
    async fn open(&self, home: &Home) -> Result<Arc<dyn Engine>>;

    /// What is left of a machine whose process may be gone, from its record. `None` for a record that makes no sense.
    fn left(&self, folder: &Path, record: Value) -> Option<Box<dyn Left>>;

    /// Removes what was derived from images that are gone; returns how many bytes that has freed.
    fn prune(&self, _home: &Path) -> io::Result<u64> {
        Ok(0)
    }
}

/// A machine whose process may be gone, as it is recorded in its sandbox's folder. It needs no engine: it works where that
/// cannot be opened.
#[async_trait]
pub(crate) trait Left: Send + Sync {
    fn is_alive(&self) -> bool;

    /// Whether it is to end with its last link.
    fn ends_with_its_links(&self) -> bool {
        false
    }

    /// Whether it has been stopped, as for a copy of its disk.
    fn is_held_still(&self) -> bool {
        false
    }

    /// Lets it go on.
    fn resume(&self) {}

    /// Whether its engine keeps something for it that only [`Engine::discard`] removes.
    fn is_kept(&self) -> bool {
        false
    }

    /// Opens a link to it, beside its owner's; `None` if only the owner can have one.
    fn link(&self) -> Option<Result<LinkIo>> {
        None
    }

    /// Ends it. Does not wait.
    fn kill(&self);

    /// Ends it, and waits a while for its end.
    async fn end(&self) {
        self.kill();
    }
}
