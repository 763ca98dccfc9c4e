//! Modes, owners and times of folders, which are set when everything is in them:
//! a folder without the right to write can be filled, and its time stays.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::owner::Owner;
use super::times;
use crate::error::{ArchiveError, LimitKind};
use crate::format::Time;
use crate::options::Links;
use crate::root::{FOLDER, Root};

/// Memory for the paths remembered: a million folders of ordinary images, and
/// no more than a small sandbox can spare many times over.
const MOST_REMEMBERED: usize = 128 * 1024 * 1024;

/// About what the map needs for an entry beside the path itself.
const OVERHEAD: usize = 96;

#[derive(Debug, Clone, Copy)]
pub(super) struct FolderMetadata {
    pub(super) mode: Mode,
    pub(super) owner: Option<Owner>,
    pub(super) mtime: Option<Time>,
}

#[derive(Default)]
pub(super) struct Folders {
    /// Ordered by components, so that what is beneath a folder follows it.
    metadata: BTreeMap<PathBuf, FolderMetadata>,
    remembered: usize,
}

impl Folders {
    /// What the archive says, or implies, of a folder; the last word counts.
    pub(super) fn set(
        &mut self,
        path: &Path,
        metadata: FolderMetadata,
    ) -> Result<(), ArchiveError> {
        if self.metadata.insert(path.to_path_buf(), metadata).is_none() {
            self.remembered += path.as_os_str().len() + OVERHEAD;
        }
        if self.remembered > MOST_REMEMBERED {
            return Err(ArchiveError::Limit {
                which: LimitKind::Metadata,
                limit: MOST_REMEMBERED as u64,
                path: path.to_path_buf(),
            });
        }
        Ok(())
    }

    /// The mode to give back to a folder that was made writable for its new entries.
    pub(super) fn restore(&mut self, path: &Path, mode: Mode) -> Result<(), ArchiveError> {
        if self.metadata.contains_key(path) {
            return Ok(());
        }
        let metadata = FolderMetadata {
            mode,
            owner: None,
            mtime: None,
        };
        self.set(path, metadata)
    }

    /// Forgets a folder that is no more, and all beneath it.
    pub(super) fn forget(&mut self, path: &Path) {
        let gone: Vec<_> = self
            .metadata
            .range(path.to_path_buf()..)
            .map(|(path, _)| path)
            .take_while(|beneath| beneath.starts_with(path))
            .cloned()
            .collect();
        for path in gone {
            self.remembered -= path.as_os_str().len() + OVERHEAD;
            self.metadata.remove(&path);
        }
    }

    /// Sets everything, the deepest first: a folder that may not be entered any
    /// more is set after those beneath it.
    pub(super) fn apply(self, root: &Root, links: Links) -> Result<(), ArchiveError> {
        let mut folders: Vec<_> = self.metadata.into_iter().collect();
        folders.sort_by_cached_key(|(path, _)| Reverse(path.components().count()));
        for (path, metadata) in folders {
            match set(root, &path, links, metadata) {
                // Replaced or removed by a later entry.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => {
                    return Err(ArchiveError::io(
                        &path,
                        "given its owner, mode and times",
                        error,
                    ));
                }
            }
        }
        Ok(())
    }
}

fn set(root: &Root, path: &Path, links: Links, metadata: FolderMetadata) -> Result<(), Errno> {
    let folder = root.lookup(path, FOLDER, links)?;
    if let Some(Owner { uid, gid }) = metadata.owner {
        rustix::fs::fchown(&folder, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(&folder, metadata.mode)?;
    if let Some(mtime) = metadata.mtime {
        rustix::fs::futimens(&folder, &times(mtime))?;
    }
    Ok(())
}
