//! Disks in the engine's archives: `manifest.json` and `disk.qcow2` in a tar that is compressed with zstd.
//!
//! The format is the engine's, and [`import`](super::import) reads it. What Blink has to say of the session follows the
//! compressed tar ([`postscript`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use blink_host::room::Roomy;
use blink_host::transfer::{Ahead, Hashed, Tell, Told, beside, joined};
use boxlite::{ArchiveManifest, BoxArchive, BoxOptions, LiteBox, RootfsSpec};

use super::failure::translate;
use super::flat::Flat;
use super::import::{DISK, MANIFEST, VERSIONS};
use super::qcow2::Header;
use super::runtime::Runtime;
use super::{not_read, postscript};
use crate::engine::unfinished::{Unfinished, not_written};
use crate::error::{Error, Result};

/// Of archives whose options are the defaults, so that an earlier engine reads them too.
const PLAIN_VERSION: u32 = 3;

/// What zstd recommends between speed and size.
const COMPRESSION_LEVEL: i32 = 3;

/// What reads the disk keeps one processor busy.
const COMPRESSING_THREADS: u32 = 2;

/// Makes a machine that boots from a disk that is there already, which the engine only does for what it has imported: it
/// gets an empty disk, which [`Disk::lend`] then replaces.
pub(super) async fn provision(
    runtime: &Runtime,
    options: BoxOptions,
    name: Option<String>,
    size_bytes: u64,
) -> Result<LiteBox> {
    let failed = |error: io::Error| Error::io("the micro-VM could not be made", &error);
    let folder = tempfile::tempdir_in(runtime.folder()).map_err(failed)?;
    let archive = folder.path().join("empty.boxlite");
    write_empty(folder.path(), &archive, options, size_bytes).map_err(failed)?;
    let boxlite = runtime.boxlite()?.clone();
    runtime
        .run(async move {
            let imported = boxlite.import_box(BoxArchive::new(archive), name).await;
            drop(folder);
            imported.map_err(|error| translate("the micro-VM could not be made", &error))
        })
        .await
}

fn write_empty(
    folder: &Path,
    archive: &Path,
    options: BoxOptions,
    size_bytes: u64,
) -> io::Result<()> {
    let header = Header {
        size_bytes,
        backing: None,
    };
    let disk = folder.join(DISK);
    header.write_new(&disk)?;
    let mut tar = tar::Builder::new(File::create(archive)?);
    append_manifest(&mut tar, &manifest(options))?;
    tar.append_path_with_name(&disk, DISK)?;
    tar.finish()
}

fn manifest(options: BoxOptions) -> ArchiveManifest {
    ArchiveManifest {
        version: *VERSIONS.end(),
        box_name: None,
        image: String::new(),
        box_options: Some(options),
        guest_disk_checksum: String::new(),
        container_disk_checksum: String::new(),
        exported_at: String::new(),
    }
}

fn append_manifest(
    tar: &mut tar::Builder<impl Write>,
    manifest: &ArchiveManifest,
) -> io::Result<()> {
    let manifest = serde_json::to_vec(manifest)?;
    let mut entry = tar::Header::new_gnu();
    entry.set_size(manifest.len() as u64);
    entry.set_mode(0o600);
    tar.append_data(&mut entry, MANIFEST, &manifest[..])
}

/// Writes a disk to an archive. No machine may write to it.
pub(super) fn export(
    flat: &Flat,
    image: &Path,
    archive: &Path,
    session: &[u8],
    tell: &Tell,
) -> Result<()> {
    let failed = |error: io::Error| not_written(archive, &error);
    let mut unfinished = Unfinished::create(archive)?;
    let mut file = unfinished.file();
    let place = file.try_clone().map_err(failed)?;
    let compressed = Roomy::new(&mut file, &place).map_err(failed)?;
    let mut encoder = zstd::Encoder::new(compressed, COMPRESSION_LEVEL).map_err(failed)?;
    // The disk is read and hashed beside the packing.
    encoder.multithread(COMPRESSING_THREADS).map_err(failed)?;
    let mut tar = tar::Builder::new(encoder);
    let checksum = append_disk(&mut tar, flat, tell).map_err(|error| match error {
        DiskError::Read(error) => not_read(&error),
        DiskError::Write(error) => failed(error),
    })?;
    // Nothing of this host goes into the archive.
    let options = BoxOptions {
        rootfs: RootfsSpec::RootfsPath(image.to_string_lossy().into_owned()),
        auto_delete: Some(0),
        ..BoxOptions::default()
    };
    let manifest = ArchiveManifest {
        version: PLAIN_VERSION,
        container_disk_checksum: checksum,
        ..manifest(options)
    };
    append_manifest(&mut tar, &manifest)
        .and_then(|()| tar.into_inner())
        .and_then(zstd::Encoder::finish)
        .map_err(failed)?;
    postscript::append(file, session).map_err(failed)?;
    unfinished.finish()
}

/// On which side a disk could not be packed.
enum DiskError {
    Read(io::Error),
    Write(io::Error),
}

/// The checksum of the disk, as manifests have it.
fn append_disk(
    tar: &mut tar::Builder<impl Write>,
    flat: &Flat,
    tell: &Tell,
) -> std::result::Result<String, DiskError> {
    let mut header = tar::Header::new_gnu();
    header.set_size(flat.bytes());
    header.set_mode(0o600);
    let disk = flat.read().map_err(DiskError::Read)?;
    std::thread::scope(|scope| {
        let (supply, ahead) = Ahead::new();
        let mut ahead = Told::new(ahead, tell, 0, Some(flat.bytes()));
        let reading = beside(scope, move || {
            let mut hashed = Hashed::new(Watched {
                inner: disk,
                has_failed: false,
            });
            supply.read_all(&mut hashed);
            let (disk, digest) = hashed.finish();
            (disk.has_failed, digest)
        })
        .map_err(DiskError::Read)?;
        let appended = tar.append_data(&mut header, DISK, &mut ahead);
        // The thread may wait for somebody to take what it has read.
        ahead.finish();
        let (has_failed, digest) = joined(reading).map_err(DiskError::Read)?;
        match appended {
            Ok(()) => Ok(format!("sha256:{digest}")),
            Err(error) if has_failed => Err(DiskError::Read(error)),
            Err(error) => Err(DiskError::Write(error)),
        }
    })
}

/// Notes that reading has failed.
struct Watched<R> {
    inner: R,
    has_failed: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        self.has_failed |= read.is_err();
        read
    }
}
