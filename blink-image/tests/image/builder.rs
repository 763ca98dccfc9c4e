//! Images in OCI layout, written by the tests themselves, whole or damaged.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) fn digest(content: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(content).into();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    }
}

/// A layer's tar under construction.
pub(crate) struct LayerTar(tar::Builder<Vec<u8>>);

impl LayerTar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(
        mut self,
        kind: tar::EntryType,
        path: &str,
        link: &str,
        mode: u32,
        owner: u64,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        // Written directly, as the library refuses hostile paths.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_link_name_literal(link).unwrap();
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(content.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.entry(
            tar::EntryType::Regular,
            path,
            "",
            0o644,
            0,
            content.as_bytes(),
        )
    }

    pub(crate) fn file_with(self, path: &str, mode: u32, owner: u64, content: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, path, "", mode, owner, content)
    }

    pub(crate) fn folder(self, path: &str, mode: u32) -> Self {
        self.entry(tar::EntryType::Directory, path, "", mode, 0, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, target, 0o777, 0, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, target, 0o644, 0, b"")
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A layer as it is stored: what to change to damage it.
#[derive(Clone)]
pub(crate) struct StoredLayer {
    pub(crate) media_type: String,
    pub(crate) stored: Vec<u8>,
    pub(crate) digest: String,
    pub(crate) size: usize,
    pub(crate) diff_id: String,
}

impl StoredLayer {
    pub(crate) fn new(tar: &[u8], suffix: &str) -> Self {
        let stored = match suffix {
            "" => tar.to_vec(),
            "+gzip" => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).unwrap();
                encoder.finish().unwrap()
            }
            "+zstd" => zstd::encode_all(tar, 1).unwrap(),
            other => panic!("unknown compression {other}"),
        };
        Self {
            media_type: format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            digest: digest(&stored),
            size: stored.len(),
            diff_id: digest(tar),
            stored,
        }
    }

    pub(crate) fn gzip(tar: LayerTar) -> Self {
        Self::new(&tar.end(), "+gzip")
    }
}

/// A layout on disk.
pub(crate) struct Layout {
    pub(crate) path: PathBuf,
}

impl Layout {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { path }
    }

    /// A layout of one image for this machine.
    pub(crate) fn of(path: impl Into<PathBuf>, layers: &[StoredLayer]) -> Self {
        let layout = Self::new(path);
        let manifest = layout.image(layers, architecture());
        layout.index(&[manifest]);
        layout
    }

    pub(crate) fn blob(&self, media_type: &str, content: &[u8]) -> Value {
        let digest = digest(content);
        fs::write(self.blob_path(&digest), content).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    }

    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        self.path
            .join("blobs/sha256")
            .join(digest.strip_prefix("sha256:").unwrap())
    }

    pub(crate) fn image(&self, layers: &[StoredLayer], architecture: &str) -> Value {
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/bin:/bin", "A=1"],
                "Entrypoint": ["/bin/run"],
                "Cmd": ["--help"],
                "WorkingDir": "/work",
                "User": "1000:1000",
                "Labels": { "made.by": "test" },
            },
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>() },
        });
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                fs::write(self.blob_path(&layer.digest), &layer.stored).unwrap();
                json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        )
    }

    pub(crate) fn nested_index(&self, manifests: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        self.blob(
            "application/vnd.oci.image.index.v1+json",
            index.to_string().as_bytes(),
        )
    }

    pub(crate) fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(self.path.join("index.json"), index.to_string()).unwrap();
    }

    /// The layout as one tar.
    pub(crate) fn archive(&self, to: &Path) {
        let mut builder = tar::Builder::new(fs::File::create(to).unwrap());
        builder.append_dir_all(".", &self.path).unwrap();
        builder.finish().unwrap();
    }
}

pub(crate) fn for_platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
    descriptor
}

pub(crate) fn named(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    descriptor
}
