//! Copying a tree as it is: the upper folder of an overlay, with all that the kernel has written there.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use crate::attributes::{self, LARGEST, Marks};
use crate::error::ArchiveError;
use crate::holes::copy_file;
use crate::merge::{give, times};
use crate::options::Links;
use crate::root::{self, REAL_FOLDER, Root};
use crate::way::Way;

/// Copies trees, each from the first folder to the second, an empty one, with owners, modes, times, extended attributes,
/// holes, devices, and an overlay's own marks. What has several names in them has these in the copies. Shares blocks where
/// the file system can.
///
/// The copies of files with several names have one more in `links` until it ends, which must be an empty folder on the same
/// file system. What their owner may not read is read all the same. Nobody may write to the trees meanwhile.
///
/// # Errors
/// [`ArchiveError::Io`].
pub fn copy_trees(trees: &[(Root, Root)], links: &Root) -> Result<(), ArchiveError> {
    let open = |root: &Root| root.lookup(Path::new(""), REAL_FOLDER, Links::Refuse);
    let failed = |error: Errno| ArchiveError::io("", "copied", error);
    let mut linked = HashMap::new();
    for (from, to) in trees {
        let mut path = PathBuf::new();
        let mut copier = Copier {
            from: Way::new(open(from).map_err(failed)?, Copied::default()).map_err(failed)?,
            to: Way::new(open(to).map_err(failed)?, ()).map_err(failed)?,
            links,
            linked: &mut linked,
            buffer: vec![0; 2 * LARGEST],
        };
        let copied = copier.run(&mut path);
        copied.map_err(|error| ArchiveError::io(path, "copied", error))?;
    }
    for number in 0..linked.len() {
        rustix::fs::unlinkat(links, number.to_string(), AtFlags::empty()).map_err(failed)?;
    }
    Ok(())
}

/// A folder that is being copied.
#[derive(Default)]
struct Copied {
    /// As it was before its owner was given the right to read it.
    former: Option<Mode>,
    /// Folders in it that are to be copied.
    below: Vec<OsString>,
}

struct Copier<'a> {
    from: Way<Copied>,
    to: Way<()>,
    links: &'a Root,
    /// Files with several names, by their numbers among the links.
    linked: &'a mut HashMap<(u64, u64), usize>,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    /// `path` is where it is, even if it fails.
    fn run(&mut self, path: &mut PathBuf) -> Result<(), Errno> {
        self.from.data().below = self.files(path)?;
        loop {
            if let Some(name) = self.from.data().below.pop() {
                path.push(&name);
                self.enter(&name)?;
                self.from.data().below = self.files(path)?;
                continue;
            }
            self.finish_folder()?;
            if self.from.leave()?.is_none() {
                break;
            }
            self.to.leave()?;
            path.pop();
        }
        Ok(())
    }

    fn enter(&mut self, name: &OsStr) -> Result<(), Errno> {
        let (from, former) = root::open_for_a_while(self.from.folder(), name)?;
        let to = self.to.folder();
        root::make_folder(to, name)?;
        let below = rustix::fs::openat(to, name, REAL_FOLDER, Mode::empty())?;
        let copied = Copied {
            former,
            below: Vec::new(),
        };
        self.from.enter(from, copied)?;
        self.to.enter(below, ())
    }

    /// Everything is in the folder.
    fn finish_folder(&mut self) -> Result<(), Errno> {
        let former = self.from.data().former.take();
        let (from, to) = (self.from.folder(), self.to.folder());
        let mut stat = rustix::fs::fstat(from)?;
        if let Some(mode) = former {
            stat.st_mode = (stat.st_mode & !0o7777) | mode.as_raw_mode();
        }
        copy_attributes(from, to, &mut self.buffer)?;
        if let Some(mode) = former {
            let _ = rustix::fs::fchmod(from, mode);
        }
        give(to, &stat)
    }

    /// Copies what is in the folder apart from folders; these.
    fn files(&mut self, path: &mut PathBuf) -> Result<Vec<OsString>, Errno> {
        let mut below = Vec::new();
        for entry in Dir::read_from(self.from.folder())? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            let name = OsString::from_vec(name);
            let stat = root::stat(self.from.folder(), &name)?;
            if root::is_folder(&stat) {
                below.push(name);
                continue;
            }
            path.push(&name);
            self.file(&name, &stat)?;
            path.pop();
        }
        Ok(below)
    }

    fn file(&mut self, name: &OsStr, stat: &Stat) -> Result<(), Errno> {
        let to = self.to.folder();
        let key = (stat.st_dev, stat.st_ino);
        if let Some(number) = self.linked.get(&key) {
            let number = number.to_string();
            return rustix::fs::linkat(self.links, number, to, name, AtFlags::empty());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => copy_regular(self.from.folder(), to, name, &mut self.buffer)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(self.from.folder(), name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                copy_own_marks(self.from.folder(), to, name, &mut self.buffer)?;
                give_by_name(to, name, stat)?;
            }
            kind => {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
                let handle = rustix::fs::openat(to, name, root::HANDLE, Mode::empty())?;
                copy_own_marks(self.from.folder(), to, name, &mut self.buffer)?;
                give_by_name(to, name, stat)?;
                root::chmod_handle(handle, mode)?;
            }
        }
        if stat.st_nlink > 1 {
            let number = self.linked.len();
            let kept = number.to_string();
            rustix::fs::linkat(to, name, self.links, kept, AtFlags::empty())?;
            self.linked.insert(key, number);
        }
        Ok(())
    }
}

impl Drop for Copier<'_> {
    fn drop(&mut self) {
        // Where it has failed, folders have their modes back all the same.
        loop {
            if let Some(mode) = self.from.data().former.take() {
                let _ = rustix::fs::fchmod(self.from.folder(), mode);
            }
            if !matches!(self.from.leave(), Ok(Some(_))) {
                return;
            }
        }
    }
}

fn copy_regular(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &OsStr,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source: OwnedFd = match rustix::fs::openat(from, name, read, Mode::empty()) {
        Err(Errno::ACCESS) => root::open_file_anyway(from, name, read)?,
        opened => opened?,
    };
    let stat = rustix::fs::fstat(&source)?;
    let target = root::make_file(to, name)?;
    let (source, target) = (File::from(source), File::from(target));
    copy_file(&source, &target)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    copy_attributes(&source, &target, buffer)?;
    give(&target, &stat)
}

/// Those that may be set: what is a security module's own is not always.
fn copy_attributes(from: impl AsFd, to: impl AsFd, buffer: &mut [u8]) -> Result<(), Errno> {
    for attribute in attributes::read_all(from, buffer)? {
        // It names another folder by its inode.
        if attribute.0 == b"trusted.overlay.upper" {
            continue;
        }
        let is_users = attribute.0.starts_with(b"user.");
        match attributes::write(&to, &vec![attribute]) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS) if !is_users => {}
            written => written?,
        }
    }
    Ok(())
}

/// Copies the marks that an overlay of root has on what is neither a file nor a folder, which has no other attributes that
/// matter.
fn copy_own_marks(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &OsStr,
    buffer: &mut [u8],
) -> Result<(), Errno> {
    let path = |folder: BorrowedFd<'_>| {
        let folder = format!("/proc/self/fd/{}", folder.as_raw_fd());
        Path::new(&folder).join(name)
    };
    let (from, to) = (path(from), path(to));
    let length = match rustix::fs::llistxattr(&from, &mut *buffer) {
        Err(Errno::OPNOTSUPP) => 0,
        listed => listed?,
    };
    let names: Vec<_> = buffer[..length]
        .split(|byte| *byte == 0)
        .filter(|name| Marks::Trusted.is_own(name))
        .map(<[u8]>::to_vec)
        .collect();
    for name in names {
        let length = rustix::fs::lgetxattr(&from, name.as_slice(), &mut *buffer)?;
        rustix::fs::lsetxattr(&to, name.as_slice(), &buffer[..length], XattrFlags::empty())?;
    }
    Ok(())
}

/// Owner and times of what cannot be opened.
fn give_by_name(folder: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> Result<(), Errno> {
    let made = root::stat(folder, name)?;
    if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
        let (owner, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(folder, name, Some(owner), Some(group), flags)?;
    }
    rustix::fs::utimensat(folder, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}
