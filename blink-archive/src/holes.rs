//! Files with holes: parts that were never written, read as zeros, and occupy nothing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// A part of a file that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPart {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// The first part of an open file from `from` on that holds data; `None` if there is only a hole, or nothing.
///
/// A file system that does not tell of holes has none: the whole file is one part. The file's position is moved.
///
/// # Errors
/// The kernel's.
pub fn next_data(file: impl AsFd, from: u64) -> io::Result<Option<DataPart>> {
    let file = file.as_fd();
    let offset = match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(offset) => offset,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            let size = rustix::fs::fstat(file)?.st_size.cast_unsigned();
            let length = size.saturating_sub(from);
            let part = DataPart {
                offset: from,
                length,
            };
            return Ok((length > 0).then_some(part));
        }
        Err(error) => return Err(error.into()),
    };
    // What is cut off meanwhile ends here.
    let end = match rustix::fs::seek(file, SeekFrom::Hole(offset)) {
        Err(Errno::NXIO) => return Ok(None),
        end => end?,
    };
    Ok(Some(DataPart {
        offset,
        length: end.saturating_sub(offset),
    }))
}

/// Copies what an open file holds into a new one, with its holes; shares blocks where the file system can.
///
/// # Errors
/// The kernel's.
pub fn copy_file(from: &File, to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    if from.metadata()?.len() == 0 {
        // The kernel's own files have a content and no length.
        return io::copy(&mut &*from, &mut &*to).map(drop);
    }
    let mut at = 0;
    while let Some(DataPart { offset, length }) = next_data(from, at)? {
        let (mut from_at, mut to_at) = (offset, offset);
        let end = offset + length;
        while from_at < end {
            let part = usize::try_from(end - from_at).unwrap_or(usize::MAX);
            let copied =
                rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), part);
            match copied {
                // It was cut off meanwhile.
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    copy_by_hand(from, to, &mut from_at, end)?;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        at = end;
    }
    to.set_len(from.metadata()?.len())
}

/// Writes bytes at an offset of a new file, and leaves holes for whole blocks of zeros. Whoever has written all sets the
/// file's length, as it may end in a hole.
///
/// # Errors
/// The kernel's.
pub fn write_with_holes(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    /// What most file systems give and take at once.
    const BLOCK: u64 = 4096;
    let write = |from: usize, to: usize| match from < to {
        true => file.write_all_at(&bytes[from..to], at + from as u64),
        false => Ok(()),
    };
    let (mut data, mut here) = (0, 0);
    while here < bytes.len() {
        let rest = BLOCK - (at + here as u64) % BLOCK;
        let end = bytes
            .len()
            .min(here + usize::try_from(rest).unwrap_or(usize::MAX));
        if bytes[here..end].iter().all(|byte| *byte == 0) {
            write(data, here)?;
            data = end;
        }
        here = end;
    }
    write(data, here)
}

fn copy_by_hand(from: &File, to: &File, at: &mut u64, end: u64) -> io::Result<()> {
    const BUFFER: u64 = 64 * 1024;
    let mut buffer = vec![0; usize::try_from(BUFFER).unwrap_or(0)];
    while *at < end {
        let part = usize::try_from((end - *at).min(BUFFER)).unwrap_or(buffer.len());
        let read = from.read_at(&mut buffer[..part], *at)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..read], *at)?;
        *at += read as u64;
    }
    Ok(())
}
