//! An image as a root folder, for engines that mount one.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use blink_archive::Root;
use blink_host::private;

use crate::config::ImageConfig;
use crate::contents::Contents;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::flatten::Flatten;
use crate::options::PullProgress;
use crate::options::StoredImage;
use crate::store::{ImageStore, removed_meanwhile};
use crate::temporary::TemporaryFolder;

/// An image's root folder, ready to be mounted.
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

impl ImageStore {
    /// The image's root folder, unpacked now where it is not. Blocks while another process unpacks the same image.
    ///
    /// # Errors
    /// `NotFound` if the image was removed meanwhile; `Corrupt`, `Unsupported` and `ResourceExhausted` as the image
    /// deserves. On an error nothing unpacked stays.
    pub fn rootfs(
        &self,
        image: &StoredImage,
        progress: &dyn Fn(PullProgress),
    ) -> Result<Rootfs, ImageError> {
        let _span = tracing::info_span!("unpack", digest = %image.digest).entered();
        let digest = Digest::parse(&image.digest, "the image")?;
        if let Some(rootfs) = self.unpacked(&digest)? {
            return Ok(rootfs);
        }
        let _store = self.lock_shared()?;
        let _lock = self.lock_image(&digest)?;
        // Another may have unpacked it while this one waited.
        if let Some(rootfs) = self.unpacked(&digest)? {
            return Ok(rootfs);
        }
        let contents = self.contents_still_there(&digest)?;
        let temporary = TemporaryFolder::new(&self.shared.folder)?;
        let folder = temporary.path().join("image");
        self.unpack(&folder, &contents, progress)?;
        self.publish(
            &folder,
            &self.shared.folder.join("rootfs").join(digest.hex()),
        )?;
        tracing::info!("unpacked an image");
        self.unpacked(&digest)?
            .ok_or_else(|| removed_meanwhile(&digest))
    }

    fn unpack(
        &self,
        folder: &Path,
        contents: &Contents,
        progress: &dyn Fn(PullProgress),
    ) -> Result<(), ImageError> {
        let ids = self.shared.ids;
        let failed = |error| ImageError::io("write to the image store", error);
        let rootfs = folder.join("rootfs");
        private::make_folder(&rootfs).map_err(failed)?;
        fs::set_permissions(folder, Permissions::from_mode(ids.store_mode())).map_err(failed)?;
        fs::set_permissions(&rootfs, Permissions::from_mode(0o755)).map_err(failed)?;
        if !ids.single {
            std::os::unix::fs::chown(&rootfs, Some(ids.uid_base), Some(ids.uid_base))
                .map_err(failed)?;
        }
        let root = Root::open(&rootfs).map_err(|error| ImageError::archive("an image", error))?;
        Flatten {
            contents,
            blobs: &self.shared.blobs,
            ownership: ids.ownership(),
            limits: self.shared.limits,
            progress,
        }
        .run(&root)?;
        let config =
            serde_json::to_vec_pretty(&contents.config).map_err(|error| failed(error.into()))?;
        private::write_file(&folder.join("image.json"), config).map_err(failed)
    }

    fn unpacked(&self, digest: &Digest) -> Result<Option<Rootfs>, ImageError> {
        let folder = self.shared.folder.join("rootfs").join(digest.hex());
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
}
