//! How a file transfer ends: both ends count what passes, and compare.

use minicbor::{Decode, Encode};

use crate::Message;

/// The body of the END frame of a file transfer: what its sender has sent, which the receiver compares with what
/// arrived before it believes any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Trailer {
    /// Bytes of the stream.
    #[n(0)]
    pub bytes: u64,
    /// CRC-32 (IEEE) of the stream.
    #[n(1)]
    pub crc32: u32,
}

impl Message for Trailer {
    const NAME: &'static str = "transfer trailer";
}

/// Length and checksum of one direction of a file transfer, as far as it has gone.
///
/// # Examples
///
/// ```
/// let mut counted = blink_wire::Counted::default();
/// counted.add(b"1234");
/// counted.add(b"56789");
/// assert_eq!(counted.bytes(), 9);
/// assert_eq!(counted.trailer().crc32, 0xcbf4_3926);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Counted {
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl Counted {
    /// Counts the next bytes of the stream.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc.update(bytes);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The trailer of a stream that ends here.
    pub fn trailer(&self) -> Trailer {
        Trailer {
            bytes: self.bytes,
            crc32: self.crc.clone().finalize(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stream_of_nothing_has_a_trailer() {
        let trailer = Counted::default().trailer();
        assert_eq!(trailer, Trailer { bytes: 0, crc32: 0 });
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_stream_is_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut whole = Counted::default();
            whole.add(&bytes);
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
            let mut parts = Counted::default();
            parts.add(first);
            // A trailer ends nothing: the stream may go on.
            prop_assert_eq!(parts.trailer().bytes, first.len() as u64);
            parts.add(second);
            prop_assert_eq!(parts.trailer(), whole.trailer());
        }
    }
}
