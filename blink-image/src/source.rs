//! What a user's string means.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{ImageError, shown};
use crate::reference::Reference;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageSource {
    /// This machine's own `/usr`, read-only.
    Host,
    /// A folder in OCI layout.
    Layout {
        /// The folder.
        path: PathBuf,
        /// Which of several images in it.
        tag: Option<String>,
    },
    /// A tar of an OCI layout, or one of `docker save`.
    Archive {
        /// The file.
        path: PathBuf,
        /// Which of several images in it.
        tag: Option<String>,
    },
    /// An image in a registry.
    Reference(Reference),
}

impl ImageSource {
    /// Finds out what `text` means: `host`; the path of a folder in OCI layout,
    /// of a tar of one, or of a tar of `docker save`, with `:` and the image's tag
    /// or name after it where it holds several; otherwise an image in a registry. What exists on disk wins, where it is a
    /// layout or a `.tar` file.
    ///
    /// # Errors
    /// `NotFound` for a path (with `/`, `./`, `../` or `~` at its start, or
    /// `.tar` at its end) where nothing is; `InvalidArgument` for a folder that is
    /// not a layout, and for what is not a name either.
    ///
    /// # Examples
    /// ```
    /// use blink_image::ImageSource;
    ///
    /// assert_eq!(ImageSource::parse("host").unwrap(), ImageSource::Host);
    /// assert!(matches!(ImageSource::parse("alpine:3.20").unwrap(), ImageSource::Reference(_)));
    /// ```
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        if text == "host" {
            return Ok(Self::Host);
        }
        if let Some(source) = on_disk(text, None) {
            return source;
        }
        // The longest path first: a name in a layout may have a colon itself.
        for (colon, _) in text.rmatch_indices(':') {
            let (path, tag) = (&text[..colon], &text[colon + 1..]);
            // A name with a registry's port in it is no path, but for where it looks like nothing else.
            let may_be_tag = !tag.contains('/') || looks_like_path(path);
            if may_be_tag && let Some(source) = on_disk(path, Some(tag)) {
                return source;
            }
        }
        if looks_like_path(text) {
            return Err(ImageError::not_found(format!(
                "there is no image at '{}'",
                shown(Path::new(text))
            )));
        }
        text.parse().map(Self::Reference)
    }
}

impl FromStr for ImageSource {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        Self::parse(text)
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Reference(reference) => reference.fmt(f),
            Self::Layout { path, tag } | Self::Archive { path, tag } => {
                f.write_str(&shown(path))?;
                tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
            }
        }
    }
}

fn on_disk(text: &str, tag: Option<&str>) -> Option<Result<ImageSource, ImageError>> {
    let path = expanded(text);
    let tag = tag.map(str::to_owned);
    let metadata = path.metadata().ok()?;
    if metadata.is_dir() {
        if path.join("oci-layout").is_file() {
            return Some(Ok(ImageSource::Layout { path, tag }));
        }
        return looks_like_path(text).then(|| {
            Err(ImageError::invalid(format!(
                "the folder '{}' is not an OCI layout: it has no file 'oci-layout'",
                shown(&path)
            )))
        });
    }
    let is_archive = looks_like_path(text) && metadata.is_file();
    is_archive.then_some(Ok(ImageSource::Archive { path, tag }))
}

fn looks_like_path(text: &str) -> bool {
    matches!(text, "." | ".." | "~")
        || ["/", "./", "../", "~/"]
            .iter()
            .any(|start| text.starts_with(start))
        || Path::new(text)
            .extension()
            .is_some_and(|extension| extension == "tar")
}

/// `~` as a shell reads it, for callers that are none.
fn expanded(text: &str) -> PathBuf {
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    match text.strip_prefix('~') {
        Some("") => home().unwrap_or_else(|| text.into()),
        Some(rest) if rest.starts_with('/') => home().map_or_else(
            || text.into(),
            |home| home.join(rest.trim_start_matches('/')),
        ),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ImageErrorKind;

    #[test]
    fn what_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let text = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(text("layout")).unwrap();
        std::fs::create_dir(text("other")).unwrap();
        std::fs::write(text("layout/oci-layout"), "{}").unwrap();
        std::fs::write(text("image.tar"), "").unwrap();
        let layout = |tag: Option<&str>| ImageSource::Layout {
            path: text("layout").into(),
            tag: tag.map(Into::into),
        };
        assert_eq!(ImageSource::parse(&text("layout")).unwrap(), layout(None));
        assert_eq!(
            ImageSource::parse(&text("layout:v1")).unwrap(),
            layout(Some("v1"))
        );
        let archive = |tag: Option<&str>| ImageSource::Archive {
            path: text("image.tar").into(),
            tag: tag.map(Into::into),
        };
        assert_eq!(
            ImageSource::parse(&text("image.tar")).unwrap(),
            archive(None)
        );
        assert_eq!(
            ImageSource::parse(&text("image.tar:team/app:v1")).unwrap(),
            archive(Some("team/app:v1"))
        );
        let kind = |text: &str| ImageSource::parse(text).unwrap_err().kind();
        assert_eq!(kind(&text("other")), ImageErrorKind::InvalidArgument);
        assert_eq!(kind(&text("missing")), ImageErrorKind::NotFound);
        for missing in [
            "./missing",
            "../missing",
            "~/missing/x",
            "missing.tar",
            "/missing:tag",
        ] {
            assert_eq!(kind(missing), ImageErrorKind::NotFound, "{missing}");
        }
    }

    #[test]
    fn everything_else_is_a_name() {
        assert_eq!(ImageSource::parse("host").unwrap(), ImageSource::Host);
        for text in ["alpine:3.20", "src", "localhost:5000/a/b"] {
            assert!(
                matches!(ImageSource::parse(text).unwrap(), ImageSource::Reference(_)),
                "{text}"
            );
        }
        assert_eq!(
            ImageSource::parse("No Such").unwrap_err().kind(),
            ImageErrorKind::InvalidArgument
        );
    }
}
