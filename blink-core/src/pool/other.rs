//! Pools that other processes of the home keep.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use blink_image::ImageConfig;

use super::member::disk_in;
use super::place::{Answer, Ask, GRACE, Lease, PATIENCE, Place, has_socket};
use super::stats::PoolStats;
use crate::blink::Blink;
use crate::command::Defaults;
use crate::error::{Error, ErrorKind, Result, Subject, during};
use crate::home::Lifetime;
use crate::sandbox::Sandbox;
use crate::session::{Session, check_name};
use crate::spec::SandboxSpec;

/// A pool that another process of this home keeps, from [`Blink::open_pool`].
///
/// Cheap to clone. What is claimed from it is removed when it is dropped, or its process ends, and stays where the process that
/// keeps the pool ends.
///
/// # Examples
///
/// ```no_run
/// # async fn example(blink: blink_core::Blink) -> blink_core::Result<()> {
/// let pool = blink.open_pool("workers").await?;
/// let sandbox = pool.claim().env("TASK", "42").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedPool {
    blink: Blink,
    name: Arc<str>,
}

impl Subject for SharedPool {
    fn subject(&self) -> String {
        format!("pool {:?}", self.name)
    }
}

impl std::fmt::Debug for SharedPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedPool({:?})", self.name)
    }
}

impl SharedPool {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What has happened in it, and what it has now.
    ///
    /// # Errors
    /// `NotFound` if no process keeps it any more; `Timeout` if that does not answer.
    pub async fn stats(&self) -> Result<PoolStats> {
        during("stats", self, async {
            match self.place().ask(&Ask::Stats, PATIENCE).await? {
                (Answer::Stats(stats), _) => Ok(*stats),
                _ => Err(nonsense()),
            }
        })
        .await
    }

    /// Has its process close it, and waits until what was claimed from it is gone.
    ///
    /// # Errors
    /// `Timeout` if something is still in use after so long: the pool is closed nevertheless; `NotFound` if no process keeps it.
    pub async fn drain(&self, patience: Duration) -> Result<()> {
        during("drain", self, async {
            let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
            let ask = Ask::Drain { patience_ms };
            let patience = patience.saturating_add(GRACE + PATIENCE);
            match self.place().ask(&ask, patience).await? {
                (Answer::Drained, _) => Ok(()),
                _ => Err(nonsense()),
            }
        })
        .await
    }

    pub(super) fn blink(&self) -> &Blink {
        &self.blink
    }

    fn place(&self) -> Place {
        Place::of(&self.blink, &self.name)
    }

    pub(super) async fn claim_now(
        &self,
        asked: &SandboxSpec,
        timeout: Duration,
    ) -> Result<Sandbox> {
        let ports = asked.publish.clone();
        let (answer, lease) = self.ask_for(asked, timeout, None).await?;
        let Answer::Sandbox { id, spec } = answer else {
            return Err(nonsense());
        };
        let folder = self.blink.home().open_sandbox(&id, Lifetime::Pooled)?;
        let disk = disk_in(folder.path());
        let adopted = self.blink.adopt_over(folder.path(), &disk).await?;
        let (machine, isolation) = adopted.ok_or_else(|| {
            Error::new(ErrorKind::SandboxDied, "the sandbox of the pool has ended").retryable(true)
        })?;
        let defaults: Defaults = spec.defaults(&ImageConfig::default());
        let sandbox = Sandbox::assemble(folder, machine.into(), isolation, defaults);
        let sandbox = sandbox.reached(&ports).await?;
        let runtime = tokio::runtime::Handle::current();
        let blink = self.blink.clone();
        Ok(sandbox.left_to(Box::new(move |remains| {
            let burying = async move {
                let mut lease = lease;
                // The other removes it; where that is gone too, this does.
                lease.let_go().await;
                let _ = tokio::time::timeout(PATIENCE, lease.ended()).await;
                if let Err(error) = remains.remove_if_there().await {
                    tracing::warn!(%error, "a sandbox goes later");
                }
            };
            blink.spawn_boot_on(&runtime, burying);
        })))
    }

    pub(super) async fn claim_session(
        &self,
        asked: &SandboxSpec,
        timeout: Duration,
        name: &str,
    ) -> Result<Session> {
        let (answer, lease) = self.ask_for(asked, timeout, Some(name.to_owned())).await?;
        let Answer::Session = answer else {
            return Err(nonsense());
        };
        let session = self.blink.take_session(name, PATIENCE).await?;
        session.sandbox().await?;
        drop(lease);
        Ok(session)
    }

    async fn ask_for(
        &self,
        asked: &SandboxSpec,
        timeout: Duration,
        session: Option<String>,
    ) -> Result<(Answer, Lease)> {
        let mut asked = Box::new(asked.clone());
        if session.is_none() {
            // They are this process's.
            asked.publish.clear();
        }
        let ask = Ask::Claim {
            asked,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            session,
        };
        self.place().ask(&ask, timeout.saturating_add(GRACE)).await
    }
}

fn nonsense() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the process that keeps the pool has answered something else than it was asked; it may be another version of Blink",
    )
}

impl Blink {
    /// Attaches to a pool that another process of this home keeps.
    ///
    /// # Errors
    /// `NotFound` if none does; `InvalidArgument` if the name is invalid.
    pub async fn open_pool(&self, name: impl Into<String>) -> Result<SharedPool> {
        let name = name.into();
        let subject = format!("pool {name:?}");
        during("open_pool", &*subject, async {
            check_name("pool", &name)?;
            let pool = SharedPool {
                blink: self.clone(),
                name: name.as_str().into(),
            };
            pool.stats().await.map(|_| pool)
        })
        .await
    }

    /// The pools that processes of this home keep for others, by their names.
    pub async fn pools(&self) -> Vec<PoolStats> {
        let mut names: Vec<String> = fs::read_dir(self.home().pools())
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| has_socket(&entry.path()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        let mut pools = Vec::new();
        for name in names {
            let pool = SharedPool {
                blink: self.clone(),
                name: name.into(),
            };
            // One whose owner was killed is none.
            if let Ok(stats) = pool.stats().await {
                pools.push(stats);
            }
        }
        pools
    }
}
