//! The engines that there are, and those of a home that are open: each is opened when the first sandbox asks for it, so that
//! a host that cannot have one can still use another.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::kind::{Capabilities, Kind, Left, Share};
#[cfg(feature = "microvm")]
use super::microvm;
#[cfg(any(test, feature = "scripted"))]
use super::scripted;
use super::{Engine, Machine, namespace, record};
use crate::error::{Error, ErrorKind, Result};
use crate::home::Home;
use crate::isolation::{Isolation, IsolationChoice};
use crate::link::LinkIo;

/// All kinds of engines, the strongest isolation first. Nothing else lists them.
static KINDS: &[&dyn Kind] = &[
    #[cfg(feature = "microvm")]
    &microvm::Microvm,
    &namespace::Namespace,
    #[cfg(any(test, feature = "scripted"))]
    &scripted::Scripted,
];

fn kind(isolation: Isolation) -> Option<&'static dyn Kind> {
    let mut kinds = KINDS.iter().copied();
    kinds.find(|kind| kind.isolation() == isolation)
}

/// The engines of one home.
pub(crate) struct Engines {
    home: Home,
    /// One for each of the kinds.
    opened: Vec<OnceCell<Arc<dyn Engine>>>,
}

impl Engines {
    pub(crate) fn new(home: Home) -> Engines {
        let opened = KINDS.iter().map(|_| OnceCell::new()).collect();
        Engines { home, opened }
    }

    /// The isolation that a choice comes to on this host. Opens no engine.
    ///
    /// # Errors
    /// `IsolationUnavailable` with the reason, and the words that ask for less.
    pub(crate) async fn choose(&self, choice: IsolationChoice) -> Result<Isolation> {
        if let Some(isolation) = choice.only() {
            let kind = kind(isolation).ok_or_else(|| not_built(isolation))?;
            return match kind.probe(&self.home).await? {
                Ok(()) => Ok(isolation),
                Err(reason) => {
                    tracing::info!(reason, %isolation, "an isolation is not available");
                    let message = kind.unavailable();
                    Err(Error::new(ErrorKind::IsolationUnavailable, message))
                }
            };
        }
        for kind in KINDS.iter().filter(|kind| kind.capabilities().isolates) {
            match kind.probe(&self.home).await? {
                Ok(()) => return Ok(kind.isolation()),
                Err(reason) => {
                    tracing::info!(reason, isolation = %kind.isolation(), "taking the next isolation");
                }
            }
        }
        Err(Error::new(
            ErrorKind::IsolationUnavailable,
            "no isolation works here; 'blink doctor' says why",
        ))
    }

    /// Opens the engine of an isolation.
    pub(crate) async fn open(&self, isolation: Isolation) -> Result<Arc<dyn Engine>> {
        let mut engines = KINDS.iter().zip(&self.opened);
        let (kind, opened) = engines
            .find(|(kind, _)| kind.isolation() == isolation)
            .ok_or_else(|| not_built(isolation))?;
        let opening = || kind.open(&self.home);
        Ok(opened.get_or_try_init(opening).await?.clone())
    }

    /// Takes over the machine of a sandbox that an earlier process has made, if it runs.
    pub(crate) async fn adopt(
        &self,
        folder: &Path,
        disk: &Path,
    ) -> Result<Option<(Box<dyn Machine>, Isolation)>> {
        let Some(isolation) = isolation_of(folder) else {
            return Ok(None);
        };
        let engine = self.open(isolation).await?;
        let adopted = engine.adopt(folder, disk).await?;
        if adopted.is_none() {
            engine.discard(folder).await?;
        }
        Ok(adopted.map(|machine| (machine, isolation)))
    }
}

fn not_built(isolation: Isolation) -> Error {
    let message = format!(
        "this Blink was built without its feature {isolation}; take one that has it, or another isolation"
    );
    Error::new(ErrorKind::IsolationUnavailable, message)
}

/// The isolations that this Blink can try, the strongest first.
pub(crate) fn isolations() -> impl Iterator<Item = Isolation> {
    let kinds = KINDS.iter().filter(|kind| kind.capabilities().isolates);
    kinds.map(|kind| kind.isolation())
}

/// What an isolation's engine can do; nothing, if there is none.
pub(crate) fn capabilities(isolation: Isolation) -> Capabilities {
    kind(isolation).map_or_else(Capabilities::default, |kind| kind.capabilities())
}

/// What a sandbox with this isolation is given for which nothing was asked for.
pub(crate) fn default_share(isolation: Isolation) -> Result<Share> {
    let kind = kind(isolation).ok_or_else(|| not_built(isolation))?;
    Ok(kind.default_share())
}

fn left(folder: &Path) -> Option<Box<dyn Left>> {
    let (isolation, record) = record::read(folder)?;
    kind(isolation)?.left(folder, record)
}

/// The isolation of the machine in a folder; `None` if none has been recorded.
pub(crate) fn isolation_of(folder: &Path) -> Option<Isolation> {
    record::read(folder).map(|(isolation, _)| isolation)
}

/// Whether the machine of a sandbox whose owner may be gone still runs.
pub(crate) fn is_alive(folder: &Path) -> bool {
    left(folder).is_some_and(|machine| machine.is_alive())
}

/// Whether the machine of a sandbox that nobody uses any more is to end, and has not.
pub(crate) fn is_overdue(folder: &Path) -> bool {
    left(folder).is_some_and(|machine| machine.ends_with_its_links() && machine.is_alive())
}

/// Ends a machine that ends with its last user, now. Does not wait.
pub(crate) fn kill_overdue(folder: &Path) {
    if let Some(machine) = left(folder)
        && machine.ends_with_its_links()
    {
        machine.kill();
    }
}

/// Lets a machine go on that somebody holds still, who is gone.
pub(crate) fn resume(folder: &Path) {
    if let Some(machine) = left(folder) {
        machine.resume();
    }
}

/// Whether a machine is held still.
pub(crate) fn is_held_still(folder: &Path) -> bool {
    left(folder).is_some_and(|machine| machine.is_held_still())
}

/// Whether an engine keeps something for a machine that has ended with its owner.
pub(crate) fn is_kept(folder: &Path) -> bool {
    left(folder).is_some_and(|machine| machine.is_kept())
}

/// Opens a link to a machine beside its owner; `None` if only the owner can have one.
pub(crate) fn visit(folder: &Path) -> Option<Result<LinkIo>> {
    left(folder)?.link()
}

/// Ends what still runs of a sandbox whose owner is gone. What only an engine can remove, it removes when it is next opened.
pub(crate) async fn end(folder: &Path) {
    if let Some(machine) = left(folder) {
        machine.end().await;
    }
}

/// Removes what engines have derived from images that are gone; returns how many bytes that has freed.
pub(crate) fn prune(home: &Path) -> io::Result<u64> {
    KINDS.iter().map(|kind| kind.prune(home)).sum()
}
