//! The folder that holds everything of Blink's: `BLINK_HOME`, or `~/.blink`.
//!
//! Each sandbox has a folder in it, with a lock file that its host process holds for as long as it lives: the kernel
//! lets go of it when the process ends, however it ends. A folder whose lock is free belongs to nobody, and goes with
//! the next start, unless its sandbox was to outlive its process.

mod check;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blink_host::Holder;
use blink_host::fault::{self, Step};
use blink_host::file_lock::{self, FileLock, NotLocked, PATIENCE, Share};
use blink_host::new_id;
use blink_host::private;

use crate::error::{Error, ErrorKind, Result};

const OWNER_LOCK: &str = "owner.lock";
const DETACHED_MARK: &str = "detached";
const SESSION_MARK: &str = "session";
const POOLED_MARK: &str = "pooled";

/// How long what a sandbox's folder stands for is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// As long as its process.
    Process,
    /// Until it is removed, or has ended.
    Detached,
    /// Until its session is removed.
    Session,
    /// As long as any of the processes that share its pool has it.
    Pooled,
}

impl Lifetime {
    fn mark(self) -> Option<&'static str> {
        match self {
            Lifetime::Process => None,
            Lifetime::Detached => Some(DETACHED_MARK),
            Lifetime::Session => Some(SESSION_MARK),
            Lifetime::Pooled => Some(POOLED_MARK),
        }
    }

    /// How the folder is locked by who uses it: several processes share a session.
    fn share(self) -> Share {
        match self {
            Lifetime::Session | Lifetime::Pooled => Share::Shared,
            Lifetime::Process | Lifetime::Detached => Share::Alone,
        }
    }

    fn of(folder: &Path) -> Lifetime {
        let marked = |lifetime: &Lifetime| {
            lifetime
                .mark()
                .is_some_and(|mark| folder.join(mark).exists())
        };
        [Lifetime::Detached, Lifetime::Session, Lifetime::Pooled]
            .into_iter()
            .find(marked)
            .unwrap_or(Lifetime::Process)
    }
}

/// The folder of everything.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    path: PathBuf,
}

impl Home {
    /// Opens the home, making what is missing. It is this user's alone: what others could read is made private, and what
    /// is someone else's refused. The way to it may go through links of the user's; nothing in it is followed.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Home> {
        let path = match path {
            Some(path) if path.as_os_str().is_empty() => {
                return Err(Error::invalid(
                    "the home is an empty path (\"\"); name a folder, or leave it out for BLINK_HOME or ~/.blink",
                ));
            }
            Some(path) => {
                std::path::absolute(&path).map_err(|error| Error::io(path.display(), &error))?
            }
            None => {
                let folder = std::env::home_dir()
                    .filter(|home| home.is_absolute())
                    .ok_or_else(|| {
                        Error::invalid(
                            "there is no home folder; name one for Blink with BLINK_HOME",
                        )
                    })?;
                check::refuse_home_of_sudo(&folder)?;
                folder.join(".blink")
            }
        };
        let home = Home {
            path: check::resolve(&path)?,
        };
        let failed = |folder: &Path, error: std::io::Error| {
            Error::io(
                format!(
                    "Blink's home {} cannot be used; name another with BLINK_HOME",
                    folder.display()
                ),
                &error,
            )
        };
        private::make_folder(&home.path).map_err(|error| failed(&home.path, error))?;
        check::take(&home.path)?;
        for folder in [
            home.sandboxes(),
            home.layers(),
            home.images(),
            home.pools(),
            home.keys(),
        ] {
            private::make_folder(&folder).map_err(|error| failed(&folder, error))?;
        }
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.path.join("sandboxes")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.path.join("layers")
    }

    pub(crate) fn pools(&self) -> PathBuf {
        self.path.join("pools")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.path.join("images")
    }

    /// Makes a folder for a new sandbox, which this process owns.
    pub(crate) fn new_sandbox(&self, lifetime: Lifetime) -> Result<SandboxFolder> {
        let id = new_id()?;
        let path = self.sandboxes().join(&id);
        // No sweep may find the folder between its making and its locking.
        let _making = self.lock_sandboxes(Share::Shared)?;
        let made = || -> std::io::Result<FileLock> {
            fault::before(Step::SandboxMake)?;
            private::make_new_folder(&path, 0o700)?;
            fault::before(Step::SandboxLock)?;
            let lock = file_lock::open(&path.join(OWNER_LOCK))?;
            let mut lock = match FileLock::take(lock, lifetime.share(), Duration::ZERO) {
                Ok(lock) => lock,
                Err(NotLocked::Failed(error)) => return Err(error),
                Err(NotLocked::Held(_)) => return Err(std::io::ErrorKind::ResourceBusy.into()),
            };
            lock.sign();
            if let Some(mark) = lifetime.mark() {
                private::create_file(&path.join(mark))?;
            }
            fault::before(Step::SandboxMade)?;
            Ok(lock)
        };
        match made() {
            Ok(lock) => Ok(SandboxFolder::owned(id, path, lifetime, lock)),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&path);
                Err(Error::io("the sandbox's folder could not be made", &error))
            }
        }
    }

    /// Takes over the folder of a sandbox that outlives its process.
    pub(crate) fn open_sandbox(&self, id: &str, lifetime: Lifetime) -> Result<SandboxFolder> {
        let missing = || missing(id);
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(missing());
        }
        let path = self.sandboxes().join(id);
        let lock = file_lock::open(&path.join(OWNER_LOCK)).map_err(|_| missing())?;
        let mut lock = match FileLock::take(lock, lifetime.share(), Duration::ZERO) {
            Ok(lock) => lock,
            Err(NotLocked::Failed(error)) => {
                let what = format!("the sandbox {id} cannot be locked");
                return Err(Error::io(what, &error));
            }
            Err(NotLocked::Held(held)) => {
                let message = format!("the sandbox {id} belongs to {}", held.holder);
                return Err(Error::new(ErrorKind::Busy, message).held_by([held.holder]));
            }
        };
        if lifetime == Lifetime::Process || Lifetime::of(&path) != lifetime {
            return Err(missing());
        }
        // Whoever finds it busy is told by whom. On a full disk they are not, and this goes on: it may be to make room.
        lock.sign();
        Ok(SandboxFolder::owned(id.to_owned(), path, lifetime, lock))
    }

    /// The folders whose owner is gone, locked.
    ///
    /// # Errors
    /// `Busy` if another process that is making a sandbox does not come to its end.
    pub(crate) fn orphans(&self) -> Result<Vec<SandboxFolder>> {
        let _sweeping = self.lock_sandboxes(Share::Alone)?;
        let Ok(entries) = std::fs::read_dir(self.sandboxes()) else {
            return Ok(Vec::new());
        };
        let orphans = entries.flatten().filter_map(|entry| {
            let path = entry.path();
            let lock = file_lock::open(&path.join(OWNER_LOCK)).ok()?;
            let lock = FileLock::take(lock, Share::Alone, Duration::ZERO).ok()?;
            let id = entry.file_name().to_str()?.to_owned();
            let lifetime = Lifetime::of(&path);
            Some(SandboxFolder::owned(id, path, lifetime, lock))
        });
        Ok(orphans.collect())
    }

    fn lock_sandboxes(&self, share: Share) -> Result<FileLock> {
        let what = format!("Blink's home {}", self.path.display());
        let folder = File::open(self.sandboxes())
            .map_err(|error| Error::io(format!("{what} cannot be locked"), &error))?;
        FileLock::take(folder, share, PATIENCE).map_err(|error| Error::not_locked(what, error))
    }

    /// Who has the sandbox of this id, if anybody does.
    pub(crate) fn owner(&self, id: &str) -> Option<Holder> {
        let lock = file_lock::open_existing(&self.sandboxes().join(id).join(OWNER_LOCK)).ok()?;
        match FileLock::take(lock, Share::Alone, Duration::ZERO) {
            Err(NotLocked::Held(held)) => Some(held.holder),
            _ => None,
        }
    }

    /// The ids of the detached sandboxes.
    pub(crate) fn detached(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.sandboxes()) else {
            return Vec::new();
        };
        let detached = entries
            .flatten()
            .filter(|entry| entry.path().join(DETACHED_MARK).exists());
        let mut ids: Vec<String> = detached
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        ids
    }
}

/// The failure of a sandbox that is not there.
pub(crate) fn missing(id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("there is no sandbox {id}; it was removed, or never made"),
    )
}

/// A sandbox's folder, owned by this process while this or a clone of it lives.
#[derive(Debug, Clone)]
pub(crate) struct SandboxFolder {
    id: String,
    path: PathBuf,
    lifetime: Lifetime,
    lock: Arc<FileLock>,
}

impl SandboxFolder {
    fn owned(id: String, path: PathBuf, lifetime: Lifetime, lock: FileLock) -> SandboxFolder {
        SandboxFolder {
            id,
            path,
            lifetime,
            lock: Arc::new(lock),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Has a session's folder for this process alone, where no other uses it any more. For who is about to let go of it: where
    /// others do, it is theirs alone from now on.
    pub(crate) fn try_alone(&self) -> bool {
        self.lock.try_alone()
    }

    /// Makes it a session's, which others share once the lock [is](SandboxFolder::share). Until the registry knows the session, it
    /// goes with this process.
    pub(crate) fn into_session(self) -> Result<SandboxFolder> {
        private::create_file(&self.path.join(SESSION_MARK))
            .map_err(|error| Error::io("the session's folder could not be made", &error))?;
        Ok(SandboxFolder {
            lifetime: Lifetime::Session,
            ..self
        })
    }

    /// Shares the folder of a session with those who open it.
    pub(crate) fn share(&self) -> Result<()> {
        let what = || format!("the session's folder {}", self.path.display());
        let begun = std::time::Instant::now();
        // A sweep has it for a moment, and leaves it.
        while !self
            .lock
            .share()
            .map_err(|error| Error::io(what(), &error))?
        {
            if begun.elapsed() > PATIENCE {
                return Err(Error::new(ErrorKind::Busy, format!("{} is in use", what())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Removes the folder with all that is in it.
    pub(crate) fn remove(self) -> Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let folder = fault::before(Step::SandboxRemove)
            .and_then(|()| File::open(parent))
            .map_err(|error| Error::io(parent.display(), &error))?;
        // A sweep that found the folder without its lock, half removed, would make a new one in it.
        let removing = FileLock::take(folder, Share::Shared, PATIENCE).map_err(|error| {
            let what = format!("the folder of sandboxes {}", parent.display());
            Error::not_locked(what, error)
        })?;
        blink_archive::remove_tree(removing.file().as_fd(), self.id.as_ref()).map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                format!("the sandbox's folder could not be removed: {error}"),
            )
        })
    }

    /// As [`remove`](SandboxFolder::remove), where there is something else to tell: what is left goes with the next start.
    pub(crate) fn remove_or_later(self) {
        let id = self.id.clone();
        if let Err(error) = self.remove() {
            tracing::warn!(sandbox = id, %error, "the folder goes later");
        }
    }
}
