//! What the layers of an overlay come to, one folder after another.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, Stat};
use rustix::io::Errno;

use crate::attributes;
use crate::error::{ArchiveError, LimitKind};
use crate::root::{self, Links, REAL_FOLDER, Root};
use crate::way::Way;

/// Folders held open at once of each layer: an overlay has some thirty of them.
const MOST_OPEN: usize = 8;

/// A folder that several layers have together.
pub(crate) struct Merged<'a> {
    /// The topmost layer's own.
    pub(crate) folder: BorrowedFd<'a>,
    pub(crate) stat: Stat,
    /// Whether it hides what is beneath the layers.
    pub(crate) opaque: bool,
    pub(crate) is_top: bool,
}

/// Receives the merged contents of the layers.
pub(crate) trait Visitor {
    /// A folder begins, whose name in the folder before is `name`.
    fn enter(&mut self, merged: &Merged<'_>, name: &OsStr, path: &Path)
    -> Result<(), ArchiveError>;

    /// Something else than a folder.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        stat: &Stat,
    ) -> Result<(), ArchiveError>;

    /// The folder ends that began last.
    fn leave(&mut self, path: &Path) -> Result<(), ArchiveError>;
}

/// Tells what the upper folders of an overlay, the lowest first, come to, in the order of the names. A whiteout where
/// nothing beneath the layers is seen is left out: it would hide nothing; and where nothing is merged, the kernel lists it
/// as a file.
///
/// Nobody may write to the layers meanwhile.
pub(crate) fn visit(
    layers: &[Root],
    most_depth: Option<usize>,
    visitor: &mut impl Visitor,
) -> Result<(), ArchiveError> {
    if layers.is_empty() {
        return Ok(());
    }
    let mut walk = Walk {
        ways: Vec::new(),
        levels: Vec::new(),
    };
    let mut path = PathBuf::new();
    let read = |error: Errno| ArchiveError::io("", "read", error);
    for layer in layers {
        let top = layer.lookup(Path::new(""), REAL_FOLDER, Links::Refuse);
        let way = top.and_then(|top| Way::with_most_open(top, None, MOST_OPEN));
        walk.ways.push(way.map_err(read)?);
    }
    let all = (0..layers.len()).rev().collect();
    let all = Entered {
        at: all,
        hides: false,
    };
    walk.begin(all, OsStr::new(""), &path, false, visitor)?;
    while let Some(level) = walk.levels.last_mut() {
        let alone = level.alone;
        let Some((name, at)) = level.entries.next() else {
            visitor.leave(&path)?;
            walk.leave()
                .map_err(|error| ArchiveError::io(&path, "read", error))?;
            path.pop();
            continue;
        };
        path.push(&name);
        let failed = |error: Errno| ArchiveError::io(&path, "read", error);
        let parent = walk.ways[at[0]].folder();
        let stat = root::stat(parent, &name).map_err(failed)?;
        if root::is_folder(&stat) {
            if let Some(most) = most_depth
                && walk.levels.len() > most
            {
                return Err(ArchiveError::Limit {
                    which: LimitKind::Depth,
                    limit: most as u64,
                    path,
                });
            }
            let at = walk.enter(&at, &name).map_err(failed)?;
            walk.begin(at, &name, &path, alone, visitor)?;
            continue;
        }
        if !(alone && is_whiteout(&stat)) {
            visitor.entry(parent, &name, &path, &stat)?;
        }
        path.pop();
    }
    Ok(())
}

/// A way for each layer, as far down as it has a part in what is being told.
struct Walk {
    /// With each folder the mode to give back that it had before its owner was given the right to read it.
    ways: Vec<Way<Option<Mode>>>,
    levels: Vec<Level>,
}

/// The layers that are in a folder, the topmost first.
#[derive(Default)]
struct Entered {
    at: Vec<usize>,
    /// One of them, or what the next beneath has instead of a folder, hides all that is beneath.
    hides: bool,
}

struct Level {
    /// The layers that are in this folder, the topmost first.
    at: Vec<usize>,
    /// The names in it, each with the layers that have it, the topmost first.
    entries: std::collections::btree_map::IntoIter<OsString, Vec<usize>>,
    /// Nothing of what is beneath the layers is seen there.
    alone: bool,
}

impl Walk {
    /// Goes on into a folder in the layers that have it, the topmost first, until one hides those beneath.
    fn enter(&mut self, at: &[usize], name: &OsStr) -> Result<Entered, Errno> {
        let mut entered = Entered::default();
        for &layer in at {
            let parent = self.ways[layer].folder();
            // What is not a folder hides all beneath it.
            if !root::is_folder(&root::stat(parent, name)?) {
                entered.hides = true;
                break;
            }
            let (folder, former) = root::open_for_a_while(parent, name)?;
            let opaque = attributes::is_opaque(&folder);
            self.ways[layer].enter(folder, former)?;
            entered.at.push(layer);
            if opaque? {
                entered.hides = true;
                break;
            }
        }
        Ok(entered)
    }

    /// Lists a folder that all of `at` have entered, and tells of it.
    fn begin(
        &mut self,
        Entered { at, hides }: Entered,
        name: &OsStr,
        path: &Path,
        alone: bool,
        visitor: &mut impl Visitor,
    ) -> Result<(), ArchiveError> {
        let failed = |error: Errno| ArchiveError::io(path, "read", error);
        let mut entries: BTreeMap<OsString, Vec<usize>> = BTreeMap::new();
        for &layer in &at {
            let folder = self.ways[layer].folder();
            for entry in Dir::read_from(folder).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    let name = OsString::from_vec(name);
                    entries.entry(name).or_default().push(layer);
                }
            }
        }
        let Some(&topmost) = at.first() else {
            return Err(failed(Errno::NOTDIR));
        };
        let folder = self.ways[topmost].folder();
        let mut stat = rustix::fs::fstat(folder).map_err(failed)?;
        let merged_mode = *self.ways[topmost].data();
        if let Some(mode) = merged_mode {
            stat.st_mode = (stat.st_mode & !0o7777) | mode.as_raw_mode();
        }
        let merged = Merged {
            folder: self.ways[topmost].folder(),
            stat,
            opaque: hides,
            is_top: self.levels.is_empty(),
        };
        visitor.enter(&merged, name, path)?;
        self.levels.push(Level {
            at,
            entries: entries.into_iter(),
            alone: alone || hides,
        });
        Ok(())
    }

    /// Goes back to the folder above, in the layers that were in this one.
    fn leave(&mut self) -> Result<(), Errno> {
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        for layer in level.at {
            let way = &mut self.ways[layer];
            give_back(way);
            way.leave()?;
        }
        Ok(())
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        for way in &mut self.ways {
            loop {
                give_back(way);
                if !matches!(way.leave(), Ok(Some(_))) {
                    break;
                }
            }
        }
    }
}

fn give_back(way: &mut Way<Option<Mode>>) {
    if let Some(mode) = way.data().take() {
        let _ = rustix::fs::fchmod(way.folder(), mode);
    }
}

/// Whether it is an overlay's mark of a name that is hidden.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
