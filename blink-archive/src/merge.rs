//! Making one layer of an overlay of several, whose files it shares.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timestamps, Uid};
use rustix::io::Errno;

use crate::attributes::{self, LARGEST, Marks};
use crate::error::ArchiveError;
use crate::format::Attributes;
use crate::options::Links;
use crate::overlay::{Merged, Overlay, Visitor, visit};
use crate::root::{REAL_FOLDER, Root, make_folder};
use crate::way::Way;

/// Makes in the empty folder `into` the one layer that shows over what is beneath them what the
/// layers of an overlay show.
///
/// Folders are made anew; all else, whiteouts too, is the same file under one more name.
/// So nobody may write to any of these layers again, and all of them are on one file system.
/// What of the layers is hidden by one above is not in it, but for the marks that hide what
/// is beneath. Folders may be inside each other as often as they like.
///
/// # Errors
/// [`ArchiveError::Io`].
pub fn merge_overlay(overlay: &Overlay<'_>, into: &Root) -> Result<(), ArchiveError> {
    let top = into
        .lookup(Path::new(""), REAL_FOLDER, Links::Refuse)
        .and_then(|top| Way::new(top, Described::default()))
        .map_err(|error| ArchiveError::io("", "opened", error))?;
    let mut merger = Merger {
        into: top,
        marks: overlay.marks,
        buffer: vec![0; 2 * LARGEST],
    };
    visit(overlay, None, &mut merger)
}

/// What a folder gets when everything is in it.
#[derive(Default)]
struct Described {
    attributes: Attributes,
    stat: Option<Stat>,
}

struct Merger {
    into: Way<Described>,
    marks: Marks,
    buffer: Vec<u8>,
}

impl Visitor for Merger {
    const WHOLE: bool = false;

    fn enter(
        &mut self,
        merged: &Merged<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), ArchiveError> {
        let mut attributes = attributes::read_of_layer(merged.folder, self.marks, &mut self.buffer)
            .map_err(|error| ArchiveError::io(path, "read", error))?;
        if merged.opaque && !merged.is_top {
            attributes.push((self.marks.opaque().to_vec(), b"y".to_vec()));
        }
        if let Some(redirect) = &merged.redirect {
            attributes.push((self.marks.redirect().to_vec(), redirect.clone()));
        }
        let described = Described {
            attributes,
            stat: Some(merged.stat),
        };
        if merged.is_top {
            *self.into.data() = described;
            return Ok(());
        }
        let make = || {
            let parent = self.into.folder();
            make_folder(parent, name)?;
            rustix::fs::openat(parent, name, REAL_FOLDER, Mode::empty())
        };
        make()
            .and_then(|below| self.into.enter(below, described))
            .map_err(|error| ArchiveError::io(path, "created", error))
    }

    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        _stat: &Stat,
    ) -> Result<(), ArchiveError> {
        rustix::fs::linkat(parent, name, self.into.folder(), name, AtFlags::empty())
            .map_err(|error| ArchiveError::io(path, "created", error))
    }

    fn leave(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let mut finish = || -> Result<(), Errno> {
            let described = std::mem::take(self.into.data());
            let folder = self.into.folder();
            attributes::write(folder, &described.attributes)?;
            if let Some(stat) = described.stat {
                give(folder, &stat)?;
            }
            self.into.leave().map(drop)
        };
        finish().map_err(|error| ArchiveError::io(path, "created", error))
    }
}

/// Gives an open file or folder the owner, mode and times of another.
pub(crate) fn give(file: impl AsFd, stat: &Stat) -> Result<(), Errno> {
    let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let made = rustix::fs::fstat(&file)?;
    if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
        rustix::fs::fchown(&file, Some(owner), Some(group))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::futimens(&file, &times(stat))
}

pub(crate) fn times(stat: &Stat) -> Timestamps {
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
