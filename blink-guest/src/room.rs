//! What may still be written to a disk that the guard watches over.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a measurement is waited for: it takes a moment, or there are so many files that an answer now counts more.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most that transfers leave.
const LEFT: u64 = 1 << 20;

/// Bytes that the disk may get, as the guard has found, less what has been taken since.
pub(crate) struct Room {
    state: Mutex<State>,
    measured: Condvar,
}

struct State {
    bytes: u64,
    /// Somebody needs more, and what was taken may have been given back.
    is_doubted: bool,
    measurements: u64,
}

impl Room {
    /// Without an end, until something is measured.
    pub(crate) fn new() -> Room {
        let state = State {
            bytes: u64::MAX,
            is_doubted: false,
            measurements: 0,
        };
        Room {
            state: Mutex::new(state),
            measured: Condvar::new(),
        }
    }

    /// What was measured. Of that, transfers leave a part: folders and the file system's own blocks take some, and programs end
    /// where a disk is over its limit.
    pub(crate) fn set(&self, bytes: u64) {
        let mut state = self.lock();
        state.bytes = bytes - (bytes / 16).min(LEFT);
        state.is_doubted = false;
        state.measurements += 1;
        self.measured.notify_all();
    }

    /// Whether somebody waits for a measurement.
    pub(crate) fn is_doubted(&self) -> bool {
        self.lock().is_doubted
    }

    /// Takes so much of it; waits for a measurement where there is less. False where there is less then too.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        if state.bytes < bytes {
            state.is_doubted = true;
            let before = state.measurements;
            let waiting = |state: &mut State| state.measurements == before;
            let waited = self.measured.wait_timeout_while(state, PATIENCE, waiting);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let left = state.bytes.checked_sub(bytes);
        state.bytes = left.unwrap_or(state.bytes);
        left.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_was_given_back_is_there_after_a_measurement() {
        let room = Arc::new(Room::new());
        assert!(room.take(1 << 40));
        room.set(10);
        assert!(room.take(10) && !room.is_doubted());
        let (waiting, measured) = (room.clone(), room.clone());
        let taking = std::thread::spawn(move || waiting.take(8));
        while !measured.is_doubted() {
            std::thread::yield_now();
        }
        measured.set(9);
        assert!(taking.join().unwrap());
        // No more than there is, also then.
        let waiting = room.clone();
        let taking = std::thread::spawn(move || waiting.take(2));
        while !room.is_doubted() {
            std::thread::yield_now();
        }
        room.set(1);
        assert!(!taking.join().unwrap());
        assert!(room.take(1));
    }
}
