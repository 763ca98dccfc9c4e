//! The image `host` for machines: the made root as a layer, with the host's own programs mounted over it.

use std::fs;
use std::path::{Path, PathBuf};

use blink_archive::{Ownership, PackOptions, Root, pack};
use blink_host::withheld::Withheld;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::engine::host_root;
use crate::error::{Error, ErrorKind, Result};
use crate::home::Home;

/// The largest id of the made root's files, beside those that are nobody's.
const LARGEST_ID: u32 = 65_535;

/// A folder in OCI layout, the paths of the host that are shown over it, and what keeps it there; made once for each state
/// of the host.
pub(super) fn prepare(home: &Home) -> Result<(PathBuf, Vec<PathBuf>, Option<Withheld>)> {
    let id_base = crate::engine::namespace::id_base();
    let root = host_root::prepare(home, id_base)?;
    let name = root.path.file_name().unwrap_or_default().to_string_lossy();
    let layout = home.path().join(format!("{name}.oci"));
    make_once(home, &layout, || layer(&root.path, id_base))?;
    Ok((layout, root.shown, Some(root.used)))
}

/// A folder in OCI layout with nothing in it, for a machine that has its disk already: the engine asks for an image all
/// the same.
pub(super) fn blank(home: &Home) -> Result<PathBuf> {
    /// The end of a tar.
    const NOTHING: usize = 1024;
    let layout = home.path().join("blank.oci");
    make_once(home, &layout, || Ok(vec![0; NOTHING]))?;
    Ok(layout)
}

fn make_once(home: &Home, layout: &Path, layer: impl FnOnce() -> Result<Vec<u8>>) -> Result<()> {
    if layout.is_dir() {
        return Ok(());
    }
    let failed = |error: std::io::Error| Error::io("a micro-VM's image could not be made", &error);
    let temporary = tempfile::tempdir_in(home.path()).map_err(failed)?;
    write(temporary.path(), &layer()?)?;
    match fs::rename(temporary.path(), layout) {
        // Another process was faster.
        Err(_) if layout.is_dir() => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(()) => {
            drop(temporary.keep());
            Ok(())
        }
    }
}

fn write(layout: &Path, layer: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("the image 'host' could not be made", &error);
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed)?;
    let put = |content: &[u8]| -> Result<Value> {
        let digest: String = Sha256::digest(content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::write(blobs.join(&digest), content).map_err(failed)?;
        Ok(json!({ "digest": format!("sha256:{digest}"), "size": content.len() }))
    };
    let described = |mut blob: Value, media_type: &str| {
        blob["mediaType"] = json!(format!("application/vnd.oci.image.{media_type}"));
        blob
    };
    let layer = put(layer)?;
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = put(config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(config, "config.v1+json"),
        "layers": [described(layer, "layer.v1.tar")],
    });
    let mut manifest = described(put(manifest.to_string().as_bytes())?, "manifest.v1+json");
    manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).map_err(failed)?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .map_err(failed)
}

/// The made root as a tar: a few hundred KiB.
fn layer(root: &Path, id_base: Option<u32>) -> Result<Vec<u8>> {
    let failed = |error: blink_archive::ArchiveError| {
        Error::new(
            ErrorKind::Internal,
            format!("the image 'host' could not be made: {error}"),
        )
    };
    let ownership = match id_base {
        Some(base) => Ownership::Preserve {
            uid_base: base,
            gid_base: base,
            max_id: LARGEST_ID,
            beyond: None,
        },
        None => Ownership::Ignore,
    };
    let root = Root::open(root).map_err(failed)?;
    let mut layer = Vec::new();
    pack(
        &root,
        ".",
        &mut layer,
        &PackOptions::default().with_ownership(ownership),
    )
    .map_err(failed)?;
    Ok(layer)
}
