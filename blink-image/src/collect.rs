//! What is stored, and removing it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FileType;

use crate::digest::Digest;
use crate::error::{ImageError, ImageErrorKind};
use crate::lease;
use crate::lock::Lock;
use crate::options::StoredImage;
use crate::record::Entry;
use crate::reference::Reference;
use crate::store::ImageStore;

/// The file by which a folder says which image it uses.
const CLAIM: &str = "image";

/// Whoever unpacks an image is waited for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whoever unpacks an image is not waited for to tidy up.
const FORGET_PATIENCE: Duration = Duration::from_secs(1);

/// Digits of a digest that are enough to name an image by, as `blink images` shows them.
const SHORTEST_ID: usize = 12;

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RemovedImages {
    /// The names that are gone.
    pub references: Vec<String>,
    /// The digests of the images that are gone, as `sha256:…`.
    pub digests: Vec<String>,
    /// Bytes of disk that are free again.
    pub freed_bytes: u64,
}

impl RemovedImages {
    fn of(gone: Vec<Entry>, rest: &[Entry]) -> Self {
        let is_last = |entry: &&Entry| rest.iter().all(|other| other.digest != entry.digest);
        let mut digests: Vec<_> = gone
            .iter()
            .filter(is_last)
            .map(|entry| entry.digest.clone())
            .collect();
        digests.sort();
        digests.dedup();
        Self {
            references: gone
                .into_iter()
                .filter_map(|entry| entry.reference)
                .collect(),
            digests,
            freed_bytes: 0,
        }
    }
}

impl ImageStore {
    /// The images that are stored, each once for every name that it has; the one that was fetched last comes first.
    ///
    /// # Errors
    /// `Corrupt` if the list of images is damaged.
    pub fn list(&self) -> Result<Vec<StoredImage>, ImageError> {
        let mut images = Vec::new();
        for entry in self.shared.record.read()? {
            match self.image_of(&entry) {
                Ok(image) => images.push(image),
                // A pull mends it, and a prune removes it.
                Err(error) => tracing::warn!(digest = entry.digest, %error, "an image is damaged"),
            }
        }
        images.sort_by(|one, other| {
            (other.pulled_at, &one.reference).cmp(&(one.pulled_at, &other.reference))
        });
        Ok(images)
    }

    /// Says that the owner of `folder` uses an image, for as long as the folder is there: nobody removes it then.
    ///
    /// # Errors
    /// `NotFound` if the image was removed before that.
    pub fn claim(&self, image: &StoredImage, folder: &Path) -> Result<(), ImageError> {
        let digest = Digest::parse(&image.digest, "the image")?;
        let _lock = self.lock_shared()?;
        self.contents_still_there(&digest)?;
        fs::write(folder.join(CLAIM), &image.digest)
            .map_err(|error| ImageError::io("write which image is used", error))
    }

    /// Removes the image that `name` means, a reference or a digest of which 12 digits are enough. Where it has other
    /// names, only this one goes. A digest takes all its names with it.
    ///
    /// # Errors
    /// `NotFound`; `Busy` if a sandbox uses it, which the message names, or where images are being unpacked.
    pub fn remove(&self, name: &str) -> Result<RemovedImages, ImageError> {
        let _lock = self.lock_alone()?;
        let users = self.users()?;
        let mut removed = self.shared.record.update(|entries| {
            let wanted = wanted(entries, name)?;
            let rest: Vec<_> = entries
                .iter()
                .filter(|entry| !wanted.contains(entry))
                .cloned()
                .collect();
            for entry in &wanted {
                let has_other_name = rest.iter().any(|other| other.digest == entry.digest);
                let user = entry.digest().ok().and_then(|digest| users.get(&digest));
                if let Some(user) = user
                    && !has_other_name
                {
                    return Err(ImageError::new(
                        ImageErrorKind::Busy,
                        format!(
                            "the image '{name}' is used by the sandbox {user}; remove that first, and try again"
                        ),
                    ));
                }
            }
            *entries = rest;
            Ok(RemovedImages::of(wanted, entries))
        })?;
        self.collect(&users, &mut removed)?;
        Ok(removed)
    }

    /// Removes what no name and no sandbox refers to: images, what was unpacked from them, and downloads that were
    /// given up.
    ///
    /// # Errors
    /// `Busy` if images are being unpacked.
    pub fn prune(&self) -> Result<RemovedImages, ImageError> {
        let _lock = self.lock_alone()?;
        let users = self.users()?;
        let mut removed = self.shared.record.update(|entries| {
            let is_used = |entry: &Entry| {
                entry
                    .digest()
                    .is_ok_and(|digest| users.contains_key(&digest))
            };
            let (kept, gone) = std::mem::take(entries)
                .into_iter()
                .partition(|entry| entry.reference.is_some() || is_used(entry));
            *entries = kept;
            Ok(RemovedImages::of(gone, entries))
        })?;
        self.collect(&users, &mut removed)?;
        removed.freed_bytes += self.shared.blobs.remove_abandoned();
        Ok(removed)
    }

    fn lock_alone(&self) -> Result<Lock, ImageError> {
        Lock::exclusive_within(&self.shared.folder.join("store.lock"), PATIENCE)
            .map_err(|error| ImageError::io("lock the image store", error))
    }

    /// Which images are used, each with one of its users.
    fn users(&self) -> Result<HashMap<Digest, String>, ImageError> {
        let mut users = HashMap::new();
        for folder in &self.shared.users {
            let entries = match fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(ImageError::io("see which images are used", error)),
            };
            for entry in entries.flatten() {
                let claim = fs::read_to_string(entry.path().join(CLAIM)).unwrap_or_default();
                if let Some(digest) = claim.strip_prefix("sha256:").and_then(Digest::from_hex) {
                    users.insert(digest, entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        Ok(users)
    }

    /// Removes what was fetched of an image that was refused, but for what others need. What cannot be removed now goes
    /// with a prune.
    pub(crate) fn forget(&self, digests: &[Digest]) {
        let forgotten = self.try_forget(digests);
        if let Err(error) = forgotten {
            tracing::debug!(%error, "what was fetched of an image that was refused goes later");
        }
    }

    fn try_forget(&self, digests: &[Digest]) -> Result<(), ImageError> {
        let store = &self.shared.folder;
        let _lock = Lock::exclusive_within(&store.join("store.lock"), FORGET_PATIENCE)
            .map_err(|error| ImageError::io("lock the image store", error))?;
        let (_, kept) = self.kept(&self.users()?)?;
        let leased = self.leased()?;
        for digest in digests {
            let hex = digest.hex();
            if !kept.contains(&hex) && !leased.contains(&hex) {
                self.shared.blobs.remove(digest);
            }
        }
        Ok(())
    }

    /// The images that are in the list or used, and the names of all that belongs to them.
    fn kept(
        &self,
        users: &HashMap<Digest, String>,
    ) -> Result<(HashSet<Digest>, HashSet<String>), ImageError> {
        let mut images: HashSet<Digest> = users.keys().copied().collect();
        for entry in self.shared.record.read()? {
            images.insert(entry.digest()?);
        }
        let mut kept = HashSet::new();
        for image in &images {
            kept.insert(image.hex());
            match self.contents(image) {
                Ok(contents) => kept.extend(contents.blobs().map(|blob| blob.digest.hex())),
                // Nobody can use it, so that nothing needs to be kept for it.
                Err(error) => tracing::warn!(%image, %error, "an image is damaged"),
            }
        }
        Ok((images, kept))
    }

    fn leased(&self) -> Result<HashSet<String>, ImageError> {
        lease::leased(&self.shared.folder)
            .map_err(|error| ImageError::io("read the image store", error))
    }

    /// Removes everything that belongs to no image in the list, and to none that is used.
    fn collect(
        &self,
        users: &HashMap<Digest, String>,
        removed: &mut RemovedImages,
    ) -> Result<(), ImageError> {
        let (images, kept) = self.kept(users)?;
        let leased = self.leased()?;
        let store = &self.shared.folder;
        // What is made of blobs goes before them, and manifests go with the rest: whatever is left after a crash is
        // found again, since all is found by looking.
        for folder in ["rootfs", "layouts"] {
            remove_all_but(&store.join(folder), |name| kept.contains(name), removed)?;
        }
        let is_seen = |name: &str| {
            let image = fs::read_to_string(store.join("seen").join(name)).unwrap_or_default();
            kept.contains(&image)
        };
        remove_all_but(&store.join("seen"), is_seen, removed)?;
        let is_kept = |name: &str| kept.contains(name) || leased.contains(name);
        remove_all_but(&self.shared.blobs.blobs, is_kept, removed)?;
        // Nobody holds the lock of an image who does not share the store's.
        let is_other = |name: &str| {
            let image = name.strip_suffix(".lock").and_then(Digest::from_hex);
            image.is_none_or(|image| images.contains(&image))
        };
        remove_all_but(store, is_other, removed)
    }
}

/// Removes what is in `folder`, but for what `keep` says by its name.
fn remove_all_but(
    folder: &Path,
    keep: impl Fn(&str) -> bool,
    removed: &mut RemovedImages,
) -> Result<(), ImageError> {
    let failed =
        |error: io::Error| ImageError::io("remove what is not used from the image store", error);
    let parent = fs::File::open(folder).map_err(failed)?;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(&keep) {
            continue;
        }
        let freed = disk_usage(&entry.path());
        match fs::remove_file(entry.path()) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied
                ) =>
            {
                blink_archive::remove_tree(parent.as_fd(), &entry.file_name())
                    .map_err(|error| ImageError::archive("what is not used", error))?;
            }
            removed => removed.map_err(failed)?,
        }
        removed.freed_bytes += freed;
    }
    Ok(())
}

/// The disk that goes free with a file or folder. What has another name elsewhere stays.
fn disk_usage(path: &Path) -> u64 {
    let occupied = |is_folder: bool, names: u64, blocks: u64| match is_folder || names == 1 {
        true => blocks * 512,
        false => 0,
    };
    let Ok(metadata) = path.symlink_metadata() else {
        return 0;
    };
    let mut bytes = occupied(metadata.is_dir(), metadata.nlink(), metadata.blocks());
    if metadata.is_dir()
        && let Ok(folder) = fs::File::open(path)
    {
        // What cannot be read counts as nothing; nobody else writes here.
        let _ = blink_archive::walk_tree(folder.into(), |stat| {
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let blocks = u64::try_from(stat.st_blocks).unwrap_or_default();
            bytes += occupied(is_folder, stat.st_nlink, blocks);
        });
    }
    bytes
}

fn wanted(entries: &[Entry], name: &str) -> Result<Vec<Entry>, ImageError> {
    let by_digest = |entry: &&Entry| {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_long_enough = hex.len() >= SHORTEST_ID;
        is_long_enough
            && entry
                .digest
                .strip_prefix("sha256:")
                .is_some_and(|own| own.starts_with(hex))
    };
    let full = name
        .parse::<Reference>()
        .map(|reference| reference.to_string());
    let by_name = |entry: &&Entry| {
        full.as_ref()
            .is_ok_and(|full| entry.reference.as_ref() == Some(full))
    };
    let named: Vec<_> = entries.iter().filter(by_name).cloned().collect();
    let found = match named.is_empty() {
        true => entries.iter().filter(by_digest).cloned().collect(),
        false => named,
    };
    match found.is_empty() {
        true => Err(ImageError::not_found(format!(
            "there is no stored image '{}'; 'blink images' lists what is there",
            name.escape_default()
        ))),
        false => Ok(found),
    }
}
