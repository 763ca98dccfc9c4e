//! The byte vectors in `golden.json`, which other languages' implementations read as well.

use blink_wire::{
    BodyError, Decoder, Frame, FrameType, Header, HeaderError, TtySize, WindowUpdate,
};
use bytes::BytesMut;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    protocol: String,
    version: u8,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    kind: String,
    body_limit: Option<u32>,
    hex: Option<String>,
    text: Option<String>,
    canonical: Option<bool>,
    error: Option<String>,
    header: Option<Fields>,
    frames: Option<Vec<Fields>>,
    window_update: Option<WindowFields>,
    tty_size: Option<TtySize>,
}

#[derive(Deserialize)]
struct Fields {
    r#type: u8,
    type_name: Option<String>,
    end: bool,
    request_id: String,
    body_length: Option<u32>,
    body_hex: Option<String>,
}

#[derive(Deserialize)]
struct WindowFields {
    channel: u8,
    credit: u32,
}

impl Fields {
    fn frame_type(&self) -> FrameType {
        let frame_type = FrameType(self.r#type);
        assert_eq!(frame_type.name(), self.type_name.as_deref());
        frame_type
    }

    fn request_id(&self) -> u64 {
        let digits = self.request_id.strip_prefix("0x").expect("0x comes first");
        u64::from_str_radix(digits, 16).expect("hexadecimal digits follow")
    }

    fn to_header(&self) -> Header {
        Header {
            frame_type: self.frame_type(),
            end: self.end,
            body_len: self.body_length.expect("a header has a body_length"),
            request_id: self.request_id(),
        }
    }

    fn to_frame(&self) -> Frame {
        Frame {
            frame_type: self.frame_type(),
            end: self.end,
            request_id: self.request_id(),
            body: unhex(self.body_hex.as_deref().expect("a frame has a body_hex")).into(),
        }
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hexadecimal digits"))
        .collect()
}

fn header_error(error: HeaderError) -> &'static str {
    match error {
        HeaderError::BadMagic(_) => "bad_magic",
        HeaderError::UnsupportedVersion(_) => "unsupported_version",
        HeaderError::BodyTooLong { .. } => "body_too_long",
        _ => "unnamed",
    }
}

fn body_error(error: &BodyError) -> &'static str {
    match error {
        BodyError::WrongLength { .. } => "wrong_length",
        BodyError::TooLong { .. } => "too_long",
        BodyError::ReservedNotZero => "reserved_not_zero",
        BodyError::ZeroCredit => "zero_credit",
        BodyError::BadTtySize(_) => "bad_tty_size",
        _ => "unnamed",
    }
}

impl Vector {
    fn bytes(&self) -> Vec<u8> {
        unhex(self.hex.as_deref().expect("the vector has hex"))
    }

    fn limit(&self) -> u32 {
        self.body_limit.expect("the vector has a body_limit")
    }

    fn canonical(&self) -> bool {
        self.canonical.expect("the vector says if it is canonical")
    }

    /// Checks that decoding ended as the vector says; true if it was a success.
    fn ended_as_told(&self, error: Option<&str>) -> bool {
        assert_eq!(error, self.error.as_deref());
        error.is_none()
    }

    fn check(&self) {
        match self.kind.as_str() {
            "header" => self.check_header(),
            "frames" => self.check_frames(),
            "window_update" => self.check_window_update(),
            "tty_size" => self.check_tty_size(),
            other => panic!("the kind {other} is not known"),
        }
    }

    fn check_header(&self) {
        let bytes = self.bytes().try_into().expect("a header has 20 bytes");
        let result = Header::decode(&bytes, self.limit());
        if self.ended_as_told(result.err().map(header_error)) {
            let header = result.unwrap();
            assert_eq!(header, self.header.as_ref().unwrap().to_header());
            assert_eq!(header.encode() == bytes, self.canonical());
        }
    }

    fn check_frames(&self) {
        let bytes = self.bytes();
        let mut decoder = Decoder::new(self.limit());
        decoder.buffer_mut().extend_from_slice(&bytes);
        let mut frames = Vec::new();
        let error = loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break decoder.finish().err().map(|_| "truncated"),
                Err(error) => break Some(header_error(error)),
            }
        };
        let expected: Vec<Frame> = self.frames.iter().flatten().map(Fields::to_frame).collect();
        assert_eq!(frames, expected);
        if self.ended_as_told(error) {
            let mut encoded = BytesMut::new();
            for frame in &frames {
                frame.encode_into(&mut encoded);
            }
            assert_eq!(encoded == bytes, self.canonical());
        }
    }

    fn check_window_update(&self) {
        let result = WindowUpdate::decode(&self.bytes());
        if self.ended_as_told(result.as_ref().err().map(body_error)) {
            let update = result.unwrap();
            let expected = self.window_update.as_ref().unwrap();
            assert_eq!(update.channel, FrameType(expected.channel));
            assert_eq!(update.credit, expected.credit);
            assert_eq!(update.encode() == *self.bytes(), self.canonical());
        }
    }

    fn check_tty_size(&self) {
        assert_eq!(self.text.as_deref().unwrap().as_bytes(), self.bytes());
        let result = TtySize::decode(&self.bytes());
        if self.ended_as_told(result.as_ref().err().map(body_error)) {
            let size = result.unwrap();
            assert_eq!(size, self.tty_size.unwrap());
            assert_eq!(size.encode() == self.bytes(), self.canonical());
        }
    }
}

#[test]
fn every_vector_decodes_as_told() {
    let golden: Golden = serde_json::from_str(include_str!("golden.json")).unwrap();
    assert_eq!(
        (golden.protocol.as_str(), golden.version),
        ("BLIN", blink_wire::VERSION)
    );
    assert!(golden.vectors.len() >= 64, "no vector was lost");
    for vector in &golden.vectors {
        let result = std::panic::catch_unwind(|| vector.check());
        assert!(result.is_ok(), "the vector {} fails", vector.name);
    }
}
