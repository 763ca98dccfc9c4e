//! What can go wrong, by what the caller can do about it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::command::Output;
use crate::image::{ImageError, ImageErrorKind};
use crate::terminal;

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
    /// A limit was reached: disk, memory, processes, open files. Give more, or use less.
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
    /// You, or the sandbox, may not do that; use another place, or change what is permitted.
    PermissionDenied = 14,
    /// It is a folder, and something else is needed.
    IsADirectory = 15,
    /// It, or a part of its path, is not a folder, and one is needed.
    NotADirectory = 16,
    /// It is on a file system that is read-only; use another place.
    ReadOnly = 17,
    /// A file's name, or a path, is longer than the file system takes; use a shorter one.
    NameTooLong = 18,
    /// The folder is not empty; remove what is in it first, or remove it with all that is in it.
    DirectoryNotEmpty = 19,
}

impl ErrorKind {
    /// All of them, by their numbers.
    pub const ALL: [ErrorKind; 19] = [
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
        ErrorKind::PermissionDenied,
        ErrorKind::IsADirectory,
        ErrorKind::NotADirectory,
        ErrorKind::ReadOnly,
        ErrorKind::NameTooLong,
        ErrorKind::DirectoryNotEmpty,
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
            ErrorKind::PermissionDenied => "PermissionDenied",
            ErrorKind::IsADirectory => "IsADirectory",
            ErrorKind::NotADirectory => "NotADirectory",
            ErrorKind::ReadOnly => "ReadOnly",
            ErrorKind::NameTooLong => "NameTooLong",
            ErrorKind::DirectoryNotEmpty => "DirectoryNotEmpty",
        }
    }

    /// The kind of a failure of the host's files and sockets.
    pub(crate) fn of_io(error: &io::Error) -> ErrorKind {
        match (error.raw_os_error(), error.kind()) {
            (Some(errno), _) => blink_wire::ErrorKind::of_errno(errno).into(),
            // The standard library's own.
            (None, io::ErrorKind::NotFound) => ErrorKind::NotFound,
            (None, io::ErrorKind::AlreadyExists) => ErrorKind::AlreadyExists,
            (None, io::ErrorKind::PermissionDenied) => ErrorKind::PermissionDenied,
            (None, io::ErrorKind::InvalidInput) => ErrorKind::InvalidArgument,
            (
                None,
                io::ErrorKind::OutOfMemory
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded,
            ) => ErrorKind::ResourceExhausted,
            (None, io::ErrorKind::NotADirectory) => ErrorKind::NotADirectory,
            (None, io::ErrorKind::IsADirectory) => ErrorKind::IsADirectory,
            (None, io::ErrorKind::DirectoryNotEmpty) => ErrorKind::DirectoryNotEmpty,
            (None, io::ErrorKind::ReadOnlyFilesystem) => ErrorKind::ReadOnly,
            (None, io::ErrorKind::InvalidFilename) => ErrorKind::NameTooLong,
            (None, io::ErrorKind::ResourceBusy | io::ErrorKind::ExecutableFileBusy) => {
                ErrorKind::Busy
            }
            (None, io::ErrorKind::TimedOut) => ErrorKind::Timeout,
            (None, io::ErrorKind::Unsupported) => ErrorKind::Unsupported,
            (None, _) => ErrorKind::Internal,
        }
    }
}

/// What to do about a full disk.
pub(crate) const ROOM_ADVICE: &str = "; make room on its disk, and try again";

/// What to do about a failed system call of the host's, where there is more to say than its name.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => ROOM_ADVICE,
        Some(libc::EMFILE) => {
            "; this process has as many files open as it may: close some, or raise its limit (ulimit -n)"
        }
        Some(libc::ENFILE) => {
            "; all processes of this host together have as many files open as they may: close some, or raise fs.file-max"
        }
        Some(libc::ENOMEM) => {
            "; this host is out of memory, or at its limit of mappings: give it more, or use less"
        }
        // Of the standard library's own kinds, without a number.
        None if error.kind() == io::ErrorKind::StorageFull => ROOM_ADVICE,
        _ => "",
    }
}

/// A failure: its kind, and a sentence for a person.
///
/// Cheap to clone: when a link breaks, every waiting call gets the same one.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    errno: Option<i32>,
    path: Option<PathBuf>,
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
    ///
    /// It can be printed and logged: what came from a sandbox or a registry has its control characters
    /// [escaped](crate::terminal). The path itself, whatever is in it, is [`path`](Error::path).
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The error number of the system call that failed, in the sandbox or on the host, where one is known.
    ///
    /// Those from a sandbox are Linux's, whatever the host is.
    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }

    /// The path that a file operation was asked about, where it failed at one: the sandbox's or the host's.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// What the program had written when it was cut off, where there was one.
    pub fn output(&self) -> Option<&Output> {
        self.0.output.as_ref()
    }

    /// Every message passes here: what a sandbox, an archive or a registry has put into it is harmless to a terminal.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        let mut message = message.into();
        if let Cow::Owned(escaped) = terminal::escape_text(&message) {
            message = escaped;
        }
        Error(Arc::new(Inner {
            kind,
            message,
            errno: None,
            path: None,
            output: None,
        }))
    }

    pub(crate) fn with_errno(self, errno: Option<i32>) -> Error {
        self.change(|inner| inner.errno = errno)
    }

    /// The same with the path that the failed operation was asked about. What no system call failed for is not about it.
    pub(crate) fn at(self, path: &Path) -> Error {
        match self.errno() {
            Some(_) => self.change(|inner| inner.path = Some(path.to_owned())),
            None => self,
        }
    }

    pub(crate) fn with_output(self, output: Output) -> Error {
        self.change(|inner| inner.output = Some(output))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Error {
        change(Arc::make_mut(&mut self.0));
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// A failed system call on a file of the host's.
    pub(crate) fn io_at(path: &Path, error: &io::Error) -> Error {
        Error::io(path.display(), error).at(path)
    }

    /// A failed system call of the host's, with the kind and the advice that its number has.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Error {
        let message = format!("{what}: {error}{}", advice(error));
        Error::new(ErrorKind::of_io(error), message).with_errno(error.raw_os_error())
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
            ImageErrorKind::Internal => match error.io_error() {
                Some(source) => ErrorKind::of_io(source),
                None => ErrorKind::Internal,
            },
        };
        let Some(source) = error.io_error() else {
            return Error::new(kind, error.to_string());
        };
        let message = match source.raw_os_error() {
            // It says so itself.
            Some(libc::ENOSPC | libc::EDQUOT) => error.to_string(),
            _ => format!("{error}: {source}{}", advice(source)),
        };
        Error::new(kind, message).with_errno(source.raw_os_error())
    }
}

impl From<blink_wire::ErrorKind> for ErrorKind {
    /// The numbers are the same.
    fn from(kind: blink_wire::ErrorKind) -> ErrorKind {
        ErrorKind::ALL
            .into_iter()
            .find(|known| known.code() == kind.code())
            .unwrap_or(ErrorKind::Internal)
    }
}

/// Bytes of an agent's message that are kept: a path may have 4096, and a rename has two.
const AGENT_MESSAGE_LIMIT: usize = 10 << 10;

impl From<blink_wire::ErrorBody> for Error {
    fn from(body: blink_wire::ErrorBody) -> Error {
        // One sentence on one line, whatever the agent says.
        let mut message = terminal::escape_line(&body.message).into_owned();
        if message.len() > AGENT_MESSAGE_LIMIT {
            message.truncate(message.floor_char_boundary(AGENT_MESSAGE_LIMIT));
            message.push('…');
        }
        Error::new(body.kind.into(), message).with_errno(body.errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_numbers_and_the_wire_has_the_same() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.code()), index + 1);
        }
        for &wire in blink_wire::ErrorKind::ALL {
            let kind = Error::from(blink_wire::ErrorBody::new(wire, "x")).kind();
            assert_eq!(kind.code(), wire.code());
            assert_eq!(kind.name(), format!("{wire:?}"));
        }
    }

    #[test]
    fn what_an_agent_says_is_one_harmless_line_of_bounded_length() {
        let hostile = "no\x1b]0;owned\x07 such\nblink: all is well\u{9b}2J\u{202e}";
        let body = blink_wire::ErrorBody::new(blink_wire::ErrorKind::NotFound, hostile);
        let error = Error::from(body);
        assert!(
            !error.to_string().contains(terminal::is_obeyed),
            "{error:?}"
        );
        assert!(error.message().contains("]0;owned"), "{error:?}");
        let long =
            blink_wire::ErrorBody::new(blink_wire::ErrorKind::NotFound, "ä\x1b".repeat(200_000));
        assert!(Error::from(long).message().len() <= AGENT_MESSAGE_LIMIT + 4);
        let console = Error::new(ErrorKind::SandboxDied, "it says:\n\x1b[31mred\u{85}");
        assert_eq!(console.message(), "it says:\n\\u{1b}[31mred\\u{85}");
    }

    #[test]
    fn a_failed_system_call_has_the_kind_of_its_number_and_says_what_to_do() {
        for (errno, kind, advice) in [
            (libc::EMFILE, ErrorKind::ResourceExhausted, "ulimit -n"),
            (libc::ENFILE, ErrorKind::ResourceExhausted, "fs.file-max"),
            (libc::ENOSPC, ErrorKind::ResourceExhausted, "make room"),
            (libc::EDQUOT, ErrorKind::ResourceExhausted, "make room"),
            (libc::EFBIG, ErrorKind::ResourceExhausted, ""),
            (libc::ENOMEM, ErrorKind::ResourceExhausted, "memory"),
            (libc::EACCES, ErrorKind::PermissionDenied, ""),
            (libc::EPERM, ErrorKind::PermissionDenied, ""),
            (libc::EROFS, ErrorKind::ReadOnly, ""),
            (libc::EISDIR, ErrorKind::IsADirectory, ""),
            (libc::ENOTDIR, ErrorKind::NotADirectory, ""),
            (libc::ENAMETOOLONG, ErrorKind::NameTooLong, ""),
            (libc::ENOTEMPTY, ErrorKind::DirectoryNotEmpty, ""),
            (libc::ENOENT, ErrorKind::NotFound, ""),
            (libc::EEXIST, ErrorKind::AlreadyExists, ""),
            (libc::ETXTBSY, ErrorKind::Busy, ""),
            (libc::EBUSY, ErrorKind::Busy, ""),
            (libc::ELOOP, ErrorKind::InvalidArgument, ""),
            (libc::EXDEV, ErrorKind::Unsupported, ""),
            (libc::EIO, ErrorKind::Internal, ""),
        ] {
            let error = Error::io("it", &io::Error::from_raw_os_error(errno));
            assert_eq!(
                (error.kind(), error.errno()),
                (kind, Some(errno)),
                "{error}"
            );
            assert!(error.message().contains(advice), "{error}");
        }
    }
}
