//! Images from files: OCI layouts, and what `docker save` wrote, from their first index to their root folder.
//!
//! The first byte says which. The input's parts are the index, the manifest, the configuration and the layers; digests and
//! sizes that no fuzzer guesses stand in it as `@1` and `#1`, for the part of that number. The root folder must stay within
//! the store, and within its limits.
#![no_main]

use std::sync::LazyLock;

use blink_archive::Limits;
use blink_core::fuzzing;
use blink_fuzz::{Place, hex_digest, parts, tar_of, with_checksums};
use blink_image::ImageSource;
use libfuzzer_sys::fuzz_target;

const ENTRIES: u64 = 64;
const BYTES: u64 = 256 << 10;

static PLACE: LazyLock<Place> = LazyLock::new(Place::default);

/// The files, in which each may name those after it.
fn files(parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = Vec::new();
    for (index, part) in parts.iter().enumerate().rev() {
        let file = match std::str::from_utf8(part) {
            Ok(text) if index < 3 => {
                let mut text = text.to_owned();
                // The last of them is the first in the list.
                for (number, file) in (index + 1..parts.len()).rev().zip(&files) {
                    text = text.replace(&format!("@{number}"), &hex_digest(file));
                    text = text.replace(&format!("#{number}"), &file.len().to_string());
                }
                text.into_bytes()
            }
            _ => with_checksums(part),
        };
        files.push(file);
    }
    files.reverse();
    files
}

fuzz_target!(|input: &[u8]| {
    let (how, rest) = input.split_at(input.len().min(1));
    let how = how.first().copied().unwrap_or_default();
    let parts = parts(rest);
    let files = files(&parts[..parts.len().min(8)]);
    let folder = PLACE.folder("source");
    let path = folder.join("image");
    let source = if how & 1 == 0 {
        let blobs = path.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("it is empty");
        std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("there is room");
        std::fs::write(path.join("index.json"), &files[0]).expect("there is room");
        for file in &files[1..] {
            std::fs::write(blobs.join(hex_digest(file)), file).expect("there is room");
        }
        ImageSource::Layout { path, tag: None }
    } else {
        let names: Vec<String> = (0..files.len())
            .map(|number| match number {
                0 => "manifest.json".to_owned(),
                _ => number.to_string(),
            })
            .collect();
        let entries: Vec<_> = names
            .iter()
            .zip(&files)
            .map(|(name, file)| (name.as_str(), &file[..]))
            .collect();
        std::fs::write(&path, tar_of(&entries)).expect("there is room");
        ImageSource::Archive { path, tag: None }
    };
    let limits = Limits::default()
        .with_entries(ENTRIES)
        .with_total_bytes(BYTES)
        .with_depth(8);
    let store = fuzzing::image_store(&PLACE.folder("store"), limits).expect("it is empty");
    let _ = fuzzing::import_image(&source, store);
    // The layout, what is stored of it, and the root folder: each layer within the limits.
    PLACE.check(4096, 4 * (input.len() as u64 + BYTES) + (1 << 20));
    PLACE.clear();
});
