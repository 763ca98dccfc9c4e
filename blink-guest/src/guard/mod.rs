//! Watches over limits that the kernel does not hold by itself: the disk's, where it is a folder of the host, and
//! memory, where there is no control group. A thread measures, the loop acts.
//!
//! Between two measurements a program can exceed a limit by what it can write or touch in that time. What it only
//! reserves, memory or the holes of a file, counts for nothing.

mod nameless;
mod sockets;

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blink_wire::Limit;
use rustix::fs::{self, FileType, Mode, OFlags, Stat};

use crate::job::Wake;
use crate::process::tree::{Proc, must_see};
use nameless::{Looker, Nameless};
pub(crate) use sockets::Sockets;
use sockets::Which;

/// Between two measurements of memory. In between there may be more by what programs can fill in that time.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(1);
const FILLED_EACH_SECOND: u64 = 32 << 30;

/// The same of a disk, where it is slower.
const DISK_LATEST: Duration = Duration::from_millis(500);
const WRITTEN_EACH_SECOND: u64 = 4 << 30;

/// A disk is walked through when its file system has lost this part of the room that there was, and so often besides: what is taken
/// while others give as much back takes nothing from the host.
const PART_OF_ROOM: u64 = 4;
const WALK_EVERY: Duration = Duration::from_secs(15);

/// Of the time, where a walk takes long: so small that nobody notices many files.
const WALK_SHARE: u32 = 400;

/// Very many files and processes take long to measure; measuring takes at most this part of the time.
const SHARE: u32 = 10;

/// How many files a disk may have for its size: as many as a file system of that size would, and enough for a small one.
const DISK_BYTES_PER_FILE: u64 = 16 << 10;
const LEAST_FILES: u64 = 65536;

/// Descriptors that all programs together may have: a host has a few millions for everybody.
const MOST_DESCRIPTORS: u64 = 262_144;

/// How often a walk is begun anew in which a program has moved a folder that was deep inside others: what the fullest one
/// has seen counts, as no program hits each of them at its beginning.
const MOST_WALKS: usize = 8;

/// What to watch over.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
    /// Whether all sockets of the network are the sandbox's.
    pub(crate) own_network: bool,
    /// What lists sockets, where the kernel has that.
    pub(crate) sockets: Option<Sockets>,
    /// Where to write down what the disk occupies.
    pub(crate) usage: Option<File>,
    /// The folder that holds what the sandbox has written. Where it is the whole root file system, none.
    pub(crate) disk_folder: Option<PathBuf>,
}

/// Starts to watch, where there is something to watch over.
pub(crate) fn start(limits: Limits, wake: Arc<Wake>) -> std::io::Result<()> {
    if limits.memory_bytes.is_none() && limits.disk_bytes.is_none() {
        return Ok(());
    }
    wake.watch_memory(limits.memory_bytes);
    if let Some(bytes) = limits.disk_bytes {
        wake.room().begin();
        wake.room().set(bytes, bytes);
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
        looker: Looker::new()?,
        nameless: Nameless::default(),
        socket_bytes: 0,
        walk: None,
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
    looker: Looker,
    /// What they had at the last look.
    nameless: Nameless,
    socket_bytes: u64,
    /// The last walk through the disk, where there was room.
    walk: Option<Walk>,
    limits: Limits,
}

impl Guard {
    fn watch(&mut self, wake: &Wake) {
        let (mut next_memory, mut next_disk) = (Instant::now(), Instant::now());
        let (mut over_memory, mut over_disk) = (false, false);
        loop {
            let wait = next_memory
                .min(next_disk)
                .saturating_duration_since(Instant::now());
            std::thread::sleep(SOONEST);
            let is_awaited = wake.room().wait(wait.saturating_sub(SOONEST));
            let begun = Instant::now();
            let limit = wake.memory_limit();
            if limit != self.limits.memory_bytes {
                self.limits.memory_bytes = limit;
                next_memory = begun;
            }
            // What a file system or a kernel of its own counts is not looked for.
            let is_looking = limit.is_some() || matches!(self.disk, Disk::Folder(_));
            let is_disk_due =
                self.limits.disk_bytes.is_some() && (is_awaited || begun >= next_disk);
            // Before anything is looked at: what is taken from here on may not be seen.
            if is_disk_due && wake.room().begin() {
                self.walk = None;
            }
            if is_looking {
                self.look();
            }
            if begun >= next_memory {
                let room = self.room_for_memory();
                over_memory = room.is_none();
                let soon = soon(room, FILLED_EACH_SECOND).min(LATEST);
                next_memory = Instant::now() + soon.max(begun.elapsed() * SHARE);
            }
            if let Some(limit) = self.limits.disk_bytes
                && is_disk_due
            {
                let room = match self.room_on_disk(limit) {
                    Found::Measured(room) => {
                        wake.room().set(room.unwrap_or(0), limit);
                        room
                    }
                    Found::AtLeast(room) => Some(room),
                };
                over_disk = room.is_none();
                let soon = soon(room, WRITTEN_EACH_SECOND).min(DISK_LATEST);
                next_disk = Instant::now() + soon.max(begun.elapsed() * SHARE);
            }
            wake.set_over_limit(match (over_memory, over_disk) {
                (true, _) => Some(Limit::Memory),
                (false, true) => Some(Limit::Disk),
                (false, false) => None,
            });
        }
    }

    /// How much more memory there may be; `None` where there is too much.
    fn room_for_memory(&self) -> Option<u64> {
        if self.nameless.descriptors > MOST_DESCRIPTORS {
            return None;
        }
        match self.limits.memory_bytes {
            Some(limit) => limit.checked_sub(self.memory_bytes()),
            None => Some(u64::MAX),
        }
    }

    /// Looks at what is held by descriptors and mappings.
    fn look(&mut self) {
        let mut open = HashSet::new();
        self.nameless = self.looker.look(&self.proc, &mut open);
        if self.limits.memory_bytes.is_some() {
            let which = match self.limits.own_network {
                true => Which::All,
                false => Which::Open(&open),
            };
            let sockets = self.limits.sockets.as_mut();
            self.socket_bytes = sockets.map_or(0, |sockets| sockets.bytes(&which));
        }
    }

    /// What all processes hold that is on no disk.
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
        pages * page + temporary + self.nameless.memory_bytes + self.socket_bytes
    }

    /// How much more may be written.
    fn room_on_disk(&mut self, limit: u64) -> Found {
        match &self.disk {
            Disk::Folder(folder) => {
                let free = Free::of(folder);
                if let Some(walk) = &self.walk
                    && walk.still_says_enough(free)
                {
                    return Found::AtLeast(walk.room.bytes - walk.room.bytes / PART_OF_ROOM);
                }
                let begun = Instant::now();
                let used = measure(folder.as_fd());
                let took = begun.elapsed();
                if let Some(usage) = &self.limits.usage {
                    // Of a width that covers what was there.
                    let _ = usage.write_all_at(format!("{:020}\n", used.bytes).as_bytes(), 0);
                }
                let most_files = LEAST_FILES.max(limit / DISK_BYTES_PER_FILE);
                let bytes = limit.checked_sub(used.bytes + self.nameless.disk_bytes);
                let room = bytes
                    .zip(most_files.checked_sub(used.files))
                    .map(|(bytes, files)| Used { bytes, files });
                self.walk = room.map(|room| Walk {
                    at: Instant::now(),
                    took,
                    free,
                    room,
                });
                Found::Measured(room.map(|room| room.bytes))
            }
            Disk::Root { used_before } => {
                let used = must_see(root_bytes()).saturating_sub(*used_before);
                Found::Measured(limit.checked_sub(used))
            }
        }
    }
}

/// When what has so much room is to be measured again: before it can be full, and at once where it is.
fn soon(room: Option<u64>, each_second: u64) -> Duration {
    let millis = room.unwrap_or(0).saturating_mul(1000) / each_second;
    Duration::from_millis(millis).max(SOONEST)
}

/// How much more may be written to a disk.
enum Found {
    /// `None` where there is too much already.
    Measured(Option<u64>),
    AtLeast(u64),
}

/// What a walk through the disk has found, and what its file system had then.
struct Walk {
    at: Instant,
    took: Duration,
    free: Option<Free>,
    room: Used,
}

impl Walk {
    /// Whether there must be room yet, by what the file system has now.
    fn still_says_enough(&self, now: Option<Free>) -> bool {
        let (Some(before), Some(now)) = (self.free, now) else {
            return false;
        };
        let is_small =
            |before: u64, now: u64, room: u64| before.saturating_sub(now) <= room / PART_OF_ROOM;
        self.at.elapsed() < WALK_EVERY.max(self.took * WALK_SHARE)
            && is_small(before.bytes, now.bytes, self.room.bytes)
            && is_small(before.files, now.files, self.room.files)
    }
}

/// What a file system has left.
#[derive(Clone, Copy)]
struct Free {
    bytes: u64,
    files: u64,
}

impl Free {
    fn of(folder: impl AsFd) -> Option<Free> {
        let found = fs::fstatvfs(folder).ok()?;
        Some(Free {
            bytes: found.f_bfree.saturating_mul(found.f_frsize),
            files: found.f_ffree,
        })
    }
}

/// What is on a disk.
#[derive(Debug, Default, Clone, Copy)]
struct Used {
    bytes: u64,
    files: u64,
}

/// What the files beneath a folder occupy, and how many there are, however deep they are.
fn measure(folder: BorrowedFd<'_>) -> Used {
    let mut most = Used::default();
    for _ in 0..MOST_WALKS {
        let mut seen = HashSet::new();
        let mut used = Used::default();
        let top = must_see(open_folder(folder, "."));
        let walked = blink_archive::walk_tree(top, |stat| {
            let is_shared = stat.st_nlink > 1 && is_regular(stat);
            if !is_shared || seen.insert((stat.st_dev, stat.st_ino)) {
                used.bytes += allocated(stat);
            }
            // Another name is another entry in a folder.
            used.files += 1;
        });
        most = Used {
            bytes: used.bytes.max(most.bytes),
            files: used.files.max(most.files),
        };
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
    fn what_has_less_room_is_measured_sooner() {
        let soon = |room| soon(room, 32 << 30);
        assert_eq!(soon(None), SOONEST);
        assert_eq!(soon(Some(128 << 20)), SOONEST);
        assert_eq!(soon(Some(16 << 30)), Duration::from_millis(500));
        assert_eq!(soon(Some(64 << 30)), Duration::from_secs(2));
        assert!(soon(Some(u64::MAX)) > LATEST);
    }

    #[test]
    fn a_disk_is_walked_through_when_its_file_system_has_lost_some() {
        let walk = Walk {
            at: Instant::now(),
            took: Duration::ZERO,
            free: Some(Free {
                bytes: 1000,
                files: 100,
            }),
            room: Used {
                bytes: 400,
                files: 40,
            },
        };
        let enough = |bytes, files| walk.still_says_enough(Some(Free { bytes, files }));
        assert!(enough(1000, 100) && enough(5000, 100) && enough(900, 90));
        assert!(!enough(899, 100) && !enough(1000, 89));
        assert!(!walk.still_says_enough(None));
        let at = Instant::now().checked_sub(WALK_EVERY).unwrap();
        let free = walk.free;
        assert!(!Walk { at, ..walk }.still_says_enough(free));
        // One that takes long is not repeated as often.
        let took = Duration::from_millis(100);
        assert!(Walk { at, took, ..walk }.still_says_enough(free));
    }

    #[test]
    fn a_folder_is_measured_with_each_file_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/data"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(folder.path().join("a/b/data"), folder.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("root")).unwrap();
        let opened = open_folder(fs::CWD, folder.path()).unwrap();
        let Used { bytes, files } = measure(opened.as_fd());
        assert!(
            (1 << 20..(1 << 20) + (128 << 10)).contains(&bytes),
            "{bytes}"
        );
        // The folder, two in it, two names of the file and the link.
        assert!((5..=6).contains(&files), "{files}");
    }
}
