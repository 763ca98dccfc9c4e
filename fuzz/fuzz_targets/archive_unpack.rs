//! The archive reader and unpacker on hostile tars, beneath a folder with something beside it.
//!
//! The first byte says how it is unpacked. Checked: nothing outside is touched, no more is there than the limits allow,
//! what was unpacked can be packed, and unpacks to the same; all of it can be removed.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use blink_archive::{
    Limits, Marks, PackOptions, Root, UnpackOptions, pack, unpack, unpack_overlay,
};
use blink_fuzz::{Place, mutate_tar, with_checksums};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

const ENTRIES: u64 = 64;
const BYTES: u64 = 64 << 10;
const DEPTH: usize = 8;

static PLACE: LazyLock<Place> = LazyLock::new(Place::default);

fn limits() -> Limits {
    Limits::default()
        .with_entries(ENTRIES)
        .with_total_bytes(BYTES)
        .with_depth(DEPTH)
        .with_path_length(300)
}

fn packed(folder: &Path) -> Vec<u8> {
    let mut packed = Vec::new();
    let root = Root::open(folder).expect("it is there");
    let options = PackOptions::default();
    pack(&root, ".", &mut packed, &options).expect("what was unpacked can be packed");
    packed
}

fn case(how: u8, tar: &[u8]) {
    let folder = PLACE.folder("first");
    let root = Root::open(&folder).expect("it is there");
    let options = match how & 1 {
        0 => UnpackOptions::default(),
        _ => UnpackOptions::layer(),
    };
    let options = options
        .with_limits(limits())
        .with_overwrite(how & 2 == 0)
        .with_special_bits(how & 4 != 0)
        .with_root_metadata(how & 8 != 0);
    // Twice, so that what the first has left is there for the second.
    let halves = match how & 16 {
        0 => vec![tar],
        _ => <[&[u8]; 2]>::from(tar.split_at(tar.len() / 1024 * 512)).to_vec(),
    };
    let mut rounds = 0;
    for half in halves {
        let half = [half, &[0; 1024]].concat();
        rounds += 1;
        let unpacked = match how & 32 {
            0 => unpack(&half[..], &root, &options),
            _ => {
                let beneath = Root::open(PLACE.folder("beneath")).expect("it is there");
                unpack_overlay(&half[..], &root, Some(&beneath), Marks::User, &options)
            }
        };
        if let Ok(report) = unpacked {
            assert!(report.entries <= ENTRIES && report.bytes <= BYTES);
        }
    }
    // An entry may imply the folders that it is in.
    let most = usize::try_from(ENTRIES).unwrap_or(usize::MAX) * DEPTH * rounds;
    PLACE.check(most + 3, BYTES * rounds as u64);
    if how & 32 == 0 {
        let first = packed(&folder);
        let again = PLACE.folder("again");
        let root = Root::open(&again).expect("it is there");
        let options = UnpackOptions::default()
            .with_special_bits(true)
            .with_root_metadata(true);
        unpack(&first[..], &root, &options).expect("what was packed unpacks");
        assert!(packed(&again) == first, "it unpacks to something else");
    }
}

fuzz_target!(|input: &[u8]| {
    let (how, tar) = input.split_at(input.len().min(1));
    case(
        how.first().copied().unwrap_or_default(),
        &with_checksums(tar),
    );
    PLACE.clear();
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match (size, seed % 16) {
        (0, _) => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
        (_, 0) => {
            data[0] = seed.to_le_bytes()[1];
            size
        }
        _ => 1 + mutate_tar(&mut data[1..], size - 1, max_size - 1, seed),
    }
});
