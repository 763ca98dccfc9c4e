//! Keeps a pool full: boots members in the background, replaces what is dead or too old, removes what was let go of.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blink_host::lock;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use super::clock;
use super::member::{Held, Made, Member, Mould, Owner};
use super::places::{Answer, Claim, Delivered, Limits, Places};
use super::stats::{PoolStats, Stats};
use crate::budget::{Need, Reserve};
use crate::engine::engines;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::publish::Bound;
use crate::sandbox::{Remains, Request};
use crate::spec::SandboxSpec;

/// How often members are looked at that nobody claims: who dies meanwhile is replaced before somebody asks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sandboxes that are removed at once. It is work of the disk, and of no hurry.
const REMOVALS: usize = 2;

/// A pool, as what works for it has it.
pub(super) struct Keeper {
    name: Option<String>,
    limits: Limits,
    mould: Mould,
    places: Mutex<Places<Member>>,
    stats: Stats,
    /// There may be something to do.
    changed: Notify,
    /// A boot has ended.
    booted: Notify,
    removals: Semaphore,
    /// Sandboxes that are being removed.
    removing: AtomicUsize,
    /// Those who wait for the end of what was claimed.
    draining: TaskTracker,
    runtime: Handle,
}

impl Keeper {
    /// Begins to fill it.
    pub(super) fn start(name: Option<String>, limits: Limits, mould: Mould) -> Arc<Keeper> {
        let keeper = Arc::new(Keeper {
            stats: Stats::new(name.as_deref()),
            name,
            places: Mutex::new(Places::new(limits.clone(), clock::now())),
            limits,
            mould,
            changed: Notify::new(),
            booted: Notify::new(),
            removals: Semaphore::new(REMOVALS),
            removing: AtomicUsize::new(0),
            draining: TaskTracker::new(),
            runtime: Handle::current(),
        });
        let reserve: Arc<dyn Reserve> = keeper.clone();
        let budget = keeper.mould.request.blink.budget();
        budget.add(Arc::downgrade(&reserve));
        tokio::spawn(keeper.clone().run().in_current_span());
        keeper
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn mould(&self) -> &Mould {
        &self.mould
    }

    pub(super) fn counts(&self) -> &Stats {
        &self.stats
    }

    /// Takes a member, or a place in the queue.
    pub(super) fn claim(self: &Arc<Self>) -> Claim<Member> {
        let (claim, bad) = self.places().claim(clock::now(), Member::is_good);
        for member in bad {
            self.lost(member);
        }
        self.changed.notify_one();
        claim
    }

    /// Waits for a member in the queue, for what is left of the patience.
    pub(super) async fn wait(
        &self,
        answer: Answer<Member>,
        left: Duration,
        patience: Duration,
    ) -> Result<Member> {
        match tokio::time::timeout(left, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(self.too_late(patience)),
        }
    }

    /// Removes a member that has died before anybody had it.
    pub(super) fn lost(self: &Arc<Self>, member: Member) {
        self.stats.died();
        self.remove(member);
    }

    /// Takes the host's ports that a claim publishes.
    pub(super) fn bind(&self, spec: &SandboxSpec) -> Result<Bound> {
        let request = Request {
            spec: spec.clone(),
            ..self.mould.request.clone()
        };
        request.bind(self.mould.template.isolation())
    }

    /// Waits until it is full; fails with a boot that fails meanwhile.
    pub(super) async fn ready(&self) -> Result<()> {
        let failures = self.places().failures();
        loop {
            let mut booted = std::pin::pin!(self.booted.notified());
            booted.as_mut().enable();
            {
                let places = self.places();
                if places.is_closed() {
                    return Err(closed());
                }
                if places.is_full(clock::now()) {
                    return Ok(());
                }
                if let Some(failure) = places.last_failure()
                    && places.failures() > failures
                {
                    return Err(failure.clone());
                }
            }
            booted.await;
        }
    }

    pub(super) fn stats(&self) -> PoolStats {
        let mut stats = {
            let places = self.places();
            PoolStats {
                name: self.name.clone(),
                size: self.limits.size,
                max: self.limits.max,
                idle: places.idle(),
                booting: places.booting(),
                claimed: places.out(),
                waiting: places.waiting(),
                ages: places.ages(clock::now()).collect(),
                last_failure: places.last_failure().map(Error::to_string),
                ..PoolStats::default()
            }
        };
        self.stats.fill(&mut stats);
        stats
    }

    /// Hands out no more. What waits to be claimed is removed; what was claimed is not its own any more.
    pub(super) fn close(self: &Arc<Self>) {
        self.mould.given_up.cancel();
        let members = self.places().close(&closed());
        for member in members {
            self.remove(member);
        }
        self.changed.notify_one();
        self.booted.notify_waiters();
    }

    /// Closes it, and waits until what was claimed is gone.
    pub(super) async fn drain(self: &Arc<Self>, patience: Duration) -> Result<()> {
        self.close();
        self.emptied().await;
        self.left(patience).await
    }

    /// Waits until it is closed, and nobody is there any more who has asked for its end.
    pub(super) async fn closed(&self) {
        self.closing().await;
        self.draining.close();
        self.draining.wait().await;
    }

    /// Somebody waits for its end, until what is returned is dropped.
    pub(super) fn awaited(&self) -> TaskTrackerToken {
        self.draining.token()
    }

    /// Waits until it is closed.
    pub(super) async fn closing(&self) {
        loop {
            let mut booted = std::pin::pin!(self.booted.notified());
            booted.as_mut().enable();
            if self.places().is_closed() {
                return;
            }
            booted.await;
        }
    }

    /// Waits until nothing is left of a pool that was closed, but for what was claimed from it.
    pub(super) async fn emptied(&self) {
        loop {
            let mut booted = std::pin::pin!(self.booted.notified());
            booted.as_mut().enable();
            if self.places().booting() == 0 && self.removing.load(Ordering::Acquire) == 0 {
                return;
            }
            booted.await;
        }
    }

    /// What a sandbox of it may use of the memory.
    pub(super) fn memory_mib(&self) -> Result<u64> {
        match self.mould.request.spec.memory_mib {
            Some(memory) => Ok(memory),
            None => Ok(engines::default_share(self.mould.template.isolation())?.memory_mib),
        }
    }

    /// Waits until what was claimed is gone.
    pub(super) async fn left(&self, patience: Duration) -> Result<()> {
        let all = async {
            loop {
                let mut booted = std::pin::pin!(self.booted.notified());
                booted.as_mut().enable();
                if self.places().out() == 0 {
                    return;
                }
                booted.await;
            }
        };
        tokio::time::timeout(patience, all).await.map_err(|_| {
            let left = self.places().out();
            Error::new(
                ErrorKind::Timeout,
                format!("{left} sandboxes of the pool are still in use after {patience:?}"),
            )
        })
    }

    /// Removes a member in the background.
    pub(super) fn remove(self: &Arc<Self>, member: Member) {
        let Member { sandbox, held, .. } = member;
        self.bury(sandbox.into_remains(), Some(held), false);
    }

    /// Removes what is left of a sandbox that its claimant has dropped.
    pub(super) fn released(self: &Arc<Self>, remains: Remains, held: Held) {
        self.bury(remains, Some(held), true);
    }

    /// Removes what is left of a sandbox, in the background.
    pub(super) fn bury(self: &Arc<Self>, remains: Remains, held: Option<Held>, was_claimed: bool) {
        let keeper = self.clone();
        let begun = Instant::now();
        self.removing.fetch_add(1, Ordering::AcqRel);
        let removing = async move {
            // It is never closed.
            let permit = keeper.removals.acquire().await;
            let id = remains.id().to_owned();
            if let Err(error) = remains.remove().await {
                tracing::warn!(sandbox = id, %error, "a sandbox goes later");
            }
            keeper.stats.removed(begun.elapsed());
            if was_claimed && keeper.limits.resets {
                keeper.stats.reset();
            }
            drop(permit);
            drop(held);
            keeper.removing.fetch_sub(1, Ordering::AcqRel);
            keeper.booted.notify_waiters();
        };
        let resets = was_claimed && self.limits.resets;
        let span = tracing::info_span!("pool_removal", pool = self.name, resets);
        let blink = &self.mould.request.blink;
        blink.spawn_boot_on(&self.runtime, removing.instrument(span));
    }

    async fn run(self: Arc<Self>) {
        let mut looked_at = Instant::now();
        loop {
            let (retired, boots, next) = {
                let mut places = self.places();
                let now = clock::now();
                let retired = places.retired(now, Member::is_good);
                let boots = places.boots(now);
                (retired, boots, places.next_change(now))
            };
            for member in retired {
                match member.is_good() {
                    true => self.stats.retired(),
                    false => self.stats.died(),
                }
                self.remove(member);
            }
            for _ in 0..boots {
                self.boot();
            }
            if looked_at.elapsed() >= LOOK_EVERY {
                looked_at = Instant::now();
                self.look_at_members();
            }
            self.stats.gauge(&self.stats());
            if self.places().is_closed() {
                self.mould.template.remove().await;
                return;
            }
            let until = next.map_or(LOOK_EVERY, |next| {
                next.saturating_sub(clock::now()).min(LOOK_EVERY)
            });
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(until) => {}
            }
        }
    }

    /// Has each member that waits asked for a sign of life. Who gives none is not good any more, which the next look finds.
    fn look_at_members(self: &Arc<Self>) {
        let pings = self
            .places()
            .members()
            .map(Member::ping)
            .collect::<Vec<_>>();
        for ping in pings {
            let keeper = self.clone();
            tokio::spawn(async move {
                if !ping.await {
                    keeper.changed.notify_one();
                }
            });
        }
    }

    /// Boots a member in a task of its own.
    fn boot(self: &Arc<Self>) {
        let keeper = self.clone();
        let booting = async move {
            let need = match keeper.places().waiting() {
                0 => Need::Reserve,
                _ => Need::Now,
            };
            let making = keeper.clone();
            // What panics has failed, too.
            let made = tokio::spawn(async move { making.mould.make(need).await }).await;
            let made = made.unwrap_or_else(|error| {
                Err(Error::new(
                    ErrorKind::Internal,
                    format!("a boot was stopped: {error}"),
                ))
            });
            match made {
                Ok(made) => keeper.deliver(made),
                Err(error) => {
                    match error.kind() {
                        ErrorKind::ResourceExhausted => keeper.stats.refused(),
                        _ => keeper.stats.boot_failed(),
                    }
                    let pause = keeper.places().failed(&error, clock::now());
                    tracing::warn!(pool = keeper.name, %error, ?pause, "a boot for the pool has failed");
                }
            }
            keeper.changed.notify_one();
            keeper.booted.notify_waiters();
        };
        let span = tracing::info_span!("pool_boot", pool = self.name);
        self.mould
            .request
            .blink
            .spawn_boot_on(&self.runtime, booting.instrument(span));
    }

    fn deliver(self: &Arc<Self>, made: Made) {
        self.stats.booted(made.took);
        let member = Member::new(made, self.clone());
        let delivered = self.places().booted(member, clock::now());
        match delivered {
            Ok(Delivered::Taken | Delivered::Kept) => {}
            Err(member) => self.remove(member),
        }
    }

    fn too_late(&self, patience: Duration) -> Error {
        let places = self.places();
        let message = format!(
            "the pool had no sandbox within {patience:?}: {} of at most {} are claimed; remove some, give it more (max), or wait \
             longer",
            places.out(),
            self.limits.max
        );
        let error = Error::new(ErrorKind::Timeout, message).retryable(true);
        match places.last_failure() {
            Some(failure) => error.caused_by(failure.clone()),
            None => error,
        }
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places<Member>> {
        lock(&self.places)
    }
}

impl Owner for Keeper {
    fn gone(&self) {
        self.places().gone();
        self.changed.notify_one();
        self.booted.notify_waiters();
    }
}

impl Subject for Keeper {
    fn subject(&self) -> String {
        match &self.name {
            Some(name) => format!("pool {name:?}"),
            None => "pool".into(),
        }
    }
}

impl Reserve for Keeper {
    fn spare(&self) -> usize {
        self.places().idle()
    }

    fn give_up(self: Arc<Self>) -> bool {
        let given = self.places().give_up();
        let is_given = given.is_some();
        if let Some(member) = given {
            self.stats.retired();
            self.remove(member);
        }
        is_given
    }
}

/// The failure of whoever asks a pool that was closed.
pub(super) fn closed() -> Error {
    Error::invalid("the pool was closed; make another")
}
