//! The codec's speed, with the copy of the same bytes beside it.
//!
//! `cargo bench -p blink-wire`. Throughput counts the bytes of bodies.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use blink_wire::{Decoder, Frame, FrameType, LINK_BODY_LIMIT};
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BULK: usize = 64 << 10;
const SMALL: usize = 64;
/// What a reader takes from a socket in one call while much comes.
const READ: usize = 64 << 10;
/// Frames in one iteration of the decoder, so that their borders wander through its blocks.
const FRAMES: usize = 64;

fn pattern(len: usize) -> Bytes {
    (0..len)
        .map(|i| u8::try_from((i * 7 + i / 251) % 256).expect("below 256"))
        .collect()
}

fn stream_of(body: &Bytes, frames: usize) -> BytesMut {
    let mut stream = BytesMut::new();
    for _ in 0..frames {
        Frame::new(FrameType::STDOUT, 1, body.clone()).encode_into(&mut stream);
    }
    stream
}

/// Reads `stream` as from a socket: room, a copy into it, every whole frame.
fn read_all(decoder: &mut Decoder, mut stream: &[u8]) {
    while !stream.is_empty() {
        decoder.reserve();
        let buffer = decoder.buffer_mut();
        let len = stream.len().min(READ).min(buffer.capacity() - buffer.len());
        buffer.extend_from_slice(&stream[..len]);
        stream = &stream[len..];
        while let Some(frame) = decoder.next_frame().expect("the stream is whole") {
            black_box(frame);
        }
    }
}

fn frames(criterion: &mut Criterion, name: &str, body_len: usize) {
    let body = pattern(body_len);
    let frame = Frame::new(FrameType::STDOUT, 1, body.clone());
    let mut group = criterion.benchmark_group(name);

    group.throughput(Throughput::Bytes(body_len as u64));
    let mut out = BytesMut::with_capacity(2 * body_len + 64);
    group.bench_function("memcpy of the body", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&body));
            black_box(&out);
        });
    });
    group.bench_function("encode into a reused buffer", |b| {
        b.iter(|| {
            out.clear();
            black_box(&frame).encode_into(&mut out);
            black_box(&out);
        });
    });

    let stream = stream_of(&body, FRAMES);
    group.throughput(Throughput::Bytes((body_len * FRAMES) as u64));
    let mut copy = BytesMut::with_capacity(stream.len());
    group.bench_function("memcpy of the stream in reads", |b| {
        b.iter(|| {
            for read in black_box(&stream).chunks(READ) {
                copy.clear();
                copy.extend_from_slice(read);
                black_box(&copy);
            }
        });
    });
    let mut decoder = Decoder::new(LINK_BODY_LIMIT);
    group.bench_function("decode with the copy in, bodies dropped", |b| {
        b.iter(|| read_all(&mut decoder, black_box(&stream)));
    });
    group.finish();
}

/// The decoder's own work: the frames are in its buffer already.
fn decode_alone(criterion: &mut Criterion, name: &str, body_len: usize) {
    let frames = (128 << 10) / body_len;
    let stream = stream_of(&pattern(body_len), frames);
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes((body_len * frames) as u64));
    group.bench_function("decode alone", |b| {
        b.iter_batched_ref(
            || {
                let mut decoder = Decoder::new(LINK_BODY_LIMIT);
                decoder.buffer_mut().extend_from_slice(&stream);
                decoder
            },
            |decoder| {
                while let Some(frame) = decoder.next_frame().expect("the stream is whole") {
                    black_box(frame);
                }
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn codec(criterion: &mut Criterion) {
    frames(criterion, "frames of 64 KiB", BULK);
    decode_alone(criterion, "frames of 64 KiB", BULK);
    frames(criterion, "frames of 64 bytes", SMALL);
    decode_alone(criterion, "frames of 64 bytes", SMALL);
}

criterion_group!(benches, codec);
criterion_main!(benches);
