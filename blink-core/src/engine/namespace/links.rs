//! Files with several names, which stay one file over layers.
//!
//! The overlay of a disk knows such a file of the layers beneath by its inode, and has what was written to it in its index,
//! whichever of its names it was written by. The others follow when they are used, for as long as this disk is the uppermost.
//! So before it becomes a layer itself, each name gets what the index has: the disk is settled.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use blink_archive::walk_names;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::thread::UnshareFlags;

use super::disk::{INDEX, Upper, WORK};
use crate::error::{Error, Result};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Whether nothing has to be done for a disk that is to become a layer.
pub(super) fn are_settled(disk: &Path) -> io::Result<bool> {
    Ok(index(disk)?.is_none_or(|(_, entries)| entries.is_empty()))
}

/// Gives each name what the disk has of its file, so that its index is not needed any more; `beneath` are the folders below its
/// upper one, the lowest first.
pub(super) fn settle(disk: &Path, beneath: &[PathBuf]) -> Result<()> {
    give_all_names(disk, beneath).map_err(|error| {
        let what = "files with several names could not be kept together on the session's disk";
        Error::io(what, &error)
    })
}

fn give_all_names(disk: &Path, beneath: &[PathBuf]) -> io::Result<()> {
    let Some((index, entries)) = index(disk)? else {
        return Ok(());
    };
    let mut parted = HashSet::new();
    for name in &entries {
        parted.extend(parted_file(&disk.join(INDEX).join(name), &index)?);
    }
    if !parted.is_empty() {
        let root = mount(disk, beneath)?;
        let mut result = Ok(());
        let walked = walk_names(root, |folder, name, stat| {
            if parted.contains(&stat.st_ino) && result.is_ok() {
                result = copy_up(folder, name, stat);
            }
        });
        result?;
        walked.map_err(|error| match error.io_error() {
            Some(source) => source.kind().into(),
            None => io::Error::other(error),
        })?;
    }
    for name in entries {
        match rustix::fs::unlinkat(&index, name, AtFlags::empty()) {
            // The kernel has removed it: no name of the file was left.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A disk's index, and what is in it.
fn index(disk: &Path) -> io::Result<Option<(OwnedFd, Vec<OsString>)>> {
    let index = match rustix::fs::open(disk.join(INDEX), FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    let mut entries = Vec::new();
    for entry in Dir::read_from(&index)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
        if name != "." && name != ".." {
            entries.push(name);
        }
    }
    Ok(Some((index, entries)))
}

/// The inode, in the layers beneath, of a file in the index that has names which the disk itself does not have.
fn parted_file(path: &Path, index: &OwnedFd) -> io::Result<Option<u64>> {
    let stat = rustix::fs::lstat(path)?;
    // Of a file without a name the index has a whiteout.
    if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0 {
        return Ok(None);
    }
    let name = path.file_name().unwrap_or_default().as_bytes();
    let lower = Handle::parse(name).and_then(|handle| handle.stat(index));
    // The index has one of its names.
    let own = i64::try_from(stat.st_nlink).unwrap_or(i64::MAX) - 1;
    Ok(lower
        .filter(|lower| names(path, &stat, lower).is_none_or(|names| names > own))
        .map(|lower| lower.st_ino))
}

/// How many names a file has in the overlay, as the kernel has written it down: by how many there are more than its inode in
/// the upper folder or in the layer beneath has.
fn names(path: &Path, upper: &Stat, lower: &Stat) -> Option<i64> {
    let mut value = [0; 32];
    let length = rustix::fs::lgetxattr(path, c"trusted.overlay.nlink", &mut value[..]).ok()?;
    let text = std::str::from_utf8(&value[..length]).ok()?;
    let (stat, more) = match text.split_at_checked(1)? {
        ("U", more) => (upper, more),
        ("L", more) => (lower, more),
        _ => return None,
    };
    Some(i64::try_from(stat.st_nlink).ok()? + more.parse::<i64>().ok()?)
}

/// How a file system finds an inode again.
struct Handle {
    kind: i32,
    id: Vec<u8>,
}

impl Handle {
    /// The overlay names what is in its index by it: in hexadecimal digits, after a header.
    fn parse(name: &[u8]) -> Option<Handle> {
        const MAGIC: u8 = 0xfb;
        const HEADER: usize = 21;
        let digits = std::str::from_utf8(name).ok()?;
        let bytes: Option<Vec<u8>> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
            .collect();
        let bytes = bytes.filter(|bytes| bytes.len() > HEADER && bytes[1] == MAGIC)?;
        Some(Handle {
            kind: i32::from(bytes[4]),
            id: bytes[HEADER..].to_vec(),
        })
    }

    /// None where the inode is no more.
    fn stat(&self, in_file_system: impl AsFd) -> Option<Stat> {
        const HEAD: usize = size_of::<u32>() + size_of::<i32>();
        let length = u32::try_from(self.id.len()).ok()?;
        // `struct file_handle`, aligned as its numbers are.
        let mut words = vec![0_u32; (HEAD + self.id.len()).div_ceil(size_of::<u32>())];
        words[0] = length;
        words[1] = self.kind.cast_unsigned();
        for (word, part) in words[2..].iter_mut().zip(self.id.chunks(4)) {
            let mut bytes = [0; 4];
            bytes[..part.len()].copy_from_slice(part);
            *word = u32::from_ne_bytes(bytes);
        }
        // SAFETY: `words` is a `struct file_handle` with as many bytes behind it as it says, which the call only reads.
        let file = unsafe {
            libc::open_by_handle_at(
                in_file_system.as_fd().as_raw_fd(),
                words.as_mut_ptr().cast(),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if file < 0 {
            return None;
        }
        // SAFETY: the call has opened it for this process, which has no other use of it.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        rustix::fs::fstat(file).ok()
    }
}

/// The overlay of a disk, mounted nowhere, as long as the descriptor is open.
fn mount(disk: &Path, beneath: &[PathBuf]) -> io::Result<OwnedFd> {
    let upper = Upper::of(disk).ok_or(io::ErrorKind::NotFound)?.path;
    let open = |path: &Path| rustix::fs::open(path, FOLDER, Mode::empty());
    let lower = beneath.iter().rev().map(|path| open(path));
    let lower = lower.collect::<rustix::io::Result<Vec<_>>>()?;
    let (upper, work) = (open(&upper)?, open(&disk.join(WORK))?);
    // The kernel takes no long names: the descriptors' numbers, in a thread that works where they are names.
    let make = || -> rustix::io::Result<OwnedFd> {
        // SAFETY: the thread, which has only this to do, gets a working directory of its own, and shares its descriptors.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS)? };
        rustix::process::chdir("/proc/self/fd")?;
        let number = |folder: &OwnedFd| folder.as_raw_fd().to_string();
        let lower: Vec<_> = lower.iter().map(number).collect();
        let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "lowerdir", lower.join(":").as_str())?;
        fsconfig_set_string(context.as_fd(), "upperdir", number(&upper).as_str())?;
        fsconfig_set_string(context.as_fd(), "workdir", number(&work).as_str())?;
        fsconfig_set_string(context.as_fd(), "redirect_dir", "on")?;
        fsconfig_set_string(context.as_fd(), "index", "on")?;
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOATIME;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        rustix::fs::openat(mount, c".", FOLDER, Mode::empty())
    };
    let root = std::thread::scope(|scope| scope.spawn(make).join());
    Ok(root.map_err(|_| io::Error::other("the thread that mounts it has panicked"))??)
}

/// Gives a name in the overlay what the index has.
fn copy_up(folder: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> rustix::io::Result<()> {
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        return rustix::fs::openat(folder, name, flags, Mode::empty()).map(drop);
    }
    // Nothing but the time of its change.
    rustix::fs::chownat(folder, name, None, None, AtFlags::SYMLINK_NOFOLLOW)
}
