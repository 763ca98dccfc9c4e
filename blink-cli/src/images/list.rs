//! The table of images.

use std::time::SystemTime;

use blink_core::StoredImage;
use indicatif::HumanBytes;

use crate::{table, time};

/// Digits of a digest that are shown, and enough to name the image by.
const ID_DIGITS: usize = 12;

/// One line for each, with a line of titles above.
pub(super) fn table(images: &[StoredImage], now: SystemTime) -> String {
    let lines = images.iter().map(|image| {
        let hex = image.digest.trim_start_matches("sha256:");
        let name = image.reference.as_deref().unwrap_or("<none>");
        [
            name.to_owned(),
            hex.chars().take(ID_DIGITS).collect(),
            HumanBytes(image.size_bytes).to_string(),
            time::ago(image.pulled_at, now),
        ]
    });
    table::lines(["IMAGE", "DIGEST", "SIZE", "PULLED"], lines)
}
