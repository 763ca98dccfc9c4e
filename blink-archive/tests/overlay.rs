//! Layers of an overlay, packed as one.

mod common;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use blink_archive::{
    ArchiveError, Marks, Overlay, PackOptions, PackReport, Root, UnpackOptions, UnpackReport,
    merge_overlay, pack_overlay, unpack_overlay,
};
use common::{Arena, Tar, mode};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

const OPAQUE: &str = "user.overlay.opaque";

fn options() -> UnpackOptions {
    UnpackOptions::default()
        .with_special_bits(true)
        .with_root_metadata(true)
}

fn over(layers: &[Root]) -> Overlay<'_> {
    Overlay {
        layers,
        beneath: &[],
        marks: Marks::User,
    }
}

fn packed(layers: &[&Path]) -> (PackReport, Vec<u8>) {
    let layers: Vec<Root> = layers
        .iter()
        .map(|path| Root::open(path).unwrap())
        .collect();
    let mut stream = Vec::new();
    let report = pack_overlay(&over(&layers), &mut stream, &PackOptions::default()).unwrap();
    (report, stream)
}

fn round_trip(layers: &[&Path]) -> (Arena, UnpackReport) {
    let (_, stream) = packed(layers);
    let arena = Arena::new();
    let report = unpack_into(&arena, &stream, None).unwrap();
    (arena, report)
}

fn unpack_into(
    arena: &Arena,
    stream: &[u8],
    beneath: Option<&Path>,
) -> Result<UnpackReport, ArchiveError> {
    let root = Root::open(arena.root()).unwrap();
    let beneath = beneath.map(|path| Root::open(path).unwrap());
    let result = unpack_overlay(stream, &root, beneath.as_ref(), Marks::User, &options());
    arena.assert_untouched();
    result
}

fn whiteout(path: impl AsRef<Path>) {
    let mode = Mode::empty();
    rustix::fs::mknodat(CWD, path.as_ref(), FileType::CharacterDevice, mode, 0).unwrap();
}

fn is_whiteout(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

fn set(path: impl AsRef<Path>, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path.as_ref(), name, value, XattrFlags::empty()).unwrap();
}

fn get(path: impl AsRef<Path>, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1000];
    let length = rustix::fs::getxattr(path.as_ref(), name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_opaque(path: impl AsRef<Path>) -> bool {
    get(path, OPAQUE).as_deref() == Some(b"y")
}

struct Layers {
    folder: tempfile::TempDir,
}

impl Layers {
    fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        fs::write(self.at(path), content).unwrap();
    }
}

#[test]
fn one_layer_comes_back_with_its_marks() {
    let layers = Layers::new(&["up/opaque", "up/folder"]);
    whiteout(layers.at("up/gone"));
    set(layers.at("up/opaque"), OPAQUE, b"y");
    set(layers.at("up/opaque"), "user.overlay.origin", b"elsewhere");
    set(layers.at("up/folder"), "user.note", b"a\n9 size=1\n\0");
    layers.write("up/folder/.wh.file", "a name like any other");
    set(layers.at("up/folder/.wh.file"), "user.empty", b"");
    fs::hard_link(layers.at("up/folder/.wh.file"), layers.at("up/again")).unwrap();
    symlink("/etc/passwd", layers.at("up/link")).unwrap();
    fs::set_permissions(layers.at("up/folder"), Permissions::from_mode(0o2750)).unwrap();
    fs::set_permissions(layers.at("up/again"), Permissions::from_mode(0o000)).unwrap();
    let mut sparse = File::create(layers.at("up/sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(b"middle", 4 << 20).unwrap();
    sparse.flush().unwrap();

    let (arena, report) = round_trip(&[&layers.at("up")]);
    let root = arena.root();
    assert_eq!((report.whiteouts, report.skipped_devices), (1, 0));
    assert!(is_whiteout(root.join("gone")));
    assert!(is_opaque(root.join("opaque")) && !is_opaque(root.join("folder")));
    assert_eq!(get(root.join("opaque"), "user.overlay.origin"), None);
    assert_eq!(
        get(root.join("folder"), "user.note").unwrap(),
        b"a\n9 size=1\n\0"
    );
    assert_eq!(get(root.join("again"), "user.empty").unwrap(), b"");
    assert_eq!(mode(root.join("folder")), 0o2750);
    assert_eq!(mode(root.join("again")), 0o000);
    assert_eq!(mode(layers.at("up/again")), 0o000);
    let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
    assert_eq!(inode("again"), inode("folder/.wh.file"));
    assert_eq!(
        fs::read_link(root.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    let sparse = fs::metadata(root.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 8 << 20);
    assert!(sparse.blocks() * 512 < 1 << 20, "{}", sparse.blocks());
    let content = fs::read(root.join("sparse")).unwrap();
    assert_eq!(&content[4 << 20..(4 << 20) + 6], b"middle");
    // The same tree gives the same archive.
    assert_eq!(packed(&[&root]).1, packed(&[&layers.at("up")]).1);
}

#[test]
fn layers_come_to_what_they_show_together() {
    let layers = Layers::new(&[
        "1/merged/deep",
        "1/hidden",
        "1/replaced",
        "1/new/folder",
        "2/merged/deep",
        "2/hidden",
        "2/back",
        "2/new/folder",
        "3/merged",
        "3/replaced",
        "3/back",
    ]);
    layers.write("1/merged/deep/low", "1");
    layers.write("1/merged/deep/changed", "1");
    layers.write("1/merged/removed", "secret");
    layers.write("1/hidden/secret", "secret");
    layers.write("1/replaced/secret", "secret");
    whiteout(layers.at("1/of the image"));
    layers.write("2/merged/deep/changed", "2");
    set(layers.at("1/new"), OPAQUE, b"y");
    for name in ["1/new/file", "1/new/folder/file"] {
        layers.write(name, "secret");
        whiteout(layers.at(&name.replace('1', "2")));
    }
    set(layers.at("2/hidden"), OPAQUE, b"y");
    layers.write("2/hidden/shown", "2");
    fs::remove_dir(layers.at("2/back")).unwrap();
    whiteout(layers.at("2/back"));
    whiteout(layers.at("2/replaced"));
    layers.write("2/of the image", "again");
    whiteout(layers.at("3/merged/removed"));
    layers.write("3/back/new", "3");
    fs::set_permissions(layers.at("3/merged"), Permissions::from_mode(0o711)).unwrap();

    let paths = [layers.at("1"), layers.at("2"), layers.at("3")];
    let (arena, _) = round_trip(&[&paths[0], &paths[1], &paths[2]]);
    let root = arena.root();
    assert_eq!(arena.read("merged/deep/low"), "1");
    assert_eq!(arena.read("merged/deep/changed"), "2");
    assert!(is_whiteout(root.join("merged/removed")));
    // Nothing is beneath that it could hide.
    assert!(is_opaque(root.join("new")) && arena.has("new/folder"));
    assert!(!arena.has("new/file") && !arena.has("new/folder/file"));
    assert_eq!(mode(root.join("merged")), 0o711);
    assert!(!is_opaque(root.join("merged")) && !is_opaque(root.join("merged/deep")));
    assert_eq!(arena.read("hidden/shown"), "2");
    assert!(is_opaque(root.join("hidden")) && !arena.has("hidden/secret"));
    // What was removed and made again hides what the image has there.
    assert_eq!(arena.read("back/new"), "3");
    assert!(is_opaque(root.join("back")));
    assert!(is_opaque(root.join("replaced")) && !arena.has("replaced/secret"));
    assert_eq!(arena.read("of the image"), "again");
    // Nothing of what is gone is in the archive.
    let stream = packed(&[&paths[0], &paths[1], &paths[2]]).1;
    assert!(!stream.windows(6).any(|window| window == b"secret"));
}

#[test]
fn a_whiteout_of_what_is_not_there_is_left_out() {
    let layers = Layers::new(&["up/folder", "up/link", "up/file", "image/folder"]);
    for name in ["gone", "folder/gone", "folder/other", "link/x", "file/x"] {
        whiteout(layers.at(&format!("up/{name}")));
    }
    layers.write("image/gone", "");
    layers.write("image/folder/gone", "");
    layers.write("image/folder/x", "");
    layers.write("image/file", "");
    symlink("folder", layers.at("image/link")).unwrap();
    let (_, stream) = packed(&[&layers.at("up")]);
    let arena = Arena::new();
    let report = unpack_into(&arena, &stream, Some(&layers.at("image"))).unwrap();
    assert_eq!(report.whiteouts, 2);
    for (name, kept) in [
        ("gone", true),
        ("folder/gone", true),
        ("folder/other", false),
        ("link/x", false),
        ("file/x", false),
    ] {
        assert_eq!(is_whiteout(arena.root().join(name)), kept, "{name}");
    }
}

#[test]
fn marks_mean_nothing_elsewhere() {
    let layers = Layers::new(&["up/opaque"]);
    whiteout(layers.at("up/gone"));
    set(layers.at("up/opaque"), OPAQUE, b"y");
    let (_, stream) = packed(&[&layers.at("up")]);
    for options in [UnpackOptions::default(), UnpackOptions::layer()] {
        let arena = Arena::new();
        let report = arena.unpack_with(&stream, &options).unwrap();
        assert_eq!(report.skipped_devices, 1);
        assert!(!arena.has("gone") && !is_opaque(arena.root().join("opaque")));
    }
}

#[test]
fn what_only_the_kernel_may_say_is_refused() {
    let record = |name: &str, value: &[u8]| {
        let key = format!("SCHILY.xattr.{name}");
        Tar::new().pax(&[(key.as_str(), value)])
    };
    let hostile = [
        record("user.overlay.redirect", b"/etc").folder("d", 0o755),
        record("user.overlay.metacopy", b"").file("f", "x"),
        record(OPAQUE, b"y").file("f", "x"),
        record(OPAQUE, b"x").folder("d", 0o755),
        record("user.overlay.whiteout", b"").file("f", ""),
    ];
    for archive in hostile {
        let arena = Arena::new();
        let result = unpack_into(&arena, &archive.end(), None);
        assert!(
            matches!(result, Err(ArchiveError::Hostile { .. })),
            "{result:?}"
        );
    }
    // Those of others than users are left out.
    let arena = Arena::new();
    let archive = record("trusted.overlay.opaque", b"y").folder("d", 0o755);
    unpack_into(&arena, &archive.end(), None).unwrap();
    assert_eq!(get(arena.root().join("d"), "trusted.overlay.opaque"), None);
    // A device that is no whiteout.
    let device = Tar::new().raw(b'3', b"null", b"", 0o666, 0, b"").end();
    let mut real = device.clone();
    real[329..337].copy_from_slice(b"0000001\0");
    real[148..156].fill(b' ');
    let sum: u32 = real[..512].iter().map(|byte| u32::from(*byte)).sum();
    real[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let arena = Arena::new();
    let report = unpack_into(&arena, &real, None).unwrap();
    assert_eq!((report.skipped_devices, report.whiteouts), (1, 0));
    assert!(!arena.has("null"));
    // Cut off.
    assert!(unpack_into(&arena, &device[..600], None).is_err());
}

/// What a runtime that knows OCI layers makes of an image and what was changed over it.
fn over_an_image(image: &Path, layers: &[&Path]) -> (Arena, Vec<u8>) {
    let layers: Vec<Root> = layers
        .iter()
        .map(|path| Root::open(path).unwrap())
        .collect();
    let mut layer = Vec::new();
    pack_overlay(&over(&layers), &mut layer, &PackOptions::layer()).unwrap();
    let mut beneath = Vec::new();
    let image = Root::open(image).unwrap();
    blink_archive::pack(&image, "", &mut beneath, &PackOptions::layer()).unwrap();
    let arena = Arena::new();
    arena.layer(&beneath).unwrap();
    arena.layer(&layer).unwrap();
    (arena, layer)
}

#[test]
fn a_layer_of_an_image_says_what_an_overlay_says() {
    let layers = Layers::new(&[
        "image/folder",
        "image/opaque/deep",
        "image/replaced",
        "1/folder",
        "1/opaque",
        "2/folder",
    ]);
    for name in [
        "image/gone",
        "image/folder/gone",
        "image/folder/kept",
        "image/opaque/deep/hidden",
        "image/replaced/hidden",
        "1/folder/again",
        "1/opaque/shown",
        "2/replaced",
    ] {
        layers.write(name, name);
    }
    whiteout(layers.at("1/gone"));
    whiteout(layers.at("2/folder/gone"));
    whiteout(layers.at("2/folder/again"));
    set(layers.at("1/opaque"), OPAQUE, b"y");
    set(layers.at("1/opaque/shown"), "user.note", b"kept");
    fs::hard_link(layers.at("1/opaque/shown"), layers.at("1/opaque/two")).unwrap();
    fs::set_permissions(layers.at("1/opaque"), Permissions::from_mode(0o1711)).unwrap();

    let paths = [layers.at("1"), layers.at("2")];
    let (arena, layer) = over_an_image(&layers.at("image"), &[&paths[0], &paths[1]]);
    assert!(!arena.has("gone") && !arena.has("folder/gone") && !arena.has("folder/again"));
    assert_eq!(arena.read("folder/kept"), "image/folder/kept");
    assert_eq!(arena.read("opaque/shown"), "1/opaque/shown");
    assert!(!arena.has("opaque/deep"));
    assert_eq!(arena.read("replaced"), "2/replaced");
    let inode = |path: &str| fs::metadata(arena.root().join(path)).unwrap().ino();
    assert_eq!(inode("opaque/shown"), inode("opaque/two"));
    assert_eq!(mode(arena.root().join("opaque")), 0o1711);
    // Other programs read it as it is specified.
    let names: Vec<String> = tar_names(&layer);
    for name in [".wh.gone", "folder/.wh.gone", "opaque/.wh..wh..opq"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    let holds = |text: &[u8]| layer.windows(text.len()).any(|window| window == text);
    assert!(holds(b"SCHILY.xattr.user.note=kept") && !holds(b"user.overlay"));
}

fn tar_names(tar: &[u8]) -> Vec<String> {
    let mut child = std::process::Command::new("tar")
        .arg("-t")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(tar).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_name_that_would_be_a_mark_is_refused_in_a_layer() {
    for name in ["folder/.wh.file", ".wh..wh..opq", ".wh."] {
        let layers = Layers::new(&["up/folder"]);
        layers.write(&format!("up/{name}"), "");
        let root = Root::open(layers.at("up")).unwrap();
        let merged = pack_overlay(&over(&[root]), std::io::sink(), &PackOptions::layer());
        let root = Root::open(layers.at("up")).unwrap();
        let tree = blink_archive::pack(&root, "", std::io::sink(), &PackOptions::layer());
        for result in [merged, tree] {
            let Err(ArchiveError::Unrepresentable { path, .. }) = result else {
                panic!("{name}: {result:?}");
            };
            assert_eq!(path, Path::new(name));
        }
    }
    let layers = Layers::new(&["up/.wh.folder"]);
    let root = Root::open(layers.at("up")).unwrap();
    let merged = pack_overlay(&over(&[root]), std::io::sink(), &PackOptions::layer());
    assert!(matches!(merged, Err(ArchiveError::Unrepresentable { .. })));
}

fn merge(layers: &[PathBuf], into: &Path) {
    let layers: Vec<Root> = layers
        .iter()
        .map(|path| Root::open(path).unwrap())
        .collect();
    merge_overlay(&over(&layers), &Root::open(into).unwrap()).unwrap();
}

/// Makes one of the names in a layer what `what` says, as programs over an overlay may have left it.
fn put(layer: &Path, place: usize, what: usize) {
    let names = ["a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/b/a"];
    let path = layer.join(names[place % names.len()]);
    // A name, or one that it is in, may be something else already.
    let parent = path.parent().unwrap();
    if fs::symlink_metadata(&path).is_ok() || fs::create_dir_all(parent).is_err() {
        return;
    }
    match what % 6 {
        0 => fs::write(&path, path.to_str().unwrap()).unwrap(),
        1 => fs::create_dir(&path).unwrap(),
        2 => {
            fs::create_dir(&path).unwrap();
            set(&path, OPAQUE, b"y");
            fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        }
        3 => symlink("elsewhere", &path).unwrap(),
        _ => whiteout(&path),
    }
}

#[test]
fn layers_made_one_come_to_the_same() {
    let mut state = 0x9e37_79b9_u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize
    };
    for _ in 0..100 {
        let layers = Layers::new(&["0", "1", "2", "3", "4"]);
        let all: Vec<PathBuf> = (0..5)
            .map(|number| layers.at(&number.to_string()))
            .collect();
        for layer in &all {
            for _ in 0..random() % 6 {
                put(layer, random(), random());
            }
        }
        let expected = packed(&all.iter().map(PathBuf::as_path).collect::<Vec<_>>()).1;
        for below in 0..all.len() {
            let merged = layers.at(&format!("merged {below}"));
            fs::create_dir(&merged).unwrap();
            merge(&all[below..], &merged);
            let mut left: Vec<&Path> = all[..below].iter().map(PathBuf::as_path).collect();
            left.push(&merged);
            assert!(packed(&left).1 == expected, "{:?}", layers.folder.keep());
        }
    }
}

#[test]
fn a_merged_layer_shares_files_and_keeps_what_folders_have() {
    let layers = Layers::new(&["low/folder", "up/folder", "merged"]);
    layers.write("low/folder/file", "low");
    layers.write("low/folder/changed", "low");
    layers.write("up/folder/changed", "up");
    whiteout(layers.at("up/gone"));
    set(layers.at("up/folder"), "user.note", b"kept");
    set(layers.at("up/folder"), "user.overlay.origin", b"elsewhere");
    fs::set_permissions(layers.at("up/folder"), Permissions::from_mode(0o1751)).unwrap();
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let folder = File::open(layers.at("up/folder")).unwrap();
    folder.set_modified(then).unwrap();

    merge(&[layers.at("low"), layers.at("up")], &layers.at("merged"));
    let inode = |path: &str| fs::symlink_metadata(layers.at(path)).unwrap().ino();
    assert_eq!(inode("merged/folder/file"), inode("low/folder/file"));
    assert_eq!(inode("merged/folder/changed"), inode("up/folder/changed"));
    assert_eq!(inode("merged/gone"), inode("up/gone"));
    let merged = layers.at("merged/folder");
    assert_eq!(mode(&merged), 0o1751);
    assert_eq!(fs::metadata(&merged).unwrap().modified().unwrap(), then);
    assert_eq!(get(&merged, "user.note").unwrap(), b"kept");
    assert_eq!(get(&merged, "user.overlay.origin"), None);
    assert!(!is_opaque(&merged));
}
