//! Places between two steps that must survive a crash. A debug build ends there when a test asks for it, as if it were
//! killed: `BLINK_TEST_CRASH_AT` is the number of the place, from 0, in the order in which a process comes by.

/// A place where a crash is to be survived.
pub(crate) fn step() {
    #[cfg(debug_assertions)]
    count();
}

#[cfg(debug_assertions)]
fn count() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static CRASH_AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("BLINK_TEST_CRASH_AT").ok()?.parse().ok());
    static STEPS: AtomicU64 = AtomicU64::new(0);
    let Some(crash_at) = *CRASH_AT else {
        return;
    };
    if STEPS.fetch_add(1, Ordering::Relaxed) == crash_at {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
