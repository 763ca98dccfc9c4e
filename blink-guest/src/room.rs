//! What may still be written to a disk that the guard watches over.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a measurement is waited for: it takes a moment, or there are so many files that an answer now counts more.
const PATIENCE: Duration = Duration::from_secs(5);

/// What transfers leave of a disk: folders and the file system's own blocks take some, and programs end where a disk is over its
/// limit. A part of the limit and not of what is left of it, which would get smaller with each measurement.
fn left_over(limit: u64) -> u64 {
    const ENOUGH: u64 = 1 << 20;
    (limit / 16).min(ENOUGH)
}

/// Bytes that transfers may still write: what the guard measured, less what was taken since.
///
/// A measurement takes time, and sees only some of what is written meanwhile. What was taken while it ran counts as not seen.
pub(crate) struct Room {
    state: Mutex<State>,
    measured: Condvar,
    doubted: Condvar,
}

struct State {
    bytes: u64,
    /// Somebody needs more, and what was taken may have been given back.
    is_doubted: bool,
    /// Taken, and perhaps not written yet.
    unwritten: u64,
    /// What the measurement that runs, or the next one, may not see.
    unseen: u64,
    begun: u64,
    ended: u64,
}

impl Room {
    /// Without an end, until something is measured.
    pub(crate) fn new() -> Room {
        let state = State {
            bytes: u64::MAX,
            is_doubted: false,
            unwritten: 0,
            unseen: 0,
            begun: 0,
            ended: 0,
        };
        Room {
            state: Mutex::new(state),
            measured: Condvar::new(),
            doubted: Condvar::new(),
        }
    }

    /// A measurement begins. True if somebody waits for it.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        state.begun += 1;
        state.unseen = state.unwritten;
        std::mem::take(&mut state.is_doubted)
    }

    /// Waits so long, or until somebody waits for a measurement; says which.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let calm = |state: &mut State| !state.is_doubted;
        let waited = self.doubted.wait_timeout_while(self.lock(), time, calm);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_doubted
    }

    /// Has everything looked at now.
    pub(crate) fn doubt(&self) {
        self.lock().is_doubted = true;
        self.doubted.notify_all();
    }

    /// The measurement that began last has found so much room on a disk of this limit.
    pub(crate) fn set(&self, bytes: u64, limit: u64) {
        let mut state = self.lock();
        state.bytes = bytes.saturating_sub(left_over(limit) + state.unseen);
        state.ended = state.begun;
        self.measured.notify_all();
    }

    /// Takes so much of it. What the caller took before, and has written since, is `written`. Where there is less, waits for a
    /// measurement that begins afterwards; false if there is less then too.
    pub(crate) fn take(&self, bytes: u64, written: u64) -> bool {
        let mut state = self.lock();
        state.unwritten -= written;
        if state.bytes < bytes {
            state.is_doubted = true;
            self.doubted.notify_all();
            let last = state.begun;
            let waiting = |state: &mut State| state.bytes < bytes && state.ended <= last;
            let waited = self.measured.wait_timeout_while(state, PATIENCE, waiting);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let Some(left) = state.bytes.checked_sub(bytes) else {
            return false;
        };
        state.bytes = left;
        state.unwritten += bytes;
        state.unseen += bytes;
        true
    }

    /// Says that so much of what was taken is written.
    pub(crate) fn written(&self, bytes: u64) {
        self.lock().unwritten -= bytes;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Measures so much, once somebody waits for it.
    fn measure(room: &Room, bytes: u64) {
        assert!(room.wait(PATIENCE) && room.begin());
        room.set(bytes, 10);
    }

    #[test]
    fn what_was_given_back_is_there_after_a_measurement() {
        let room = Arc::new(Room::new());
        assert!(room.take(1 << 40, 0));
        room.written(1 << 40);
        assert!(!room.begin());
        room.set(10, 10);
        assert!(room.take(10, 0));
        room.written(10);
        let waiting = room.clone();
        let taking = std::thread::spawn(move || waiting.take(8, 0));
        measure(&room, 9);
        assert!(taking.join().unwrap());
        room.written(8);
        // No more than there is, also then.
        let waiting = room.clone();
        let taking = std::thread::spawn(move || waiting.take(2, 0));
        measure(&room, 1);
        assert!(!taking.join().unwrap());
        assert!(room.take(1, 0));
    }

    #[test]
    fn what_is_left_over_does_not_get_smaller() {
        let room = Room::new();
        let limit = 32 << 20;
        room.begin();
        room.set(limit, limit);
        assert!(room.take(31 << 20, 0) && room.lock().bytes == 0);
        room.written(31 << 20);
        for _ in 0..100 {
            room.begin();
            room.set(1 << 20, limit);
            assert_eq!(room.lock().bytes, 0);
        }
    }

    #[test]
    fn what_a_measurement_may_not_have_seen_is_not_given_twice() {
        let room = Arc::new(Room::new());
        room.begin();
        room.set(10, 10);
        // The first two are written when the measurement begins, the others while it runs.
        assert!(room.take(2, 0));
        room.written(2);
        assert!(room.take(3, 0));
        room.begin();
        assert!(room.take(1, 3));
        room.set(8, 10);
        let waiting = room.clone();
        let taking = std::thread::spawn(move || waiting.take(5, 1));
        measure(&room, 4);
        assert!(!taking.join().unwrap());
        assert!(room.take(4, 0));
    }

    #[test]
    fn a_measurement_that_began_too_early_is_not_believed() {
        let room = Arc::new(Room::new());
        room.begin();
        room.set(4, 10);
        assert!(room.take(4, 0));
        room.begin();
        room.written(4);
        // The four are removed, which this measurement does not see.
        let waiting = room.clone();
        let taking = std::thread::spawn(move || waiting.take(3, 0));
        assert!(room.wait(PATIENCE));
        room.set(0, 10);
        measure(&room, 4);
        assert!(taking.join().unwrap());
    }
}
