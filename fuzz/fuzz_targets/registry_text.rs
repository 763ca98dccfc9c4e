//! Short texts of other people's: references, what names an image, what a registry asks for, docker's configuration, and what
//! an archive says of its session. The first byte says which.
#![no_main]

use std::sync::LazyLock;

use blink_core::fuzzing;
use blink_fuzz::{Place, parts};
use blink_image::{ImageSource, Reference};
use libfuzzer_sys::fuzz_target;

static PLACE: LazyLock<Place> = LazyLock::new(Place::default);

fuzz_target!(|input: &[u8]| {
    let (which, rest) = input.split_at(input.len().min(1));
    let text = std::str::from_utf8(rest).unwrap_or_default();
    match which.first().copied().unwrap_or_default() % 5 {
        0 => {
            if let Ok(reference) = text.parse::<Reference>() {
                let shown = reference.to_string();
                let again = shown
                    .parse::<Reference>()
                    .expect("what is shown can be read");
                assert_eq!(again, reference);
            }
        }
        1 => drop(ImageSource::parse(text)),
        2 => fuzzing::challenge(rest),
        3 => {
            let parts = parts(rest);
            let config = PLACE.folder("docker").join("config.json");
            std::fs::write(&config, parts[0]).expect("there is room");
            let registry = parts.get(1).copied().unwrap_or(b"registry.example");
            fuzzing::docker_config(&config, &String::from_utf8_lossy(registry));
        }
        _ => drop(fuzzing::session_of_archive(rest)),
    }
});
