//! What all sandboxes of a [`Blink`](crate::Blink) may have of the host together.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use blink_host::lock;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// How long a boot waits for what others were asked to give up: they are killed at once, and removed in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who has sandboxes that nobody uses, and can give some up.
pub(crate) trait Reserve: Send + Sync {
    /// How many they are.
    fn spare(&self) -> usize;

    /// Gives up one; `false` if there is none.
    fn give_up(self: Arc<Self>) -> bool;
}

/// What somebody boots a sandbox for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Somebody waits for it: what nobody uses makes room.
    Now,
    /// It is kept in reserve: it takes what is left.
    Reserve,
}

/// Limits, and what is taken of them.
pub(crate) struct Budget {
    memory_mib: Option<u64>,
    sandboxes: Option<usize>,
    taken: Mutex<Taken>,
    freed: Notify,
    reserves: Mutex<Vec<Weak<dyn Reserve>>>,
}

#[derive(Default)]
struct Taken {
    memory_mib: u64,
    sandboxes: usize,
}

/// What one sandbox has taken of the budget, until this is dropped.
pub(crate) struct Share {
    budget: Arc<Budget>,
    memory_mib: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = lock(&self.budget.taken);
        taken.memory_mib -= self.memory_mib;
        taken.sandboxes -= 1;
        drop(taken);
        self.budget.freed.notify_waiters();
    }
}

impl Budget {
    pub(crate) fn new(memory_mib: Option<u64>, sandboxes: Option<usize>) -> Arc<Budget> {
        Arc::new(Budget {
            memory_mib,
            sandboxes,
            taken: Mutex::default(),
            freed: Notify::new(),
            reserves: Mutex::default(),
        })
    }

    /// Knows somebody who can give up sandboxes.
    pub(crate) fn add(&self, reserve: Weak<dyn Reserve>) {
        let mut reserves = lock(&self.reserves);
        reserves.retain(|reserve| reserve.strong_count() > 0);
        reserves.push(reserve);
    }

    /// Takes what a sandbox needs.
    ///
    /// # Errors
    /// `ResourceExhausted`.
    pub(crate) async fn take(self: &Arc<Self>, memory_mib: u64, need: Need) -> Result<Share> {
        if self.memory_mib.is_some_and(|most| memory_mib > most) {
            return Err(self.exhausted(memory_mib).retryable(false));
        }
        let begun = Instant::now();
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(share) = self.try_take(memory_mib) {
                return Ok(share);
            }
            // What was given up is there in a moment.
            let left = PATIENCE.saturating_sub(begun.elapsed());
            if need == Need::Reserve || left.is_zero() || !self.have_some_given_up() {
                return Err(self.exhausted(memory_mib));
            }
            let _ = tokio::time::timeout(left, freed).await;
        }
    }

    fn try_take(self: &Arc<Self>, memory_mib: u64) -> Option<Share> {
        let mut taken = lock(&self.taken);
        let memory = taken.memory_mib.saturating_add(memory_mib);
        let fits = self.memory_mib.is_none_or(|most| memory <= most)
            && self.sandboxes.is_none_or(|most| taken.sandboxes < most);
        fits.then(|| {
            taken.memory_mib = memory;
            taken.sandboxes += 1;
            Share {
                budget: self.clone(),
                memory_mib,
            }
        })
    }

    /// Asks whoever has most.
    fn have_some_given_up(&self) -> bool {
        let reserves = lock(&self.reserves).clone();
        let reserves = reserves.iter().filter_map(Weak::upgrade);
        let most = reserves.max_by_key(|reserve| reserve.spare());
        most.is_some_and(Reserve::give_up)
    }

    fn exhausted(&self, memory_mib: u64) -> Error {
        let taken = lock(&self.taken);
        let most = |most: Option<String>| most.unwrap_or_else(|| "any number".into());
        let message = format!(
            "the budget is used up: {} sandboxes with {} MiB of memory are there, of {} with {} MiB at most, and one more needs \
             {memory_mib} MiB; remove some, or raise the budget",
            taken.sandboxes,
            taken.memory_mib,
            most(self.sandboxes.map(|most| most.to_string())),
            most(self.memory_mib.map(|most| most.to_string())),
        );
        Error::new(ErrorKind::ResourceExhausted, message).retryable(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Spare {
        shares: Mutex<Vec<Share>>,
    }

    impl Reserve for Spare {
        fn spare(&self) -> usize {
            lock(&self.shares).len()
        }

        fn give_up(self: Arc<Self>) -> bool {
            lock(&self.shares).pop().is_some()
        }
    }

    #[tokio::test]
    async fn what_is_kept_in_reserve_makes_room_for_what_is_needed() {
        let budget = Budget::new(Some(100), Some(3));
        let mut shares = Vec::new();
        for _ in 0..3 {
            shares.push(budget.take(30, Need::Reserve).await.unwrap());
        }
        let error = budget.take(1, Need::Now).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(
            error.message().contains("3 sandboxes with 90 MiB"),
            "{error}"
        );
        let spare: Arc<dyn Reserve> = Arc::new(Spare {
            shares: Mutex::new(shares),
        });
        budget.add(Arc::downgrade(&spare));
        assert!(budget.take(10, Need::Reserve).await.is_err());
        let _first = budget.take(40, Need::Now).await.unwrap();
        let _second = budget.take(60, Need::Now).await.unwrap();
        assert_eq!(spare.spare(), 0);
        assert!(budget.take(1, Need::Now).await.is_err());
        let error = budget.take(101, Need::Now).await.err().unwrap();
        assert!(!error.is_retryable());
    }
}
