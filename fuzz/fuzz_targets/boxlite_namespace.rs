//! Archives of sessions in namespaces: a session's text, and the tar of its disk.
//!
//! The first byte says whether the input is the archive itself, or what an archive with right checksums is made around.
#![no_main]

use std::sync::LazyLock;

use blink_core::fuzzing;
use blink_fuzz::{Place, mutate_tar, parts, with_checksums};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

static PLACE: LazyLock<Place> = LazyLock::new(Place::default);

fuzz_target!(|input: &[u8]| {
    let (how, input) = input.split_at(input.len().min(1));
    let folder = PLACE.folder("archive");
    let (archive, disk) = (folder.join("file.boxlite"), PLACE.folder("disk"));
    match (
        how.first().is_some_and(|how| how & 1 == 1),
        &parts(input)[..],
    ) {
        (true, _) => std::fs::write(&archive, with_checksums(input)).expect("there is room"),
        (false, [layer]) => {
            fuzzing::write_namespace_archive(&archive, b"{}", &with_checksums(layer))
                .expect("there is room")
        }
        (false, [session, rest @ ..]) => {
            fuzzing::write_namespace_archive(&archive, session, &with_checksums(&rest.concat()))
                .expect("there is room");
        }
        (false, []) => {}
    }
    match fuzzing::read_namespace_archive(&archive, &disk, &PLACE.folder("image")) {
        Ok(session) => {
            let _ = fuzzing::session_of_archive(&session);
        }
        Err(_) => {
            let left = std::fs::read_dir(&disk).expect("it is there").count();
            assert_eq!(left, 0, "something is left of what was refused");
        }
    }
    // Each block of a tar is an entry at most, and implies as many folders as its path has parts.
    PLACE.check(input.len() + 64, 4 * input.len() as u64 + (1 << 20));
    PLACE.clear();
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match size {
        0 => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
        _ => 1 + mutate_tar(&mut data[1..], size - 1, max_size - 1, seed),
    }
});
