//! Reading a disk from one of the engine's archives ([`archive`](super::archive)), which may be anybody's: nothing of the
//! manifest is believed but the disk's checksum, and nothing of the disk before it has that.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use blink_archive::{ArchiveError, Files};
use blink_host::fault::{self, Step};
use blink_host::room;
use blink_host::transfer::{Ahead, Hashed, Supply, Tell, Told, beside, joined};

use super::postscript;
use super::qcow2::Header;
use crate::error::{Error, ErrorKind, Result};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const DISK: &str = "disk.qcow2";

/// What this can read and write.
pub(super) const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;

/// The engine's own are a few KiB.
const MANIFEST_LIMIT: u64 = 1 << 20;

/// A disk is mostly zeros or little changed; more than this from one byte is made to fill a disk.
const EXPANSION_LIMIT: u64 = 2000;

/// What a disk's file has beside each GiB of it: tables of 8 bytes and counters of 2 for clusters of 64 KiB, with room.
const TABLES_OF_GIB: u64 = 1 << 20;

const BLOCK: usize = 64 << 10;

/// What is believed of a manifest.
#[derive(Debug, serde::Deserialize)]
struct Manifest {
    container_disk_checksum: String,
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
    /// `Corrupt` for what is no whole archive, `Unsupported` for one of the future, `ResourceExhausted` for a full disk, and
    /// for a disk of more than so many GiB.
    pub(super) fn import(&self, folder: &Path, limit_gib: u64, tell: &Tell) -> Result<()> {
        let new = folder.join(format!("{DISK}.new"));
        let read = (&self.file)
            .rewind()
            .map_err(archive_error)
            .and_then(|()| self.read(&new, limit_gib, tell))
            .and_then(|(manifest, digest)| check(&manifest, &digest, &new, limit_gib))
            .and_then(|()| {
                fault::before(Step::MicrovmImportSynced)
                    .and_then(|()| fs::rename(&new, folder.join(DISK)))
                    .map_err(Bad::Disk)
            });
        read.map_err(|bad| {
            let _ = fs::remove_file(&new);
            bad.told(&self.path)
        })
    }

    /// The manifest, and the digest of the disk that was written.
    fn read(
        &self,
        disk: &Path,
        limit_gib: u64,
        tell: &Tell,
    ) -> std::result::Result<(Manifest, String), Bad> {
        let mut told = Told::new(&self.file, tell, 0, Some(self.bytes));
        let read = std::thread::scope(|scope| {
            let (supply, plain) = Ahead::new();
            let unpacking = beside(scope, || unpack(&mut told, supply)).map_err(archive_error)?;
            let read = read_archive(plain, self.bytes, disk, limit_gib);
            joined(unpacking)
                .and_then(|unpacked| unpacked)
                .map_err(archive_error)?;
            read
        })?;
        told.finish();
        Ok(read)
    }
}

fn unpack(packed: impl Read, supply: Supply) -> io::Result<()> {
    supply.read_all(zstd::Decoder::new(packed)?);
    Ok(())
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
    /// It is larger than it may be here.
    OverLimit {
        limit_gib: u64,
    },
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
            Bad::OverLimit { limit_gib } => Error::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "{shown} holds a disk of more than the {limit_gib} GiB that the session's may have; disk_mib \
                     (--disk-mib) allows more"
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

fn read_archive(
    unpacked: impl Read,
    packed_bytes: u64,
    disk: &Path,
    limit_gib: u64,
) -> std::result::Result<(Manifest, String), Bad> {
    let limit = packed_bytes
        .saturating_mul(EXPANSION_LIMIT)
        .max(BLOCK as u64)
        .min(limit_gib.saturating_mul((1 << 30) + TABLES_OF_GIB));
    let mut files = Files::new(unpacked.take(limit));
    let too_large = || Bad::Archive(format!("it unpacks to more than {limit} bytes"));
    let (mut manifest, mut digest) = (None, None);
    let damaged = |error: ArchiveError| Bad::Archive(error.to_string());
    while let Some(mut entry) = files.next().map_err(damaged)? {
        let name = entry.path().to_owned();
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
                if !entry.is_file() {
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
    io::copy(&mut files.into_inner(), &mut io::sink()).map_err(archive_error)?;
    match (manifest, digest) {
        (Some(manifest), Some(digest)) => Ok((manifest, digest)),
        (None, _) => Err(Bad::Archive(format!("it has no {MANIFEST}"))),
        (_, None) => Err(Bad::Archive(format!("it has no {DISK}"))),
    }
}

fn read_manifest(text: &[u8]) -> std::result::Result<Manifest, Bad> {
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
fn write_disk(entry: impl Read, path: &Path) -> std::result::Result<String, Bad> {
    let create = || {
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
    };
    let mut disk = fault::before(Step::MicrovmImport)
        .and_then(|()| create())
        .map_err(Bad::Disk)?;
    let mut entry = Hashed::new(entry);
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
        length += data.len() as u64;
        if data.iter().all(|byte| *byte == 0) {
            disk.seek(SeekFrom::Start(length)).map_err(Bad::Disk)?;
        } else {
            room::require(&disk, BLOCK as u64)
                .and_then(|()| disk.write_all(data))
                .map_err(Bad::Disk)?;
        }
    }
    disk.set_len(length)
        .and_then(|()| fault::before(Step::MicrovmImportRead))
        .and_then(|()| disk.sync_all())
        .map_err(Bad::Disk)?;
    Ok(format!("sha256:{}", entry.hex()))
}

fn check(
    manifest: &Manifest,
    digest: &str,
    disk: &Path,
    limit_gib: u64,
) -> std::result::Result<(), Bad> {
    if manifest.container_disk_checksum != digest {
        return Err(Bad::Archive(format!(
            "its {DISK} has the checksum {digest}, and should have {:?}",
            manifest.container_disk_checksum
        )));
    }
    let header = Header::read(disk).map_err(archive_error)?;
    // It is what the machine could fill, whatever its agent says.
    if header.size_bytes > limit_gib.saturating_mul(1 << 30) {
        return Err(Bad::OverLimit { limit_gib });
    }
    match header.backing {
        None => Ok(()),
        // It would be read with it, whatever it is.
        Some(_) => Err(Bad::Archive(format!(
            "its {DISK} wants another file beneath it"
        ))),
    }
}
