//! Idempotency keys: what is asked for twice with one key is made once.
//!
//! Each key has a file in the home, which whoever makes something with it has locked meanwhile. In it is the id of what is made,
//! written before that can be there: who comes later, also after a crash, finds it, or finds that there is nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blink_host::fault::{self, Step};
use blink_host::file_lock::{self, FileLock, NotLocked, Share};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::blocking::on_thread;
use crate::error::{Error, ErrorKind, Result};
use crate::home::Home;

/// For how long a key means what it was first used for.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A key is a name, and not a document.
const LONGEST_KEY: usize = 256;

#[derive(Serialize, Deserialize)]
struct Record {
    /// What was made.
    id: String,
    /// A digest of what was asked for.
    asked: String,
    /// In seconds since 1970.
    at: u64,
}

/// A key that nobody else uses meanwhile.
pub(crate) struct Key {
    lock: FileLock,
    asked: String,
}

impl Key {
    /// Takes a key to do something with it, once nobody else does; says what it has made in the last day.
    ///
    /// # Errors
    /// `InvalidArgument` if something else was asked for with it; `Busy` if somebody else does not come to an end.
    pub(crate) async fn take(
        home: &Home,
        key: &str,
        asked: &impl Serialize,
        patience: Duration,
    ) -> Result<(Key, Option<String>)> {
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(Error::invalid(format!(
                "an idempotency key has 1 to {LONGEST_KEY} bytes, and this one has {}",
                key.len()
            )));
        }
        let asked = serde_json::to_vec(asked).map_err(|error| Error::invalid(error.to_string()))?;
        let (asked, path) = (digest(&asked), home.keys().join(digest(key.as_bytes())));
        let name = key.to_owned();
        on_thread(move || {
            let lock = lock(&path, &name, patience)?;
            let known = read(lock.file()).filter(|record| is_recent(record.at));
            if let Some(record) = &known
                && record.asked != asked
            {
                return Err(Error::invalid(format!(
                    "the key {name:?} was used within the last day for something else; use another"
                )));
            }
            Ok((Key { lock, asked }, known.map(|record| record.id)))
        })
        .await
    }

    /// Says what is made with it, before that can be there.
    pub(crate) fn makes(&self, id: &str) -> Result<()> {
        let record = Record {
            id: id.to_owned(),
            asked: self.asked.clone(),
            at: now(),
        };
        let written = fault::before(Step::KeyWrite).and_then(|()| {
            let bytes = serde_json::to_vec(&record)?;
            let file = self.lock.file();
            file.set_len(0)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            fault::before(Step::KeyWritten)
        });
        written.map_err(|error| Error::io("the idempotency key could not be written down", &error))
    }
}

/// Removes the keys that mean nothing any more.
pub(crate) fn sweep(home: &Home) {
    for entry in fs::read_dir(home.keys()).into_iter().flatten().flatten() {
        let is_old = entry
            .metadata()
            .and_then(|found| found.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LIFETIME));
        if is_old
            && let Ok(file) = File::open(entry.path())
            && let Ok(Some(_lock)) = FileLock::try_take(file, Share::Alone)
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn lock(path: &Path, key: &str, patience: Duration) -> Result<FileLock> {
    let failed = |error: &io::Error| Error::io("an idempotency key cannot be used", error);
    loop {
        let file = file_lock::open(path).map_err(|error| failed(&error))?;
        let lock = match FileLock::take(file, Share::Alone, patience) {
            Ok(lock) => lock,
            Err(NotLocked::Failed(error)) => return Err(failed(&error)),
            Err(NotLocked::Held(held)) => {
                let message = format!("another call with the key {key:?} is {held}");
                return Err(Error::new(ErrorKind::Busy, message).held_by([held.holder]));
            }
        };
        // It may have been swept while it was waited for.
        let held = lock.file().metadata().map_err(|error| failed(&error))?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => return Ok(lock),
            _ => {}
        }
    }
}

fn read(file: &File) -> Option<Record> {
    let mut bytes = Vec::new();
    let length = usize::try_from(file.metadata().ok()?.len()).ok()?;
    bytes.resize(length.min(1 << 16), 0);
    file.read_exact_at(&mut bytes, 0).ok()?;
    // What was not written to its end was not made.
    serde_json::from_slice(&bytes).ok()
}

fn is_recent(at: u64) -> bool {
    now().saturating_sub(at) < LIFETIME.as_secs()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Home {
    pub(crate) fn keys(&self) -> PathBuf {
        self.path().join("keys")
    }
}
