//! The store: each image once, under its digest, as one folder.
//!
//! ```text
//! images/<digest>/rootfs      the flattened root filesystem
//! images/<digest>/image.json  its configuration
//! images/<digest>.lock        held while that image is unpacked
//! images/seen-<key>           which image an archive was found to hold
//! images/tmp-…                under construction, locked by its maker
//! ```

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use blink_archive::{Limits, Ownership, Root, UnpackOptions, unpack};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::image::config::ImageConfig;
use crate::image::contents::{Blobs, Contents};
use crate::image::digest::Digest;
use crate::image::error::{ImageError, shown};
use crate::image::flatten::Flatten;
use crate::image::layout::{self, Layout};
use crate::image::source::ImageSource;
use crate::image::temporary::{self, TemporaryFolder};

/// The largest id that an image may use: a range of 65 536 is what systems set
/// aside for one user's sandboxes.
const LARGEST_ID: u32 = 65_535;

/// Who owns the files of unpacked images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// Where `single` is false: what is added to each user and group id, so that
    /// the image's root is not this machine's. Ids above 65 535 are refused.
    pub uid_base: u32,
    /// Everything belongs to the user who runs this, as for an ordinary user it must.
    pub single: bool,
}

impl IdMap {
    fn ownership(self) -> Ownership {
        if self.single {
            Ownership::Ignore
        } else {
            Ownership::Preserve {
                uid_base: self.uid_base,
                gid_base: self.uid_base,
                max_id: LARGEST_ID,
            }
        }
    }

    /// Who may enter the store. An image's set-user-id programs belong to a user
    /// of this machine: others must not be able to reach them. Only where that
    /// user is nobody's may others pass through, as the sandbox itself has to.
    fn store_mode(self) -> u32 {
        if self.single || self.uid_base == 0 {
            0o700
        } else {
            0o711
        }
    }
}

/// How far the unpacking of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of layers read, as they are stored.
    pub bytes_done: u64,
    /// Bytes of all layers.
    pub bytes_total: u64,
    /// The layer being unpacked, from 1.
    pub layer: usize,
    /// Number of layers.
    pub layers: usize,
}

/// An image in the store, ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rootfs {
    /// The root folder. Shared by all sandboxes of the image: mount it read-only.
    pub path: PathBuf,
    /// How the image wants its programs to be run.
    pub config: ImageConfig,
    /// The manifest's digest, as `sha256:…`.
    pub digest: String,
}

/// The images unpacked so far. May be used by several processes and threads at once.
#[derive(Debug)]
pub struct ImageStore {
    folder: PathBuf,
    ids: IdMap,
    limits: Limits,
}

impl ImageStore {
    /// Opens the store in `folder`, which is made where it is missing, and
    /// removes what crashed processes left in it.
    ///
    /// # Errors
    /// `Internal` or `ResourceExhausted` where the folder cannot be made or read.
    pub fn open(folder: impl Into<PathBuf>, ids: IdMap) -> Result<Self, ImageError> {
        let folder = folder.into();
        let failed =
            |error| ImageError::io(format!("open the image store '{}'", shown(&folder)), error);
        fs::create_dir_all(&folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        fs::set_permissions(&folder, Permissions::from_mode(ids.store_mode())).map_err(failed)?;
        temporary::sweep(&folder).map_err(failed)?;
        Ok(Self {
            folder,
            ids,
            limits: Limits::default(),
        })
    }

    /// Sets how large an image may be, unpacked. Default: [`Limits::default`],
    /// which is 64 GiB in two million files.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The image's root filesystem, unpacked now if it is not in the store yet.
    /// Blocks while another process unpacks the same image.
    ///
    /// # Errors
    /// `ImageUnavailable` for an image in a registry; `NotFound`, `Corrupt`,
    /// `Unsupported` and `ResourceExhausted` as the image deserves;
    /// `InvalidArgument` for [`ImageSource::Host`], which needs no store. On an
    /// error nothing of the image stays.
    pub fn rootfs(
        &self,
        source: &ImageSource,
        progress: &dyn Fn(Progress),
    ) -> Result<Rootfs, ImageError> {
        let _span = tracing::info_span!("image", %source).entered();
        match source {
            ImageSource::Host => Err(ImageError::invalid(
                "the image 'host' is this machine's own programs and is not kept in the image store",
            )),
            ImageSource::Layout { path, tag } => {
                let layout = Layout::open(path)?;
                let contents = layout.resolve(tag.as_deref())?;
                self.materialize(&contents, &layout, progress)
            }
            ImageSource::Archive { path, tag } => self.archive(path, tag.as_deref(), progress),
            ImageSource::Reference(reference) => Err(ImageSource::unavailable(reference)),
        }
    }

    /// The image with this manifest digest, if it is in the store.
    ///
    /// # Errors
    /// `InvalidArgument` where `digest` is not `sha256:…`; `Corrupt` or `Internal`
    /// where the stored image cannot be read.
    pub fn get(&self, digest: &str) -> Result<Option<Rootfs>, ImageError> {
        let digest = digest
            .strip_prefix("sha256:")
            .and_then(Digest::from_hex)
            .ok_or_else(|| {
                ImageError::invalid("a digest is 'sha256:' and 64 lowercase hex digits")
            })?;
        self.stored(&digest)
    }

    /// Makes the root filesystem of an image from wherever its blobs are.
    pub(crate) fn materialize(
        &self,
        contents: &Contents,
        blobs: &dyn Blobs,
        progress: &dyn Fn(Progress),
    ) -> Result<Rootfs, ImageError> {
        let digest = contents.digest;
        if let Some(rootfs) = self.stored(&digest)? {
            return Ok(rootfs);
        }
        let _lock = self.lock(&digest)?;
        // Another may have unpacked it while this one waited.
        if let Some(rootfs) = self.stored(&digest)? {
            return Ok(rootfs);
        }
        let temporary = TemporaryFolder::new(&self.folder)?;
        let image = temporary.path().join("image");
        self.build(&image, contents, blobs, progress)?;
        self.publish(&image, &digest)?;
        tracing::info!(%digest, "unpacked an image");
        self.stored(&digest)?.ok_or_else(|| {
            ImageError::corrupt(format!(
                "the image {digest} was removed while it was unpacked"
            ))
        })
    }

    fn build(
        &self,
        image: &Path,
        contents: &Contents,
        blobs: &dyn Blobs,
        progress: &dyn Fn(Progress),
    ) -> Result<(), ImageError> {
        let failed = |error| ImageError::io("write to the image store", error);
        let rootfs = image.join("rootfs");
        fs::create_dir_all(&rootfs).map_err(failed)?;
        fs::set_permissions(image, Permissions::from_mode(self.ids.store_mode()))
            .map_err(failed)?;
        fs::set_permissions(&rootfs, Permissions::from_mode(0o755)).map_err(failed)?;
        if !self.ids.single {
            std::os::unix::fs::chown(&rootfs, Some(self.ids.uid_base), Some(self.ids.uid_base))
                .map_err(failed)?;
        }
        let root = Root::open(&rootfs).map_err(|error| ImageError::archive("an image", error))?;
        Flatten {
            contents,
            blobs,
            ownership: self.ids.ownership(),
            limits: self.limits,
            progress,
        }
        .run(&root)?;
        let config =
            serde_json::to_vec_pretty(&contents.config).map_err(|error| failed(error.into()))?;
        fs::write(image.join("image.json"), config).map_err(failed)
    }

    /// Makes an image visible: old or new after a crash, also of the machine.
    fn publish(&self, image: &Path, digest: &Digest) -> Result<(), ImageError> {
        let failed = |error: io::Error| ImageError::io("write to the image store", error);
        let folder = File::open(&self.folder).map_err(failed)?;
        rustix::fs::syncfs(&folder).map_err(|error| failed(error.into()))?;
        fs::rename(image, self.folder.join(digest.hex())).map_err(failed)?;
        folder.sync_all().map_err(failed)
    }

    fn stored(&self, digest: &Digest) -> Result<Option<Rootfs>, ImageError> {
        let folder = self.folder.join(digest.hex());
        let config = match fs::read(folder.join("image.json")) {
            Ok(config) => config,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(ImageError::io(
                    format!("read the stored image {digest}"),
                    error,
                ));
            }
        };
        let config = serde_json::from_slice(&config).map_err(|error| {
            ImageError::corrupt(format!(
                "the configuration of the stored image {digest} is damaged: {error}"
            ))
        })?;
        Ok(Some(Rootfs {
            path: folder.join("rootfs"),
            config,
            digest: digest.to_string(),
        }))
    }

    fn lock(&self, digest: &Digest) -> Result<File, ImageError> {
        let path = self.folder.join(format!("{}.lock", digest.hex()));
        let failed = |error: io::Error| ImageError::io(format!("lock the image {digest}"), error);
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(failed)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => return other.map(|()| file).map_err(|error| failed(error.into())),
            }
        }
    }

    fn archive(
        &self,
        path: &Path,
        tag: Option<&str>,
        progress: &dyn Fn(Progress),
    ) -> Result<Rootfs, ImageError> {
        let failed = |error| ImageError::io(format!("read the image '{}'", shown(path)), error);
        let file = File::open(path).map_err(failed)?;
        let seen = self
            .folder
            .join(seen_key(path, &file.metadata().map_err(failed)?, tag));
        if let Some(rootfs) = self.seen(&seen)? {
            return Ok(rootfs);
        }
        let temporary = TemporaryFolder::new(&self.folder)?;
        let folder = temporary.path().join("layout");
        fs::create_dir(&folder)
            .map_err(|error| ImageError::io("write to the image store", error))?;
        let root = Root::open(&folder).map_err(|error| ImageError::archive(shown(path), error))?;
        let options = UnpackOptions::default().with_limits(self.limits);
        unpack(decompressed(file).map_err(failed)?, &root, &options)
            .map_err(|error| ImageError::archive(format!("'{}'", shown(path)), error))?;
        let layout = Layout::open_unpacked(&folder, path)?;
        let contents = layout.resolve(tag)?;
        let rootfs = self.materialize(&contents, &layout, progress)?;
        self.remember(&seen, &contents.digest, &temporary);
        Ok(rootfs)
    }

    fn seen(&self, seen: &Path) -> Result<Option<Rootfs>, ImageError> {
        let hex = fs::read_to_string(seen).unwrap_or_default();
        Digest::from_hex(&hex).map_or(Ok(None), |digest| self.stored(&digest))
    }

    /// Saves the next use of the same archive from unpacking it only to find
    /// that its image is here. Not worth failing for.
    fn remember(&self, seen: &Path, digest: &Digest, temporary: &TemporaryFolder) {
        let new = temporary.path().join("seen");
        let written = fs::write(&new, digest.hex()).and_then(|()| fs::rename(&new, seen));
        if let Err(error) = written {
            tracing::debug!(%error, "an archive's image could not be remembered");
        }
    }
}

/// Names an archive's state: any change to the file changes the name.
fn seen_key(path: &Path, metadata: &fs::Metadata, tag: Option<&str>) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let state = (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    );
    let key = format!("{path:?} {state:?} {tag:?} {}", layout::architecture());
    format!("seen-{}", Digest::of(key.as_bytes()).hex())
}

/// An archive may be compressed as a whole; which way, its first bytes say.
fn decompressed(file: File) -> io::Result<Box<dyn Read>> {
    use std::io::BufRead;
    let mut file = BufReader::with_capacity(128 * 1024, file);
    Ok(match file.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}
