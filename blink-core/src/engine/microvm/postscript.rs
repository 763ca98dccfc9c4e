//! What Blink has to say of a session, behind the engine's archive of its disk.
//!
//! It is a skippable frame of zstd's, which every reader of the compressed tar passes over:
//!
//! | bytes | |
//! |---|---|
//! | 4 | `50 2A 4D 18`, as zstd has it |
//! | 4 | length of what follows, little-endian |
//! | any | the text |
//! | 32 | its SHA-256 |
//! | 4 | length of the text, little-endian |
//! | 4 | `BLNK` |
//!
//! It is found from the file's end, and not believed before its checksum is right.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};

const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
const MAGIC: [u8; 4] = *b"BLNK";

const HEAD: usize = 8;
const TAIL: usize = 32 + 4 + 4;

/// What was made with names and an environment is far below this.
const TEXT_LIMIT: usize = 1 << 20;

/// Writes the text behind all that is in the file.
pub(super) fn append(file: &mut File, text: &[u8]) -> io::Result<()> {
    if text.len() > TEXT_LIMIT {
        let why = "what the session was made with is too long for an archive";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let length = |length: usize| u32::try_from(length).unwrap_or_default().to_le_bytes();
    let mut frame = Vec::with_capacity(HEAD + text.len() + TAIL);
    frame.extend(SKIPPABLE);
    frame.extend(length(text.len() + TAIL));
    frame.extend(text);
    frame.extend(Sha256::digest(text));
    frame.extend(length(text.len()));
    frame.extend(MAGIC);
    file.seek(SeekFrom::End(0))?;
    file.write_all(&frame)
}

/// The text; `None` if the file has none, as those that only the engine has written.
///
/// # Errors
/// Why it is damaged.
pub(super) fn read(mut file: &File) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: io::Error| error.to_string();
    let end = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let mut read_at = |start: u64, bytes: &mut [u8]| {
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        file.read_exact(bytes).map_err(failed)
    };
    let mut tail = [0; TAIL];
    let Some(tail_start) = end.checked_sub(TAIL as u64) else {
        return Ok(None);
    };
    read_at(tail_start, &mut tail)?;
    let (digest, rest) = tail.split_at(32);
    let (length, magic) = rest.split_at(4);
    if magic != MAGIC {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
    let damaged = || "what is said of its session is damaged".to_owned();
    let start = tail_start
        .checked_sub((length + HEAD) as u64)
        .filter(|_| length <= TEXT_LIMIT)
        .ok_or_else(damaged)?;
    let mut frame = vec![0; HEAD + length];
    read_at(start, &mut frame)?;
    let text = frame.split_off(HEAD);
    match Sha256::digest(&text)[..] == *digest {
        true => Ok(Some(text)),
        false => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &[u8]) -> (tempfile::NamedTempFile, Vec<u8>) {
        let archive = zstd::encode_all(&b"an archive"[..], 3).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&archive).unwrap();
        append(file.as_file_mut(), text).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        (file, bytes)
    }

    #[test]
    fn what_was_appended_is_read_and_other_readers_pass_over_it() {
        for text in [&b""[..], b"{}", &[7; 100_000]] {
            let (file, bytes) = with(text);
            assert_eq!(read(file.as_file()).unwrap().as_deref(), Some(text));
            assert_eq!(zstd::decode_all(&bytes[..]).unwrap(), b"an archive");
            // One that was cut off is nothing to pass over.
            assert!(zstd::decode_all(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn none_is_none_and_an_altered_one_is_damaged() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for content in [&b""[..], b"short", &[0; 1000]] {
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(read(file.as_file()).unwrap(), None);
        }
        let (file, good) = with(b"{\"version\":1}");
        let text_start = good.len() - TAIL - 13;
        for at in text_start..good.len() - MAGIC.len() {
            let mut altered = good.clone();
            altered[at] ^= 0x80;
            std::fs::write(file.path(), altered).unwrap();
            assert!(read(file.as_file()).is_err(), "byte {at}");
        }
        // It says that it is longer than the file.
        let mut longer = good[text_start..].to_vec();
        longer[13 + 32..13 + 36].copy_from_slice(&1000_u32.to_le_bytes());
        std::fs::write(file.path(), longer).unwrap();
        assert!(read(file.as_file()).is_err());
    }
}
