//! Failed system calls, as the host is told of them: the kind and the number, and why in words that help.

use std::fmt::Display;
use std::io;

use blink_wire::{ErrorBody, ErrorKind};
use rustix::io::Errno;

/// A system call that failed: its kind is that of the error number.
pub(crate) fn failed(error: Errno, message: impl Into<String>) -> ErrorBody {
    ErrorBody::of_errno(error.raw_os_error(), message)
}

/// A failure of a kind that the number alone does not tell.
pub(crate) fn failed_as(kind: ErrorKind, error: Errno, message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(kind, message).with_errno(error.raw_os_error())
}

/// The agent has none left of what it needs.
pub(crate) fn exhausted(what: &str, error: Errno) -> ErrorBody {
    let message =
        format!("the sandbox has no room for {what} ({error}); end some processes, or use less");
    failed_as(ErrorKind::ResourceExhausted, error, message)
}

/// A failure on a file: `could not read /x: it is a folder`.
pub(crate) fn failed_at(what: impl Display, error: Errno) -> ErrorBody {
    failed(error, format!("could not {what}: {}", why(error)))
}

pub(crate) fn errno_of(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

/// What a person is told who did not ask for a system call.
fn why(error: Errno) -> String {
    let words = match error {
        Errno::NOENT => "it does not exist in the sandbox",
        Errno::NOTDIR => "it, or a part of its path, is not a folder",
        Errno::ISDIR => "it is a folder",
        Errno::NXIO => "it is not a regular file",
        Errno::EXIST => "it exists",
        Errno::NOTEMPTY => "the folder is not empty",
        Errno::ROFS => "it is read-only in this sandbox",
        Errno::ACCESS | Errno::PERM => "that is not permitted in this sandbox",
        Errno::NAMETOOLONG => "its name or its path is longer than the file system takes",
        Errno::LOOP => "its path leads through too many symbolic links",
        Errno::BUSY => "it is in use, such as a place where something is mounted",
        Errno::TXTBSY => "it is a program that runs now",
        Errno::NOSPC | Errno::DQUOT => "there is no space left on its disk",
        Errno::FBIG => "it would be larger than the file system or the sandbox's limits allow",
        Errno::MFILE | Errno::NFILE => "too many files are open in the sandbox; close some",
        Errno::NOMEM => "the sandbox is out of memory",
        Errno::XDEV => "that is on another file system of the sandbox; copy and remove instead",
        error => return error.to_string(),
    };
    words.to_owned()
}
