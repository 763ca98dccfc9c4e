//! Who waits in a pool for whom: members for claimants, and claimants for members. Nothing here boots, waits or looks at a
//! clock: times are those of the caller, so that each decision can be tested.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::Error;

/// The pause after the first boot that fails; after each further one it is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: what is broken is tried often enough to be found working soon after it was repaired.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// So long after a claim nothing is booted that nobody waits for, as long as half of the members are there: what was claimed is
/// being used right now, and a boot beside it would hold it up.
const QUIET: Duration = Duration::from_millis(10);

/// What a pool may have.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Members that wait to be claimed.
    pub(super) size: usize,
    /// Sandboxes in all: those that wait, those that boot, and those that were claimed and are not gone.
    pub(super) max: usize,
    /// Boots at once while nobody waits for them.
    pub(super) refill: usize,
    /// Boots at once while somebody does.
    pub(super) burst: usize,
    /// A member that is older is replaced.
    pub(super) max_age: Option<Duration>,
    /// After so long without a claim, no member is kept.
    pub(super) max_idle: Option<Duration>,
    /// Whether the sandboxes are always the same in number: one that was claimed has its place until it is gone, and another
    /// is booted there only then.
    pub(super) resets: bool,
    /// Whether a failed boot is the failure of who has waited longest; otherwise it goes on waiting.
    pub(super) fails_claims: bool,
}

struct Idle<M> {
    member: M,
    /// When it was booted.
    born: Duration,
}

/// What a claimant waits for.
pub(super) type Answer<M> = oneshot::Receiver<Result<M, Error>>;

/// What a claim comes to at once.
pub(super) enum Claim<M> {
    Member(M),
    Wait(Answer<M>),
    Closed,
}

/// A member that came, or did not.
pub(super) enum Delivered {
    /// To somebody who had waited.
    Taken,
    /// To those that wait to be claimed.
    Kept,
}

/// The members and claimants of one pool. Times are since any moment, the same for all.
pub(super) struct Places<M> {
    limits: Limits,
    /// The oldest first.
    idle: VecDeque<Idle<M>>,
    waiting: VecDeque<oneshot::Sender<Result<M, Error>>>,
    booting: usize,
    /// Those that have booted and are not gone: they wait, were claimed, or are being removed.
    alive: usize,
    last_claim: Duration,
    has_been_claimed: bool,
    failures: u32,
    paused_until: Duration,
    last_failure: Option<Error>,
    closed: bool,
}

impl<M> Places<M> {
    pub(super) fn new(limits: Limits, now: Duration) -> Places<M> {
        Places {
            limits,
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            booting: 0,
            alive: 0,
            last_claim: now,
            has_been_claimed: false,
            failures: 0,
            paused_until: Duration::ZERO,
            last_failure: None,
            closed: false,
        }
    }

    /// Takes the member that waits longest and is good, or a place in the queue. Members that are not good come back beside it.
    pub(super) fn claim(
        &mut self,
        now: Duration,
        mut is_good: impl FnMut(&M) -> bool,
    ) -> (Claim<M>, Vec<M>) {
        let mut bad = Vec::new();
        if self.closed {
            return (Claim::Closed, bad);
        }
        self.last_claim = now;
        self.has_been_claimed = true;
        // Who comes later does not overtake.
        while self.waiting.is_empty()
            && let Some(idle) = self.idle.pop_front()
        {
            if !self.is_stale(&idle, now) && is_good(&idle.member) {
                return (Claim::Member(idle.member), bad);
            }
            bad.push(idle.member);
        }
        let (sender, answer) = oneshot::channel();
        self.waiting.push_back(sender);
        (Claim::Wait(answer), bad)
    }

    /// How many members to boot now; they count as booting from here on.
    pub(super) fn boots(&mut self, now: Duration) -> usize {
        if self.closed {
            return 0;
        }
        // Who gave up waits for nothing.
        self.waiting.retain(|waiter| !waiter.is_closed());
        let kept = match self.sleeps(now) {
            true => 0,
            false => self.wanted().saturating_sub(self.idle.len()),
        };
        let is_paused =
            now < self.paused_until || self.quiet_until().is_some_and(|until| now < until);
        let (wanted, at_once) = match self.waiting.len() {
            0 if is_paused => return 0,
            0 => (kept, self.limits.refill),
            // What nobody waits for may wait for the end of the pause, and so may those whom a failure is not told.
            waiting if is_paused && self.limits.fails_claims => (waiting, self.limits.burst),
            _ if is_paused => return 0,
            waiting => (waiting + kept, self.limits.burst),
        };
        let room = self.limits.max.saturating_sub(self.total());
        let boots = wanted
            .saturating_sub(self.booting)
            .min(at_once.saturating_sub(self.booting))
            .min(room);
        self.booting += boots;
        boots
    }

    /// A boot has succeeded: there is one more until it is [`gone`](Places::gone). It comes back if the pool was closed meanwhile.
    pub(super) fn booted(&mut self, mut member: M, born: Duration) -> Result<Delivered, M> {
        self.booting -= 1;
        self.alive += 1;
        if self.closed {
            return Err(member);
        }
        self.failures = 0;
        self.last_failure = None;
        self.paused_until = Duration::ZERO;
        while let Some(waiter) = self.waiting.pop_front() {
            member = match waiter.send(Ok(member)) {
                // What was sent comes back from who has given up.
                Err(Ok(back)) => back,
                _ => return Ok(Delivered::Taken),
            };
        }
        if !self.has_been_claimed {
            // It is being filled for the first time.
            self.last_claim = born;
        }
        self.idle.push_back(Idle { member, born });
        Ok(Delivered::Kept)
    }

    /// A boot has failed; says for how long the pool pauses.
    pub(super) fn failed(&mut self, error: &Error, now: Duration) -> Duration {
        self.booting -= 1;
        let pause = FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.paused_until = now + pause;
        self.last_failure = Some(error.clone());
        if self.limits.fails_claims {
            while let Some(waiter) = self.waiting.pop_front() {
                if waiter.send(Err(error.clone())).is_ok() {
                    break;
                }
            }
        }
        pause
    }

    /// One that had booted is gone.
    pub(super) fn gone(&mut self) {
        self.alive -= 1;
    }

    /// Takes out the members that are not to be kept: those that are too old, or not good, or all where nobody has claimed one
    /// for long.
    pub(super) fn retired(&mut self, now: Duration, mut is_good: impl FnMut(&M) -> bool) -> Vec<M> {
        let sleeps = self.sleeps(now);
        let (mut kept, mut retired) = (VecDeque::new(), Vec::new());
        while let Some(idle) = self.idle.pop_front() {
            match !sleeps && !self.is_stale(&idle, now) && is_good(&idle.member) {
                true => kept.push_back(idle),
                false => retired.push(idle.member),
            }
        }
        self.idle = kept;
        retired
    }

    /// When something changes by itself, at the earliest: a member becomes too old, a pause is over.
    pub(super) fn next_change(&self, now: Duration) -> Option<Duration> {
        let oldest = self.idle.front().zip(self.limits.max_age);
        let too_old = oldest.map(|(idle, age)| idle.born + age);
        let asleep = self.limits.max_idle.filter(|_| !self.idle.is_empty());
        let asleep = asleep.map(|idle| self.last_claim + idle);
        let pause = (self.paused_until > now).then_some(self.paused_until);
        let quiet = self.quiet_until().filter(|until| *until > now);
        [too_old, asleep, pause, quiet].into_iter().flatten().min()
    }

    /// Ends it: nobody who waits gets anything, and all members come back.
    pub(super) fn close(&mut self, error: &Error) -> Vec<M> {
        self.closed = true;
        for waiter in self.waiting.drain(..) {
            let _ = waiter.send(Err(error.clone()));
        }
        self.idle.drain(..).map(|idle| idle.member).collect()
    }

    /// Gives up the member that waits longest, for somebody who needs its room more.
    pub(super) fn give_up(&mut self) -> Option<M> {
        self.idle.pop_front().map(|idle| idle.member)
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// For how long the members wait that wait to be claimed, the longest first.
    pub(super) fn ages(&self, now: Duration) -> impl Iterator<Item = Duration> {
        let born = self.idle.iter().map(|idle| idle.born);
        born.map(move |born| now.saturating_sub(born))
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &M> {
        self.idle.iter().map(|idle| &idle.member)
    }

    pub(super) fn waiting(&self) -> usize {
        let waiting = self.waiting.iter();
        waiting.filter(|waiter| !waiter.is_closed()).count()
    }

    pub(super) fn booting(&self) -> usize {
        self.booting
    }

    /// Those that were claimed or taken out, and are not gone.
    pub(super) fn out(&self) -> usize {
        self.alive - self.idle.len()
    }

    /// Whether as many wait as are to.
    pub(super) fn is_full(&self, now: Duration) -> bool {
        self.sleeps(now) || self.idle.len() >= self.wanted()
    }

    /// How many are to wait.
    fn wanted(&self) -> usize {
        let beside = match self.limits.resets {
            true => self.limits.size,
            false => self.limits.max,
        };
        self.limits.size.min(beside.saturating_sub(self.out()))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Why the last boot has failed, if none has succeeded since.
    pub(super) fn last_failure(&self) -> Option<&Error> {
        self.last_failure.as_ref()
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Until when nothing is booted that nobody waits for.
    fn quiet_until(&self) -> Option<Duration> {
        let enough = self.waiting.is_empty() && 2 * self.idle.len() >= self.wanted();
        let is_used = enough && self.idle.len() < self.wanted() && self.has_been_claimed;
        is_used.then_some(self.last_claim + QUIET)
    }

    fn total(&self) -> usize {
        self.alive + self.booting
    }

    fn is_stale(&self, idle: &Idle<M>, now: Duration) -> bool {
        let age = now.saturating_sub(idle.born);
        self.limits.max_age.is_some_and(|most| age >= most)
    }

    /// Whether nobody has claimed a member for so long that none is kept.
    fn sleeps(&self, now: Duration) -> bool {
        let without = now.saturating_sub(self.last_claim);
        self.limits.max_idle.is_some_and(|most| without >= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const LIMITS: Limits = Limits {
        size: 2,
        max: 4,
        refill: 1,
        burst: 3,
        max_age: Some(Duration::from_secs(100)),
        max_idle: None,
        resets: false,
        fails_claims: true,
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn pool(limits: Limits) -> Places<u32> {
        Places::new(limits, at(0))
    }

    /// Boots all that is to be booted, members of these numbers.
    fn fill(pool: &mut Places<u32>, mut number: u32, now: Duration) -> u32 {
        while pool.boots(now) > 0 {
            for _ in 0..pool.booting() {
                assert!(pool.booted(number, now).is_ok());
                number += 1;
            }
        }
        number
    }

    fn claim(pool: &mut Places<u32>, now: Duration) -> Claim<u32> {
        let (claim, bad) = pool.claim(now, |_| true);
        assert!(bad.is_empty());
        claim
    }

    fn member(claim: Claim<u32>) -> u32 {
        match claim {
            Claim::Member(member) => member,
            _ => panic!("no member"),
        }
    }

    fn answer(claim: Claim<u32>) -> Answer<u32> {
        match claim {
            Claim::Wait(answer) => answer,
            _ => panic!("nothing to wait for"),
        }
    }

    fn broken() -> Error {
        Error::new(ErrorKind::Internal, "broken")
    }

    #[test]
    fn it_is_filled_one_by_one_and_the_oldest_goes_first() {
        let mut pool = pool(LIMITS);
        assert_eq!(pool.boots(at(0)), 1);
        assert_eq!(pool.boots(at(0)), 0);
        assert!(pool.booted(7, at(0)).is_ok());
        assert!(!pool.is_full(at(0)));
        assert_eq!(fill(&mut pool, 8, at(1)), 9);
        assert!(pool.is_full(at(1)));
        assert_eq!(member(claim(&mut pool, at(2))), 7);
        // While half of the members are left, refilling waits until claims pause.
        assert_eq!(
            (pool.boots(at(2)), pool.next_change(at(2))),
            (0, Some(at(2) + QUIET))
        );
        assert_eq!(pool.boots(at(2) + QUIET), 1);
        assert_eq!((pool.idle(), pool.booting(), pool.out()), (1, 1, 1));
    }

    #[test]
    fn claims_are_first_come_first_served() {
        let mut pool = pool(LIMITS);
        let mut answers: Vec<_> = (0..3).map(|_| answer(claim(&mut pool, at(0)))).collect();
        // More at once than for those that nobody waits for, and no more than that at once.
        assert_eq!(pool.boots(at(0)), 3);
        assert_eq!(pool.boots(at(0)), 0);
        // One gives up: its member is the next one's.
        drop(answers.remove(1));
        for member in [1, 2] {
            assert!(matches!(pool.booted(member, at(0)), Ok(Delivered::Taken)));
        }
        assert!(matches!(pool.booted(3, at(0)), Ok(Delivered::Kept)));
        for (mut answer, member) in answers.into_iter().zip([1, 2]) {
            assert_eq!(answer.try_recv().unwrap().unwrap(), member);
        }
        // While somebody waits, who comes later does not overtake.
        assert_eq!(member(claim(&mut pool, at(0))), 3);
        let mut first = answer(claim(&mut pool, at(0)));
        assert_eq!(pool.boots(at(0)), 1);
        let mut second = answer(claim(&mut pool, at(0)));
        assert!(pool.booted(4, at(0)).is_ok());
        assert_eq!(first.try_recv().unwrap().unwrap(), 4);
        assert!(second.try_recv().is_err());
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let mut pool = pool(LIMITS);
        fill(&mut pool, 0, at(0));
        let mut waiting = Vec::new();
        for _ in 0..10 {
            if let Claim::Wait(answer) = claim(&mut pool, at(0)) {
                waiting.push(answer);
            }
            fill(&mut pool, 10, at(0));
            assert!(pool.idle() + pool.booting() + pool.out() <= LIMITS.max);
        }
        assert_eq!((pool.out(), pool.waiting()), (4, 6));
        assert_eq!(pool.boots(at(0)), 0);
        pool.gone();
        assert_eq!(pool.boots(at(0)), 1);
    }

    #[test]
    fn a_place_is_filled_again_only_when_it_is_free() {
        let mut pool = pool(Limits {
            max: 2,
            resets: true,
            ..LIMITS
        });
        fill(&mut pool, 0, at(0));
        assert_eq!(member(claim(&mut pool, at(0))), 0);
        assert_eq!((pool.boots(at(0)), pool.is_full(at(0))), (0, true));
        pool.gone();
        assert!(!pool.is_full(at(1)));
        assert_eq!(fill(&mut pool, 2, at(1)), 3);
        assert_eq!(member(claim(&mut pool, at(1))), 1);
    }

    #[test]
    fn what_is_dead_or_stale_is_never_handed_out() {
        let mut pool = pool(LIMITS);
        fill(&mut pool, 0, at(0));
        let (claimed, bad) = pool.claim(at(1), |member| *member != 0);
        assert_eq!((member(claimed), bad), (1, vec![0]));
        pool.gone();
        fill(&mut pool, 2, at(2));
        let (claimed, bad) = pool.claim(at(102), |_| true);
        assert!(matches!(claimed, Claim::Wait(_)));
        assert_eq!(bad, [2, 3]);
        pool.gone();
        pool.gone();
        fill(&mut pool, 4, at(102));
        assert_eq!(pool.next_change(at(103)), Some(at(202)));
        assert!(pool.retired(at(201), |_| true).is_empty());
        assert_eq!(pool.retired(at(202), |_| true).len(), 2);
    }

    #[test]
    fn nothing_is_kept_while_nobody_claims() {
        let mut pool = pool(Limits {
            max_idle: Some(at(10)),
            ..LIMITS
        });
        fill(&mut pool, 0, at(0));
        assert_eq!(pool.next_change(at(0)), Some(at(10)));
        assert!(pool.retired(at(9), |_| true).is_empty());
        assert_eq!(pool.retired(at(10), |_| true), [0, 1]);
        assert_eq!((pool.boots(at(10)), pool.next_change(at(10))), (0, None));
        assert!(pool.is_full(at(10)));
        pool.gone();
        pool.gone();
        // The next claim wakes it.
        let mut waiting = answer(claim(&mut pool, at(20)));
        fill(&mut pool, 2, at(20));
        assert_eq!(waiting.try_recv().unwrap().unwrap(), 2);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn what_fails_is_told_once_and_tried_again_after_longer_and_longer() {
        let mut pool = pool(LIMITS);
        let mut waiting = [0; 2].map(|_| answer(claim(&mut pool, at(0))));
        assert_eq!(pool.boots(at(0)), 3);
        assert_eq!(pool.failed(&broken(), at(0)), FIRST_PAUSE);
        assert!(waiting[0].try_recv().unwrap().is_err());
        assert!(waiting[1].try_recv().is_err());
        pool.failed(&broken(), at(0));
        assert!(waiting[1].try_recv().unwrap().is_err());
        assert_eq!(pool.failed(&broken(), at(0)), 4 * FIRST_PAUSE);
        // Nobody waits: it pauses. Who comes has a boot of its own.
        assert_eq!(pool.boots(at(0)), 0);
        let _waiting = answer(claim(&mut pool, at(0)));
        assert_eq!(pool.boots(at(0)), 1);
        for _ in 0..20 {
            assert!(pool.failed(&broken(), at(0)) <= LONGEST_PAUSE);
            pool.booting += 1;
        }
        assert!(pool.last_failure().is_some());
        assert!(pool.booted(1, at(0)).is_ok());
        assert!(pool.last_failure().is_none());
    }

    #[test]
    fn who_only_waits_hears_of_no_failure() {
        let mut pool = pool(Limits {
            fails_claims: false,
            ..LIMITS
        });
        let mut waiting = answer(claim(&mut pool, at(0)));
        assert_eq!(pool.boots(at(0)), 3);
        pool.failed(&broken(), at(0));
        assert!(waiting.try_recv().is_err());
        assert_eq!(pool.boots(at(0)), 0);
        assert_eq!(pool.next_change(at(0)), Some(FIRST_PAUSE));
        pool.booting = 0;
        assert!(pool.boots(at(1)) > 0);
    }

    #[test]
    fn who_waits_when_it_is_closed_is_told() {
        let mut pool = pool(LIMITS);
        fill(&mut pool, 0, at(0));
        let claimed = [0; 2].map(|_| member(claim(&mut pool, at(0))));
        assert_eq!(claimed, [0, 1]);
        let mut waiting = answer(claim(&mut pool, at(0)));
        assert!(pool.boots(at(0)) > 0);
        assert!(pool.close(&broken()).is_empty());
        assert!(waiting.try_recv().unwrap().is_err());
        assert_eq!(pool.booted(9, at(0)).err(), Some(9));
        assert_eq!(pool.out(), 3);
        assert!(matches!(claim(&mut pool, at(0)), Claim::Closed));
        assert_eq!(pool.boots(at(0)), 0);
        (0..3).for_each(|_| pool.gone());
        assert_eq!(pool.out(), 0);
    }
}
