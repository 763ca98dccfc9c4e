//! What an archive is made of, apart from the disk in it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use blink_host::room::Roomy;
use blink_host::transfer::{Hashed, Tell, Told, sha256};
use serde::{Deserialize, Serialize};

use crate::engine::unfinished::{Unfinished, not_written};
use crate::error::{Error, ErrorKind, Result};

const FORMAT: &str = "blink-namespace";
const VERSION: u32 = 1;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const SESSION: &str = "session.json";
pub(super) const LAYER: &str = "layers/0000.tar.zst";

pub(super) const BLOCK: u64 = 512;

/// The manifest is written when the layer is known; it needs less than half of this.
pub(super) const MANIFEST_ROOM: u64 = 1024;

/// What a text that others have written may need at most.
const TEXT_LIMIT: u64 = 1 << 20;

/// As far as zstd can go: 128 KiB in four bytes.
pub(super) const EXPANSION_LIMIT: u64 = 1 << 15;

/// What zstd recommends between speed and size.
const COMPRESSION_LEVEL: i32 = 3;

/// What reads the files keeps one processor busy.
const COMPRESSING_THREADS: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: String,
    version: u32,
    session: Text,
    /// Exactly one in this version.
    layers: [Layer; 1],
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    file: String,
    /// In hexadecimal digits.
    sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layer {
    pub(super) file: String,
    /// Of the tar.
    pub(super) bytes: u64,
    pub(super) compressed_bytes: u64,
    /// Of the compressed tar, in hexadecimal digits.
    pub(super) sha256: String,
}

/// What an archive holds.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) session: Vec<u8>,
    pub(super) layer: Layer,
    /// Where it is in the file.
    pub(super) layer_start: u64,
}

/// Writes an archive around what `pack` writes.
pub(super) fn write(
    archive: &Path,
    session: &[u8],
    tell: &Tell,
    pack: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let failed = |error: io::Error| not_written(archive, &error);
    let mut unfinished = Unfinished::create(archive)?;
    if session.len() as u64 > TEXT_LIMIT {
        return Err(Error::invalid(
            "what the session was made with is too long for an archive; make it with a shorter environment",
        ));
    }
    let mut file = unfinished.file();
    let start = layer_start(session);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let place = file.try_clone().map_err(failed)?;
    let compressed = Roomy::new(Hashed::new(&mut file), &place).map_err(failed)?;
    let mut encoder = zstd::Encoder::new(compressed, COMPRESSION_LEVEL).map_err(failed)?;
    // Files are read, and what is packed is written, beside the packing.
    encoder.multithread(COMPRESSING_THREADS).map_err(failed)?;
    let mut plain = Told::new(encoder, tell, 0, None);
    pack(&mut plain)?;
    let (encoder, bytes) = plain.finish();
    let compressed = encoder.finish().map_err(failed)?.into_inner();
    let layer = Layer {
        file: LAYER.to_owned(),
        bytes,
        compressed_bytes: compressed.count,
        sha256: compressed.hex(),
    };
    finish(file, session, layer).map_err(failed)?;
    unfinished.finish()
}

/// After the manifest, the session and a header for each of the three.
pub(super) fn layer_start(session: &[u8]) -> u64 {
    3 * BLOCK + MANIFEST_ROOM + (session.len() as u64).next_multiple_of(BLOCK)
}

/// Writes what follows the layer, and then what stands before it.
fn finish(file: &mut File, session: &[u8], layer: Layer) -> io::Result<()> {
    let padding = layer.compressed_bytes.wrapping_neg() % BLOCK;
    file.write_all(&vec![0; usize::try_from(padding + 2 * BLOCK).unwrap_or(0)])?;
    let header = tar_header(LAYER, layer.compressed_bytes)?;
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        session: Text {
            file: SESSION.to_owned(),
            sha256: sha256(session),
        },
        layers: [layer],
    };
    let mut text = serde_json::to_vec(&manifest)?;
    text.resize(usize::try_from(MANIFEST_ROOM).unwrap_or(0), b' ');
    file.rewind()?;
    file.write_all(&tar_header(MANIFEST, MANIFEST_ROOM)?)?;
    file.write_all(&text)?;
    file.write_all(&tar_header(SESSION, session.len() as u64)?)?;
    file.write_all(session)?;
    let padding = session.len().next_multiple_of(512) - session.len();
    file.write_all(&[0; 512][..padding])?;
    file.write_all(&header)
}

pub(super) fn tar_header(name: &str, size: u64) -> io::Result<[u8; 512]> {
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

/// Why an archive is of no use.
pub(super) enum Bad {
    Archive(String),
    /// It is one of a micro-VM.
    OtherEngine,
    Future(u32),
    TooLarge {
        bytes: u64,
        free: u64,
    },
    /// Its disk holds more than it may here.
    OverLimit {
        limit_bytes: u64,
    },
    Read(io::Error),
    Disk(io::Error),
}

impl Bad {
    pub(super) fn told(self, archive: &Path) -> Error {
        let shown = archive.display();
        match self {
            Bad::Archive(why) => Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{shown} is not a whole archive of a session in namespaces: {why}; nothing of it was used, export it \
                     again"
                ),
            ),
            Bad::OtherEngine => Error::invalid(format!(
                "{shown} seems to be an archive of a session in a micro-VM, which only micro-VMs can import; ask for \
                 isolation \"microvm\" (--isolation microvm)"
            )),
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
            Bad::OverLimit { limit_bytes } => Error::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "{shown} holds more than the {} MiB that the session's disk may; disk_mib (--disk-mib) allows more",
                    limit_bytes >> 20
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

/// Reads the archive from its beginning to its end; what it says of its layer is then true.
pub(super) fn check(mut file: &File) -> Result<Contents, Bad> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let length = file.metadata().map_err(Bad::Read)?.len();
    let header = read_block(file)?;
    if header.starts_with(&ZSTD) {
        return Err(Bad::OtherEngine);
    }
    let text = read_text(file, read_header(&header, MANIFEST)?, MANIFEST)?;
    let manifest = read_manifest(&text)?;
    let [layer] = manifest.layers;

    let size = read_header(&read_block(file)?, SESSION)?;
    let session = read_text(file, size, SESSION)?;
    if manifest.session.file != SESSION {
        return bad(format!("its {MANIFEST} describes another file"));
    }
    check_digest(SESSION, &manifest.session.sha256, &sha256(&session))?;

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
    check_digest(LAYER, &layer.sha256, &hashed.hex())?;
    skip_zeros(file.take(size.wrapping_neg() % BLOCK))?;
    match skip_zeros(file)? {
        end if end >= 2 * BLOCK => Ok(Contents {
            session,
            layer,
            layer_start,
        }),
        _ => bad("it ends too early"),
    }
}

fn read_text(file: &File, size: u64, name: &str) -> Result<Vec<u8>, Bad> {
    if size > TEXT_LIMIT {
        return bad(format!("its {name} has {size} bytes"));
    }
    let mut text = Vec::new();
    file.take(size).read_to_end(&mut text).map_err(Bad::Read)?;
    if text.len() as u64 != size {
        return bad("it ends too early");
    }
    skip_zeros(file.take(size.wrapping_neg() % BLOCK))?;
    Ok(text)
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

pub(super) fn check_digest(file: &str, stated: &str, found: &str) -> Result<(), Bad> {
    match found == stated {
        true => Ok(()),
        false => bad(format!(
            "its {file} has the checksum {found}, and should have {stated:?}"
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
