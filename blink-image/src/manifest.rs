//! Indexes, manifests and configurations: what they may say, and what is chosen.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::de::DeserializeOwned;

use crate::config::ImageConfig;
use crate::contents::{Blob, Compression, Contents, Layer};
use crate::digest::Digest;
use crate::error::ImageError;

/// The largest index, manifest or configuration: registries refuse larger ones.
pub(crate) const LARGEST_JSON: u64 = 4 * 1024 * 1024;

/// Indexes inside indexes; in use there are two.
pub(crate) const DEEPEST_INDEX: usize = 4;

/// Docker's own limit is 127.
const MOST_LAYERS: usize = 1024;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a reference can lead to.
pub(crate) enum Document {
    Index(Box<ImageIndex>),
    Manifest(Box<ImageManifest>),
}

impl Document {
    /// Reads what `subject` names. What it is, it says itself: whatever else it was said to be came from somewhere
    /// that no digest covers.
    pub(crate) fn parse(content: &[u8], subject: &str) -> Result<Self, ImageError> {
        #[derive(serde::Deserialize)]
        struct Shape {
            #[serde(rename = "schemaVersion")]
            schema_version: Option<u64>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let shape: Shape = parse(content, subject)?;
        if shape.schema_version != Some(2) {
            return Err(ImageError::unsupported(format!(
                "{subject} is not in version 2 of the image formats, the only one that is still in use"
            )));
        }
        match (shape.manifests, shape.layers) {
            (Some(_), None) => parse(content, subject).map(Self::Index),
            (None, Some(_)) => parse(content, subject).map(Self::Manifest),
            (Some(_), Some(_)) => Err(ImageError::corrupt(format!(
                "{subject} says that it is an index and a manifest, and can only be one of them"
            ))),
            (None, None) => Err(ImageError::unsupported(format!(
                "{subject} is neither an index nor an image's manifest"
            ))),
        }
    }
}

/// A descriptor of a small document, whose size is not to be believed before it is bounded.
pub(crate) fn document(descriptor: &Descriptor, what: &str) -> Result<Blob, ImageError> {
    let digest = Digest::parse(descriptor.digest().as_ref(), &format!("the {what}"))?;
    if descriptor.size() > LARGEST_JSON {
        return Err(ImageError::corrupt(format!(
            "the {what} {digest} is said to be {} bytes, and more than {LARGEST_JSON} are not accepted",
            descriptor.size()
        )));
    }
    Ok(Blob {
        digest,
        size: descriptor.size(),
    })
}

/// Believes a document only when its size and digest are right.
pub(crate) fn verify(content: &[u8], blob: Blob, what: &str) -> Result<(), ImageError> {
    let Blob { digest, size } = blob;
    if content.len() as u64 != size {
        return Err(ImageError::corrupt(format!(
            "the {what} {digest} does not have the {size} bytes that it is said to have"
        )));
    }
    let found = Digest::of(content);
    if found != digest {
        return Err(ImageError::corrupt(format!(
            "the {what} {digest} is damaged: its content has the digest {found}"
        )));
    }
    Ok(())
}

pub(crate) fn parse<T: DeserializeOwned>(content: &[u8], subject: &str) -> Result<T, ImageError> {
    serde_json::from_slice(content).map_err(|error| {
        ImageError::corrupt(format!(
            "{subject} is not the JSON that it should be: {error}"
        ))
    })
}

/// The image for this machine among several; `whose` names the image in messages.
pub(crate) fn choose_platform(index: &ImageIndex, whose: &str) -> Result<Descriptor, ImageError> {
    let entries = || {
        index
            .manifests()
            .iter()
            .filter(|entry| is_image(entry.media_type()))
    };
    let stated = entries().find(|entry| entry.platform().as_ref().is_some_and(is_here));
    let unstated = || entries().find(|entry| entry.platform().is_none());
    stated
        .or_else(unstated)
        .cloned()
        .ok_or_else(|| no_platform(whose, index.manifests()))
}

/// Puts together what a manifest and its configuration say; both are verified.
pub(crate) fn contents(
    manifest_blob: Blob,
    manifest: &ImageManifest,
    configuration: &[u8],
) -> Result<Contents, ImageError> {
    let configuration_blob = document(manifest.config(), "configuration")?;
    let subject = format!("the configuration {}", configuration_blob.digest);
    let configuration: ImageConfiguration = parse(configuration, &subject)?;
    check_platform(&configuration)?;
    Ok(Contents {
        manifest: manifest_blob,
        configuration: configuration_blob,
        config: ImageConfig::from_oci(&configuration),
        layers: layers(manifest, &configuration)?,
    })
}

/// What an image is stored as beside its manifest.
///
/// # Errors
/// `Corrupt` for more layers than are accepted, before anything is made of them.
pub(crate) fn digests(manifest: &ImageManifest) -> Result<Vec<Digest>, ImageError> {
    check_count(manifest.layers().len())?;
    let layers = manifest.layers().iter();
    layers
        .chain([manifest.config()])
        .map(|descriptor| Digest::parse(descriptor.digest().as_ref(), "a layer"))
        .collect()
}

/// Refuses more layers than are accepted.
pub(crate) fn check_count(count: usize) -> Result<(), ImageError> {
    match count <= MOST_LAYERS {
        true => Ok(()),
        false => Err(ImageError::corrupt(format!(
            "the image has {count} layers, and more than {MOST_LAYERS} are not accepted"
        ))),
    }
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
    check_count(count)?;
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
        blob: Blob {
            digest: Digest::parse(descriptor.digest().as_ref(), &format!("layer {number}"))?,
            size: descriptor.size(),
        },
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
        OCI_LAYER
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        OCI_LAYER_GZIP
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        OCI_LAYER_ZSTD
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        _ => return None,
    })
}

pub(crate) fn is_image(media_type: &MediaType) -> bool {
    matches!(
        media_type.to_string().as_str(),
        OCI_INDEX | DOCKER_INDEX | OCI_MANIFEST | DOCKER_MANIFEST
    )
}

/// This machine's processor, by the name that images use.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn is_here(platform: &oci_spec::image::Platform) -> bool {
    platform.os().to_string() == "linux" && platform.architecture().to_string() == architecture()
}

pub(crate) fn no_platform(whose: &str, entries: &[Descriptor]) -> ImageError {
    let platforms: BTreeSet<_> = entries
        .iter()
        .filter_map(|entry| entry.platform().as_ref())
        .map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
        .take(20)
        .collect();
    let platforms: Vec<_> = platforms.into_iter().collect();
    ImageError::unsupported(format!(
        "the image in '{whose}' is not for linux/{}, but for: {}",
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
    Err(ImageError::unsupported(format!(
        "the image is for {}/{}, and this machine is linux/{}",
        os.escape_default(),
        processor.escape_default(),
        architecture()
    )))
}
