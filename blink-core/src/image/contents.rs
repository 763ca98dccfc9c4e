//! What an image is made of, whatever it came from.

use std::io::Read;

use crate::image::config::ImageConfig;
use crate::image::digest::Digest;
use crate::image::error::ImageError;

/// An image whose manifest and configuration have been read and verified.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    /// What the image is stored under: the digest of its manifest.
    pub(crate) digest: Digest,
    pub(crate) config: ImageConfig,
    /// From the lowest to the highest.
    pub(crate) layers: Vec<Layer>,
}

/// One layer, as its manifest describes it.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Digest of the stored, possibly compressed, bytes.
    pub(crate) digest: Digest,
    /// Their number.
    pub(crate) size: u64,
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

/// Where the bytes of layers come from. They need not be trusted: whoever reads
/// them checks digest and size.
pub(crate) trait Blobs {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, ImageError>;
}
