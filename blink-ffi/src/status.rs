//! What calls return.

use std::ffi::{CStr, c_char};

use blink_core::ErrorKind;

/// The result of a call. Numbers never change their meaning; new ones are added at the end. Below 100 they are the kinds of
/// errors that every language has; from 100 on, those that only C has.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum blink_status {
    /// It succeeded.
    Ok = 0,
    /// The request is invalid; correct it.
    InvalidArgument = 1,
    /// What it names does not exist.
    NotFound = 2,
    /// What it would create exists already.
    AlreadyExists = 3,
    /// Someone else is using it; try again later. blink_error_holder() says who.
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
    /// The call was cancelled.
    Cancelled = 100,
    /// There is nothing to read now; wait for the file descriptor, or read again later.
    WouldBlock = 101,
}

impl blink_status {
    /// All of them, by their numbers.
    pub(crate) const ALL: [blink_status; 22] = [
        blink_status::Ok,
        blink_status::InvalidArgument,
        blink_status::NotFound,
        blink_status::AlreadyExists,
        blink_status::Busy,
        blink_status::IsolationUnavailable,
        blink_status::ImageUnavailable,
        blink_status::ResourceExhausted,
        blink_status::Timeout,
        blink_status::SandboxDied,
        blink_status::Protocol,
        blink_status::Corrupt,
        blink_status::Unsupported,
        blink_status::Internal,
        blink_status::PermissionDenied,
        blink_status::IsADirectory,
        blink_status::NotADirectory,
        blink_status::ReadOnly,
        blink_status::NameTooLong,
        blink_status::DirectoryNotEmpty,
        blink_status::Cancelled,
        blink_status::WouldBlock,
    ];

    pub(crate) fn of(kind: ErrorKind) -> blink_status {
        let code = i32::from(kind.code());
        blink_status::ALL
            .into_iter()
            .find(|status| *status as i32 == code)
            .unwrap_or(blink_status::Internal)
    }

    /// Its name in the header.
    pub(crate) const fn name(self) -> &'static CStr {
        match self {
            blink_status::Ok => c"BLINK_STATUS_OK",
            blink_status::InvalidArgument => c"BLINK_STATUS_INVALID_ARGUMENT",
            blink_status::NotFound => c"BLINK_STATUS_NOT_FOUND",
            blink_status::AlreadyExists => c"BLINK_STATUS_ALREADY_EXISTS",
            blink_status::Busy => c"BLINK_STATUS_BUSY",
            blink_status::IsolationUnavailable => c"BLINK_STATUS_ISOLATION_UNAVAILABLE",
            blink_status::ImageUnavailable => c"BLINK_STATUS_IMAGE_UNAVAILABLE",
            blink_status::ResourceExhausted => c"BLINK_STATUS_RESOURCE_EXHAUSTED",
            blink_status::Timeout => c"BLINK_STATUS_TIMEOUT",
            blink_status::SandboxDied => c"BLINK_STATUS_SANDBOX_DIED",
            blink_status::Protocol => c"BLINK_STATUS_PROTOCOL",
            blink_status::Corrupt => c"BLINK_STATUS_CORRUPT",
            blink_status::Unsupported => c"BLINK_STATUS_UNSUPPORTED",
            blink_status::Internal => c"BLINK_STATUS_INTERNAL",
            blink_status::PermissionDenied => c"BLINK_STATUS_PERMISSION_DENIED",
            blink_status::IsADirectory => c"BLINK_STATUS_IS_A_DIRECTORY",
            blink_status::NotADirectory => c"BLINK_STATUS_NOT_A_DIRECTORY",
            blink_status::ReadOnly => c"BLINK_STATUS_READ_ONLY",
            blink_status::NameTooLong => c"BLINK_STATUS_NAME_TOO_LONG",
            blink_status::DirectoryNotEmpty => c"BLINK_STATUS_DIRECTORY_NOT_EMPTY",
            blink_status::Cancelled => c"BLINK_STATUS_CANCELLED",
            blink_status::WouldBlock => c"BLINK_STATUS_WOULD_BLOCK",
        }
    }
}

/// Names a status, as this header does.
///
/// @param status  Any number.
/// @return A static string, such as "BLINK_STATUS_NOT_FOUND"; NULL for a number that is no status of this version.
#[unsafe(no_mangle)]
pub extern "C" fn blink_status_name(status: i32) -> *const c_char {
    blink_status::ALL
        .into_iter()
        .find(|known| *known as i32 == status)
        .map_or(std::ptr::null(), |known| known.name().as_ptr())
}

/// Says which version of the library runs.
///
/// @return A static string such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn blink_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
