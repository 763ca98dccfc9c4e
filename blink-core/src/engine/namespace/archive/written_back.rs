//! Has the kernel write to the disk while files are still unpacked: left to itself, it begins when a tenth of the memory is
//! to be written, which is later than most archives are long, and then all of it is waited for at the end.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// After how much: some tenths of a second's worth, so that a call costs little beside what it writes.
const STEP_BYTES: u64 = 64 << 20;

/// Passes bytes on to who unpacks them.
pub(super) struct WrittenBack<T> {
    inner: T,
    since: u64,
    steps: SyncSender<()>,
}

/// The other end of [`WrittenBack`].
pub(super) struct Steps(Receiver<()>);

impl<T> WrittenBack<T> {
    pub(super) fn new(inner: T) -> (Steps, WrittenBack<T>) {
        // While one step is written, the next ones become one.
        let (steps, taken) = sync_channel(1);
        let since = 0;
        (
            Steps(taken),
            WrittenBack {
                inner,
                since,
                steps,
            },
        )
    }
}

impl<T: Read> Read for WrittenBack<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.since += read as u64;
        if self.since >= STEP_BYTES {
            self.since = 0;
            let _ = self.steps.try_send(());
        }
        Ok(read)
    }
}

impl Steps {
    /// Writes what the file system of `folder` has to write, until all is unpacked.
    ///
    /// # Errors
    /// What the disk says, which it says only once.
    pub(super) fn write_back(self, folder: impl AsFd) -> io::Result<()> {
        let mut written = Ok(());
        while self.0.recv().is_ok() {
            written = written.and(rustix::fs::syncfs(&folder).map_err(io::Error::from));
        }
        written
    }
}
