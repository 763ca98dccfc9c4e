//! What is in the store: listed, used, removed, and shown to engines as an OCI layout.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use blink_image::{ImageErrorKind, ImageSource, ImageStore, StoredImage};
use serde_json::{Value, json};

use crate::builder::{self, LayerTar, Layout, StoredLayer, architecture};
use crate::pull::noise;
use crate::support::{Arena, assert_flattened, base, obtain, rootfs_of, upper};

impl Arena {
    /// An image from a folder, in the store.
    fn stored_image(&self, store: &ImageStore, layers: &[StoredLayer]) -> StoredImage {
        let folder = tempfile::tempdir().unwrap();
        Layout::of(folder.path(), layers);
        let source = ImageSource::parse(folder.path().to_str().unwrap()).unwrap();
        obtain(store, &source).unwrap()
    }
}

#[test]
fn an_image_that_a_sandbox_uses_stays() {
    let arena = Arena::new();
    let sandbox = arena.path("sandboxes/a1b2c3");
    fs::create_dir_all(&sandbox).unwrap();
    let store = arena.store().with_users(arena.path("sandboxes"));
    let image = arena.stored_image(
        &store,
        &[StoredLayer::gzip(base()), StoredLayer::gzip(upper())],
    );
    store.claim(&image, &sandbox).unwrap();
    let error = store.remove(&image.digest).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("a1b2c3"), "{error}");
    assert!(store.prune().unwrap().digests.is_empty());
    assert_flattened(&store.rootfs(&image, &|_| {}).unwrap());
    fs::remove_dir_all(&sandbox).unwrap();
    let removed = store.remove(&image.digest[7..19]).unwrap();
    assert_eq!(removed.digests, std::slice::from_ref(&image.digest));
    for folder in ["blobs/sha256", "rootfs", "layouts"] {
        assert_eq!(arena.stored(folder), [""; 0]);
    }
    let error = store.claim(&image, arena.folder.path()).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::NotFound, "{error}");
    for name in ["alpine:3.20", &image.digest, "sha256:12", "x"] {
        let error = store.remove(name).unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_prune_frees_what_it_says() {
    let arena = Arena::new();
    let store = arena.store();
    let image = arena.stored_image(
        &store,
        &[noise(3_000_000), StoredLayer::new(&base().end(), "+zstd")],
    );
    store.rootfs(&image, &|_| {}).unwrap();
    store.layout(&image).unwrap();
    fs::write(
        arena.path("images/downloads").join("0".repeat(64)),
        vec![1; 1_000_000],
    )
    .unwrap();
    fs::create_dir_all(arena.path("images/tmp-left/x")).unwrap();
    let before = usage(&arena.path("images"));
    let removed = store.prune().unwrap();
    let after = usage(&arena.path("images"));
    assert_eq!(removed.digests, [image.digest]);
    // Folders themselves shrink or not, as their file system likes.
    let difference = (before - after).abs_diff(removed.freed_bytes);
    assert!(difference < 100_000, "{before} {after} {removed:?}");
    assert!(removed.freed_bytes > 7_000_000);
    arena.assert_no_leftovers();
    assert!(store.list().unwrap().is_empty());
}

/// Bytes of disk, what has several names counted once.
fn usage(folder: &Path) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let mut folders = vec![folder.to_path_buf()];
    let mut sum = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if seen.insert(metadata.ino()) {
                sum += metadata.blocks() * 512;
            }
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    sum
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// What gzip makes of two pieces that were compressed apart, as lazily pulled images are made.
fn of_two_members(tar: &[u8]) -> StoredLayer {
    let (one, two) = tar.split_at(700);
    let members = [one, two].map(|piece| StoredLayer::new(piece, "+gzip").stored);
    let stored = members.concat();
    StoredLayer {
        digest: builder::digest(&stored),
        size: stored.len(),
        stored,
        ..StoredLayer::new(tar, "+gzip")
    }
}

#[test]
fn a_layout_holds_what_simple_readers_read() {
    let arena = Arena::new();
    let store = arena.store();
    let layers = [
        StoredLayer::new(&base().end(), "+zstd"),
        of_two_members(&upper().end()),
        StoredLayer::gzip(LayerTar::new().file("a", "a")),
        StoredLayer::new(&LayerTar::new().file("b", "b").end(), ""),
        StoredLayer::gzip(LayerTar::new().file("a", "a")),
    ];
    let image = arena.stored_image(&store, &layers);
    let path = store.layout(&image).unwrap();
    assert_eq!(store.layout(&image).unwrap(), path);
    assert_eq!(
        json_of(&path.join("oci-layout"))["imageLayoutVersion"],
        "1.0.0"
    );
    let blob = |digest: &Value| {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        let path = path.join("blobs/sha256").join(hex);
        let content = fs::read(&path).unwrap();
        assert_eq!(builder::digest(&content), digest.as_str().unwrap());
        (path, content)
    };
    let index = json_of(&path.join("index.json"));
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        entries[0]["platform"],
        json!({ "os": "linux", "architecture": architecture() })
    );
    let (_, manifest) = blob(&entries[0]["digest"]);
    assert_eq!(entries[0]["size"], manifest.len());
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let (_, config) = blob(&manifest["config"]["digest"]);
    let config: Value = serde_json::from_slice(&config).unwrap();
    let found = manifest["layers"].as_array().unwrap();
    assert_eq!(found.len(), layers.len());
    for (index, (entry, layer)) in found.iter().zip(&layers).enumerate() {
        let (path, content) = blob(&entry["digest"]);
        assert_eq!(entry["size"], content.len());
        let suffix = if content.starts_with(&[0x1f, 0x8b]) {
            "+gzip"
        } else {
            ""
        };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        assert_eq!(entry["mediaType"], media_type);
        let is_rewritten = index < 2;
        assert_eq!(
            is_rewritten,
            entry["digest"] != layer.digest.as_str(),
            "layer {index}"
        );
        assert_eq!(config["rootfs"]["diff_ids"][index], layer.diff_id);
        if is_rewritten {
            assert_eq!(builder::digest(&content), layer.diff_id);
        } else {
            // Kept once on the disk.
            assert!(fs::metadata(path).unwrap().nlink() > 1);
        }
    }
    // It is a layout like any other.
    let again = ImageSource::parse(path.to_str().unwrap()).unwrap();
    assert_flattened(&rootfs_of(&store, &again, &|_| {}).unwrap());
    arena.assert_no_leftovers();
}

#[test]
fn a_layout_of_an_image_that_lies_is_not_made() {
    let arena = Arena::new();
    let store = arena.store();
    for suffix in ["", "+gzip", "+zstd"] {
        let mut layer = StoredLayer::new(&base().end(), suffix);
        layer.diff_id = builder::digest(b"something else");
        let image = arena.stored_image(&store, &[layer]);
        let error = store.layout(&image).unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("layer 1 of 1"), "{error}");
    }
    assert_eq!(arena.stored("layouts"), [""; 0]);
    arena.assert_no_leftovers();
}

/// An archive as `docker save` wrote it for ten years; `config` is the name of its configuration.
fn docker_save(to: &Path, layers: &[(&str, StoredLayer)], config: Option<&str>, tags: &[&str]) {
    let diff_ids: Vec<_> = layers.iter().map(|(_, layer)| &layer.diff_id).collect();
    let content = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/bin:/bin", "A=1"],
            "Entrypoint": ["/bin/run"],
            "Cmd": ["--help"],
            "WorkingDir": "/work",
            "User": "1000:1000",
            "Labels": { "made.by": "test" },
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string();
    let own_name = format!("{}.json", &builder::digest(content.as_bytes())[7..]);
    let config = config.unwrap_or(&own_name);
    let names: Vec<_> = layers.iter().map(|(name, _)| name).collect();
    let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": names }]);
    let mut tar = LayerTar::new()
        .file(config, &content)
        .file("manifest.json", &manifest.to_string())
        .file("repositories", "{}");
    for (name, layer) in layers {
        tar = tar.file_with(name, 0o644, 0, &layer.stored);
    }
    fs::write(to, tar.end()).unwrap();
}

#[test]
fn archives_of_docker_save() {
    let arena = Arena::new();
    let path = arena.path("image.tar");
    let plain = |tar: LayerTar| StoredLayer::new(&tar.end(), "");
    let layers = [
        ("one/layer.tar", plain(base())),
        ("two/layer.tar", plain(upper())),
    ];
    docker_save(&path, &layers, None, &["team/app:v1", "team/app:latest"]);
    assert_flattened(&arena.rootfs("image.tar").unwrap());
    assert_flattened(&arena.rootfs("image.tar:v1").unwrap());
    assert_flattened(&arena.rootfs("image.tar:team/app:v1").unwrap());
    arena.refused_again(
        "image.tar:v2",
        ImageErrorKind::NotFound,
        &["v2", "team/app:v1"],
    );
    // What it calls itself is not what others mean by that.
    assert!(
        arena
            .store()
            .list()
            .unwrap()
            .iter()
            .all(|image| image.reference.is_none())
    );
    // As other tools write it: compressed layers, names of any kind.
    let layers = [
        ("blobs/sha256/x", StoredLayer::gzip(base())),
        ("y.tar", StoredLayer::new(&upper().end(), "+zstd")),
    ];
    docker_save(&path, &layers, Some("config"), &[]);
    assert_flattened(&arena.rootfs("image.tar").unwrap());
}

#[test]
fn archives_of_docker_save_that_are_damaged_or_hostile() {
    let arena = Arena::new();
    let path = arena.path("image.tar");
    let layer = StoredLayer::new(&base().end(), "");
    let of = |name: &'static str| [(name, layer.clone())];
    docker_save(
        &path,
        &of("l.tar"),
        Some(&format!("{}.json", "0".repeat(64))),
        &[],
    );
    arena.refused("image.tar", ImageErrorKind::Corrupt, &["damaged", "0000"]);
    let mut lying = layer.clone();
    lying.diff_id = builder::digest(b"other");
    docker_save(&path, &[("l.tar", lying)], None, &[]);
    arena.refused("image.tar", ImageErrorKind::Corrupt, &["layer 1 of 1"]);
    for (manifest, kind, names) in [
        (json!([]), ImageErrorKind::NotFound, "no image"),
        (json!({}), ImageErrorKind::Corrupt, "manifest.json"),
        (
            json!([{ "Config": "../../canary", "Layers": [] }]),
            ImageErrorKind::Corrupt,
            "canary",
        ),
        (
            json!([{ "Config": "/etc/passwd", "Layers": [] }]),
            ImageErrorKind::Corrupt,
            "passwd",
        ),
        (
            json!([{ "Config": "missing", "Layers": [] }]),
            ImageErrorKind::Corrupt,
            "missing",
        ),
        (
            json!([{ "Config": "folder", "Layers": [] }]),
            ImageErrorKind::Corrupt,
            "folder",
        ),
        (
            json!([{ "Config": "link", "Layers": [] }]),
            ImageErrorKind::Corrupt,
            "link",
        ),
    ] {
        let tar = LayerTar::new()
            .file("manifest.json", &manifest.to_string())
            .folder("folder/", 0o755)
            .symlink("link", arena.path("canary").to_str().unwrap());
        fs::write(&path, tar.end()).unwrap();
        arena.refused("image.tar", kind, &[names]);
    }
}

impl Arena {
    /// Expects a refusal, where other images were unpacked before.
    fn refused_again(&self, source: &str, kind: ImageErrorKind, names: &[&str]) {
        let error = self.rootfs(source).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        for name in names {
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[test]
fn a_list_that_is_damaged_loses_nothing() {
    let arena = Arena::new();
    let store = arena.store();
    arena.stored_image(&store, &[noise(1000)]);
    let before = arena.stored("blobs/sha256").len();
    fs::write(arena.path("images/images.json"), "{").unwrap();
    for error in [store.list().unwrap_err(), store.prune().unwrap_err()] {
        assert_eq!(error.kind(), ImageErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("images.json"), "{error}");
    }
    assert_eq!(arena.stored("blobs/sha256").len(), before);
}
