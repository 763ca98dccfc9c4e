//! Watches over limits that the kernel does not hold by itself: the disk's, where it is a folder of the host, and
//! memory, where there is no control group. A thread measures, the loop acts.
//!
//! Between two measurements a program can exceed a limit by what it can write or touch in that time. What one process
//! may have and what one file may hold is bounded by resource limits besides.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blink_wire::Limit;
use rustix::fs::{self, AtFlags, FileType, MemfdFlags, Mode, OFlags, Stat};

use crate::job::Wake;
use crate::process::tree::{Proc, must_see, must_see_one};

const MEMORY_EVERY: Duration = Duration::from_millis(100);
const DISK_EVERY: Duration = Duration::from_millis(500);

/// A disk of very many files takes long to measure; measuring takes at most this part of the time.
const DISK_SHARE: u32 = 10;

/// How often a walk is begun anew in which a program has moved a folder that was deep inside others: what the fullest one
/// has seen counts, as no program hits each of them at its beginning.
const MOST_WALKS: usize = 8;

/// What to watch over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
    /// The folder that holds what the sandbox has written. Where it is the whole root file system, none.
    pub(crate) disk_folder: Option<PathBuf>,
}

/// Starts to watch, where there is something to watch over.
pub(crate) fn start(limits: Limits, wake: Arc<Wake>) -> std::io::Result<()> {
    if limits.memory_bytes.is_none() && limits.disk_bytes.is_none() {
        return Ok(());
    }
    let disk = match &limits.disk_folder {
        Some(folder) => Disk::Folder(open_folder(fs::CWD, folder.as_path())?),
        None => Disk::Root {
            used_before: root_bytes().unwrap_or_default(),
        },
    };
    let mut guard = Guard {
        proc: Proc::open()?,
        disk,
        memory_device: memory_device()?,
        limits,
    };
    std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || guard.watch(&wake))?;
    Ok(())
}

/// What the sandbox has written to.
enum Disk {
    Folder(OwnedFd),
    /// A file system of its own counts by itself, files without a name among it.
    Root {
        used_before: u64,
    },
}

struct Guard {
    proc: Proc,
    disk: Disk,
    /// Files in memory that were never on a disk.
    memory_device: u64,
    limits: Limits,
}

impl Guard {
    fn watch(&mut self, wake: &Wake) {
        let mut next_disk = Instant::now();
        let mut over_disk = false;
        loop {
            std::thread::sleep(MEMORY_EVERY);
            let over_memory = self
                .limits
                .memory_bytes
                .is_some_and(|limit| self.memory_bytes() > limit);
            if let Some(limit) = self.limits.disk_bytes
                && Instant::now() >= next_disk
            {
                let begun = Instant::now();
                over_disk = self.disk_bytes() > limit;
                next_disk = Instant::now() + DISK_EVERY.max(begun.elapsed() * DISK_SHARE);
            }
            wake.set_over_limit(match (over_memory, over_disk) {
                (true, _) => Some(Limit::Memory),
                (false, true) => Some(Limit::Disk),
                (false, false) => None,
            });
        }
    }

    /// What all processes hold that is not a file's.
    fn memory_bytes(&self) -> u64 {
        let page = rustix::param::page_size() as u64;
        let own_pages = |pid: i32| -> Option<u64> {
            let text = self.proc.read(pid, "statm")?;
            let mut fields = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
            let resident = fields.next()?.ok()?;
            let shared = fields.next()?.ok()?;
            Some(resident.saturating_sub(shared))
        };
        let pages: u64 = self.proc.pids().into_iter().filter_map(own_pages).sum();
        let temporary: u64 = ["/tmp", "/dev/shm"]
            .iter()
            .filter_map(|path| memory_files(path))
            .sum();
        pages * page + temporary
    }

    fn disk_bytes(&self) -> u64 {
        let folder = match &self.disk {
            Disk::Folder(folder) => folder,
            Disk::Root { used_before } => {
                return must_see(root_bytes()).saturating_sub(*used_before);
            }
        };
        let mut seen = HashSet::new();
        let kept = folder_bytes(folder.as_fd(), &mut seen);
        kept + self
            .proc
            .pids()
            .into_iter()
            .map(|pid| self.unlinked_bytes(pid, &mut seen))
            .sum::<u64>()
    }

    /// Files without a name are still on the disk while a process has them open.
    fn unlinked_bytes(&self, pid: i32, seen: &mut HashSet<(u64, u64)>) -> u64 {
        let folder = open_folder(self.proc.as_fd(), format!("{pid}/fd"));
        let Some(folder) = must_see_one(folder) else {
            return 0;
        };
        let Some(entries) = must_see_one(fs::Dir::read_from(&folder)) else {
            return 0;
        };
        let counted = |name: &CStr| -> Option<u64> {
            let stat = fs::statat(&folder, name, AtFlags::empty()).ok()?;
            let on_disk =
                is_regular(&stat) && stat.st_nlink == 0 && stat.st_dev != self.memory_device;
            (on_disk && seen.insert((stat.st_dev, stat.st_ino))).then(|| allocated(&stat))
        };
        let mut counted = counted;
        entries
            .flatten()
            .filter_map(|entry| counted(entry.file_name()))
            .sum()
    }
}

/// What the files beneath a folder occupy, however deep they are.
fn folder_bytes(folder: BorrowedFd<'_>, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let mut most = 0;
    for _ in 0..MOST_WALKS {
        let mut found = HashSet::new();
        let mut bytes = 0;
        let top = must_see(open_folder(folder, "."));
        let walked = blink_archive::walk_tree(top, |stat| {
            let is_shared = stat.st_nlink > 1 && is_regular(stat);
            if !is_shared || found.insert((stat.st_dev, stat.st_ino)) {
                bytes += allocated(stat);
            }
        });
        if bytes >= most {
            most = bytes;
            *seen = found;
        }
        if walked.is_ok() {
            break;
        }
    }
    most
}

fn open_folder(parent: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, path, flags, Mode::empty())
}

/// What is used of the root file system.
fn root_bytes() -> rustix::io::Result<u64> {
    let stat = fs::statvfs("/")?;
    Ok(stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize)
}

fn memory_device() -> rustix::io::Result<u64> {
    let file = fs::memfd_create("blink", MemfdFlags::CLOEXEC)?;
    Ok(fs::fstat(file)?.st_dev)
}

fn memory_files(path: &str) -> Option<u64> {
    const TMPFS: i64 = 0x0102_1994;
    let stat = fs::statfs(path).ok()?;
    (stat.f_type == TMPFS).then(|| {
        (stat.f_blocks - stat.f_bfree)
            .saturating_mul(u64::try_from(stat.f_bsize).unwrap_or_default())
    })
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or_default() * 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_with_each_file_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/data"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(folder.path().join("a/b/data"), folder.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("root")).unwrap();
        let opened = open_folder(fs::CWD, folder.path()).unwrap();
        let bytes = folder_bytes(opened.as_fd(), &mut HashSet::new());
        assert!(
            (1 << 20..(1 << 20) + (128 << 10)).contains(&bytes),
            "{bytes}"
        );
    }

    #[test]
    fn an_unlinked_file_that_is_open_counts_and_one_in_memory_does_not() {
        let guard = Guard {
            proc: Proc::open().unwrap(),
            disk: Disk::Root { used_before: 0 },
            memory_device: memory_device().unwrap(),
            limits: Limits::default(),
        };
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let before = guard.unlinked_bytes(pid, &mut HashSet::new());
        let mut file = tempfile::tempfile_in(std::env::current_dir().unwrap()).unwrap();
        std::io::Write::write_all(&mut file, &vec![1; 4 << 20]).unwrap();
        file.sync_all().unwrap();
        let memory = fs::memfd_create("m", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&memory, &vec![1; 4 << 20]).unwrap();
        let after = guard.unlinked_bytes(pid, &mut HashSet::new());
        assert!(
            (4 << 20..5 << 20).contains(&(after - before)),
            "{before} {after}"
        );
    }
}
