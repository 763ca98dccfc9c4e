//! Archives of sessions in micro-VMs: a tar in zstd, with what is said of the session behind it.
//!
//! The first byte says whether the input is the archive itself, or the tar and the session that one is made of; then the
//! manifest has the disk's right checksum wherever it says `@`.
#![no_main]

use std::fs::File;
use std::sync::LazyLock;

use blink_core::fuzzing;
use blink_fuzz::{Place, hex_digest, parts, tar_of};
use libfuzzer_sys::fuzz_target;

static PLACE: LazyLock<Place> = LazyLock::new(Place::default);

fuzz_target!(|input: &[u8]| {
    let (how, rest) = input.split_at(input.len().min(1));
    let (archive, disk) = (PLACE.folder("archive").join("file"), PLACE.folder("disk"));
    match (
        how.first().is_some_and(|how| how & 1 == 1),
        &parts(rest)[..],
    ) {
        (true, _) => std::fs::write(&archive, rest).expect("there is room"),
        (false, parts) => {
            let part = |index: usize| parts.get(index).copied().unwrap_or_default();
            let (manifest, session) = (part(0), part(1));
            let qcow2 = parts.get(2..).unwrap_or_default().concat();
            let manifest = String::from_utf8_lossy(manifest);
            let manifest = manifest.replace('@', &format!("sha256:{}", hex_digest(&qcow2)));
            let tar = tar_of(&[
                ("disk.qcow2", &qcow2),
                ("manifest.json", manifest.as_bytes()),
            ]);
            let packed = zstd::encode_all(&tar[..], 1).expect("it is in memory");
            std::fs::write(&archive, packed).expect("there is room");
            let mut file = File::options()
                .append(true)
                .open(&archive)
                .expect("it is there");
            let _ = fuzzing::append_session(&mut file, session);
        }
    }
    match fuzzing::read_microvm_archive(&archive, &disk) {
        Ok(session) => {
            let _ = session.map(|session| fuzzing::session_of_archive(&session));
        }
        Err(_) => {
            let left = std::fs::read_dir(&disk).expect("it is there").count();
            assert_eq!(left, 0, "something is left of what was refused");
        }
    }
    // As far as one byte may unpack, and the archive.
    PLACE.check(4, 2001 * (input.len() as u64 + 4096));
    PLACE.clear();
});
