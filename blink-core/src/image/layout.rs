//! Images in OCI layout: `oci-layout`, `index.json` and `blobs/sha256/…`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use blink_archive::{Links, Root};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use rustix::fs::{FileType, Mode, OFlags};
use serde::de::DeserializeOwned;

use crate::image::config::ImageConfig;
use crate::image::contents::{Blobs, Compression, Contents, Layer};
use crate::image::digest::Digest;
use crate::image::error::{ImageError, ImageErrorKind, shown};

/// The largest index, manifest or configuration: registries refuse larger ones.
const LARGEST_JSON: u64 = 4 * 1024 * 1024;

/// Indexes inside indexes; in use there are two.
const DEEPEST_INDEX: usize = 4;

/// Docker's own limit is 127.
const MOST_LAYERS: usize = 1024;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where containerd's tools put the full name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// A folder in OCI layout.
#[derive(Debug)]
pub(crate) struct Layout {
    path: PathBuf,
    /// Where the layout came out of an archive, look-ups must not leave it. A
    /// user's own folder may hold links to blobs elsewhere, as build systems make.
    root: Option<Root>,
}

impl Layout {
    /// A user's own folder.
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let layout = Self {
            path: path.to_path_buf(),
            root: None,
        };
        layout.check_version()?;
        Ok(layout)
    }

    /// A folder just unpacked from somebody's archive; `shown_as` names that in messages.
    pub(crate) fn open_unpacked(path: &Path, shown_as: &Path) -> Result<Self, ImageError> {
        let root = Root::open(path).map_err(|error| ImageError::archive(shown(shown_as), error))?;
        let layout = Self {
            path: shown_as.to_path_buf(),
            root: Some(root),
        };
        if layout.open_file("oci-layout").is_err() && layout.open_file("manifest.json").is_ok() {
            return Err(ImageError::unsupported(format!(
                "'{}' is an archive of `docker save` without an OCI layout in it, which this version of Blink \
                 cannot read; `skopeo copy docker-archive:FILE oci-archive:image.tar` converts it",
                shown(shown_as)
            )));
        }
        layout.check_version()?;
        Ok(layout)
    }

    fn check_version(&self) -> Result<(), ImageError> {
        #[derive(serde::Deserialize)]
        struct Version {
            #[serde(rename = "imageLayoutVersion")]
            version: String,
        }
        let content = self.read_whole("oci-layout")?;
        let Version { version } = parse(&content, "oci-layout")?;
        if version.starts_with("1.") {
            return Ok(());
        }
        Err(ImageError::unsupported(format!(
            "'{}' is in version '{}' of the OCI layout; Blink reads version 1",
            shown(&self.path),
            version.escape_default()
        )))
    }

    /// Finds the image for this machine, and verifies its manifest and configuration.
    pub(crate) fn resolve(&self, tag: Option<&str>) -> Result<Contents, ImageError> {
        let index: ImageIndex = parse(&self.read_whole("index.json")?, "index.json")?;
        let descriptor = self.choose_image(index.manifests(), tag)?;
        let descriptor = self.choose_platform(descriptor, 0)?;
        let digest = Digest::parse(descriptor.digest().as_ref(), "the manifest")?;
        let manifest: ImageManifest = self.json(&descriptor, "manifest")?;
        let configuration: ImageConfiguration = self.json(manifest.config(), "configuration")?;
        check_platform(&configuration)?;
        Ok(Contents {
            digest,
            config: ImageConfig::from_oci(&configuration),
            layers: layers(&manifest, &configuration)?,
        })
    }

    fn choose_image(
        &self,
        entries: &[Descriptor],
        tag: Option<&str>,
    ) -> Result<Descriptor, ImageError> {
        let images = entries.iter().filter(|entry| is_image(entry.media_type()));
        let named: Vec<_> = images
            .filter(|entry| tag.is_none_or(|tag| is_named(entry, tag)))
            .collect();
        let names = || {
            let names: BTreeSet<_> = entries.iter().filter_map(name).take(20).collect();
            if names.is_empty() {
                "its images have no names".to_owned()
            } else {
                let names: Vec<_> = names
                    .into_iter()
                    .map(|name| name.escape_default().to_string())
                    .collect();
                format!("it has: {}", names.join(", "))
            }
        };
        let Some(first) = named.first() else {
            return Err(ImageError::not_found(match tag {
                Some(tag) => format!(
                    "there is no image '{tag}' in '{}'; {}",
                    shown(&self.path),
                    names()
                ),
                None => format!("there is no image in '{}'", shown(&self.path)),
            }));
        };
        // Several entries may be one image for several machines.
        let here: Vec<_> = named
            .iter()
            .filter(|entry| entry.platform().as_ref().is_none_or(is_here))
            .collect();
        match here.as_slice() {
            [] => Err(no_platform(&self.path, entries)),
            [only] => Ok((**only).clone()),
            [first, rest @ ..] if rest.iter().all(|entry| entry.digest() == first.digest()) => {
                Ok((**first).clone())
            }
            _ if tag.is_none() => Err(ImageError::invalid(format!(
                "'{}' holds several images; name one with ':' and its name after the path; {}",
                shown(&self.path),
                names()
            ))),
            _ => Ok((*first).clone()),
        }
    }

    /// Goes down from an index to the manifest for this machine.
    fn choose_platform(
        &self,
        descriptor: Descriptor,
        depth: usize,
    ) -> Result<Descriptor, ImageError> {
        if !is_index(descriptor.media_type()) {
            return Ok(descriptor);
        }
        if depth == DEEPEST_INDEX {
            return Err(ImageError::corrupt(format!(
                "'{}' has indexes within indexes more than {DEEPEST_INDEX} deep",
                shown(&self.path)
            )));
        }
        let index: ImageIndex = self.json(&descriptor, "index")?;
        let entries = || {
            index
                .manifests()
                .iter()
                .filter(|entry| is_image(entry.media_type()))
        };
        let stated = entries().find(|entry| entry.platform().as_ref().is_some_and(is_here));
        let unstated = || entries().find(|entry| entry.platform().is_none());
        match stated.or_else(unstated) {
            Some(entry) => self.choose_platform(entry.clone(), depth + 1),
            None => Err(no_platform(&self.path, index.manifests())),
        }
    }

    /// Reads a small blob and believes it only when size and digest are right.
    fn json<T: DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
        what: &str,
    ) -> Result<T, ImageError> {
        let digest = Digest::parse(descriptor.digest().as_ref(), &format!("the {what}"))?;
        let subject = format!("the {what} {digest}");
        if descriptor.size() > LARGEST_JSON {
            return Err(ImageError::corrupt(format!(
                "{subject} is said to be {} bytes, and more than {LARGEST_JSON} are not accepted",
                descriptor.size()
            )));
        }
        let mut content = Vec::new();
        self.open(&digest)?
            .take(descriptor.size() + 1)
            .read_to_end(&mut content)
            .map_err(|error| ImageError::io(format!("read {subject}"), error))?;
        if content.len() as u64 != descriptor.size() {
            return Err(ImageError::corrupt(format!(
                "{subject} does not have the {} bytes that it is said to have",
                descriptor.size()
            )));
        }
        let found = Digest::of(&content);
        if found != digest {
            return Err(ImageError::corrupt(format!(
                "{subject} is damaged: its content has the digest {found}"
            )));
        }
        parse(&content, &subject)
    }

    fn read_whole(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut content = Vec::new();
        self.open_file(name)?
            .take(LARGEST_JSON + 1)
            .read_to_end(&mut content)
            .map_err(|error| {
                ImageError::io(format!("read '{name}' in '{}'", shown(&self.path)), error)
            })?;
        if content.len() as u64 > LARGEST_JSON {
            return Err(ImageError::corrupt(format!(
                "'{name}' in '{}' is larger than the {LARGEST_JSON} bytes accepted",
                shown(&self.path)
            )));
        }
        Ok(content)
    }

    fn open_file(&self, name: &str) -> Result<File, ImageError> {
        let failed = |error: std::io::Error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                ImageError::corrupt(format!(
                    "'{}' is not a whole OCI layout: '{name}' is missing",
                    shown(&self.path)
                ))
            } else {
                ImageError::io(format!("open '{name}' in '{}'", shown(&self.path)), error)
            }
        };
        let file = self.open_any(name).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ImageError::corrupt(format!(
                "'{name}' in '{}' is not a file",
                shown(&self.path)
            )));
        }
        Ok(file.into())
    }

    fn open_any(&self, name: &str) -> std::io::Result<OwnedFd> {
        // Without blocking: it may be a pipe.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match &self.root {
            Some(root) => root.open_inside(name, flags, Links::Refuse),
            None => Ok(rustix::fs::open(
                self.path.join(name),
                flags,
                Mode::empty(),
            )?),
        }
    }
}

impl Blobs for Layout {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, ImageError> {
        let file = self.open_file(&format!("blobs/sha256/{}", digest.hex()))?;
        Ok(Box::new(file))
    }
}

fn parse<T: DeserializeOwned>(content: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(content).map_err(|error| {
        ImageError::corrupt(format!("{what} is not the JSON that it should be: {error}"))
    })
}

fn layers(
    manifest: &ImageManifest,
    configuration: &ImageConfiguration,
) -> Result<Vec<Layer>, ImageError> {
    let diff_ids = configuration.rootfs().diff_ids();
    let count = manifest.layers().len();
    if count != diff_ids.len() {
        return Err(ImageError::corrupt(format!(
            "the image's manifest has {count} layers and its configuration {}",
            diff_ids.len()
        )));
    }
    if count > MOST_LAYERS {
        return Err(ImageError::corrupt(format!(
            "the image has {count} layers, and more than {MOST_LAYERS} are not accepted"
        )));
    }
    manifest
        .layers()
        .iter()
        .zip(diff_ids)
        .enumerate()
        .map(|(index, (descriptor, diff_id))| layer(index + 1, descriptor, diff_id))
        .collect()
}

fn layer(number: usize, descriptor: &Descriptor, diff_id: &str) -> Result<Layer, ImageError> {
    Ok(Layer {
        digest: Digest::parse(descriptor.digest().as_ref(), &format!("layer {number}"))?,
        size: descriptor.size(),
        diff_id: Digest::parse(diff_id, &format!("the content of layer {number}"))?,
        compression: compression(descriptor.media_type()).ok_or_else(|| {
            ImageError::unsupported(format!(
                "layer {number} is of the unknown type '{}'",
                descriptor.media_type().to_string().escape_default()
            ))
        })?,
    })
}

fn compression(media_type: &MediaType) -> Option<Compression> {
    Some(match media_type.to_string().as_str() {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        _ => return None,
    })
}

fn is_index(media_type: &MediaType) -> bool {
    matches!(
        media_type.to_string().as_str(),
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

fn is_image(media_type: &MediaType) -> bool {
    is_index(media_type)
        || matches!(
            media_type.to_string().as_str(),
            "application/vnd.oci.image.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v2+json"
        )
}

fn name(entry: &Descriptor) -> Option<&str> {
    let annotations = entry.annotations().as_ref()?;
    annotations
        .get(REF_NAME)
        .or_else(|| annotations.get(IMAGE_NAME))
        .map(String::as_str)
}

/// Whether an entry has the name `tag`, alone or at the end of a reference.
fn is_named(entry: &Descriptor, tag: &str) -> bool {
    let Some(annotations) = entry.annotations() else {
        return false;
    };
    [REF_NAME, IMAGE_NAME]
        .iter()
        .filter_map(|key| annotations.get(*key))
        .any(|name| {
            name == tag
                || name
                    .strip_suffix(tag)
                    .is_some_and(|rest| rest.ends_with(':'))
        })
}

/// This machine's processor, by the name that images use.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn is_here(platform: &oci_spec::image::Platform) -> bool {
    platform.os().to_string() == "linux" && platform.architecture().to_string() == architecture()
}

fn no_platform(path: &Path, entries: &[Descriptor]) -> ImageError {
    let platforms: BTreeSet<_> = entries
        .iter()
        .filter_map(|entry| entry.platform().as_ref())
        .map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
        .take(20)
        .collect();
    let platforms: Vec<_> = platforms.into_iter().collect();
    ImageError::unsupported(format!(
        "the image in '{}' is not for linux/{}, but for: {}",
        shown(path),
        architecture(),
        platforms.join(", ").escape_default()
    ))
}

fn check_platform(configuration: &ImageConfiguration) -> Result<(), ImageError> {
    let (os, processor) = (
        configuration.os().to_string(),
        configuration.architecture().to_string(),
    );
    if os == "linux" && processor == architecture() {
        return Ok(());
    }
    Err(ImageError::new(
        ImageErrorKind::Unsupported,
        format!(
            "the image is for {}/{}, and this machine is linux/{}",
            os.escape_default(),
            processor.escape_default(),
            architecture()
        ),
    ))
}
