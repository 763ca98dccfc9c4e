//! What BoxLite derives from images and never removes: a disk for each, in `images/disk-images` of its folder.
//!
//! It is named by the digest of the image's layers' digests: `sha256-<64 digits>-r<bytes>.ext4`. Machines' disks are laid over
//! it, so that one goes only when neither an image that is stored nor any disk refers to it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::qcow2::Header;

/// Removes the disks of images that are gone; says how many bytes that has freed. Opens no engine.
///
/// # Errors
/// What the disk says; `InvalidData` for a machine's disk that cannot be understood, as what it needs is not known then.
pub(crate) fn prune(home: &Path) -> io::Result<u64> {
    let folder = home.join("microvm/images/disk-images");
    let derived: Vec<PathBuf> = entries(&folder)?;
    let derived: Vec<_> = derived
        .iter()
        .filter_map(|path| Some((path, digest_of(path)?)))
        .collect();
    if derived.is_empty() {
        return Ok(0);
    }
    let stored = stored_digests(home)?;
    let needed = needed_names(home)?;
    let mut freed_bytes = 0;
    for (path, digest) in derived {
        let is_needed = path.file_name().is_some_and(|name| needed.contains(name));
        if is_needed || stored.contains(digest) {
            continue;
        }
        let occupied = path.metadata()?.blocks() * 512;
        fs::remove_file(path)?;
        freed_bytes += occupied;
    }
    Ok(freed_bytes)
}

/// The digits by which BoxLite names a disk; `None` for what is no such disk.
fn digest_of(path: &Path) -> Option<&str> {
    const DIGITS: usize = 64;
    let name = path.file_name()?.to_str()?;
    let rest = name.strip_prefix("sha256-")?.strip_suffix(".ext4")?;
    let (digits, reserve) = rest.split_at_checked(DIGITS)?;
    let is_digest = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    // Earlier versions had no reserve.
    let is_reserve = reserve.is_empty()
        || reserve
            .strip_prefix("-r")
            .is_some_and(|bytes| bytes.parse::<u64>().is_ok());
    (is_digest && is_reserve).then_some(digits)
}

/// Of all that machines are made from: stored images in BoxLite's form, and Blink's own.
fn stored_digests(home: &Path) -> io::Result<HashSet<String>> {
    let own = entries(home)?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "oci"));
    let layouts = entries(&home.join("images/layouts"))?
        .into_iter()
        .chain(own);
    // One that is damaged is made again, and so is its disk.
    Ok(layouts
        .filter_map(|layout| boxlite_digest(&layout))
        .collect())
}

/// By which BoxLite names the disk of an image: of its layers' digests, one after another.
fn boxlite_digest(layout: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Descriptor>,
    }
    #[derive(Deserialize)]
    struct Manifest {
        layers: Vec<Descriptor>,
    }
    #[derive(Deserialize)]
    struct Descriptor {
        digest: String,
    }
    let index: Index = serde_json::from_slice(&fs::read(layout.join("index.json")).ok()?).ok()?;
    let manifest = index.manifests.first()?.digest.strip_prefix("sha256:")?;
    let manifest = layout.join("blobs/sha256").join(manifest);
    let manifest: Manifest = serde_json::from_slice(&fs::read(manifest).ok()?).ok()?;
    let mut digest = Sha256::new();
    for layer in &manifest.layers {
        digest.update(layer.digest.as_bytes());
    }
    let digest = digest.finalize();
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The names of the files that disks are laid over: those of sessions, of sandboxes, and BoxLite's own.
fn needed_names(home: &Path) -> io::Result<HashSet<OsString>> {
    let mut folders = Vec::new();
    for parent in ["layers", "sandboxes"] {
        folders.extend(entries(&home.join(parent))?);
    }
    for machine in entries(&home.join("microvm/boxes"))? {
        folders.push(machine.join("disks"));
    }
    folders.push(home.join("microvm/bases"));
    let mut needed = HashSet::new();
    for folder in folders {
        for disk in entries(&folder)? {
            if disk
                .extension()
                .is_none_or(|extension| extension != "qcow2")
            {
                continue;
            }
            let header = match Header::read(&disk) {
                // Its machine is being removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                header => header?,
            };
            let beneath = header.backing.as_deref().and_then(Path::file_name);
            needed.extend(beneath.map(OsString::from));
        }
    }
    Ok(needed)
}

/// What is in a folder; nothing if there is none.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_layout(layout: &Path, layers: &[&str]) -> String {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| serde_json::json!({ "digest": layer }))
            .collect();
        let manifest = serde_json::json!({ "layers": layers });
        fs::write(blobs.join("aa"), manifest.to_string()).unwrap();
        let index = serde_json::json!({ "manifests": [{ "digest": "sha256:aa" }] });
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        boxlite_digest(layout).unwrap()
    }

    fn make_disk(disk: &Path, backing: &Path) {
        fs::create_dir_all(disk.parent().unwrap()).unwrap();
        let header = Header {
            size_bytes: 1 << 20,
            backing: Some(backing.to_owned()),
        };
        header.write_new(disk).unwrap();
    }

    #[test]
    fn disks_go_that_no_image_and_no_machine_refers_to() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        assert_eq!(prune(home).unwrap(), 0);

        let disks = home.join("microvm/images/disk-images");
        fs::create_dir_all(&disks).unwrap();
        let disk = |digest: &str, reserve: &str| {
            let path = disks.join(format!("sha256-{digest}{reserve}.ext4"));
            fs::write(&path, vec![1; 8192]).unwrap();
            path
        };
        // The digest of two names, as `printf sha256:onesha256:two | sha256sum` has it.
        let stored = make_layout(
            &home.join("images/layouts/x"),
            &["sha256:one", "sha256:two"],
        );
        assert_eq!(
            stored,
            "5857c193a3da0b5ac8753595dafebb71986917f00fd244b6c69ebaf5c917b653"
        );
        let own = make_layout(&home.join("host-1.oci"), &["sha256:three"]);
        let kept = [
            disk(&stored, "-r536870912"),
            disk(&own, "-r536870912"),
            disk(&"1".repeat(64), "-r5"),
            disk(&"2".repeat(64), "-r5"),
            disk(&"3".repeat(64), "-r5"),
            disk(&"4".repeat(64), ""),
            // Whatever else there is, is not known.
            disk("5555", "-r5"),
            disk(&"6".repeat(64), "-rx"),
        ];
        make_disk(&home.join("layers/a/disk.qcow2"), &kept[2]);
        make_disk(&home.join("sandboxes/b/disk.qcow2"), &kept[3]);
        make_disk(&home.join("microvm/boxes/c/disks/disk.qcow2"), &kept[4]);
        make_disk(&home.join("microvm/bases/d.qcow2"), &kept[5]);
        let gone = [
            disk(&"a".repeat(64), "-r536870912"),
            disk(&"b".repeat(64), ""),
        ];
        assert_eq!(prune(home).unwrap(), 2 * 8192);
        assert!(kept.iter().all(|disk| disk.exists()));
        assert!(!gone.iter().any(|disk| disk.exists()));

        // What cannot be understood may refer to any.
        let gone = disk(&"a".repeat(64), "-r5");
        fs::write(home.join("layers/a/disk.qcow2"), [7; 200]).unwrap();
        assert_eq!(prune(home).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(gone.exists());
    }
}
