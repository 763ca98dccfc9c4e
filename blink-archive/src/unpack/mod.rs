//! Unpacking: one entry after another, each resolved beneath the root.

mod folders;
mod layer;
mod owner;
mod place;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::attributes::{self, Marks};
use crate::error::{ArchiveError, LimitKind};
use crate::format::{Kind, Member, Reader, Segment, Time};
use crate::holes::write_with_holes;
use crate::options::{Links, UnpackOptions};
use crate::path;
use crate::root::{self, REAL_FOLDER, Root};
use folders::{FolderMetadata, Folders};
use layer::{Given, Marker};
use owner::Owner;

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnpackReport {
    /// Entries in the archive, whatever became of them.
    pub entries: u64,
    /// Regular files written.
    pub files: u64,
    /// Folders made or merged, those not counted that the archive only implies.
    pub folders: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Hard links made.
    pub hard_links: u64,
    /// Named pipes made.
    pub fifos: u64,
    /// Sum of the sizes of the files written.
    pub bytes: u64,
    /// Whiteouts applied, or made.
    pub whiteouts: u64,
    /// Entries that got another owner than they state, who is beyond the range.
    pub replaced_owners: u64,
    /// Device nodes left out.
    pub skipped_devices: u64,
    /// Entries of a kind that means nothing here, left out.
    pub skipped_others: u64,
}

/// Unpacks a tar stream into `root`.
///
/// Reads up to the archive's end and no further; what follows (tar pads its
/// archives) is the caller's to read or drop. Memory is bounded whatever the
/// archive says. Files have holes where they are zeros. Extended attributes and device nodes are left out, but for those
/// of [`unpack_overlay`].
///
/// On an error, the entries before the one at fault are there; a caller that
/// wants all or nothing unpacks into a folder of its own and renames it.
///
/// # Errors
/// [`ArchiveError::Hostile`] for what no honest archive holds,
/// [`ArchiveError::Limit`] for what [`Limits`](crate::Limits) forbid,
/// [`ArchiveError::Truncated`] and [`ArchiveError::Corrupt`] for damaged
/// archives, [`ArchiveError::Exists`] for what must not be replaced,
/// [`ArchiveError::Io`] and [`ArchiveError::Stream`] for the system's refusals.
pub fn unpack(
    reader: impl Read,
    root: &Root,
    options: &UnpackOptions,
) -> Result<UnpackReport, ArchiveError> {
    Unpacker::new(root, options).run(reader)
}

/// Unpacks a tar stream that [`pack_overlay`](crate::pack_overlay) has written
/// into the upper folder of an overlay, which has its marks where `marks` says: whiteouts and opaque folders are made for
/// the kernel, and extended attributes of users are kept.
///
/// `beneath` is what the overlay shows beneath, where it is known. A whiteout of
/// what is not there is left out: the kernel would list it as a file.
///
/// # Errors
/// As [`unpack`]. An attribute that only the overlay itself may set is
/// [`ArchiveError::Hostile`].
pub fn unpack_overlay(
    reader: impl Read,
    root: &Root,
    beneath: Option<&Root>,
    marks: Marks,
    options: &UnpackOptions,
) -> Result<UnpackReport, ArchiveError> {
    let unpacker = Unpacker {
        overlay: Some(marks),
        beneath,
        ..Unpacker::new(root, options)
    };
    unpacker.run(reader)
}

/// Large enough that copying is not bound by system calls.
const BUFFER: usize = 128 * 1024;

struct Unpacker<'a> {
    root: &'a Root,
    options: &'a UnpackOptions,
    /// What is unpacked is the upper folder of an overlay, which has its marks there.
    overlay: Option<Marks>,
    beneath: Option<&'a Root>,
    report: UnpackReport,
    /// Bytes that were written to the disk.
    written: u64,
    folders: Folders,
    given: Given,
    /// Entries of one folder follow each other, so this saves most look-ups.
    last_parent: Option<(std::path::PathBuf, Rc<Parent>)>,
    buffer: Box<[u8]>,
}
/// An open folder, and its inode.
struct Parent {
    folder: OwnedFd,
    inode: u64,
}

/// Where an entry belongs.
struct Place<'p> {
    path: &'p Path,
    parent: Rc<Parent>,
    name: &'p OsStr,
}

impl<'a> Unpacker<'a> {
    fn new(root: &'a Root, options: &'a UnpackOptions) -> Self {
        Self {
            root,
            options,
            overlay: None,
            beneath: None,
            report: UnpackReport::default(),
            written: 0,
            folders: Folders::default(),
            given: Given::default(),
            last_parent: None,
            buffer: vec![0; BUFFER].into_boxed_slice(),
        }
    }

    fn run(mut self, reader: impl Read) -> Result<UnpackReport, ArchiveError> {
        // A layer may lack its end marker: some builders leave it out, and a
        // layer's digest says whether it is whole.
        let mut reader = Reader::new(reader, !self.options.whiteouts);
        while let Some(member) = reader.next()? {
            self.entry(&mut reader, &member)?;
        }
        self.finish()
    }

    fn entry<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        member: &Member,
    ) -> Result<(), ArchiveError> {
        let layer = self.options.whiteouts;
        let shown = Path::new(OsStr::from_bytes(&member.path));
        self.report.entries += 1;
        if self.report.entries > self.options.limits.entries {
            return Err(ArchiveError::Limit {
                which: LimitKind::Entries,
                limit: self.options.limits.entries,
                path: shown.to_path_buf(),
            });
        }
        let path = path::clean(&member.path, &self.options.limits, layer)?;
        let owner = Owner::of(member, &path, self.options.ownership)?;
        self.report.replaced_owners +=
            u64::from(Owner::is_replaced(member, self.options.ownership));
        let Some((folder, name)) = path::split(&path) else {
            return self.root_entry(member, owner);
        };
        if layer {
            match layer::marker(&path)? {
                Marker::None => {}
                Marker::Ignored => {
                    self.report.skipped_others += 1;
                    return Ok(());
                }
                marker => return self.whiteout(folder, marker),
            }
        }
        match member.kind {
            Kind::Whiteout if self.overlay.is_some() => {}
            Kind::Device | Kind::Whiteout => {
                self.report.skipped_devices += 1;
                return Ok(());
            }
            Kind::Other => {
                self.report.skipped_others += 1;
                return Ok(());
            }
            _ => {}
        }
        let parent = self.parent(folder, &path)?;
        let place = Place {
            path: &path,
            parent,
            name,
        };
        match member.kind {
            Kind::Directory => self.folder(&place, member, owner),
            Kind::Symlink => self.symlink(&place, member, owner),
            Kind::HardLink => self.hard_link(&place, member),
            Kind::Fifo => self.fifo(&place, member, owner),
            Kind::Whiteout => self.overlay_whiteout(&place, member, owner),
            _ => self.file(&place, member, owner, reader),
        }
    }

    fn root_entry(&mut self, member: &Member, owner: Option<Owner>) -> Result<(), ArchiveError> {
        if member.kind != Kind::Directory {
            return Err(ArchiveError::hostile(
                ".",
                "it would replace the root folder",
            ));
        }
        if self.options.root_metadata {
            self.folders
                .set(Path::new(""), self.folder_metadata(member, owner))?;
        }
        self.report.folders += 1;
        Ok(())
    }

    fn folder(
        &mut self,
        place: &Place<'_>,
        member: &Member,
        owner: Option<Owner>,
    ) -> Result<(), ArchiveError> {
        let made = self.make(place, true, |folder, name| root::make_folder(folder, name))?;
        if self.keeps_attributes() && !member.attributes.is_empty() {
            rustix::fs::openat(&place.parent.folder, place.name, REAL_FOLDER, Mode::empty())
                .map_err(|error| ArchiveError::io(place.path, "opened", error))
                .and_then(|folder| self.attributes(place.path, folder, member))?;
        }
        if made || self.options.overwrite {
            self.folders
                .set(place.path, self.folder_metadata(member, owner))?;
        }
        self.report.folders += 1;
        Ok(())
    }

    fn folder_metadata(&self, member: &Member, owner: Option<Owner>) -> FolderMetadata {
        FolderMetadata {
            mode: self.mode(member),
            owner,
            mtime: Some(member.mtime),
        }
    }

    fn file<R: Read>(
        &mut self,
        place: &Place<'_>,
        member: &Member,
        owner: Option<Owner>,
        reader: &mut Reader<R>,
    ) -> Result<(), ArchiveError> {
        let limit = self.options.limits.total_bytes;
        let total = self.report.bytes.checked_add(member.size);
        let Some(total) = total.filter(|total| *total <= limit) else {
            return Err(ArchiveError::Limit {
                which: LimitKind::TotalBytes,
                limit,
                path: place.path.to_path_buf(),
            });
        };
        let mut file = None;
        self.make(place, false, |folder, name| {
            file = Some(root::make_file(folder, name)?);
            Ok(())
        })?;
        let Some(file) = file else {
            return Err(ArchiveError::io(place.path, "created", Errno::EXIST));
        };
        let file = File::from(file);
        self.content(place.path, &file, member, reader)?;
        let failed =
            |error: Errno| ArchiveError::io(place.path, "given its owner, mode and times", error);
        self.attributes(place.path, &file, member)?;
        if let Some(Owner { uid, gid }) = owner {
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed)?;
        }
        rustix::fs::fchmod(&file, self.mode(member)).map_err(failed)?;
        rustix::fs::futimens(&file, &times(member.mtime)).map_err(failed)?;
        self.report.files += 1;
        self.report.bytes = total;
        Ok(())
    }

    fn content<R: Read>(
        &mut self,
        path: &Path,
        file: &File,
        member: &Member,
        reader: &mut Reader<R>,
    ) -> Result<(), ArchiveError> {
        let whole = [Segment {
            offset: 0,
            length: member.size,
        }];
        let map = member.map.as_deref().unwrap_or(&whole);
        for segment in map {
            self.copy(path, file, *segment, reader)?;
        }
        // It may end in a hole.
        file.set_len(member.size)
            .map_err(|error| ArchiveError::io(path, "written", error))
    }

    fn copy<R: Read>(
        &mut self,
        path: &Path,
        file: &File,
        segment: Segment,
        reader: &mut Reader<R>,
    ) -> Result<(), ArchiveError> {
        let (mut at, end) = (segment.offset, segment.offset + segment.length);
        while at < end {
            let part = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let part = &mut self.buffer[..part];
            reader.read_content(part)?;
            self.written = self.written.saturating_add(data_bytes(part));
            if self.written > self.options.limits.written_bytes {
                return Err(ArchiveError::Limit {
                    which: LimitKind::WrittenBytes,
                    limit: self.options.limits.written_bytes,
                    path: path.to_path_buf(),
                });
            }
            write_with_holes(file, at, part)
                .map_err(|error| ArchiveError::io(path, "written", error))?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn symlink(
        &mut self,
        place: &Place<'_>,
        member: &Member,
        owner: Option<Owner>,
    ) -> Result<(), ArchiveError> {
        if member.link.is_empty() || member.link.contains(&0) {
            return Err(ArchiveError::hostile(
                place.path,
                "it is a symbolic link without a valid target",
            ));
        }
        self.make(place, false, |folder, name| {
            rustix::fs::symlinkat(member.link.as_slice(), folder, name)
        })?;
        self.set_by_name(place, member, owner)?;
        self.report.symlinks += 1;
        Ok(())
    }

    fn fifo(
        &mut self,
        place: &Place<'_>,
        member: &Member,
        owner: Option<Owner>,
    ) -> Result<(), ArchiveError> {
        self.make(place, false, |folder, name| {
            rustix::fs::mknodat(folder, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        })?;
        self.set_by_name(place, member, owner)?;
        let handle = rustix::fs::openat(
            &place.parent.folder,
            place.name,
            root::HANDLE,
            Mode::empty(),
        );
        handle
            .and_then(|handle| root::chmod_handle(handle, self.mode(member)))
            .map_err(|error| ArchiveError::io(place.path, "given its mode", error))?;
        self.report.fifos += 1;
        Ok(())
    }

    /// The mark of a name that is hidden, for the kernel.
    fn overlay_whiteout(
        &mut self,
        place: &Place<'_>,
        member: &Member,
        owner: Option<Owner>,
    ) -> Result<(), ArchiveError> {
        if let Some(beneath) = self.beneath
            && let Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) =
                beneath.lookup(place.path, root::HANDLE, Links::Refuse)
        {
            return Ok(());
        }
        self.make(place, false, |folder, name| {
            rustix::fs::mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), 0)
        })?;
        self.report.whiteouts += 1;
        self.set_by_name(place, member, owner)
    }

    fn attributes(
        &self,
        path: &Path,
        file: impl AsFd,
        member: &Member,
    ) -> Result<(), ArchiveError> {
        if member.attributes.is_empty() {
            return Ok(());
        }
        let Some(marks) = self.overlay else {
            return self.users_attributes(path, file, member);
        };
        let allowed = |(name, value): &(Vec<u8>, Vec<u8>)| {
            attributes::is_carried(name)
                || (member.kind == Kind::Directory && name == attributes::OPAQUE && value == b"y")
        };
        if !member.attributes.iter().all(allowed) {
            return Err(ArchiveError::hostile(
                path,
                "it has an extended attribute that only an overlay itself may set",
            ));
        }
        let marked = member.attributes.iter().map(|(name, value)| {
            let name = match name == attributes::OPAQUE {
                true => marks.opaque(),
                false => name,
            };
            (name.to_vec(), value.clone())
        });
        attributes::write(file, &marked.collect())
            .map_err(|error| ArchiveError::io(path, "given its extended attributes", error))
    }

    fn keeps_attributes(&self) -> bool {
        self.overlay.is_some() || self.options.attributes
    }

    /// Attributes outside of an overlay: those of users, as far as the file system has such and has room for them.
    fn users_attributes(
        &self,
        path: &Path,
        file: impl AsFd,
        member: &Member,
    ) -> Result<(), ArchiveError> {
        if !self.options.attributes {
            return Ok(());
        }
        let kept = member.attributes.iter();
        for attribute in kept.filter(|(name, _)| attributes::is_carried(name)) {
            match attributes::write(&file, &vec![attribute.clone()]) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::NOSPC | Errno::TOOBIG) => {}
                Err(error) => {
                    let action = "given its extended attributes";
                    return Err(ArchiveError::io(path, action, error));
                }
            }
        }
        Ok(())
    }

    /// Owner and times of what cannot be opened.
    fn set_by_name(
        &self,
        place: &Place<'_>,
        member: &Member,
        owner: Option<Owner>,
    ) -> Result<(), ArchiveError> {
        let failed =
            |error: Errno| ArchiveError::io(place.path, "given its owner and times", error);
        let folder = &place.parent.folder;
        if let Some(Owner { uid, gid }) = owner {
            rustix::fs::chownat(
                folder,
                place.name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(failed)?;
        }
        rustix::fs::utimensat(
            folder,
            place.name,
            &times(member.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(failed)
    }

    fn hard_link(&mut self, place: &Place<'_>, member: &Member) -> Result<(), ArchiveError> {
        let refused = |why| ArchiveError::hostile(place.path, why);
        let target = path::clean(&member.link, &self.options.limits, self.options.whiteouts)
            .map_err(|_| refused("it is a hard link to a path outside the archive"))?;
        let Some((folder, name)) = path::split(&target) else {
            return Err(refused("it is a hard link to the root folder"));
        };
        let Some(source) = self.existing_parent(folder, place.path)? else {
            return Err(refused("it is a hard link to a file that does not exist"));
        };
        let stat = match root::stat(&source.folder, name) {
            Ok(stat) if root::is_folder(&stat) => {
                return Err(refused("it is a hard link to a folder"));
            }
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                return Err(refused("it is a hard link to a file that does not exist"));
            }
            Err(error) => return Err(ArchiveError::io(&target, "examined", error)),
        };
        // Replacing a file by a link to itself would remove it.
        let there = root::stat(&place.parent.folder, place.name).ok();
        let is_same =
            there.is_some_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino));
        if !is_same {
            // Without AT_SYMLINK_FOLLOW, a target that is a symbolic link is linked itself.
            self.make(place, false, |to, to_name| {
                rustix::fs::linkat(&source.folder, name, to, to_name, AtFlags::empty())
            })?;
        }
        self.report.hard_links += 1;
        Ok(())
    }

    fn whiteout(&mut self, folder: &Path, marker: Marker<'_>) -> Result<(), ArchiveError> {
        self.report.whiteouts += 1;
        let Some(parent) = self.existing_parent(folder, folder)? else {
            return Ok(());
        };
        let (folder_fd, inode) = (parent.folder.as_fd(), parent.inode);
        let done = match marker {
            Marker::Opaque => self.given.clear_lower(folder_fd, inode),
            Marker::Remove(name) => self.given.remove_lower(folder_fd, inode, name),
            Marker::None | Marker::Ignored => Ok(()),
        };
        self.last_parent = None;
        done.map_err(|error| ArchiveError::io(folder, "cleared of what lower layers gave", error))
    }

    fn mode(&self, member: &Member) -> Mode {
        let kept = if self.options.special_bits {
            0o7777
        } else {
            0o777
        };
        Mode::from_raw_mode(member.mode & kept)
    }

    fn finish(self) -> Result<UnpackReport, ArchiveError> {
        self.folders.apply(self.root, self.options.links())?;
        Ok(self.report)
    }
}

/// How many of some bytes are no hole when they are written with holes.
fn data_bytes(bytes: &[u8]) -> u64 {
    /// What most file systems give and take at once.
    const BLOCK: usize = 4096;
    let has_data = |block: &&[u8]| block.iter().any(|byte| *byte != 0);
    let blocks = bytes.chunks(BLOCK).filter(has_data);
    blocks.map(|block| block.len() as u64).sum()
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanoseconds.into(),
        },
    }
}
