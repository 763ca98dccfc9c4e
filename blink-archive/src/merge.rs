//! Making one layer of an overlay of several, whose files it shares.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Timestamps, Uid};
use rustix::io::Errno;

use crate::attributes::{self, LARGEST, OPAQUE};
use crate::error::{ArchiveError, LimitKind};
use crate::options::Limits;
use crate::overlay::{Merged, Opened, is_whiteout};
use crate::root::{self, Links, REAL_FOLDER, Root};

/// Makes in the empty folder `into` the one layer that shows over any other what the
/// upper folders of an overlay, the lowest first, show over it.
///
/// Folders are made anew; all else, whiteouts too, is the same file under one more name.
/// So nobody may write to any of these layers again, and all of them are on one file system.
/// What of the layers is hidden by one above is not in it, but for the marks that hide what
/// is beneath.
///
/// # Errors
/// [`ArchiveError::Limit`] for folders deeper than [`Limits::depth`]; [`ArchiveError::Io`].
pub fn merge_overlay(layers: &[Root], into: &Root) -> Result<(), ArchiveError> {
    let all: Vec<usize> = (0..layers.len()).rev().collect();
    if all.is_empty() {
        return Ok(());
    }
    let mut merger = Merger {
        layers,
        buffer: vec![0; 2 * LARGEST],
    };
    let into = into
        .lookup(Path::new(""), REAL_FOLDER, Links::Refuse)
        .map_err(|error| ArchiveError::io("", "opened", error))?;
    merger.folder(&into, &all, Path::new(""), 0, false)
}

struct Merger<'a> {
    layers: &'a [Root],
    buffer: Vec<u8>,
}

impl Merger<'_> {
    /// Fills a folder with what the folders at `path` in the layers `at`, the topmost first, come to. `alone` says that
    /// nothing that is beneath the layers is seen there.
    fn folder(
        &mut self,
        into: &OwnedFd,
        at: &[usize],
        path: &Path,
        depth: usize,
        alone: bool,
    ) -> Result<(), ArchiveError> {
        let limit = Limits::default().depth;
        if depth > limit {
            return Err(ArchiveError::Limit {
                which: LimitKind::Depth,
                limit: limit as u64,
                path: path.to_path_buf(),
            });
        }
        let mut opened = Opened::default();
        let failed = |error: Errno| ArchiveError::io(path, "read", error);
        let merged = Merged::open(self.layers, at, path, &mut opened).map_err(failed)?;
        let mut attributes =
            attributes::read_of_layer(&merged.folder, &mut self.buffer).map_err(failed)?;
        attributes.retain(|(name, _)| name != OPAQUE);
        if merged.opaque && !path.as_os_str().is_empty() {
            attributes.push((OPAQUE.to_vec(), b"y".to_vec()));
        }
        let Merged {
            stat,
            entries,
            opaque,
            ..
        } = merged;
        for (name, at) in entries {
            self.entry(into, &at, &path.join(name), depth, alone || opaque)?;
        }
        let finish = || -> Result<(), Errno> {
            attributes::write(into, &attributes)?;
            let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            let made = rustix::fs::fstat(into)?;
            if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
                rustix::fs::fchown(into, Some(owner), Some(group))?;
            }
            rustix::fs::fchmod(into, Mode::from_raw_mode(stat.st_mode))?;
            rustix::fs::futimens(into, &times(&stat))
        };
        finish().map_err(|error| ArchiveError::io(path, "created", error))
    }

    fn entry(
        &mut self,
        into: &OwnedFd,
        at: &[usize],
        path: &Path,
        depth: usize,
        alone: bool,
    ) -> Result<(), ArchiveError> {
        let read_failed = |error| ArchiveError::io(path, "read", error);
        let (parent, name) = self.layers[at[0]]
            .open_parent(path, Links::Refuse)
            .map_err(read_failed)?;
        let stat = root::stat(&parent, name).map_err(|error| read_failed(error.into()))?;
        let failed = |error: Errno| ArchiveError::io(path, "created", error);
        if root::is_folder(&stat) {
            drop(parent);
            rustix::fs::mkdirat(into, name, Mode::RWXU).map_err(failed)?;
            let below = rustix::fs::openat(into, name, REAL_FOLDER, Mode::empty());
            return self.folder(&below.map_err(failed)?, at, path, depth + 1, alone);
        }
        if alone && is_whiteout(&stat) {
            // It would hide nothing; and where nothing is merged, the kernel lists it as a file.
            return Ok(());
        }
        rustix::fs::linkat(parent, name, into.as_fd(), name, AtFlags::empty()).map_err(failed)
    }
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds, nanoseconds| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    #[expect(
        clippy::cast_possible_wrap,
        reason = "nanoseconds are less than a second"
    )]
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    }
}
