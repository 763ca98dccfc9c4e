//! Blobs: verified bytes under their digest, and downloads that are not whole yet.
//!
//! A download grows in a file of its own, which its writer holds a lock on. When it is whole and its digest is right,
//! one rename makes it a blob. What a killed process leaves is taken up where it ends; the lock is free then.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use blink_host::file_lock::{FileLock, Share};
use blink_host::private;
use blink_host::room;

use crate::contents::{Blob, Blobs, Contents};
use crate::digest::{Digest, Hasher};
use crate::error::ImageError;
use crate::manifest;

const BUFFER: usize = 256 * 1024;

/// The two folders.
#[derive(Debug, Clone)]
pub(crate) struct BlobFolder {
    pub(crate) blobs: PathBuf,
    pub(crate) downloads: PathBuf,
}

/// How the beginning of a download went.
pub(crate) enum Begun {
    /// The blob is there already.
    Present,
    /// Someone else writes it, and has got so far.
    Elsewhere(u64),
    /// This one writes it now.
    Mine(Box<Partial>),
}

impl BlobFolder {
    pub(crate) fn open(store: &Path) -> io::Result<Self> {
        let folder = Self {
            blobs: store.join("blobs/sha256"),
            downloads: store.join("downloads"),
        };
        private::make_folder(&folder.blobs)?;
        private::make_folder(&folder.downloads)?;
        Ok(folder)
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Whether the blob is there. What is under its name was verified when it came.
    pub(crate) fn has(&self, blob: Blob) -> bool {
        self.path(&blob.digest)
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.size)
    }

    /// Reads a small document, verified once more: it decides what else is believed.
    pub(crate) fn read(&self, digest: &Digest, what: &str) -> Result<Vec<u8>, ImageError> {
        let failed = |error| ImageError::io(format!("read the stored {what} {digest}"), error);
        let mut content = Vec::new();
        File::open(self.path(digest))
            .map_err(failed)?
            .take(manifest::LARGEST_JSON + 1)
            .read_to_end(&mut content)
            .map_err(failed)?;
        let size = content.len() as u64;
        let blob = Blob {
            digest: *digest,
            size,
        };
        manifest::verify(&content, blob, what).map(|()| content)
    }

    /// Begins, or takes up, the writing of a blob.
    pub(crate) fn begin(&self, blob: Blob) -> Result<Begun, ImageError> {
        let path = self.downloads.join(blob.digest.hex());
        let failed = |error: io::Error| {
            ImageError::io(format!("write {} to the image store", blob.digest), error)
        };
        loop {
            if self.has(blob) {
                return Ok(Begun::Present);
            }
            let file = blink_host::private::open_file(
                &path,
                File::options()
                    .create(true)
                    .truncate(false)
                    .read(true)
                    .write(true),
            )
            .map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            let Some(lock) = FileLock::try_take(file, Share::Alone).map_err(failed)? else {
                return Ok(Begun::Elsewhere(size));
            };
            // Between the opening and the locking, it may have become a blob, or been thrown away.
            if !is_at(lock.file(), &path) {
                continue;
            }
            if self.has(blob) {
                // The opening made a file that nobody goes on with.
                let _ = fs::remove_file(&path);
                return Ok(Begun::Present);
            }
            return Partial::take_up(self, blob, path, lock)
                .map(|partial| Begun::Mine(Box::new(partial)))
                .map_err(failed);
        }
    }

    /// Refuses an image that is larger than it may be, or than there is room for what is missing of it. `name` is the
    /// image's, in messages.
    pub(crate) fn require_room_for(
        &self,
        contents: &Contents,
        limit: u64,
        name: &str,
    ) -> Result<(), ImageError> {
        let sum = |blobs: &mut dyn Iterator<Item = Blob>| {
            blobs.fold(0, |sum: u64, blob| sum.saturating_add(blob.size))
        };
        let layers = || contents.layers.iter().map(|layer| layer.blob);
        let total = sum(&mut layers());
        if total > limit {
            let what = format!("the image '{name}' is said to have");
            return Err(ImageError::too_large(what, total, limit));
        }
        let missing = sum(&mut layers().filter(|blob| !self.has(*blob)));
        File::open(&self.blobs)
            .and_then(|folder| room::require(folder, missing))
            .map_err(|error| ImageError::io(format!("fetch the image '{name}'"), error))
    }

    /// Removes what there is of a blob, whole or not, where nobody writes to it.
    pub(crate) fn remove(&self, digest: &Digest) {
        let path = self.downloads.join(digest.hex());
        if let Some(_lock) = nobodys(&path) {
            let _ = fs::remove_file(&path);
        }
        let _ = fs::remove_file(self.path(digest));
    }

    /// Removes downloads that nobody goes on with; returns how many bytes of disk are free again.
    pub(crate) fn remove_abandoned(&self) -> u64 {
        let mut freed = 0;
        for entry in fs::read_dir(&self.downloads)
            .into_iter()
            .flatten()
            .flatten()
        {
            // The lock is held while the file goes: whoever opened it meanwhile sees that it went.
            let Some(lock) = nobodys(&entry.path()) else {
                continue;
            };
            let size = lock
                .file()
                .metadata()
                .map_or(0, |metadata| metadata.blocks() * 512);
            if fs::remove_file(entry.path()).is_ok() {
                freed += size;
            }
        }
        freed
    }

    /// Writes a blob from wherever its bytes are, verified on the way. Does nothing where it is there already.
    pub(crate) fn insert<'a>(
        &self,
        blob: Blob,
        what: &str,
        open: impl FnOnce() -> Result<Box<dyn Read + 'a>, ImageError>,
    ) -> Result<(), ImageError> {
        let mut partial = loop {
            match self.begin(blob)? {
                Begun::Present => return Ok(()),
                Begun::Mine(partial) => break *partial,
                Begun::Elsewhere(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        };
        // Whoever began it may have had it from elsewhere; local bytes are cheap to have again.
        partial.restart()?;
        let written = open().and_then(|mut content| partial.copy(&mut content, what));
        match written.and_then(|()| partial.finish(what)) {
            Ok(()) => Ok(()),
            Err(error) => {
                partial.discard();
                Err(error)
            }
        }
    }
}

impl Blobs for BlobFolder {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, ImageError> {
        let file = File::open(self.path(digest))
            .map_err(|error| ImageError::io(format!("read {digest} in the image store"), error))?;
        Ok(Box::new(file))
    }
}

/// A blob that is being written, by this process alone.
#[derive(Debug)]
pub(crate) struct Partial {
    blob: Blob,
    path: PathBuf,
    goal: PathBuf,
    lock: FileLock,
    hasher: Hasher,
    length: u64,
    /// Whether some of its bytes were written by an earlier process.
    resumed: bool,
}

impl Partial {
    fn take_up(folder: &BlobFolder, blob: Blob, path: PathBuf, lock: FileLock) -> io::Result<Self> {
        let mut partial = Self {
            blob,
            path,
            goal: folder.path(&blob.digest),
            hasher: Hasher::default(),
            length: 0,
            resumed: false,
            lock,
        };
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = partial.file().read_at(&mut buffer, partial.length)?;
            if read == 0 {
                break;
            }
            partial.hasher.update(&buffer[..read]);
            partial.length += read as u64;
        }
        partial.resumed = partial.length > 0;
        if partial.length > blob.size {
            partial.truncate()?;
        }
        Ok(partial)
    }

    fn file(&self) -> &File {
        self.lock.file()
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn blob(&self) -> Blob {
        self.blob
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.length == self.blob.size
    }

    pub(crate) fn was_resumed(&self) -> bool {
        self.resumed
    }

    /// Writes what comes next. `what` names the blob in messages.
    pub(crate) fn append(&mut self, content: &[u8], what: &str) -> Result<(), ImageError> {
        if content.len() as u64 > self.blob.size - self.length {
            return Err(self.wrong_size(what, "more"));
        }
        room::require(self.file(), content.len() as u64)
            .and_then(|()| self.file().write_all_at(content, self.length))
            .map_err(|error| ImageError::io(format!("write {what} to the image store"), error))?;
        self.hasher.update(content);
        self.length += content.len() as u64;
        Ok(())
    }

    fn copy(&mut self, content: &mut dyn Read, what: &str) -> Result<(), ImageError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => self.append(&buffer[..read], what)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ImageError::io(format!("read {what}"), error)),
            }
        }
    }

    /// Forgets what was written.
    pub(crate) fn restart(&mut self) -> Result<(), ImageError> {
        self.truncate()
            .map_err(|error| ImageError::io("write to the image store", error))
    }

    fn truncate(&mut self) -> io::Result<()> {
        self.file().set_len(0)?;
        self.hasher = Hasher::default();
        self.length = 0;
        self.resumed = false;
        Ok(())
    }

    /// Makes a blob of it, where it is whole and the right one.
    pub(crate) fn finish(&mut self, what: &str) -> Result<(), ImageError> {
        if !self.is_whole() {
            return Err(self.wrong_size(what, "fewer"));
        }
        let found = self.hasher.clone().finish();
        if found != self.blob.digest {
            return Err(ImageError::corrupt(format!(
                "{what} is damaged: its content has the digest {found}"
            )));
        }
        let failed = |error| ImageError::io(format!("write {what} to the image store"), error);
        self.file()
            .set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| self.file().sync_all())
            .and_then(|()| fs::rename(&self.path, &self.goal))
            .map_err(failed)
    }

    /// Throws it away, while it is locked.
    pub(crate) fn discard(self) {
        // What cannot be removed now goes with a prune.
        let _ = fs::remove_file(&self.path);
    }

    fn wrong_size(&self, what: &str, more: &str) -> ImageError {
        ImageError::corrupt(format!(
            "{what} is damaged: it has {more} than the {} bytes that its manifest states",
            self.blob.size
        ))
    }
}

/// What there is of a download, where nobody goes on with it.
fn nobodys(path: &Path) -> Option<FileLock> {
    let file = File::open(path).ok()?;
    let lock = FileLock::try_take(file, Share::Alone).ok().flatten()?;
    is_at(lock.file(), path).then_some(lock)
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(here), Ok(there)) = (file.metadata(), path.symlink_metadata()) else {
        return false;
    };
    (here.dev(), here.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_while_a_blob_is_finished_leaves_nothing_under_construction() {
        let store = tempfile::tempdir().unwrap();
        let folder = BlobFolder::open(store.path()).unwrap();
        for round in 0..100_u32 {
            let content = round.to_le_bytes();
            let mut hasher = Hasher::default();
            hasher.update(&content);
            let blob = Blob {
                digest: hasher.finish(),
                size: content.len() as u64,
            };
            std::thread::scope(|threads| {
                for _ in 0..8 {
                    threads.spawn(|| {
                        let insert =
                            || folder.insert(blob, "a layer", || Ok(Box::new(&content[..])));
                        insert().unwrap();
                    });
                }
            });
            assert!(folder.has(blob));
            assert_eq!(fs::read_dir(&folder.downloads).unwrap().count(), 0);
        }
    }
}
