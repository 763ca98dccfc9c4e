//! Why an image could not be used.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use blink_archive::{ArchiveError, LimitKind};
use rustix::io::Errno;

/// Why an image could not be used: a [kind](ImageError::kind) for programs and a
/// sentence for people.
#[derive(Debug)]
pub struct ImageError {
    kind: ImageErrorKind,
    message: String,
    retryable: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageErrorKind {
    /// The name or the options are wrong: correct them.
    InvalidArgument,
    /// The file, folder, repository or tag is not there.
    NotFound,
    /// Something uses it now; the message names it. Try again later.
    Busy,
    /// The image cannot be fetched here: use one of the ways that the message names.
    ImageUnavailable,
    /// The image is damaged or hostile: fetch it again, or do not use it.
    Corrupt,
    /// The image is whole, but of a kind that Blink cannot use.
    Unsupported,
    /// The disk is full, or the image is larger than the limits allow.
    ResourceExhausted,
    /// The machine failed in a way that is not the image's fault.
    Internal,
}

impl ImageError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ImageErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anyone changing anything: what was in use may be free, and a registry
    /// that could not be reached may answer.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The same, where a registry may answer the next time.
    pub(crate) fn retryable(self, retryable: bool) -> Self {
        Self { retryable, ..self }
    }

    /// The failed system call behind it.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.source.as_deref()?.downcast_ref()
    }

    /// What has caused it, as a value.
    pub fn into_source(self) -> Option<Box<dyn Error + Send + Sync>> {
        self.source
    }

    pub(crate) fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        let source = Some(Box::new(source) as _);
        Self { source, ..self }
    }

    /// Whether the image itself is at fault, or its size: nothing of it is worth keeping.
    pub(crate) fn is_refusal(&self) -> bool {
        use ImageErrorKind::{Corrupt, ResourceExhausted, Unsupported};
        matches!(self.kind, Corrupt | ResourceExhausted | Unsupported)
    }

    pub(crate) fn new(kind: ImageErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: harmless(message.into()),
            retryable: kind == ImageErrorKind::Busy,
            source: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ImageErrorKind::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ImageErrorKind::NotFound, message)
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ImageErrorKind::Corrupt, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ImageErrorKind::Unsupported, message)
    }

    /// What an image has too much of: `what` is its name with a verb, such as "the image 'a' is said to have".
    pub(crate) fn too_large(what: impl fmt::Display, bytes: u64, limit: u64) -> Self {
        Self::new(
            ImageErrorKind::ResourceExhausted,
            format!(
                "{what} {bytes} bytes, and an image may have {limit}; image_limit_bytes (--image-limit-bytes) allows more"
            ),
        )
    }

    /// A refusal of the operating system while doing `what`, which completes
    /// the sentence "could not …".
    pub(crate) fn io(what: impl fmt::Display, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if source.kind() == io::ErrorKind::StorageFull && source.raw_os_error().is_none() {
            // What is kept free for the host is as good as taken.
            return Self::new(
                ImageErrorKind::ResourceExhausted,
                format!("could not {what}: the disk is full: {source}; make room and try again"),
            );
        }
        let kind = match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE) => {
                ImageErrorKind::ResourceExhausted
            }
            Some(Errno::NOENT) => ImageErrorKind::NotFound,
            None if source.kind() == io::ErrorKind::InvalidInput => ImageErrorKind::InvalidArgument,
            _ if source.kind() == io::ErrorKind::ResourceBusy => ImageErrorKind::Busy,
            _ => ImageErrorKind::Internal,
        };
        let hint = match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => ": the disk is full; make room and try again",
            _ => "",
        };
        Self {
            source: Some(Box::new(source)),
            ..Self::new(kind, format!("could not {what}{hint}"))
        }
    }

    /// A failure while unpacking `what`.
    pub(crate) fn archive(what: impl fmt::Display, error: ArchiveError) -> Self {
        let message = error.to_string();
        let (kind, hint) = match error {
            ArchiveError::Io { source, .. } | ArchiveError::Stream { source, .. } => {
                return Self::unpack_io(what, &message, source);
            }
            ArchiveError::Limit {
                which: LimitKind::TotalBytes,
                ..
            } => (
                ImageErrorKind::ResourceExhausted,
                "; image_limit_bytes (--image-limit-bytes) allows more",
            ),
            ArchiveError::Limit { .. } => (ImageErrorKind::ResourceExhausted, ""),
            _ => (ImageErrorKind::Corrupt, ""),
        };
        Self::new(kind, format!("could not unpack {what}: {message}{hint}"))
    }

    fn unpack_io(what: impl fmt::Display, error: &str, source: io::Error) -> Self {
        // What our own readers refuse comes back as the stream's error.
        if let Some(refused) = source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Refused>())
        {
            return Self::new(
                refused.kind,
                format!("could not unpack {what}: {}", refused.message),
            );
        }
        let (kind, hint) = match Errno::from_io_error(&source) {
            None if source.kind() == io::ErrorKind::StorageFull => (
                ImageErrorKind::ResourceExhausted,
                "; the disk is full: make room and try again",
            ),
            Some(Errno::NOSPC | Errno::DQUOT) => (
                ImageErrorKind::ResourceExhausted,
                "; the disk is full: make room and try again",
            ),
            // Names too long for a file system, links without end and the like.
            Some(
                Errno::NAMETOOLONG
                | Errno::LOOP
                | Errno::NOTDIR
                | Errno::INVAL
                | Errno::FBIG
                | Errno::MLINK,
            ) => (ImageErrorKind::Corrupt, ""),
            // A decompressor that meets nonsense.
            None => (ImageErrorKind::Corrupt, ""),
            Some(_) => (ImageErrorKind::Internal, ""),
        };
        Self {
            source: Some(Box::new(source)),
            ..Self::new(kind, format!("could not unpack {what}: {error}{hint}"))
        }
    }
}

impl From<blink_host::Failure> for ImageError {
    fn from(failure: blink_host::Failure) -> ImageError {
        let message = harmless(failure.what);
        Self {
            message,
            ..Self::io("", failure.source)
        }
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ImageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A refusal that has to pass through [`io::Read`].
#[derive(Debug)]
pub(crate) struct Refused {
    kind: ImageErrorKind,
    message: String,
}

impl Refused {
    pub(crate) fn error(kind: ImageErrorKind, message: impl Into<String>) -> io::Error {
        io::Error::other(Self {
            kind,
            message: message.into(),
        })
    }
}

impl Refused {
    /// Of an error that is one, the kind.
    pub(crate) fn kind_of(error: &io::Error) -> Option<ImageErrorKind> {
        let refused = error.get_ref()?.downcast_ref::<Self>()?;
        Some(refused.kind)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Refused {}

/// Names in images and what registries say are someone else's text.
fn harmless(message: String) -> String {
    blink_host::terminal::escape_text(&message).into_owned()
}

/// A path as it may be shown: on one line, whatever its bytes.
pub(crate) fn shown(path: &Path) -> String {
    blink_host::terminal::escape_line(&path.to_string_lossy()).into_owned()
}
