//! New images, as folders in OCI layout or tars of one.
//!
//! Everything is written under another name beside the goal, and takes its own in one rename; what a process that was killed
//! has left of that, the next one removes that writes an image there. All of it is found by descriptors, as others may rename
//! what is beside the goal. The same layers give the same digests: nothing tells when or where an image was made.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use blink_archive::{Links, Root};
use blink_host::destination::file::{NewFile, PREFIX};
use blink_host::destination::{Destination, Found};
use blink_host::fault::{self, Step};
use blink_host::room::Roomy;
use blink_host::transfer::{Hashed, Tell, Told};
use flate2::write::GzEncoder;
use rustix::fs::{Mode, OFlags};
use serde_json::{Map, Value, json};

use crate::contents::{Blob, Compression};
use crate::digest::Digest;
use crate::error::{ImageError, shown};
use crate::manifest;
use crate::options::StoredImage;
use crate::store::ImageStore;
use crate::temporary::{TemporaryFolder, sweep_named};

/// Layers are written once and mostly read once: speed counts for more than the last tenth.
const COMPRESSION: flate2::Compression = flate2::Compression::fast();

const BUFFER: usize = 256 * 1024;

/// An image that is being written.
#[derive(Debug)]
pub struct NewImage {
    folder: TemporaryFolder,
    layout: OwnedFd,
    blobs: OwnedFd,
    goal: Goal,
    configuration: Map<String, Value>,
    layers: Vec<Value>,
    diff_ids: Vec<Value>,
    history: Vec<Value>,
    annotations: Map<String, Value>,
    /// Bytes that were written so far, as they are in layers.
    done: u64,
}

/// Where an image comes to lie.
#[derive(Debug)]
struct Goal {
    path: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Folder(Destination),
    Tar(NewFile),
}

/// A layer that is being written, as a tar.
pub struct NewLayer {
    plain: Hashed<Told<GzEncoder<Stored>>>,
}

/// What a layer is stored as.
type Stored = Hashed<Roomy<BufWriter<File>>>;

/// A layer's name before its digest is known.
const NEW: &str = "new";

impl NewImage {
    /// Begins an image at `goal`: a tar where it ends in `.tar`, otherwise a folder, which must not be there yet.
    ///
    /// # Errors
    /// `InvalidArgument` if something else is there; `NotFound` if the folder above it is missing.
    pub fn begin(goal: &Path) -> Result<NewImage, ImageError> {
        let destination = Destination::named(goal)?;
        let is_free = match (is_tar(goal), destination.found()) {
            (_, Found::Nothing) | (true, Found::File | Found::Stream(_)) => true,
            // An empty folder is as good as none.
            (false, Found::Folder) => destination.is_empty_folder(),
            _ => false,
        };
        if !is_free {
            return Err(ImageError::invalid(format!(
                "there is something at '{}' already; name another place for the image, or remove that first",
                shown(goal)
            )));
        }
        let failed = |error| not_written(goal, error);
        // What goes to a device or a pipe is kept elsewhere until then.
        let is_stream = matches!(destination.found(), Found::Stream(_));
        let make = || {
            let parent = match is_stream {
                true => File::open(std::env::temp_dir())?.into(),
                false => destination.parent().try_clone()?,
            };
            sweep_named(PREFIX, &parent)?;
            fault::before(Step::ImageExport)?;
            let folder = TemporaryFolder::named(PREFIX, parent)?;
            let layout = make_folder(folder.folder().as_fd(), LAYOUT)?;
            let blobs = make_folder(make_folder(layout.as_fd(), "blobs")?.as_fd(), "sha256")?;
            Ok((folder, layout, blobs))
        };
        let (folder, layout, blobs) = make().map_err(failed)?;
        let form = match is_tar(goal) {
            true => Form::Tar(destination.new_file()?),
            false => Form::Folder(destination),
        };
        Ok(NewImage {
            folder,
            layout,
            blobs,
            goal: Goal {
                path: goal.to_owned(),
                form,
            },
            configuration: Map::new(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
            history: Vec::new(),
            annotations: Map::new(),
            done: 0,
        })
    }

    fn failed(&self, error: io::Error) -> ImageError {
        not_written(&self.goal.path, error)
    }

    /// Begins the next layer. `tell` hears how much was written of all.
    pub fn layer(&self, tell: &Tell) -> Result<NewLayer, ImageError> {
        let stored = fault::before(Step::ImageExportLayer)
            .and_then(|()| create_new(&self.blobs, NEW))
            .and_then(|file| Roomy::new(BufWriter::with_capacity(BUFFER, file), &self.blobs))
            .map_err(|error| self.failed(error))?;
        let packed = GzEncoder::new(Hashed::new(stored), COMPRESSION);
        let plain = Hashed::new(Told::new(packed, tell, self.done, None));
        Ok(NewLayer { plain })
    }

    /// Adds a layer that was written to its end. `made_by` is for the image's history.
    pub fn add(&mut self, layer: NewLayer, made_by: &str) -> Result<(), ImageError> {
        let NewLayer { mut plain } = layer;
        let finish = move || {
            plain.flush()?;
            let (told, diff_id) = plain.finish();
            let (packed, done) = told.finish();
            let stored = packed.finish()?;
            let size = stored.count;
            let (file, digest) = stored.finish();
            let file = file.into_inner().into_inner();
            let file = file.map_err(io::IntoInnerError::into_error)?;
            fault::before(Step::ImageExportPacked)?;
            file.sync_all()?;
            Ok((diff_id, digest, size, done))
        };
        let (diff_id, digest, size, done) = finish().map_err(|error| self.failed(error))?;
        rustix::fs::renameat(&self.blobs, NEW, &self.blobs, &digest)
            .map_err(|error| self.failed(error.into()))?;
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

    fn write(&self, folder: &OwnedFd, name: &str, content: &[u8]) -> Result<(), ImageError> {
        create_new(folder, name)
            .and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            })
            .map_err(|error| self.failed(error))
    }

    fn write_document(&self, media_type: &str, content: &Value) -> Result<Value, ImageError> {
        let content = content.to_string().into_bytes();
        let digest = Digest::of(&content);
        self.write(&self.blobs, digest.hex().as_ref(), &content)?;
        Ok(json!({
            "mediaType": media_type,
            "digest": digest.to_string(),
            "size": content.len(),
        }))
    }

    /// Writes what describes the layers, and gives all of it its name.
    pub fn finish(mut self) -> Result<(), ImageError> {
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
        self.write(&self.layout, "index.json", index.to_string().as_bytes())?;
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        self.write(&self.layout, "oci-layout", version.to_string().as_bytes())?;
        let NewImage {
            folder,
            layout,
            blobs,
            goal: Goal { path, form },
            ..
        } = self;
        let named = fault::before(Step::ImageExportWritten).and_then(|()| match form {
            Form::Tar(file) => name_tar(&layout, &blobs, file),
            Form::Folder(destination) => name_folder(&folder, &layout, &blobs, &destination),
        });
        named.map_err(|error| not_written(&path, error))?;
        fault::after(Step::ImageExported);
        Ok(())
    }
}

fn name_folder(
    folder: &TemporaryFolder,
    layout: &OwnedFd,
    blobs: &OwnedFd,
    destination: &Destination,
) -> io::Result<()> {
    for folder in [blobs, layout] {
        rustix::fs::fsync(folder)?;
    }
    fault::before(Step::ImageExportSynced)?;
    // An empty folder is replaced.
    destination.take(folder.folder(), LAYOUT)
}

fn name_tar(layout: &OwnedFd, blobs: &OwnedFd, mut file: NewFile) -> io::Result<()> {
    let place = layout.try_clone()?;
    let written = Roomy::new(BufWriter::with_capacity(BUFFER, file.file()), &place)?;
    let mut tar = tar::Builder::new(written);
    for folder in ["blobs", BLOBS] {
        tar.append_data(
            &mut header(tar::EntryType::Directory, 0o755, 0),
            folder,
            io::empty(),
        )?;
    }
    let mut names = vec!["oci-layout".to_owned(), "index.json".to_owned()];
    let mut found = rustix::fs::Dir::read_from(blobs)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .filter(|name| !matches!(name.as_deref(), Ok("." | "..")))
        .map(|name| name.map(|name| format!("{BLOBS}/{name}")))
        .collect::<io::Result<Vec<_>>>()?;
    found.sort_unstable();
    names.extend(found);
    let layout = Root::from(layout.try_clone()?);
    for name in names {
        let file = File::from(layout.open_inside(&name, OFlags::RDONLY, Links::Refuse)?);
        let size = file.metadata()?.len();
        tar.append_data(
            &mut header(tar::EntryType::Regular, 0o644, size),
            name,
            file,
        )?;
    }
    tar.into_inner()?.flush()?;
    file.file().sync_all()?;
    fault::before(Step::ImageExportSynced)?;
    file.finish()
}

fn make_folder(parent: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o777))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

fn create_new(folder: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o666))?.into())
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
    pub fn carry_over(&self, image: &StoredImage, new: &mut NewImage) -> Result<(), ImageError> {
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
    pub fn copy_layers(
        &self,
        image: &StoredImage,
        new: &mut NewImage,
        tell: &Tell,
    ) -> Result<(), ImageError> {
        let _store = self.lock_shared()?;
        let contents = self.contents_still_there(&Digest::parse(&image.digest, "the image")?)?;
        for layer in &contents.layers {
            let Blob { digest, size } = layer.blob;
            // Not linked: whoever owns the folder may write to it.
            let copied = File::open(self.shared.blobs.path(&digest)).and_then(|mut from| {
                let to = create_new(&new.blobs, digest.hex().as_ref());
                // The same layer twice.
                let to = match to {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                    to => to?,
                };
                blink_host::room::require(&new.blobs, size)?;
                io::copy(&mut from, &mut &to)?;
                let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                to.set_permissions(permissions)?;
                to.sync_all()
            });
            copied.map_err(|error| new.failed(error))?;
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

fn not_written(goal: &Path, error: io::Error) -> ImageError {
    ImageError::io(format_args!("write the image {}", goal.display()), error)
}
