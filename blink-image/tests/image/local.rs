//! Images from layouts and archives into the store: whole, damaged and hostile.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use blink_archive::Limits;
use blink_image::{
    IdMap, ImageError, ImageErrorKind, ImageSource, ImageStore, PullProgress, Rootfs,
};
use serde_json::json;

use crate::builder::{self, LayerTar, Layout, StoredLayer, architecture, for_platform, named};
use crate::support::{Arena, SINGLE, assert_flattened, base, mode, obtain, rootfs_of, upper};

#[test]
fn layers_of_every_compression_are_flattened() {
    for suffix in ["", "+gzip", "+zstd"] {
        let arena = Arena::new();
        arena.layout(&[
            StoredLayer::new(&base().end(), suffix),
            StoredLayer::new(&upper().end(), suffix),
        ]);
        let rootfs = arena.rootfs("layout").unwrap();
        assert_flattened(&rootfs);
        assert_eq!(mode(arena.path("images")), 0o700);
    }
}

#[test]
fn once_stored_the_blobs_are_not_needed() {
    let arena = Arena::new();
    let layer = StoredLayer::gzip(base());
    let layout = arena.layout(std::slice::from_ref(&layer));
    let first = arena.rootfs("layout").unwrap();
    fs::remove_file(layout.blob_path(&layer.digest)).unwrap();
    assert_eq!(arena.rootfs("layout").unwrap(), first);
    let store = arena.store();
    let stored = store.get(&first.digest).unwrap().unwrap();
    assert_eq!(
        (&stored.digest, &stored.config),
        (&first.digest, &first.config)
    );
    assert_eq!(stored.reference, None);
    assert_eq!(store.get(&builder::digest(b"other")).unwrap(), None);
    assert_eq!(
        store.get("../x").unwrap_err().kind(),
        ImageErrorKind::InvalidArgument
    );
}

#[test]
fn progress_counts_stored_bytes_and_layers() {
    let arena = Arena::new();
    let noise: Vec<u8> = (0..3_000_000u32)
        .map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[2])
        .collect();
    let big = LayerTar::new().file_with("big", 0o644, 0, &noise);
    let layers = [StoredLayer::new(&big.end(), ""), StoredLayer::gzip(upper())];
    arena.layout(&layers);
    let total = (layers[0].size + layers[1].size) as u64;
    let told = RefCell::new(Vec::<PullProgress>::new());
    let source = ImageSource::parse(arena.path("layout").to_str().unwrap()).unwrap();
    rootfs_of(&arena.store(), &source, &|progress| {
        told.borrow_mut().push(progress);
    })
    .unwrap();
    let told = told.into_inner();
    assert!(told.len() >= 5, "{told:?}");
    assert!(
        told.windows(2)
            .all(|pair| pair[0].bytes_done <= pair[1].bytes_done && pair[0].layer <= pair[1].layer)
    );
    assert!(
        told.iter()
            .all(|progress| progress.bytes_total == total && progress.layers == 2)
    );
    assert_eq!(told.last().unwrap().bytes_done, total);
}

#[test]
fn an_archive_of_a_layout() {
    let arena = Arena::new();
    arena
        .layout(&[StoredLayer::gzip(base()), StoredLayer::gzip(upper())])
        .archive(&arena.path("image.tar"));
    assert_flattened(&arena.rootfs("image.tar").unwrap());
    // The second time, the archive is known.
    assert_eq!(arena.stored("seen").len(), 1);
    assert_flattened(&arena.rootfs("image.tar").unwrap());
    // Another archive in its place is seen to be another.
    fs::remove_dir_all(arena.path("layout")).unwrap();
    arena
        .layout(&[StoredLayer::gzip(LayerTar::new().file("other", "1"))])
        .archive(&arena.path("image.tar"));
    assert!(
        arena
            .rootfs("image.tar")
            .unwrap()
            .path
            .join("other")
            .exists()
    );
}

#[test]
fn a_compressed_archive() {
    let arena = Arena::new();
    arena
        .layout(&[StoredLayer::gzip(base()), StoredLayer::gzip(upper())])
        .archive(&arena.path("image.tar"));
    let tar = fs::read(arena.path("image.tar")).unwrap();
    fs::write(
        arena.path("image.tar"),
        zstd::encode_all(tar.as_slice(), 1).unwrap(),
    )
    .unwrap();
    assert_flattened(&arena.rootfs("image.tar").unwrap());
}

#[test]
fn hostile_and_damaged_archives() {
    let arena = Arena::new();
    let hostile = LayerTar::new()
        .file("oci-layout", "{}")
        .file("../../../canary", "dead")
        .end();
    fs::write(arena.path("image.tar"), hostile).unwrap();
    arena.refused(
        "image.tar",
        ImageErrorKind::Corrupt,
        &["image.tar", "../../../canary"],
    );
    fs::write(arena.path("image.tar"), "no tar at all").unwrap();
    arena.refused("image.tar", ImageErrorKind::Corrupt, &["image.tar"]);
    // A link out of the layout to something of the host's.
    let link = LayerTar::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .symlink("index.json", arena.path("canary").to_str().unwrap())
        .end();
    fs::write(arena.path("image.tar"), link).unwrap();
    let error = arena.rootfs("image.tar").unwrap_err();
    assert!(!error.to_string().contains("alive"), "{error}");
    fs::write(
        arena.path("image.tar"),
        LayerTar::new().file("readme", "").end(),
    )
    .unwrap();
    arena.refused(
        "image.tar",
        ImageErrorKind::Corrupt,
        &["image.tar", "oci-layout"],
    );
}

#[test]
fn a_wrong_digest() {
    let arena = Arena::new();
    let mut layer = StoredLayer::gzip(base());
    let honest = layer.digest.clone();
    let last = layer.stored.len() - 1;
    layer.stored[last] ^= 1;
    arena.layout(&[StoredLayer::gzip(upper()), layer]);
    arena.refused(
        "layout",
        ImageErrorKind::Corrupt,
        &["layer 2 of 2", &honest, "damaged"],
    );
}

#[test]
fn a_wrong_size() {
    for size in [1, 1 << 30] {
        let arena = Arena::new();
        let mut layer = StoredLayer::gzip(base());
        layer.size = size;
        arena.layout(&[layer.clone()]);
        arena.refused(
            "layout",
            ImageErrorKind::Corrupt,
            &["layer 1 of 1", &layer.digest, &size.to_string()],
        );
    }
}

#[test]
fn a_wrong_diff_id() {
    let arena = Arena::new();
    let mut layer = StoredLayer::gzip(base());
    layer.diff_id = builder::digest(b"something else");
    arena.layout(&[layer.clone()]);
    arena.refused(
        "layout",
        ImageErrorKind::Corrupt,
        &["layer 1 of 1", &layer.diff_id],
    );
}

#[test]
fn a_layer_that_leads_upwards() {
    let arena = Arena::new();
    arena.layout(&[StoredLayer::gzip(
        LayerTar::new().file("../../../canary", "dead"),
    )]);
    arena.refused(
        "layout",
        ImageErrorKind::Corrupt,
        &["layer 1 of 1", "../../../canary"],
    );
}

#[test]
fn a_truncated_layer() {
    for suffix in ["", "+gzip", "+zstd"] {
        let arena = Arena::new();
        let whole = StoredLayer::new(&base().end(), suffix);
        // Truncated where it is kept.
        let mut layer = whole.clone();
        layer.stored.truncate(layer.stored.len() / 2);
        arena.layout(&[layer]);
        arena.refused(
            "layout",
            ImageErrorKind::Corrupt,
            &["layer 1 of 1", &whole.digest],
        );
        // Truncated by its maker, with every digest of the stored bytes right.
        let arena = Arena::new();
        let mut layer = whole;
        layer.stored.truncate(layer.stored.len() / 2);
        layer.size = layer.stored.len();
        layer.digest = builder::digest(&layer.stored);
        arena.layout(&[layer.clone()]);
        arena.refused(
            "layout",
            ImageErrorKind::Corrupt,
            &["layer 1 of 1", &layer.digest],
        );
    }
}

#[test]
fn an_image_for_other_machines() {
    let arena = Arena::new();
    let layout = Layout::new(arena.path("layout"));
    let layer = StoredLayer::gzip(base());
    let other = for_platform(
        layout.image(std::slice::from_ref(&layer), "riscv64"),
        "riscv64",
    );
    layout.index(&[layout.nested_index(std::slice::from_ref(&other))]);
    arena.refused(
        "layout",
        ImageErrorKind::Unsupported,
        &["linux/riscv64", architecture()],
    );
    layout.index(std::slice::from_ref(&other));
    arena.refused(
        "layout",
        ImageErrorKind::Unsupported,
        &["linux/riscv64", architecture()],
    );
    // The index may say nothing of it; the configuration does.
    layout.index(&[layout.image(&[layer], "riscv64")]);
    arena.refused(
        "layout",
        ImageErrorKind::Unsupported,
        &["linux/riscv64", architecture()],
    );
}

#[test]
fn the_right_one_of_several_machines_and_names() {
    let arena = Arena::new();
    let layout = Layout::new(arena.path("layout"));
    let other = layout.image(
        &[StoredLayer::gzip(LayerTar::new().file("other", ""))],
        "riscv64",
    );
    let image = |name: &str| {
        let image = layout.image(
            &[StoredLayer::gzip(LayerTar::new().file(name, ""))],
            architecture(),
        );
        layout.nested_index(&[
            for_platform(other.clone(), "riscv64"),
            for_platform(image, architecture()),
        ])
    };
    layout.index(&[
        named(image("one"), "v1"),
        named(image("two"), "registry.example/app:v2"),
    ]);
    assert!(arena.rootfs("layout:v1").unwrap().path.join("one").exists());
    assert!(arena.rootfs("layout:v2").unwrap().path.join("two").exists());
    let arena_error = |source: &str| arena.rootfs(source).unwrap_err();
    let error = arena_error("layout");
    assert_eq!(error.kind(), ImageErrorKind::InvalidArgument);
    assert!(
        error.to_string().contains("v1") && error.to_string().contains("registry.example/app:v2"),
        "{error}"
    );
    let error = arena_error("layout:v3");
    assert_eq!(error.kind(), ImageErrorKind::NotFound);
    assert!(
        error.to_string().contains("v3") && error.to_string().contains("v1"),
        "{error}"
    );
}

#[test]
fn missing_parts() {
    let arena = Arena::new();
    let layer = StoredLayer::gzip(base());
    let layout = arena.layout(std::slice::from_ref(&layer));
    let path = layout.blob_path(&layer.digest);
    fs::remove_file(&path).unwrap();
    arena.refused(
        "layout",
        ImageErrorKind::Corrupt,
        &[layer.digest.strip_prefix("sha256:").unwrap(), "missing"],
    );
    // What is there may not be a file.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    arena.refused("layout", ImageErrorKind::Corrupt, &["is not a file"]);
    fs::remove_file(layout.path.join("index.json")).unwrap();
    arena.refused(
        "layout",
        ImageErrorKind::Corrupt,
        &["index.json", "missing"],
    );
    fs::write(layout.path.join("index.json"), "{").unwrap();
    arena.refused("layout", ImageErrorKind::Corrupt, &["index.json"]);
    layout.index(&[]);
    arena.refused("layout", ImageErrorKind::NotFound, &["layout"]);
}

#[test]
fn a_manifest_of_a_hundred_megabytes() {
    let arena = Arena::new();
    let layout = Layout::new(arena.path("layout"));
    let mut manifest = layout.blob("application/vnd.oci.image.manifest.v1+json", b"{}");
    let path = layout.blob_path(manifest["digest"].as_str().unwrap());
    fs::File::create(path).unwrap().set_len(100 << 20).unwrap();
    manifest["size"] = json!(100 << 20);
    layout.index(std::slice::from_ref(&manifest));
    arena.refused(
        "layout",
        ImageErrorKind::Corrupt,
        &[manifest["digest"].as_str().unwrap(), "manifest"],
    );
    // Also where its size is stated as small.
    let mut lying = manifest;
    lying["size"] = json!(100);
    layout.index(&[lying]);
    arena.refused("layout", ImageErrorKind::Corrupt, &["manifest", "100"]);
    fs::write(layout.path.join("index.json"), vec![b' '; 100 << 20]).unwrap();
    arena.refused("layout", ImageErrorKind::Corrupt, &["index.json"]);
}

#[test]
fn a_manifest_that_was_changed() {
    let arena = Arena::new();
    let layout = Layout::new(arena.path("layout"));
    let manifest = layout.image(&[StoredLayer::gzip(base())], architecture());
    let path = layout.blob_path(manifest["digest"].as_str().unwrap());
    let changed = fs::read_to_string(&path)
        .unwrap()
        .replace("layers", "Layers");
    fs::write(path, changed).unwrap();
    layout.index(&[manifest]);
    arena.refused("layout", ImageErrorKind::Corrupt, &["manifest", "damaged"]);
}

#[test]
fn unknown_kinds() {
    let arena = Arena::new();
    let mut layer = StoredLayer::gzip(base());
    layer.media_type = "application/vnd.example.layer".into();
    let layout = arena.layout(&[layer]);
    arena.refused(
        "layout",
        ImageErrorKind::Unsupported,
        &["layer 1", "application/vnd.example.layer"],
    );
    fs::write(
        layout.path.join("oci-layout"),
        r#"{"imageLayoutVersion":"2.0.0"}"#,
    )
    .unwrap();
    arena.refused("layout", ImageErrorKind::Unsupported, &["2.0.0"]);
    let mut manifest = layout.image(&[StoredLayer::gzip(base())], architecture());
    manifest["digest"] = json!("sha512:".to_owned() + &"0".repeat(128));
    fs::write(
        layout.path.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    layout.index(&[manifest]);
    arena.refused("layout", ImageErrorKind::Unsupported, &["sha256"]);
}

#[test]
fn bombs_are_stopped() {
    let arena = Arena::new();
    let zeros = vec![0; 8 << 20];
    arena.layout(&[
        StoredLayer::gzip(LayerTar::new().file_with("a", 0o644, 0, &zeros)),
        StoredLayer::gzip(LayerTar::new().file_with("b", 0o644, 0, &zeros)),
    ]);
    let source = ImageSource::parse(arena.path("layout").to_str().unwrap()).unwrap();
    // Each layer fits; the image does not.
    let store = arena
        .store()
        .with_limits(Limits::default().with_total_bytes(12 << 20));
    let error = rootfs_of(&store, &source, &|_| {}).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ResourceExhausted);
    assert!(error.to_string().contains("layer 2 of 2"), "{error}");
    arena.assert_no_leftovers();
    let store = arena.store().with_limits(Limits::default().with_entries(1));
    assert_eq!(
        rootfs_of(&store, &source, &|_| {}).unwrap_err().kind(),
        ImageErrorKind::ResourceExhausted
    );
    arena.rootfs("layout").unwrap();
}

/// Not a test by itself: runs where the store is on a small disk of its own.
#[test]
fn helper_on_a_full_disk() {
    let Ok(home) = std::env::var("BLINK_TEST_FULL_DISK") else {
        return;
    };
    let images = Path::new(&home).join("images");
    let source = ImageSource::parse(&format!("{home}/layout")).unwrap();
    let store = ImageStore::open(&images, SINGLE).unwrap();
    let error = rootfs_of(&store, &source, &|_| {}).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("disk is full"), "{error}");
    for folder in ["downloads", "rootfs", "layouts"] {
        assert_eq!(fs::read_dir(images.join(folder)).unwrap().count(), 0);
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let arena = Arena::new();
    let noise = vec![7; 4 << 20];
    arena.layout(&[StoredLayer::gzip(
        LayerTar::new().file_with("a", 0o644, 0, &noise),
    )]);
    fs::create_dir(arena.path("images")).unwrap();
    // In a mount namespace of its own, so that nothing stays mounted.
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--map-root-user", "sh", "-ec"])
            .args(arguments);
        command.env("BLINK_TEST_FULL_DISK", arena.folder.path());
        command
    };
    if !unshare(&["true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: this machine allows no user namespaces");
        return;
    }
    let script = r#"mount -t tmpfs -o size=1m tmpfs "$BLINK_TEST_FULL_DISK/images"
        exec "$0" local::helper_on_a_full_disk --exact"#;
    let program = std::env::current_exe().unwrap();
    let output = unshare(&[script, program.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn leftovers_of_a_crash_are_swept() {
    let arena = Arena::new();
    let left = arena.path("images/tmp-crashed/image/rootfs");
    fs::create_dir_all(left.join("closed/inner")).unwrap();
    fs::set_permissions(left.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    arena.layout(&[StoredLayer::gzip(base())]);
    arena.rootfs("layout").unwrap();
    assert!(!arena.path("images/tmp-crashed").exists());
}

#[test]
fn two_threads_at_once_unpack_once() {
    let arena = Arena::new();
    arena.layout(&[StoredLayer::gzip(base()), StoredLayer::gzip(upper())]);
    let source = ImageSource::parse(arena.path("layout").to_str().unwrap()).unwrap();
    let unpacked = std::sync::atomic::AtomicUsize::new(0);
    let all: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            // A store of its own, as another process would have, which sweeps too.
            let rootfs = rootfs_of(&arena.store(), &source, &|progress| {
                if progress.bytes_done == progress.bytes_total {
                    unpacked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
            rootfs.unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(all.iter().all(|rootfs| *rootfs == all[0]));
    assert_eq!(unpacked.into_inner(), 1);
    assert_flattened(&all[0]);
    arena.assert_no_leftovers();
}

/// Not a test by itself: what the tests below run as another process.
#[test]
fn helper_process() {
    let Ok(home) = std::env::var("BLINK_TEST_IMAGE_HOME") else {
        return;
    };
    let home = PathBuf::from(home);
    let store = ImageStore::open(home.join("images"), SINGLE).unwrap();
    let source = ImageSource::parse(home.join("layout").to_str().unwrap()).unwrap();
    let stop = std::env::var("BLINK_TEST_STOP_AT")
        .ok()
        .map(|at| at.parse::<usize>().unwrap());
    let told = std::cell::Cell::new(0);
    let rootfs = rootfs_of(&store, &source, &|_| {
        told.set(told.get() + 1);
        if Some(told.get()) == stop {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
    })
    .unwrap();
    assert_flattened(&rootfs);
}

fn helper(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["local::helper_process", "--exact"])
        .env("BLINK_TEST_IMAGE_HOME", home);
    command
}

#[test]
fn two_processes_at_once() {
    let arena = Arena::new();
    arena.layout(&[StoredLayer::gzip(base()), StoredLayer::gzip(upper())]);
    let program = std::env::current_exe().unwrap();
    let processes: Vec<_> = (0..4)
        .map(|_| helper(&program, arena.folder.path()).spawn().unwrap())
        .collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    arena.assert_no_leftovers();
    assert_flattened(&arena.rootfs("layout").unwrap());
}

#[test]
fn a_process_killed_at_any_step_leaves_old_or_new() {
    for step in 1..=3 {
        let arena = Arena::new();
        arena.layout(&[StoredLayer::gzip(base()), StoredLayer::gzip(upper())]);
        let program = std::env::current_exe().unwrap();
        let status = helper(&program, arena.folder.path())
            .env("BLINK_TEST_STOP_AT", step.to_string())
            .status();
        assert!(!status.unwrap().success());
        assert_eq!(arena.stored("rootfs"), [""; 0]);
        assert!(arena.stored("").iter().any(|name| name.starts_with("tmp-")));
        assert_flattened(&arena.rootfs("layout").unwrap());
    }
}

#[test]
fn an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test is this one.
        return;
    }
    let arena = Arena::new();
    arena.layout(&[StoredLayer::gzip(base()), StoredLayer::gzip(upper())]);
    fs::create_dir(arena.path("images")).unwrap();
    std::os::unix::fs::chown(arena.path("images"), Some(65534), Some(65534)).unwrap();
    fs::set_permissions(arena.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = arena.path("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut run = Command::new("setpriv");
    run.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&program)
        .args(["local::helper_process", "--exact"]);
    run.env("BLINK_TEST_IMAGE_HOME", arena.folder.path());
    let output = run.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let image = &arena.stored("rootfs")[0];
    let rootfs = arena.path("images/rootfs").join(image).join("rootfs");
    assert_eq!(
        fs::metadata(rootfs.join("usr/bin/sh")).unwrap().uid(),
        65534
    );
    assert_eq!(mode(rootfs.join("usr/bin")), 0o555);
}

#[test]
fn owners_are_mapped_for_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: changing owners needs root");
        return;
    }
    let arena = Arena::new();
    arena.layout(&[StoredLayer::gzip(
        LayerTar::new().file_with("d/a", 0o4755, 1000, b""),
    )]);
    let mapped = IdMap {
        uid_base: 200_000,
        single: false,
    };
    let store = ImageStore::open(arena.path("images"), mapped).unwrap();
    let source = ImageSource::parse(arena.path("layout").to_str().unwrap()).unwrap();
    let rootfs = rootfs_of(&store, &source, &|_| {}).unwrap();
    let owner = |path: &str| {
        let metadata = fs::metadata(rootfs.path.join(path)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner(""), (200_000, 200_000));
    assert_eq!(owner("d"), (200_000, 200_000));
    assert_eq!(owner("d/a"), (201_000, 201_000));
    assert_eq!(mode(rootfs.path.join("d/a")), 0o4755);
    assert_eq!(mode(arena.path("images")), 0o711);
    assert_eq!(mode(arena.path("images/rootfs")), 0o711);
    for private in ["blobs", "downloads", "layouts", "seen"] {
        assert_eq!(mode(arena.path("images").join(private)), 0o700);
    }
    assert_eq!(mode(arena.path("images/images.json")), 0o600);

    let other = Arena::new();
    other.layout(&[StoredLayer::gzip(
        LayerTar::new().file_with("a", 0o644, 65_536, b""),
    )]);
    let store = ImageStore::open(other.path("images"), mapped).unwrap();
    let source = ImageSource::parse(other.path("layout").to_str().unwrap()).unwrap();
    let rootfs = rootfs_of(&store, &source, &|_| {}).unwrap();
    // Who is beyond the range is nobody in it.
    let found = fs::metadata(rootfs.path.join("a")).unwrap();
    assert_eq!((found.uid(), found.gid()), (265_534, 265_534));
}

#[test]
fn what_is_not_in_a_store() {
    let store = Arena::new().store();
    let error = obtain(&store, &ImageSource::Host).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::InvalidArgument);
}

#[test]
fn the_store_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<ImageStore>();
    shared::<ImageSource>();
    shared::<ImageError>();
    shared::<Rootfs>();
}
