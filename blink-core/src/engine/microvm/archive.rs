//! Disks in the engine's archives: `manifest.json` and `disk.qcow2` in a tar that is compressed with zstd.
//!
//! The engine writes them. What comes in is read here, because it may be anybody's: nothing of the manifest is believed
//! but the disk's checksum, and nothing of the disk before it has that. What Blink has to say of the session follows the
//! compressed tar ([`postscript`]).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxlite::{ArchiveManifest, BoxArchive, BoxOptions, ExportOptions, LiteBox, RootfsSpec};
use sha2::{Digest, Sha256};

use super::disk::Disk;
use super::failure::translate;
use super::postscript;
use super::qcow2::Header;
use super::runtime::{self, Runtime};
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{Tell, Told, TransferProgress};

const MANIFEST: &str = "manifest.json";
const DISK: &str = "disk.qcow2";

/// What this can read and write.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;

/// The engine's own are a few KiB.
const MANIFEST_LIMIT: u64 = 1 << 20;

/// A disk is mostly zeros or little changed; more than this from one byte is made to fill a disk.
const EXPANSION_LIMIT: u64 = 2000;

const BLOCK: usize = 64 << 10;

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
    let manifest = ArchiveManifest {
        version: *VERSIONS.end(),
        box_name: None,
        image: String::new(),
        box_options: Some(options),
        guest_disk_checksum: String::new(),
        container_disk_checksum: String::new(),
        exported_at: String::new(),
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let mut tar = tar::Builder::new(File::create(archive)?);
    let mut entry = tar::Header::new_gnu();
    entry.set_size(manifest.len() as u64);
    entry.set_mode(0o600);
    tar.append_data(&mut entry, MANIFEST, &manifest[..])?;
    tar.append_path_with_name(&disk, DISK)?;
    tar.finish()
}

/// Writes a disk, with what is beneath it, to an archive. The machine must not run.
pub(super) async fn export(
    runtime: &Arc<Runtime>,
    disk: &Disk,
    image: &Path,
    archive: &Path,
    session: &[u8],
    tell: &Tell,
) -> Result<()> {
    let failed = |error: io::Error| Error::io("the disk cannot be read", &error);
    let not_written = |error: io::Error| {
        let what = format!("the archive {} could not be written", archive.display());
        Error::io(what, &error)
    };
    if archive.is_dir() {
        return Err(Error::invalid(format!(
            "{} is a folder; name a file in it",
            archive.display()
        )));
    }
    let folder = archive.parent().filter(|path| !path.as_os_str().is_empty());
    // The engine writes to a file of any name, and leaves half of it where it fails.
    let mut temporary = tempfile::Builder::new()
        .prefix(".blink-export-")
        .suffix(".boxlite")
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(not_written)?;
    let size_bytes = disk.size_bytes().map_err(failed)?;
    // Nothing of this host goes into the archive.
    let options = BoxOptions {
        rootfs: RootfsSpec::RootfsPath(image.to_string_lossy().into_owned()),
        auto_delete: Some(0),
        ..BoxOptions::default()
    };
    let machine = provision(runtime, options, None, size_bytes).await?;
    let id = machine.id().as_str().to_owned();
    let lent = disk.lend(&runtime.disk_place(&id)).map_err(failed);
    let written = temporary.path().to_owned();
    let boxlite = runtime.boxlite()?.clone();
    runtime
        .run(async move {
            let exported = match lent {
                Ok(()) => machine
                    .export(ExportOptions::default(), &written)
                    .await
                    .map(drop)
                    .map_err(|error| translate("the disk could not be exported", &error)),
                Err(error) => Err(error),
            };
            drop(machine);
            let removed = runtime::remove(&boxlite, &id).await;
            exported.and(removed)
        })
        .await?;
    let file = temporary.as_file_mut();
    let bytes = postscript::append(file, session).map_err(not_written)?;
    file.sync_all().map_err(not_written)?;
    temporary
        .persist(archive)
        .map_err(|error| not_written(error.error))?;
    tell(TransferProgress {
        bytes_done: bytes,
        bytes_total: Some(bytes),
    });
    Ok(())
}

/// An archive that was opened, and begins as one.
#[derive(Debug)]
pub(super) struct MicrovmArchive {
    path: PathBuf,
    file: File,
    bytes: u64,
    pub(super) session: Option<Vec<u8>>,
}

impl MicrovmArchive {
    /// # Errors
    /// `Corrupt` for what is no archive, `InvalidArgument` for one of another engine.
    pub(super) fn open(archive: &Path) -> Result<MicrovmArchive> {
        let shown = archive.display();
        let opened = File::options()
            .read(true)
            // It may be a pipe.
            .custom_flags(libc::O_NONBLOCK)
            .open(archive)
            .and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) =
            opened.map_err(|error| Error::io(format!("{shown} cannot be read"), &error))?;
        if !metadata.is_file() {
            return Err(Error::invalid(format!(
                "{shown} is not a file; name one that an export has written"
            )));
        }
        let session = check_start(&file)
            .and_then(|()| postscript::read(&file).map_err(Bad::Archive))
            .map_err(|bad| bad.told(archive))?;
        Ok(MicrovmArchive {
            path: archive.to_owned(),
            bytes: metadata.len(),
            file,
            session,
        })
    }

    /// Reads the disk into a folder that has none. Where it fails, none is left there.
    ///
    /// # Errors
    /// `Corrupt` for what is no whole archive, `Unsupported` for one of the future, `ResourceExhausted` for a full disk.
    pub(super) fn import(&self, folder: &Path, tell: &Tell) -> Result<()> {
        let new = folder.join(format!("{DISK}.new"));
        let read = (&self.file)
            .rewind()
            .map_err(archive_error)
            .and_then(|()| {
                let mut told = Told::new(&self.file, tell, 0, Some(self.bytes));
                let read = read_archive(&mut told, self.bytes, &new)?;
                told.finish();
                Ok(read)
            })
            .and_then(|(manifest, digest)| check(&manifest, &digest, &new))
            .and_then(|()| fs::rename(&new, folder.join(DISK)).map_err(Bad::Disk));
        read.map_err(|bad| {
            let _ = fs::remove_file(&new);
            bad.told(&self.path)
        })
    }
}

fn check_start(mut file: &File) -> std::result::Result<(), Bad> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let mut start = [0; 4];
    file.read_exact(&mut start).map_err(archive_error)?;
    match start {
        ZSTD => Ok(()),
        _ if start == MANIFEST.as_bytes()[..4] => Err(Bad::OtherEngine),
        _ => Err(Bad::Archive("it does not begin as one".into())),
    }
}

enum Bad {
    Archive(String),
    /// It is one of namespaces.
    OtherEngine,
    Future(u32),
    Disk(io::Error),
}

impl Bad {
    fn told(self, archive: &Path) -> Error {
        let shown = archive.display();
        match self {
            Bad::Archive(why) => Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{shown} is not a whole archive of a session in a micro-VM: {why}; nothing of it was used, export \
                     it again"
                ),
            ),
            Bad::OtherEngine => Error::invalid(format!(
                "{shown} seems to be an archive of a session in namespaces, which only namespaces can import; ask for \
                 isolation \"namespace\" (--isolation namespace)"
            )),
            Bad::Future(version) => Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{shown} is an archive of version {version}, which this Blink does not know; use a newer one"
                ),
            ),
            Bad::Disk(error) => Error::io(
                format!("the disk of the session from {shown} cannot be written"),
                &error,
            ),
        }
    }
}

fn archive_error(error: io::Error) -> Bad {
    Bad::Archive(error.to_string())
}

/// The manifest, and the digest of the disk that was written.
fn read_archive(
    file: impl Read,
    packed_bytes: u64,
    disk: &Path,
) -> std::result::Result<(ArchiveManifest, String), Bad> {
    let unpacked = zstd::Decoder::new(file).map_err(archive_error)?;
    let limit = packed_bytes
        .saturating_mul(EXPANSION_LIMIT)
        .max(BLOCK as u64);
    let mut tar = tar::Archive::new(unpacked.take(limit));
    let too_large = || Bad::Archive(format!("it unpacks to more than {limit} bytes"));
    let (mut manifest, mut digest) = (None, None);
    for entry in tar.entries().map_err(archive_error)? {
        let mut entry = entry.map_err(archive_error)?;
        let name = entry.path_bytes().into_owned();
        match &name[..] {
            _ if name == MANIFEST.as_bytes() && manifest.is_none() => {
                let mut text = Vec::new();
                (&mut entry)
                    .take(MANIFEST_LIMIT)
                    .read_to_end(&mut text)
                    .map_err(archive_error)?;
                manifest = Some(read_manifest(&text)?);
            }
            _ if name == DISK.as_bytes() && digest.is_none() => {
                use tar::EntryType;
                if !matches!(
                    entry.header().entry_type(),
                    EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
                ) {
                    return Err(Bad::Archive(format!("its {DISK} is no file")));
                }
                // With its holes, which are not in the stream.
                if entry.size() > limit {
                    return Err(too_large());
                }
                digest = Some(write_disk(&mut entry, disk)?);
            }
            _ => {
                return Err(Bad::Archive(format!(
                    "it holds {:?}",
                    String::from_utf8_lossy(&name)
                )));
            }
        }
    }
    // What follows must be whole too.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(archive_error)?;
    match (manifest, digest) {
        (Some(manifest), Some(digest)) => Ok((manifest, digest)),
        (None, _) => Err(Bad::Archive(format!("it has no {MANIFEST}"))),
        (_, None) => Err(Bad::Archive(format!("it has no {DISK}"))),
    }
}

fn read_manifest(text: &[u8]) -> std::result::Result<ArchiveManifest, Bad> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let bad = |error: serde_json::Error| Bad::Archive(format!("its {MANIFEST}: {error}"));
    // The version first: the rest may be anything in another.
    let Version { version } = serde_json::from_slice(text).map_err(bad)?;
    if version > *VERSIONS.end() {
        return Err(Bad::Future(version));
    }
    if version < *VERSIONS.start() {
        return Err(Bad::Archive(format!("version {version} has no checksums")));
    }
    serde_json::from_slice(text).map_err(bad)
}

/// Leaves out the zeros.
fn write_disk(mut entry: impl Read, path: &Path) -> std::result::Result<String, Bad> {
    let mut disk = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(Bad::Disk)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut length = 0_u64;
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match entry.read(&mut block[filled..]).map_err(archive_error)? {
                0 => break,
                read => filled += read,
            }
        }
        let data = &block[..filled];
        if data.is_empty() {
            break;
        }
        hasher.update(data);
        length += data.len() as u64;
        if data.iter().all(|byte| *byte == 0) {
            disk.seek(SeekFrom::Start(length)).map_err(Bad::Disk)?;
        } else {
            disk.write_all(data).map_err(Bad::Disk)?;
        }
    }
    disk.set_len(length).map_err(Bad::Disk)?;
    disk.sync_all().map_err(Bad::Disk)?;
    let digest: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(format!("sha256:{digest}"))
}

fn check(manifest: &ArchiveManifest, digest: &str, disk: &Path) -> std::result::Result<(), Bad> {
    if manifest.container_disk_checksum != digest {
        return Err(Bad::Archive(format!(
            "its {DISK} has the checksum {digest}, and should have {:?}",
            manifest.container_disk_checksum
        )));
    }
    let header = Header::read(disk).map_err(archive_error)?;
    match header.backing {
        None => Ok(()),
        // It would be read with it, whatever it is.
        Some(_) => Err(Bad::Archive(format!(
            "its {DISK} wants another file beneath it"
        ))),
    }
}
