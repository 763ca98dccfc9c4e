//! A pool, as those who use it have it.

use std::sync::Arc;
use std::time::Duration;

use super::claim::Claim;
use super::keeper::Keeper;
use super::stats::PoolStats;
use crate::error::{Result, Subject, during};
use crate::isolation::Isolation;

/// Sandboxes that are booted before they are asked for.
///
/// A pool keeps some sandboxes of one [description](crate::SandboxSpec) ready. [`claim`](Pool::claim) takes one out at once, and the pool
/// boots another in the background. A claimed sandbox is used once: it is removed when it is dropped, and never handed out
/// again.
///
/// Cheap to clone: all clones are one pool, which is closed when the last of them is dropped. What was claimed stays with who
/// has it.
///
/// # Examples
///
/// ```no_run
/// # async fn example(blink: blink_core::Blink) -> blink_core::Result<()> {
/// use blink_core::{Command, SandboxSpec};
/// let pool = blink
///     .pool(SandboxSpec::default())
///     .size(8)
///     .warmup(Command::shell("mkdir -p /srv && echo ready > /srv/state"))
///     .build()
///     .await?;
/// let sandbox = pool.claim().env("TASK", "42").await?;
/// let output = sandbox.exec(Command::shell("cat /srv/state; echo $TASK")).await?;
/// assert_eq!(output.text(), "ready\n42\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool {
    open: Arc<Open>,
}

/// Closes the pool with its last handle.
struct Open(Arc<Keeper>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Subject for Pool {
    fn subject(&self) -> String {
        self.keeper().subject()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pool").field(&self.stats()).finish()
    }
}

impl Pool {
    pub(super) fn new(keeper: Arc<Keeper>) -> Pool {
        Pool {
            open: Arc::new(Open(keeper)),
        }
    }

    pub(super) fn keeper(&self) -> &Arc<Keeper> {
        &self.open.0
    }

    /// Claims a sandbox: one that is ready if there is one, and otherwise the next that boots. Who comes first is served first.
    ///
    /// # Errors
    /// Awaited, `Timeout` if there is none in time; `InvalidArgument` for invalid options, and once the pool is closed; `Busy` if
    /// a port to publish is taken; otherwise those of [`SandboxBuilder::create`](crate::SandboxBuilder::create) where a boot for the claim fails.
    pub fn claim(&self) -> Claim {
        Claim::new(self.keeper(), self.open.clone())
    }

    /// Waits until as many sandboxes are ready as are to be.
    ///
    /// # Errors
    /// Those of the boots, and of the commands of the warmup: the first that fails while this waits.
    pub async fn ready(&self) -> Result<()> {
        during("ready", self, self.keeper().ready()).await
    }

    /// What has happened in it, and what it has now.
    pub fn stats(&self) -> PoolStats {
        self.keeper().stats()
    }

    /// The isolation that its sandboxes have.
    pub fn isolation(&self) -> Isolation {
        self.keeper().mould().template.isolation()
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.keeper().name()
    }

    /// Closes it, and waits until nothing is left of the sandboxes that wait in it. Claims that wait fail, as do later ones.
    /// Claimed sandboxes stay with who has them.
    pub async fn close(&self) {
        self.keeper().close();
        self.keeper().emptied().await;
    }

    /// As [`close`](Pool::close), and waits until the claimed sandboxes are gone too.
    ///
    /// # Errors
    /// `Timeout` if they are not within `patience`; the pool is closed nevertheless.
    pub async fn drain(&self, patience: Duration) -> Result<()> {
        during("drain", self, self.keeper().drain(patience)).await
    }

    /// Waits until it is closed, by this process or by another that [shares](crate::PoolBuilder::shared) it; if that waits for the end of
    /// what was claimed, until then.
    pub async fn closed(&self) {
        self.keeper().closed().await;
    }
}
