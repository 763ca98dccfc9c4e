//! New images, as folders in OCI layout or tars of one.
//!
//! Everything is written under another name beside the goal, and takes its own in one rename; what a process that was killed
//! has left of that, the next one removes that writes an image there. The same layers give the same
//! digests: nothing tells when or where an image was made.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::fault::{self, Step};
use crate::image::contents::{Blob, Compression};
use crate::image::digest::Digest;
use crate::image::error::shown;
use crate::image::manifest;
use crate::image::options::StoredImage;
use crate::image::store::ImageStore;
use crate::image::temporary::{TemporaryFolder, sweep_named};
use crate::transfer::{Hashed, Tell, Told};

/// Layers are written once and mostly read once: speed counts for more than the last tenth.
const COMPRESSION: flate2::Compression = flate2::Compression::fast();

const BUFFER: usize = 256 * 1024;

/// An image that is being written.
#[derive(Debug)]
pub(crate) struct NewImage {
    folder: TemporaryFolder,
    goal: PathBuf,
    configuration: Map<String, Value>,
    layers: Vec<Value>,
    diff_ids: Vec<Value>,
    history: Vec<Value>,
    annotations: Map<String, Value>,
    /// Bytes that were written so far, as they are in layers.
    done: u64,
}

/// A layer that is being written, as a tar.
pub(crate) struct NewLayer {
    path: PathBuf,
    plain: Hashed<Told<GzEncoder<Hashed<BufWriter<File>>>>>,
}

impl NewImage {
    /// Begins an image at `goal`: a tar where it ends in `.tar`, otherwise a folder, which must not be there yet.
    ///
    /// # Errors
    /// `InvalidArgument` where something else is there; `NotFound` where the folder above it is missing.
    pub(crate) fn begin(goal: &Path) -> Result<NewImage> {
        let is_taken = match is_tar(goal) {
            true => goal.is_dir(),
            false => fs::read_dir(goal).map_or(goal.symlink_metadata().is_ok(), |mut entries| {
                entries.next().is_some()
            }),
        };
        if is_taken {
            return Err(Error::invalid(format!(
                "there is something at '{}' already; name another place for the image, or remove that first",
                shown(goal)
            )));
        }
        let parent = goal.parent().filter(|path| !path.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let make = || {
            sweep_named(PREFIX, parent)?;
            fault::before(Step::ImageExport)?;
            let folder = TemporaryFolder::named(PREFIX, parent)?;
            fs::create_dir_all(folder.path().join(LAYOUT).join(BLOBS))?;
            Ok(folder)
        };
        let folder = make().map_err(|error| not_written(goal, error))?;
        Ok(NewImage {
            folder,
            goal: goal.to_owned(),
            configuration: Map::new(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
            history: Vec::new(),
            annotations: Map::new(),
            done: 0,
        })
    }

    fn layout(&self) -> PathBuf {
        self.folder.path().join(LAYOUT)
    }

    fn failed(&self, error: io::Error) -> Error {
        not_written(&self.goal, error)
    }

    /// Begins the next layer. `tell` hears how much was written of all.
    pub(crate) fn layer(&self, tell: &Tell) -> Result<NewLayer> {
        let path = self.layout().join(BLOBS).join("new");
        let file = fault::before(Step::ImageExportLayer)
            .and_then(|()| File::create_new(&path))
            .map_err(|error| self.failed(error))?;
        let stored = Hashed::new(BufWriter::with_capacity(BUFFER, file));
        let packed = GzEncoder::new(stored, COMPRESSION);
        let plain = Hashed::new(Told::new(packed, tell, self.done, None));
        Ok(NewLayer { path, plain })
    }

    /// Adds a layer that was written to its end. `made_by` is for the image's history.
    pub(crate) fn add(&mut self, layer: NewLayer, made_by: &str) -> Result<()> {
        let NewLayer { path, mut plain } = layer;
        let finish = move || {
            plain.flush()?;
            let (told, diff_id) = plain.finish();
            let (packed, done) = told.finish();
            let stored = packed.finish()?;
            let size = stored.count;
            let (file, digest) = stored.finish();
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            fault::before(Step::ImageExportPacked)?;
            file.sync_all()?;
            Ok((diff_id, digest, size, done))
        };
        let (diff_id, digest, size, done) = finish().map_err(|error| self.failed(error))?;
        fs::rename(&path, path.with_file_name(&digest)).map_err(|error| self.failed(error))?;
        self.done = done;
        self.layers.push(json!({
            "mediaType": manifest::OCI_LAYER_GZIP,
            "digest": format!("sha256:{digest}"),
            "size": size,
        }));
        self.diff_ids.push(format!("sha256:{diff_id}").into());
        self.history.push(json!({ "created_by": made_by }));
        Ok(())
    }

    fn write(&self, name: &Path, content: &[u8]) -> Result<()> {
        File::create_new(self.layout().join(name))
            .and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            })
            .map_err(|error| self.failed(error))
    }

    fn write_document(&self, media_type: &str, content: &Value) -> Result<Value> {
        let content = content.to_string().into_bytes();
        let digest = Digest::of(&content);
        self.write(&Path::new(BLOBS).join(digest.hex()), &content)?;
        Ok(json!({
            "mediaType": media_type,
            "digest": digest.to_string(),
            "size": content.len(),
        }))
    }

    /// Writes what describes the layers, and gives all of it its name.
    pub(crate) fn finish(mut self) -> Result<()> {
        let architecture = manifest::architecture();
        self.configuration
            .insert("architecture".into(), architecture.into());
        self.configuration.insert("os".into(), "linux".into());
        let rootfs = json!({ "type": "layers", "diff_ids": self.diff_ids });
        self.configuration.insert("rootfs".into(), rootfs);
        self.configuration
            .insert("history".into(), std::mem::take(&mut self.history).into());
        let configuration = Value::Object(std::mem::take(&mut self.configuration));
        let configuration = self.write_document(manifest::OCI_CONFIG, &configuration)?;
        let mut described = json!({
            "schemaVersion": 2,
            "mediaType": manifest::OCI_MANIFEST,
            "config": configuration,
            "layers": self.layers,
        });
        if !self.annotations.is_empty() {
            described["annotations"] = Value::Object(std::mem::take(&mut self.annotations));
        }
        let mut entry = self.write_document(manifest::OCI_MANIFEST, &described)?;
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        let index =
            json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": [entry] });
        self.write(Path::new("index.json"), index.to_string().as_bytes())?;
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        self.write(Path::new("oci-layout"), version.to_string().as_bytes())?;
        let named =
            fault::before(Step::ImageExportWritten).and_then(|()| match is_tar(&self.goal) {
                true => self.name_tar(),
                false => self.name_folder(),
            });
        named.map_err(|error| self.failed(error))?;
        fault::after(Step::ImageExported);
        Ok(())
    }

    fn name_folder(&self) -> io::Result<()> {
        for folder in [self.layout().join(BLOBS), self.layout()] {
            File::open(folder)?.sync_all()?;
        }
        fault::before(Step::ImageExportSynced)?;
        // An empty folder is replaced.
        fs::rename(self.layout(), &self.goal)
    }

    fn name_tar(&self) -> io::Result<()> {
        let path = self.folder.path().join("image.tar");
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let mut tar = tar::Builder::new(BufWriter::with_capacity(BUFFER, &file));
        for folder in ["blobs", BLOBS] {
            tar.append_data(
                &mut header(tar::EntryType::Directory, 0o755, 0),
                folder,
                io::empty(),
            )?;
        }
        let mut names = vec!["oci-layout".to_owned(), "index.json".to_owned()];
        let mut blobs = fs::read_dir(self.layout().join(BLOBS))?
            .map(|entry| Ok(format!("{BLOBS}/{}", entry?.file_name().to_string_lossy())))
            .collect::<io::Result<Vec<_>>>()?;
        blobs.sort_unstable();
        names.extend(blobs);
        for name in names {
            let file = File::open(self.layout().join(&name))?;
            let size = file.metadata()?.len();
            tar.append_data(
                &mut header(tar::EntryType::Regular, 0o644, size),
                name,
                file,
            )?;
        }
        tar.into_inner()?.flush()?;
        file.sync_all()?;
        fault::before(Step::ImageExportSynced)?;
        fs::rename(path, &self.goal)
    }
}

impl Write for NewLayer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.plain.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        // The compressor's own flush would only make more of it.
        Ok(())
    }
}

impl ImageStore {
    /// Has a new image run its programs as a stored one does, and tell that it comes from that.
    pub(crate) fn carry_over(&self, image: &StoredImage, new: &mut NewImage) -> Result<()> {
        let contents = self.contents_still_there(&Digest::parse(&image.digest, "the image")?)?;
        let digest = contents.configuration.digest;
        let content = self.shared.blobs.read(&digest, "configuration")?;
        let subject = format!("the configuration {digest}");
        let known: Map<String, Value> = manifest::parse(&content, &subject)?;
        // What is said of one machine's build is not of this one's.
        const KEPT: [&str; 4] = ["config", "author", "variant", "os.version"];
        for (name, value) in known {
            if KEPT.contains(&name.as_str()) {
                new.configuration.insert(name, value);
            }
        }
        let mut annotate = |what: &str, value: String| {
            let name = format!("org.opencontainers.image.base.{what}");
            new.annotations.insert(name, value.into());
        };
        annotate("digest", image.digest.clone());
        if let Some(reference) = &image.reference {
            annotate("name", reference.clone());
        }
        Ok(())
    }

    /// Gives a new image the layers of a stored one, as they are.
    pub(crate) fn copy_layers(
        &self,
        image: &StoredImage,
        new: &mut NewImage,
        tell: &Tell,
    ) -> Result<()> {
        let _store = self.lock_shared()?;
        let contents = self.contents_still_there(&Digest::parse(&image.digest, "the image")?)?;
        for layer in &contents.layers {
            let Blob { digest, size } = layer.blob;
            let to = new.layout().join(BLOBS).join(digest.hex());
            // Not linked: whoever owns the folder may write to it.
            fs::copy(self.shared.blobs.path(&digest), &to)
                .and_then(|_| File::open(&to)?.sync_all())
                .map_err(|error| new.failed(error))?;
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            fs::set_permissions(&to, permissions).map_err(|error| new.failed(error))?;
            new.done += size;
            Told::new((), tell, new.done, None).finish();
            let media_type = match layer.compression {
                Compression::None => manifest::OCI_LAYER,
                Compression::Gzip => manifest::OCI_LAYER_GZIP,
                Compression::Zstd => manifest::OCI_LAYER_ZSTD,
            };
            new.layers.push(
                json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size }),
            );
            new.diff_ids.push(layer.diff_id.to_string().into());
            let name = image.reference.as_deref().unwrap_or(&image.digest);
            new.history
                .push(json!({ "created_by": format!("a layer of {name}") }));
        }
        Ok(())
    }
}

/// Of what is not whole.
const PREFIX: &str = ".blink-export-";

const LAYOUT: &str = "layout";
const BLOBS: &str = "blobs/sha256";

fn is_tar(goal: &Path) -> bool {
    goal.extension().is_some_and(|extension| extension == "tar")
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn not_written(goal: &Path, error: io::Error) -> Error {
    let what = format!("the image {} could not be written", goal.display());
    Error::io(what, &error)
}
