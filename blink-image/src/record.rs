//! Which names the stored images have: one small file, old or new after a crash, never in between.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{ImageError, shown};
use crate::lock::Lock;

const VERSION: u32 = 1;

/// How exactly is known when an image was used last: not worth writing a file for each start of a sandbox.
const USE_STEP: Duration = Duration::from_secs(60 * 60);

/// An image, and the name that it was pulled by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// `None` if it came from a folder or file, or its name has moved on to another image.
    pub(crate) reference: Option<String>,
    /// The manifest's digest, as `sha256:…`.
    pub(crate) digest: String,
    /// Seconds since 1970.
    pub(crate) pulled_at: u64,
    /// Seconds since 1970.
    pub(crate) used_at: u64,
}

impl Entry {
    pub(crate) fn digest(&self) -> Result<Digest, ImageError> {
        Digest::parse(&self.digest, "a stored image")
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    images: Vec<Entry>,
}

#[derive(Debug)]
pub(crate) struct Record {
    folder: PathBuf,
}

impl Record {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("images.json")
    }

    pub(crate) fn read(&self) -> Result<Vec<Entry>, ImageError> {
        let path = self.path();
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ImageError::io("read the list of images", error)),
        };
        match serde_json::from_slice::<Content>(&content) {
            Ok(Content { version, images }) if version <= VERSION => Ok(images),
            Ok(_) => Err(ImageError::unsupported(format!(
                "the list of images '{}' was written by a newer version of Blink; use that one, or another home",
                shown(&path)
            ))),
            Err(error) => Err(ImageError::corrupt(format!(
                "the list of images '{}' is damaged ({error}); remove it, and pull the images again: what is stored \
                 of them is not fetched twice",
                shown(&path)
            ))),
        }
    }

    /// Changes the list. Other processes wait meanwhile.
    pub(crate) fn update<T>(
        &self,
        change: impl FnOnce(&mut Vec<Entry>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let failed = |error| ImageError::io("write the list of images", error);
        let _lock = Lock::exclusive(&self.folder.join("images.lock")).map_err(failed)?;
        let before = self.read()?;
        let mut entries = before.clone();
        let result = change(&mut entries)?;
        if entries != before {
            self.write(entries).map_err(failed)?;
        }
        Ok(result)
    }

    fn write(&self, images: Vec<Entry>) -> io::Result<()> {
        let content = serde_json::to_vec_pretty(&Content {
            version: VERSION,
            images,
        })?;
        // Always the same name, which the lock protects: what a crash leaves is overwritten.
        let new_path = self.folder.join("images.json.new");
        let mut new = blink_host::private::create_file(&new_path)?;
        new.write_all(&content)?;
        new.sync_all()?;
        fs::rename(&new_path, self.path())?;
        File::open(&self.folder)?.sync_all()
    }

    /// Notes that `digest` was pulled now, under this name if it has one. What had the name before stays, without it.
    pub(crate) fn pulled(
        &self,
        reference: Option<&str>,
        digest: &Digest,
    ) -> Result<(), ImageError> {
        let digest = digest.to_string();
        self.update(|entries| {
            let now = now();
            if let Some(reference) = reference {
                for entry in entries.iter_mut() {
                    if entry.reference.as_deref() == Some(reference) {
                        entry.reference = None;
                    }
                }
            }
            entries.retain(|entry| entry.digest != digest || entry.reference.is_some());
            if reference.is_none() && entries.iter().any(|entry| entry.digest == digest) {
                return Ok(());
            }
            entries.push(Entry {
                reference: reference.map(str::to_owned),
                digest,
                pulled_at: now,
                used_at: now,
            });
            without_repetition(entries);
            Ok(())
        })
    }

    /// Notes that an image is used now.
    pub(crate) fn used(&self, digest: &Digest) -> Result<(), ImageError> {
        let (digest, now) = (digest.to_string(), now());
        let is_old = |entry: &Entry| {
            entry.digest == digest && now.saturating_sub(entry.used_at) >= USE_STEP.as_secs()
        };
        if !self.read()?.iter().any(is_old) {
            return Ok(());
        }
        self.update(|entries| {
            for entry in entries.iter_mut().filter(|entry| is_old(entry)) {
                entry.used_at = now;
            }
            Ok(())
        })
    }
}

/// An image that lost its last name is in the list once.
fn without_repetition(entries: &mut Vec<Entry>) {
    let all = entries.clone();
    let mut index = 0;
    entries.retain(|entry| {
        index += 1;
        let others = &all[..index - 1];
        let named = |other: &Entry| other.digest == entry.digest && other.reference.is_some();
        entry.reference.is_some()
            || (!all.iter().any(named) && !others.iter().any(|other| other.digest == entry.digest))
    });
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_move_and_what_had_them_stays() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::new(folder.path().to_path_buf());
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        record.pulled(Some("a:1"), &one).unwrap();
        record.pulled(Some("a:2"), &one).unwrap();
        record.pulled(Some("a:1"), &two).unwrap();
        record.pulled(None, &one).unwrap();
        let names = || -> Vec<_> {
            let entries = record.read().unwrap();
            entries
                .into_iter()
                .map(|entry| (entry.reference, entry.digest))
                .collect()
        };
        let (one_text, two_text) = (one.to_string(), two.to_string());
        assert_eq!(
            names(),
            [
                (Some("a:2".to_owned()), one_text.clone()),
                (Some("a:1".to_owned()), two_text.clone())
            ]
        );
        record.pulled(Some("a:2"), &two).unwrap();
        assert!(names().contains(&(None, one_text.clone())));
        record.pulled(Some("a:3"), &one).unwrap();
        assert!(!names().contains(&(None, one_text)));
        assert_eq!(names().len(), 3);
    }

    #[test]
    fn a_damaged_list_is_no_empty_list() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::new(folder.path().to_path_buf());
        assert!(record.read().unwrap().is_empty());
        fs::write(folder.path().join("images.json"), "{").unwrap();
        let error = record.pulled(None, &Digest::of(b"")).unwrap_err();
        assert_eq!(error.kind(), crate::ImageErrorKind::Corrupt);
        fs::write(
            folder.path().join("images.json"),
            r#"{"version":2,"images":[]}"#,
        )
        .unwrap();
        assert_eq!(
            record.read().unwrap_err().kind(),
            crate::ImageErrorKind::Unsupported
        );
    }
}
