//! The body of a `WindowUpdate` frame.
//!
//! | offset | size | field   |                                                        |
//! |-------:|-----:|---------|--------------------------------------------------------|
//! |      0 |    1 | channel | the type of the data frames that the credit is for     |
//! |      1 |    3 |         | zero                                                   |
//! |      4 |    4 | credit  | bytes of body that the peer may send more; not zero    |

use crate::{body::BodyError, header::FrameType};

const BODY_LEN: usize = 8;

/// More credit for one channel of the stream that the frame's request id names.
///
/// The sum of all credit is the caller's to check, and so is whether the stream has such a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowUpdate {
    /// The type of the data frames that the credit is for, such as [`FrameType::STDOUT`].
    pub channel: FrameType,
    /// How many bytes of body the peer may send more. Never zero on the wire.
    pub credit: u32,
}

impl WindowUpdate {
    /// The body as it goes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; BODY_LEN] {
        let [c0, c1, c2, c3] = self.credit.to_le_bytes();
        [self.channel.0, 0, 0, 0, c0, c1, c2, c3]
    }

    /// Reads the body.
    ///
    /// # Errors
    ///
    /// [`BodyError::WrongLength`], [`BodyError::ReservedNotZero`] or [`BodyError::ZeroCredit`], checked in this order.
    pub fn decode(body: &[u8]) -> Result<WindowUpdate, BodyError> {
        let &[channel, r0, r1, r2, c0, c1, c2, c3] = body else {
            return Err(BodyError::WrongLength {
                actual: body.len(),
                expected: BODY_LEN,
            });
        };
        if [r0, r1, r2] != [0; 3] {
            return Err(BodyError::ReservedNotZero);
        }
        let credit = u32::from_le_bytes([c0, c1, c2, c3]);
        if credit == 0 {
            return Err(BodyError::ZeroCredit);
        }
        Ok(WindowUpdate {
            channel: FrameType(channel),
            credit,
        })
    }
}
