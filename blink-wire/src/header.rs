//! The header before each body.
//!
//! All integers are little-endian.
//!
//! | offset | size | field       |                                                                  |
//! |-------:|-----:|-------------|------------------------------------------------------------------|
//! |      0 |    4 | magic       | `0x424C494E`; `4E 49 4C 42` on the wire                          |
//! |      4 |    1 | version     | 1                                                                |
//! |      5 |    1 | type        | a [`FrameType`]; any value is accepted                           |
//! |      6 |    2 | flags       | bit 0 is END; the others are written as 0 and ignored when read  |
//! |      8 |    4 | body length | bytes after the header; at most the limit of the channel         |
//! |     12 |    8 | request id  | the request or stream that the frame belongs to; 0 is the connection |

use std::fmt;

use thiserror::Error;

/// The first four bytes of every frame, as a number.
pub const MAGIC: u32 = 0x424C_494E;

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

/// The length of a header in bytes.
pub const HEADER_LEN: usize = 20;

const FLAG_END: u16 = 1 << 0;

/// What a frame is. Any byte is a type; those that this version names are constants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameType(pub u8);

macro_rules! frame_types {
    ($($(#[$doc:meta])* $constant:ident = $value:literal, $name:literal;)*) => {
        impl FrameType {
            $($(#[$doc])* pub const $constant: FrameType = FrameType($value);)*

            /// The type's name in the specification, or `None` for a type that this version does not know.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

frame_types! {
    /// Opens a connection: versions and capabilities.
    HANDSHAKE = 0x01, "Handshake";
    /// Shows that the sender lives; answered with the same body.
    HEARTBEAT = 0x02, "Heartbeat";
    /// Says that a frame was refused, and why.
    ERROR = 0x03, "Error";
    /// Gives the peer more credit to send on a stream's channel.
    WINDOW_UPDATE = 0x04, "WindowUpdate";
    /// Calls a function.
    RPC_REQUEST = 0x10, "RpcRequest";
    /// A call's result.
    RPC_RESPONSE = 0x11, "RpcResponse";
    /// A call's failure.
    RPC_ERROR = 0x12, "RpcError";
    /// A part of a call that is longer than one frame; the call itself follows with the rest.
    RPC_PART = 0x13, "RpcPart";
    /// Bytes of a stream that is not a process's.
    STREAM_DATA = 0x20, "StreamData";
    /// A terminal's new size.
    TTY_RESIZE = 0x21, "TtyResize";
    /// Bytes that a process wrote to its standard output.
    STDOUT = 0x30, "Stdout";
    /// Bytes that a process wrote to its standard error.
    STDERR = 0x31, "Stderr";
    /// Bytes for a process's standard input.
    STDIN = 0x32, "Stdin";
    /// How a process ended.
    EXIT = 0x33, "Exit";
}

impl FrameType {
    /// Whether this version of the protocol names the type.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.name().is_some()
    }
}

impl fmt::Debug for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "FrameType({:#04x})", self.0),
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the frame is.
    pub frame_type: FrameType,
    /// Whether this is the last frame that the sender sends on the stream.
    pub end: bool,
    /// The body's length in bytes.
    pub body_len: u32,
    /// The request or stream that the frame belongs to; 0 is the connection itself.
    pub request_id: u64,
}

impl Header {
    /// The header as it goes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let flags = if self.end { FLAG_END } else { 0 };
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        bytes[5] = self.frame_type.0;
        bytes[6..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.request_id.to_le_bytes());
        bytes
    }

    /// Reads a header from a channel whose bodies are at most `body_limit` bytes long.
    ///
    /// Types that this version does not know are accepted, and flags other than END are ignored.
    ///
    /// # Errors
    ///
    /// [`HeaderError`], checked in this order: the magic number, the version, the body's length. After any of them
    /// nothing more on the connection can be believed.
    pub fn decode(bytes: &[u8; HEADER_LEN], body_limit: u32) -> Result<Header, HeaderError> {
        let [
            m0,
            m1,
            m2,
            m3,
            version,
            frame_type,
            f0,
            f1,
            l0,
            l1,
            l2,
            l3,
            id @ ..,
        ] = *bytes;

        let magic = u32::from_le_bytes([m0, m1, m2, m3]);
        if magic != MAGIC {
            return Err(HeaderError::BadMagic(magic));
        }
        if version != VERSION {
            return Err(HeaderError::UnsupportedVersion(version));
        }
        let body_len = u32::from_le_bytes([l0, l1, l2, l3]);
        if body_len > body_limit {
            return Err(HeaderError::BodyTooLong {
                len: body_len,
                limit: body_limit,
            });
        }
        Ok(Header {
            frame_type: FrameType(frame_type),
            end: u16::from_le_bytes([f0, f1]) & FLAG_END != 0,
            body_len,
            request_id: u64::from_le_bytes(id),
        })
    }
}

/// Why a header was refused. The connection cannot go on after it: where the next frame begins is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The first four bytes are not BLIN's.
    #[error(
        "a frame begins with {0:#010x} instead of the magic number {MAGIC:#010x}: the peer does not speak BLIN, \
         or bytes before this frame were lost"
    )]
    BadMagic(u32),
    /// The version is not one that this crate speaks.
    #[error("the peer sent a frame of BLIN version {0}; only version {VERSION} is understood here")]
    UnsupportedVersion(u8),
    /// The body is longer than the channel allows.
    #[error(
        "the peer announced a body of {len} bytes; at most {limit} are allowed on this connection"
    )]
    BodyTooLong {
        /// The length that the header announced, in bytes.
        len: u32,
        /// The longest that is allowed, in bytes.
        limit: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_prints_its_name() {
        assert_eq!(format!("{:?}", FrameType::WINDOW_UPDATE), "WindowUpdate");
        assert_eq!(format!("{:?}", FrameType(0x7f)), "FrameType(0x7f)");
        assert!(FrameType::EXIT.is_known());
        assert!(!FrameType(0).is_known());
    }

    #[test]
    fn errors_are_sentences() {
        let error = HeaderError::BadMagic(0x1234);
        assert!(
            error
                .to_string()
                .contains("0x00001234 instead of the magic number 0x424c494e")
        );
        let error = HeaderError::BodyTooLong { len: 9, limit: 8 };
        assert_eq!(
            error.to_string(),
            "the peer announced a body of 9 bytes; at most 8 are allowed on this connection"
        );
    }
}
