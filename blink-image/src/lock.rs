//! The image store's locks.

use std::io;
use std::path::Path;
use std::time::Duration;

use blink_host::file_lock::{self, FileLock, NotLocked, Share};

/// How long an image may be unpacked, or removed, by someone else: the largest that there is, on a slow disk. Whoever is
/// stopped meanwhile is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// A lock on a file, held while this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _lock: FileLock,
}

impl Lock {
    /// Waits for what others hold for good reason.
    pub(crate) fn exclusive(path: &Path) -> io::Result<Self> {
        Self::take(path, Share::Alone, PATIENCE)
    }

    /// Shares the lock with others who share it.
    pub(crate) fn shared(path: &Path) -> io::Result<Self> {
        Self::take(path, Share::Shared, PATIENCE)
    }

    /// Waits so long at most.
    ///
    /// # Errors
    /// `ResourceBusy`, with whoever holds it, where others still hold it then.
    pub(crate) fn exclusive_within(path: &Path, patience: Duration) -> io::Result<Self> {
        Self::take(path, Share::Alone, patience)
    }

    fn take(path: &Path, share: Share, patience: Duration) -> io::Result<Self> {
        match FileLock::take(file_lock::open(path)?, share, patience) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err(NotLocked::Failed(error)) => Err(error),
            Err(NotLocked::Held(held)) => Err(io::Error::new(io::ErrorKind::ResourceBusy, held)),
        }
    }
}
