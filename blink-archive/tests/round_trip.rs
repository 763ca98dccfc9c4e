//! Trees packed and unpacked again, by this crate and by the system's tar.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use blink_archive::{Limits, PackOptions, Root, UnpackOptions, pack, unpack};
use common::Arena;
use proptest::prelude::*;

/// What matters of one entry.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: &'static str,
    mode: u32,
    mtime: (i64, i64),
    content: Vec<u8>,
    owner: (u32, u32),
    /// The first name, in order, of the same file.
    same_as: PathBuf,
}

fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut paths: Vec<_> = fs::read_dir(root.join(&folder))
            .unwrap()
            .map(|entry| folder.join(entry.unwrap().file_name()))
            .collect();
        paths.sort();
        paths.push(folder);
        for path in paths {
            let full = root.join(&path);
            let metadata = fs::symlink_metadata(&full).unwrap();
            let file_type = metadata.file_type();
            let (kind, content) = if file_type.is_symlink() {
                (
                    "symlink",
                    fs::read_link(&full).unwrap().into_os_string().into_vec(),
                )
            } else if file_type.is_dir() {
                if !path.as_os_str().is_empty() && !seen.contains_key(&path) {
                    folders.push(path.clone());
                }
                ("folder", Vec::new())
            } else if file_type.is_fifo() {
                ("fifo", Vec::new())
            } else {
                ("file", fs::read(&full).unwrap())
            };
            inodes
                .entry(metadata.ino())
                .or_insert_with(Vec::new)
                .push(path.clone());
            seen.insert(
                path.clone(),
                Seen {
                    kind,
                    mode: metadata.mode(),
                    mtime: (metadata.mtime(), metadata.mtime_nsec()),
                    content,
                    owner: (metadata.uid(), metadata.gid()),
                    same_as: PathBuf::new(),
                },
            );
        }
    }
    for paths in inodes.into_values() {
        let first = paths.iter().min().unwrap().clone();
        for path in paths {
            seen.get_mut(&path).unwrap().same_as.clone_from(&first);
        }
    }
    seen
}

fn everything() -> UnpackOptions {
    UnpackOptions::default()
        .with_special_bits(true)
        .with_root_metadata(true)
}

fn packed(root: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(
        &Root::open(root).unwrap(),
        ".",
        &mut archive,
        &PackOptions::default(),
    )
    .unwrap();
    archive
}

#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>, u32, i64, u32),
    Folder(Vec<(Vec<u8>, Node)>, u32),
    Symlink(Vec<u8>),
    HardLink,
    Fifo,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("not in a name", |byte| *byte != 0 && *byte != b'/');
    proptest::collection::vec(byte, 1..130)
        .prop_filter("reserved", |name| name != b"." && name != b"..")
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        4 => (proptest::collection::vec(any::<u8>(), 0..2000), 0u32..0o10000, -1i64 << 31..1i64 << 33, 0u32..1_000_000_000)
            .prop_map(|(content, mode, seconds, nanoseconds)| Node::File(content, mode, seconds, nanoseconds)),
        1 => proptest::collection::vec(1u8..=255, 1..200).prop_map(Node::Symlink),
        1 => Just(Node::HardLink),
        1 => Just(Node::Fifo),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        (
            proptest::collection::vec((name(), inner), 0..6),
            0u32..0o10000,
        )
            .prop_map(|(children, mode)| Node::Folder(children, mode))
    })
}

fn build(path: &Path, node: &Node, last_file: &mut Option<PathBuf>) {
    if path.symlink_metadata().is_ok() {
        return;
    }
    match node {
        Node::File(content, mode, seconds, nanoseconds) => {
            let file = File::create(path).unwrap();
            (&file).write_all(content).unwrap();
            file.set_permissions(Permissions::from_mode(*mode | 0o400))
                .unwrap();
            let epoch = std::time::UNIX_EPOCH;
            let time = if *seconds < 0 {
                epoch - std::time::Duration::new(seconds.unsigned_abs(), *nanoseconds)
            } else {
                epoch + std::time::Duration::new(*seconds as u64, *nanoseconds)
            };
            file.set_modified(time).unwrap();
            *last_file = Some(path.to_path_buf());
        }
        Node::Folder(children, mode) => {
            fs::create_dir(path).unwrap();
            for (name, child) in children {
                build(
                    &path.join(OsString::from_vec(name.clone())),
                    child,
                    last_file,
                );
            }
            fs::set_permissions(path, Permissions::from_mode(*mode | 0o700)).unwrap();
        }
        Node::Symlink(target) => symlink(std::ffi::OsStr::from_bytes(target), path).unwrap(),
        Node::HardLink => {
            if let Some(file) = last_file {
                fs::hard_link(file, path).unwrap();
            }
        }
        Node::Fifo => rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_comes_back(children in proptest::collection::vec((name(), node()), 0..6)) {
        let from = Arena::new();
        let mut last_file = None;
        for (name, child) in &children {
            build(&from.root().join(OsString::from_vec(name.clone())), child, &mut last_file);
        }
        let archive = packed(&from.root());
        let to = Arena::new();
        unpack(archive.as_slice(), &Root::open(to.root()).unwrap(), &everything()).unwrap();
        prop_assert_eq!(look(&from.root()), look(&to.root()));
        prop_assert_eq!(packed(&to.root()), archive);
    }
}

/// One of everything, with names and links that need extension headers.
fn sample() -> Arena {
    let arena = Arena::new();
    let root = arena.root();
    let long = "long-".repeat(40);
    fs::create_dir_all(root.join("d").join(&long)).unwrap();
    fs::write(root.join("d").join(&long).join("file"), "deep").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("run"), Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(root.join("run"), root.join("run-too")).unwrap();
    fs::hard_link(root.join("d").join(&long).join("file"), root.join("zz")).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    symlink(&long, root.join("long-link")).unwrap();
    fs::write(root.join(OsString::from_vec(b"\xff\xfe".to_vec())), "bytes").unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1 << 20).unwrap();
    fs::create_dir(root.join("closed")).unwrap();
    fs::write(root.join("closed/inner"), "x").unwrap();
    fs::set_permissions(root.join("closed"), Permissions::from_mode(0o555)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    File::open(root.join("closed"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    arena
}

fn without_fractions(mut seen: BTreeMap<PathBuf, Seen>) -> BTreeMap<PathBuf, Seen> {
    for entry in seen.values_mut() {
        entry.mtime.1 = 0;
    }
    seen
}

#[test]
fn what_the_systems_tar_packs_is_unpacked() {
    let from = sample();
    for arguments in [
        &["--format=gnu"][..],
        &["--format=gnu", "-S"],
        &["--format=pax"],
        &["--format=pax", "-S"],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=pax", "-S", "--sparse-version=0.0"],
    ] {
        let output = Command::new("tar")
            .args(arguments)
            .arg("-C")
            .arg(from.root())
            .args(["-cf", "-", "."])
            .output()
            .unwrap();
        assert!(output.status.success());
        let to = Arena::new();
        unpack(
            output.stdout.as_slice(),
            &Root::open(to.root()).unwrap(),
            &everything(),
        )
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        assert_eq!(
            without_fractions(look(&from.root())),
            without_fractions(look(&to.root())),
            "{arguments:?}"
        );
        if arguments.contains(&"-S") {
            assert!(fs::metadata(to.root().join("sparse")).unwrap().blocks() * 512 < 1 << 20);
        }
    }
}

#[test]
fn what_is_packed_the_systems_tar_unpacks() {
    let from = sample();
    let to = Arena::new();
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(to.root())
        .args(["-xpf", "-", "--same-permissions"]);
    let mut tar = tar.stdin(std::process::Stdio::piped()).spawn().unwrap();
    tar.stdin
        .take()
        .unwrap()
        .write_all(&packed(&from.root()))
        .unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(look(&from.root()), look(&to.root()));
}

#[test]
fn a_general_tar_library_reads_the_same() {
    let from = sample();
    let archive = packed(&from.root());
    let mut read = tar::Archive::new(archive.as_slice());
    let mut count = 0;
    for entry in read.entries().unwrap() {
        entry.unwrap().path().unwrap();
        count += 1;
    }
    assert_eq!(count, look(&from.root()).len());
}

#[test]
fn one_file_and_links_on_the_way() {
    let from = sample();
    symlink("/d", from.root().join("to-d")).unwrap();
    let root = Root::open(from.root()).unwrap();
    let names = |path: &str| {
        let mut archive = Vec::new();
        pack(&root, path, &mut archive, &PackOptions::default()).unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("run"), [Path::new("run")]);
    assert_eq!(names("closed"), [Path::new("./"), Path::new("inner")]);
    assert_eq!(names("link"), [Path::new("link")]);
    let file = format!("to-d/{}/file", "long-".repeat(40));
    assert_eq!(names(&file), [Path::new("file")]);
    assert!(
        pack(
            &root,
            "../outside/canary",
            Vec::new(),
            &PackOptions::default()
        )
        .is_err()
    );
    assert!(pack(&root, "missing", Vec::new(), &PackOptions::default()).is_err());
}

#[test]
fn sockets_are_left_out_and_the_order_is_fixed() {
    let arena = Arena::new();
    for name in ["b", "a", "c", "B"] {
        fs::write(arena.root().join(name), name).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(arena.root().join("s")).unwrap();
    let mut archive = Vec::new();
    let root = Root::open(arena.root()).unwrap();
    let report = pack(&root, "", &mut archive, &PackOptions::default()).unwrap();
    assert_eq!(
        (report.entries, report.skipped_sockets, report.bytes),
        (5, 1, 4)
    );
    let mut read = tar::Archive::new(archive.as_slice());
    let names: Vec<_> = read
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().into_owned())
        .collect();
    assert_eq!(names, ["./", "B", "a", "b", "c"].map(PathBuf::from));
}

/// Changes a file as soon as its header has been written.
struct Meddler<'a> {
    archive: Vec<u8>,
    path: &'a Path,
    size: u64,
}

impl Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.archive.extend_from_slice(bytes);
        File::options()
            .write(true)
            .open(self.path)?
            .set_len(self.size)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_leaves_the_archive_whole() {
    for size in [0, 100_000, 900_000] {
        let arena = Arena::new();
        let path = arena.root().join("log");
        fs::write(&path, vec![b'x'; 300_000]).unwrap();
        fs::write(arena.root().join("next"), "next").unwrap();
        let mut meddler = Meddler {
            archive: Vec::new(),
            path: &path,
            size,
        };
        // The first write is the folder's header, so the file is made whole again after it.
        let root = Root::open(arena.root()).unwrap();
        let report = pack(&root, "log", &mut meddler, &PackOptions::default()).unwrap();
        assert_eq!(report.changed, [PathBuf::from("log")]);
        let to = Arena::new();
        to.unpack(&meddler.archive).unwrap();
        assert_eq!(fs::metadata(to.root().join("log")).unwrap().len(), 300_000);
    }
}

#[test]
fn more_than_eight_gibibytes() {
    // The file is all hole, and the reader stops after its header.
    struct Head(Vec<u8>);
    impl Write for Head {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.len() > 4096 {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let arena = Arena::new();
    File::create(arena.root().join("big"))
        .unwrap()
        .set_len(9 << 30)
        .unwrap();
    let mut head = Head(Vec::new());
    let root = Root::open(arena.root()).unwrap();
    assert!(pack(&root, "big", &mut head, &PackOptions::default()).is_err());
    let mut read = tar::Archive::new(head.0.as_slice());
    assert_eq!(
        read.entries().unwrap().next().unwrap().unwrap().size(),
        9 << 30
    );
}

#[test]
fn packing_has_limits() {
    let arena = sample();
    let root = Root::open(arena.root()).unwrap();
    for limits in [
        Limits::default().with_entries(3),
        Limits::default().with_total_bytes(100),
        Limits::default().with_depth(0),
    ] {
        pack(
            &root,
            ".",
            Vec::new(),
            &PackOptions::default().with_limits(limits),
        )
        .unwrap_err();
    }
}
