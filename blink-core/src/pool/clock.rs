//! The time that pools go by.

use std::time::Duration;

/// Since the host started, with the time for which it was suspended: a member that has slept with it has aged.
pub(super) fn now() -> Duration {
    of(libc::CLOCK_BOOTTIME)
}

/// For how long the host was suspended, in all.
pub(super) fn suspended() -> Duration {
    // In this order, what lies between the two looks is not taken for sleep.
    let awake = of(libc::CLOCK_MONOTONIC);
    now().saturating_sub(awake)
}

/// By the C library: where programs are watched by valgrind, the kernel's own page for this is not there.
fn of(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it is written to `time`, which is there. Both clocks are on every Linux, so that it cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanoseconds)
}
