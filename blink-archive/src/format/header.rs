//! One 512-byte header block, decoded and encoded without I/O, allocation or panic.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 100 | name |
//! | 100 | 8 | mode |
//! | 108 | 8 | user id |
//! | 116 | 8 | group id |
//! | 124 | 12 | size of what follows |
//! | 136 | 12 | modification time |
//! | 148 | 8 | sum of all bytes, these eight taken as spaces |
//! | 156 | 1 | type |
//! | 157 | 100 | link name |
//! | 257 | 8 | magic and version |
//! | 329 | 8 | major number of a device |
//! | 337 | 8 | minor number of a device |
//! | 345 | 155 | ustar: the path before the name |
//! | 386 | 96 | GNU sparse: four pairs of offset and length |
//! | 482 | 1 | GNU sparse: more pairs follow in a block of their own |
//! | 483 | 12 | GNU sparse: the file's real size |
//!
//! Numbers are octal text, or big-endian with the first bit set.

use crate::error::ArchiveError;

/// The unit of the format: headers are one, contents are padded to one.
pub(crate) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Device,
    /// A character device 0/0, by which an overlay hides a name.
    Whiteout,
    Directory,
    Fifo,
    GnuSparse,
    GnuLongName,
    GnuLongLink,
    PaxLocal,
    PaxGlobal,
    Other,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            0 | b'0' | b'7' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' | b'4' => Self::Device,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            b'S' => Self::GnuSparse,
            b'L' => Self::GnuLongName,
            b'K' => Self::GnuLongLink,
            b'x' => Self::PaxLocal,
            b'g' => Self::PaxGlobal,
            _ => Self::Other,
        }
    }

    /// Whether nothing follows the header, whatever its size field says. Some
    /// writers state a size for folders and links; every reader in use ignores it.
    pub(crate) fn is_header_only(self) -> bool {
        matches!(
            self,
            Self::HardLink
                | Self::Symlink
                | Self::Device
                | Self::Whiteout
                | Self::Directory
                | Self::Fifo
        )
    }
}

/// A header block whose checksum is right.
pub(crate) struct Header<'a>(&'a [u8; BLOCK]);

const DAMAGED_NUMBER: ArchiveError = ArchiveError::Corrupt {
    why: "a number in a header cannot be read",
};

impl<'a> Header<'a> {
    pub(crate) fn decode(block: &'a [u8; BLOCK]) -> Result<Self, ArchiveError> {
        let header = Self(block);
        let stated = number(&block[148..156]).ok_or(DAMAGED_NUMBER)?;
        let outside = || block[..148].iter().chain(&block[156..]);
        let unsigned = outside().map(|byte| i64::from(*byte)).sum::<i64>() + 8 * 32;
        // Some old writers summed signed characters.
        let signed = outside()
            .map(|byte| i64::from(byte.cast_signed()))
            .sum::<i64>()
            + 8 * 32;
        if stated != unsigned && stated != signed {
            return Err(ArchiveError::Corrupt {
                why: "the checksum of a header is wrong",
            });
        }
        Ok(header)
    }

    fn field(&self, from: usize, length: usize) -> &'a [u8] {
        &self.0[from..from + length]
    }

    fn number(&self, from: usize, length: usize) -> Result<i64, ArchiveError> {
        number(self.field(from, length)).ok_or(DAMAGED_NUMBER)
    }

    fn natural(&self, from: usize, length: usize) -> Result<u64, ArchiveError> {
        u64::try_from(self.number(from, length)?).map_err(|_| DAMAGED_NUMBER)
    }

    pub(crate) fn kind(&self) -> Kind {
        match Kind::of(self.0[156]) {
            Kind::Device if self.is_whiteout() => Kind::Whiteout,
            kind => kind,
        }
    }

    fn is_whiteout(&self) -> bool {
        self.0[156] == b'3'
            && number(self.field(329, 8)) == Some(0)
            && number(self.field(337, 8)) == Some(0)
    }

    pub(crate) fn name(&self) -> &'a [u8] {
        text(self.field(0, 100))
    }

    /// The path before the name, which only ustar headers have there.
    pub(crate) fn prefix(&self) -> &'a [u8] {
        if self.field(257, 6) == b"ustar\0" {
            text(self.field(345, 155))
        } else {
            b""
        }
    }

    pub(crate) fn link(&self) -> &'a [u8] {
        text(self.field(157, 100))
    }

    pub(crate) fn mode(&self) -> Result<u32, ArchiveError> {
        let mode = self.number(100, 8)? & 0o7777;
        u32::try_from(mode).map_err(|_| DAMAGED_NUMBER)
    }

    pub(crate) fn uid(&self) -> Result<u64, ArchiveError> {
        self.natural(108, 8)
    }

    pub(crate) fn gid(&self) -> Result<u64, ArchiveError> {
        self.natural(116, 8)
    }

    pub(crate) fn size(&self) -> Result<u64, ArchiveError> {
        self.natural(124, 12)
    }

    pub(crate) fn mtime(&self) -> Result<i64, ArchiveError> {
        self.number(136, 12)
    }

    pub(crate) fn sparse_pairs(&self) -> &'a [u8] {
        self.field(386, 96)
    }

    pub(crate) fn sparse_continues(&self) -> bool {
        self.0[482] != 0
    }

    pub(crate) fn sparse_real_size(&self) -> Result<u64, ArchiveError> {
        self.natural(483, 12)
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Reads a number field; empty is zero, anything odd is `None`.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement, big-endian, the first bit being the mark.
        let negative = first & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        let first = if negative { first | 0x80 } else { first & 0x7f };
        for byte in std::iter::once(&first).chain(rest) {
            value = value.checked_mul(256)? | i64::from(*byte);
        }
        return Some(value);
    }
    let digits = text(field).trim_ascii();
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

/// What [`encode`] writes. Longer names and larger numbers go into a pax record,
/// and what is here is then cut to fit.
pub(crate) struct Fields<'a> {
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
}

impl Fields<'_> {
    pub(crate) const LONGEST_NAME: usize = 100;
    pub(crate) const LARGEST_ID: u32 = 0o7_777_777;
    pub(crate) const LARGEST_SIZE: u64 = 0o77_777_777_777;
}

/// Writes a ustar header.
pub(crate) fn encode(fields: &Fields<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put_text(&mut block[..100], fields.name);
    put_octal(&mut block[100..108], u64::from(fields.mode));
    put_octal(
        &mut block[108..116],
        u64::from(fields.uid.min(Fields::LARGEST_ID)),
    );
    put_octal(
        &mut block[116..124],
        u64::from(fields.gid.min(Fields::LARGEST_ID)),
    );
    put_octal(&mut block[124..136], fields.size.min(Fields::LARGEST_SIZE));
    let mtime = u64::try_from(fields.mtime).unwrap_or(0);
    put_octal(&mut block[136..148], mtime.min(Fields::LARGEST_SIZE));
    block[148..156].fill(b' ');
    block[156] = fields.kind;
    put_text(&mut block[157..257], fields.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum = block.iter().map(|byte| u64::from(*byte)).sum();
    put_octal(&mut block[148..155], sum);
    block
}

fn put_text(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Octal digits and a final zero byte; the value is known to fit.
fn put_octal(field: &mut [u8], mut value: u64) {
    let Some((end, digits)) = field.split_last_mut() else {
        return;
    };
    *end = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 8) as u8;
        value /= 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_every_writer() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"00000000000\0"), Some(0));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777"), Some(0o77_777_777));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\x02\0\0\0"), Some(1 << 33 >> 8));
        assert_eq!(
            number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            Some(-1)
        );
        assert_eq!(
            number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"),
            Some(-2)
        );
        assert_eq!(
            number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            None
        );
        assert_eq!(number(b"-1\0"), None);
        assert_eq!(number(b"99\0"), None);
        assert_eq!(number(b"6 4\0"), None);
    }

    #[test]
    fn golden_bytes() {
        let block = encode(&Fields {
            kind: b'0',
            name: b"a",
            link: b"",
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: 3,
            mtime: 4,
        });
        assert_eq!(&block[..3], b"a\0\0");
        assert_eq!(
            &block[100..156],
            b"0000644\x000000001\x000000002\x0000000000003\x0000000000004\x00006110\0 "
        );
        assert_eq!(&block[257..265], b"ustar\x0000");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            name in proptest::collection::vec(1u8..=255, 1..100),
            link in proptest::collection::vec(1u8..=255, 0..100),
            mode in 0u32..0o10000, uid in 0u32..=Fields::LARGEST_ID, gid in 0u32..=Fields::LARGEST_ID,
            size in 0u64..=Fields::LARGEST_SIZE, mtime in 0i64..1 << 33,
        ) {
            let block = encode(&Fields { kind: b'2', name: &name, link: &link, mode, uid, gid, size, mtime });
            let header = Header::decode(&block).unwrap();
            prop_assert_eq!(header.kind(), Kind::Symlink);
            prop_assert_eq!(header.name(), &name);
            prop_assert_eq!(header.link(), &link);
            prop_assert_eq!(header.mode().unwrap(), mode);
            prop_assert_eq!(header.uid().unwrap(), u64::from(uid));
            prop_assert_eq!(header.gid().unwrap(), u64::from(gid));
            prop_assert_eq!(header.size().unwrap(), size);
            prop_assert_eq!(header.mtime().unwrap(), mtime);
        }

        #[test]
        fn arbitrary_numbers_do_not_panic(field in proptest::collection::vec(any::<u8>(), 0..13)) {
            let _ = number(&field);
        }
    }
}
