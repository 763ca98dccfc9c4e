//! The body of a `TtyResize` frame: the JSON object `{"rows":N,"cols":N}`. Inside messages it is CBOR.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use serde::Deserialize;

use crate::{body::BodyError, limits::TTY_BODY_LIMIT};

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Encode, Decode)]
#[cbor(map)]
pub struct TtySize {
    /// Lines.
    #[n(0)]
    pub rows: u16,
    /// Characters in a line.
    #[n(1)]
    pub cols: u16,
}

impl TtySize {
    /// The body as it goes on the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        format!("{{\"rows\":{},\"cols\":{}}}", self.rows, self.cols).into()
    }

    /// Reads the body. Fields beside `rows` and `cols` are ignored.
    ///
    /// # Errors
    ///
    /// [`BodyError::TooLong`] beyond [`TTY_BODY_LIMIT`] bytes; [`BodyError::BadTtySize`] if it is not a JSON object
    /// with both numbers between 0 and 65535.
    pub fn decode(body: &[u8]) -> Result<TtySize, BodyError> {
        if body.len() > TTY_BODY_LIMIT {
            return Err(BodyError::TooLong {
                actual: body.len(),
                limit: TTY_BODY_LIMIT,
            });
        }
        // The parser would take an array of two numbers for the object as well.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(BodyError::BadTtySize("it is not a JSON object".into()));
        }
        serde_json::from_slice(body).map_err(|error| BodyError::BadTtySize(error.to_string()))
    }
}
