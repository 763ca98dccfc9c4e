//! Files in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use blink_host::lock;
use blink_wire::{DirEntry, ErrorBody, FileInfo, FileKind, MakeDir, Message, Read, Remove, Write};
use bytes::Bytes;

const FILE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;

/// A disk. Clones are the same one; [`copy`](Tree::copy) makes another.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// By their paths, without a slash at the end; the root's is empty.
    nodes: Arc<Mutex<BTreeMap<Vec<u8>, Node>>>,
}

#[derive(Debug, Clone)]
struct Node {
    /// `None` is a folder.
    content: Option<Bytes>,
    mode: u32,
    modified: SystemTime,
}

impl Node {
    fn new(content: Option<Bytes>, mode: u32) -> Node {
        Node {
            content,
            mode,
            modified: SystemTime::now(),
        }
    }

    fn info(&self) -> FileInfo {
        let since = self.modified.duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.unwrap_or_default().as_nanos();
        FileInfo {
            kind: match self.content {
                Some(_) => FileKind::File,
                None => FileKind::Directory,
            },
            size: self.content.as_ref().map_or(0, Bytes::len) as u64,
            mode: self.mode,
            uid: 0,
            gid: 0,
            modified_ns: i64::try_from(nanos).unwrap_or(i64::MAX),
            target: None,
        }
    }
}

impl Default for Tree {
    fn default() -> Tree {
        const FOLDERS: [&str; 5] = ["", "/etc", "/root", "/tmp", "/var/blink/memory"];
        let tree = Tree {
            nodes: Arc::default(),
        };
        for folder in FOLDERS {
            let mut nodes = lock(&tree.nodes);
            for (end, _) in folder.match_indices('/').chain([(folder.len(), "")]) {
                let path = folder.as_bytes()[..end].to_vec();
                nodes
                    .entry(path)
                    .or_insert_with(|| Node::new(None, DIR_MODE));
            }
        }
        tree
    }
}

type Outcome<T> = Result<T, ErrorBody>;

fn failed(errno: i32, path: &[u8]) -> ErrorBody {
    let reason = std::io::Error::from_raw_os_error(errno);
    ErrorBody::of_errno(
        errno,
        format!("{}: {reason}", String::from_utf8_lossy(path)),
    )
}

fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
        .iter()
        .flat_map(|part| [b"/", *part].concat())
        .collect()
}

fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/');
    &path[..end.unwrap_or(0)]
}

fn beneath(path: &[u8]) -> Vec<u8> {
    [path, b"/"].concat()
}

impl Tree {
    /// Another disk with the same files.
    pub(super) fn copy(&self) -> Tree {
        Tree {
            nodes: Arc::new(Mutex::new(lock(&self.nodes).clone())),
        }
    }

    pub(super) fn stat(&self, path: &[u8]) -> Outcome<FileInfo> {
        let nodes = lock(&self.nodes);
        let node = nodes.get(&normal(path));
        node.map(Node::info)
            .ok_or_else(|| failed(libc::ENOENT, path))
    }

    /// The entries of a folder, as they go over a link.
    pub(super) fn list(&self, path: &[u8]) -> Outcome<Bytes> {
        let nodes = lock(&self.nodes);
        let folder = normal(path);
        match nodes.get(&folder) {
            None => return Err(failed(libc::ENOENT, path)),
            Some(node) if node.content.is_some() => return Err(failed(libc::ENOTDIR, path)),
            Some(_) => {}
        }
        let within = beneath(&folder);
        let mut listed = Vec::new();
        for (found, node) in nodes.range(within.clone()..) {
            let Some(name) = found.strip_prefix(&*within) else {
                break;
            };
            if name.contains(&b'/') {
                continue;
            }
            let entry = DirEntry {
                name: name.to_vec().into(),
                info: node.info(),
            };
            let entry = entry.to_body();
            let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
            listed.extend_from_slice(&length.to_le_bytes());
            listed.extend_from_slice(&entry);
        }
        Ok(listed.into())
    }

    pub(super) fn read(&self, read: &Read) -> Outcome<Bytes> {
        let nodes = lock(&self.nodes);
        let node = nodes.get(&normal(&read.path));
        let content = match node.map(|node| &node.content) {
            None => return Err(failed(libc::ENOENT, &read.path)),
            Some(None) => return Err(failed(libc::EISDIR, &read.path)),
            Some(Some(content)) => content,
        };
        let place = |offset: u64| {
            usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(content.len())
        };
        let end = read
            .length
            .map_or(u64::MAX, |length| read.offset.saturating_add(length));
        Ok(content.slice(place(read.offset)..place(end).max(place(read.offset))))
    }

    /// Whether it can be written.
    pub(super) fn check_write(&self, path: &[u8]) -> Outcome<()> {
        let nodes = lock(&self.nodes);
        let wanted = normal(path);
        match nodes.get(parent(&wanted)) {
            None => return Err(failed(libc::ENOENT, path)),
            Some(folder) if folder.content.is_some() => return Err(failed(libc::ENOTDIR, path)),
            Some(_) => {}
        }
        match nodes.get(&wanted) {
            Some(node) if node.content.is_none() => Err(failed(libc::EISDIR, path)),
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, write: &Write, content: Vec<u8>) -> Outcome<()> {
        self.check_write(&write.path)?;
        let mut nodes = lock(&self.nodes);
        let path = normal(&write.path);
        let before = nodes.get(&path);
        let mode = write
            .mode
            .or(before.map(|node| node.mode))
            .unwrap_or(FILE_MODE);
        let content = match before.and_then(|node| node.content.as_ref()) {
            Some(before) if write.append => [&before[..], &content].concat(),
            _ => content,
        };
        nodes.insert(path, Node::new(Some(content.into()), mode));
        Ok(())
    }

    pub(super) fn make_dir(&self, make: &MakeDir) -> Outcome<()> {
        let mut nodes = lock(&self.nodes);
        let path = normal(&make.path);
        match nodes.get(&path) {
            Some(node) if make.parents && node.content.is_none() => return Ok(()),
            Some(_) => return Err(failed(libc::EEXIST, &make.path)),
            None => {}
        }
        if !make.parents && !nodes.contains_key(parent(&path)) {
            return Err(failed(libc::ENOENT, &make.path));
        }
        let mut missing = vec![path.clone()];
        let mut above = parent(&path);
        while !nodes.contains_key(above) {
            missing.push(above.to_vec());
            above = parent(above);
        }
        if nodes.get(above).is_some_and(|node| node.content.is_some()) {
            return Err(failed(libc::ENOTDIR, &make.path));
        }
        for folder in missing {
            nodes.insert(folder, Node::new(None, make.mode));
        }
        Ok(())
    }

    pub(super) fn remove(&self, remove: &Remove) -> Outcome<()> {
        let mut nodes = lock(&self.nodes);
        let (path, within) = (normal(&remove.path), beneath(&normal(&remove.path)));
        if !nodes.contains_key(&path) {
            return Err(failed(libc::ENOENT, &remove.path));
        }
        let first = nodes.range(within.clone()..).next();
        let is_full = first.is_some_and(|(found, _)| found.starts_with(&within));
        if is_full && !remove.recursive {
            return Err(failed(libc::ENOTEMPTY, &remove.path));
        }
        nodes.retain(|found, _| *found != path && !found.starts_with(&within));
        Ok(())
    }

    /// Gives what is at a path another, or puts a copy there.
    pub(super) fn put(&self, from: &[u8], to: &[u8], is_moved: bool) -> Outcome<()> {
        let mut nodes = lock(&self.nodes);
        let (old, new) = (normal(from), normal(to));
        if !nodes.contains_key(&old) {
            return Err(failed(libc::ENOENT, from));
        }
        if !nodes.contains_key(parent(&new)) {
            return Err(failed(libc::ENOENT, to));
        }
        if new.starts_with(&beneath(&old)) {
            return Err(failed(libc::EINVAL, to));
        }
        let all = nodes
            .iter()
            .filter(|(path, _)| **path == old || path.starts_with(&beneath(&old)));
        let all: Vec<_> = all
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect();
        for (path, node) in all {
            if is_moved {
                nodes.remove(&path);
            }
            nodes.insert([&new, &path[old.len()..]].concat(), node);
        }
        Ok(())
    }
}
