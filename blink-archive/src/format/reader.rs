//! An archive's entries, one after another, from a stream.

use std::io::Read;
use std::path::PathBuf;

use crate::error::{ArchiveError, LimitKind};
use crate::format::header::{BLOCK, Header, Kind};
use crate::format::pax::{Attributes, Records, Time, decimal};
use crate::format::sparse::{self, Segment};

/// The largest extension header: names are at most 4 KiB, extended attributes
/// 64 KiB each, and GNU tar's longest sparse maps stay below this as well.
pub(crate) const LARGEST_EXTENSION: u64 = 1024 * 1024;

/// One entry, its extension headers applied.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: Time,
    /// Those whose names begin with `user.`.
    pub(crate) attributes: Attributes,
    /// The size of the file once written.
    pub(crate) size: u64,
    /// Where the content belongs; `None` for all of it from the start.
    pub(crate) map: Option<Vec<Segment>>,
}

/// Extension headers seen before the entry that they describe.
#[derive(Default)]
struct Pending {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records.is_none()
    }
}

pub(crate) struct Reader<R> {
    input: R,
    /// Bytes of the present entry's content that are still in the stream.
    content: u64,
    padding: u64,
    global: Records,
    end_marker_required: bool,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R, end_marker_required: bool) -> Self {
        Self {
            input,
            content: 0,
            padding: 0,
            global: Records::default(),
            end_marker_required,
        }
    }

    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// The next entry, or `None` at the archive's end. What was not read of the
    /// present entry's content is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, ArchiveError> {
        let mut pending = Pending::default();
        let mut block = [0; BLOCK];
        loop {
            self.skip_rest()?;
            if !self.read_block(&mut block)? {
                return if self.end_marker_required || !pending.is_empty() {
                    Err(ArchiveError::Truncated)
                } else {
                    Ok(None)
                };
            }
            if block == [0; BLOCK] {
                return self.finish(&pending);
            }
            let header = Header::decode(&block)?;
            match header.kind() {
                Kind::GnuLongName => set_once(&mut pending.name, self.read_name(&header)?)?,
                Kind::GnuLongLink => set_once(&mut pending.link, self.read_name(&header)?)?,
                Kind::PaxLocal => set_once(&mut pending.records, self.read_records(&header)?)?,
                Kind::PaxGlobal => self.global = self.read_global(&header)?,
                _ => return self.member(&header, pending).map(Some),
            }
        }
    }

    fn finish(&mut self, pending: &Pending) -> Result<Option<Member>, ArchiveError> {
        let mut block = [0; BLOCK];
        let lone = self.read_block(&mut block)? && block != [0; BLOCK];
        if lone || !pending.is_empty() {
            return Err(ArchiveError::Corrupt {
                why: "it goes on after its end, or ends within an entry",
            });
        }
        Ok(None)
    }

    fn member(&mut self, header: &Header<'_>, pending: Pending) -> Result<Member, ArchiveError> {
        let own = pending.records.unwrap_or_default();
        let sparse = own.sparse;
        let mut kind = header.kind();
        let stored = if kind.is_header_only() {
            0
        } else {
            own.size.map_or_else(|| header.size(), Ok)?
        };
        let path = sparse.name.or(own.path).or(pending.name);
        let path = path.unwrap_or_else(|| join(header.prefix(), header.name()));
        // Before ustar, a folder was a file whose name ends in a slash.
        if kind == Kind::File && path.last() == Some(&b'/') {
            kind = Kind::Directory;
        }
        let mtime = own.mtime.or(self.global.mtime);
        let mut member = Member {
            path,
            link: own
                .link
                .or(pending.link)
                .unwrap_or_else(|| header.link().to_vec()),
            kind,
            mode: header.mode()?,
            uid: own
                .uid
                .or(self.global.uid)
                .map_or_else(|| header.uid(), Ok)?,
            gid: own
                .gid
                .or(self.global.gid)
                .map_or_else(|| header.gid(), Ok)?,
            mtime: match mtime {
                Some(mtime) => mtime,
                None => Time {
                    seconds: header.mtime()?,
                    nanoseconds: 0,
                },
            },
            attributes: own.attributes,
            size: stored,
            map: None,
        };
        self.begin_content(stored);
        if kind == Kind::GnuSparse {
            let map = self.read_old_map(header)?;
            // The blocks of the map are not counted in the entry's size.
            self.begin_content(stored);
            member.size = header.sparse_real_size()?;
            member.kind = Kind::File;
            member.map = Some(map);
        } else if let (Kind::File, Some(real_size)) = (kind, sparse.real_size) {
            member.size = real_size;
            member.map = Some(if sparse.map_in_content {
                self.read_map_in_content()?
            } else {
                sparse.map
            });
        }
        if let Some(map) = &member.map {
            sparse::check(map, member.size, self.content)?;
        }
        Ok(member)
    }

    fn begin_content(&mut self, size: u64) {
        self.content = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Reads content of the present entry; it is an error to ask for more than
    /// there is.
    pub(crate) fn read_content(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        self.content = self
            .content
            .checked_sub(buffer.len() as u64)
            .ok_or(ArchiveError::Truncated)?;
        self.read_exact(buffer)
    }

    fn skip_rest(&mut self) -> Result<(), ArchiveError> {
        let mut left = self.content + self.padding;
        self.content = 0;
        self.padding = 0;
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let part = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.read_exact(&mut buffer[..part])?;
            left -= part as u64;
        }
        Ok(())
    }

    fn read_extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, ArchiveError> {
        let size = header.size()?;
        if size > LARGEST_EXTENSION {
            return Err(ArchiveError::Limit {
                which: LimitKind::Metadata,
                limit: LARGEST_EXTENSION,
                path: PathBuf::from("an extension header"),
            });
        }
        self.begin_content(size);
        let mut data = Vec::new();
        // Grown as bytes arrive, not by what the header claims.
        let read = self.input.by_ref().take(size).read_to_end(&mut data);
        read.map_err(read_failed)?;
        self.content = 0;
        if data.len() as u64 != size {
            return Err(ArchiveError::Truncated);
        }
        Ok(data)
    }

    fn read_name(&mut self, header: &Header<'_>) -> Result<Vec<u8>, ArchiveError> {
        let mut name = self.read_extension(header)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn read_records(&mut self, header: &Header<'_>) -> Result<Records, ArchiveError> {
        Records::parse(&self.read_extension(header)?)
    }

    fn read_global(&mut self, header: &Header<'_>) -> Result<Records, ArchiveError> {
        let records = self.read_records(header)?;
        if records.names_an_entry() {
            return Err(ArchiveError::Corrupt {
                why: "a global header gives a path or size to every entry",
            });
        }
        Ok(records)
    }

    fn read_old_map(&mut self, header: &Header<'_>) -> Result<Vec<Segment>, ArchiveError> {
        let mut map = Vec::new();
        sparse::push_pairs(&mut map, header.sparse_pairs())?;
        let mut continues = header.sparse_continues();
        let mut block = [0; BLOCK];
        while continues {
            if !self.read_block(&mut block)? {
                return Err(ArchiveError::Truncated);
            }
            let before = map.len();
            sparse::push_pairs(&mut map, &block[..504])?;
            continues = block[504] != 0;
            if continues && map.len() == before {
                return Err(ArchiveError::Corrupt {
                    why: "the map of a sparse file does not end",
                });
            }
        }
        Ok(map)
    }

    /// Version 1.0: a count, then offsets and lengths, one decimal number a
    /// line, padded to a whole block, all of it at the start of the content.
    fn read_map_in_content(&mut self) -> Result<Vec<Segment>, ArchiveError> {
        let mut lines = Lines::default();
        let count = lines.number(self)?;
        if count > sparse::MOST_SEGMENTS as u64 {
            return Err(ArchiveError::Corrupt {
                why: "a sparse file has too many parts",
            });
        }
        let mut map = Vec::new();
        for _ in 0..count {
            let offset = lines.number(self)?;
            let length = lines.number(self)?;
            sparse::push(&mut map, Segment { offset, length })?;
        }
        Ok(map)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        self.input.read_exact(buffer).map_err(read_failed)
    }

    /// Reads a whole block; false where the stream ends before its first byte.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, ArchiveError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(ArchiveError::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_failed(error)),
            }
        }
        Ok(true)
    }
}

/// Decimal lines read block by block from an entry's content.
struct Lines {
    block: [u8; BLOCK],
    next: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            block: [0; BLOCK],
            next: BLOCK,
        }
    }
}

impl Lines {
    fn number<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<u64, ArchiveError> {
        // More digits than any number of 64 bits has.
        let mut digits = [0; 20];
        for length in 0..digits.len() {
            if self.next == BLOCK {
                reader.read_content(&mut self.block)?;
                self.next = 0;
            }
            let byte = self.block[self.next];
            self.next += 1;
            if byte == b'\n' {
                return decimal(&digits[..length]);
            }
            digits[length] = byte;
        }
        Err(ArchiveError::Corrupt {
            why: "the map of a sparse file cannot be read",
        })
    }
}

fn read_failed(error: std::io::Error) -> ArchiveError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        ArchiveError::Truncated
    } else {
        ArchiveError::Stream {
            action: "read",
            source: error,
        }
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<(), ArchiveError> {
    // Readers differ in which of two they believe, and that is how one archive
    // is made to look like two.
    if slot.replace(value).is_some() {
        return Err(ArchiveError::Corrupt {
            why: "two extension headers of one kind describe the same entry",
        });
    }
    Ok(())
}

fn join(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(data in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut reader = Reader::new(data.as_slice(), true);
            while let Ok(Some(_)) = reader.next() {}
        }

        #[test]
        fn damaged_headers_do_not_panic(
            kind in proptest::sample::select(b"05SLKxg17".to_vec()),
            damage in proptest::collection::vec((0usize..BLOCK, any::<u8>()), 0..20),
            content in proptest::collection::vec(any::<u8>(), 0..1024),
        ) {
            let mut block = crate::format::encode(&crate::format::Fields {
                kind, name: b"a", link: b"b", mode: 0, uid: 0, gid: 0, size: content.len() as u64, mtime: 0,
            });
            for (at, byte) in damage {
                block[at] = byte;
            }
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            let stream = [&block[..], &content, &[0; 2048]].concat();
            let mut reader = Reader::new(stream.as_slice(), true);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
