//! Trees deeper than any stack, than all descriptors, and than the longest path.

mod common;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use blink_archive::{
    ArchiveError, LimitKind, Limits, Marks, Overlay, PackOptions, Root, UnpackOptions, copy_trees,
    disk_usage, merge_overlay, pack, pack_overlay, remove_tree, unpack, walk_tree,
};
use common::Tar;
use rustix::fs::{CWD, Mode, OFlags};
use tempfile::TempDir;

const LEVELS: u32 = 100_000;

fn over(layers: &[Root]) -> Overlay<'_> {
    Overlay {
        layers,
        beneath: &[],
        marks: Marks::User,
    }
}

/// As much as overflows by far less than one frame for each level.
const STACK_BYTES: usize = 128 << 10;

/// In memory where there is such a place: a hundred thousand folders take their time on a disk.
fn place() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn on_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(work).unwrap().join().unwrap();
}

fn open(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// Folders inside each other, the topmost at `top`, and a file in the last.
fn make_deep(top: &Path, levels: u32) {
    fs::create_dir(top).unwrap();
    let mut here = open(top);
    for _ in 1..levels {
        rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, "d", OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let flags = OFlags::WRONLY | OFlags::CREATE;
    let file = rustix::fs::openat(&here, "file", flags, Mode::RUSR | Mode::WUSR).unwrap();
    rustix::io::write(file, b"deep").unwrap();
}

/// How much is beneath a folder: each entry is seen exactly once.
fn count(folder: &Path) -> u32 {
    let mut seen = 0;
    walk_tree(open(folder), |_| seen += 1).unwrap();
    seen
}

fn remove(folder: &Path, name: &str) {
    remove_tree(open(folder).as_fd(), name.as_ref()).unwrap();
    assert!(!folder.join(name).exists());
}

#[test]
fn it_is_measured_and_removed() {
    on_small_stack(|| {
        let place = place();
        make_deep(&place.path().join("top"), LEVELS);
        // With the file.
        assert_eq!(count(place.path()), LEVELS + 1);
        let _ = disk_usage(place.path());
        remove(place.path(), "top");
    });
}

#[test]
fn wide_and_deep_ones_are_removed_with_folders_that_nobody_may_enter() {
    on_small_stack(|| {
        let place = place();
        for wide in 0..300 {
            let top = place.path().join("top").join(wide.to_string());
            fs::create_dir_all(top.parent().unwrap()).unwrap();
            make_deep(&top, 150);
        }
        let mut here = open(&place.path().join("top/7"));
        for _ in 0..100 {
            let below = rustix::fs::openat(&here, "d", OFlags::RDONLY, Mode::empty()).unwrap();
            rustix::fs::fchmod(&here, Mode::empty()).unwrap();
            here = below;
        }
        remove(place.path(), "top");
    });
}

#[test]
fn it_is_copied_and_merged() {
    on_small_stack(|| {
        let place = place();
        let path = |name: &str| place.path().join(name);
        for name in ["lower", "upper", "merged", "copy", "links"] {
            fs::create_dir(path(name)).unwrap();
        }
        make_deep(&path("lower/top"), LEVELS);
        make_deep(&path("upper/top"), LEVELS / 2);
        let root = |name: &str| Root::open(path(name)).unwrap();
        merge_overlay(&over(&[root("lower"), root("upper")]), &root("merged")).unwrap();
        // The file of each.
        assert_eq!(count(&path("merged")), LEVELS + 2);
        copy_trees(&[(root("merged"), root("copy"))], &root("links")).unwrap();
        assert_eq!(count(&path("copy")), LEVELS + 2);
        assert_eq!(count(&path("links")), 0);
        for name in ["lower", "upper", "merged", "copy"] {
            remove(place.path(), name);
        }
    });
}

#[test]
fn packing_ends_at_a_limit() {
    on_small_stack(|| {
        let place = place();
        make_deep(&place.path().join("top"), LEVELS);
        let root = Root::open(place.path()).unwrap();
        let options = PackOptions::default();
        for packed in [
            pack(&root, "", std::io::sink(), &options),
            pack_overlay(
                &over(&[Root::open(place.path()).unwrap()]),
                std::io::sink(),
                &options,
            ),
        ] {
            let error = packed.unwrap_err();
            let is_depth = matches!(
                error,
                ArchiveError::Limit {
                    which: LimitKind::Depth,
                    ..
                }
            );
            assert!(is_depth, "{error}");
        }
        remove(place.path(), "top");
    });
}

#[test]
fn as_deep_as_paths_are_long_it_is_packed_and_unpacked() {
    const DEEP: u32 = 2_000;
    on_small_stack(|| {
        let place = place();
        fs::create_dir(place.path().join("to")).unwrap();
        fs::create_dir(place.path().join("again")).unwrap();
        make_deep(&place.path().join("from"), DEEP);
        let limits = Limits::default().with_depth(DEEP as usize);
        let pack_options = PackOptions::default().with_limits(limits);
        let unpack_options = UnpackOptions::default().with_limits(limits);
        let from = Root::open(place.path().join("from")).unwrap();
        for (to, overlay) in [("to", false), ("again", true)] {
            let mut stream = Vec::new();
            match overlay {
                true => pack_overlay(
                    &over(&[Root::open(place.path().join("from")).unwrap()]),
                    &mut stream,
                    &pack_options,
                ),
                false => pack(&from, "", &mut stream, &pack_options),
            }
            .unwrap();
            let root = Root::open(place.path().join(to)).unwrap();
            unpack(stream.as_slice(), &root, &unpack_options).unwrap();
            assert_eq!(count(&place.path().join(to)), DEEP);
        }
        // Not left to a temporary folder's own removal, which recurses.
        for name in ["from", "to", "again"] {
            remove(place.path(), name);
        }
    });
}

/// As in a small image: folders inside each other, further than a path is long, through links to the end of what is there.
fn deep_through_links(links: u32, levels_each: usize) -> Tar {
    let way = vec!["d"; levels_each].join("/");
    let mut tar = Tar::new().folder("top", 0o755);
    let mut here = "top".to_owned();
    for link in 0..links {
        for level in 1..=levels_each {
            let path = vec!["d"; level].join("/");
            tar = tar.pax(&[("path", format!("{here}/{path}").as_bytes())]);
            tar = tar.folder("x", 0o755);
        }
        tar = tar.pax(&[("linkpath", format!("{here}/{way}").as_bytes())]);
        here = format!("l{link}");
        tar = tar.symlink(&here, "x");
    }
    tar
}

#[test]
fn a_whiteout_of_a_deep_folder_removes_it() {
    on_small_stack(|| {
        const LINKS: u32 = 12;
        const EACH: u32 = 250;
        for (marker, left) in [(".wh.top", LINKS), ("top/.wh..wh..opq", LINKS + 1)] {
            let place = place();
            let root = Root::open(place.path()).unwrap();
            let lower = deep_through_links(LINKS, EACH as usize).end();
            let options = UnpackOptions::layer();
            unpack(lower.as_slice(), &root, &options).unwrap();
            assert_eq!(count(place.path()), LINKS * (EACH + 1) + 1);
            let upper = Tar::new().file(marker, "").end();
            unpack(upper.as_slice(), &root, &options).unwrap();
            assert_eq!(count(place.path()), left, "{marker}");
        }
    });
}

#[test]
fn a_whiteout_removes_what_no_archive_could_say() {
    on_small_stack(|| {
        let place = place();
        make_deep(&place.path().join("top"), LEVELS);
        let root = Root::open(place.path()).unwrap();
        let upper = Tar::new()
            .file("top/d/d/given", "kept")
            .file("top/.wh..wh..opq", "")
            .file("top/d/.wh.d", "")
            .end();
        unpack(upper.as_slice(), &root, &UnpackOptions::layer()).unwrap();
        assert_eq!(count(place.path()), 4);
        assert!(place.path().join("top/d/d/given").is_file());
    });
}
