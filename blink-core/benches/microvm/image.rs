//! The image of both: one static program under many names, so that nothing of a host is in the way.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::measure::Result;

/// The names that the benchmark uses.
const NAMES: [&str; 6] = ["sh", "true", "cat", "echo", "rm", "sleep"];

/// Writes the image, as a folder in OCI layout.
pub(crate) fn write(layout: &Path) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let put = |media_type: &str, content: &[u8]| -> Result<Value> {
        let digest: String = Sha256::digest(content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::write(blobs.join(&digest), content)?;
        Ok(json!({
            "mediaType": format!("application/vnd.oci.image.{media_type}"),
            "digest": format!("sha256:{digest}"),
            "size": content.len(),
        }))
    };
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let layer = put("layer.v1.tar", &layer()?)?;
    let config = json!({
        "architecture": architecture, "os": "linux",
        // BoxLite by itself needs something that does not end, and a path; Blink has its agent.
        "config": { "Env": ["PATH=/bin"], "Entrypoint": ["/bin/sleep", "1000000"] },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = put("config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer],
    });
    let mut manifest = put("manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    Ok(())
}

fn layer() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size as u64);
        header
    };
    for folder in [
        "bin/", "dev/", "etc/", "proc/", "run/", "sys/", "tmp/", "var/", "var/tmp/",
    ] {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        tar.append_data(&mut header, folder, &[][..])?;
    }
    let program = fs::read(static_program()?)?;
    let mut header_of_program = header(tar::EntryType::Regular, 0o755, program.len());
    tar.append_data(&mut header_of_program, "bin/busybox", &program[..])?;
    for name in NAMES {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    Ok(tar.into_inner()?)
}

/// The host's busybox, if it needs no libraries.
fn static_program() -> Result<PathBuf> {
    const MISSING: &str = "there is no static busybox here; `scripts/setup bench` installs it";
    let path = std::env::var_os("PATH").ok_or(MISSING)?;
    let is_static = |program: &PathBuf| {
        // A program with libraries names its loader.
        let loader: &[u8] = match cfg!(target_arch = "aarch64") {
            true => b"/lib/ld-linux-aarch64",
            false => b"/lib64/ld-linux-x86-64",
        };
        fs::read(program).is_ok_and(|content| {
            let start = &content[..content.len().min(4096)];
            !start.windows(loader.len()).any(|window| window == loader)
        })
    };
    std::env::split_paths(&path)
        .map(|folder| folder.join("busybox"))
        .find(is_static)
        .ok_or_else(|| MISSING.into())
}
