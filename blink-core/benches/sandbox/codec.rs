//! The codec by itself. `cargo bench -p blink-wire` measures it with more care.

use std::hint::black_box;
use std::time::Instant;

use blink_wire::{Decoder, Frame, FrameType, LINK_BODY_LIMIT};
use bytes::{Bytes, BytesMut};

use crate::measure::{GB, Rates};
use crate::report::Row;
use crate::setting::Setting;

const BODY: usize = 64 << 10;
const FRAMES: u64 = 64;

pub(crate) fn codec(setting: &Setting) -> Vec<Row> {
    let rounds = setting.pick(300, 30);
    let body: Bytes = (0..=u8::MAX).cycle().take(BODY).collect();
    let bytes = BODY as u64 * FRAMES;
    let frame = Frame::new(FrameType::STDOUT, 1, body.clone());
    let mut stream = BytesMut::new();
    (0..FRAMES).for_each(|_| frame.encode_into(&mut stream));

    let mut buffer = BytesMut::with_capacity(2 * BODY);
    let mut decoder = Decoder::new(LINK_BODY_LIMIT);
    let (mut encoded, mut copied_out) = (Rates::default(), Rates::default());
    let (mut decoded, mut copied_in) = (Rates::default(), Rates::default());
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..FRAMES {
            buffer.clear();
            black_box(&frame).encode_into(&mut buffer);
            black_box(&buffer);
        }
        encoded.add(bytes, start.elapsed());

        let start = Instant::now();
        for _ in 0..FRAMES {
            buffer.clear();
            buffer.extend_from_slice(black_box(&body));
            black_box(&buffer);
        }
        copied_out.add(bytes, start.elapsed());

        let start = Instant::now();
        decode(&mut decoder, black_box(&stream));
        decoded.add(bytes, start.elapsed());

        let start = Instant::now();
        for read in black_box(&stream).chunks(BODY) {
            buffer.clear();
            buffer.extend_from_slice(read);
            black_box(&buffer);
        }
        copied_in.add(bytes, start.elapsed());
    }
    vec![
        row("codec, 64 KiB frames, encode", &encoded, &copied_out),
        row(
            "codec, 64 KiB frames, decode with the copy in",
            &decoded,
            &copied_in,
        ),
    ]
}

/// As from a socket: room, a copy into it, every whole frame.
fn decode(decoder: &mut Decoder, mut stream: &[u8]) {
    while !stream.is_empty() {
        decoder.reserve();
        let buffer = decoder.buffer_mut();
        let room = buffer.capacity() - buffer.len();
        let (read, rest) = stream.split_at(stream.len().min(BODY).min(room));
        buffer.extend_from_slice(read);
        stream = rest;
        while let Ok(Some(frame)) = decoder.next_frame() {
            black_box(frame);
        }
    }
}

fn row(what: &str, ours: &Rates, copied: &Rates) -> Row {
    const TARGET: f64 = 5.0 * GB;
    Row::new(what, "≥ 5 GB/s")
        .reached(format!("{:.1} GB/s", ours.median() / GB))
        .met(ours.median() >= TARGET)
        .peer(
            "memcpy",
            format!("{:.1} GB/s", copied.median() / GB),
            ours.ratio(copied),
        )
        .value("gb_a_second", ours.median() / GB)
        .value("memcpy_gb_a_second", copied.median() / GB)
}
