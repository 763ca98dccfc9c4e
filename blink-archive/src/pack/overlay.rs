//! Packing the layers of an overlay as the one layer that they come to.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::Stat;

use super::{PackReport, Packer};
use crate::attributes::OPAQUE;
use crate::error::ArchiveError;
use crate::layer;
use crate::options::PackOptions;
use crate::overlay::{Merged, Overlay, Visitor, visit};

/// Writes the layers of an overlay as one tar stream:
/// the upper folder that alone would show the same over what is beneath them all.
///
/// A whiteout is a character device 0/0, as in the folders themselves; an opaque
/// folder has the record `SCHILY.xattr.user.overlay.opaque`, and what else has
/// extended attributes of users keeps them. [`unpack_overlay`](crate::unpack_overlay)
/// makes them again. With [`PackOptions::layer`], they are those of OCI layers
/// instead: `.wh.NAME`, and `.wh..wh..opq` in the folder. What is
/// hidden by a layer above is not in the stream, nor a whiteout where nothing
/// beneath the layers is seen.
///
/// A folder that was renamed over the layers beneath is written with all that it shows of them.
///
/// Memory is bounded by the names of a path's folders. Nobody may write to the
/// layers meanwhile. [`PackOptions::one_file_system`] means nothing here.
///
/// # Errors
/// As [`pack`](crate::pack).
pub fn pack_overlay(
    overlay: &Overlay<'_>,
    writer: impl Write,
    options: &PackOptions,
) -> Result<PackReport, ArchiveError> {
    let mut packer = Packer::new(writer, options, true);
    visit(overlay, Some(options.limits.depth), &mut packer)?;
    packer.finish()
}

impl<W: Write> Visitor for Packer<'_, W> {
    const WHOLE: bool = true;

    fn enter(
        &mut self,
        merged: &Merged<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), ArchiveError> {
        self.check_name(name, path)?;
        let mut carried = self.attributes(merged.folder, path)?;
        let marked = merged.opaque && !merged.is_top;
        if marked && !self.options.layer {
            carried.push((OPAQUE.to_vec(), b"y".to_vec()));
        }
        let shown = match merged.is_top {
            true => OsString::from("./"),
            false => path.join("").into_os_string(),
        };
        self.header_with(b'5', Path::new(&shown), b"", &merged.stat, 0, &carried)?;
        if marked && self.options.layer {
            self.marker(&path.join(OsStr::from_bytes(layer::OPAQUE)), &merged.stat)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        stat: &Stat,
    ) -> Result<(), ArchiveError> {
        self.file_entry(parent, name, path, stat)
    }

    fn leave(&mut self, _path: &Path) -> Result<(), ArchiveError> {
        Ok(())
    }
}
