//! What the layers of an overlay come to, one folder after another.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, Stat};
use rustix::io::Errno;

use crate::attributes;
use crate::root::{self, FOLDER, HANDLE, Links, Root};

/// A folder that several layers have together.
pub(crate) struct Merged {
    /// The topmost layer's own.
    pub(crate) folder: OwnedFd,
    pub(crate) stat: Stat,
    /// The names in it, each with the layers that have it, the topmost first.
    pub(crate) entries: BTreeMap<OsString, Vec<usize>>,
    /// Whether it hides what is beneath the layers.
    pub(crate) opaque: bool,
}

/// Folders that their owner was given the right to read; it is taken back with this.
#[derive(Default)]
pub(crate) struct Opened(Vec<(OwnedFd, Mode)>);

impl Drop for Opened {
    fn drop(&mut self) {
        for (folder, mode) in &self.0 {
            let _ = rustix::fs::fchmod(folder, *mode);
        }
    }
}

impl Merged {
    /// The folders at `path` in the layers `at`, the topmost first, in which it is a folder. What `opened` has must live
    /// for as long as anything in it is looked at.
    pub(crate) fn open(
        layers: &[Root],
        at: &[usize],
        path: &Path,
        opened: &mut Opened,
    ) -> Result<Merged, Errno> {
        let mut entries: BTreeMap<OsString, Vec<usize>> = BTreeMap::new();
        let mut top: Option<(OwnedFd, Stat)> = None;
        let mut opaque = false;
        for &layer in at {
            let handle = layers[layer].lookup(path, HANDLE, Links::Refuse)?;
            let stat = rustix::fs::fstat(handle)?;
            if !root::is_folder(&stat) {
                // What is not a folder hides all beneath it.
                opaque = true;
                break;
            }
            let folder = match layers[layer].lookup(path, FOLDER, Links::Refuse) {
                Err(Errno::ACCESS) => open_up(&layers[layer], path, opened),
                other => other,
            }?;
            for entry in Dir::read_from(&folder)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    let name = std::os::unix::ffi::OsStringExt::from_vec(name);
                    entries.entry(name).or_default().push(layer);
                }
            }
            opaque = attributes::is_opaque(&folder)?;
            top.get_or_insert((folder, stat));
            if opaque {
                break;
            }
        }
        let (folder, stat) = top.ok_or(Errno::NOTDIR)?;
        Ok(Merged {
            folder,
            stat,
            entries,
            opaque,
        })
    }
}

/// Whether it is an overlay's mark of a name that is hidden.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Opens a folder that its owner may not read or enter.
fn open_up(layer: &Root, path: &Path, opened: &mut Opened) -> Result<OwnedFd, Errno> {
    let (parent, name) = layer
        .open_parent(path, Links::Refuse)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::ACCESS))?;
    let mode = root::open_up(&parent, name)?;
    let open = || layer.lookup(path, FOLDER, Links::Refuse);
    opened.0.push((open()?, mode));
    open()
}
