//! Packing: a tree as a tar stream, in a fixed order.

pub(crate) mod overlay;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::attributes;
use crate::error::{ArchiveError, LimitKind};
use crate::format::{
    ATTRIBUTE, Attributes, BLOCK, Fields, LARGEST_EXTENSION, Time, encode, push_record,
};
use crate::layer;
use crate::options::{Links, Ownership, PackOptions};
use crate::overlay::is_whiteout;
use crate::root::{self, FOLDER, HANDLE, REAL_FOLDER, Root};
use crate::way::Way;

/// What was packed, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackReport {
    /// Entries written.
    pub entries: u64,
    /// Sum of the sizes of the files written.
    pub bytes: u64,
    /// Sockets left out.
    pub skipped_sockets: u64,
    /// Device nodes left out.
    pub skipped_devices: u64,
    /// Folders packed empty because another file system is mounted on them.
    pub skipped_mounts: u64,
    /// Files that changed while they were read, up to the first 1000: one that
    /// grew is cut, one that shrank is filled with zeros, one that vanished is
    /// left out. The archive is whole all the same.
    pub changed: Vec<PathBuf>,
}

/// Names kept in a report; a program that changes files on purpose must not fill memory.
const MOST_CHANGED: usize = 1000;

/// Writes the tree at `path` inside `root` as a tar stream.
///
/// A folder's entries are named relative to it, beginning with `./` for the
/// folder itself; anything else gives one entry with its own name. Entries are
/// in the order of their bytes, so that the same tree gives the same archive.
/// Symbolic links in `path` are followed inside the root, except at its end; in
/// the tree they are packed as they are.
///
/// # Errors
/// [`ArchiveError::Io`] for what cannot be read, [`ArchiveError::Stream`] where
/// the writer fails, [`ArchiveError::Limit`] for a tree beyond the limits.
///
/// # Examples
/// See the [crate's](crate) own.
pub fn pack(
    root: &Root,
    path: impl AsRef<Path>,
    writer: impl Write,
    options: &PackOptions,
) -> Result<PackReport, ArchiveError> {
    let path = path.as_ref();
    let failed = |error: Errno| ArchiveError::io(path, "read", error);
    let mut packer = Packer::new(writer, options, false);
    let handle = root.lookup(path, HANDLE, Links::InRoot).map_err(failed)?;
    let stat = rustix::fs::fstat(&handle).map_err(failed)?;
    packer.device = stat.st_dev;
    if root::is_folder(&stat) {
        let folder = root.lookup(path, FOLDER, Links::InRoot).map_err(failed)?;
        packer.folder_header(folder.as_fd(), path, Path::new("./"), &stat)?;
        packer.tree(folder)?;
    } else {
        let (parent, name) = root
            .open_parent(path, Links::InRoot)
            .map_err(|error| ArchiveError::io(path, "read", error))?;
        packer.file_entry(parent.as_fd(), name, Path::new(name), &stat)?;
    }
    packer.finish()
}

/// Large enough that copying is not bound by system calls.
const BUFFER: usize = 2 * attributes::LARGEST;

struct Packer<'a, W> {
    writer: W,
    options: &'a PackOptions,
    /// What is packed are layers of an overlay, with the marks that these have.
    overlay: bool,
    report: PackReport,
    /// Where a file with several names was packed first.
    links: HashMap<(u64, u64), PathBuf>,
    device: u64,
    buffer: Box<[u8]>,
}

impl<'a, W: Write> Packer<'a, W> {
    fn new(writer: W, options: &'a PackOptions, overlay: bool) -> Self {
        Self {
            writer,
            options,
            overlay,
            report: PackReport::default(),
            links: HashMap::new(),
            device: 0,
            buffer: vec![0; BUFFER].into_boxed_slice(),
        }
    }

    /// Packs what is in a folder, in the order of the names.
    fn tree(&mut self, top: OwnedFd) -> Result<(), ArchiveError> {
        let mut path = PathBuf::new();
        let names = self.names_in(top.as_fd(), &path)?;
        let lost = |path: &Path, error| ArchiveError::io(path, "read", error);
        let mut way = Way::new(top, names).map_err(|error| lost(&path, error))?;
        loop {
            let Some(name) = way.data().next() else {
                if way.leave().map_err(|error| lost(&path, error))?.is_none() {
                    return Ok(());
                }
                path.pop();
                continue;
            };
            path.push(&name);
            if let Some(folder) = self.entry(way.folder(), &name, &path)? {
                let limit = self.options.limits.depth;
                if way.depth() >= limit {
                    return Err(self.limit(LimitKind::Depth, limit as u64, &path));
                }
                let names = self.names_in(folder.as_fd(), &path)?;
                way.enter(folder, names)
                    .map_err(|error| lost(&path, error))?;
            } else {
                path.pop();
            }
        }
    }

    fn names_in(
        &self,
        folder: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<std::vec::IntoIter<OsString>, ArchiveError> {
        sorted_names(folder)
            .map(Vec::into_iter)
            .map_err(|error| ArchiveError::io(path, "listed", error))
    }

    /// Packs one name; a folder whose content is to follow is returned.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<Option<OwnedFd>, ArchiveError> {
        let stat = match root::stat(parent, name) {
            Err(Errno::NOENT) => return self.changed(path).map(|()| None),
            other => other.map_err(|error| ArchiveError::io(path, "read", error))?,
        };
        match root::is_folder(&stat) {
            true => self.inner_folder(parent, name, path, &stat),
            false => self.file_entry(parent, name, path, &stat).map(|()| None),
        }
    }

    /// Packs what is no folder.
    fn file_entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        stat: &Stat,
    ) -> Result<(), ArchiveError> {
        self.check_name(name, path)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.changed(path),
            FileType::Socket => {
                self.report.skipped_sockets += 1;
                Ok(())
            }
            FileType::RegularFile | FileType::Symlink | FileType::Fifo
                if self.hard_link(path, stat)? =>
            {
                Ok(())
            }
            FileType::RegularFile => self.file(parent, name, path),
            FileType::Symlink => match rustix::fs::readlinkat(parent, name, Vec::new()) {
                Ok(target) => {
                    self.remember(path, stat);
                    self.header(b'2', path, target.as_bytes(), stat, 0)
                }
                Err(Errno::NOENT | Errno::INVAL) => self.changed(path),
                Err(error) => Err(ArchiveError::io(path, "read", error)),
            },
            FileType::Fifo => {
                self.remember(path, stat);
                self.header(b'6', path, b"", stat, 0)
            }
            _ if self.overlay && is_whiteout(stat) => self.whiteout(name, path, stat),
            _ => {
                self.report.skipped_devices += 1;
                Ok(())
            }
        }
    }

    fn inner_folder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        stat: &Stat,
    ) -> Result<Option<OwnedFd>, ArchiveError> {
        self.check_name(name, path)?;
        let mut entry = path.as_os_str().to_os_string();
        entry.push("/");
        let elsewhere = self.options.one_file_system && stat.st_dev != self.device;
        if elsewhere {
            self.report.skipped_mounts += 1;
            self.header(b'5', Path::new(&entry), b"", stat, 0)?;
            return Ok(None);
        }
        match rustix::fs::openat(parent, name, REAL_FOLDER, Mode::empty()) {
            Ok(folder) => {
                self.folder_header(folder.as_fd(), path, Path::new(&entry), stat)?;
                Ok(Some(folder))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.changed(path).map(|()| None),
            Err(error) => Err(ArchiveError::io(path, "read", error)),
        }
    }

    fn folder_header(
        &mut self,
        folder: BorrowedFd<'_>,
        path: &Path,
        entry: &Path,
        stat: &Stat,
    ) -> Result<(), ArchiveError> {
        let attributes = self.attributes(folder, path)?;
        self.header_with(b'5', entry, b"", stat, 0, &attributes)
    }

    fn attributes(&mut self, file: impl AsFd, path: &Path) -> Result<Attributes, ArchiveError> {
        match self.overlay || self.options.attributes {
            true => attributes::read(file, &mut self.buffer)
                .map_err(|error| ArchiveError::io(path, "read", error)),
            false => Ok(Attributes::new()),
        }
    }

    /// What an overlay hides, as it marks it itself or as OCI layers do.
    fn whiteout(&mut self, name: &OsStr, path: &Path, stat: &Stat) -> Result<(), ArchiveError> {
        if !self.options.layer {
            return self.header(b'3', path, b"", stat, 0);
        }
        let mut marker = OsString::from_vec(layer::WHITEOUT.to_vec());
        marker.push(name);
        self.marker(&path.with_file_name(marker), stat)
    }

    /// An empty file that says something by its name.
    fn marker(&mut self, path: &Path, stat: &Stat) -> Result<(), ArchiveError> {
        self.header(b'0', path, b"", stat, 0)
    }

    fn check_name(&self, name: &OsStr, path: &Path) -> Result<(), ArchiveError> {
        match self.options.layer && name.as_bytes().starts_with(layer::WHITEOUT) {
            false => Ok(()),
            true => Err(ArchiveError::Unrepresentable {
                path: path.to_path_buf(),
                why: "in a layer of an image, a name that begins with '.wh.' stands for something that was removed; \
                      rename it",
            }),
        }
    }

    /// Writes a link where the file was packed before under another name.
    fn hard_link(&mut self, path: &Path, stat: &Stat) -> Result<bool, ArchiveError> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else {
            return Ok(false);
        };
        let first = first.as_os_str().as_bytes().to_vec();
        self.header(b'1', path, &first, stat, 0)?;
        Ok(true)
    }

    /// For those of its names that come later.
    fn remember(&mut self, path: &Path, stat: &Stat) {
        if stat.st_nlink > 1 {
            self.links
                .insert((stat.st_dev, stat.st_ino), path.to_path_buf());
        }
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), ArchiveError> {
        // Without blocking: what was a file may have become a pipe.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Err(Errno::ACCESS) if self.overlay => root::open_file_anyway(parent, name, flags),
            other => other,
        };
        let file = match file {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return self.changed(path),
            Err(error) => return Err(ArchiveError::io(path, "read", error)),
        };
        let stat =
            rustix::fs::fstat(&file).map_err(|error| ArchiveError::io(path, "read", error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self.changed(path);
        }
        let size = stat.st_size.cast_unsigned();
        if self.report.bytes.saturating_add(size) > self.options.limits.total_bytes {
            return Err(self.limit(LimitKind::TotalBytes, self.options.limits.total_bytes, path));
        }
        self.remember(path, &stat);
        let attributes = self.attributes(&file, path)?;
        self.header_with(b'0', path, b"", &stat, size, &attributes)?;
        self.content(&mut File::from(file), path, size)?;
        self.report.bytes += size;
        Ok(())
    }

    /// Writes exactly `size` bytes, whatever the file does meanwhile.
    fn content(&mut self, file: &mut File, path: &Path, size: u64) -> Result<(), ArchiveError> {
        let mut left = size;
        let mut changed = false;
        while left > 0 {
            let part = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let read = if changed {
                self.buffer[..part].fill(0);
                part
            } else {
                match file.read(&mut self.buffer[..part]) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    other => other.map_err(|error| ArchiveError::io(path, "read", error))?,
                }
            };
            changed |= read == 0;
            self.writer
                .write_all(&self.buffer[..read])
                .map_err(write_failed)?;
            left -= read as u64;
        }
        let grown = !changed && matches!(file.read(&mut self.buffer[..1]), Ok(1));
        if changed || grown {
            self.changed(path)?;
        }
        self.pad(size)
    }

    fn header(
        &mut self,
        kind: u8,
        path: &Path,
        link: &[u8],
        stat: &Stat,
        size: u64,
    ) -> Result<(), ArchiveError> {
        self.header_with(kind, path, link, stat, size, &Attributes::new())
    }

    fn header_with(
        &mut self,
        kind: u8,
        path: &Path,
        link: &[u8],
        stat: &Stat,
        size: u64,
        attributes: &Attributes,
    ) -> Result<(), ArchiveError> {
        self.report.entries += 1;
        if self.report.entries > self.options.limits.entries {
            return Err(self.limit(LimitKind::Entries, self.options.limits.entries, path));
        }
        let (uid, gid) = stated_owner(stat, self.options.ownership);
        #[allow(
            clippy::unnecessary_cast,
            clippy::cast_possible_truncation,
            reason = "nanoseconds are below 2^30 in a type that differs between machines"
        )]
        let mtime = Time {
            seconds: stat.st_mtime as i64,
            nanoseconds: stat.st_mtime_nsec as u32,
        };
        let fields = Fields {
            kind,
            name: path.as_os_str().as_bytes(),
            link,
            mode: Mode::from_raw_mode(stat.st_mode).as_raw_mode(),
            uid,
            gid,
            size,
            mtime: mtime.seconds,
        };
        let mut records = records(&fields, mtime);
        for (name, value) in attributes {
            push_record(&mut records, [ATTRIBUTE.as_bytes(), name].concat(), value);
        }
        if records.len() as u64 > LARGEST_EXTENSION {
            return Err(self.limit(LimitKind::Metadata, LARGEST_EXTENSION, path));
        }
        if !records.is_empty() {
            let extension = Fields {
                kind: b'x',
                name: b"././@PaxHeader",
                link: b"",
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: records.len() as u64,
                mtime: 0,
            };
            self.writer
                .write_all(&encode(&extension))
                .map_err(write_failed)?;
            self.writer.write_all(&records).map_err(write_failed)?;
            self.pad(records.len() as u64)?;
        }
        self.writer
            .write_all(&encode(&fields))
            .map_err(write_failed)
    }

    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        self.writer
            .write_all(&[0; BLOCK][..padding])
            .map_err(write_failed)
    }

    fn finish(mut self) -> Result<PackReport, ArchiveError> {
        self.writer
            .write_all(&[0; 2 * BLOCK])
            .map_err(write_failed)?;
        self.writer.flush().map_err(write_failed)?;
        Ok(self.report)
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "every way to treat an entry ends in a result"
    )]
    fn changed(&mut self, path: &Path) -> Result<(), ArchiveError> {
        if self.report.changed.len() < MOST_CHANGED {
            self.report.changed.push(path.to_path_buf());
        }
        Ok(())
    }

    fn limit(&self, which: LimitKind, limit: u64, path: &Path) -> ArchiveError {
        ArchiveError::Limit {
            which,
            limit,
            path: path.to_path_buf(),
        }
    }
}

fn write_failed(source: std::io::Error) -> ArchiveError {
    ArchiveError::Stream {
        action: "written",
        source,
    }
}

fn sorted_names(folder: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    let mut names = names(folder)?;
    names.sort_unstable();
    Ok(names)
}

fn names(folder: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

fn stated_owner(stat: &Stat, ownership: Ownership) -> (u32, u32) {
    match ownership {
        Ownership::Ignore => (0, 0),
        Ownership::Preserve {
            uid_base,
            gid_base,
            max_id,
            ..
        } => {
            let map = |id: u32, base: u32| id.checked_sub(base).unwrap_or(max_id).min(max_id);
            (map(stat.st_uid, uid_base), map(stat.st_gid, gid_base))
        }
    }
}

/// What does not fit the header itself.
fn records(fields: &Fields<'_>, mtime: Time) -> Vec<u8> {
    let mut records = Vec::new();
    if fields.name.len() > Fields::LONGEST_NAME {
        push_record(&mut records, "path", fields.name);
    }
    if fields.link.len() > Fields::LONGEST_NAME {
        push_record(&mut records, "linkpath", fields.link);
    }
    if fields.size > Fields::LARGEST_SIZE {
        push_record(&mut records, "size", fields.size.to_string().as_bytes());
    }
    if fields.uid > Fields::LARGEST_ID {
        push_record(&mut records, "uid", fields.uid.to_string().as_bytes());
    }
    if fields.gid > Fields::LARGEST_ID {
        push_record(&mut records, "gid", fields.gid.to_string().as_bytes());
    }
    if mtime.nanoseconds != 0
        || mtime.seconds < 0
        || mtime.seconds.cast_unsigned() > Fields::LARGEST_SIZE
    {
        push_record(&mut records, "mtime", mtime.to_text().as_bytes());
    }
    records
}
