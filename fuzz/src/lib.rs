//! What several targets share.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use tempfile::TempDir;

const BLOCK: usize = 512;

/// Stands between the parts of an input that is several files.
const SEPARATOR: &[u8] = b"\n%%%\n";

/// The parts of an input.
pub fn parts(input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some(at) = rest
        .windows(SEPARATOR.len())
        .position(|window| window == SEPARATOR)
    {
        parts.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    parts.push(rest);
    parts
}

/// Sets the checksum of whatever looks like a tar's header: nobody who is hostile sends a wrong one.
pub fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    let (blocks, _) = tar.as_chunks_mut::<BLOCK>();
    for block in blocks
        .iter_mut()
        .filter(|block| &block[257..262] == b"ustar")
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    tar
}

/// Changes a tar: within a block, or by whole blocks, so that the headers stay where they are looked for.
pub fn mutate_tar(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = u64::from(seed) | 1 << 32;
    let mut below = |limit: usize| {
        // Knuth's multiplier; what libFuzzer has chosen is all the randomness that there may be.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(random >> 33).unwrap_or_default() % limit.max(1)
    };
    let blocks = size / BLOCK;
    let choice = below(8);
    if blocks < 2 || choice < 2 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let (at, from) = (below(blocks) * BLOCK, below(blocks) * BLOCK);
    match choice {
        2 if size + BLOCK <= max_size => {
            let copy = data[from..from + BLOCK].to_vec();
            data.copy_within(at..size, at + BLOCK);
            data[at..at + BLOCK].copy_from_slice(&copy);
            size + BLOCK
        }
        3 => {
            data.copy_within(at + BLOCK..size, at);
            size - BLOCK
        }
        4 => {
            // A field of another header.
            let start = below(BLOCK);
            let length = below(BLOCK - start).min(1 + below(120));
            let copy = data[from + start..from + start + length].to_vec();
            data[at + start..at + start + length].copy_from_slice(&copy);
            size
        }
        5 => {
            // The type.
            data[at + 156] = b"0123456789gxLKSDMV\0"[below(19)];
            size
        }
        _ => {
            let mut block = data[at..at + BLOCK].to_vec();
            libfuzzer_sys::fuzzer_mutate(&mut block, BLOCK, BLOCK);
            data[at..at + BLOCK].copy_from_slice(&block);
            size
        }
    }
}

/// A folder for one case at a time, with something beside it that nobody may touch.
pub struct Place {
    base: TempDir,
    outside: Vec<(PathBuf, Vec<i64>, Vec<u8>)>,
}

impl Default for Place {
    fn default() -> Self {
        let base =
            TempDir::with_prefix("blink-fuzz-").expect("a folder for temporary files is there");
        let outside = base.path().join("outside");
        fs::create_dir_all(outside.join("folder")).expect("it is empty");
        fs::write(outside.join("file"), "nobody's").expect("it is empty");
        fs::write(outside.join("folder/file"), "nobody's").expect("it is empty");
        std::os::unix::fs::symlink("file", outside.join("link")).expect("it is empty");
        fs::create_dir(base.path().join("inside")).expect("it is empty");
        let mut place = Place {
            base,
            outside: Vec::new(),
        };
        place.outside = place.look_outside();
        place
    }
}

impl Place {
    /// An empty folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.base.path().join("inside").join(name);
        fs::create_dir_all(&folder).expect("what was before is removed");
        folder
    }

    /// # Panics
    /// Where something is not as it was outside, or there is more inside than there may be.
    pub fn check(&self, most_entries: usize, most_bytes: u64) {
        assert_eq!(self.look_outside(), self.outside, "it has reached outside");
        let mut names: Vec<_> = fs::read_dir(self.base.path())
            .expect("it is there")
            .map(|entry| entry.expect("it can be listed").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["inside", "outside"]);
        let (mut entries, mut bytes) = (0, 0);
        let mut folders = vec![self.base.path().join("inside")];
        while let Some(folder) = folders.pop() {
            // Whoever runs this may be an ordinary user.
            let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o700));
            for entry in fs::read_dir(&folder).expect("it can be read") {
                let entry = entry.expect("it can be listed");
                let metadata = entry.metadata().expect("it is there");
                entries += 1;
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    bytes += metadata.len();
                }
            }
        }
        assert!(entries <= most_entries, "{entries} entries");
        assert!(bytes <= most_bytes, "{bytes} bytes");
    }

    /// Removes what a case has left.
    pub fn clear(&self) {
        let folder = fs::File::open(self.base.path()).expect("it is there");
        blink_archive::remove_tree(
            std::os::fd::AsFd::as_fd(&folder),
            std::ffi::OsStr::new("inside"),
        )
        .expect("whatever was made can be removed");
    }

    fn look_outside(&self) -> Vec<(PathBuf, Vec<i64>, Vec<u8>)> {
        let outside = self.base.path().join("outside");
        ["", "file", "link", "folder", "folder/file"]
            .map(|name| outside.join(name))
            .into_iter()
            .map(|path| {
                let metadata = path.symlink_metadata().expect("it is still there");
                let content = match metadata.is_file() {
                    true => fs::read(&path).expect("it can be read"),
                    false => Vec::new(),
                };
                let facts = vec![
                    i64::from(metadata.mode()),
                    i64::from(metadata.uid()),
                    i64::from(metadata.gid()),
                    metadata.nlink().cast_signed(),
                    metadata.mtime(),
                    metadata.mtime_nsec(),
                ];
                (path, facts, content)
            })
            .collect()
    }
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub fn hex_digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar of some files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in files {
        let start = tar.len();
        tar.resize(start + BLOCK, 0);
        let header = &mut tar[start..];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000600");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let header = with_checksums(&tar[start..]);
        tar[start..].copy_from_slice(&header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}
