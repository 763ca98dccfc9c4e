//! What can be wrong with a body.

use thiserror::Error;

/// Why a body was refused. The frame's borders are known, so the connection can go on where the protocol lets it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body does not have the length that its type requires.
    #[error("the body is {actual} bytes long instead of {expected}")]
    WrongLength {
        /// The length that came, in bytes.
        actual: usize,
        /// The length that the type requires, in bytes.
        expected: usize,
    },
    /// The body is longer than its type allows.
    #[error("the body is {actual} bytes long; at most {limit} are allowed for its type")]
    TooLong {
        /// The length that came, in bytes.
        actual: usize,
        /// The longest that is allowed, in bytes.
        limit: usize,
    },
    /// Bytes that must be zero are not.
    #[error("the body has something other than zero where zero is required")]
    ReservedNotZero,
    /// A window update gives nothing.
    #[error("the window update gives a credit of zero")]
    ZeroCredit,
    /// A terminal's size is not JSON of the form that is required. Holds what was found.
    #[error("the terminal's size is not of the form {{\"rows\":24,\"cols\":80}}: {0}")]
    BadTtySize(String),
}
