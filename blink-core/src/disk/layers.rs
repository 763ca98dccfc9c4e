//! The folders of layers. A layer's folder is made before the registry knows it, and removed after the registry has
//! forgotten it; whatever is in between when a process ends is collected later.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use blink_archive::{disk_usage, disk_usage_of_few};
use blink_host::fault::{self, Step};
use blink_host::file_lock::{FileLock, NotLocked, PATIENCE, Share};
use blink_host::{lock, private};

use super::registry::Registry;
use crate::error::{Error, ErrorKind, Result};
use crate::home::Home;
use crate::usage;

/// What another thread starts has this process's locks until it runs a program of its own: that is waited for, and what
/// takes longer is not.
const MOMENT: Duration = Duration::from_millis(20);

/// In the folder of a sandbox: the layer that its process uses, whether the registry knows it or not.
const PIN: &str = "layer";

/// Says in a sandbox's folder that a layer is in use, for as long as the folder is there. The layer is made afterwards.
pub(crate) fn pin(folder: &Path, layer: &str) -> io::Result<()> {
    fs::write(folder.join(PIN), layer)
}

/// The layers of a home.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    folder: PathBuf,
    /// Where those may be that use some.
    sandboxes: PathBuf,
}

/// While this lives, no process removes layers: some are not written down yet, or are read.
#[derive(Debug)]
pub(crate) struct Making {
    _lock: FileLock,
}

/// While this lives, no process makes or reads layers.
struct Alone(FileLock);

impl Layers {
    pub(crate) fn of(home: &Home) -> Layers {
        Layers {
            folder: home.layers(),
            sandboxes: home.sandboxes(),
        }
    }

    pub(crate) fn folder(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// What a layer occupies. Of many files, it is what was measured last: by the agent that watches over them while the
    /// session runs, or here where nobody has yet.
    pub(crate) fn usage(&self, id: &str) -> u64 {
        /// They take some milliseconds.
        const FEW_FILES: usize = 2000;
        let folder = self.folder(id);
        if let Some(bytes) = disk_usage_of_few(&folder, FEW_FILES) {
            return bytes;
        }
        if let Some(bytes) = usage::read(&folder) {
            return bytes;
        }
        let bytes = disk_usage(&folder);
        if let Err(error) = usage::write(&folder, bytes) {
            tracing::debug!(%error, "what a layer occupies could not be kept");
        }
        bytes
    }

    pub(crate) fn making(&self) -> Result<Making> {
        let lock = FileLock::take(self.open()?, Share::Shared, PATIENCE)
            .map_err(|error| Error::not_locked(self.what(), error))?;
        Ok(Making { _lock: lock })
    }

    /// Makes the folder of a new layer; nobody may remove layers meanwhile.
    pub(crate) fn make(&self, id: &str) -> Result<()> {
        fault::before(Step::LayerMake)
            .and_then(|()| private::make_folder(&self.folder(id)))
            .and_then(|()| fault::before(Step::LayerMade))
            .map_err(|error| {
                Error::io(
                    "a disk for the session could not be made in Blink's home",
                    &error,
                )
            })
    }

    /// Removes what changes have freed; not while others make or read layers, after whom its turn comes again.
    pub(crate) fn remove_forgotten(&self, registry: &Mutex<Registry>) -> Result<()> {
        if !lock(registry).has_forgotten() {
            return Ok(());
        }
        let Some(alone) = self.lock_alone()? else {
            return Ok(());
        };
        let pinned = self.pinned();
        let mut forgotten = lock(registry).take_forgotten();
        // They are collected after those who use them.
        forgotten.retain(|layer| !pinned.contains(layer));
        self.remove(alone, &forgotten, |_| {})?;
        lock(registry).keep_ballast();
        Ok(())
    }

    /// Removes all that the registry does not know; not while others make or read layers.
    pub(crate) fn collect(&self, registry: &Mutex<Registry>) -> Result<()> {
        match self.lock_alone()? {
            Some(alone) => self.collect_alone(alone, registry, |_| {}),
            None => Ok(()),
        }
    }

    /// As [`collect`](Layers::collect), and says how many bytes that has freed.
    ///
    /// # Errors
    /// `Busy` while another process makes layers.
    pub(crate) fn prune(&self, registry: &Mutex<Registry>) -> Result<u64> {
        let alone = self.lock_alone()?.ok_or_else(|| {
            Error::new(
                ErrorKind::Busy,
                "another process makes a session, a checkpoint or an export; try again when it has",
            )
        })?;
        lock(registry).forget_layers()?;
        let mut freed_bytes = 0;
        self.collect_alone(alone, registry, |layer| freed_bytes += disk_usage(layer))?;
        Ok(freed_bytes)
    }

    fn collect_alone(
        &self,
        alone: Alone,
        registry: &Mutex<Registry>,
        before_removal: impl FnMut(&Path),
    ) -> Result<()> {
        let mut unknown = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|error| not_removed(&error))? {
            unknown.push(entry.map_err(|error| not_removed(&error))?.file_name());
        }
        // Afterwards, and in this order: a layer is pinned before it is made, and in the registry before it is pinned no more.
        let mut known = self.pinned();
        known.extend(lock(registry).layers()?);
        unknown.retain(|name| !name.to_str().is_some_and(|id| known.contains(id)));
        self.remove(alone, &unknown, before_removal)?;
        lock(registry).keep_ballast();
        Ok(())
    }

    /// The layers that sandboxes use.
    fn pinned(&self) -> HashSet<String> {
        let sandboxes = fs::read_dir(&self.sandboxes).into_iter().flatten();
        let pins = sandboxes.flatten().map(|entry| entry.path().join(PIN));
        pins.filter_map(|pin| fs::read_to_string(pin).ok())
            .collect()
    }

    /// Removes layers that nobody knows any more. Who was alone with them once can take the time that this takes: nobody can
    /// come to know them again, and others need not wait.
    fn remove(
        &self,
        alone: Alone,
        layers: &[impl AsRef<OsStr>],
        mut before_removal: impl FnMut(&Path),
    ) -> Result<()> {
        let folder = alone.no_more().map_err(|error| not_removed(&error))?;
        for layer in layers {
            before_removal(&self.folder.join(layer.as_ref()));
            let removed = fault::before(Step::LayerRemove)
                .map_err(|error| error.to_string())
                .and_then(|()| {
                    blink_archive::remove_tree(folder.as_fd(), layer.as_ref())
                        .map_err(|error| error.to_string())
                });
            if let Err(error) = removed {
                tracing::warn!(error, layer = ?layer.as_ref(), "a layer goes later");
            }
        }
        Ok(())
    }

    /// Nobody makes or reads layers meanwhile.
    fn lock_alone(&self) -> Result<Option<Alone>> {
        match FileLock::take(self.open()?, Share::Alone, MOMENT) {
            Ok(lock) => Ok(Some(Alone(lock))),
            Err(NotLocked::Held(_)) => Ok(None),
            Err(error) => Err(Error::not_locked(self.what(), error)),
        }
    }

    fn open(&self) -> Result<File> {
        File::open(&self.folder).map_err(|error| {
            Error::io(
                "the disks of sessions in Blink's home cannot be used",
                &error,
            )
        })
    }

    fn what(&self) -> String {
        format!("the folder of sessions' disks {}", self.folder.display())
    }
}

impl Alone {
    /// The folder, no longer locked.
    fn no_more(self) -> io::Result<File> {
        self.0.file().try_clone()
    }
}

fn not_removed(error: &io::Error) -> Error {
    Error::io(
        "what no session needs any more could not be removed from Blink's home",
        error,
    )
}
