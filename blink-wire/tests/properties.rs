//! Round trips, arbitrary bytes, arbitrary cuts, and memory that follows what came.

use blink_wire::{
    BodyError, Decoder, Frame, FrameType, HEADER_LEN, Header, HeaderError, LINK_BODY_LIMIT,
    Truncated, TtySize, VHUB_BODY_LIMIT, WindowUpdate,
};
use bytes::BytesMut;
use proptest::{collection::vec, prelude::*};

/// What a decoder made of an input: the frames, and how it ended.
type Decoded = (Vec<Frame>, Result<Result<(), Truncated>, HeaderError>);

/// Decodes `input` in pieces of the given lengths, over and over; bodies stay alive.
fn decode_in_pieces(input: &[u8], pieces: &[usize], limit: u32) -> Decoded {
    let mut decoder = Decoder::new(limit);
    let mut frames = Vec::new();
    let mut pieces = pieces.iter().cycle();
    let mut rest = input;
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) if rest.is_empty() => return (frames, Ok(decoder.finish())),
            Ok(None) => {
                decoder.reserve();
                let buffer = decoder.buffer_mut();
                let len = (*pieces.next().expect("there is a piece"))
                    .clamp(1, rest.len())
                    .min(buffer.capacity() - buffer.len());
                buffer.extend_from_slice(&rest[..len]);
                rest = &rest[len..];
            }
            Err(error) => {
                assert_eq!(decoder.next_frame(), Err(error), "it stays failed");
                return (frames, Err(error));
            }
        }
    }
}

fn decode_at_once(input: &[u8], limit: u32) -> Decoded {
    let mut decoder = Decoder::new(limit);
    decoder.buffer_mut().extend_from_slice(input);
    let mut frames = Vec::new();
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Ok(decoder.finish())),
            Err(error) => return (frames, Err(error)),
        }
    }
}

prop_compose! {
    fn any_frame()(
        frame_type: u8,
        end: bool,
        request_id: u64,
        body in prop_oneof![
            4 => vec(any::<u8>(), 0..64),
            1 => vec(any::<u8>(), 0..40_000),
        ],
    ) -> Frame {
        Frame { frame_type: FrameType(frame_type), end, request_id, body: body.into() }
    }
}

/// Bytes that are often a header, or nearly one.
fn nearly_header() -> impl Strategy<Value = [u8; HEADER_LEN]> {
    (
        any::<[u8; HEADER_LEN]>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(mut bytes, magic, version, short)| {
            if magic {
                bytes[..4].copy_from_slice(b"NILB");
            }
            if version {
                bytes[4] = 1;
            }
            if short {
                bytes[10..12].fill(0);
            }
            bytes
        })
}

proptest! {
    #[test]
    fn a_header_survives_the_round_trip(
        frame_type: u8, end: bool, body_len in 0..=LINK_BODY_LIMIT, request_id: u64,
    ) {
        let header = Header { frame_type: FrameType(frame_type), end, body_len, request_id };
        prop_assert_eq!(Header::decode(&header.encode(), LINK_BODY_LIMIT), Ok(header));
    }

    #[test]
    fn an_accepted_header_encodes_the_same_but_for_reserved_flags(
        bytes in nearly_header(), limit: u32,
    ) {
        if let Ok(header) = Header::decode(&bytes, limit) {
            let mut expected = bytes;
            expected[6] &= 1;
            expected[7] = 0;
            prop_assert_eq!(header.encode(), expected);
            prop_assert!(header.body_len <= limit);
        }
    }

    #[test]
    fn frames_survive_the_round_trip_however_they_are_cut(
        frames in vec(any_frame(), 0..12),
        pieces in vec(1usize..9000, 1..8),
    ) {
        let mut stream = BytesMut::new();
        for frame in &frames {
            frame.encode_into(&mut stream);
        }
        let (decoded, end) = decode_in_pieces(&stream, &pieces, LINK_BODY_LIMIT);
        prop_assert_eq!(&decoded, &frames);
        prop_assert_eq!(end, Ok(Ok(())));
        prop_assert_eq!(decode_at_once(&stream, LINK_BODY_LIMIT).0, frames);
    }

    #[test]
    fn a_cut_stream_gives_its_whole_frames_and_says_that_it_was_cut(
        frames in vec(any_frame(), 1..5), cut: prop::sample::Index,
    ) {
        let mut stream = BytesMut::new();
        let mut borders = vec![0];
        for frame in &frames {
            frame.encode_into(&mut stream);
            borders.push(stream.len());
        }
        let cut = cut.index(stream.len());
        let (decoded, end) = decode_in_pieces(&stream[..cut], &[4096], LINK_BODY_LIMIT);
        let whole = borders.iter().filter(|&&border| border <= cut).count() - 1;
        prop_assert_eq!(&decoded[..], &frames[..whole]);
        prop_assert_eq!(end.expect("every header is right").is_ok(), borders.contains(&cut));
    }

    #[test]
    fn arbitrary_bytes_decode_the_same_however_they_are_cut(
        headers in vec((nearly_header(), 0usize..300), 0..6),
        pieces in vec(1usize..100, 1..8),
    ) {
        let mut input = Vec::new();
        for (mut header, body_len) in headers {
            if header[0] == b'N' && body_len > 100 {
                header[8..12].copy_from_slice(&u32::try_from(body_len).unwrap().to_le_bytes());
            }
            input.extend_from_slice(&header);
            input.resize(input.len() + body_len, 7);
        }
        prop_assert_eq!(
            decode_in_pieces(&input, &pieces, 1000),
            decode_at_once(&input, 1000)
        );
    }

    #[test]
    fn a_window_update_survives_the_round_trip(channel: u8, credit in 1u32..) {
        let update = WindowUpdate { channel: FrameType(channel), credit };
        prop_assert_eq!(WindowUpdate::decode(&update.encode()), Ok(update));
    }

    #[test]
    fn an_accepted_window_update_encodes_the_same(body in vec(prop_oneof![Just(0u8), any::<u8>()], 0..10)) {
        if let Ok(update) = WindowUpdate::decode(&body) {
            prop_assert_eq!(&update.encode()[..], &body[..]);
        }
    }

    #[test]
    fn a_tty_size_survives_the_round_trip(rows: u16, cols: u16) {
        let size = TtySize { rows, cols };
        prop_assert_eq!(TtySize::decode(&size.encode()), Ok(size));
    }

    #[test]
    fn arbitrary_tty_sizes_never_panic(
        body in prop_oneof![
            vec(any::<u8>(), 0..300),
            "\\{\"rows\":[ -]?[0-9]{0,6},\"cols\":[0-9.e]{0,6}[},]{0,2}".prop_map(String::into_bytes),
        ],
    ) {
        let _ = TtySize::decode(&body);
    }
}

#[test]
fn an_announced_length_allocates_nothing() {
    let header = Header {
        frame_type: FrameType::STDOUT,
        end: false,
        body_len: LINK_BODY_LIMIT,
        request_id: 1,
    };
    let mut decoder = Decoder::new(LINK_BODY_LIMIT);
    decoder.reserve();
    let before = decoder.buffer_mut().capacity();
    decoder.buffer_mut().extend_from_slice(&header.encode());
    for _ in 0..100 {
        assert_eq!(decoder.next_frame(), Ok(None));
        decoder.reserve();
    }
    assert_eq!(decoder.buffer_mut().capacity(), before);
    assert!(before <= 8 << 10);
}

#[test]
fn memory_follows_what_came() {
    let frame = Frame::new(FrameType::RPC_REQUEST, 1, vec![7; VHUB_BODY_LIMIT as usize]);
    let mut stream = BytesMut::new();
    frame.encode_into(&mut stream);

    let mut decoder = Decoder::new(VHUB_BODY_LIMIT);
    let mut rest = &stream[..stream.len() - 1];
    let mut came = 0;
    while !rest.is_empty() {
        decoder.reserve();
        let buffer = decoder.buffer_mut();
        assert!(buffer.capacity() <= (2 * came).max(came + (256 << 10)));
        let len = (buffer.capacity() - buffer.len())
            .min(65_536)
            .min(rest.len());
        buffer.extend_from_slice(&rest[..len]);
        came += len;
        rest = &rest[len..];
        assert_eq!(decoder.next_frame(), Ok(None));
    }
    assert!(decoder.buffer_mut().capacity() <= VHUB_BODY_LIMIT as usize + HEADER_LEN + (256 << 10));
    decoder.buffer_mut().extend_from_slice(&[7]);
    assert_eq!(decoder.next_frame(), Ok(Some(frame)));

    for _ in 0..20 {
        decoder.reserve();
    }
    assert!(
        decoder.buffer_mut().capacity() <= 16 << 10,
        "what a long frame needed is given back"
    );
}

#[test]
fn a_short_body_does_not_keep_a_block_alive() {
    // A peer that is owed one byte at a time fills blocks with heartbeats between them.
    let mut stream = BytesMut::new();
    Frame::new(FrameType::STDOUT, 1, vec![7]).encode_into(&mut stream);
    Frame::new(FrameType::HEARTBEAT, 0, vec![0; 60_000]).encode_into(&mut stream);
    let mut decoder = Decoder::new(LINK_BODY_LIMIT);
    let mut kept = Vec::new();
    let mut blocks = std::collections::HashSet::new();
    for round in 0..200 {
        let mut rest = &stream[..];
        while !rest.is_empty() {
            decoder.reserve();
            let buffer = decoder.buffer_mut();
            let len = (buffer.capacity() - buffer.len()).min(rest.len());
            buffer.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
            while let Some(frame) = decoder.next_frame().unwrap() {
                if frame.frame_type == FrameType::STDOUT {
                    kept.push(frame.body);
                }
            }
        }
        if round >= 20 {
            blocks.insert(decoder.buffer_mut().as_ptr() as usize >> 20);
        }
    }
    assert_eq!(kept.len(), 200);
    assert!(blocks.len() <= 2, "one block serves all: {blocks:?}");
}

#[test]
fn a_long_body_is_not_copied() {
    let mut stream = BytesMut::new();
    Frame::new(FrameType::STDOUT, 1, vec![7; 65_536]).encode_into(&mut stream);
    let mut decoder = Decoder::new(LINK_BODY_LIMIT);
    decoder.buffer_mut().extend_from_slice(&stream);
    let read_to = decoder.buffer_mut().as_ptr() as usize;
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!(frame.body.as_ptr() as usize, read_to + HEADER_LEN);
}

#[test]
fn a_failed_decoder_holds_nothing() {
    let mut decoder = Decoder::new(LINK_BODY_LIMIT);
    decoder.buffer_mut().extend_from_slice(&[0; 10_000]);
    assert_eq!(decoder.next_frame(), Err(HeaderError::BadMagic(0)));
    assert_eq!(decoder.buffer_mut().capacity(), 0);
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn an_input_that_ends_inside_a_frame_says_where() {
    let mut stream = BytesMut::new();
    Frame::new(FrameType::STDOUT, 1, "hello").encode_into(&mut stream);
    let (_, end) = decode_at_once(&stream[..23], LINK_BODY_LIMIT);
    let truncated = end.unwrap().unwrap_err();
    assert_eq!((truncated.received, truncated.expected), (23, 25));
    assert_eq!(
        truncated.to_string(),
        "the connection ended inside a frame, after 23 of at least 25 bytes"
    );
    let (_, end) = decode_at_once(&stream[..3], LINK_BODY_LIMIT);
    assert_eq!(end.unwrap().unwrap_err().expected, HEADER_LEN);
}

#[test]
fn a_tty_size_of_more_than_its_limit_is_refused() {
    let body = format!("{{\"rows\":1,\"cols\":2{}}}", " ".repeat(300));
    assert!(matches!(
        TtySize::decode(body.as_bytes()),
        Err(BodyError::TooLong { .. })
    ));
}
