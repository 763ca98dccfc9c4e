//! The kinds of failures: the one table that every language's list is checked against.

use std::io;

macro_rules! kinds {
    ($($(#[$docs:meta])* $name:ident = $code:literal,)*) => {
        /// The kinds of failures, the same in every language. Each has a number that never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum ErrorKind {
            $($(#[$docs])* $name = $code,)*
        }

        impl ErrorKind {
            /// All of them, by their numbers.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$name),*];

            /// The kind's name, the same in every language.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorKind::$name => stringify!($name),)*
                }
            }
        }
    };
}

kinds! {
    /// The request is invalid; correct it.
    InvalidArgument = 1,
    /// What it names does not exist.
    NotFound = 2,
    /// What it would create exists already.
    AlreadyExists = 3,
    /// Someone else is using it; try again later. [`Error::holders`](crate::Error::holders) says who.
    Busy = 4,
    /// The requested isolation is not available on this host; the message says why, and how to ask for less.
    IsolationUnavailable = 5,
    /// The image could not be fetched; the message says what is missing, and how to do without it.
    ImageUnavailable = 6,
    /// A limit was reached: disk, memory, processes, open files. Raise it, or use less.
    ResourceExhausted = 7,
    /// It did not finish in the time it was given.
    Timeout = 8,
    /// The sandbox ended unexpectedly; the message contains the end of its console. Create a new one.
    SandboxDied = 9,
    /// The sandbox violated the protocol and was disconnected. Its program may be hostile.
    Protocol = 10,
    /// The data is damaged; it was not used.
    Corrupt = 11,
    /// This version, or this sandbox, does not support the operation.
    Unsupported = 12,
    /// A bug in Blink, or a failure of the host that has no better kind.
    Internal = 13,
    /// You, or the sandbox, may not do that; use another path, or change its permissions.
    PermissionDenied = 14,
    /// The path is a directory, and something else is needed.
    IsADirectory = 15,
    /// The path, or a part of it, is not a directory, and one is needed.
    NotADirectory = 16,
    /// The file system is read-only; use another path.
    ReadOnly = 17,
    /// A file name or path is longer than the file system allows; use a shorter one.
    NameTooLong = 18,
    /// The directory is not empty; remove its contents first, or remove it recursively.
    DirectoryNotEmpty = 19,
}

impl ErrorKind {
    /// The kind's number in C and on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The kind of a failure of the host's files and sockets.
    pub(crate) fn of_io(error: &io::Error) -> ErrorKind {
        if let Some(errno) = error.raw_os_error() {
            return blink_wire::ErrorKind::of_errno(errno).into();
        }
        // The standard library's own.
        match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::InvalidInput => ErrorKind::InvalidArgument,
            io::ErrorKind::OutOfMemory
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
            io::ErrorKind::NotADirectory => ErrorKind::NotADirectory,
            io::ErrorKind::IsADirectory => ErrorKind::IsADirectory,
            io::ErrorKind::DirectoryNotEmpty => ErrorKind::DirectoryNotEmpty,
            io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            io::ErrorKind::InvalidFilename => ErrorKind::NameTooLong,
            io::ErrorKind::ResourceBusy | io::ErrorKind::ExecutableFileBusy => ErrorKind::Busy,
            io::ErrorKind::TimedOut => ErrorKind::Timeout,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        }
    }
}

impl From<blink_wire::ErrorKind> for ErrorKind {
    /// The numbers are the same.
    fn from(kind: blink_wire::ErrorKind) -> ErrorKind {
        ErrorKind::ALL
            .iter()
            .copied()
            .find(|known| known.code() == kind.code())
            .unwrap_or(ErrorKind::Internal)
    }
}

impl serde::Serialize for ErrorKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
