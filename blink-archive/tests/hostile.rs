//! Archives that try to get out, to lie, or to fill the machine.

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use blink_archive::{ArchiveError, LimitKind, Limits, Ownership, UnpackOptions};
use common::{Arena, Tar, mode};

fn refused(archive: Vec<u8>) -> Arena {
    for options in [UnpackOptions::default(), UnpackOptions::layer()] {
        let arena = Arena::new();
        let result = arena.unpack_with(&archive, &options);
        assert!(
            matches!(result, Err(ArchiveError::Hostile { .. })),
            "{result:?}"
        );
    }
    let arena = Arena::new();
    arena.unpack(&archive).unwrap_err();
    arena
}

#[test]
fn paths_upwards() {
    for name in [
        "../outside/canary",
        "a/../../outside/canary",
        "..",
        "./../x",
        "a/..",
    ] {
        refused(Tar::new().file(name, "dead").end());
        refused(Tar::new().folder(name, 0o777).end());
        refused(Tar::new().symlink(name, "x").end());
    }
    refused(
        Tar::new()
            .pax(&[("path", b"../outside/canary")])
            .file("a", "dead")
            .end(),
    );
    refused(
        Tar::new()
            .raw(b'L', b"x", b"", 0, 17, b"../outside/canary")
            .file("a", "dead")
            .end(),
    );
}

#[test]
fn absolute_paths() {
    let arena = Arena::new();
    let inside = arena.outside().join("canary");
    let archive = Tar::new().file(inside.to_str().unwrap(), "dead").end();
    assert!(matches!(
        arena.unpack(&archive),
        Err(ArchiveError::Hostile { .. })
    ));
    // A layer's leading slash is the root's.
    arena.layer(&Tar::new().file("/etc/x", "1").end()).unwrap();
    assert_eq!(arena.read("etc/x"), "1");
}

#[test]
fn writing_through_a_link() {
    for target in ["../outside", "/", "/proc/self/root", "."] {
        let archive = Tar::new()
            .symlink("link", target)
            .file("link/canary", "dead")
            .end();
        let arena = Arena::new();
        assert!(matches!(
            arena.unpack(&archive),
            Err(ArchiveError::Hostile { .. })
        ));
        assert!(!arena.has("canary"));
    }
    // In a layer the link leads to the root instead.
    let arena = Arena::new();
    let archive = Tar::new()
        .symlink("link", "/")
        .file("link/canary", "inside")
        .end();
    arena.layer(&archive).unwrap();
    assert_eq!(arena.read("canary"), "inside");
    let archive = Tar::new()
        .symlink("up", "../../..")
        .file("up/x", "inside")
        .end();
    arena.layer(&archive).unwrap();
    assert_eq!(arena.read("x"), "inside");
}

#[test]
fn a_link_in_the_entrys_own_place_is_replaced() {
    let arena = Arena::new();
    let target = arena.outside().join("canary");
    let archive = Tar::new()
        .symlink("a", target.to_str().unwrap())
        .file("a", "new")
        .end();
    arena.unpack(&archive).unwrap();
    assert_eq!(arena.read("a"), "new");
    assert!(!arena.root().join("a").is_symlink());
    let archive = Tar::new()
        .symlink("d", "../outside")
        .folder("d", 0o700)
        .file("d/x", "1")
        .end();
    arena.unpack(&archive).unwrap();
    arena.layer(&archive).unwrap();
    assert_eq!(arena.read("d/x"), "1");
}

#[test]
fn a_link_to_proc_is_not_followed() {
    let arena = Arena::new();
    let archive = Tar::new()
        .symlink("p", "/proc/self/cwd")
        .file("p/x", "1")
        .end();
    assert!(arena.layer(&archive).is_err());
}

#[test]
fn hard_links_outside() {
    for target in ["../outside/canary", "../../etc/passwd", ".."] {
        refused(Tar::new().hard_link("a", target).end());
    }
    let arena = Arena::new();
    let target = arena.outside().join("canary");
    let archive = Tar::new().hard_link("a", target.to_str().unwrap()).end();
    assert!(matches!(
        arena.unpack(&archive),
        Err(ArchiveError::Hostile { .. })
    ));
    assert!(matches!(
        arena.layer(&archive),
        Err(ArchiveError::Hostile { .. })
    ));
    // Through a folder that is a link.
    let archive = Tar::new()
        .symlink("l", "../outside")
        .hard_link("a", "l/canary")
        .end();
    assert!(matches!(
        arena.unpack(&archive),
        Err(ArchiveError::Hostile { .. })
    ));
    assert!(arena.layer(&archive).is_err());
    refused(Tar::new().folder("d", 0o755).hard_link("a", "d").end());
    refused(Tar::new().hard_link("a", "missing").end());
    refused(Tar::new().hard_link("a", "./").end());
}

#[test]
fn a_hard_link_to_a_link_is_the_link() {
    let arena = Arena::new();
    let archive = Tar::new()
        .symlink("l", "../outside/canary")
        .hard_link("a", "l")
        .file("a", "new")
        .end();
    arena.unpack(&archive).unwrap();
    assert_eq!(arena.read("a"), "new");
    assert!(arena.root().join("l").is_symlink());
}

#[test]
fn writing_to_one_name_of_a_hard_link_leaves_the_other() {
    let arena = Arena::new();
    fs::write(arena.root().join("mine"), "mine").unwrap();
    let archive = Tar::new()
        .hard_link("a", "mine")
        .file("a", "new")
        .hard_link("mine", "mine")
        .end();
    arena.unpack(&archive).unwrap();
    assert_eq!(arena.read("mine"), "mine");
    assert_eq!(arena.read("a"), "new");
}

#[test]
fn sizes_that_lie() {
    let arena = Arena::new();
    let archive = Tar::new()
        .raw(b'0', b"a", b"", 0o644, 1 << 20, b"short")
        .end();
    assert!(matches!(
        arena.unpack(&archive),
        Err(ArchiveError::Truncated)
    ));
    let bomb = Tar::new().raw(b'0', b"b", b"", 0o644, 1 << 60, b"").end();
    let Err(ArchiveError::Limit { which, .. }) = arena.unpack(&bomb) else {
        panic!()
    };
    assert_eq!(which, LimitKind::TotalBytes);
    assert!(!arena.has("b"));
    for size in [u64::MAX, 1 << 63] {
        let archive = Tar::new().raw(b'0', b"c", b"", 0o644, size, b"").end();
        assert!(arena.unpack(&archive).is_err());
    }
    // An extension header that claims to be huge is not believed.
    for kind in *b"LKxg" {
        let archive = Tar::new().raw(kind, b"x", b"", 0, 1 << 40, b"").end();
        assert!(matches!(
            arena.unpack(&archive),
            Err(ArchiveError::Limit { .. })
        ));
    }
    let archive = Tar::new()
        .pax(&[("size", b"99999999999")])
        .file("d", "")
        .end();
    assert!(arena.unpack(&archive).is_err());
}

#[test]
fn cut_anywhere_is_an_error() {
    let archive = Tar::new()
        .folder("d", 0o755)
        .file("d/a", "hello")
        .symlink("l", "d")
        .end();
    for length in 0..archive.len() {
        let arena = Arena::new();
        let result = arena.unpack(&archive[..length]);
        let only_the_last_block_is_missing = length == archive.len() - 512;
        assert_eq!(
            result.is_ok(),
            only_the_last_block_is_missing,
            "{length}: {result:?}"
        );
    }
}

#[test]
fn limits_hold_to_the_entry_and_byte() {
    let arena = Arena::new();
    let archive = Tar::new().file("a", "12345").file("b", "12345").end();
    let with =
        |limits: Limits| arena.unpack_with(&archive, &UnpackOptions::default().with_limits(limits));
    with(Limits::default().with_entries(2).with_total_bytes(10)).unwrap();
    let error = with(Limits::default().with_entries(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the archive has more than the 1 entries allowed, at 'b'"
    );
    assert!(matches!(
        with(Limits::default().with_total_bytes(9)),
        Err(ArchiveError::Limit {
            which: LimitKind::TotalBytes,
            ..
        })
    ));
    let deep = Tar::new()
        .pax(&[("path", "d/".repeat(300).as_bytes())])
        .folder("x", 0o755)
        .end();
    assert!(matches!(
        arena.unpack(&deep),
        Err(ArchiveError::Limit {
            which: LimitKind::Depth,
            ..
        })
    ));
    let long = Tar::new()
        .pax(&[("path", "d".repeat(5000).as_bytes())])
        .file("x", "")
        .end();
    assert!(matches!(
        arena.unpack(&long),
        Err(ArchiveError::Limit {
            which: LimitKind::PathLength,
            ..
        })
    ));
    let component = Tar::new()
        .pax(&[("path", "d".repeat(300).as_bytes())])
        .file("x", "")
        .end();
    assert!(matches!(
        arena.unpack(&component),
        Err(ArchiveError::Io { .. })
    ));
}

#[test]
fn names_of_any_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let arena = Arena::new();
    arena
        .unpack(&Tar::new().file(b"\xff\xfe\n\x1b", "odd").end())
        .unwrap();
    let odd = arena
        .root()
        .join(std::ffi::OsStr::from_bytes(b"\xff\xfe\n\x1b"));
    assert_eq!(fs::read(odd).unwrap(), b"odd");
    refused(Tar::new().pax(&[("path", b"a\0b")]).file("x", "").end());
    refused(
        Tar::new()
            .pax(&[("linkpath", b"a\0b")])
            .symlink("x", "y")
            .end(),
    );
    refused(Tar::new().symlink("x", "").end());
    refused(Tar::new().file("", "").end());
    refused(Tar::new().file("./", "x").symlink("./", "x").end());
}

#[test]
fn one_name_of_several_kinds() {
    let arena = Arena::new();
    let archive = Tar::new()
        .file("a", "1")
        .folder("a", 0o755)
        .symlink("a", "x")
        .file("a", "2")
        .file("a", "3")
        .end();
    arena.unpack(&archive).unwrap();
    assert_eq!(arena.read("a"), "3");
    // A folder with something in it is replaced by a layer only.
    let archive = Tar::new()
        .folder("d", 0o755)
        .file("d/x", "1")
        .file("d", "file")
        .end();
    assert!(matches!(
        arena.unpack(&archive),
        Err(ArchiveError::Exists { .. })
    ));
    arena.layer(&archive).unwrap();
    assert_eq!(arena.read("d"), "file");
    refused(Tar::new().file("f", "").file("f/x", "").end());
}

#[test]
fn without_overwrite_nothing_is_replaced() {
    let arena = Arena::new();
    fs::write(arena.root().join("a"), "mine").unwrap();
    fs::create_dir(arena.root().join("d")).unwrap();
    let before = mode(arena.root().join("d"));
    let options = UnpackOptions::default().with_overwrite(false);
    let archive = Tar::new().folder("d", 0o700).file("d/new", "1").end();
    arena.unpack_with(&archive, &options).unwrap();
    assert_eq!(mode(arena.root().join("d")), before);
    let archive = Tar::new().file("a", "theirs").end();
    assert!(matches!(
        arena.unpack_with(&archive, &options),
        Err(ArchiveError::Exists { .. })
    ));
    assert_eq!(arena.read("a"), "mine");
}

#[test]
fn devices_are_left_out_and_fifos_made() {
    let arena = Arena::new();
    let archive = Tar::new()
        .raw(b'3', b"null", b"", 0o666, 0, b"")
        .raw(b'4', b"disk", b"", 0o666, 0, b"")
        .raw(b'V', b"label", b"", 0, 3, b"abc")
        .raw(b'6', b"pipe", b"", 0o622, 0, b"")
        .end();
    let report = arena.unpack(&archive).unwrap();
    assert_eq!(
        (report.skipped_devices, report.skipped_others, report.fifos),
        (2, 1, 1)
    );
    assert!(!arena.has("null") && !arena.has("disk") && !arena.has("label"));
    assert!(
        fs::metadata(arena.root().join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(mode(arena.root().join("pipe")), 0o622);
}

#[test]
fn special_bits_are_dropped_unless_asked_for() {
    let archive = Tar::new()
        .raw(b'0', b"su", b"", 0o6755, 0, b"")
        .folder("t", 0o1777)
        .folder("./", 0o777)
        .end();
    let arena = Arena::new();
    let before = mode(arena.root());
    arena.unpack(&archive).unwrap();
    assert_eq!(mode(arena.root().join("su")), 0o755);
    assert_eq!(mode(arena.root().join("t")), 0o777);
    assert_eq!(mode(arena.root()), before);
    arena.layer(&archive).unwrap();
    assert_eq!(mode(arena.root().join("su")), 0o6755);
    assert_eq!(mode(arena.root().join("t")), 0o1777);
    assert_eq!(mode(arena.root()), 0o777);
}

#[test]
fn owners_outside_the_range_are_refused() {
    let ownership = Ownership::Ignore;
    let arena = Arena::new();
    let archive = Tar::new().owned("a", 70_000).end();
    arena
        .unpack_with(
            &archive,
            &UnpackOptions::default().with_ownership(ownership),
        )
        .unwrap();
    let me = fs::metadata(arena.root()).unwrap();
    assert_eq!(
        fs::metadata(arena.root().join("a")).unwrap().uid(),
        me.uid()
    );
}

#[test]
fn damage_is_named() {
    let arena = Arena::new();
    let mut archive = Tar::new().file("a", "x").end();
    archive[0] = b'b';
    let error = arena.unpack(&archive).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
    assert!(matches!(
        arena.unpack(&[7; 4096]),
        Err(ArchiveError::Corrupt { .. })
    ));
    assert!(matches!(arena.unpack(b""), Err(ArchiveError::Truncated)));
    let twice = Tar::new()
        .pax(&[("path", b"a")])
        .pax(&[("path", b"b")])
        .file("c", "")
        .end();
    assert!(matches!(
        arena.unpack(&twice),
        Err(ArchiveError::Corrupt { .. })
    ));
    let global = Tar::new()
        .raw(b'g', b"g", b"", 0, 14, b"14 path=../a/\n")
        .file("c", "")
        .end();
    assert!(matches!(
        arena.unpack(&global),
        Err(ArchiveError::Corrupt { .. })
    ));
}
