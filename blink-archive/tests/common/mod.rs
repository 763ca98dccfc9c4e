//! Archives written byte by byte, as no honest tool writes them.
#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use blink_archive::{ArchiveError, Root, UnpackOptions, UnpackReport, unpack};
use tempfile::TempDir;

/// A tar archive under construction.
#[derive(Default, Clone)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn raw(
        mut self,
        kind: u8,
        name: &[u8],
        link: &[u8],
        mode: u32,
        size: u64,
        content: &[u8],
    ) -> Self {
        self.0.extend(header(kind, name, link, mode, size, 0));
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn owned(mut self, name: &str, owner: u32) -> Self {
        self.0
            .extend(header(b'0', name.as_bytes(), b"", 0o644, 0, owner));
        self
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.raw(
            b'0',
            name.as_ref(),
            b"",
            0o644,
            content.len() as u64,
            content,
        )
    }

    pub(crate) fn folder(self, name: impl AsRef<[u8]>, mode: u32) -> Self {
        self.raw(b'5', name.as_ref(), b"", mode, 0, b"")
    }

    pub(crate) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.raw(b'2', name.as_ref(), target.as_ref(), 0o777, 0, b"")
    }

    pub(crate) fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.raw(b'1', name.as_ref(), target.as_ref(), 0o644, 0, b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..)
                .map(|digits| rest + digits)
                .find(|length| rest + length.to_string().len() == *length);
            data.extend(format!("{} {key}=", length.unwrap()).into_bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.raw(b'x', b"pax", b"", 0o644, data.len() as u64, &data)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn header(kind: u8, name: &[u8], link: &[u8], mode: u32, size: u64, owner: u32) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
    block[108..116].copy_from_slice(format!("{owner:07o}\0").as_bytes());
    block[116..124].copy_from_slice(format!("{owner:07o}\0").as_bytes());
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..148].copy_from_slice(b"00000000001\0");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A root to unpack into, and beside it what must never be touched.
pub(crate) struct Arena {
    folder: TempDir,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/canary"), "alive").unwrap();
        Self { folder }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    pub(crate) fn unpack(&self, archive: &[u8]) -> Result<UnpackReport, ArchiveError> {
        self.unpack_with(archive, &UnpackOptions::default())
    }

    pub(crate) fn layer(&self, archive: &[u8]) -> Result<UnpackReport, ArchiveError> {
        self.unpack_with(archive, &UnpackOptions::layer())
    }

    pub(crate) fn unpack_with(
        &self,
        archive: &[u8],
        options: &UnpackOptions,
    ) -> Result<UnpackReport, ArchiveError> {
        let result = unpack(archive, &Root::open(self.root()).unwrap(), options);
        self.assert_untouched();
        result
    }

    pub(crate) fn assert_untouched(&self) {
        let canary = self.outside().join("canary");
        assert_eq!(fs::read(&canary).unwrap(), b"alive");
        assert_eq!(fs::metadata(&canary).unwrap().nlink(), 1);
        assert_eq!(fs::metadata(&canary).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(self.outside()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 2);
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.root().join(path).symlink_metadata().is_ok()
    }
}

pub(crate) fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}
