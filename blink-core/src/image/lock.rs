//! Locks between processes: the kernel lets go of them when their holder ends, however it ends.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// How often is looked whether a lock has become free, where the wait has an end.
const PAUSE: Duration = Duration::from_millis(20);

/// A lock on a file, held while this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Waits for as long as it takes. For what others hold shortly, or for good reason.
    pub(crate) fn exclusive(path: &Path) -> io::Result<Self> {
        Self::wait(path, FlockOperation::LockExclusive)
    }

    /// Shares the lock with others who share it.
    pub(crate) fn shared(path: &Path) -> io::Result<Self> {
        Self::wait(path, FlockOperation::LockShared)
    }

    /// Waits so long at most; `None` where others still hold it then.
    pub(crate) fn exclusive_within(path: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let begun = Instant::now();
        let file = open(path)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self { file })),
                Err(Errno::WOULDBLOCK | Errno::INTR) if begun.elapsed() < patience => {
                    std::thread::sleep(PAUSE);
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(path: &Path, operation: FlockOperation) -> io::Result<Self> {
        let file = open(path)?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Err(Errno::INTR) => {}
                other => return other.map(|()| Self { file }).map_err(Into::into),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Said, not left to the closing: a child that is just being forked has the same open file for a moment longer.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .read(true)
        .append(true)
        .open(path)
}
