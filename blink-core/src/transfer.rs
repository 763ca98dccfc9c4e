//! What goes to files and comes from them: counted, hashed, and told to whoever waits.

use std::io::{self, Read, Write};
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// How far an export or an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferProgress {
    /// Bytes that are done.
    pub bytes_done: u64,
    /// Bytes of all, where that is known before the end.
    pub bytes_total: Option<u64>,
}

/// Whom to tell how far it is.
pub(crate) type Tell = Arc<dyn Fn(TransferProgress) + Send + Sync>;

/// Nobody.
pub(crate) fn tell_nobody() -> Tell {
    Arc::new(|_| {})
}

/// How often somebody is told: after so many bytes, which take some milliseconds.
const STEP: u64 = 4 << 20;

/// Tells how many bytes have come through.
pub(crate) struct Told<T> {
    inner: T,
    tell: Tell,
    done: u64,
    told: u64,
    total: Option<u64>,
}

impl<T> Told<T> {
    /// `done` bytes were there before.
    pub(crate) fn new(inner: T, tell: &Tell, done: u64, total: Option<u64>) -> Told<T> {
        Told {
            inner,
            tell: tell.clone(),
            done,
            told: done,
            total,
        }
    }

    fn came(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.done - self.told >= STEP {
            self.say();
        }
    }

    fn say(&mut self) {
        self.told = self.done;
        (self.tell)(TransferProgress {
            bytes_done: self.done,
            bytes_total: self.total,
        });
    }

    /// Tells what was not told yet; how many bytes it were.
    pub(crate) fn finish(mut self) -> (T, u64) {
        self.say();
        (self.inner, self.done)
    }
}

impl<T: Write> Write for Told<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.came(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Told<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.came(read);
        Ok(read)
    }
}

/// Counts and hashes what comes through.
pub(crate) struct Hashed<T> {
    inner: T,
    pub(crate) count: u64,
    hasher: Sha256,
}

impl<T> Hashed<T> {
    pub(crate) fn new(inner: T) -> Hashed<T> {
        Hashed {
            inner,
            count: 0,
            hasher: Sha256::new(),
        }
    }

    /// The digest of all that came, in hexadecimal digits.
    pub(crate) fn hex(self) -> String {
        self.finish().1
    }

    /// What it came through, and the digest of it in hexadecimal digits.
    pub(crate) fn finish(self) -> (T, String) {
        (self.inner, hex(self.hasher))
    }

    fn came(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        self.hasher.update(bytes);
    }
}

/// The digest of some bytes, in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

fn hex(hasher: Sha256) -> String {
    let digest = hasher.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.came(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.came(&buffer[..read]);
        Ok(read)
    }
}
