//! How a request fails: a kind, a sentence for a person, and the error number of Linux that is behind it.

use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};

/// The body of Error and RpcError.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    /// What the caller can do about it.
    pub kind: ErrorKind,
    /// A sentence for a person.
    pub message: String,
    /// The error number of Linux, where a system call failed; from 1 to 4095.
    pub errno: Option<i32>,
}

impl ErrorBody {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        ErrorBody {
            kind,
            message: message.into(),
            errno: None,
        }
    }

    /// A system call that failed with this error number of Linux.
    pub fn of_errno(errno: i32, message: impl Into<String>) -> Self {
        ErrorBody::new(ErrorKind::of_errno(errno), message).with_errno(errno)
    }

    /// The same with an error number of Linux.
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.errno = known_errno(errno);
        self
    }
}

/// The kernel's own limit: larger numbers are not errors.
const ERRNO_LIMIT: i32 = 4095;

fn known_errno(errno: i32) -> Option<i32> {
    (1..=ERRNO_LIMIT).contains(&errno).then_some(errno)
}

macro_rules! kinds {
    ($($(#[$docs:meta])* $name:ident = $code:literal,)*) => {
        /// Kinds of failures on the wire; the numbers are those of every language's errors and never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum ErrorKind {
            $($(#[$docs])* $name = $code,)*
        }

        impl ErrorKind {
            /// All of them, by their numbers.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$name),*];
        }
    };
}

kinds! {
    /// The request cannot be right.
    InvalidArgument = 1,
    /// What it names does not exist.
    NotFound = 2,
    /// What it would make exists.
    AlreadyExists = 3,
    /// Somebody else has it.
    Busy = 4,
    /// A limit was reached: disk, memory, processes, streams, open files.
    ResourceExhausted = 7,
    /// It took too long.
    Timeout = 8,
    /// The peer broke the protocol's rules.
    Protocol = 10,
    /// What arrived is not what was sent.
    Corrupt = 11,
    /// This agent, or this sandbox, cannot do that.
    Unsupported = 12,
    /// A defect, or a failure that has no better kind.
    Internal = 13,
    /// The user or the sandbox may not do that.
    PermissionDenied = 14,
    /// It is a folder, and something else is needed.
    IsADirectory = 15,
    /// It is not a folder, and one is needed.
    NotADirectory = 16,
    /// The file system is read-only.
    ReadOnly = 17,
    /// A file's name, or a path, is longer than the file system takes.
    NameTooLong = 18,
    /// The folder is not empty.
    DirectoryNotEmpty = 19,
}

impl ErrorKind {
    /// The kind's number.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The kind with this number, if there is one.
    pub fn from_code(code: u16) -> Option<ErrorKind> {
        ErrorKind::ALL
            .iter()
            .copied()
            .find(|kind| kind.code() == code)
    }

    /// The kind that peers of the first version know this one by.
    fn first_version(self) -> ErrorKind {
        match self {
            ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::ReadOnly
            | ErrorKind::NameTooLong => ErrorKind::InvalidArgument,
            ErrorKind::DirectoryNotEmpty => ErrorKind::AlreadyExists,
            other => other,
        }
    }

    /// What the caller can do about an error number of Linux: the one table, for the agent and for the host.
    ///
    /// The numbers are those of `asm-generic/errno.h`, which x86-64 and AArch64 share.
    pub const fn of_errno(errno: i32) -> ErrorKind {
        match errno {
            EPERM | EACCES => ErrorKind::PermissionDenied,
            ENOENT => ErrorKind::NotFound,
            EEXIST => ErrorKind::AlreadyExists,
            EISDIR => ErrorKind::IsADirectory,
            ENOTDIR => ErrorKind::NotADirectory,
            ENOTEMPTY => ErrorKind::DirectoryNotEmpty,
            EROFS => ErrorKind::ReadOnly,
            ENAMETOOLONG => ErrorKind::NameTooLong,
            EBUSY | ETXTBSY | EADDRINUSE => ErrorKind::Busy,
            // Nothing listens at that address: what the request names is not there.
            ECONNREFUSED => ErrorKind::NotFound,
            ETIMEDOUT => ErrorKind::Timeout,
            // EAGAIN is what clone() reports at a limit of processes; reads and writes that would block are never reported.
            ENOSPC | EDQUOT | EFBIG | EMFILE | ENFILE | ENOMEM | EAGAIN | EMLINK | ENOBUFS => {
                ErrorKind::ResourceExhausted
            }
            EINVAL | ELOOP | ENXIO | E2BIG | EILSEQ => ErrorKind::InvalidArgument,
            EXDEV | ENOSYS | EOPNOTSUPP | ENOTTY => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        }
    }
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENXIO: i32 = 6;
const E2BIG: i32 = 7;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EXDEV: i32 = 18;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOTTY: i32 = 25;
const ETXTBSY: i32 = 26;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EMLINK: i32 = 31;
const ENAMETOOLONG: i32 = 36;
const ENOSYS: i32 = 38;
const ENOTEMPTY: i32 = 39;
const ELOOP: i32 = 40;
const EILSEQ: i32 = 84;
const EOPNOTSUPP: i32 = 95;
const EADDRINUSE: i32 = 98;
const ENOBUFS: i32 = 105;
const ETIMEDOUT: i32 = 110;
const ECONNREFUSED: i32 = 111;
const EDQUOT: i32 = 122;

/// What is on the wire. A peer of the first version refuses a body whose kind it does not know, and skips fields that
/// it does not know: kinds that came later have a field of their own, beside the nearest one of the first version.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Encoded {
    #[n(0)]
    kind: u16,
    #[n(1)]
    message: String,
    #[n(2)]
    errno: Option<i32>,
    #[n(3)]
    precise: Option<u16>,
}

impl<C> Encode<C> for ErrorBody {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let kind = self.kind.first_version();
        let encoded = Encoded {
            kind: kind.code(),
            message: self.message.clone(),
            errno: self.errno,
            precise: (kind != self.kind).then(|| self.kind.code()),
        };
        encoded.encode(encoder, context)
    }
}

impl<'b, C> Decode<'b, C> for ErrorBody {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, decode::Error> {
        let encoded = Encoded::decode(decoder, context)?;
        let precise = encoded.precise.and_then(ErrorKind::from_code);
        Ok(ErrorBody {
            kind: precise
                .or_else(|| ErrorKind::from_code(encoded.kind))
                .unwrap_or(ErrorKind::Internal),
            message: encoded.message,
            errno: encoded.errno.and_then(known_errno),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;
    use proptest::prelude::*;

    #[test]
    fn every_kind_has_a_kind_that_peers_of_the_first_version_know() {
        for &kind in ErrorKind::ALL {
            assert!(kind.first_version().code() <= 13, "{kind:?}");
            assert_eq!(ErrorKind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(ErrorKind::from_code(9), None);
    }

    #[test]
    fn kinds_of_the_future_read_as_the_nearest_that_is_known() {
        // {0: 3, 1: "x", 3: 4000}, and {0: 4000, 1: "x"}
        let nearest = ErrorBody::from_body(b"\xa3\x00\x03\x01\x61x\x03\x19\x0f\xa0").unwrap();
        assert_eq!(nearest, ErrorBody::new(ErrorKind::AlreadyExists, "x"));
        let unknown = ErrorBody::from_body(b"\xa2\x00\x19\x0f\xa0\x01\x61x").unwrap();
        assert_eq!(unknown, ErrorBody::new(ErrorKind::Internal, "x"));
    }

    #[test]
    fn what_is_no_error_number_is_dropped() {
        for errno in [0, -1, 4096, i32::MAX] {
            // {0: 2, 1: "x", 2: errno}
            let mut encoder = Encoder::new(Vec::new());
            let written = encoder.map(3).and_then(|encoder| {
                encoder.u8(0)?.u8(2)?.u8(1)?.str("x")?.u8(2)?.i32(errno)?;
                Ok(())
            });
            written.unwrap();
            let body = ErrorBody::from_body(&encoder.into_writer()).unwrap();
            assert_eq!(body, ErrorBody::new(ErrorKind::NotFound, "x"));
        }
    }

    proptest! {
        #[test]
        fn errors_round_trip(
            kind in proptest::sample::select(ErrorKind::ALL),
            message in ".{0,40}",
            errno in proptest::option::of(1..=ERRNO_LIMIT),
        ) {
            let body = ErrorBody { kind, message, errno };
            prop_assert_eq!(ErrorBody::from_body(&body.to_body()), Ok(body));
        }

        #[test]
        fn every_number_has_a_kind(errno in any::<i32>()) {
            let _ = ErrorKind::of_errno(errno);
        }
    }
}
