//! Images in OCI layout: `oci-layout`, `index.json` and `blobs/sha256/…`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use blink_archive::{Links, Root};
use oci_spec::image::{Descriptor, ImageIndex};
use rustix::fs::{FileType, Mode, OFlags};

use crate::contents::{Blob, Blobs, Contents};
use crate::digest::Digest;
use crate::error::{ImageError, shown};
use crate::manifest::{self, DEEPEST_INDEX, Document, LARGEST_JSON, is_here, is_image, parse};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where containerd's tools put the full name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// An image that was found, its small parts read and verified.
pub(crate) struct Found {
    pub(crate) contents: Contents,
    pub(crate) manifest: Vec<u8>,
    pub(crate) configuration: Vec<u8>,
}

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
    pub(crate) fn open_unpacked(root: Root, shown_as: &Path) -> Result<Self, ImageError> {
        let layout = Self {
            path: shown_as.to_path_buf(),
            root: Some(root),
        };
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
    pub(crate) fn resolve(&self, tag: Option<&str>) -> Result<Found, ImageError> {
        let index: ImageIndex = parse(&self.read_whole("index.json")?, "index.json")?;
        let mut descriptor = self.choose_image(index.manifests(), tag)?;
        let whose = shown(&self.path);
        for _ in 0..=DEEPEST_INDEX {
            let blob = manifest::document(&descriptor, "manifest")?;
            let content = self.read_blob(blob, "manifest")?;
            match Document::parse(&content, &format!("the manifest {}", blob.digest))? {
                Document::Index(index) => descriptor = manifest::choose_platform(&index, &whose)?,
                Document::Manifest(found) => {
                    let what = "configuration";
                    let configuration =
                        self.read_blob(manifest::document(found.config(), what)?, what)?;
                    return Ok(Found {
                        contents: manifest::contents(blob, &found, &configuration)?,
                        manifest: content,
                        configuration,
                    });
                }
            }
        }
        Err(ImageError::corrupt(format!(
            "'{whose}' has indexes within indexes more than {DEEPEST_INDEX} deep"
        )))
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
            [] => Err(manifest::no_platform(&shown(&self.path), entries)),
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

    /// Reads a small blob and believes it only when size and digest are right.
    fn read_blob(&self, blob: Blob, what: &str) -> Result<Vec<u8>, ImageError> {
        let mut content = Vec::new();
        self.open(&blob.digest)?
            .take(blob.size + 1)
            .read_to_end(&mut content)
            .map_err(|error| ImageError::io(format!("read the {what} {}", blob.digest), error))?;
        manifest::verify(&content, blob, what).map(|()| content)
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
