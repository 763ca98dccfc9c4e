//! Which processes belong together, and how to end all of them.
//!
//! A program can leave its parent, its process group and its session. It cannot leave the UTS namespace that it was
//! started in without a privilege that no program in a sandbox has. So every process that is spawned gets one of its
//! own, and whatever is in it is its tree. Where the agent may not make namespaces, the tree is what descends from the
//! process or shares its session.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::{self, Errno};
use rustix::process::{Pid, Signal, getpid, kill_process};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// `/proc` as it was when the agent started; a privileged program could mount something else there later.
pub(crate) struct Proc {
    root: OwnedFd,
}

/// A namespace that marks one tree. It is held open, so that its number stays unique.
pub(crate) struct Marker {
    _held: OwnedFd,
    inode: u64,
}

/// One process as `/proc` describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    parent: i32,
    session: i32,
    dead: bool,
    /// Of a tree that is looked for.
    member: bool,
    /// Its namespace says whether it is a member, and its ancestry nothing.
    is_seen: bool,
}

impl Proc {
    pub(crate) fn open() -> io::Result<Proc> {
        let root = fs::open(
            "/proc",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Proc { root })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Moves the agent into a new namespace, which its next child will share; `None` where that is not allowed.
    pub(crate) fn mark_next_child(&self) -> Option<Marker> {
        // SAFETY: a new UTS namespace changes nothing but the host name that this process could see change.
        unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }.ok()?;
        let namespace = fs::openat(
            &self.root,
            "thread-self/ns/uts",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let inode = fs::fstat(&namespace).ok()?.st_ino;
        Some(Marker {
            _held: namespace,
            inode,
        })
    }

    /// The numbers of all processes but this one.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let own = getpid().as_raw_nonzero().get();
        let entries = must_see(fs::Dir::read_from(&self.root));
        let pids = entries
            .map(must_see)
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
        pids.filter(|pid| *pid != own).collect()
    }

    /// Reads a small file of a process; `None` where it has ended.
    pub(crate) fn read(&self, pid: i32, name: &str) -> Option<String> {
        let path = format!("{pid}/{name}");
        let file = must_see_one(fs::openat(
            &self.root,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        ))?;
        let mut bytes = [0; 1024];
        let length = must_see_one(io::read(file, &mut bytes))?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// Reads a file of a process that may be as long as the process makes it; `None` where it has ended.
    pub(crate) fn read_whole(&self, pid: i32, name: &str) -> Option<String> {
        must_see_one(self.read_to_end(&format!("{pid}/{name}")))
    }

    /// Reads a file of the whole sandbox; `None` where the kernel has none.
    pub(crate) fn read_table(&self, name: &str) -> Option<String> {
        must_see_one(self.read_to_end(name))
    }

    fn read_to_end(&self, path: &str) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.root, path, flags, Mode::empty())?);
        let mut bytes = Vec::new();
        match file.read_to_end(&mut bytes) {
            Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    fn entry(&self, pid: i32) -> Option<Entry> {
        parse_stat(&self.read(pid, "stat")?)
    }

    /// The living members of trees in the order of their numbers, their first processes among them if those live.
    fn members(&self, trees: &Trees) -> Vec<i32> {
        let mut entries: BTreeMap<i32, Entry> = self
            .pids()
            .into_iter()
            .filter_map(|pid| Some((pid, self.entry(pid)?)))
            .filter(|(_, entry)| !entry.dead)
            .collect();
        // Where every tree has a marker, what has none of them descends from none.
        let all_are_marked = trees.roots.is_empty();
        for (pid, entry) in &mut entries {
            entry.member = trees.roots.contains(pid) || trees.roots.contains(&entry.session);
            if !trees.markers.is_empty() {
                let namespace = fs::statat(&self.root, format!("{pid}/ns/uts"), AtFlags::empty());
                match namespace {
                    Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                        must_see(Err(error))
                    }
                    Ok(namespace) => {
                        entry.member |= trees.markers.contains_key(&namespace.st_ino);
                        entry.is_seen = all_are_marked;
                    }
                    Err(Errno::NOENT | Errno::SRCH) => entry.is_seen = all_are_marked,
                    // A program that hides from the agent is taken for a member where its ancestry does not say otherwise.
                    Err(_) => entry.member |= entry.parent == 1,
                }
            }
        }
        descendants(entries)
    }

    /// Sends a signal to every member.
    pub(crate) fn signal(&self, trees: &Trees, signal: Signal) {
        for pid in self.members(trees) {
            send(pid, signal);
        }
    }

    /// Kills every member, also those that are being born meanwhile.
    pub(crate) fn kill(&self, trees: &Trees) {
        // Stopped first: a stopped process has no children, and still counts towards the limit of processes, so
        // that even a fork bomb comes to rest. What is continued by a sibling in between is met again below.
        self.until_no_new_member(trees, Signal::STOP);
        self.until_no_new_member(trees, Signal::KILL);
    }

    fn until_no_new_member(&self, trees: &Trees, signal: Signal) {
        let mut seen = Vec::new();
        // Each round that goes on has met a process that was not there before; the limit of processes bounds their
        // number for programs that behave, this one the rounds for those that do not.
        for _ in 0..1000 {
            let members = self.members(trees);
            for &pid in &members {
                send(pid, signal);
            }
            if members.iter().all(|pid| seen.binary_search(pid).is_ok()) {
                return;
            }
            seen = members;
        }
    }
}

/// Any number of trees. Looking for the members of one takes as long as for those of all.
#[derive(Default)]
pub(crate) struct Trees {
    /// The first processes of those that are not marked.
    roots: Vec<i32>,
    /// By their numbers.
    markers: BTreeMap<u64, Rc<Marker>>,
}

impl Trees {
    /// The tree of one process.
    pub(crate) fn of(root: i32, marker: Option<&Rc<Marker>>) -> Trees {
        let mut trees = Trees::default();
        trees.add(root, marker);
        trees
    }

    pub(crate) fn add(&mut self, root: i32, marker: Option<&Rc<Marker>>) {
        match marker {
            Some(marker) => drop(self.markers.insert(marker.inode, marker.clone())),
            None => self.roots.push(root),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.markers.is_empty()
    }
}

/// What must be seen. Without it no limit and no timeout holds, so that the sandbox ends where it is not.
pub(crate) fn must_see<T>(result: io::Result<T>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!(
            "blink-guest: the sandbox's processes cannot be seen any more ({error}), so that no limit and no timeout would hold"
        );
        std::process::exit(1)
    })
}

/// The same of one process, which may have ended, or run a program of the host's that nobody may look into.
pub(crate) fn must_see_one<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Err(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => None,
        result => Some(must_see(result)),
    }
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// The members with what descends from them, but for those that are seen to be in no tree.
fn descendants(mut entries: BTreeMap<i32, Entry>) -> Vec<i32> {
    loop {
        let related = |entry: &Entry| {
            !entry.member
                && !entry.is_seen
                && entries
                    .get(&entry.parent)
                    .is_some_and(|parent| parent.member)
        };
        let fresh: Vec<i32> = entries
            .iter()
            .filter_map(|(&pid, entry)| related(entry).then_some(pid))
            .collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            if let Some(entry) = entries.get_mut(&pid) {
                entry.member = true;
            }
        }
    }
    entries
        .into_iter()
        .filter_map(|(pid, entry)| entry.member.then_some(pid))
        .collect()
}

/// `pid (name) state parent group session …`, where the name may hold anything.
fn parse_stat(text: &str) -> Option<Entry> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Entry {
        parent,
        session,
        dead: matches!(state, "Z" | "X" | "x"),
        member: false,
        is_seen: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let entry = parse_stat("17 (a) R 1 (b) S 3 17 12 0 -1 4194304").unwrap();
        assert_eq!((entry.parent, entry.session, entry.dead), (3, 12, false));
        assert_eq!(parse_stat("17 (x"), None);
    }

    #[test]
    fn descendants_follow_parents_and_not_where_they_are_seen_elsewhere() {
        let entry = |parent, member, is_seen| Entry {
            parent,
            session: 1,
            dead: false,
            member,
            is_seen,
        };
        let entries = BTreeMap::from([
            (10, entry(1, true, false)),
            (11, entry(12, false, false)),
            (12, entry(10, false, false)),
            (13, entry(10, false, true)),
            (20, entry(1, false, false)),
        ]);
        assert_eq!(descendants(entries), [10, 11, 12]);
    }

    #[test]
    fn a_marked_child_is_found_where_marking_is_allowed() {
        let proc = Proc::open().unwrap();
        let Some(marker) =
            std::thread::scope(|scope| scope.spawn(|| proc.mark_next_child()).join().unwrap())
        else {
            assert!(
                !rustix::process::geteuid().is_root(),
                "root may make namespaces"
            );
            return;
        };
        assert_ne!(marker.inode, 0);
        let trees = Trees::of(1, Some(&Rc::new(marker)));
        assert!(proc.members(&trees).is_empty());
    }
}
