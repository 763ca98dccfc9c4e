//! The engines of a home, each opened when the first sandbox asks for it: a machine that cannot have one can still use
//! another, and what nobody asks for is not touched.

use std::path::Path;
use std::sync::Arc;

use once_cell::sync::OnceCell;

#[cfg(feature = "microvm")]
use super::microvm::{self, MicrovmEngine};
use super::namespace::{Leftovers, NamespaceEngine};
use super::{Engine, Machine};
#[cfg(feature = "microvm")]
use crate::blocking::on_thread;
use crate::error::{Error, ErrorKind, Result};
use crate::home::Home;
use crate::isolation::{Isolation, IsolationChoice};
use crate::link::LinkIo;

/// The engines of one home.
pub(crate) struct Engines {
    home: Home,
    namespace: OnceCell<Arc<NamespaceEngine>>,
    #[cfg(feature = "microvm")]
    microvm: tokio::sync::OnceCell<Arc<MicrovmEngine>>,
}

impl Engines {
    pub(crate) fn new(home: Home) -> Engines {
        Engines {
            home,
            namespace: OnceCell::new(),
            #[cfg(feature = "microvm")]
            microvm: tokio::sync::OnceCell::new(),
        }
    }

    /// The isolation that a choice comes to on this machine. Opens no engine.
    ///
    /// # Errors
    /// `IsolationUnavailable` with the reason, and the words that ask for less.
    pub(crate) async fn choose(&self, choice: IsolationChoice) -> Result<Isolation> {
        if choice == IsolationChoice::Namespace {
            return Ok(Isolation::Namespace);
        }
        match (self.try_microvms().await?, choice) {
            (Ok(()), _) => Ok(Isolation::Microvm),
            (Err(reason), IsolationChoice::Auto) => {
                tracing::info!(reason, "taking namespaces");
                Ok(Isolation::Namespace)
            }
            (Err(reason), _) => {
                tracing::info!(reason, "no micro-VMs");
                Err(Error::new(
                    ErrorKind::IsolationUnavailable,
                    "micro-VMs cannot run here; to accept namespaces, which share the host's kernel, give --isolation auto, or set \
                     BLINK_ISOLATION=auto ('blink doctor' says why)",
                ))
            }
        }
    }

    /// Opens the engine of an isolation.
    pub(crate) async fn open(&self, isolation: Isolation) -> Result<Arc<dyn Engine>> {
        match isolation {
            Isolation::Namespace => Ok(self.namespace()?),
            Isolation::Microvm => self.microvm().await,
        }
    }

    /// Takes over the machine of a sandbox that an earlier process has made, if it runs.
    pub(crate) async fn adopt(
        &self,
        folder: &Path,
        disk: &Path,
    ) -> Result<Option<(Box<dyn Machine>, Isolation)>> {
        let isolation = isolation_of(folder);
        let engine = self.open(isolation).await?;
        let adopted = engine.adopt(folder, disk).await?;
        if adopted.is_none() {
            engine.discard(folder).await?;
        }
        Ok(adopted.map(|machine| (machine, isolation)))
    }

    #[cfg(feature = "microvm")]
    async fn try_microvms(&self) -> Result<std::result::Result<(), String>> {
        let home = self.home.path().to_owned();
        on_thread(move || Ok(crate::hypervisor::usable(&home))).await
    }

    #[cfg(not(feature = "microvm"))]
    #[expect(clippy::unused_async, reason = "the same as with the feature")]
    async fn try_microvms(&self) -> Result<std::result::Result<(), String>> {
        Ok(Err(
            "this Blink was built without its feature microvm".into()
        ))
    }

    #[cfg(feature = "microvm")]
    async fn microvm(&self) -> Result<Arc<dyn Engine>> {
        let opening = || async { MicrovmEngine::open(&self.home).await.map(Arc::new) };
        Ok(self.microvm.get_or_try_init(opening).await?.clone())
    }

    #[cfg(not(feature = "microvm"))]
    async fn microvm(&self) -> Result<Arc<dyn Engine>> {
        let isolation = self.choose(IsolationChoice::Microvm).await?;
        Err(Error::new(
            ErrorKind::Internal,
            format!("{isolation} has no engine"),
        ))
    }

    fn namespace(&self) -> Result<Arc<NamespaceEngine>> {
        self.namespace
            .get_or_try_init(|| NamespaceEngine::open(&self.home).map(Arc::new))
            .cloned()
    }
}

/// The isolation of the machine in a folder. Opens no engine.
pub(crate) fn isolation_of(folder: &Path) -> Isolation {
    #[cfg(feature = "microvm")]
    if microvm::Record::read(folder).is_some() {
        return Isolation::Microvm;
    }
    let _ = folder;
    Isolation::Namespace
}

/// Whether the machine of a sandbox whose owner is gone still runs. Opens no engine.
pub(crate) fn is_alive(folder: &Path) -> bool {
    #[cfg(feature = "microvm")]
    if let Some(record) = microvm::Record::read(folder) {
        return record.is_alive();
    }
    Leftovers.is_alive(folder)
}

/// Whether the machine of a sandbox that nobody uses any more is to end, and has not. Opens no engine.
pub(crate) fn is_overdue(folder: &Path) -> bool {
    #[cfg(feature = "microvm")]
    if microvm::Record::read(folder).is_some() {
        return false;
    }
    Leftovers.is_overdue(folder)
}

/// Lets a machine go on that somebody holds still, who is gone. Opens no engine.
pub(crate) fn resume(folder: &Path) {
    Leftovers.resume(folder);
}

/// Whether a machine is held still. Opens no engine.
pub(crate) fn is_held_still(folder: &Path) -> bool {
    Leftovers.is_held_still(folder)
}

/// Ends a machine that ends with its last user, now. Does not wait, and opens no engine.
pub(crate) fn kill_overdue(folder: &Path) {
    if is_overdue(folder) {
        Leftovers.kill(folder);
    }
}

/// Whether an engine keeps something for a machine that has ended with its owner.
pub(crate) fn is_recorded(folder: &Path) -> bool {
    #[cfg(feature = "microvm")]
    if microvm::Record::read(folder).is_some() {
        return true;
    }
    let _ = folder;
    false
}

/// Opens a link to a machine beside its owner; `None` if only the owner can have one. Opens no engine.
pub(crate) fn visit(folder: &Path, isolation: Isolation) -> Option<Result<LinkIo>> {
    match isolation {
        Isolation::Namespace => Leftovers.visit(folder),
        Isolation::Microvm => None,
    }
}

/// Removes what engines have derived from images that are gone; says how many bytes that has freed. Opens no engine.
#[cfg(feature = "microvm")]
pub(crate) fn prune_derived(home: &Path) -> std::io::Result<u64> {
    microvm::derived::prune(home)
}

/// There is nothing of the kind.
#[cfg(not(feature = "microvm"))]
pub(crate) fn prune_derived(_home: &Path) -> std::io::Result<u64> {
    Ok(0)
}

/// Ends what still runs of a sandbox whose owner is gone. Opens no engine; what only an engine can remove, it removes
/// when it is next opened.
pub(crate) async fn end(folder: &Path) {
    #[cfg(feature = "microvm")]
    if let Some(record) = microvm::Record::read(folder) {
        record.kill();
        return;
    }
    Leftovers.end(folder).await;
}
