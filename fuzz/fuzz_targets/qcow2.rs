//! Disks that say anything of themselves: two of them over an image, made into one.
//!
//! A disk of even a few clusters is too large to be an input. So the input's two parts are a disk each: its header, and then
//! entries of ten bytes, where to write (in steps of eight bytes) and what. Checked: what comes out is a disk that stands
//! alone, shows the same, and is no larger than what it was made of.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use blink_core::fuzzing;
use blink_fuzz::{Place, parts};
use libfuzzer_sys::fuzz_target;

const HEADER: usize = 104;

static PLACE: LazyLock<Place> = LazyLock::new(Place::default);

fn write(disk: &[u8], path: &Path, beneath: Option<&Path>) {
    let (header, entries) = disk.split_at(disk.len().min(HEADER));
    let mut header = header.to_vec();
    // Below 1 TiB: a table of all spans that there may be takes longer to write than a thousand small ones.
    if let Some(size) = header.get_mut(24..27) {
        size.fill(0);
    }
    let file = File::create(path).expect("there is room");
    file.write_all_at(&header, 0).expect("there is room");
    // Where the header says that the name of the disk beneath it is, it is.
    if let (Some(beneath), Some(offset)) = (beneath, header.get(8..16)) {
        let offset = u64::from_be_bytes(std::array::from_fn(|byte| offset[byte]));
        let name = beneath.as_os_str().as_encoded_bytes();
        if offset > 0 && offset < 1 << 20 {
            let length = u32::try_from(name.len()).expect("it is short");
            file.write_all_at(name, offset).expect("there is room");
            file.write_all_at(&length.to_be_bytes(), 16)
                .expect("there is room");
        }
    }
    for entry in entries.chunks_exact(10) {
        let at = u64::from(u16::from_be_bytes([entry[0], entry[1]])) * 8;
        file.write_all_at(&entry[2..], at).expect("there is room");
    }
    // Whatever was written over it.
    file.write_all_at(&[0; 3], 24).expect("there is room");
}

fuzz_target!(|input: &[u8]| {
    let folder = PLACE.folder("disks");
    let images = PLACE.folder("images");
    let image = images.join("image");
    let file = File::create(&image).expect("there is room");
    file.write_all_at(b"image", 70_000).expect("there is room");
    let parts = parts(input);
    let disks: Vec<PathBuf> = (0..parts.len().min(3))
        .map(|number| folder.join(number.to_string()))
        .collect();
    for (index, part) in parts.iter().take(disks.len()).enumerate() {
        let beneath = disks.get(index + 1).unwrap_or(&image);
        write(part, &disks[index], Some(beneath));
    }
    let _ = fuzzing::flatten(&disks, &images, &folder.join("flat"));
    PLACE.check(8, 16 << 20);
    PLACE.clear();
});
