//! A sandbox of a pool, asked for.

use std::any::Any;
use std::ffi::OsString;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;

use blink_host::file_lock::PATIENCE;

use super::keeper::{Keeper, closed};
use super::member::Member;
use super::other::SharedPool;
use super::places::Claim as Claimed;
use super::stats::Outcome;
use crate::blink::Blink;
use crate::error::{Error, ErrorKind, Result, Subject, during};
use crate::keys::Key;
use crate::publish::{Bound, PublishedPort};
use crate::sandbox::{Sandbox, made_already};
use crate::session::{DEFAULT_PATIENCE, Session, check_name};
use crate::spec::{Network, SandboxSpec};

/// How long a claim waits for a sandbox, unless told otherwise: twice what a boot may take.
pub const DEFAULT_CLAIM_TIMEOUT: Duration = Duration::from_secs(60);

/// A claim of a sandbox, from [`Pool::claim`](crate::Pool::claim). Awaiting it gives the [`Sandbox`].
///
/// What is said here holds for the claimed sandbox alone. What a sandbox that runs cannot be given (another network, on some
/// engines a host name) is given to one that is booted for this claim, from the pool's template.
///
/// # Examples
///
/// ```no_run
/// # async fn example(pool: blink_core::Pool) -> blink_core::Result<()> {
/// let sandbox = pool.claim().env("TASK", "42").hostname("worker-42").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is claimed before it is awaited"]
pub struct Claim {
    from: Origin,
    /// What is asked for beside what the pool's sandboxes are.
    asked: SandboxSpec,
    timeout: Duration,
    key: Option<String>,
}

/// Whose pool it is.
#[derive(Clone)]
enum Origin {
    This {
        keeper: Arc<Keeper>,
        /// It is not closed meanwhile.
        _open: Option<Arc<dyn Any + Send + Sync>>,
    },
    Another(SharedPool),
}

impl Subject for Origin {
    fn subject(&self) -> String {
        match self {
            Origin::This { keeper, .. } => keeper.subject(),
            Origin::Another(pool) => pool.subject(),
        }
    }
}

impl Origin {
    fn blink(&self) -> &Blink {
        match self {
            Origin::This { keeper, .. } => &keeper.mould().request.blink,
            Origin::Another(pool) => pool.blink(),
        }
    }
}

impl Claim {
    /// From a pool, which stays open as long as what it is held by.
    pub(super) fn new(keeper: &Arc<Keeper>, open: Arc<dyn Any + Send + Sync>) -> Claim {
        Claim {
            from: Origin::This {
                keeper: keeper.clone(),
                _open: Some(open),
            },
            asked: SandboxSpec::default(),
            timeout: DEFAULT_CLAIM_TIMEOUT,
            key: None,
        }
    }

    /// As another process asks for it.
    pub(super) fn of(keeper: &Arc<Keeper>, asked: SandboxSpec, timeout: Duration) -> Claim {
        Claim {
            from: Origin::This {
                keeper: keeper.clone(),
                _open: None,
            },
            asked,
            timeout,
            key: None,
        }
    }

    /// From a pool that another process keeps.
    pub(super) fn from_another(pool: SharedPool) -> Claim {
        Claim {
            from: Origin::Another(pool),
            asked: SandboxSpec::default(),
            timeout: DEFAULT_CLAIM_TIMEOUT,
            key: None,
        }
    }

    /// Takes what a description says, in place of what was said before. It can say `env`, `labels`, `hostname`, `memory_mib`,
    /// `network` and `publish`; the rest is the pool's to say.
    pub fn asking(mut self, spec: SandboxSpec) -> Claim {
        self.asked = spec;
        self
    }

    /// Sets an environment variable for all its programs, over the pool's.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Claim {
        self.asked.env.push((name.into(), value.into()));
        self
    }

    /// Labels it; a session keeps that. Labels beside the pool's.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Claim {
        self.asked.labels.insert(name.into(), value.into());
        self
    }

    /// Its host name; its id by default.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Claim {
        self.asked.hostname = Some(hostname.into());
        self
    }

    /// Memory that it may use, in MiB: no more than the pool's.
    pub fn memory_mib(mut self, memory_mib: u64) -> Claim {
        self.asked.memory_mib = Some(memory_mib);
        self
    }

    /// What it can reach, where that is not what the pool's sandboxes can.
    pub fn network(mut self, network: Network) -> Claim {
        self.asked.network = Some(network);
        self
    }

    /// Lets programs of the host reach a TCP port inside it, as [`SandboxBuilder::publish`](crate::SandboxBuilder::publish) does.
    pub fn publish(mut self, port: PublishedPort) -> Claim {
        self.asked.publish.push(port);
        self
    }

    /// Makes a repeated claim harmless: while what a key has claimed is there, the same key claims nothing else, for 24 h, also
    /// after a crash of this process. A session is opened again; a sandbox that somebody has is `Busy`. A key has 256 bytes at
    /// most, and belongs to what was first asked for with it.
    pub fn key(mut self, key: impl Into<String>) -> Claim {
        self.key = Some(key.into());
        self
    }

    /// How long to wait for a sandbox; [`DEFAULT_CLAIM_TIMEOUT`], which is 60 s, by default. Zero does not wait.
    pub fn timeout(mut self, timeout: Duration) -> Claim {
        self.timeout = timeout;
        self
    }

    /// Claims it and gives it a name: from then on it is a session, with the disk, the processes and the memory that it has.
    /// It costs no boot.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` if the name is invalid, or a variable or the working directory is not UTF-8; otherwise as for the claim.
    pub async fn into_session(self, name: impl Into<String>) -> Result<Session> {
        let name = name.into();
        let subject = format!("session {name:?}");
        during("into_session", &*subject, async move {
            let key = match &self.key {
                Some(key) => Some(self.take_key(key, Some(&name)).await?),
                None => None,
            };
            if let Some((_, Some(id))) = &key
                && let Some(known) = self.from.blink().session_name(id).await?
            {
                return self
                    .from
                    .blink()
                    .take_session(&known, DEFAULT_PATIENCE)
                    .await;
            }
            let keeper = match &self.from {
                Origin::This { keeper, .. } => keeper.clone(),
                Origin::Another(pool) => {
                    check_name("session", &name)?;
                    let session = pool.claim_session(&self.asked, self.timeout, &name).await?;
                    if let Some((key, _)) = &key {
                        key.makes(session.id())?;
                    }
                    return Ok(session);
                }
            };
            let spec = self.spec(&keeper)?;
            crate::session::check_free(&keeper.mould().request.blink, &name, &spec).await?;
            // The session publishes them itself.
            let member = self.member(&keeper, &spec, Bound::default()).await?;
            if let Some((key, _)) = &key
                && let Err(error) = key.makes(member.sandbox.id())
            {
                keeper.remove(member);
                return Err(error);
            }
            super::session::name(&keeper, member, spec, &name).await
        })
        .await
    }

    async fn claim(&self) -> Result<Sandbox> {
        let key = match &self.key {
            Some(key) => Some(self.take_key(key, None).await?),
            None => None,
        };
        if let Some((_, Some(id))) = &key
            && let Some(holder) = self.from.blink().home().owner(id)
        {
            return Err(made_already(id, holder));
        }
        let sandbox = match &self.from {
            Origin::This { keeper, .. } => self.claim_here(keeper).await?.0,
            Origin::Another(pool) => pool.claim_now(&self.asked, self.timeout).await?,
        };
        if let Some((key, _)) = &key {
            key.makes(sandbox.id())?;
        }
        Ok(sandbox)
    }

    /// Takes a key; says what it has claimed.
    async fn take_key(&self, key: &str, session: Option<&str>) -> Result<(Key, Option<String>)> {
        let asked = ("claim", self.from.subject(), &self.asked, session);
        let patience = self.timeout.saturating_add(PATIENCE);
        Key::take(self.from.blink().home(), key, &asked, patience).await
    }

    /// Claims a sandbox for another process. Returns the resolved spec too, which that process starts programs with.
    pub(super) async fn claim_for_another(
        self,
        keeper: &Arc<Keeper>,
    ) -> Result<(Sandbox, SandboxSpec)> {
        let (sandbox, spec) = self.claim_here(keeper).await?;
        let image = keeper.mould().template.image();
        let config = image.map(|image| image.config.clone()).unwrap_or_default();
        Ok((sandbox, spec.resolve(&config)))
    }

    async fn claim_here(&self, keeper: &Arc<Keeper>) -> Result<(Sandbox, SandboxSpec)> {
        let spec = self.spec(keeper)?;
        // First of all: nothing needs to be undone where one is taken.
        let ports = match spec.publish.is_empty() {
            true => Bound::default(),
            false => keeper.bind(&spec)?,
        };
        let member = self.member(keeper, &spec, ports).await?;
        Ok((hand_out(member, keeper), spec))
    }

    /// What the claimed sandbox is.
    fn spec(&self, keeper: &Keeper) -> Result<SandboxSpec> {
        let pools = &keeper.mould().request.spec;
        let asked = &self.asked;
        check_asked(asked)?;
        if let Some(memory) = asked.memory_mib {
            let of_pool = keeper.memory_mib()?;
            if memory > of_pool {
                return Err(Error::invalid(format!(
                    "{memory} MiB of memory are more than the {of_pool} MiB of the pool's sandboxes; ask for less, or make \
                     a pool with more"
                )));
            }
        }
        let mut spec = pools.clone();
        spec.env.extend(asked.env.iter().cloned());
        spec.labels.extend(asked.labels.clone());
        spec.hostname.clone_from(&asked.hostname);
        spec.memory_mib = asked.memory_mib.or(spec.memory_mib);
        spec.network = asked.network.clone().or(spec.network);
        spec.publish.clone_from(&asked.publish);
        Ok(spec)
    }

    /// Claims a member, and has it be what was asked for.
    async fn member(
        &self,
        keeper: &Arc<Keeper>,
        spec: &SandboxSpec,
        ports: Bound,
    ) -> Result<Member> {
        let begun = Instant::now();
        let span = tracing::info_span!("pool_claim", pool = keeper.name());
        let claimed = self
            .try_claim(keeper, begun, spec, ports)
            .instrument(span)
            .await;
        match &claimed {
            Ok((_, outcome)) => keeper.counts().claimed(*outcome, begun.elapsed()),
            Err(_) => keeper.counts().claimed(Outcome::Failed, begun.elapsed()),
        }
        claimed.map(|(member, _)| member)
    }

    async fn try_claim(
        &self,
        keeper: &Arc<Keeper>,
        begun: Instant,
        spec: &SandboxSpec,
        ports: Bound,
    ) -> Result<(Member, Outcome)> {
        loop {
            let (mut member, outcome) = match keeper.claim() {
                Claimed::Member(member) => (member, Outcome::Hit),
                Claimed::Closed => return Err(closed()),
                Claimed::Wait(answer) => {
                    let left = self.timeout.saturating_sub(begun.elapsed());
                    let member = keeper.wait(answer, left, self.timeout).await?;
                    (member, Outcome::Miss)
                }
            };
            // Nobody needs to know of one that has died meanwhile.
            if !member.is_good() {
                keeper.lost(member);
                continue;
            }
            let mould = keeper.mould();
            match member.become_asked(&self.asked, spec, mould).await {
                Ok(replaced) => {
                    if let Some(replaced) = replaced {
                        keeper.bury(replaced, None, false);
                    }
                    member.sandbox.publish(ports)?;
                    return Ok((member, outcome));
                }
                Err(error) if error.kind() == ErrorKind::SandboxDied => keeper.lost(member),
                Err(error) => {
                    keeper.remove(member);
                    return Err(error);
                }
            }
        }
    }
}

/// Hands a member out: it is removed when it is dropped.
fn hand_out(member: Member, keeper: &Arc<Keeper>) -> Sandbox {
    let Member { sandbox, held, .. } = member;
    let keeper = keeper.clone();
    sandbox.left_to(Box::new(move |remains| keeper.released(remains, held)))
}

/// Refuses what only a pool can say.
fn check_asked(asked: &SandboxSpec) -> Result<()> {
    asked.validate()?;
    let mut rest = asked.clone();
    rest.env.clear();
    rest.labels.clear();
    rest.publish.clear();
    (rest.hostname, rest.memory_mib, rest.network) = (None, None, None);
    let said = rest.differences(&SandboxSpec::default());
    match (said.is_empty(), rest.isolation) {
        (true, None) => Ok(()),
        _ => Err(Error::invalid(format!(
            "a claim can say env, labels, hostname, memory_mib, network and publish; the rest is the pool's to say ({})",
            said.join("; ")
        ))),
    }
}

impl SharedPool {
    /// Claims a sandbox, as [`Pool::claim`](crate::Pool::claim) does.
    ///
    /// # Errors
    /// Awaited, `NotFound` once no process keeps the pool any more; otherwise as for a pool of this process.
    pub fn claim(&self) -> Claim {
        Claim::from_another(self.clone())
    }
}

impl IntoFuture for Claim {
    type Output = Result<Sandbox>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Sandbox>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let from = self.from.clone();
            during("claim", &from, self.claim()).await
        })
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}
