//! A sandbox's disk: the upper folder of an overlay, and what this needs for itself. A layer is a disk that nobody writes to
//! any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use blink_archive::{ArchiveError, Marks, Overlay, Root, copy_trees, merge_overlay};
use blink_host::fault::{self, Step};
use blink_host::private;
use rustix::io::Errno;

use super::{id_base, userns};
use crate::error::{Error, ErrorKind, Result};

/// The folder of what the overlay shows over the layers beneath it. Its name says where the overlay has its marks; all layers
/// of a disk have them in the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upper {
    pub(super) path: PathBuf,
    pub(super) marks: Marks,
}

impl Upper {
    const ALL: [Marks; 2] = [Marks::Trusted, Marks::User];

    fn named(disk: &Path, marks: Marks) -> Upper {
        let path = disk.join(Upper::name(marks));
        Upper { path, marks }
    }

    pub(super) fn name(marks: Marks) -> &'static str {
        match marks {
            Marks::Trusted => "upper.trusted",
            Marks::User => "upper",
        }
    }

    /// The one that a disk has; none where it is still to be made.
    pub(super) fn of(disk: &Path) -> Option<Upper> {
        let all = Upper::ALL.map(|marks| Upper::named(disk, marks));
        all.into_iter().find(|upper| upper.path.is_dir())
    }
}

/// Where the overlays of new disks in a folder can have their marks.
pub(super) fn marks_in(folder: &Path) -> Marks {
    // Who may not set such attributes may not remove one that is not there.
    match rustix::fs::removexattr(folder, c"trusted.blink") {
        Ok(()) | Err(Errno::NODATA) => Marks::Trusted,
        Err(_) => Marks::User,
    }
}

/// What the overlay needs for itself.
pub(super) const WORK: &str = "work";

/// Where it has files of lower layers that had several names there, since they were changed.
pub(super) const INDEX: &str = "work/index";

/// Where copies of files with several names are found again while a disk is copied.
const LINKS: &str = "links";

/// Layers beneath a disk, at most. Each costs every lookup of a name that is in none of those above it.
pub(super) const DEEPEST: usize = 32;

/// Makes what is not there yet; a new disk has its marks where `marks` says.
pub(super) fn make(disk: &Path, marks: Marks, id_base: Option<u32>) -> io::Result<Upper> {
    let upper = Upper::of(disk).unwrap_or_else(|| Upper::named(disk, marks));
    for path in [upper.path.clone(), disk.join(WORK)] {
        match private::make_new_folder(&path, 0o755) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        fault::before(Step::NamespaceDisk)?;
        if let Some(id) = id_base {
            std::os::unix::fs::chown(&path, Some(id), Some(id))?;
        }
    }
    userns::open_to_sandboxes(disk, id_base)?;
    Ok(upper)
}

/// The uppers of disks of one session, and where they have their marks; makes those of disks that were never booted.
pub(super) fn uppers(
    disks: &[PathBuf],
    marks: Marks,
    id_base: Option<u32>,
) -> io::Result<(Vec<PathBuf>, Marks)> {
    let found = disks.iter().find_map(|disk| Upper::of(disk));
    let marks = found.map_or(marks, |upper| upper.marks);
    let uppers = disks
        .iter()
        .map(|disk| Ok(make(disk, marks, id_base)?.path));
    Ok((uppers.collect::<io::Result<_>>()?, marks))
}

/// Opens what the overlay of some uppers is to be read with.
pub(super) fn open(uppers: &[PathBuf]) -> Result<Vec<Root>, ArchiveError> {
    uppers.iter().map(Root::open).collect()
}

/// Makes one layer of several, the lowest first. Files are shared with them.
pub(super) fn merge(
    layers: &[PathBuf],
    into: &Path,
    marks: Marks,
    id_base: Option<u32>,
) -> Result<()> {
    let failed = |error: &io::Error| Error::io("layers could not be merged", error);
    let archive_failed = |error: ArchiveError| match error.io_error() {
        Some(source) => failed(source),
        None => Error::new(
            ErrorKind::ResourceExhausted,
            format!("layers could not be merged: {error}"),
        ),
    };
    let (uppers, marks) = uppers(layers, marks, id_base).map_err(|error| failed(&error))?;
    let roots = open(&uppers).map_err(archive_failed)?;
    let upper = fault::before(Step::LayerMerge)
        .and_then(|()| make(into, marks, id_base))
        .map_err(|error| failed(&error))?;
    let upper = Root::open(upper.path).map_err(archive_failed)?;
    let overlay = Overlay {
        layers: &roots,
        beneath: &[],
        marks,
    };
    merge_overlay(&overlay, &upper).map_err(archive_failed)?;
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
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let from = Upper::of(disk).ok_or_else(missing).map_err(failed)?;
    let upper = Upper::named(layer, from.marks).path;
    let (work, links) = (layer.join(WORK), layer.join(LINKS));
    let (index, index_copy) = (disk.join(INDEX), layer.join(INDEX));
    let mut folders = vec![&upper, &links];
    if index.exists() {
        folders.extend([&work, &index_copy]);
    }
    for folder in folders {
        private::make_new_folder(folder, 0o755).map_err(failed)?;
    }
    let copy = || {
        let mut trees = vec![(Root::open(&from.path)?, Root::open(&upper)?)];
        if index_copy.exists() {
            trees.push((Root::open(&index)?, Root::open(&index_copy)?));
        }
        copy_trees(&trees, &Root::open(&links)?)
    };
    let copied = copy().map_err(archive_failed);
    fault::before(Step::NamespaceDiskCopied).map_err(failed)?;
    copied?;
    fs::remove_dir(&links).map_err(failed)
}
