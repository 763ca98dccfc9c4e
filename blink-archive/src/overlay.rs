//! What the layers of an overlay come to, one folder after another.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, Stat};
use rustix::io::Errno;

use crate::attributes::{self, Marks};
use crate::error::{ArchiveError, LimitKind};
use crate::options::Links;
use crate::root::{self, REAL_FOLDER, Root};
use crate::way::Way;

/// The upper folders of an overlay, the lowest first.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// Those to read.
    pub layers: &'a [Root],
    /// Those beneath them. A folder that was renamed over them shows what they have under its former name.
    pub beneath: &'a [Root],
    /// Where the overlay has its marks.
    pub marks: Marks,
}

/// Folders held open at once of each layer: an overlay has some thirty of them.
const MOST_OPEN: usize = 8;

/// A folder that several layers have together.
pub(crate) struct Merged<'a> {
    /// The topmost layer's own.
    pub(crate) folder: BorrowedFd<'a>,
    pub(crate) stat: Stat,
    /// Whether it hides what is beneath the layers.
    pub(crate) opaque: bool,
    /// Where the layers beneath have it, as the overlay's mark says it, if not under its own name.
    pub(crate) redirect: Option<Vec<u8>>,
    pub(crate) is_top: bool,
}

/// Receives the merged contents of the layers.
pub(crate) trait Visitor {
    /// Whether the visitor gets the whole contents of a renamed folder, including what only the layers beneath have of it.
    const WHOLE: bool;

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

/// Tells what the layers of an overlay come to, in the order of the names. A whiteout where
/// nothing beneath the layers is seen is left out: it would hide nothing; and where nothing is merged, the kernel lists it
/// as a file.
///
/// Nobody may write to the layers meanwhile.
pub(crate) fn visit<V: Visitor>(
    overlay: &Overlay<'_>,
    most_depth: Option<usize>,
    visitor: &mut V,
) -> Result<(), ArchiveError> {
    if overlay.layers.is_empty() {
        return Ok(());
    }
    let beneath = match V::WHOLE {
        true => overlay.beneath,
        false => &[],
    };
    let mut walk = Walk {
        roots: beneath.iter().chain(overlay.layers).collect(),
        beneath: beneath.len(),
        marks: overlay.marks,
        ways: Vec::new(),
        levels: Vec::new(),
    };
    let mut path = PathBuf::new();
    let read = |error: Errno| ArchiveError::io("", "read", error);
    for layer in &walk.roots {
        let top = layer.lookup(Path::new(""), REAL_FOLDER, Links::Refuse);
        let way = top.and_then(|top| Way::with_most_open(top, None, MOST_OPEN));
        walk.ways.push(vec![way.map_err(read)?]);
    }
    let all = Entered {
        at: (0..walk.roots.len()).rev().map(Part::of).collect(),
        ..Entered::default()
    };
    walk.begin(all, OsStr::new(""), &path, visitor)?;
    while let Some(level) = walk.levels.last_mut() {
        let alone = level.alone;
        let Some((name, layer)) = level.entries.next() else {
            visitor.leave(&path)?;
            walk.leave()
                .map_err(|error| ArchiveError::io(&path, "read", error))?;
            path.pop();
            continue;
        };
        path.push(&name);
        let failed = |error: Errno| ArchiveError::io(&path, "read", error);
        let parent = walk.folder(layer);
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
            let at = walk.enter(layer, &name).map_err(failed)?;
            walk.begin(at, &name, &path, visitor)?;
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
struct Walk<'a> {
    /// The lowest first.
    roots: Vec<&'a Root>,
    /// How many of them, from the lowest, are beneath the layers to read.
    beneath: usize,
    marks: Marks,
    /// With each folder the mode to give back that it had before its owner was given the right to read it. A folder that a
    /// layer has elsewhere begins a way of its own.
    ways: Vec<Vec<Way<Option<Mode>>>>,
    levels: Vec<Level>,
}

/// A layer that is in a folder.
#[derive(Clone, Copy)]
struct Part {
    layer: usize,
    /// It has the folder elsewhere.
    is_elsewhere: bool,
}

impl Part {
    fn of(layer: usize) -> Part {
        Part {
            layer,
            is_elsewhere: false,
        }
    }
}

/// The layers that are in a folder, the topmost first.
#[derive(Default)]
struct Entered {
    at: Vec<Part>,
    /// One of them, or what the next beneath has instead of a folder, hides all that is beneath.
    hides: bool,
    /// Where what is beneath them has the folder, if not under its own name.
    moved: Option<Sought>,
}

struct Level {
    /// The layers that are in this folder, the topmost first.
    at: Vec<Part>,
    /// The names in it, each with the topmost layer that has it.
    entries: std::collections::btree_map::IntoIter<OsString, usize>,
    /// Nothing of what is beneath the layers is seen there.
    alone: bool,
    /// The visitor gets what the layers beneath have, too.
    whole: bool,
}

/// Under what name a layer has a folder.
#[derive(Clone, PartialEq)]
enum Sought {
    /// In the folder that it has in place of the one before.
    Name(OsString),
    /// From its top.
    Path(PathBuf),
}

/// What a layer has there.
enum Found {
    Nothing,
    /// Something that hides what lower layers have.
    Hidden,
    Folder {
        folder: OwnedFd,
        former: Option<Mode>,
    },
}

impl Walk<'_> {
    fn folder(&self, layer: usize) -> BorrowedFd<'_> {
        let ways = &self.ways[layer];
        ways[ways.len() - 1].folder()
    }

    fn way(&mut self, layer: usize) -> &mut Way<Option<Mode>> {
        let ways = &mut self.ways[layer];
        let last = ways.len() - 1;
        &mut ways[last]
    }

    /// Goes on into a folder in the layers that have it, from the topmost down, until one hides those beneath: as the kernel
    /// looks for it.
    fn enter(&mut self, topmost: usize, name: &OsStr) -> Result<Entered, Errno> {
        let mut entered = Entered::default();
        let parts: Vec<_> = self.levels.last().map_or(Vec::new(), |level| {
            level.at.iter().map(|part| part.layer).collect()
        });
        let own = Sought::Name(name.to_owned());
        let mut sought = own.clone();
        for layer in (0..=topmost).rev() {
            let is_elsewhere = matches!(sought, Sought::Path(_));
            if !is_elsewhere && !parts.contains(&layer) {
                continue;
            }
            let (found, next) = match &sought {
                Sought::Name(name) => self.look_for(self.folder(layer), name)?,
                Sought::Path(path) => self.look_from_top(layer, path)?,
            };
            let hides = next.is_none();
            match found {
                Found::Folder { folder, former } if is_elsewhere => {
                    let way = Way::with_most_open(folder, former, MOST_OPEN)?;
                    self.ways[layer].push(way);
                    entered.at.push(Part {
                        layer,
                        is_elsewhere,
                    });
                }
                Found::Folder { folder, former } => {
                    self.way(layer).enter(folder, former)?;
                    entered.at.push(Part::of(layer));
                }
                Found::Nothing | Found::Hidden => {}
            }
            if hides {
                entered.hides = true;
                return Ok(entered);
            }
            sought = next.unwrap_or(sought);
        }
        entered.moved = (sought != own).then_some(sought);
        Ok(entered)
    }

    /// What has a name in a folder of a layer, and under what name lower layers have it: none where it hides them.
    fn look_for(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(Found, Option<Sought>), Errno> {
        let same = Some(Sought::Name(name.to_owned()));
        match root::stat(parent, name) {
            Err(Errno::NOENT) => return Ok((Found::Nothing, same)),
            Ok(stat) if root::is_folder(&stat) => {}
            // What is not a folder hides all beneath it.
            found => return found.map(|_| (Found::Hidden, None)),
        }
        let (folder, former) = root::open_for_a_while(parent, name)?;
        let next = match self.mark_of(&folder)? {
            Mark::None => same,
            Mark::Opaque => None,
            Mark::Renamed(name) => Some(Sought::Name(name)),
            Mark::Moved(path) => Some(Sought::Path(path)),
        };
        Ok((Found::Folder { folder, former }, next))
    }

    /// The same for a path from a layer's top. A mark on the way leads lower layers elsewhere.
    fn look_from_top(&self, layer: usize, path: &Path) -> Result<(Found, Option<Sought>), Errno> {
        let mut folder = self.roots[layer].lookup(Path::new(""), REAL_FOLDER, Links::Refuse)?;
        let mut translated = PathBuf::new();
        let mut hides = false;
        let mut names = path.components().peekable();
        while let Some(Component::Normal(name)) = names.next() {
            translated.push(name);
            match root::stat(&folder, name) {
                Err(Errno::NOENT) => {
                    translated.extend(names);
                    let next = (!hides).then_some(Sought::Path(translated));
                    return Ok((Found::Nothing, next));
                }
                Ok(stat) if root::is_folder(&stat) => {}
                found => return found.map(|_| (Found::Hidden, None)),
            }
            let (below, former) = root::open_for_a_while(folder.as_fd(), name)?;
            match self.mark_of(&below)? {
                Mark::None => {}
                Mark::Opaque => hides = true,
                Mark::Renamed(name) => translated.set_file_name(name),
                Mark::Moved(path) => {
                    // It is elsewhere in all that is beneath, whatever hides the folders above it.
                    hides = false;
                    translated = path;
                }
            }
            if names.peek().is_none() {
                let next = (!hides).then_some(Sought::Path(translated));
                let folder = below;
                return Ok((Found::Folder { folder, former }, next));
            }
            if let Some(mode) = former {
                let _ = rustix::fs::fchmod(&below, mode);
            }
            folder = below;
        }
        Err(Errno::INVAL)
    }

    fn mark_of(&self, folder: &OwnedFd) -> Result<Mark, Errno> {
        if attributes::is_opaque(folder, self.marks)? {
            return Ok(Mark::Opaque);
        }
        let Some(redirect) = attributes::redirect(folder, self.marks)? else {
            return Ok(Mark::None);
        };
        match redirect.strip_prefix(b"/") {
            Some(path) => {
                let path = Path::new(OsStr::from_bytes(path));
                let is_plain = path
                    .components()
                    .all(|part| matches!(part, Component::Normal(_)));
                match is_plain && path.file_name().is_some() {
                    true => Ok(Mark::Moved(path.to_owned())),
                    false => Err(Errno::INVAL),
                }
            }
            None if redirect.is_empty() || redirect.contains(&b'/') => Err(Errno::INVAL),
            None => Ok(Mark::Renamed(OsString::from_vec(redirect))),
        }
    }

    /// Lists a folder that all of `at` have entered, and tells of it.
    fn begin<V: Visitor>(
        &mut self,
        Entered { at, hides, moved }: Entered,
        name: &OsStr,
        path: &Path,
        visitor: &mut V,
    ) -> Result<(), ArchiveError> {
        let failed = |error: Errno| ArchiveError::io(path, "read", error);
        let (was_alone, was_whole) = self
            .levels
            .last()
            .map_or((false, false), |level| (level.alone, level.whole));
        let whole = was_whole || (V::WHOLE && moved.is_some());
        let mut entries: BTreeMap<OsString, usize> = BTreeMap::new();
        for &Part { layer, .. } in &at {
            if layer < self.beneath && !whole {
                break;
            }
            for entry in Dir::read_from(self.folder(layer)).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    let name = OsString::from_vec(name);
                    entries.entry(name).or_insert(layer);
                }
            }
        }
        let Some(&Part { layer: topmost, .. }) = at.first() else {
            return Err(failed(Errno::NOTDIR));
        };
        let merged_mode = *self.way(topmost).data();
        let folder = self.folder(topmost);
        let mut stat = rustix::fs::fstat(folder).map_err(failed)?;
        if let Some(mode) = merged_mode {
            stat.st_mode = (stat.st_mode & !0o7777) | mode.as_raw_mode();
        }
        let is_alone = hides || whole;
        // What is hidden beneath the folder above may have had this one elsewhere.
        let sees_through = matches!(moved, Some(Sought::Path(_)));
        let merged = Merged {
            folder,
            stat,
            opaque: is_alone,
            redirect: moved.filter(|_| !whole).map(Sought::into_mark),
            is_top: self.levels.is_empty(),
        };
        visitor.enter(&merged, name, path)?;
        self.levels.push(Level {
            at,
            entries: entries.into_iter(),
            alone: is_alone || (was_alone && !sees_through),
            whole,
        });
        Ok(())
    }

    /// Goes back to the folder above, in the layers that were in this one.
    fn leave(&mut self) -> Result<(), Errno> {
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        for part in level.at {
            let way = self.way(part.layer);
            give_back(way);
            match part.is_elsewhere {
                true => drop(self.ways[part.layer].pop()),
                false => drop(way.leave()?),
            }
        }
        Ok(())
    }
}

/// What an overlay has marked a folder with.
enum Mark {
    None,
    /// It hides what lower layers have there.
    Opaque,
    /// Lower layers have it under another name in the same folder.
    Renamed(OsString),
    /// They have it elsewhere.
    Moved(PathBuf),
}

impl Sought {
    fn into_mark(self) -> Vec<u8> {
        match self {
            Sought::Name(name) => name.into_vec(),
            Sought::Path(path) => [b"/", path.as_os_str().as_bytes()].concat(),
        }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        for way in self.ways.iter_mut().flatten() {
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
