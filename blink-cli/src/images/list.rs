//! The table of images.

use std::time::SystemTime;

use blink_core::image::StoredImage;
use indicatif::{HumanBytes, HumanDuration};

/// Digits of a digest that are shown, and enough to name the image by.
const ID_DIGITS: usize = 12;

/// One line for each, with a line of titles above.
pub(super) fn table(images: &[StoredImage], now: SystemTime) -> String {
    let titles = ["IMAGE", "DIGEST", "SIZE", "PULLED"].map(str::to_owned);
    let lines = images.iter().map(|image| {
        let hex = image.digest.trim_start_matches("sha256:");
        let age = now.duration_since(image.pulled_at).unwrap_or_default();
        [
            image
                .reference
                .clone()
                .unwrap_or_else(|| "<none>".to_owned()),
            hex.chars().take(ID_DIGITS).collect(),
            HumanBytes(image.size_bytes).to_string(),
            format!("{} ago", HumanDuration(age)),
        ]
    });
    let lines: Vec<[String; 4]> = std::iter::once(titles).chain(lines).collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].len())
            .max()
            .unwrap_or(0)
    };
    let (image, digest, size) = (width(0), width(1), width(2));
    lines
        .iter()
        .map(|line| {
            let [name, id, bytes, age] = line;
            format!("{name:<image$}  {id:<digest$}  {bytes:<size$}  {age}\n")
        })
        .collect()
}
