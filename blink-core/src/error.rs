//! What can go wrong, by what the caller can do about it.

use std::fmt;
use std::sync::Arc;

use crate::command::Output;
use crate::image::{ImageError, ImageErrorKind};

/// The kinds of failures, the same in every language. Each has a number that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u16)]
pub enum ErrorKind {
    /// The request cannot be right; correct it.
    InvalidArgument = 1,
    /// What it names does not exist.
    NotFound = 2,
    /// What it would make exists already.
    AlreadyExists = 3,
    /// Somebody else has it now; try again later. The message names them.
    Busy = 4,
    /// The isolation that was asked for cannot be had here; the message says why, and how to ask for less.
    IsolationUnavailable = 5,
    /// The image cannot be had; the message says what is missing, and the ways without it.
    ImageUnavailable = 6,
    /// A limit was reached: disk, memory, processes. Give more, or use less.
    ResourceExhausted = 7,
    /// It took longer than it was given.
    Timeout = 8,
    /// The sandbox has ended unexpectedly; the message holds the end of its console. Make a new one.
    SandboxDied = 9,
    /// The sandbox broke the rules of the protocol, and was cut off. Its program may be hostile.
    Protocol = 10,
    /// Data is not what it should be; it was not used.
    Corrupt = 11,
    /// This version, or this sandbox, cannot do that.
    Unsupported = 12,
    /// A defect in Blink, or a failure of the machine that has no better kind.
    Internal = 13,
}

impl ErrorKind {
    /// All of them, by their numbers.
    pub const ALL: [ErrorKind; 13] = [
        ErrorKind::InvalidArgument,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::Busy,
        ErrorKind::IsolationUnavailable,
        ErrorKind::ImageUnavailable,
        ErrorKind::ResourceExhausted,
        ErrorKind::Timeout,
        ErrorKind::SandboxDied,
        ErrorKind::Protocol,
        ErrorKind::Corrupt,
        ErrorKind::Unsupported,
        ErrorKind::Internal,
    ];

    /// The kind's number in C and on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The kind's name, the same in every language.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorKind::InvalidArgument => "InvalidArgument",
            ErrorKind::NotFound => "NotFound",
            ErrorKind::AlreadyExists => "AlreadyExists",
            ErrorKind::Busy => "Busy",
            ErrorKind::IsolationUnavailable => "IsolationUnavailable",
            ErrorKind::ImageUnavailable => "ImageUnavailable",
            ErrorKind::ResourceExhausted => "ResourceExhausted",
            ErrorKind::Timeout => "Timeout",
            ErrorKind::SandboxDied => "SandboxDied",
            ErrorKind::Protocol => "Protocol",
            ErrorKind::Corrupt => "Corrupt",
            ErrorKind::Unsupported => "Unsupported",
            ErrorKind::Internal => "Internal",
        }
    }
}

/// What to do about a full disk.
pub(crate) const ROOM_ADVICE: &str = "; make room on its disk, and try again";

/// A failure: its kind, and a sentence for a person.
///
/// Cheap to clone: when a link breaks, every waiting call gets the same one.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    output: Option<Output>,
}

/// A result with Blink's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was tried, what went wrong, and what to do.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the program had written when it was cut off, where there was one.
    pub fn output(&self) -> Option<&Output> {
        self.0.output.as_ref()
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            output: None,
        }))
    }

    pub(crate) fn with_output(self, output: Output) -> Error {
        Error(Arc::new(Inner {
            kind: self.kind(),
            message: self.message().to_owned(),
            output: Some(output),
        }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// A failure of the machine's files, with its kind found from the error.
    pub(crate) fn io(what: impl fmt::Display, error: &std::io::Error) -> Error {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists => ErrorKind::AlreadyExists,
            Io::StorageFull | Io::QuotaExceeded | Io::OutOfMemory | Io::FileTooLarge => {
                ErrorKind::ResourceExhausted
            }
            Io::PermissionDenied
            | Io::ReadOnlyFilesystem
            | Io::IsADirectory
            | Io::NotADirectory
            | Io::InvalidInput => ErrorKind::InvalidArgument,
            _ => ErrorKind::Internal,
        };
        let advice = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => ROOM_ADVICE,
            _ => "",
        };
        Error::new(kind, format!("{what}: {error}{advice}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.name(), self.0.message)
    }
}

impl std::error::Error for Error {}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Error {
        let kind = match error.kind() {
            ImageErrorKind::InvalidArgument => ErrorKind::InvalidArgument,
            ImageErrorKind::NotFound => ErrorKind::NotFound,
            ImageErrorKind::Busy => ErrorKind::Busy,
            ImageErrorKind::ImageUnavailable => ErrorKind::ImageUnavailable,
            ImageErrorKind::Corrupt => ErrorKind::Corrupt,
            ImageErrorKind::Unsupported => ErrorKind::Unsupported,
            ImageErrorKind::ResourceExhausted => ErrorKind::ResourceExhausted,
            ImageErrorKind::Internal => ErrorKind::Internal,
        };
        Error::new(kind, error.to_string())
    }
}

impl From<blink_wire::ErrorBody> for Error {
    fn from(body: blink_wire::ErrorBody) -> Error {
        use blink_wire::ErrorKind as Wire;
        let kind = match body.kind {
            Wire::InvalidArgument => ErrorKind::InvalidArgument,
            Wire::NotFound => ErrorKind::NotFound,
            Wire::AlreadyExists => ErrorKind::AlreadyExists,
            Wire::Busy => ErrorKind::Busy,
            Wire::ResourceExhausted => ErrorKind::ResourceExhausted,
            Wire::Timeout => ErrorKind::Timeout,
            Wire::Protocol => ErrorKind::Protocol,
            Wire::Corrupt => ErrorKind::Corrupt,
            Wire::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        Error::new(kind, body.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_numbers_and_the_wire_has_the_same() {
        use blink_wire::ErrorKind as Wire;
        let pairs = [
            (Wire::InvalidArgument, ErrorKind::InvalidArgument, 1),
            (Wire::NotFound, ErrorKind::NotFound, 2),
            (Wire::AlreadyExists, ErrorKind::AlreadyExists, 3),
            (Wire::Busy, ErrorKind::Busy, 4),
            (Wire::ResourceExhausted, ErrorKind::ResourceExhausted, 7),
            (Wire::Timeout, ErrorKind::Timeout, 8),
            (Wire::Protocol, ErrorKind::Protocol, 10),
            (Wire::Corrupt, ErrorKind::Corrupt, 11),
            (Wire::Unsupported, ErrorKind::Unsupported, 12),
            (Wire::Internal, ErrorKind::Internal, 13),
        ];
        for (wire, kind, code) in pairs {
            assert_eq!(
                Error::from(blink_wire::ErrorBody::new(wire, "x")).kind(),
                kind
            );
            assert_eq!(kind.code(), code);
        }
        assert_eq!(ErrorKind::SandboxDied.code(), 9);
    }
}
