//! What goes to files and comes from them: counted, hashed, and told to whoever waits.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

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
pub type Tell = Arc<dyn Fn(TransferProgress) + Send + Sync>;

/// Nobody.
pub fn tell_nobody() -> Tell {
    Arc::new(|_| {})
}

/// How often somebody is told: after so many bytes, which take some milliseconds.
const STEP: u64 = 4 << 20;

/// Tells how many bytes have come through.
pub struct Told<T> {
    inner: T,
    tell: Tell,
    done: u64,
    told: u64,
    total: Option<u64>,
}

impl<T> Told<T> {
    /// `done` bytes were there before.
    pub fn new(inner: T, tell: &Tell, done: u64, total: Option<u64>) -> Told<T> {
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
    pub fn finish(mut self) -> (T, u64) {
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

/// Reads on one thread what another takes.
pub struct Ahead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
}

/// The other end of [`Ahead`].
pub struct Supply(SyncSender<io::Result<Vec<u8>>>);

/// Enough that neither thread waits for the other's every step, in memory that does not count.
const CHUNK: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 8;

impl Ahead {
    /// Two ends: what is supplied to the first is read from the second.
    pub fn new() -> (Supply, Ahead) {
        let (sender, chunks) = sync_channel(CHUNKS_AHEAD);
        let current = io::Cursor::default();
        (Supply(sender), Ahead { chunks, current })
    }
}

impl Supply {
    /// Reads to the end, as far as it is taken. What fails is told to who takes it.
    pub fn read_all(self, mut reader: impl Read) {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = (&mut reader).take(CHUNK as u64).read_to_end(&mut chunk);
            let (is_end, has_failed) = (chunk.is_empty(), read.is_err());
            if is_end && !has_failed {
                return;
            }
            // What came before a failure is taken before it.
            let taken = is_end || self.0.send(Ok(chunk)).is_ok();
            let told = taken && read.map_or_else(|error| self.0.send(Err(error)).is_ok(), |_| true);
            if has_failed || !told {
                return;
            }
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.current.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        match self.chunks.recv() {
            Ok(chunk) => self.current = io::Cursor::new(chunk?),
            // The end of all.
            Err(_) => return Ok(0),
        }
        self.current.read(buffer)
    }
}

/// Counts and hashes what comes through.
pub struct Hashed<T> {
    inner: T,
    /// How many bytes have come.
    pub count: u64,
    hasher: Sha256,
}

impl<T> Hashed<T> {
    /// Hashes what goes through from here on.
    pub fn new(inner: T) -> Hashed<T> {
        Hashed {
            inner,
            count: 0,
            hasher: Sha256::new(),
        }
    }

    /// The digest of all that came, in hexadecimal digits.
    pub fn hex(self) -> String {
        self.finish().1
    }

    /// What it came through, and the digest of it in hexadecimal digits.
    pub fn finish(self) -> (T, String) {
        (self.inner, hex(self.hasher))
    }

    fn came(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        self.hasher.update(bytes);
    }
}

/// The digest of some bytes, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
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

/// Starts a thread of an archive's, where there is room for one.
pub fn beside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let name = "blink-archive".to_owned();
    std::thread::Builder::new()
        .name(name)
        .spawn_scoped(scope, work)
}

/// What a thread beside has given.
pub fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> io::Result<T> {
    let panicked = |_| io::Error::other("the thread that goes with it has panicked");
    thread.join().map_err(panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_ahead_is_all_of_it_or_fails_where_it_failed() {
        struct Failing(usize);
        impl Read for Failing {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let part = buffer.len().min(self.0).min(7000);
                if part == 0 {
                    return Err(io::Error::from_raw_os_error(5));
                }
                buffer[..part].fill(1);
                self.0 -= part;
                Ok(part)
            }
        }
        for length in [0, 1, CHUNK, 20 * CHUNK + 3] {
            let content: Vec<u8> = (0_u8..=250).cycle().take(length).collect();
            let mut taken = Vec::new();
            std::thread::scope(|scope| {
                let (supply, mut ahead) = Ahead::new();
                scope.spawn(|| supply.read_all(&content[..]));
                ahead.read_to_end(&mut taken).unwrap();
            });
            assert!(taken == content, "{length}");
            let mut taken = Vec::new();
            let failed = std::thread::scope(|scope| {
                let (supply, mut ahead) = Ahead::new();
                scope.spawn(move || supply.read_all(Failing(length)));
                ahead.read_to_end(&mut taken).unwrap_err()
            });
            assert_eq!((taken.len(), failed.raw_os_error()), (length, Some(5)));
        }
        // Who takes no more ends it.
        let (supply, ahead) = Ahead::new();
        drop(ahead);
        supply.read_all(io::repeat(0));
    }

    #[test]
    fn progress_is_told_in_steps_and_at_the_end() {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let teller = told.clone();
        let tell: Tell = Arc::new(move |progress| crate::lock(&teller).push(progress.bytes_done));
        let mut writer = Told::new(io::sink(), &tell, 10, None);
        for _ in 0..10 {
            writer.write_all(&[0; 1 << 20]).unwrap();
        }
        assert_eq!(writer.finish().1, 10 + (10 << 20));
        let all = crate::lock(&told).clone();
        assert_eq!(all, [4, 8, 10].map(|mib| 10 + (mib << 20)));
    }
}
