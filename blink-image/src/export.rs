//! An image as an OCI layout of its own, for engines that read one.
//!
//! Such readers know plain and gzip layers, and of gzip only one member: what they would misread is written plain.
//! Since they do not check what a layer unpacks to, that is done here, once.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use blink_host::room;
use serde_json::json;

use crate::contents::{Blob, Blobs, Compression, Contents, Layer};
use crate::digest::{Digest, Hashing};
use crate::error::{ImageError, ImageErrorKind, Refused};
use crate::flatten::{Bounded, decompress};
use crate::manifest;
use crate::options::StoredImage;
use crate::store::ImageStore;
use crate::temporary::TemporaryFolder;

impl ImageStore {
    /// A folder in OCI layout that holds just this image, made now where it is not there: one manifest for this
    /// machine, its layers plain or gzip. Blocks while another process makes it.
    ///
    /// It is read-only: its blobs are the store's own.
    ///
    /// # Errors
    /// `NotFound` if the image was removed meanwhile; `Corrupt` if a layer does not unpack to what the image's
    /// configuration states; `ResourceExhausted`.
    pub fn layout(&self, image: &StoredImage) -> Result<PathBuf, ImageError> {
        let _span = tracing::info_span!("layout", digest = %image.digest).entered();
        let digest = Digest::parse(&image.digest, "the image")?;
        let goal = self.shared.folder.join("layouts").join(digest.hex());
        if goal.join("oci-layout").is_file() {
            return Ok(goal);
        }
        let _store = self.lock_shared()?;
        let _lock = self.lock_image(&digest)?;
        if goal.join("oci-layout").is_file() {
            return Ok(goal);
        }
        let contents = self.contents_still_there(&digest)?;
        let temporary = TemporaryFolder::new(&self.shared.folder)?;
        let folder = temporary.path().join("layout");
        self.write_layout(&folder, &contents)?;
        self.publish(&folder, &goal)?;
        Ok(goal)
    }

    fn write_layout(&self, folder: &Path, contents: &Contents) -> Result<(), ImageError> {
        let failed = |error| ImageError::io("write to the image store", error);
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(failed)?;
        self.link(&contents.configuration, &blobs)?;
        let mut layers = Vec::with_capacity(contents.layers.len());
        let mut left = self.shared.limits.total_bytes;
        for (index, layer) in contents.layers.iter().enumerate() {
            let what = format!(
                "layer {} of {} ({})",
                index + 1,
                contents.layers.len(),
                layer.blob.digest
            );
            layers.push(self.write_layer(layer, &blobs, &what, &mut left)?);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest::OCI_MANIFEST,
            "config": descriptor(manifest::OCI_CONFIG, contents.configuration),
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        let blob = Blob {
            digest: Digest::of(&manifest),
            size: manifest.len() as u64,
        };
        fs::write(blobs.join(blob.digest.hex()), manifest).map_err(failed)?;
        let mut entry = descriptor(manifest::OCI_MANIFEST, blob);
        entry["platform"] = json!({ "os": "linux", "architecture": manifest::architecture() });
        let index =
            json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": [entry] });
        fs::write(folder.join("index.json"), index.to_string()).map_err(failed)?;
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        fs::write(folder.join("oci-layout"), version.to_string()).map_err(failed)
    }

    /// Puts a layer into `blobs`, and describes it. Takes what it unpacks to from what the image may still have.
    fn write_layer(
        &self,
        layer: &Layer,
        blobs: &Path,
        what: &str,
        left: &mut u64,
    ) -> Result<serde_json::Value, ImageError> {
        if let Some((found, size)) = self.measure(layer, what, *left)?
            && found == layer.diff_id
        {
            *left = left.saturating_sub(size);
            self.link(&layer.blob, blobs)?;
            let media_type = match layer.compression {
                Compression::Gzip => manifest::OCI_LAYER_GZIP,
                _ => manifest::OCI_LAYER,
            };
            return Ok(descriptor(media_type, layer.blob));
        }
        let plain = self.write_plain(layer, blobs, what, *left)?;
        *left = left.saturating_sub(plain.size);
        Ok(descriptor(manifest::OCI_LAYER, plain))
    }

    /// What a simple reader would make of a layer, and how much it is.
    fn measure(
        &self,
        layer: &Layer,
        what: &str,
        left: u64,
    ) -> Result<Option<(Digest, u64)>, ImageError> {
        let stored = self.shared.blobs.open(&layer.blob.digest)?;
        let plain: Box<dyn Read> = match layer.compression {
            Compression::None => stored,
            Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(BufReader::new(stored))),
            Compression::Zstd => return Ok(None),
        };
        let mut hashing = Hashing::new(Bounded::new(plain, layer.blob.size, left));
        io::copy(&mut hashing, &mut io::sink()).map_err(|error| unreadable(what, &error))?;
        Ok(Some(hashing.finish()))
    }

    fn write_plain(
        &self,
        layer: &Layer,
        blobs: &Path,
        what: &str,
        left: u64,
    ) -> Result<Blob, ImageError> {
        let failed = |error| ImageError::io(format!("write {what} to the image store"), error);
        let stored = self.shared.blobs.open(&layer.blob.digest)?;
        let plain =
            decompress(stored, layer.compression).map_err(|error| unreadable(what, &error))?;
        let mut hashing = Hashing::new(Bounded::new(plain, layer.blob.size, left));
        let path = blobs.join(layer.diff_id.hex());
        let mut file = File::create(&path).map_err(failed)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match hashing.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => room::require(&file, read as u64)
                    .and_then(|()| file.write_all(&buffer[..read]))
                    .map_err(failed)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(what, &error)),
            }
        }
        let size = file.stream_position().map_err(failed)?;
        let (digest, _) = hashing.finish();
        if digest != layer.diff_id {
            return Err(ImageError::corrupt(format!(
                "{what} does not unpack to what the image's configuration states: {digest} instead of {}",
                layer.diff_id
            )));
        }
        Ok(Blob { digest, size })
    }

    fn link(&self, blob: &Blob, blobs: &Path) -> Result<(), ImageError> {
        let (from, to) = (
            self.shared.blobs.path(&blob.digest),
            blobs.join(blob.digest.hex()),
        );
        let linked = match fs::hard_link(&from, &to) {
            // The same layer twice.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // Some file systems have no links.
            Err(error) if error.kind() != io::ErrorKind::NotFound => fs::copy(&from, &to).map(drop),
            linked => linked,
        };
        linked.map_err(|error| ImageError::io("write to the image store", error))
    }
}

fn unreadable(what: &str, error: &io::Error) -> ImageError {
    let refused = Refused::kind_of(error);
    ImageError::new(
        refused.unwrap_or(ImageErrorKind::Corrupt),
        format!("could not unpack {what}: {error}"),
    )
}

fn descriptor(media_type: &str, blob: Blob) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": blob.digest.to_string(), "size": blob.size })
}
