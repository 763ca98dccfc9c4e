//! `blink session cp`.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use blink_core::{ErrorKind, FileType, Files};
use serde_json::json;

use super::Sessions;
use crate::failure::Failure;
use crate::progress;

/// One side of a copy.
#[derive(Debug, PartialEq)]
enum Side {
    Here(PathBuf),
    There(String, PathBuf),
}

impl Side {
    /// `NAME:/PATH` is a session's; anything else, also with a folder before the colon, is this machine's.
    fn new(word: &OsStr) -> Side {
        let bytes = word.as_bytes();
        let split = bytes.windows(2).position(|pair| pair == b":/");
        let name = split.and_then(|colon| std::str::from_utf8(&bytes[..colon]).ok());
        match (split, name) {
            (Some(colon), Some(name)) if !name.is_empty() && !name.contains('/') => Side::There(
                name.to_owned(),
                OsStr::from_bytes(&bytes[colon + 1..]).into(),
            ),
            _ => Side::Here(word.into()),
        }
    }
}

/// A copy between this machine and a session or sandbox.
pub(crate) struct Way {
    from: OsString,
    to: OsString,
    name: String,
    source: Side,
    destination: PathBuf,
    user: Option<String>,
}

impl Way {
    pub(crate) fn new(
        from: &OsString,
        to: &OsString,
        user: Option<String>,
    ) -> Result<Way, Failure> {
        let (name, source, destination) = match (Side::new(from), Side::new(to)) {
            (Side::Here(from), Side::There(name, to)) => (name, Side::Here(from), to),
            (Side::There(name, from), Side::Here(to)) => {
                (name.clone(), Side::There(name, from), to)
            }
            (Side::Here(_), Side::Here(_)) => {
                return Err(Failure::invalid(
                    "neither path is in a session or sandbox; write one as NAME:/PATH",
                ));
            }
            (Side::There(..), Side::There(..)) => {
                return Err(Failure::invalid(
                    "only one of the paths can be in a session or sandbox; copy to this machine first, or fork the session",
                ));
            }
        };
        if user.is_some() && matches!(source, Side::There(..)) {
            return Err(Failure::invalid(
                "--user sets the owner of files in a sandbox; files copied to this machine belong to you",
            ));
        }
        Ok(Way {
            from: from.clone(),
            to: to.clone(),
            name,
            source,
            destination,
            user,
        })
    }

    /// Of the session or sandbox.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn from(&self) -> Cow<'_, str> {
        self.from.to_string_lossy()
    }

    pub(crate) fn to(&self) -> Cow<'_, str> {
        self.to.to_string_lossy()
    }

    pub(crate) async fn copy(&self, mut files: Files) -> Result<(), Failure> {
        if let Some(user) = &self.user {
            files = files.as_user(user.as_str());
        }
        match &self.source {
            Side::Here(from) => upload(&files, from, &self.destination).await,
            Side::There(_, from) => download(&files, from, &self.destination).await,
        }
    }
}

impl Sessions {
    /// Copies a file or folder one way or the other.
    pub(crate) async fn copy(&self, way: Way) -> Result<i32, Failure> {
        let (session, info) = self.take(way.name()).await?;
        let copying = async { way.copy(session.sandbox().await?.files()?).await };
        let copied = progress::shown("copying", copying).await;
        self.let_go(session).await;
        copied?;
        let more = json!({"from": way.from(), "to": way.to()});
        let words = format!("copied {} to {}", way.from(), way.to());
        self.tell("session_copied", way.name(), info.isolation, more, &words)
    }
}

async fn upload(files: &Files, from: &Path, to: &Path) -> Result<(), Failure> {
    let is_folder = match files.stat(to).await {
        // What a link leads to is not known without following it: its content is.
        Ok(found) if found.file_type == FileType::Symlink => files.list(to).await.is_ok(),
        Ok(found) => found.file_type == FileType::Directory,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    Ok(files.upload(from, target(from, to, is_folder)?).await?)
}

async fn download(files: &Files, from: &Path, to: &Path) -> Result<(), Failure> {
    // What is in a folder may have come from a session: it is not for its path to be followed.
    match to.is_dir() {
        true => files.download_into(from, to).await?,
        false => files.download(from, target(from, to, false)?).await?,
    }
    Ok(())
}

/// In a folder that is there, it goes under its own name.
fn target(from: &Path, to: &Path, is_folder: bool) -> Result<PathBuf, Failure> {
    let is_meant_as_folder = to.as_os_str().as_bytes().ends_with(b"/");
    if is_meant_as_folder && !is_folder {
        return Err(Failure::new(
            ErrorKind::NotFound,
            format!(
                "there is no folder {}; leave the / at its end out to make it",
                to.display()
            ),
        ));
    }
    Ok(match (is_folder, from.file_name()) {
        (true, Some(name)) => to.join(name),
        // `.`, `..` and `/` have no name: their content goes into the folder.
        _ => to.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        let there = |name: &str, path: &str| Side::There(name.to_owned(), path.into());
        for (word, side) in [
            ("a:/b", there("a", "/b")),
            ("a:/b:/c", there("a", "/b:/c")),
            ("a:/", there("a", "/")),
            ("a", Side::Here("a".into())),
            ("a:b", Side::Here("a:b".into())),
            (":/b", Side::Here(":/b".into())),
            ("./a:/b", Side::Here("./a:/b".into())),
            ("/a:/b", Side::Here("/a:/b".into())),
        ] {
            assert_eq!(Side::new(OsStr::new(word)), side, "{word}");
        }
    }
}
