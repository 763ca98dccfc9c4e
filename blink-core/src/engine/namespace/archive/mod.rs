//! Disks as files: a tar of `manifest.json`, `session.json` and `layers/0000.tar.zst`.
//!
//! | entry | what it is |
//! |---|---|
//! | `manifest.json` | format and version; of the others name, sizes and SHA-256, filled up with spaces |
//! | `session.json` | what its session was made with: the session's own affair |
//! | `layers/0000.tar.zst` | what the disk and the layers beneath it come to, as [`pack_overlay`] writes it, in zstd |
//!
//! The image beneath is not in it. Owners are as the sandbox sees them, so that another machine and an ordinary user can
//! read it. What comes in may be anybody's: only what is written here is accepted, and nothing is unpacked before the whole
//! file has the checksums that it should.

mod format;
#[cfg(test)]
mod tests;
mod written_back;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use blink_archive::{
    ArchiveError, LimitKind, Limits, Marks, Overlay, Ownership, PackOptions, Root, UnpackOptions,
    pack_overlay, remove_tree, unpack_overlay,
};

use self::format::{Bad, Contents, Layer, check_digest};
use self::written_back::WrittenBack;
use super::disk::{self, Upper};
use super::userns;
use crate::error::{Error, ErrorKind, Result};
use blink_host::fault::{self, Step};
use blink_host::room::{self, Roomy};
use blink_host::transfer::{Ahead, Hashed, Supply, Tell, Told};

/// What is exported.
pub(super) struct Source {
    /// The lowest first.
    pub(super) disks: Vec<PathBuf>,
    /// The image beneath them.
    pub(super) image: PathBuf,
    pub(super) marks: Marks,
    pub(super) id_base: Option<u32>,
}

/// Writes what disks come to to a file, which is there whole or not at all.
pub(super) fn export(source: &Source, archive: &Path, session: &[u8], tell: &Tell) -> Result<()> {
    let limits = Limits::default().with_total_bytes(u64::MAX);
    let options = PackOptions::default().with_limits(limits);
    format::write(archive, session, tell, |stream| {
        pack(source, stream, options)
    })
}

/// Writes what disks come to over their image as a layer of one.
pub(super) fn pack_layer(source: &Source, stream: &mut dyn Write) -> Result<()> {
    pack(source, stream, PackOptions::layer())
}

fn pack(source: &Source, stream: &mut dyn Write, options: PackOptions) -> Result<()> {
    let unreadable = |error| Error::io("the session's disk cannot be read", &error);
    let (uppers, marks) =
        disk::uppers(&source.disks, source.marks, source.id_base).map_err(unreadable)?;
    let layers = disk::open(&uppers).map_err(|error| not_exported(&error))?;
    let image = Root::open(&source.image).map_err(|error| not_exported(&error))?;
    let overlay = Overlay {
        layers: &layers,
        beneath: &[image],
        marks,
    };
    let options = options.with_ownership(ownership(source.id_base));
    let report = pack_overlay(&overlay, stream, &options).map_err(|error| not_exported(&error))?;
    match report.changed.first() {
        None => Ok(()),
        Some(path) => Err(Error::new(
            ErrorKind::Internal,
            format!(
                "the session could not be exported: {} has changed while it was read; try again",
                path.display()
            ),
        )),
    }
}

/// Where an archive is unpacked.
pub(super) struct Place<'a> {
    /// Empty.
    pub(super) disk: &'a Path,
    /// The image that will be beneath.
    pub(super) image: &'a Path,
    /// Where the disk's overlay is to have its marks.
    pub(super) marks: Marks,
    pub(super) id_base: Option<u32>,
    /// What the disk may hold.
    pub(super) limit_bytes: u64,
}

/// What a disk's files may be in all, holes counted, for each byte that it may hold: a database or a disk's image with some
/// holes fits, and zeros that are read for hours do not.
const HOLES: u64 = 16;

/// The least that a file needs of a disk, its inode, and as many as are nothing on any.
const FILE_BYTES: u64 = 256;
const FREE_FILES: u64 = 1 << 14;

/// An archive that has been read from its beginning to its end: what it says of itself is true.
#[derive(Debug)]
pub(super) struct Checked {
    path: PathBuf,
    file: File,
    contents: Contents,
}

/// Opens an archive, and checks all of it.
///
/// # Errors
/// `Corrupt` for what is no whole archive, `Unsupported` for one of the future, `InvalidArgument` for one of another engine.
pub(super) fn open(archive: &Path) -> Result<Checked> {
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
            "{shown} is not a file; name one that an export has written"
        )));
    }
    let contents = format::check(&file).map_err(|bad| bad.told(archive))?;
    Ok(Checked {
        path: archive.to_owned(),
        file,
        contents,
    })
}

impl Checked {
    /// What was said of its session.
    pub(super) fn session(&self) -> &[u8] {
        &self.contents.session
    }

    /// Reads the disk from it. Where it fails, nothing is left there.
    ///
    /// # Errors
    /// `Corrupt` for a layer that holds what it must not, `ResourceExhausted` for a full disk.
    pub(super) fn unpack(&self, place: &Place<'_>, tell: &Tell) -> Result<()> {
        let made = fault::before(Step::NamespaceImport)
            .and_then(|()| disk::make(place.disk, place.marks, place.id_base))
            .map_err(Bad::Disk);
        let unpacked =
            made.and_then(|upper| unpack_layer(&self.file, &self.contents, place, &upper, tell));
        if unpacked.is_err() {
            clear(place.disk);
        }
        unpacked.map_err(|bad| bad.told(&self.path))
    }
}

/// Owners in archives are as the sandbox sees them. An ordinary user's sandboxes have one user only.
fn ownership(id_base: Option<u32>) -> Ownership {
    match id_base {
        Some(base) => Ownership::Preserve {
            uid_base: base,
            gid_base: base,
            max_id: userns::ID_COUNT - 1,
            beyond: None,
        },
        None => Ownership::Ignore,
    }
}

fn not_exported(error: &ArchiveError) -> Error {
    let what = format!("the session could not be exported: {error}");
    match (error, error.io_error()) {
        // What the operating system said of the file, as it came through the compressor.
        (_, Some(source)) => Error::io(what, source),
        (ArchiveError::Limit { .. }, None) => Error::new(ErrorKind::ResourceExhausted, what),
        (ArchiveError::Unrepresentable { .. }, None) => Error::new(ErrorKind::Unsupported, what),
        _ => Error::new(ErrorKind::Internal, what),
    }
}

fn unpack_layer(
    mut file: &File,
    contents: &Contents,
    place: &Place<'_>,
    upper: &Upper,
    tell: &Tell,
) -> Result<(), Bad> {
    let layer = &contents.layer;
    let limit_bytes = place.limit_bytes;
    if layer.bytes > limit_bytes.saturating_mul(HOLES) {
        return Err(Bad::OverLimit { limit_bytes });
    }
    let free = File::open(place.disk)
        .and_then(room::room)
        .map_err(Bad::Disk)?;
    let bytes = layer.bytes.min(limit_bytes);
    if bytes > free {
        return Err(Bad::TooLarge { bytes, free });
    }
    fault::before(Step::NamespaceImportUnpack).map_err(Bad::Disk)?;
    let root = Root::open(&upper.path).map_err(refused)?;
    let image = Root::open(place.image).map_err(refused)?;
    file.seek(SeekFrom::Start(contents.layer_start))
        .map_err(Bad::Read)?;
    let stored = file.take(layer.compressed_bytes);
    let stored = Hashed::new(Told::new(stored, tell, 0, Some(layer.compressed_bytes)));
    let found = std::thread::scope(|scope| {
        let (supply, plain) = Ahead::new();
        let reading = scope.spawn(|| decompress(stored, supply));
        let plain = Roomy::new(plain, &root).map_err(Bad::Disk)?;
        let (written, plain) = WrittenBack::new(plain);
        let writing = scope.spawn(|| written.write_back(&root));
        let unpacked = unpack_plain(plain, layer, &root, &image, place);
        let was_written = writing.join().unwrap_or_else(|_| {
            let panicked = "the thread that writes it to the disk has panicked";
            Err(io::Error::other(panicked))
        });
        let read = reading.join().map_err(|_| {
            let panicked = "the thread that reads it has panicked";
            Bad::Read(io::Error::other(panicked))
        });
        let unpacked = unpacked.and(read?)?;
        was_written.map_err(Bad::Disk)?;
        Ok(unpacked)
    })?;
    // Somebody may have written to it since it was checked.
    check_digest(&layer.file, &layer.sha256, &found)?;
    fault::before(Step::NamespaceImportUnpacked)
        .and_then(|()| Ok(rustix::fs::syncfs(&root)?))
        .and_then(|()| fault::before(Step::NamespaceImported))
        .map_err(Bad::Disk)
}

/// The digest of what is stored.
fn decompress(mut stored: Hashed<Told<impl Read>>, supply: Supply) -> Result<String, Bad> {
    supply.read_all(zstd::Decoder::new(&mut stored).map_err(Bad::Read)?);
    io::copy(&mut stored, &mut io::sink()).map_err(Bad::Read)?;
    let (told, found) = stored.finish();
    told.finish();
    Ok(found)
}

fn unpack_plain(
    plain: impl Read,
    layer: &Layer,
    root: &Root,
    image: &Root,
    place: &Place<'_>,
) -> Result<(), Bad> {
    let limits = Limits::default();
    let most_files = (place.limit_bytes / FILE_BYTES).saturating_add(FREE_FILES);
    let limits = limits
        .with_total_bytes(layer.bytes)
        .with_written_bytes(place.limit_bytes)
        .with_entries(limits.entries.min(most_files));
    // One byte more, so that too long is seen.
    let limit = layer.bytes.saturating_add(1);
    let mut plain = plain.take(limit);
    let options = UnpackOptions::default()
        .with_special_bits(true)
        .with_root_metadata(true)
        .with_overwrite(false)
        .with_ownership(ownership(place.id_base))
        .with_limits(limits);
    let unpacked = unpack_overlay(&mut plain, root, Some(image), place.marks, &options);
    unpacked.map_err(|error| match error {
        ArchiveError::Limit {
            which: LimitKind::WrittenBytes | LimitKind::Entries,
            ..
        } => Bad::OverLimit {
            limit_bytes: place.limit_bytes,
        },
        error => refused(error),
    })?;
    io::copy(&mut plain, &mut io::sink()).map_err(|error| Bad::Archive(error.to_string()))?;
    match limit - plain.limit() == layer.bytes {
        true => Ok(()),
        false => Err(Bad::Archive(format!(
            "its {} does not unpack to the {} bytes that it should",
            layer.file, layer.bytes
        ))),
    }
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
        ArchiveError::Stream { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            Bad::Disk(source)
        }
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

/// What fuzz/ reads and writes.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use std::path::Path;

    use super::{Marks, Place, format, open};
    use crate::error::{Error, Result};
    use blink_host::transfer::tell_nobody;

    pub(crate) fn write(archive: &Path, session: &[u8], layer: &[u8]) -> Result<()> {
        format::write(archive, session, &tell_nobody(), |stream| {
            stream
                .write_all(layer)
                .map_err(|error| Error::io("the layer", &error))
        })
    }

    pub(crate) fn read(archive: &Path, disk: &Path, image: &Path) -> Result<Vec<u8>> {
        let checked = open(archive)?;
        let place = Place {
            disk,
            image,
            marks: Marks::User,
            id_base: None,
            limit_bytes: crate::DEFAULT_DISK_MIB << 20,
        };
        checked.unpack(&place, &tell_nobody())?;
        Ok(checked.session().to_vec())
    }
}
