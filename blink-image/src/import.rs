//! Images from folders and files of this machine into the store.
//!
//! They get no name there, whatever names they claim: a file that somebody sent must not become what `python:3.12`
//! means from then on.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use blink_archive::{Root, UnpackOptions, unpack};
use blink_host::room::Roomy;

use crate::contents::{Blobs, Compression};
use crate::digest::Digest;
use crate::docker_archive::DockerArchive;
use crate::error::{ImageError, shown};
use crate::flatten::{Bounded, decompress};
use crate::layout::{Found, Layout};
use crate::lease::Lease;
use crate::manifest;
use crate::source::ImageSource;
use crate::store::ImageStore;
use crate::temporary::TemporaryFolder;

/// The files of an archive of images: three for each layer in the oldest of them, and dozens of images.
const MOST_FILES: u64 = 16 * 1024;

/// What a tar may hold beside the contents of so many files.
const OVERHEAD: u64 = MOST_FILES * 2048;

/// Brings the image of a folder or file into the store; returns its manifest's digest.
pub(crate) fn import(store: &ImageStore, source: &ImageSource) -> Result<Digest, ImageError> {
    let _span = tracing::info_span!("import", %source).entered();
    match source {
        ImageSource::Layout { path, tag } => {
            let layout = Layout::open(path)?;
            let found = layout.resolve(tag.as_deref())?;
            bring(store, &found, &layout)
        }
        ImageSource::Archive { path, tag } => archive(store, path, tag.as_deref()),
        ImageSource::Host | ImageSource::Reference(_) => Err(ImageError::invalid(format!(
            "'{source}' is neither a folder nor a file"
        ))),
    }
}

fn bring(store: &ImageStore, found: &Found, from: &dyn Blobs) -> Result<Digest, ImageError> {
    let contents = &found.contents;
    let limit = store.shared.limits.total_bytes;
    let name = contents.manifest.digest.to_string();
    store
        .shared
        .blobs
        .require_room_for(contents, limit, &name)?;
    let brought = bring_blobs(store, found, from);
    if let Err(error) = &brought
        && error.is_refusal()
    {
        let blobs: Vec<_> = contents.blobs().map(|blob| blob.digest).collect();
        store.forget(&blobs);
    }
    brought.map(|()| contents.manifest.digest)
}

fn bring_blobs(store: &ImageStore, found: &Found, from: &dyn Blobs) -> Result<(), ImageError> {
    let contents = &found.contents;
    let lease = Lease::new(
        &store.shared.folder,
        contents.blobs().map(|blob| blob.digest),
    )?;
    for (index, layer) in contents.layers.iter().enumerate() {
        let (digest, size) = (layer.blob.digest, layer.blob.size);
        let what = format!(
            "layer {} of {} ({digest})",
            index + 1,
            contents.layers.len()
        );
        // One byte more, so that too long is seen.
        store.shared.blobs.insert(layer.blob, &what, || {
            Ok(Box::new(from.open(&digest)?.take(size.saturating_add(1))))
        })?;
    }
    store.complete(found, &lease, None)
}

fn archive(store: &ImageStore, path: &Path, tag: Option<&str>) -> Result<Digest, ImageError> {
    let failed = |error| ImageError::io(format!("read the image '{}'", shown(path)), error);
    let file = File::open(path).map_err(failed)?;
    let seen = seen_path(store, path, &file.metadata().map_err(failed)?, tag);
    if let Some(digest) = seen_before(store, &seen)? {
        return Ok(digest);
    }
    let temporary = TemporaryFolder::new(&store.shared.folder)?;
    let folder = temporary.path().join("archive");
    fs::create_dir(&folder).map_err(|error| ImageError::io("write to the image store", error))?;
    let root = Root::open(&folder).map_err(|error| ImageError::archive(shown(path), error))?;
    let limits = store.shared.limits;
    let entries = limits.entries.min(MOST_FILES);
    let options = UnpackOptions::default().with_limits(limits.with_entries(entries));
    let plain = decompressed(file, limits.total_bytes).map_err(failed)?;
    let plain = Roomy::new(plain, &root).map_err(failed)?;
    unpack(plain, &root, &options)
        .map_err(|error| ImageError::archive(format!("'{}'", shown(path)), error))?;
    let digest = if DockerArchive::is_at(&root) {
        let mut archive = DockerArchive::new(root, path);
        let found = archive.resolve(tag)?;
        bring(store, &found, &archive)?
    } else {
        let layout = Layout::open_unpacked(root, path)?;
        let found = layout.resolve(tag)?;
        bring(store, &found, &layout)?
    };
    remember(&seen, &digest, &temporary);
    Ok(digest)
}

fn seen_before(store: &ImageStore, seen: &Path) -> Result<Option<Digest>, ImageError> {
    let hex = fs::read_to_string(seen).unwrap_or_default();
    let Some(digest) = Digest::from_hex(&hex) else {
        return Ok(None);
    };
    match store.get(&digest.to_string())? {
        Some(_) => store.shared.record.used(&digest).map(|()| Some(digest)),
        None => Ok(None),
    }
}

/// Saves the next use of the same archive from unpacking it only to find
/// that its image is here. Not worth failing for.
fn remember(seen: &Path, digest: &Digest, temporary: &TemporaryFolder) {
    let new = temporary.path().join("seen");
    let written = fs::write(&new, digest.hex()).and_then(|()| fs::rename(&new, seen));
    if let Err(error) = written {
        tracing::debug!(%error, "an archive's image could not be remembered");
    }
}

/// Names an archive's state: any change to the file changes the name.
fn seen_path(
    store: &ImageStore,
    path: &Path,
    metadata: &fs::Metadata,
    tag: Option<&str>,
) -> PathBuf {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let state = (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    );
    let key = format!("{path:?} {state:?} {tag:?} {}", manifest::architecture());
    store
        .shared
        .folder
        .join("seen")
        .join(Digest::of(key.as_bytes()).hex())
}

/// An archive may be compressed as a whole; which way, its first bytes say.
fn decompressed(file: File, limit: u64) -> io::Result<Box<dyn Read>> {
    let stored_bytes = file.metadata()?.len();
    let mut file = BufReader::with_capacity(128 * 1024, file);
    let compression = Compression::of(file.fill_buf()?);
    // What stands between the files of an archive is nothing beside them.
    let left = limit.saturating_add(OVERHEAD);
    let plain = decompress(file, compression)?;
    Ok(Box::new(Bounded::new(plain, stored_bytes, left)))
}
