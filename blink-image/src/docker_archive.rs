//! What `docker save` wrote before it wrote OCI layouts, and what other tools write to this day: `manifest.json`, and
//! the files that it names.

use std::collections::HashMap;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use blink_archive::{Links, Root};
use rustix::fs::{FileType, OFlags};
use serde::Deserialize;
use serde_json::json;

use crate::contents::{Blob, Blobs, Compression};
use crate::digest::{Digest, Hashing};
use crate::error::{ImageError, shown};
use crate::layout::Found;
use crate::manifest::{self, LARGEST_JSON};

/// An unpacked archive. Nothing in it has a digest but by chance, so that the digests are made here.
pub(crate) struct DockerArchive {
    root: Root,
    shown_as: PathBuf,
    /// Which file has which content; filled by [`DockerArchive::resolve`].
    files: HashMap<Digest, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    /// Whether this is one, and nothing newer.
    pub(crate) fn is_at(root: &Root) -> bool {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let is_there = |name: &str| root.open_inside(name, flags, Links::Refuse).is_ok();
        is_there("manifest.json") && !is_there("oci-layout")
    }

    pub(crate) fn new(root: Root, shown_as: &Path) -> Self {
        Self {
            root,
            shown_as: shown_as.to_path_buf(),
            files: HashMap::new(),
        }
    }

    /// Finds the image, and describes it as a registry would.
    pub(crate) fn resolve(&mut self, tag: Option<&str>) -> Result<Found, ImageError> {
        let images: Vec<Image> = manifest::parse(&self.read("manifest.json")?, "manifest.json")?;
        let image = self.choose(images, tag)?;
        let configuration = self.read(&image.config)?;
        let digest = Digest::of(&configuration);
        // Its name is its digest, in all but the oldest archives.
        let stated = image
            .config
            .rsplit('/')
            .next()
            .and_then(|name| Digest::from_hex(name.strip_suffix(".json").unwrap_or(name)));
        if stated.is_some_and(|stated| stated != digest) {
            return Err(ImageError::corrupt(format!(
                "the configuration '{}' in '{}' is damaged: its content has the digest {digest}",
                image.config.escape_default(),
                shown(&self.shown_as)
            )));
        }
        manifest::check_count(image.layers.len())?;
        let mut layers = Vec::with_capacity(image.layers.len());
        // A file may be named for several layers, and is read once.
        let mut measured: HashMap<&str, (Blob, Compression)> = HashMap::new();
        for name in &image.layers {
            let (blob, compression) = match measured.get(name.as_str()) {
                Some(known) => *known,
                None => *measured.entry(name).or_insert(self.measure(name)?),
            };
            self.files.insert(blob.digest, name.clone());
            layers.push(json!({
                "mediaType": media_type(compression),
                "digest": blob.digest.to_string(),
                "size": blob.size,
            }));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest::OCI_MANIFEST,
            "config": {
                "mediaType": manifest::OCI_CONFIG,
                "digest": digest.to_string(),
                "size": configuration.len(),
            },
            "layers": layers,
        })
        .to_string()
        .into_bytes();
        let blob = Blob {
            digest: Digest::of(&manifest),
            size: manifest.len() as u64,
        };
        let parsed = manifest::parse(&manifest, "the image's manifest")?;
        Ok(Found {
            contents: manifest::contents(blob, &parsed, &configuration)?,
            manifest,
            configuration,
        })
    }

    fn choose(&self, images: Vec<Image>, tag: Option<&str>) -> Result<Image, ImageError> {
        let shown = shown(&self.shown_as);
        let names: Vec<String> = images
            .iter()
            .flat_map(|image| image.repo_tags.iter().flatten())
            .take(20)
            .map(|name| name.escape_default().to_string())
            .collect();
        let has = match names.as_slice() {
            [] => "its images have no names".to_owned(),
            names => format!("it has: {}", names.join(", ")),
        };
        let mut named = images.into_iter().filter(|image| {
            tag.is_none_or(|tag| {
                image
                    .repo_tags
                    .iter()
                    .flatten()
                    .any(|name| is_named(name, tag))
            })
        });
        match (named.next(), named.next(), tag) {
            (None, _, Some(tag)) => Err(ImageError::not_found(format!(
                "there is no image '{tag}' in '{shown}'; {has}"
            ))),
            (None, _, None) => Err(ImageError::not_found(format!(
                "there is no image in '{shown}'"
            ))),
            (Some(_), Some(_), None) => Err(ImageError::invalid(format!(
                "'{shown}' holds several images; name one with ':' and its name after the path; {has}"
            ))),
            (Some(image), _, _) => Ok(image),
        }
    }

    fn measure(&self, name: &str) -> Result<(Blob, Compression), ImageError> {
        let failed = |error| {
            let shown = shown(&self.shown_as);
            ImageError::io(
                format!("read '{}' in '{shown}'", name.escape_default()),
                error,
            )
        };
        let mut file = self.open_file(name)?;
        let mut start = Vec::new();
        (&mut file)
            .take(4)
            .read_to_end(&mut start)
            .map_err(failed)?;
        file.rewind().map_err(failed)?;
        let mut hashing = Hashing::new(file);
        std::io::copy(&mut hashing, &mut std::io::sink()).map_err(failed)?;
        let (digest, size) = hashing.finish();
        Ok((Blob { digest, size }, Compression::of(&start)))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let shown = shown(&self.shown_as);
        let mut content = Vec::new();
        self.open_file(name)?
            .take(LARGEST_JSON + 1)
            .read_to_end(&mut content)
            .map_err(|error| {
                ImageError::io(
                    format!("read '{}' in '{shown}'", name.escape_default()),
                    error,
                )
            })?;
        if content.len() as u64 > LARGEST_JSON {
            return Err(ImageError::corrupt(format!(
                "'{}' in '{shown}' is larger than the {LARGEST_JSON} bytes accepted",
                name.escape_default()
            )));
        }
        Ok(content)
    }

    fn open_file(&self, name: &str) -> Result<std::fs::File, ImageError> {
        let (shown, name_shown) = (shown(&self.shown_as), name.escape_default());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Layers that are the same were links to one file.
        let file = self.root.open_inside(name, flags, Links::InRoot).map_err(
            |error| match error.kind() {
                std::io::ErrorKind::NotFound => ImageError::corrupt(format!(
                    "'{shown}' is not a whole archive of 'docker save': '{name_shown}' is missing"
                )),
                _ => ImageError::io(format!("open '{name_shown}' in '{shown}'"), error),
            },
        )?;
        let stat = rustix::fs::fstat(&file)
            .map_err(|error| ImageError::io(format!("open '{name_shown}' in '{shown}'"), error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ImageError::corrupt(format!(
                "'{name_shown}' in '{shown}' is not a file"
            )));
        }
        Ok(file.into())
    }
}

impl Blobs for DockerArchive {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, ImageError> {
        let name = self.files.get(digest).ok_or_else(|| {
            ImageError::corrupt(format!("the archive has no file with the digest {digest}"))
        })?;
        Ok(Box::new(self.open_file(name)?))
    }
}

fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => manifest::OCI_LAYER,
        Compression::Gzip => manifest::OCI_LAYER_GZIP,
        Compression::Zstd => manifest::OCI_LAYER_ZSTD,
    }
}

fn is_named(name: &str, tag: &str) -> bool {
    name == tag
        || name
            .strip_suffix(tag)
            .is_some_and(|rest| rest.ends_with(':'))
}
