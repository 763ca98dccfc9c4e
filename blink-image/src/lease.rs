//! Blobs that somebody is about to make an image of: nothing refers to them yet, and nobody may remove them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::lock::Lock;
use crate::temporary::{self, TemporaryFolder};

const LIST: &str = "blobs";

/// Keeps blobs from being removed while it lives. When its process is killed, it is nobody's, and ends too.
#[derive(Debug)]
pub(crate) struct Lease {
    _folder: TemporaryFolder,
}

impl Lease {
    /// For these blobs, whether they are there yet or not.
    pub(crate) fn new(
        store: &Path,
        blobs: impl Iterator<Item = Digest>,
    ) -> Result<Self, ImageError> {
        let folder = TemporaryFolder::new(store)?;
        let list: String = blobs.map(|digest| digest.hex() + "\n").collect();
        fs::write(folder.path().join(LIST), list)
            .map_err(|error| ImageError::io("write to the image store", error))?;
        // Whoever looked before this was written has ended when the lock is free.
        Lock::shared(&store.join("store.lock"))
            .map_err(|error| ImageError::io("lock the image store", error))?;
        Ok(Self { _folder: folder })
    }
}

/// The blobs that are not to be removed, by the names of their files. Called with the store's lock held alone.
pub(crate) fn leased(store: &Path) -> io::Result<HashSet<String>> {
    temporary::sweep(store)?;
    let mut leased = HashSet::new();
    for entry in fs::read_dir(store)? {
        if let Ok(list) = fs::read_to_string(entry?.path().join(LIST)) {
            leased.extend(list.lines().map(str::to_owned));
        }
    }
    Ok(leased)
}
