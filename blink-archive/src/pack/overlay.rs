//! Packing the layers of an overlay as the one layer that they come to.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::{PackReport, Packer};
use crate::attributes::OPAQUE;
use crate::error::{ArchiveError, LimitKind};
use crate::layer;
use crate::options::PackOptions;
use crate::overlay::{Merged, Opened, is_whiteout};
use crate::root::{self, Links, Root};

/// Writes the upper folders of an overlay, the lowest first, as one tar stream:
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
/// Memory is bounded by the names of a path's folders. Nobody may write to the
/// layers meanwhile. [`PackOptions::one_file_system`] means nothing here.
///
/// # Errors
/// As [`pack`](crate::pack).
pub fn pack_overlay(
    layers: &[Root],
    writer: impl Write,
    options: &PackOptions,
) -> Result<PackReport, ArchiveError> {
    let mut packer = Packer::new(writer, options, true);
    let all: Vec<usize> = (0..layers.len()).rev().collect();
    if !all.is_empty() {
        packer.merged_folder(layers, &all, Path::new(""), 0, false)?;
    }
    packer.finish()
}

impl<W: Write> Packer<'_, W> {
    /// Packs what the folders at `path` in the layers `at`, the topmost first, come to. In the topmost, it is a folder.
    /// `alone` says that nothing that is beneath the layers is seen there.
    fn merged_folder(
        &mut self,
        layers: &[Root],
        at: &[usize],
        path: &Path,
        depth: usize,
        alone: bool,
    ) -> Result<(), ArchiveError> {
        if depth > self.options.limits.depth {
            return Err(self.limit(LimitKind::Depth, self.options.limits.depth as u64, path));
        }
        let failed = |error: Errno| ArchiveError::io(path, "read", error);
        let mut opened = Opened::default();
        let Merged {
            folder,
            stat,
            entries,
            opaque,
        } = Merged::open(layers, at, path, &mut opened).map_err(failed)?;
        let mut carried = self.attributes(&folder, path)?;
        drop(folder);
        let marked = opaque && !path.as_os_str().is_empty();
        if marked && !self.options.layer {
            carried.push((OPAQUE.to_vec(), b"y".to_vec()));
        }
        let shown = match path.as_os_str().is_empty() {
            true => OsString::from("./"),
            false => path.join("").into_os_string(),
        };
        self.header_with(b'5', Path::new(&shown), b"", &stat, 0, &carried)?;
        if marked && self.options.layer {
            self.marker(&path.join(OsStr::from_bytes(layer::OPAQUE)), &stat)?;
        }
        for (name, at) in entries {
            let path = path.join(name);
            self.merged_entry(layers, &at, &path, depth, alone || opaque)?;
        }
        Ok(())
    }

    fn merged_entry(
        &mut self,
        layers: &[Root],
        at: &[usize],
        path: &Path,
        depth: usize,
        alone: bool,
    ) -> Result<(), ArchiveError> {
        let failed = |error| ArchiveError::io(path, "read", error);
        let (parent, name) = layers[at[0]]
            .open_parent(path, Links::Refuse)
            .map_err(failed)?;
        let stat = root::stat(&parent, name).map_err(|error| failed(error.into()))?;
        if root::is_folder(&stat) {
            self.check_name(name, path)?;
            drop(parent);
            return self.merged_folder(layers, at, path, depth + 1, alone);
        }
        if alone && is_whiteout(&stat) {
            // It would hide nothing; and where nothing is merged, the kernel lists it as a file.
            return Ok(());
        }
        self.entry(parent.as_fd(), name, path, depth)
    }
}
