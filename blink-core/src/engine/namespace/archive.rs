//! Disks as files: a tar of `manifest.json` and `layers/0000.tar.zst`.
//!
//! | entry | what it is |
//! |---|---|
//! | `manifest.json` | format and version; of the layer its name, its sizes and its SHA-256, filled up with spaces |
//! | `layers/0000.tar.zst` | what the disk and the layers beneath it come to, as [`pack_overlay`] writes it, in zstd |
//!
//! The image beneath is not in it. Owners are as the sandbox sees them, so that another machine and an ordinary user can
//! read it. What comes in may be anybody's: only what is written here is accepted, and nothing is unpacked before the whole
//! file has the checksums that it should.

mod unfinished;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use blink_archive::{
    ArchiveError, Limits, Ownership, PackOptions, Root, UnpackOptions, pack_overlay, remove_tree,
    unpack_overlay,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::unfinished::Unfinished;
use super::{disk, userns};
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{self, Step};

const FORMAT: &str = "blink-namespace";
const VERSION: u32 = 1;

const MANIFEST: &str = "manifest.json";
const LAYER: &str = "layers/0000.tar.zst";

const BLOCK: u64 = 512;

/// The manifest is written when the layer is known; it needs less than half of this.
const MANIFEST_ROOM: u64 = 1024;

/// Where the layer begins: after a header, the manifest and another header.
const LAYER_START: u64 = 2 * BLOCK + MANIFEST_ROOM;

/// What a manifest that others have written may need at most.
const MANIFEST_LIMIT: u64 = 1 << 20;

/// As far as zstd can go: 128 KiB in four bytes.
const EXPANSION_LIMIT: u64 = 1 << 15;

/// What zstd recommends between speed and size.
const COMPRESSION_LEVEL: i32 = 3;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: String,
    version: u32,
    /// Exactly one in this version.
    layers: [Layer; 1],
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    file: String,
    /// Of the tar.
    bytes: u64,
    compressed_bytes: u64,
    /// Of the compressed tar, in hexadecimal digits.
    sha256: String,
}

/// Writes what disks come to, the lowest first, to a file, which is there whole or not at all.
pub(super) fn export(disks: &[PathBuf], archive: &Path, id_base: Option<u32>) -> Result<()> {
    let shown = archive.display();
    let mut layers = Vec::new();
    for folder in disks {
        let upper = folder.join(disk::UPPER);
        if !upper.exists() {
            // It was never booted.
            disk::make(folder, id_base)
                .map_err(|error| Error::io("the session's disk cannot be read", &error))?;
        }
        layers.push(Root::open(upper).map_err(|error| not_exported(archive, &error))?);
    }
    let options = PackOptions::default()
        .with_ownership(ownership(id_base))
        .with_limits(Limits::default().with_total_bytes(u64::MAX));
    write(archive, |stream| {
        let report = pack_overlay(&layers, stream, &options)
            .map_err(|error| not_exported(archive, &error))?;
        match report.changed.first() {
            None => Ok(()),
            Some(path) => Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "the session could not be exported to {shown}: {} has changed while it was read; try again",
                    path.display()
                ),
            )),
        }
    })
}

/// Where an archive is unpacked.
pub(super) struct Place<'a> {
    /// Empty.
    pub(super) disk: &'a Path,
    /// The image that will be beneath.
    pub(super) image: &'a Path,
    pub(super) id_base: Option<u32>,
}

/// Reads a disk from a file. Where it fails, nothing is left there.
///
/// # Errors
/// `Corrupt` for what is no whole archive, `Unsupported` for one of the future, `ResourceExhausted` for a full disk.
pub(super) fn import(archive: &Path, place: &Place<'_>) -> Result<()> {
    let shown = archive.display();
    let opened = OpenOptions::new()
        .read(true)
        // It may be a pipe.
        .custom_flags(libc::O_NONBLOCK)
        .open(archive)
        .and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) =
        opened.map_err(|error| Error::io(format!("{shown} cannot be read"), &error))?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!(
            "{shown} is not a file; name one that `export` has written"
        )));
    }
    check(&file)
        .and_then(|(layer, layer_start)| {
            let made = fault::before(Step::NamespaceImport)
                .and_then(|()| disk::make(place.disk, place.id_base))
                .map_err(Bad::Disk);
            let unpacked = made.and_then(|()| unpack_layer(&file, &layer, layer_start, place));
            if unpacked.is_err() {
                clear(place.disk);
            }
            unpacked
        })
        .map_err(|bad| bad.told(archive))
}

/// Owners in archives are as the sandbox sees them. An ordinary user's sandboxes have one user only.
fn ownership(id_base: Option<u32>) -> Ownership {
    match id_base {
        Some(base) => Ownership::Preserve {
            uid_base: base,
            gid_base: base,
            max_id: userns::ID_COUNT - 1,
        },
        None => Ownership::Ignore,
    }
}

fn not_exported(archive: &Path, error: &ArchiveError) -> Error {
    let what = format!(
        "the session could not be exported to {}: {error}",
        archive.display()
    );
    match (error, error.io_error()) {
        // What the operating system said of the file, as it came through the compressor.
        (_, Some(source)) => Error::io(what, source),
        (ArchiveError::Limit { .. }, None) => Error::new(ErrorKind::ResourceExhausted, what),
        _ => Error::new(ErrorKind::Internal, what),
    }
}

/// Writes an archive around what `pack` writes.
fn write(archive: &Path, pack: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let failed = |error: io::Error| {
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
    let folder = folder.unwrap_or(Path::new("."));
    let mut unfinished = fault::before(Step::NamespaceExport)
        .and_then(|()| Unfinished::create(folder))
        .map_err(failed)?;
    let mut file = unfinished.file();
    file.seek(SeekFrom::Start(LAYER_START)).map_err(failed)?;
    let encoder = zstd::Encoder::new(Hashed::new(&mut file), COMPRESSION_LEVEL).map_err(failed)?;
    let mut plain = Counted {
        inner: encoder,
        count: 0,
    };
    pack(&mut plain)?;
    let bytes = plain.count;
    let compressed = plain.inner.finish().map_err(failed)?;
    let layer = Layer {
        file: LAYER.to_owned(),
        bytes,
        compressed_bytes: compressed.count,
        sha256: hex(compressed.hasher),
    };
    fault::before(Step::NamespaceExportWritten)
        .and_then(|()| finish(file, layer))
        .and_then(|()| fault::before(Step::NamespaceExportSynced))
        .and_then(|()| unfinished.name(archive, folder))
        .map_err(failed)?;
    fault::after(Step::NamespaceExported);
    Ok(())
}

/// Writes what follows the layer, and then what stands before it.
fn finish(file: &mut File, layer: Layer) -> io::Result<()> {
    let padding = layer.compressed_bytes.wrapping_neg() % BLOCK;
    file.write_all(&vec![0; usize::try_from(padding + 2 * BLOCK).unwrap_or(0)])?;
    let header = tar_header(LAYER, layer.compressed_bytes)?;
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        layers: [layer],
    };
    let mut text = serde_json::to_vec(&manifest)?;
    text.resize(usize::try_from(MANIFEST_ROOM).unwrap_or(0), b' ');
    file.rewind()?;
    file.write_all(&tar_header(MANIFEST, MANIFEST_ROOM)?)?;
    file.write_all(&text)?;
    file.write_all(&header)?;
    file.sync_all()
}

fn tar_header(name: &str, size: u64) -> io::Result<[u8; 512]> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(*header.as_bytes())
}

enum Bad {
    Archive(String),
    Future(u32),
    TooLarge { bytes: u64, free: u64 },
    Read(io::Error),
    Disk(io::Error),
}

impl Bad {
    fn told(self, archive: &Path) -> Error {
        let shown = archive.display();
        match self {
            Bad::Archive(why) => Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{shown} is not a whole archive of a session in namespaces: {why}; nothing of it was used, export it \
                     again"
                ),
            ),
            Bad::Future(version) => Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{shown} is an archive of version {version}, which this Blink does not know; use a newer one"
                ),
            ),
            Bad::TooLarge { bytes, free } => Error::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "{shown} unpacks to {bytes} bytes, and Blink's home has room for {free}; make room and try again"
                ),
            ),
            Bad::Read(error) => Error::io(format!("{shown} cannot be read"), &error),
            Bad::Disk(error) => Error::io(
                format!("the disk of the session from {shown} cannot be written"),
                &error,
            ),
        }
    }
}

fn bad<T>(why: impl Into<String>) -> Result<T, Bad> {
    Err(Bad::Archive(why.into()))
}

fn read_failed(error: io::Error) -> Bad {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Bad::Archive("it ends too early".into()),
        _ => Bad::Read(error),
    }
}

/// Reads the archive from its beginning to its end; what it says of its layer is then true. Also says where that begins.
fn check(mut file: &File) -> Result<(Layer, u64), Bad> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let length = file.metadata().map_err(Bad::Read)?.len();
    let header = read_block(file)?;
    if header.starts_with(&ZSTD) {
        return bad("it may be an archive of a micro-VM, which only those can import");
    }
    let size = read_header(&header, MANIFEST)?;
    if size > MANIFEST_LIMIT {
        return bad(format!("its {MANIFEST} has {size} bytes"));
    }
    let mut text = Vec::new();
    file.take(size).read_to_end(&mut text).map_err(Bad::Read)?;
    if text.len() as u64 != size {
        return bad("it ends too early");
    }
    let [layer] = read_manifest(&text)?.layers;
    skip_zeros(file.take(size.wrapping_neg() % BLOCK))?;

    let size = read_header(&read_block(file)?, LAYER)?;
    if layer.file != LAYER || layer.compressed_bytes != size {
        return bad(format!("its {MANIFEST} describes another file"));
    }
    let layer_start = file.stream_position().map_err(Bad::Read)?;
    // With what follows it.
    if size > length.saturating_sub(layer_start).saturating_sub(2 * BLOCK) {
        return bad("it ends too early");
    }
    if layer.bytes > size.saturating_mul(EXPANSION_LIMIT) {
        return bad(format!(
            "{size} bytes cannot unpack to {} bytes",
            layer.bytes
        ));
    }
    let mut hashed = Hashed::new(file.take(size));
    if io::copy(&mut hashed, &mut io::sink()).map_err(Bad::Read)? != size {
        return bad("it ends too early");
    }
    check_digest(&layer, hashed.hasher)?;
    skip_zeros(file.take(size.wrapping_neg() % BLOCK))?;
    match skip_zeros(file)? {
        end if end >= 2 * BLOCK => Ok((layer, layer_start)),
        _ => bad("it ends too early"),
    }
}

fn read_block(mut file: &File) -> Result<[u8; 512], Bad> {
    let mut block = [0; 512];
    file.read_exact(&mut block).map_err(read_failed)?;
    Ok(block)
}

/// The size of the file that a header describes, which must be of this name.
fn read_header(block: &[u8; 512], name: &str) -> Result<u64, Bad> {
    let header = tar::Header::from_byte_slice(block);
    let sum = |part: &[u8]| part.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let expected = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
    if header.cksum().ok() != Some(expected) {
        return bad("it is no tar, or damaged");
    }
    let found = header.path_bytes();
    if *found != *name.as_bytes() || !header.entry_type().is_file() {
        return bad(format!(
            "it holds {:?} where {name} should be",
            String::from_utf8_lossy(&found)
        ));
    }
    header
        .entry_size()
        .map_err(|error| Bad::Archive(error.to_string()))
}

fn read_manifest(text: &[u8]) -> Result<Manifest, Bad> {
    #[derive(Deserialize)]
    struct Start {
        format: String,
        version: u32,
    }
    let damaged = |error: serde_json::Error| Bad::Archive(format!("its {MANIFEST}: {error}"));
    // Format and version first: the rest may be anything in another.
    let Start { format, version } = serde_json::from_slice(text).map_err(damaged)?;
    if format != FORMAT {
        return bad(format!("its format is {format:?}, not {FORMAT:?}"));
    }
    match version {
        VERSION => serde_json::from_slice(text).map_err(damaged),
        0 => bad("there is no version 0"),
        later => Err(Bad::Future(later)),
    }
}

fn check_digest(layer: &Layer, hasher: Sha256) -> Result<(), Bad> {
    let found = hex(hasher);
    match found == layer.sha256 {
        true => Ok(()),
        false => bad(format!(
            "its {LAYER} has the checksum {found}, and should have {:?}",
            layer.sha256
        )),
    }
}

/// How many zeros there are, where there is nothing else.
fn skip_zeros(mut reader: impl Read) -> Result<u64, Bad> {
    let mut buffer = [0; 4096];
    let mut count = 0;
    loop {
        match reader.read(&mut buffer).map_err(Bad::Read)? {
            0 => return Ok(count),
            read if buffer[..read].iter().all(|byte| *byte == 0) => count += read as u64,
            _ => return bad("something is between its files, or after its end"),
        }
    }
}

fn unpack_layer(
    mut file: &File,
    layer: &Layer,
    layer_start: u64,
    place: &Place<'_>,
) -> Result<(), Bad> {
    let room = rustix::fs::statvfs(place.disk).map_err(|error| Bad::Disk(error.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if layer.bytes > free {
        return Err(Bad::TooLarge {
            bytes: layer.bytes,
            free,
        });
    }
    fault::before(Step::NamespaceImportUnpack).map_err(Bad::Disk)?;
    let upper = place.disk.join(disk::UPPER);
    let root = Root::open(&upper).map_err(refused)?;
    let image = Root::open(place.image).map_err(refused)?;
    file.seek(SeekFrom::Start(layer_start)).map_err(Bad::Read)?;
    let mut compressed = Hashed::new(file.take(layer.compressed_bytes));
    let decoder = zstd::Decoder::new(&mut compressed).map_err(Bad::Read)?;
    // One byte more, so that too long is seen.
    let limit = layer.bytes.saturating_add(1);
    let mut plain = decoder.take(limit);
    let options = UnpackOptions::default()
        .with_special_bits(true)
        .with_root_metadata(true)
        .with_overwrite(false)
        .with_ownership(ownership(place.id_base))
        .with_limits(Limits::default().with_total_bytes(layer.bytes));
    unpack_overlay(&mut plain, &root, Some(&image), &options).map_err(refused)?;
    io::copy(&mut plain, &mut io::sink()).map_err(|error| Bad::Archive(error.to_string()))?;
    if limit - plain.limit() != layer.bytes {
        return bad(format!(
            "its {LAYER} does not unpack to the {} bytes that it should",
            layer.bytes
        ));
    }
    drop(plain);
    io::copy(&mut compressed, &mut io::sink()).map_err(Bad::Read)?;
    // Somebody may have written to it since it was checked.
    check_digest(layer, compressed.hasher)?;
    fault::before(Step::NamespaceImportUnpacked)
        .and_then(|()| Ok(rustix::fs::syncfs(&root)?))
        .and_then(|()| fault::before(Step::NamespaceImported))
        .map_err(Bad::Disk)
}

/// Whose fault it is that something cannot be unpacked.
fn refused(error: ArchiveError) -> Bad {
    use rustix::io::Errno;
    match error {
        ArchiveError::Io {
            path,
            action,
            source,
        } => match Errno::from_io_error(&source) {
            // Names too long for a file system, attributes too large, and the like.
            Some(
                Errno::NAMETOOLONG
                | Errno::LOOP
                | Errno::NOTDIR
                | Errno::INVAL
                | Errno::FBIG
                | Errno::MLINK
                | Errno::RANGE
                | Errno::TOOBIG,
            ) => Bad::Archive(format!("{path:?} could not be {action}: {source}")),
            _ => Bad::Disk(source),
        },
        // What the decompressor says; a disk's own failure has a number.
        ArchiveError::Stream { source, .. } if source.raw_os_error().is_some() => Bad::Read(source),
        ArchiveError::Stream { source, .. } => Bad::Archive(source.to_string()),
        other => Bad::Archive(other.to_string()),
    }
}

/// Removes what was unpacked.
fn clear(disk: &Path) {
    let Ok(folder) = File::open(disk) else { return };
    for entry in fs::read_dir(disk).into_iter().flatten().flatten() {
        if let Err(error) = remove_tree(folder.as_fd(), &entry.file_name()) {
            tracing::warn!(%error, path = %entry.path().display(), "what was unpacked goes later");
        }
    }
}

fn hex(hasher: Sha256) -> String {
    let digest = hasher.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Counts what is written.
struct Counted<T> {
    inner: T,
    count: u64,
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Counts and hashes what comes through.
struct Hashed<T> {
    inner: T,
    count: u64,
    hasher: Sha256,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Hashed<T> {
        Hashed {
            inner,
            count: 0,
            hasher: Sha256::new(),
        }
    }

    fn came(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        self.hasher.update(bytes);
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.came(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.came(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
