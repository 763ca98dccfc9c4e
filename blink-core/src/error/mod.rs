//! What can go wrong, by what the caller can do about it.

mod kind;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blink_host::file_lock::NotLocked;
use blink_host::{Failure, Held, Holder, terminal};
use blink_image::{ImageError, ImageErrorKind};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::output::Output;

pub use kind::ErrorKind;

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

/// A failure: its kind, and a message for a person.
///
/// The message is complete: it says what was tried, why it failed and what to do. [`source`](std::error::Error::source) is the
/// cause as a value, such as an [`io::Error`] to downcast to, so printing the whole chain repeats it.
///
/// Cheap to clone: when a link breaks, every waiting call gets the same error.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    operation: Option<&'static str>,
    subject: Option<String>,
    errno: Option<i32>,
    path: Option<PathBuf>,
    holders: Vec<Holder>,
    retryable: bool,
    output: Option<Output>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
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
    /// Safe to print and log: control characters in text from a sandbox or a registry are
    /// [escaped](blink_host::terminal). [`path`](Error::path) has the path with its own bytes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same call may succeed later without anyone changing anything: what was in use may be free, and a registry
    /// that could not be reached may answer.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The operation that failed, such as `"exec"`, where it is known: the name of the method.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// What the operation was performed on, where it is known, such as `session "work"`.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// Who is using what a [`Busy`](ErrorKind::Busy) call asked for. Empty where that is not known.
    pub fn holders(&self) -> &[Holder] {
        &self.0.holders
    }

    /// The error number of the system call that failed, in the sandbox or on the host, where there was one.
    ///
    /// Those from a sandbox are Linux's, whatever the host is.
    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }

    /// The path that the failed file operation was given: the sandbox's or the host's.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// What the program had written when it was cut off, where there was one.
    pub fn output(&self) -> Option<&Output> {
        self.0.output.as_ref()
    }

    /// The messages of the causes, from the nearest to the root.
    pub fn causes(&self) -> impl Iterator<Item = String> {
        std::iter::successors(self.source(), |&cause| cause.source())
            .map(|cause| terminal::escape_text(&cause.to_string()).into_owned())
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
            operation: None,
            subject: None,
            errno: None,
            path: None,
            holders: Vec::new(),
            retryable: kind == ErrorKind::Busy,
            output: None,
            source: None,
        }))
    }

    /// The same with who is using what it is about.
    pub(crate) fn held_by(self, holders: impl IntoIterator<Item = Holder>) -> Error {
        let holders: Vec<_> = holders.into_iter().collect();
        match holders.is_empty() {
            true => self,
            false => self.change(|inner| inner.holders = holders),
        }
    }

    /// The same with what has caused it.
    pub(crate) fn caused_by(self, source: impl StdError + Send + Sync + 'static) -> Error {
        self.change(|inner| inner.source = Some(Arc::new(source)))
    }

    pub(crate) fn retryable(self, retryable: bool) -> Error {
        self.change(|inner| inner.retryable = retryable)
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

    /// The failure of what a lock is for, such as `Blink's home /x`.
    pub(crate) fn not_locked(what: impl fmt::Display, error: NotLocked) -> Error {
        match error {
            NotLocked::Held(held) => {
                Error::new(ErrorKind::Busy, format!("{what} is {held}")).held_by([held.holder])
            }
            NotLocked::Failed(error) => Error::io(format!("{what} cannot be locked"), &error),
        }
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
        Error::new(ErrorKind::of_io(error), message)
            .with_errno(error.raw_os_error())
            .caused_by(same(error))
    }
}

/// What an operation is performed on, as a failure names it.
pub(crate) trait Subject {
    fn subject(&self) -> String;
}

impl Subject for str {
    fn subject(&self) -> String {
        self.to_owned()
    }
}

impl Subject for Path {
    fn subject(&self) -> String {
        format!("file {}", self.display())
    }
}

/// Performs what a public method does; its failures say which one, and on what. Of methods that call others, the outermost is
/// named: the one that the caller knows.
///
/// The work is on the heap: methods that call others would otherwise need a stack for all of them at once.
pub(crate) fn during<'a, T>(
    operation: &'static str,
    subject: &'a (impl Subject + ?Sized),
    work: impl Future<Output = Result<T>> + 'a,
) -> impl Future<Output = Result<T>> + 'a {
    let work = Box::pin(work);
    async move {
        work.await.map_err(|error| {
            error.change(|inner| {
                inner.operation = Some(operation);
                inner.subject = Some(terminal::escape_line(&subject.subject()).into_owned());
            })
        })
    }
}

/// The same failure of a system call once more: it cannot be cloned.
fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
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

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// What JSON says of it: the fields that are known. Those that are added later have names of their own.
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", &self.kind())?;
        map.serialize_entry("message", self.message())?;
        map.serialize_entry("retryable", &self.is_retryable())?;
        if let Some(operation) = self.operation() {
            map.serialize_entry("operation", operation)?;
        }
        if let Some(subject) = self.subject() {
            map.serialize_entry("subject", subject)?;
        }
        if let Some(errno) = self.errno() {
            map.serialize_entry("errno", &errno)?;
        }
        if let Some(path) = self.path() {
            map.serialize_entry("path", &path.to_string_lossy())?;
        }
        if !self.holders().is_empty() {
            map.serialize_entry("holders", self.holders())?;
        }
        let causes: Vec<_> = self.causes().collect();
        if !causes.is_empty() {
            map.serialize_entry("causes", &causes)?;
        }
        map.end()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::io(failure.what, &failure.source)
    }
}

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
        let retryable = error.is_retryable();
        let message = error.to_string();
        let source = match error
            .into_source()
            .map(|source| source.downcast::<io::Error>())
        {
            Some(Ok(source)) => *source,
            Some(Err(other)) => {
                let error = Error::new(kind, message).retryable(retryable);
                return error.change(|inner| inner.source = Some(other.into()));
            }
            None => return Error::new(kind, message).retryable(retryable),
        };
        let message = match source.raw_os_error() {
            // It says so itself.
            Some(libc::ENOSPC | libc::EDQUOT) => message,
            _ => format!("{message}: {source}{}", advice(&source)),
        };
        let holder = source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Held>())
            .map(|held| held.holder.clone());
        Error::new(kind, message)
            .retryable(retryable)
            .with_errno(source.raw_os_error())
            .held_by(holder)
            .caused_by(source)
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
        for (index, kind) in ErrorKind::ALL.iter().enumerate() {
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
    fn a_failure_has_its_causes_and_json_has_all_that_is_known() {
        let inner = Holder::of_process(Some(std::process::id()));
        let error = Error::io_at(Path::new("/x"), &io::Error::from_raw_os_error(libc::EBUSY))
            .held_by([inner]);
        let source = StdError::source(&error).unwrap();
        let source: &io::Error = source.downcast_ref().unwrap();
        assert_eq!(source.raw_os_error(), Some(libc::EBUSY));
        let json = serde_json::to_value(&error).unwrap();
        let causes = error.causes().collect::<Vec<_>>();
        assert_eq!((causes.len(), &json["causes"]), (1, &causes.into()));
        assert_eq!(json["kind"], "Busy");
        assert_eq!(
            (&json["retryable"], &json["errno"]),
            (&true.into(), &16.into())
        );
        assert_eq!(json["holders"][0]["pid"], std::process::id());
        assert!(error.holders()[0].is_this_process());
        let plain = serde_json::to_value(Error::invalid("no")).unwrap();
        let expected =
            serde_json::json!({"kind": "InvalidArgument", "message": "no", "retryable": false});
        assert_eq!(plain, expected);
    }

    #[tokio::test]
    async fn the_outermost_operation_is_named() {
        let failing = async { Err::<(), _>(Error::invalid("no")) };
        let inner = during("inner", Path::new("/a"), failing);
        let error = during("outer", Path::new("/b\n"), inner).await.unwrap_err();
        assert_eq!(error.operation(), Some("outer"));
        assert_eq!(error.subject(), Some("file /b\\n"));
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
