//! What the tests of images share.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use blink_image::{
    IdMap, ImageError, ImageErrorKind, ImageSource, ImageStore, PullOptions, PullProgress, Rootfs,
    StoredImage,
};
use tempfile::TempDir;

use crate::builder::{LayerTar, Layout, StoredLayer};

pub(crate) const SINGLE: IdMap = IdMap {
    uid_base: 0,
    single: true,
};

pub(crate) struct Arena {
    pub(crate) folder: TempDir,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("canary"), "alive").unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn layout(&self, layers: &[StoredLayer]) -> Layout {
        Layout::of(self.path("layout"), layers)
    }

    pub(crate) fn store(&self) -> ImageStore {
        ImageStore::open(self.path("images"), SINGLE).unwrap()
    }

    pub(crate) fn rootfs(&self, source: &str) -> Result<Rootfs, ImageError> {
        let source = ImageSource::parse(&self.path(source).to_string_lossy())?;
        let result = rootfs_of(&self.store(), &source, &|_| {});
        assert_eq!(fs::read(self.path("canary")).unwrap(), b"alive");
        self.assert_no_leftovers();
        result
    }

    /// Nothing is under construction, and what is unpacked is whole.
    pub(crate) fn assert_no_leftovers(&self) {
        for name in self.stored("") {
            assert!(!name.starts_with("tmp-"), "{name}");
        }
        assert_eq!(self.stored("downloads"), [""; 0]);
        for name in self.stored("rootfs") {
            let folder = self.path("images/rootfs").join(name);
            assert!(folder.join("rootfs").is_dir() && folder.join("image.json").is_file());
        }
    }

    /// The names in a folder of the store.
    pub(crate) fn stored(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("images").join(folder)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Expects a refusal that names what is at fault, and nothing left.
    pub(crate) fn refused(&self, source: &str, kind: ImageErrorKind, names: &[&str]) {
        let error = self.rootfs(source).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), kind, "{message}");
        for name in names {
            assert!(message.contains(name), "'{name}' is not in: {message}");
        }
        assert!(!message.contains("images/tmp-"), "{message}");
        assert_eq!(self.stored("rootfs"), [""; 0], "{message}");
    }
}

/// Brings an image into a store.
pub(crate) fn obtain(store: &ImageStore, source: &ImageSource) -> Result<StoredImage, ImageError> {
    runtime().block_on(store.obtain(source, &PullOptions::default(), &|_| {}))
}

/// Brings an image into a store and unpacks it.
pub(crate) fn rootfs_of(
    store: &ImageStore,
    source: &ImageSource,
    progress: &dyn Fn(PullProgress),
) -> Result<Rootfs, ImageError> {
    store.rootfs(&obtain(store, source)?, progress)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub(crate) fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

pub(crate) fn base() -> LayerTar {
    LayerTar::new()
        .folder("./", 0o755)
        .folder("usr/", 0o755)
        .folder("usr/bin/", 0o555)
        .file_with("usr/bin/sh", 0o755, 0, b"#!sh")
        .file_with("usr/bin/su", 0o4755, 0, b"su")
        .hard_link("usr/bin/ash", "usr/bin/sh")
        .symlink("bin", "usr/bin")
        .folder("etc/", 0o755)
        .file("etc/old", "old")
        .file("etc/removed", "x")
        .folder("cache/", 0o755)
        .file("cache/low", "low")
}

pub(crate) fn upper() -> LayerTar {
    LayerTar::new()
        .file("bin/new", "new")
        .file("etc/old", "newer")
        .file("etc/.wh.removed", "")
        .file("cache/up", "up")
        .file("cache/.wh..wh..opq", "")
}

pub(crate) fn assert_flattened(rootfs: &Rootfs) {
    let read = |path: &str| fs::read_to_string(rootfs.path.join(path)).unwrap();
    let ino = |path: &str| fs::metadata(rootfs.path.join(path)).unwrap().ino();
    assert_eq!(read("usr/bin/new"), "new");
    assert_eq!(read("etc/old"), "newer");
    assert!(!rootfs.path.join("etc/removed").exists());
    assert!(!rootfs.path.join("cache/low").exists());
    assert_eq!(read("cache/up"), "up");
    assert_eq!(ino("usr/bin/sh"), ino("usr/bin/ash"));
    assert_eq!(mode(rootfs.path.join("usr/bin")), 0o555);
    assert_eq!(mode(rootfs.path.join("usr/bin/su")), 0o4755);
    assert_eq!(
        fs::metadata(rootfs.path.join("usr/bin/sh"))
            .unwrap()
            .mtime(),
        1_000_000_000
    );
    assert_eq!(rootfs.config.env, ["PATH=/usr/bin:/bin", "A=1"]);
    assert_eq!(rootfs.config.entrypoint, ["/bin/run"]);
    assert_eq!(rootfs.config.cmd, ["--help"]);
    assert_eq!(rootfs.config.workdir.as_deref(), Some("/work"));
    assert_eq!(rootfs.config.user.as_deref(), Some("1000:1000"));
    assert_eq!(rootfs.config.labels["made.by"], "test");
}
