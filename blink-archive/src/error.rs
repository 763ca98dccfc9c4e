//! What can go wrong, in sentences for people.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a tree could not be packed, unpacked or removed.
///
/// `Display` says what happened in one sentence; where there is a cause of the
/// operating system's, `source()` gives it and `Display` does not repeat it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive holds an entry that no honest archive holds. Nothing of that
    /// entry was written; entries before it were.
    #[error("the archive's entry {} was refused: {why}", Shown(path))]
    Hostile {
        /// The entry's path as the archive states it.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },

    /// The archive ends before it is complete.
    #[error(
        "the archive ends before it is complete: it was cut off, or an entry claims more bytes than there are"
    )]
    Truncated,

    /// The bytes are not a tar archive, or a damaged one.
    #[error("this is not a tar archive, or it is damaged: {why}")]
    Corrupt {
        /// What is wrong with it.
        why: &'static str,
    },

    /// The archive is larger than the caller allows.
    #[error(
        "the archive has more than the {limit} {which} allowed, at {}",
        Shown(path)
    )]
    Limit {
        /// Which limit was met.
        which: LimitKind,
        /// Its value.
        limit: u64,
        /// The entry at which it was met.
        path: PathBuf,
    },

    /// Something stands where an entry belongs, and must not be replaced.
    #[error("{} is there already and was not replaced", Shown(path))]
    Exists {
        /// The path inside the root.
        path: PathBuf,
    },

    /// The tree holds what the archive cannot say.
    #[error("{} cannot be packed: {why}", Shown(path))]
    Unrepresentable {
        /// The path inside the root.
        path: PathBuf,
        /// What is in the way.
        why: &'static str,
    },

    /// The file system refused.
    #[error("{} could not be {action}", Shown(path))]
    Io {
        /// The path inside the root.
        path: PathBuf,
        /// What was tried, as a participle: `created`, `read`, …
        action: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },

    /// The stream that carries the archive failed.
    #[error("the archive's stream could not be {action}")]
    Stream {
        /// `read` or `written`.
        action: &'static str,
        /// The stream's error, unchanged.
        source: io::Error,
    },
}

impl ArchiveError {
    /// The error of the operating system or the stream behind this one, if any.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } | Self::Stream { source, .. } => Some(source),
            _ => None,
        }
    }

    pub(crate) fn io(
        path: impl AsRef<Path>,
        action: &'static str,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            path: path.as_ref().to_path_buf(),
            action,
            source: source.into(),
        }
    }

    pub(crate) fn hostile(path: impl AsRef<Path>, why: &'static str) -> Self {
        Self::Hostile {
            path: path.as_ref().to_path_buf(),
            why,
        }
    }
}

/// Which of the [`Limits`](crate::Limits) was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitKind {
    /// Number of entries.
    Entries,
    /// Sum of the sizes of all files.
    TotalBytes,
    /// What is written to the disk.
    WrittenBytes,
    /// Length of one path.
    PathLength,
    /// Folders inside folders.
    Depth,
    /// Memory for extension headers, sparse maps and remembered folders.
    Metadata,
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entries => "entries",
            Self::TotalBytes => "bytes of file content",
            Self::WrittenBytes => "bytes on the disk",
            Self::PathLength => "bytes in a path",
            Self::Depth => "levels of folders",
            Self::Metadata => "bytes of names and other metadata",
        })
    }
}

/// A path as it may be shown on a terminal: quoted, control characters escaped
/// (a hostile name must not move the cursor), and not longer than a line or two.
pub(crate) struct Shown<'a>(pub(crate) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 200;
        let text = self.0.to_string_lossy();
        let mut characters = text.chars();
        f.write_str("'")?;
        for character in characters.by_ref().take(LONGEST) {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        f.write_str(if characters.next().is_some() {
            "…'"
        } else {
            "'"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_sentences_without_the_source_repeated() {
        let error = ArchiveError::io("a/b", "created", io::Error::from_raw_os_error(28));
        assert_eq!(error.to_string(), "'a/b' could not be created");
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        let error = ArchiveError::hostile("\u{1b}[2Jx\n", "why");
        assert!(!error.to_string().contains('\u{1b}'));
        assert!(!error.to_string().contains('\n'));
        let long = "x".repeat(5000);
        assert!(ArchiveError::hostile(long, "why").to_string().len() < 400);
    }
}
