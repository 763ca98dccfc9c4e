//! All layers of an image, in order, into one folder.

use std::cell::Cell;
use std::io::{self, BufReader, Read};

use blink_archive::{Limits, Ownership, Root, UnpackOptions, unpack};
use blink_host::room::Roomy;

use crate::contents::{Blobs, Compression, Contents, Layer};
use crate::digest::Hashing;
use crate::error::{ImageError, ImageErrorKind, Refused};
use crate::options::{PullProgress, PullStep};

/// What a layer may decompress to for each byte that it is stored as. Gzip reaches 1032; what zstd makes of more is zeros,
/// and made to fill a disk.
const EXPANSION: u64 = 1100;

/// What a layer may decompress to however small it is: a file of zeros, such as a log with holes, is in images in use.
const FREE_EXPANSION: u64 = 1 << 30;

/// How often progress is told at most: after so many bytes.
const STEP: u64 = 1024 * 1024;

pub(crate) struct Flatten<'a> {
    pub(crate) contents: &'a Contents,
    pub(crate) blobs: &'a dyn Blobs,
    pub(crate) ownership: Ownership,
    pub(crate) limits: Limits,
    pub(crate) progress: &'a dyn Fn(PullProgress),
}

impl Flatten<'_> {
    /// Unpacks everything into `root`, which is empty. On an error, `root` is
    /// to be thrown away.
    pub(crate) fn run(&self, root: &Root) -> Result<(), ImageError> {
        let layers = &self.contents.layers;
        let total = layers
            .iter()
            .fold(0, |sum: u64, layer| sum.saturating_add(layer.blob.size));
        let mut limits = self.limits;
        let mut left = limits.total_bytes;
        let mut before = 0;
        let mut nobodys = 0;
        for (index, layer) in layers.iter().enumerate() {
            let start = PullProgress {
                step: PullStep::Unpack,
                bytes_done: before,
                bytes_total: total,
                layer: index + 1,
                layers: layers.len(),
            };
            (self.progress)(start);
            let used = self.layer(root, layer, limits, &mut left, start)?;
            // The limits are the image's, not each layer's.
            limits.entries = limits.entries.saturating_sub(used.entries);
            limits.total_bytes = limits.total_bytes.saturating_sub(used.bytes);
            before += layer.blob.size;
            nobodys += used.replaced_owners;
        }
        (self.progress)(PullProgress {
            step: PullStep::Unpack,
            bytes_done: total,
            bytes_total: total,
            layer: layers.len(),
            layers: layers.len(),
        });
        if nobodys > 0 {
            tracing::warn!(
                files = nobodys,
                "files of the image belong to users beyond a sandbox's 65536, and are nobody's in it"
            );
        }
        Ok(())
    }

    fn layer(
        &self,
        root: &Root,
        layer: &Layer,
        limits: Limits,
        left: &mut u64,
        start: PullProgress,
    ) -> Result<blink_archive::UnpackReport, ImageError> {
        let what = format!(
            "layer {} of {} ({})",
            start.layer, start.layers, layer.blob.digest
        );
        let reported = Cell::new(0);
        let counted = Counted {
            // One byte more, so that too long is seen.
            inner: self
                .blobs
                .open(&layer.blob.digest)?
                .take(layer.blob.size.saturating_add(1)),
            done: 0,
            tell: |done| {
                if done - reported.get() >= STEP {
                    reported.set(done);
                    (self.progress)(PullProgress {
                        bytes_done: start.bytes_done + done.min(layer.blob.size),
                        ..start
                    });
                }
            },
        };
        let mut stored = Hashing::new(counted);
        let failed = |error| ImageError::io(format!("unpack {what}"), error);
        let plain = decompress(&mut stored, layer.compression).map_err(failed)?;
        let plain = Bounded::new(plain, layer.blob.size, *left);
        let mut content = Hashing::new(Roomy::new(plain, root).map_err(failed)?);
        let options = UnpackOptions::layer()
            .with_ownership(self.ownership)
            .with_limits(limits);
        let unpacked = unpack(&mut content, root, &options)
            .map_err(|error| ImageError::archive(&what, error))
            .and_then(|report| {
                // What tar pads its archives with belongs to the digest.
                drain(&mut content, &what)?;
                Ok(report)
            });
        let content = content.finish();
        *left = left.saturating_sub(content.1);
        // A damaged layer mostly fails to unpack before its end; that it is
        // damaged is then the better message.
        let (found, size) = match drain(&mut stored, &what) {
            Ok(()) => stored.finish(),
            Err(error) => return Err(unpacked.err().unwrap_or(error)),
        };
        if size != layer.blob.size {
            let more = if size > layer.blob.size {
                "more"
            } else {
                "fewer"
            };
            return Err(ImageError::corrupt(format!(
                "{what} is damaged: it has {more} than the {} bytes that its manifest states",
                layer.blob.size
            )));
        }
        if found != layer.blob.digest {
            return Err(ImageError::corrupt(format!(
                "{what} is damaged: its content has the digest {found}"
            )));
        }
        let report = unpacked?;
        if content.0 != layer.diff_id {
            return Err(ImageError::corrupt(format!(
                "{what} does not unpack to what the image's configuration states: {} instead of {}",
                content.0, layer.diff_id
            )));
        }
        Ok(report)
    }
}

pub(crate) fn decompress<'a>(
    stored: impl Read + 'a,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(stored),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(stored))),
        Compression::Zstd => Box::new(zstd::Decoder::new(stored)?),
    })
}

fn drain(reader: &mut impl Read, what: &str) -> Result<(), ImageError> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                let error = blink_archive_stream(source);
                return Err(ImageError::archive(what, error));
            }
        }
    }
}

fn blink_archive_stream(source: io::Error) -> blink_archive::ArchiveError {
    blink_archive::ArchiveError::Stream {
        action: "read",
        source,
    }
}

/// Tells how many bytes came through.
struct Counted<R, F> {
    inner: R,
    done: u64,
    tell: F,
}

impl<R: Read, F: Fn(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done += read as u64;
        (self.tell)(self.done);
        Ok(read)
    }
}

/// Ends a stream that decompresses to more than anything honest.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    /// How it is told.
    why: &'static str,
}

impl<R> Bounded<R> {
    /// Of a layer that is stored as so many bytes, in an image that may have `left` more.
    pub(crate) fn new(inner: R, stored_bytes: u64, left: u64) -> Self {
        let honest = stored_bytes.saturating_mul(EXPANSION).max(FREE_EXPANSION);
        let why = match honest < left {
            true => {
                "it decompresses to more than a thousand times its size, as only what is made to fill disks does"
            }
            false => {
                "with it, the image is larger than allowed; image_limit_bytes (--image-limit-bytes) allows more"
            }
        };
        let left = left.min(honest);
        Self { inner, left, why }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => Err(Refused::error(ImageErrorKind::ResourceExhausted, self.why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expands_to_more_than_anything_honest_ends() {
        let read = |stored, left| {
            let mut bounded = Bounded::new(io::repeat(0), stored, left);
            let mut buffer = vec![0; 1 << 20];
            let mut read = 0_u64;
            loop {
                match bounded.read(&mut buffer) {
                    Ok(more) => read += more as u64,
                    Err(error) => return (read, error.to_string()),
                }
            }
        };
        // 480 KB that would be 4 GiB.
        let (came, why) = read(480_000, 16 << 30);
        assert_eq!(came, 1 << 30);
        assert!(why.contains("a thousand times its size"), "{why}");
        // As gzip can.
        let (came, _) = read(2 << 20, 16 << 30);
        assert_eq!(came, 2200 << 20);
        let (came, why) = read(480_000, 1 << 20);
        assert_eq!(came, 1 << 20);
        assert!(why.contains("--image-limit-bytes"), "{why}");
    }
}
