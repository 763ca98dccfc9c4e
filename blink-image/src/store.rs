//! The store: every image once, under its digest, for all engines and all processes of a home.
//!
//! ```text
//! images/blobs/sha256/<hex>  manifests, configurations and layers, verified when they came
//! images/downloads/<hex>     blobs that are not whole yet, locked by whoever writes them
//! images/images.json         which names the images have; old or new by one rename
//! images/rootfs/<hex>/       rootfs, the flattened root folder, and image.json: made when first asked for
//! images/layouts/<hex>/      an OCI layout of just this image: made when first asked for
//! images/seen/<key>          which image a file was found to hold
//! images/tmp-…               under construction, locked by its maker
//! images/….lock              locks
//! ```
//!
//! An image is there when its manifest and everything that this names is; `images.json` says so last. Whoever makes
//! something of blobs holds the store's lock shared meanwhile, whoever fetches some has a lease on them, and whoever
//! removes anything holds the lock alone.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use blink_archive::Limits;
use blink_host::private;

use crate::blobs::BlobFolder;
use crate::contents::{Blob, Contents};
use crate::digest::Digest;
use crate::error::{ImageError, ImageErrorKind, shown};
use crate::ids::IdMap;
use crate::layout::Found;
use crate::lease::Lease;
use crate::lock::Lock;
use crate::manifest::{self, Document};
use crate::options::StoredImage;
use crate::record::{Entry, Record};
use crate::reference::Reference;
use crate::temporary;

/// The bytes of an image's layers, as they are stored and as they are unpacked, unless told otherwise: 16 GiB, which is more
/// than the largest images in common use, those with the libraries of graphics processors.
pub const DEFAULT_IMAGE_LIMIT_BYTES: u64 = 16 << 30;

/// The images of a home. May be used by several processes and threads at once; cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) blobs: BlobFolder,
    pub(crate) record: Record,
    /// Folders of folders, each of which may use an image.
    pub(crate) users: Vec<PathBuf>,
    pub(crate) ids: IdMap,
    pub(crate) limits: Limits,
}

impl ImageStore {
    /// Opens the store in `folder`, which is made where it is missing, and
    /// removes what crashed processes left in it.
    ///
    /// # Errors
    /// `Internal` or `ResourceExhausted` if the folder cannot be made or read.
    pub fn open(folder: impl Into<PathBuf>, ids: IdMap) -> Result<Self, ImageError> {
        let folder = folder.into();
        let failed =
            |error| ImageError::io(format!("open the image store '{}'", shown(&folder)), error);
        private::make_folder(&folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let make = |name: &str, mode| {
            let path = folder.join(name);
            private::make_folder(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))
        };
        // A sandbox of root's passes through to its root folder. The rest is nobody else's: images may be private.
        let passable = [("", ids.store_mode()), ("rootfs", ids.store_mode())];
        let private = ["blobs", "downloads", "layouts", "seen"].map(|name| (name, 0o700));
        for (name, mode) in passable.into_iter().chain(private) {
            make(name, mode).map_err(failed)?;
        }
        temporary::sweep(&folder).map_err(failed)?;
        let shared = Shared {
            blobs: BlobFolder::open(&folder).map_err(failed)?,
            record: Record::new(folder.clone()),
            users: Vec::new(),
            ids,
            limits: Limits::default().with_total_bytes(DEFAULT_IMAGE_LIMIT_BYTES),
            folder,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Sets how large an image may be: `total_bytes` are those of its layers, as they are stored and as they are unpacked.
    /// Default: [`DEFAULT_IMAGE_LIMIT_BYTES`] in two million files.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.change(|shared| shared.limits = limits)
    }

    /// Looks for users of images in the folders in `folder`, such as a home's sandboxes: what one of them [claims]
    /// is not removed.
    ///
    /// [claims]: ImageStore::claim
    #[must_use]
    pub fn with_users(self, folder: impl Into<PathBuf>) -> Self {
        self.change(|shared| shared.users.push(folder.into()))
    }

    fn change(self, change: impl FnOnce(&mut Shared)) -> Self {
        let old = &self.shared;
        let mut shared = Shared {
            folder: old.folder.clone(),
            blobs: old.blobs.clone(),
            record: Record::new(old.folder.clone()),
            users: old.users.clone(),
            ids: old.ids,
            limits: old.limits,
        };
        change(&mut shared);
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Makes an image of blobs that are all there: its manifest and its name come last.
    pub(crate) fn complete(
        &self,
        found: &Found,
        _lease: &Lease,
        name: Option<&str>,
    ) -> Result<(), ImageError> {
        let _lock = self.lock_shared()?;
        let blobs = &self.shared.blobs;
        let Found { contents, .. } = found;
        for (blob, content, what) in [
            (
                contents.configuration,
                &found.configuration,
                "the configuration",
            ),
            (contents.manifest, &found.manifest, "the manifest"),
        ] {
            let content = content.clone();
            blobs.insert(blob, what, || Ok(Box::new(io::Cursor::new(content))))?;
        }
        // The names of the blobs reach the disk before the name of the image does.
        File::open(&blobs.blobs)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| ImageError::io("write to the image store", error))?;
        self.shared.record.pulled(name, &contents.manifest.digest)
    }

    /// What is stored under a reference, if all of it is.
    pub(crate) fn find(&self, reference: &Reference) -> Result<Option<StoredImage>, ImageError> {
        let name = reference.to_string();
        let pinned = reference.digest();
        let entries = self.shared.record.read()?;
        let found = entries.iter().find(|entry| {
            entry.reference.as_deref() == Some(name.as_str())
                || pinned.as_ref() == Some(&entry.digest)
        });
        let Some(entry) = found else {
            return Ok(None);
        };
        let digest = entry.digest()?;
        if !self.is_whole(&digest) {
            return Ok(None);
        }
        self.shared.record.used(&digest)?;
        self.image_of(entry).map(Some)
    }

    /// The image with this manifest digest, if it is in the store.
    ///
    /// # Errors
    /// `InvalidArgument` if `digest` is not `sha256:…`; `Corrupt` or `Internal`
    /// where the stored image cannot be read.
    pub fn get(&self, digest: &str) -> Result<Option<StoredImage>, ImageError> {
        let digest = digest
            .strip_prefix("sha256:")
            .and_then(Digest::from_hex)
            .ok_or_else(|| {
                ImageError::invalid("a digest is 'sha256:' and 64 lowercase hex digits")
            })?;
        match self.is_whole(&digest) {
            true => self.image(&digest, None).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn image(
        &self,
        digest: &Digest,
        name: Option<&str>,
    ) -> Result<StoredImage, ImageError> {
        let text = digest.to_string();
        let entries = self.shared.record.read()?;
        let of_digest = || entries.iter().filter(|entry| entry.digest == text);
        let entry = of_digest()
            .find(|entry| name.is_none() || entry.reference.as_deref() == name)
            .or_else(|| of_digest().next());
        let unnamed = Entry {
            reference: None,
            digest: text.clone(),
            pulled_at: 0,
            used_at: 0,
        };
        self.image_of(entry.unwrap_or(&unnamed))
    }

    pub(crate) fn image_of(&self, entry: &Entry) -> Result<StoredImage, ImageError> {
        let contents = self.contents(&entry.digest()?)?;
        let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(StoredImage {
            reference: entry.reference.clone(),
            digest: entry.digest.clone(),
            size_bytes: contents.size(),
            config: contents.config,
            pulled_at: time(entry.pulled_at),
            used_at: time(entry.used_at),
        })
    }

    /// What a stored image is made of.
    pub(crate) fn contents(&self, digest: &Digest) -> Result<Contents, ImageError> {
        let blobs = &self.shared.blobs;
        let content = blobs.read(digest, "manifest")?;
        let manifest = match Document::parse(&content, &format!("the stored manifest {digest}"))? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => {
                return Err(ImageError::corrupt(format!(
                    "the stored manifest {digest} is an index"
                )));
            }
        };
        let configuration = manifest::document(manifest.config(), "configuration")?;
        let configuration = blobs.read(&configuration.digest, "configuration")?;
        let blob = Blob {
            digest: *digest,
            size: content.len() as u64,
        };
        manifest::contents(blob, &manifest, &configuration)
    }

    fn is_whole(&self, digest: &Digest) -> bool {
        let whole = |contents: Contents| contents.blobs().all(|blob| self.shared.blobs.has(blob));
        self.contents(digest).is_ok_and(whole)
    }

    /// An image's contents, for a caller who got the image a while ago.
    pub(crate) fn contents_still_there(&self, digest: &Digest) -> Result<Contents, ImageError> {
        self.contents(digest).map_err(|error| match error.kind() {
            ImageErrorKind::NotFound => removed_meanwhile(digest),
            _ => error,
        })
    }

    /// Makes a folder visible: old or new after a crash, also of the machine.
    pub(crate) fn publish(&self, made: &Path, goal: &Path) -> Result<(), ImageError> {
        let failed = |error: io::Error| ImageError::io("write to the image store", error);
        let folder = File::open(goal.parent().unwrap_or(&self.shared.folder)).map_err(failed)?;
        rustix::fs::syncfs(&folder).map_err(|error| failed(error.into()))?;
        fs::rename(made, goal).map_err(failed)?;
        folder.sync_all().map_err(failed)
    }

    /// Held by whoever needs that nothing is removed.
    pub(crate) fn lock_shared(&self) -> Result<Lock, ImageError> {
        Lock::shared(&self.shared.folder.join("store.lock"))
            .map_err(|error| ImageError::io("lock the image store", error))
    }

    /// Held by whoever makes something of one image.
    pub(crate) fn lock_image(&self, digest: &Digest) -> Result<Lock, ImageError> {
        Lock::exclusive(&self.shared.folder.join(format!("{}.lock", digest.hex())))
            .map_err(|error| ImageError::io(format!("lock the image {digest}"), error))
    }
}

pub(crate) fn removed_meanwhile(digest: &Digest) -> ImageError {
    ImageError::not_found(format!(
        "the image {digest} was removed from the store meanwhile; ask for it again"
    ))
}

/// Does something that takes its time on a thread where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(ImageError::new(
                ImageErrorKind::Internal,
                format!("work on an image ended by itself: {error}"),
            ))
        })
}
