//! The frame decoder on hostile bytes in hostile pieces.
//!
//! The input's first bytes choose the pieces; the rest is the stream. Checked: cut anywhere, the same frames and the
//! same end come out as in one piece; memory follows what came; frames encode to what they were decoded from.
#![no_main]

use blink_wire::{Decoder, Frame, HEADER_LEN, HeaderError, Truncated};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

/// Small enough that the fuzzer finds both sides of it.
const BODY_LIMIT: u32 = 40_000;
/// The most that a decoder may hold beside one frame: the room for one read.
const READ: usize = 256 << 10;

type Decoded = (Vec<Frame>, Result<Result<(), Truncated>, HeaderError>);

fn decode_at_once(stream: &[u8]) -> Decoded {
    let mut decoder = Decoder::new(BODY_LIMIT);
    decoder.buffer_mut().extend_from_slice(stream);
    let mut frames = Vec::new();
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Ok(decoder.finish())),
            Err(error) => return (frames, Err(error)),
        }
    }
}

fn decode_in_pieces(stream: &[u8], cuts: &[u8]) -> Decoded {
    let mut decoder = Decoder::new(BODY_LIMIT);
    let mut frames = Vec::new();
    let mut cuts = cuts.iter().cycle();
    let mut rest = stream;
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) if rest.is_empty() => return (frames, Ok(decoder.finish())),
            Ok(None) => {
                decoder.reserve();
                let buffer = decoder.buffer_mut();
                let capacity = buffer.capacity();
                assert!(capacity <= BODY_LIMIT as usize + HEADER_LEN + READ);
                // Small pieces find borders, the square of large ones gets through long bodies.
                let cut = usize::from(*cuts.next().unwrap_or(&0));
                let len = (cut * cut / 8 + 1)
                    .min(rest.len())
                    .min(capacity - buffer.len());
                assert!(len > 0, "there is room after reserve");
                buffer.extend_from_slice(&rest[..len]);
                rest = &rest[len..];
            }
            Err(error) => return (frames, Err(error)),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let (cuts, stream) = input.split_at(input.len().min(4));
    let decoded = decode_in_pieces(stream, cuts);
    assert_eq!(decoded, decode_at_once(stream));

    let mut encoded = BytesMut::new();
    for frame in &decoded.0 {
        let start = encoded.len();
        frame.encode_into(&mut encoded);
        let original = &stream[start..encoded.len()];
        let mut expected = original.to_vec();
        // Flags other than END are ignored when read.
        expected[6] &= 1;
        expected[7] = 0;
        assert_eq!(&encoded[start..], &expected[..]);
    }
});
