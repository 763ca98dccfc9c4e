//! Removing trees.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use blink_archive::remove_tree;
use common::Arena;
use rustix::fs::{Mode, OFlags};

fn remove(arena: &Arena, name: &str) -> Result<(), blink_archive::ArchiveError> {
    let folder = File::open(arena.root()).unwrap();
    let result = remove_tree(folder.as_fd(), OsStr::new(name));
    arena.assert_untouched();
    result
}

#[test]
fn links_are_removed_not_followed() {
    let arena = Arena::new();
    fs::create_dir(arena.root().join("d")).unwrap();
    symlink(arena.outside(), arena.root().join("d/link")).unwrap();
    symlink(arena.outside(), arena.root().join("link")).unwrap();
    remove(&arena, "d").unwrap();
    remove(&arena, "link").unwrap();
    assert_eq!(fs::read_dir(arena.root()).unwrap().count(), 0);
}

#[test]
fn what_is_not_there_is_removed_already() {
    remove(&Arena::new(), "nothing").unwrap();
}

#[test]
fn only_a_name_is_taken() {
    let arena = Arena::new();
    for name in ["", ".", "..", "../outside", "a/b"] {
        remove(&arena, name).unwrap_err();
    }
}

#[test]
fn folders_without_rights() {
    let arena = Arena::new();
    let top = arena.root().join("d");
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::write(top.join("a/b/c"), "").unwrap();
    for (path, mode) in [("a/b", 0o000), ("a", 0o444), ("", 0o111)] {
        fs::set_permissions(top.join(path), Permissions::from_mode(mode)).unwrap();
    }
    remove(&arena, "d").unwrap();
    assert!(!top.exists());
}

#[test]
fn deeper_than_any_path_or_table_of_files() {
    let arena = Arena::new();
    let mut folder = std::os::fd::OwnedFd::from(File::open(arena.root()).unwrap());
    let name = "n".repeat(100);
    for depth in 0..3000 {
        let name = if depth == 0 { "d" } else { &name };
        rustix::fs::mkdirat(&folder, name, Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&folder, format!("{name}2"), Mode::RWXU).unwrap();
        folder = rustix::fs::openat(&folder, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    remove(&arena, "d").unwrap();
    assert!(!arena.has("d"));
}

#[test]
fn while_something_else_fills_and_empties_it() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let arena = Arena::new();
    let top = arena.root().join("d");
    fs::create_dir(&top).unwrap();
    for number in 0..200 {
        fs::create_dir_all(top.join(format!("{number}/x/y"))).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for number in (0..200).rev() {
                    let _ = fs::remove_dir_all(top.join(format!("{number}/x")));
                    let _ = fs::write(top.join(format!("{number}/new")), "");
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let result = (0..20).find_map(|_| remove(&arena, "d").ok());
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    remove(&arena, "d").unwrap();
    assert!(!top.exists());
}
