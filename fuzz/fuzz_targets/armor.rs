//! The armor on hostile text in hostile pieces, and on hostile bytes there and back.
//!
//! The input's first bytes choose the pieces. Checked: cut anywhere, text is armor or is not, and carries the same
//! bytes; what comes out is never longer than three quarters of what went in; any bytes survive the round trip.
#![no_main]

use blink_wire::{ArmorDecoder, ArmorError, armor, armor_encode};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fn decode(text: &[u8], cuts: &[u8]) -> Result<BytesMut, ArmorError> {
    let mut decoder = ArmorDecoder::new();
    let mut raw = BytesMut::new();
    let mut cuts = cuts.iter().cycle();
    let mut rest = text;
    while !rest.is_empty() {
        let cut = cuts.next().map_or(usize::MAX, |&cut| usize::from(cut) + 1);
        let (piece, left) = rest.split_at(cut.min(rest.len()));
        let result = decoder.push(piece, &mut raw);
        assert!(raw.len() <= (text.len() - left.len()) / 4 * 3);
        if let Err(error) = result {
            assert_eq!(decoder.push(b"\n", &mut raw), Err(error), "it stays failed");
            return Err(error);
        }
        rest = left;
    }
    decoder.finish().map(|()| raw)
}

fuzz_target!(|input: &[u8]| {
    let (cuts, text) = input.split_at(input.len().min(4));
    let at_once = decode(text, &[]);
    let in_pieces = decode(text, cuts);
    assert_eq!(at_once.is_ok(), in_pieces.is_ok());
    if at_once.is_ok() {
        assert_eq!(at_once, in_pieces);
    }

    let mut armored = Vec::new();
    armor_encode(text, &mut armored);
    assert_eq!(armored.len(), armor::encoded_len(text.len()));
    assert!(armored.is_ascii());
    assert_eq!(decode(&armored, cuts).expect("it was just encoded"), text);
});
