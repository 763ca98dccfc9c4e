//! A sandbox's disk: the upper folder of an overlay. A layer is such a folder that nobody writes to any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use blink_archive::{ArchiveError, Root, copy_tree, merge_overlay};

use super::{id_base, userns};
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{self, Step};
use crate::private;

/// What the overlay shows over the layers beneath it.
pub(super) const UPPER: &str = "upper";

/// What the overlay needs for itself.
pub(super) const WORK: &str = "work";

/// Where copies of files with several names are found again while a disk is copied.
const LINKS: &str = "links";

/// Layers beneath a disk, at most. Each costs every lookup of a name that is in none of those above it.
pub(super) const DEEPEST: usize = 32;

/// Makes what is not there yet.
pub(super) fn make(disk: &Path, id_base: Option<u32>) -> io::Result<()> {
    for name in [UPPER, WORK] {
        let path = disk.join(name);
        match private::make_new_folder(&path, 0o755) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        fault::before(Step::NamespaceDisk)?;
        if let Some(id) = id_base {
            std::os::unix::fs::chown(&path, Some(id), Some(id))?;
        }
    }
    userns::open_to_sandboxes(disk, id_base)
}

/// Makes one layer of several, the lowest first. Files are shared with them.
pub(super) fn merge(layers: &[PathBuf], into: &Path, id_base: Option<u32>) -> Result<()> {
    let failed = |error: &io::Error| Error::io("layers could not be merged", error);
    let archive_failed = |error: ArchiveError| match error.io_error() {
        Some(source) => failed(source),
        None => Error::new(
            ErrorKind::ResourceExhausted,
            format!("layers could not be merged: {error}"),
        ),
    };
    let mut roots = Vec::new();
    for layer in layers {
        // One that was never booted is empty.
        make(layer, id_base).map_err(|error| failed(&error))?;
        roots.push(Root::open(layer.join(UPPER)).map_err(archive_failed)?);
    }
    fault::before(Step::LayerMerge)
        .and_then(|()| make(into, id_base))
        .map_err(|error| failed(&error))?;
    let upper = Root::open(into.join(UPPER)).map_err(archive_failed)?;
    merge_overlay(&roots, &upper).map_err(archive_failed)?;
    fault::before(Step::LayerMerged).map_err(|error| failed(&error))
}

/// Copies what a disk holds, with owners, attributes and the overlay's own marks of what is gone. Shares blocks where the
/// file system can. What an ordinary user's sandbox keeps from its owner is read all the same: in there, that is no
/// hindrance.
pub(super) fn copy(disk: &Path, layer: &Path) -> Result<()> {
    const WHAT: &str = "the sandbox's disk could not be kept";
    let failed = |error: io::Error| Error::io(WHAT, &error);
    let archive_failed = |error: ArchiveError| {
        let message = format!("{WHAT}: {error}");
        match error.io_error() {
            Some(source) => Error::io(message, source),
            None => Error::new(ErrorKind::Internal, message),
        }
    };
    fault::before(Step::NamespaceDiskCopy)
        .and_then(|()| userns::open_to_sandboxes(layer, id_base()))
        .map_err(failed)?;
    let (upper, links) = (layer.join(UPPER), layer.join(LINKS));
    for folder in [&upper, &links] {
        private::make_new_folder(folder, 0o755).map_err(failed)?;
    }
    let copy = || {
        let from = Root::open(disk.join(UPPER))?;
        copy_tree(&from, &Root::open(&upper)?, &Root::open(&links)?)
    };
    let copied = copy().map_err(archive_failed);
    fault::before(Step::NamespaceDiskCopied).map_err(failed)?;
    copied?;
    fs::remove_dir(&links).map_err(failed)
}
