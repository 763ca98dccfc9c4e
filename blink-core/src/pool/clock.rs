//! The time that pools go by.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since the host started, with the time for which it was suspended: a member that has slept with it has aged.
pub(super) fn now() -> Duration {
    of(ClockId::Boottime)
}

/// For how long the host was suspended, in all.
pub(super) fn suspended() -> Duration {
    // In this order, what lies between the two looks is not taken for sleep.
    let awake = of(ClockId::Monotonic);
    now().saturating_sub(awake)
}

fn of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanoseconds)
}
