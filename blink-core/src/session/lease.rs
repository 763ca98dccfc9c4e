//! Who uses a session, and who changes it.
//!
//! Every process that has a session open has a *lease* on it: a file in its folder that the process holds locked, and in
//! which it says who it is and what it does. A change of the session (its start, a checkpoint, its end) is made by one at a
//! time, who has the *gate* meanwhile: a lock on the folder itself, which whoever comes passes for a moment. The kernel lets
//! go of both when a process ends, however it ends.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blink_host::Holder;
use blink_host::file_lock::{FileLock, Share};
use blink_host::private;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};
use serde::{Deserialize, Serialize};

use crate::engine::engines;
use crate::error::{Error, ErrorKind};
use crate::home::SandboxFolder;

/// The leases of a session, in its folder. They are used again by those who come later, and so are never more than there
/// once were users at a time.
const FOLDER: &str = "users";

/// Of one lease, all of which is written at once, so that whoever reads it finds one whole.
const RECORD_BYTES: usize = 512;

/// Letters of a command line that a lease shows.
const COMMAND_LETTERS: usize = 80;

/// What a user says of itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    pid: u32,
    command: String,
    /// In seconds since 1970.
    since: u64,
    /// What it changes right now, and since when.
    doing: Option<(String, u64)>,
}

impl Record {
    fn now() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }

    fn of_this_process() -> Record {
        let words: Vec<_> = std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        Record {
            pid: std::process::id(),
            command: words
                .join(" ")
                .chars()
                .filter(|letter| !letter.is_control())
                .take(COMMAND_LETTERS)
                .collect(),
            since: Record::now(),
            doing: None,
        }
    }

    fn write(&self, file: &File) {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.resize(RECORD_BYTES, b' ');
        // On a full disk nobody is told of it, which hinders nobody: the lock counts.
        let _ = file.write_all_at(&bytes, 0);
    }

    fn read(file: &File) -> Record {
        let mut bytes = [0; RECORD_BYTES];
        let read = file.read_exact_at(&mut bytes, 0);
        read.ok()
            .and_then(|()| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }
}

/// Someone else who uses a session.
#[derive(Debug, Clone)]
pub(super) struct User {
    record: Record,
    used_at: SystemTime,
}

impl User {
    /// When it was last known to use the session.
    pub(super) fn used_at(&self) -> SystemTime {
        self.used_at
    }

    fn is_here(&self) -> bool {
        self.record.pid == std::process::id()
    }

    fn holder(&self) -> Holder {
        let Record { pid, command, .. } = &self.record;
        Holder::new(
            (*pid != 0).then_some(*pid),
            (!command.is_empty()).then(|| command.clone()),
        )
    }

    /// In words, as who comes second is told.
    fn told(&self) -> String {
        let Record {
            pid,
            command,
            since,
            doing,
        } = &self.record;
        let who = match (pid, self.is_here()) {
            (0, _) => "a program that has not said which".to_owned(),
            (pid, true) => format!("this very process (pid {pid}), with another Blink"),
            (pid, false) => format!("another process (pid {pid}: {command})"),
        };
        let (what, since) = match doing {
            Some((what, since)) => (what.as_str(), since),
            None => ("has had it open", since),
        };
        let long = Duration::from_secs(Record::now().saturating_sub(*since));
        format!("{who} {what} for {long:.0?}")
    }
}

/// What to tell about a session that cannot be had, or changed, now.
pub(super) fn busy(name: &str, users: &[User]) -> Error {
    /// As many are told of one by one.
    const TOLD: usize = 8;
    let mut users: Vec<_> = users.iter().collect();
    // Who changes it is what holds others up.
    users.sort_by_key(|user| user.record.doing.is_none());
    let mut told: Vec<_> = users.iter().take(TOLD).map(|user| user.told()).collect();
    if let Some(more @ 1..) = users.len().checked_sub(TOLD) {
        told.push(format!("{more} more have it open"));
    }
    if told.is_empty() {
        // It has just ended, or has not said yet who it is.
        told.push("another process opens or leaves it right now".to_owned());
    }
    let message = format!(
        "the session {name:?} is in use: {}; try again when that has ended",
        told.join("; ")
    );
    Error::new(ErrorKind::Busy, message).held_by(users.into_iter().map(User::holder))
}

/// A use of a session, by this process.
#[derive(Debug)]
pub(super) struct Lease {
    folder: SandboxFolder,
    lock: FileLock,
    record: Mutex<Record>,
    /// Whether the sandbox ends with the last user.
    ends_machine: bool,
}

impl Lease {
    /// Takes a lease. Whoever may change the session meanwhile has the gate, and so must not be among those who come.
    pub(super) fn take(folder: SandboxFolder, ends_machine: bool) -> std::io::Result<Lease> {
        let users = folder.path().join(FOLDER);
        match private::make_new_folder(&users, 0o700) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut free = None;
        for file in leases(folder.path()) {
            free = FileLock::try_take(file, Share::Alone).unwrap_or(None);
            if free.is_some() {
                break;
            }
        }
        let lock = match free {
            Some(lock) => lock,
            None => new_lease(&users)?,
        };
        let record = Record::of_this_process();
        record.write(lock.file());
        let lease = Lease {
            folder,
            lock,
            record: Mutex::new(record),
            ends_machine,
        };
        lease.touch();
        Ok(lease)
    }

    /// Says to whoever asks that the session is used right now.
    pub(super) fn touch(&self) {
        let at = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps {
            last_access: at(UTIME_OMIT),
            last_modification: at(UTIME_NOW),
        };
        let _ = futimens(self.file(), &times);
    }

    /// Says what this process changes, as "has been starting it".
    pub(super) fn doing(&self, what: &str) {
        self.say(Some((what.to_owned(), Record::now())));
    }

    /// Says that this process changes nothing any more.
    pub(super) fn done(&self) {
        self.say(None);
    }

    fn say(&self, doing: Option<(String, u64)>) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.doing = doing;
        let used_at = self.file().metadata().and_then(|found| found.modified());
        record.write(self.file());
        // Only a use is one.
        if let Ok(used_at) = used_at {
            let _ = self.file().set_modified(used_at);
        }
    }

    /// All other users.
    pub(super) fn others(&self) -> Vec<User> {
        let own = self.file().metadata().map(|found| found.ino()).unwrap_or(0);
        users(self.folder.path(), own)
    }

    fn file(&self) -> &File {
        self.lock.file()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.ends_machine && self.folder.try_alone() {
            // Its agent sees that nobody is left, too, but might be one that does not look.
            engines::kill_overdue(self.folder.path());
        }
    }
}

/// Makes the first lease of a session that is being made, which [`Lease::take`] then finds: a disk that is full is one before
/// anything is changed.
pub(super) fn prepare(folder: &Path) -> std::io::Result<()> {
    let users = folder.join(FOLDER);
    private::make_new_folder(&users, 0o700)?;
    new_lease(&users)?
        .file()
        .write_all_at(&[b' '; RECORD_BYTES], 0)
}

fn new_lease(users: &Path) -> std::io::Result<FileLock> {
    for number in 0_u32.. {
        let file = private::open_file(
            &users.join(number.to_string()),
            OpenOptions::new().read(true).write(true).create_new(true),
        );
        match file.and_then(|file| FileLock::try_take(file, Share::Alone)) {
            Ok(Some(lock)) => return Ok(lock),
            // Between the making and the locking, one who looked for a free one has taken it.
            Ok(None) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::ErrorKind::StorageFull.into())
}

fn leases(folder: &Path) -> impl Iterator<Item = File> {
    let entries = fs::read_dir(folder.join(FOLDER)).into_iter().flatten();
    entries.flatten().filter_map(|entry| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(entry.path())
            .ok()
    })
}

/// Who uses a session, whoever asks.
pub(super) fn all_users(folder: &Path) -> Vec<User> {
    users(folder, 0)
}

fn users(folder: &Path, own: u64) -> Vec<User> {
    let mut users = Vec::new();
    for file in leases(folder) {
        let Ok(found) = file.metadata() else { continue };
        // Shared, so that those who look do not see each other.
        if found.ino() == own {
            continue;
        }
        let lock = file
            .try_clone()
            .and_then(|file| FileLock::try_take(file, Share::Shared));
        if !matches!(lock, Ok(Some(_))) {
            users.push(User {
                record: Record::read(&file),
                used_at: found.modified().unwrap_or(UNIX_EPOCH),
            });
        }
    }
    users
}

/// The right to change a session.
#[derive(Debug)]
pub(super) struct Gate {
    _lock: FileLock,
}

impl Gate {
    /// For one who changes it; `None` while others pass, or change it.
    ///
    /// # Errors
    /// `NotFound` if the folder was removed.
    pub(super) fn try_have(folder: &Path) -> std::io::Result<Option<Gate>> {
        Gate::lock(folder, Share::Alone)
    }

    /// For one who comes; `None` while somebody changes it.
    ///
    /// # Errors
    /// `NotFound` if the folder was removed.
    pub(super) fn try_pass(folder: &Path) -> std::io::Result<Option<Gate>> {
        Gate::lock(folder, Share::Shared)
    }

    fn lock(path: &Path, share: Share) -> std::io::Result<Option<Gate>> {
        let Some(lock) = FileLock::try_take(File::open(path)?, share)? else {
            return Ok(None);
        };
        // It may have been removed while it was opened.
        let (held, there) = (lock.file().metadata()?, fs::metadata(path)?);
        match (held.dev(), held.ino()) == (there.dev(), there.ino()) {
            true => Ok(Some(Gate { _lock: lock })),
            false => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}
