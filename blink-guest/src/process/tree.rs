//! Which processes belong together, and how to end all of them.
//!
//! A program can leave its parent, its process group and its session. It cannot leave the UTS namespace that it was
//! started in without a privilege that no program in a sandbox has. So every process that is spawned gets one of its
//! own, and whatever is in it is its tree. Where the agent may not make namespaces, the tree is what descends from the
//! process or shares its session.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
        let Ok(entries) = fs::Dir::read_from(&self.root) else {
            return Vec::new();
        };
        let pids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
        pids.filter(|pid| *pid != own).collect()
    }

    /// Reads a small file of a process.
    pub(crate) fn read(&self, pid: i32, name: &str) -> Option<String> {
        let path = format!("{pid}/{name}");
        let file = fs::openat(
            &self.root,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let mut bytes = [0; 1024];
        let length = io::read(file, &mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    fn entry(&self, pid: i32) -> Option<Entry> {
        parse_stat(&self.read(pid, "stat")?)
    }

    /// Whether the process is in the marked tree; an error where that cannot be seen.
    fn is_marked(&self, pid: i32, marker: &Marker) -> io::Result<bool> {
        let stat = fs::statat(&self.root, format!("{pid}/ns/uts"), AtFlags::empty())?;
        Ok(stat.st_ino == marker.inode)
    }

    /// The living members of a tree, `root` among them if it lives.
    pub(crate) fn tree(&self, root: i32, marker: Option<&Marker>) -> Vec<i32> {
        let entries: BTreeMap<i32, Entry> = self
            .pids()
            .into_iter()
            .filter_map(|pid| Some((pid, self.entry(pid)?)))
            .filter(|(_, entry)| !entry.dead)
            .collect();
        let Some(marker) = marker else {
            return descendants(&entries, root);
        };
        let mut members: Vec<i32> = Vec::new();
        for (&pid, entry) in &entries {
            let member = match self.is_marked(pid, marker) {
                Ok(marked) => marked,
                Err(Errno::NOENT | Errno::SRCH) => false,
                // A program that hides from the agent is taken for a member where its ancestry does not say otherwise.
                Err(_) => entry.parent == 1 || members.contains(&entry.parent),
            };
            if member {
                members.push(pid);
            }
        }
        members
    }

    /// Sends a signal to every member.
    pub(crate) fn signal_tree(&self, root: i32, marker: Option<&Marker>, signal: Signal) {
        for pid in self.tree(root, marker) {
            send(pid, signal);
        }
    }

    /// Kills every member, also those that are being born meanwhile.
    pub(crate) fn kill_tree(&self, root: i32, marker: Option<&Marker>) {
        // Stopped first: a stopped process has no children, and still counts towards the limit of processes, so
        // that even a fork bomb comes to rest. What is continued by a sibling in between is met again below.
        let mut seen = Vec::new();
        self.until_no_new_member(root, marker, &mut seen, Signal::STOP);
        seen.clear();
        self.until_no_new_member(root, marker, &mut seen, Signal::KILL);
    }

    fn until_no_new_member(
        &self,
        root: i32,
        marker: Option<&Marker>,
        seen: &mut Vec<i32>,
        signal: Signal,
    ) {
        // Each round that goes on has met a process that was not there before; the limit of processes bounds their
        // number for programs that behave, this one the rounds for those that do not.
        for _ in 0..1000 {
            let members = self.tree(root, marker);
            let fresh = members.iter().any(|pid| !seen.contains(pid));
            for &pid in &members {
                send(pid, signal);
            }
            if !fresh {
                return;
            }
            *seen = members;
        }
    }
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

fn descendants(entries: &BTreeMap<i32, Entry>, root: i32) -> Vec<i32> {
    let mut members = vec![root];
    loop {
        let before = members.len();
        for (&pid, entry) in entries {
            let related = members.contains(&entry.parent) || entry.session == root;
            if related && !members.contains(&pid) {
                members.push(pid);
            }
        }
        if members.len() == before {
            members.retain(|pid| entries.contains_key(pid));
            return members;
        }
    }
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
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let entry = parse_stat("17 (a) R 1 (b) S 3 17 12 0 -1 4194304").unwrap();
        assert_eq!(
            entry,
            Entry {
                parent: 3,
                session: 12,
                dead: false
            }
        );
        assert_eq!(parse_stat("17 (x"), None);
    }

    #[test]
    fn descendants_follow_parents_and_sessions() {
        let entry = |parent, session| Entry {
            parent,
            session,
            dead: false,
        };
        let entries = BTreeMap::from([
            (10, entry(1, 10)),
            (11, entry(10, 10)),
            (12, entry(11, 12)),
            (13, entry(1, 10)),
            (20, entry(1, 20)),
        ]);
        let mut members = descendants(&entries, 10);
        members.sort_unstable();
        assert_eq!(members, [10, 11, 12, 13]);
        assert!(descendants(&entries, 99).is_empty());
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
        assert!(proc.tree(1, Some(&marker)).is_empty());
    }
}
