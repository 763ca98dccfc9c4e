//! What an image is made of, whatever it came from.

use std::io::Read;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::ImageError;

/// Some bytes by their digest and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// An image whose manifest and configuration have been read and verified.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    /// What the image is stored under: its manifest.
    pub(crate) manifest: Blob,
    pub(crate) configuration: Blob,
    pub(crate) config: ImageConfig,
    /// From the lowest to the highest.
    pub(crate) layers: Vec<Layer>,
}

impl Contents {
    /// Everything that the image is stored as.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = Blob> {
        let layers = self.layers.iter().map(|layer| layer.blob);
        [self.manifest, self.configuration]
            .into_iter()
            .chain(layers)
    }

    /// The number of bytes that it is stored as.
    pub(crate) fn size(&self) -> u64 {
        self.blobs()
            .fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

/// One layer, as its manifest describes it.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// The stored, possibly compressed, bytes.
    pub(crate) blob: Blob,
    /// Digest of the tar archive inside.
    pub(crate) diff_id: Digest,
    pub(crate) compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// What a stream is compressed with, by its first four bytes.
    pub(crate) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Where the bytes of layers come from. They need not be trusted: whoever reads
/// them checks digest and size.
pub(crate) trait Blobs {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, ImageError>;
}
