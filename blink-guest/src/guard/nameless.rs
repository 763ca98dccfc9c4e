//! Files without a name, which live for as long as a process has them open or mapped: on the disk where their name was removed,
//! and in memory where they never had one.
//!
//! What an open one occupies is known. One that is only mapped is taken to be full up to the highest place that was ever seen
//! mapped: the kernel tells nobody more.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;

use rustix::fs::{self, AtFlags, FileType, MemfdFlags};

use super::{allocated, is_regular, open_folder};
use crate::process::tree::{Proc, must_see_one};

/// What all of them occupy.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nameless {
    pub(super) disk_bytes: u64,
    pub(super) memory_bytes: u64,
    /// Descriptors, whatever is open by them.
    pub(super) descriptors: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Disk,
    Memory,
}

pub(super) struct Looker {
    /// Of files in memory that never had a name.
    memory_device: u64,
    /// How far each was ever seen mapped. A layer of an overlay and the overlay number devices differently.
    mapped: HashMap<(Place, u64), u64>,
}

impl Looker {
    pub(super) fn new() -> rustix::io::Result<Looker> {
        let file = fs::memfd_create("blink", MemfdFlags::CLOEXEC)?;
        Ok(Looker {
            memory_device: fs::fstat(file)?.st_dev,
            mapped: HashMap::new(),
        })
    }

    /// Looks at all processes. The inodes of the sockets that they have open come with it.
    pub(super) fn look(&mut self, proc: &Proc, sockets: &mut HashSet<u64>) -> Nameless {
        self.look_at(proc, proc.pids(), sockets)
    }

    fn look_at(&mut self, proc: &Proc, pids: Vec<i32>, sockets: &mut HashSet<u64>) -> Nameless {
        let mut open = HashSet::new();
        let mut mapped = HashMap::new();
        let mut found = Nameless::default();
        for pid in pids {
            self.look_at_descriptors(proc, pid, &mut open, sockets, &mut found);
            // As long as a program makes it, and one of its lines after the other: `begin-end rights offset device inode name`.
            let maps = proc.read_whole(pid, "maps").unwrap_or_default();
            for (file, end) in maps.lines().filter_map(|line| self.mapping(line)) {
                let known = mapped.entry(file).or_insert(0);
                *known = end.max(*known);
            }
        }
        for (file, end) in &mut mapped {
            *end = self.mapped.get(file).copied().unwrap_or(0).max(*end);
            if !open.contains(file) {
                match file.0 {
                    Place::Disk => found.disk_bytes += *end,
                    Place::Memory => found.memory_bytes += *end,
                }
            }
        }
        self.mapped = mapped;
        found.memory_bytes += system_v_bytes(proc);
        found
    }

    fn look_at_descriptors(
        &self,
        proc: &Proc,
        pid: i32,
        open: &mut HashSet<(Place, u64)>,
        sockets: &mut HashSet<u64>,
        found: &mut Nameless,
    ) -> Option<()> {
        let folder = must_see_one(open_folder(proc.as_fd(), format!("{pid}/fd")))?;
        let entries = must_see_one(fs::Dir::read_from(&folder))?;
        let stat = |name: &CStr| fs::statat(&folder, name, AtFlags::empty()).ok();
        for entry in entries.flatten() {
            found.descriptors += 1;
            let Some(stat) = stat(entry.file_name()) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
                sockets.insert(stat.st_ino);
            } else if is_regular(&stat) && stat.st_nlink == 0 {
                let place = match stat.st_dev == self.memory_device {
                    true => Place::Memory,
                    false => Place::Disk,
                };
                if open.insert((place, stat.st_ino)) {
                    match place {
                        Place::Disk => found.disk_bytes += allocated(&stat),
                        Place::Memory => found.memory_bytes += allocated(&stat),
                    }
                }
            }
        }
        Some(())
    }

    /// What a line says is mapped, and how far, where that is a file without a name.
    fn mapping(&self, line: &str) -> Option<((Place, u64), u64)> {
        let line = line.strip_suffix(" (deleted)")?;
        let mut fields = line.split_ascii_whitespace();
        let (begin, end) = fields.next()?.split_once('-')?;
        let offset = fields.nth(1)?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let inode = fields.next()?.parse().ok()?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let device = fs::makedev(
            number(major)?.try_into().ok()?,
            number(minor)?.try_into().ok()?,
        );
        let place = match device == self.memory_device {
            // They are listed by themselves, whether they are mapped or not.
            true if fields.next().is_some_and(|name| name.starts_with("/SYSV")) => return None,
            true => Place::Memory,
            false => Place::Disk,
        };
        Some((
            (place, inode),
            (number(end)? - number(begin)?).saturating_add(number(offset)?),
        ))
    }
}

/// What the shared memory of System V occupies, in memory and in swap. The last two of its columns say so.
fn system_v_bytes(proc: &Proc) -> u64 {
    let table = proc.read_table("sysvipc/shm").unwrap_or_default();
    let occupied = |line: &str| -> Option<u64> {
        let mut last = line.split_ascii_whitespace().rev();
        let swapped: u64 = last.next()?.parse().ok()?;
        Some(swapped + last.next()?.parse::<u64>().ok()?)
    };
    table.lines().skip(1).filter_map(occupied).sum()
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd};
    use std::ptr::NonNull;

    use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

    use super::*;

    const SIZE: usize = 4 << 20;

    fn own() -> i32 {
        rustix::process::getpid().as_raw_nonzero().get()
    }

    struct Mapped(NonNull<std::ffi::c_void>, usize);

    impl Mapped {
        fn new(file: Option<BorrowedFd<'_>>) -> Mapped {
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping, at a place that the kernel chooses.
            let begin = unsafe {
                match file {
                    Some(file) => mmap(
                        std::ptr::null_mut(),
                        SIZE,
                        rights,
                        MapFlags::SHARED,
                        file,
                        0,
                    ),
                    None => mmap_anonymous(std::ptr::null_mut(), SIZE, rights, MapFlags::SHARED),
                }
            };
            Mapped(NonNull::new(begin.unwrap()).unwrap(), SIZE)
        }

        /// Leaves the first page alone.
        fn shrink(&mut self) {
            let page = rustix::param::page_size();
            // SAFETY: nobody uses the rest.
            unsafe { munmap(self.0.as_ptr().byte_add(page), self.1 - page) }.unwrap();
            self.1 = page;
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: nobody uses it any more.
            unsafe { munmap(self.0.as_ptr(), self.1) }.unwrap();
        }
    }

    /// What was added, to the kibibyte: other tests run in this process.
    fn added(before: Nameless, after: Nameless) -> Nameless {
        Nameless {
            disk_bytes: after.disk_bytes - before.disk_bytes,
            memory_bytes: after.memory_bytes - before.memory_bytes,
            descriptors: 0,
        }
    }

    #[test]
    fn what_is_open_or_mapped_counts_once_and_for_as_long() {
        let proc = Proc::open().unwrap();
        let mut looker = Looker::new().unwrap();
        let mut look = || looker.look_at(&proc, vec![own(), own()], &mut HashSet::new());
        let size = SIZE as u64;
        let disk = |disk_bytes| Nameless {
            disk_bytes,
            ..Nameless::default()
        };
        let memory = |memory_bytes| Nameless {
            memory_bytes,
            ..Nameless::default()
        };

        let before = look();
        let mut file = tempfile::tempfile_in(std::env::current_dir().unwrap()).unwrap();
        std::io::Write::write_all(&mut file, &vec![1; SIZE]).unwrap();
        file.sync_all().unwrap();
        assert_eq!(added(before, look()), disk(size));
        let mut mapped = Mapped::new(Some(file.as_fd()));
        assert_eq!(added(before, look()), disk(size));
        drop(file);
        assert_eq!(added(before, look()), disk(size));
        mapped.shrink();
        assert_eq!(added(before, look()), disk(size));
        drop(mapped);
        assert_eq!(look(), before);

        let file = fs::memfd_create("m", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&file, &vec![1; SIZE]).unwrap();
        assert_eq!(added(before, look()), memory(size));
        let mapped = Mapped::new(Some(file.as_fd()));
        drop(file);
        assert_eq!(added(before, look()), memory(size));
        let mut other = Mapped::new(None);
        assert_eq!(added(before, look()), memory(2 * size));
        other.shrink();
        assert_eq!(added(before, look()), memory(2 * size));
        drop((mapped, other));
        assert_eq!(look(), before);
    }

    #[test]
    fn shared_memory_of_system_v_counts_without_a_mapping() {
        let proc = Proc::open().unwrap();
        let before = system_v_bytes(&proc);
        // SAFETY: a segment of its own, which is marked to go before anything else happens to it.
        unsafe {
            let id = libc::shmget(libc::IPC_PRIVATE, SIZE, 0o600);
            let begin = libc::shmat(id, std::ptr::null(), 0);
            libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
            begin.cast::<u8>().write_bytes(1, SIZE);
            let during = system_v_bytes(&proc);
            libc::shmdt(begin);
            assert_eq!(during - before, SIZE as u64);
        }
    }
}
