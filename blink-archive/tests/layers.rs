//! OCI layer rules.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;

use blink_archive::ArchiveError;
use common::{Arena, Tar, mode};

fn lower() -> Arena {
    let arena = Arena::new();
    let layer = Tar::new()
        .folder("./", 0o755)
        .folder("usr", 0o755)
        .folder("usr/bin", 0o555)
        .file("usr/bin/sh", "sh")
        .symlink("bin", "usr/bin")
        .folder("d", 0o750)
        .file("d/low", "low")
        .folder("d/sub", 0o755)
        .file("d/sub/low", "low")
        .file("gone", "x")
        .end();
    arena.layer(&layer).unwrap();
    arena
}

#[test]
fn a_linked_folder_is_followed_and_keeps_its_mode() {
    let arena = lower();
    arena
        .layer(&Tar::new().file("bin/new", "new").end())
        .unwrap();
    assert_eq!(arena.read("usr/bin/new"), "new");
    assert!(arena.root().join("bin").is_symlink());
    assert_eq!(mode(arena.root().join("usr/bin")), 0o555);
}

#[test]
fn a_whiteout_removes_a_name() {
    let arena = lower();
    let report = arena
        .layer(
            &Tar::new()
                .file(".wh.gone", "")
                .file("d/.wh.sub", "")
                .file("bin/.wh.sh", "")
                .file("no/.wh.x", "")
                .end(),
        )
        .unwrap();
    assert_eq!(report.whiteouts, 4);
    assert!(
        !arena.has("gone") && !arena.has("d/sub") && !arena.has("usr/bin/sh") && !arena.has("no")
    );
    assert!(arena.has("d/low"));
    assert!(!arena.has(".wh.gone"));
}

#[test]
fn an_opaque_folder_hides_lower_layers_only() {
    for marker_first in [true, false] {
        let arena = lower();
        let mut layer = Tar::new().folder("d", 0o700);
        if marker_first {
            layer = layer.file("d/.wh..wh..opq", "");
        }
        layer = layer.file("d/mine", "mine").file("d/sub/mine", "mine");
        if !marker_first {
            layer = layer.file("d/.wh..wh..opq", "");
        }
        arena.layer(&layer.end()).unwrap();
        assert_eq!(arena.read("d/mine"), "mine");
        assert_eq!(arena.read("d/sub/mine"), "mine");
        assert!(!arena.has("d/low") && !arena.has("d/sub/low"));
        assert_eq!(mode(arena.root().join("d")), 0o700);
    }
}

#[test]
fn a_whiteout_leaves_what_its_own_layer_gave() {
    let arena = lower();
    let layer = Tar::new()
        .file("d/sub/mine", "mine")
        .file("gone", "back")
        .file(".wh.gone", "")
        .file(".wh.d", "")
        .end();
    arena.layer(&layer).unwrap();
    assert_eq!(arena.read("gone"), "back");
    assert_eq!(arena.read("d/sub/mine"), "mine");
    assert!(!arena.has("d/low") && !arena.has("d/sub/low"));
}

#[test]
fn whiteouts_of_no_name_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh...", ".wh.d/x"] {
        let arena = lower();
        let result = arena.layer(&Tar::new().file(name, "").end());
        assert!(
            matches!(result, Err(ArchiveError::Hostile { .. })),
            "{name}: {result:?}"
        );
        assert!(arena.has("d/low"));
    }
    let arena = lower();
    let report = arena
        .layer(
            &Tar::new()
                .file(".wh..wh.plnk/1.2", "")
                .file(".wh..wh.aufs", "")
                .end(),
        )
        .unwrap();
    assert_eq!(report.skipped_others, 2);
}

#[test]
fn a_plain_archive_has_no_whiteouts() {
    let arena = lower();
    arena
        .unpack(&Tar::new().file(".wh.gone", "").end())
        .unwrap();
    assert!(arena.has("gone") && arena.has(".wh.gone"));
}

#[test]
fn the_upper_layers_kind_wins() {
    let arena = lower();
    let layer = Tar::new()
        .file("d", "now a file")
        .folder("gone", 0o711)
        .file("gone/x", "1")
        .folder("bin", 0o755)
        .file("bin/own", "own")
        .symlink("usr/bin", "../d2")
        .end();
    arena.layer(&layer).unwrap();
    assert_eq!(arena.read("d"), "now a file");
    assert_eq!(mode(arena.root().join("gone")), 0o711);
    assert!(!arena.root().join("bin").is_symlink());
    assert_eq!(arena.read("bin/own"), "own");
    assert!(arena.root().join("usr/bin").is_symlink());
}

#[test]
fn a_folder_over_a_folder_merges() {
    let arena = lower();
    arena
        .layer(&Tar::new().folder("d", 0o700).file("d/up", "up").end())
        .unwrap();
    assert_eq!(arena.read("d/low"), "low");
    assert_eq!(arena.read("d/up"), "up");
    assert_eq!(mode(arena.root().join("d")), 0o700);
}

#[test]
fn hard_links_reach_lower_layers() {
    let arena = lower();
    arena
        .layer(
            &Tar::new()
                .hard_link("again", "/d/low")
                .hard_link("sh2", "bin/sh")
                .end(),
        )
        .unwrap();
    let inode = |path: &str| fs::metadata(arena.root().join(path)).unwrap().ino();
    assert_eq!(inode("again"), inode("d/low"));
    assert_eq!(inode("sh2"), inode("usr/bin/sh"));
}

#[test]
fn a_missing_end_marker_is_accepted() {
    let arena = Arena::new();
    arena.layer(&Tar::new().file("a", "1").0).unwrap();
    assert_eq!(arena.read("a"), "1");
    assert!(arena.layer(&Tar::new().file("a", "1").0[..600]).is_err());
}

#[test]
fn a_whiteout_does_not_follow_links_outside() {
    let arena = Arena::new();
    let target = arena.outside();
    arena
        .layer(&Tar::new().symlink("l", target.to_str().unwrap()).end())
        .unwrap();
    arena
        .layer(
            &Tar::new()
                .file("l/.wh.canary", "")
                .file("l/.wh..wh..opq", "")
                .end(),
        )
        .unwrap();
    arena.layer(&Tar::new().file(".wh.l", "").end()).unwrap();
    assert!(!arena.has("l"));
}
