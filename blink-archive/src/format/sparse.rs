//! Maps of sparse files: which parts of a file the archive really holds.

use crate::error::ArchiveError;
use crate::format::header::number;

/// A part of the file that has content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Segments of one file: 4 MiB of memory. GNU tar makes one for each run of
/// 512-byte blocks, so this is a very fragmented file.
pub(crate) const MOST_SEGMENTS: usize = 256 * 1024;

const DAMAGED: ArchiveError = ArchiveError::Corrupt {
    why: "the map of a sparse file cannot be read",
};

/// Adds the pairs of offset and length of an old GNU header.
pub(crate) fn push_pairs(map: &mut Vec<Segment>, pairs: &[u8]) -> Result<(), ArchiveError> {
    for pair in pairs.chunks_exact(24) {
        if pair[0] == 0 || pair[12] == 0 {
            return Ok(());
        }
        let natural = |field| {
            number(field)
                .and_then(|value| u64::try_from(value).ok())
                .ok_or(DAMAGED)
        };
        push(
            map,
            Segment {
                offset: natural(&pair[..12])?,
                length: natural(&pair[12..])?,
            },
        )?;
    }
    Ok(())
}

pub(crate) fn push(map: &mut Vec<Segment>, segment: Segment) -> Result<(), ArchiveError> {
    if map.len() >= MOST_SEGMENTS {
        return Err(ArchiveError::Corrupt {
            why: "a sparse file has too many parts",
        });
    }
    map.push(segment);
    Ok(())
}

/// Checks that the segments are in order, within the file, and together exactly
/// what the archive holds.
pub(crate) fn check(map: &[Segment], real_size: u64, stored: u64) -> Result<(), ArchiveError> {
    let mut end = 0;
    let mut sum: u64 = 0;
    for segment in map {
        if segment.offset < end {
            return Err(DAMAGED);
        }
        end = segment.offset.checked_add(segment.length).ok_or(DAMAGED)?;
        sum = sum.checked_add(segment.length).ok_or(DAMAGED)?;
    }
    if end > real_size || sum != stored {
        return Err(DAMAGED);
    }
    Ok(())
}
