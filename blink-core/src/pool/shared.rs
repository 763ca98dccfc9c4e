//! Pools that several processes of a home share by their names.
//!
//! One process keeps a shared pool, and has its folder in the home locked. Others ask it through a socket there, a line of JSON
//! each way: for a sandbox, which they then link to themselves, and whose connection they hold as long as they have it; or for
//! what there is to say of the pool. Whoever of both is killed, the other notices, and removes what was between them.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blink_host::file_lock::{self, FileLock, Share};
use blink_host::private;
use blink_image::ImageConfig;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::claim::Claim;
use super::keeper::Keeper;
use super::stats::PoolStats;
use crate::blink::Blink;
use crate::command::Defaults;
use crate::error::{Error, ErrorKind, Result, Subject, during};
use crate::home::Lifetime;
use crate::sandbox::Sandbox;
use crate::session::{Session, check_name};
use crate::spec::SandboxSpec;

const LOCK: &str = "owner.lock";
const SOCKET: &str = "owner.sock";

/// A line is a description and a few words; more is none.
const LINE_BYTES: u64 = 1 << 20;

/// What an owner that runs answers within, where it need not wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer than its claim's time a claimant waits for an answer.
const GRACE: Duration = Duration::from_secs(5);

/// What one process asks of another that keeps a pool.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ask {
    /// A sandbox that is this beside what the pool's are; a session if it is to have a name.
    Claim {
        asked: Box<SandboxSpec>,
        timeout_ms: u64,
        session: Option<String>,
    },
    Stats,
    /// To hand out no more, and to end once what was claimed is gone, or so long after.
    Drain {
        patience_ms: u64,
    },
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// A sandbox, and what its programs run with.
    Sandbox {
        id: String,
        spec: Box<SandboxSpec>,
    },
    /// A session has the name.
    Session,
    Stats(Box<PoolStats>),
    Drained,
    Failed {
        kind: u16,
        message: String,
        retryable: bool,
    },
}

/// The folder of a pool that others know by its name.
pub(super) struct Place {
    folder: PathBuf,
}

impl Place {
    pub(super) fn of(blink: &Blink, name: &str) -> Place {
        Place {
            folder: blink.home().pools().join(name),
        }
    }

    /// Becomes the one that keeps it; `None` while another process does.
    pub(super) fn try_keep(&self) -> Result<Option<Kept>> {
        let failed = |error| {
            Error::io(
                format!("the pool's folder {}", self.folder.display()),
                &error,
            )
        };
        private::make_folder(&self.folder).map_err(failed)?;
        let file = file_lock::open(&self.folder.join(LOCK)).map_err(failed)?;
        let Some(mut lock) = FileLock::try_take(file, Share::Alone).map_err(failed)? else {
            return Ok(None);
        };
        lock.sign();
        let socket = self.folder.join(SOCKET);
        // Of one that is gone.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        Ok(Some(Kept {
            listener,
            folder: self.folder.clone(),
            _lock: lock,
        }))
    }

    /// Asks whoever keeps it.
    pub(super) async fn ask(&self, ask: &Ask, patience: Duration) -> Result<(Answer, Lease)> {
        let answered = tokio::time::timeout(patience, async {
            let stream = UnixStream::connect(self.folder.join(SOCKET))
                .await
                .map_err(|_| self.unkept())?;
            let mut lease = Lease {
                stream: BufReader::new(stream),
            };
            lease.say(ask).await.map_err(|_| self.unkept())?;
            let answer: Answer = lease.hear().await.map_err(|_| self.unkept())?;
            Ok::<_, Error>((answer, lease))
        });
        let (answer, lease) = answered.await.map_err(|_| {
            let message = format!(
                "the process that keeps the pool {:?} does not answer",
                self.name()
            );
            Error::new(ErrorKind::Timeout, message).retryable(true)
        })??;
        match answer {
            Answer::Failed {
                kind,
                message,
                retryable,
            } => {
                let kind = ErrorKind::ALL.iter().find(|known| known.code() == kind);
                let kind = kind.copied().unwrap_or(ErrorKind::Internal);
                Err(Error::new(kind, message).retryable(retryable))
            }
            answer => Ok((answer, lease)),
        }
    }

    fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn unkept(&self) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "no process keeps a pool {:?} in this home; make it ('blink pool create')",
                self.name()
            ),
        )
    }
}

/// The connection of two processes, one of which has what the other keeps.
pub(super) struct Lease {
    stream: BufReader<UnixStream>,
}

impl Lease {
    async fn say(&mut self, what: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await
    }

    async fn hear<T: for<'a> Deserialize<'a>>(&mut self) -> std::io::Result<T> {
        let mut line = Vec::new();
        (&mut self.stream)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await?;
        Ok(serde_json::from_slice(&line)?)
    }

    /// Waits until the other has let go.
    async fn ended(&mut self) {
        let mut rest = [0; 64];
        while matches!(self.stream.read(&mut rest).await, Ok(1..)) {}
    }
}

/// A pool that this process keeps for others, until this is dropped.
pub(super) struct Kept {
    listener: UnixListener,
    folder: PathBuf,
    _lock: FileLock,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.join(SOCKET));
        let _ = fs::remove_file(self.folder.join(LOCK));
        let _ = fs::remove_dir(&self.folder);
    }
}

impl Kept {
    /// Answers others until the pool is closed.
    async fn serve(self, keeper: Arc<Keeper>) {
        loop {
            tokio::select! {
                () = keeper.closing() => return,
                accepted = self.listener.accept() => {
                    let Ok((stream, _)) = accepted else {
                        // Descriptors are short.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let keeper = keeper.clone();
                    tokio::spawn(async move {
                        let mut lease = Lease { stream: BufReader::new(stream) };
                        let Ok(Ok(ask)) = tokio::time::timeout(PATIENCE, lease.hear()).await else {
                            return;
                        };
                        if let Err(error) = answer(&keeper, ask, &mut lease).await {
                            let failed = Answer::Failed {
                                kind: error.kind().code(),
                                message: error.message().to_owned(),
                                retryable: error.is_retryable(),
                            };
                            let _ = lease.say(&failed).await;
                        }
                    });
                }
            }
        }
    }
}

async fn answer(keeper: &Arc<Keeper>, ask: Ask, lease: &mut Lease) -> Result<()> {
    let gone = |error| Error::io("the claimant is gone", &error);
    match ask {
        Ask::Claim {
            asked,
            timeout_ms,
            session,
        } => {
            let claim = Claim::of(keeper, *asked, Duration::from_millis(timeout_ms));
            match session {
                Some(name) => {
                    let session = claim.into_session(name).await?;
                    lease.say(&Answer::Session).await.map_err(gone)?;
                    // Until the other has a link of its own, or is gone.
                    lease.ended().await;
                    drop(session);
                }
                None => {
                    let (sandbox, spec) = claim.claim_for_another(keeper).await?;
                    let id = sandbox.id().to_owned();
                    let spec = Box::new(spec);
                    lease
                        .say(&Answer::Sandbox { id, spec })
                        .await
                        .map_err(gone)?;
                    lease.ended().await;
                    // Whatever has become of the other, nothing of it stays.
                    drop(sandbox);
                }
            }
        }
        Ask::Stats => {
            let stats = Answer::Stats(Box::new(keeper.stats()));
            lease.say(&stats).await.map_err(gone)?;
        }
        Ask::Drain { patience_ms } => {
            let _awaited = keeper.awaited();
            keeper.drain(Duration::from_millis(patience_ms)).await?;
            lease.say(&Answer::Drained).await.map_err(gone)?;
        }
    }
    Ok(())
}

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

    /// Claims a sandbox, as [`Pool::claim`](crate::Pool::claim) does.
    ///
    /// # Errors
    /// Awaited, `NotFound` once no process keeps the pool any more; otherwise as for a pool of this process.
    pub fn claim(&self) -> Claim {
        Claim::from_another(self.clone())
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
        let disk = super::member::disk_in(folder.path());
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
                let _ = lease.stream.get_mut().shutdown().await;
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

fn has_socket(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(SOCKET)).is_ok_and(|found| found.file_type().is_socket())
}

/// Keeps a pool for others, in the background.
pub(super) fn keep(kept: Kept, keeper: Arc<Keeper>) {
    tokio::spawn(kept.serve(keeper));
}
