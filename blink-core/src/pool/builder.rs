//! What a pool is to be.

use std::time::Duration;

use super::handle::Pool;
use super::keeper::Keeper;
use super::member::Mould;
use super::place::{Kept, Place};
use super::places::Limits;
use super::serve;
use super::template::Template;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::blink::Blink;
use crate::command::Command;
use crate::engine::engines;
use crate::error::{Error, ErrorKind, Result, during};
use crate::home::Lifetime;
use crate::isolation::{Isolation, IsolationChoice};
use crate::sandbox::{Request, interpreter};
use crate::session::check_name;
use crate::spec::SandboxSpec;

/// How long a command of a warmup may take that has no timeout of its own.
pub const DEFAULT_WARMUP_TIMEOUT: Duration = Duration::from_secs(300);

/// Beyond the sandboxes that wait, so many may be claimed at once unless told otherwise.
const DEFAULT_CLAIMED: usize = 64;

/// More sandboxes than one host has room for: what asks for more is a mistake.
const MOST: usize = 100_000;

/// What a claim does when no sandbox is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenEmpty {
    /// It boots one, beside others that do, and fails if that fails.
    #[default]
    Boot,
    /// It waits for the next that the pool boots, however often that fails, until its time is over.
    Wait,
}

/// A pool to make, from [`Blink::pool`].
#[derive(Clone)]
#[must_use = "nothing is made before it is built"]
pub struct PoolBuilder {
    blink: Blink,
    spec: SandboxSpec,
    name: Option<String>,
    size: usize,
    max: Option<usize>,
    max_age: Option<Duration>,
    max_idle: Option<Duration>,
    refill: Option<usize>,
    when_empty: WhenEmpty,
    resets: bool,
    shared: bool,
    warmup: Vec<Command>,
    prepared: Vec<Command>,
    started: Vec<Command>,
    interpreters: Vec<String>,
    warmup_timeout: Duration,
}

impl Blink {
    /// Describes a pool of such sandboxes.
    pub fn pool(&self, spec: SandboxSpec) -> PoolBuilder {
        PoolBuilder::new(self.clone(), spec)
    }
}

impl PoolBuilder {
    pub(super) fn new(blink: Blink, spec: SandboxSpec) -> PoolBuilder {
        PoolBuilder {
            blink,
            spec,
            name: None,
            size: 1,
            max: None,
            max_age: None,
            max_idle: None,
            refill: None,
            when_empty: WhenEmpty::default(),
            resets: false,
            shared: false,
            warmup: Vec::new(),
            prepared: Vec::new(),
            started: Vec::new(),
            interpreters: Vec::new(),
            warmup_timeout: DEFAULT_WARMUP_TIMEOUT,
        }
    }

    /// Its name, in statistics, logs and errors.
    pub fn name(mut self, name: impl Into<String>) -> PoolBuilder {
        self.name = Some(name.into());
        self
    }

    /// Lets other processes of this home claim from it by its [name](PoolBuilder::name): [`Blink::open_pool`]. Only a sandbox that
    /// several processes can use at once can be handed over, so that it needs namespaces.
    pub fn shared(mut self, shared: bool) -> PoolBuilder {
        self.shared = shared;
        self
    }

    /// How many sandboxes are ready at any time; 1 by default.
    pub fn size(mut self, size: usize) -> PoolBuilder {
        self.size = size;
        self
    }

    /// How many sandboxes there may be in all: those that are ready, those that boot, and those that were claimed and are not
    /// gone. Claims beyond it wait. The size and 64 more by default. A sandbox that became a session does not count.
    pub fn max(mut self, max: usize) -> PoolBuilder {
        self.max = Some(max);
        self
    }

    /// Replaces a sandbox that nobody has claimed for so long after its boot; never by default. The time for which the host is
    /// suspended counts, and a sandbox that was ready before is replaced in any case.
    pub fn max_age(mut self, age: Duration) -> PoolBuilder {
        self.max_age = Some(age);
        self
    }

    /// Keeps no sandbox ready once nobody has claimed any for so long: the next claim boots one, and the pool is filled again.
    /// Never by default.
    pub fn max_idle(mut self, idle: Duration) -> PoolBuilder {
        self.max_idle = Some(idle);
        self
    }

    /// How many sandboxes boot at once while no claim waits, so that work is not held up; half of the host's processors by
    /// default, and one at least. While claims wait, twice as many as there are processors do.
    pub fn refill(mut self, boots: usize) -> PoolBuilder {
        self.refill = Some(boots);
        self
    }

    /// What a claim does when no sandbox is ready; it boots one by default.
    pub fn when_empty(mut self, when_empty: WhenEmpty) -> PoolBuilder {
        self.when_empty = when_empty;
        self
    }

    /// Keeps the number of sandboxes the same, claimed ones among them: when one is released, its place is reset, and is claimed
    /// again. Without it, which is the default, another boots as soon as one is claimed.
    ///
    /// A reset keeps nothing: processes, memory, the disk, the network's state and the users' are those of a new boot over the
    /// pool's template. There may be no more sandboxes than the [size](PoolBuilder::size), so that `max` cannot be said too.
    pub fn reset_on_release(mut self, resets: bool) -> PoolBuilder {
        self.resets = resets;
        self
    }

    /// Runs a command once, when the pool is made. What all of these leave on the disk is in every sandbox of the pool, which share
    /// it. Each must succeed.
    pub fn warmup(mut self, command: Command) -> PoolBuilder {
        self.warmup.push(command);
        self
    }

    /// Runs a command in every sandbox, before it is ready, after those of [`warmup`](PoolBuilder::warmup). Each must succeed; what
    /// they leave running is there when the sandbox is claimed.
    pub fn prepare(mut self, command: Command) -> PoolBuilder {
        self.prepared.push(command);
        self
    }

    /// Starts a program in every sandbox, after those of [`prepare`](PoolBuilder::prepare), that is to go on: a sandbox in which it has
    /// ended is replaced. It counts as ready once it runs.
    pub fn start(mut self, command: Command) -> PoolBuilder {
        self.started.push(command);
        self
    }

    /// Starts the interpreter of a language in every sandbox, after those of [`prepare`](PoolBuilder::prepare), where it waits for code:
    /// the first [`Command::code`] of that language that is [executed](crate::Sandbox::exec) in a claimed sandbox runs in it, without
    /// the time that an interpreter takes to start. There is `python`.
    ///
    /// Such code has what it would have otherwise, with a timeout or without one what code with a timeout has. It is run as usual if it asks for a user, a folder or a terminal, or for
    /// variables that an interpreter reads when it starts (`PYTHON…`, `LD_…`) and the pool has not set.
    pub fn interpreter(mut self, language: impl Into<String>) -> PoolBuilder {
        self.interpreters.push(language.into());
        self
    }

    /// How long a command of [`warmup`](PoolBuilder::warmup) or [`prepare`](PoolBuilder::prepare) may take that has no timeout of its
    /// own; [`DEFAULT_WARMUP_TIMEOUT`], which is 5 min, by default.
    pub fn warmup_timeout(mut self, timeout: Duration) -> PoolBuilder {
        self.warmup_timeout = timeout;
        self
    }

    /// Makes it: fetches the image, runs the commands of the [`warmup`](PoolBuilder::warmup), and begins to boot.
    /// [`Pool::ready`] waits for the boots.
    ///
    /// # Errors
    /// `InvalidArgument` for a size of 0, less than the size at most, options that belong to a claim or a session, and a command
    /// of the warmup that fails, with its [output](crate::Error::output); `Timeout` for one that does not end; otherwise those of
    /// [`SandboxBuilder::create`](crate::SandboxBuilder::create).
    pub async fn build(self) -> Result<Pool> {
        let subject = match &self.name {
            Some(name) => format!("pool {name:?}"),
            None => format!("pool of the image {:?}", self.spec.image()),
        };
        during("build", &*subject, async move {
            let limits = self.limits()?;
            self.check_spec()?;
            let interpreters = self.interpreters.iter();
            let interpreters = interpreters.map(|language| interpreter::known(language));
            let interpreters = interpreters.collect::<Result<Vec<_>>>()?;
            let mut request = Request::new(self.blink.clone(), self.spec.clone());
            let isolation = self.blink.choose(self.spec.isolation).await?;
            request.spec.isolation = Some(IsolationChoice::from(isolation));
            let kept = self.keep_for_others(isolation)?;
            let template = self.make_template(request.clone()).await?;
            let mould = Mould {
                request,
                template,
                prepared: self.prepared,
                started: self.started,
                interpreters,
                warmup_timeout: self.warmup_timeout,
                given_up: CancellationToken::new(),
                lifetime: match self.shared {
                    true => Lifetime::Pooled,
                    false => Lifetime::Process,
                },
            };
            let keeper = Keeper::start(self.name, limits, mould);
            if let Some(kept) = kept {
                serve::keep(kept, keeper.clone());
            }
            Ok(Pool::new(keeper))
        })
        .await
    }

    /// In a task of its own, which undoes what it has done where the caller gives up.
    async fn make_template(&self, request: Request) -> Result<Template> {
        let given_up = CancellationToken::new();
        let _giving_up = given_up.clone().drop_guard();
        let (taker, taken) = oneshot::channel();
        let (warmup, timeout) = (self.warmup.clone(), self.warmup_timeout);
        let making = async move {
            let made = Template::make(&request, &warmup, timeout, &given_up).await;
            if let Err(Ok(template)) = taker.send(made) {
                template.remove().await;
            }
        };
        self.blink.spawn_boot(making.in_current_span());
        taken.await.map_err(|_| {
            let message = "the making of the pool was stopped by a defect in Blink";
            Error::new(ErrorKind::Internal, message)
        })?
    }

    /// Becomes the process that keeps the pool of this name, where others are to share it.
    fn keep_for_others(&self, isolation: Isolation) -> Result<Option<Kept>> {
        if !self.shared {
            return Ok(None);
        }
        let Some(name) = &self.name else {
            return Err(Error::invalid(
                "a pool that others share needs a name; give it one",
            ));
        };
        check_name("pool", name)?;
        if !engines::capabilities(isolation).shares_machines {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "a sandbox in a {isolation} belongs to the process that has booted it, so that no other can claim it; share a \
                     pool of namespaces, or make one in each process"
                ),
            ));
        }
        match Place::of(&self.blink, name).try_keep()? {
            Some(kept) => Ok(Some(kept)),
            None => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "another process keeps a pool {name:?} in this home; open that, or choose another name"
                ),
            )),
        }
    }

    fn limits(&self) -> Result<Limits> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let size = self.size;
        if size == 0 {
            return Err(Error::invalid(
                "a pool of size 0 has nothing to hand out; give it 1 at least",
            ));
        }
        let max = match (self.resets, self.max) {
            (true, Some(max)) if max != size => {
                return Err(Error::invalid(format!(
                    "a pool that resets has as many sandboxes as its size, which is {size}; leave max {max} out"
                )));
            }
            (true, _) => size,
            (false, max) => max.unwrap_or(size.saturating_add(DEFAULT_CLAIMED)),
        };
        if max < size {
            return Err(Error::invalid(format!(
                "a pool of size {size} cannot have {max} sandboxes at most; make max {size} at least"
            )));
        }
        if size > MOST {
            return Err(Error::invalid(format!(
                "a pool cannot have {size} sandboxes ready; {MOST} at most"
            )));
        }
        if self.refill == Some(0) {
            return Err(Error::invalid(
                "a pool that boots 0 sandboxes at once is never filled; give it 1 at least",
            ));
        }
        for (what, time) in [("max_age", self.max_age), ("max_idle", self.max_idle)] {
            if time.is_some_and(|time| time.is_zero()) {
                return Err(Error::invalid(format!(
                    "with a {what} of 0 no sandbox of the pool could ever be claimed; leave it out for none"
                )));
            }
        }
        let refill = self.refill.unwrap_or((processors / 2).max(1));
        Ok(Limits {
            size,
            max,
            refill,
            burst: refill.max(2 * processors),
            max_age: self.max_age,
            max_idle: self.max_idle,
            resets: self.resets,
            fails_claims: self.when_empty == WhenEmpty::Boot,
        })
    }

    /// What belongs to one sandbox cannot be said of all.
    fn check_spec(&self) -> Result<()> {
        self.spec.validate()?;
        let of_one = match &self.spec {
            spec if spec.hostname.is_some() => Some("a host name"),
            spec if !spec.publish.is_empty() => Some("published ports"),
            _ => None,
        };
        match of_one {
            Some(what) => Err(Error::invalid(format!(
                "sandboxes of a pool cannot all have {what}; say it when you claim one"
            ))),
            None => Ok(()),
        }
    }
}
