//! The format of machines' disks, qcow2 version 3: as much of it as it takes to lay an empty disk over another,
//! and to make one of several.
//!
//! | offset | size | field |
//! |---:|---:|---|
//! | 0 | 4 | magic, `QFI\xfb` |
//! | 4 | 4 | version, 3 |
//! | 8 | 8 | offset of the name of the disk beneath, 0 where there is none |
//! | 16 | 4 | length of that name |
//! | 20 | 4 | cluster size, as a power of two |
//! | 24 | 8 | size of the disk as the machine sees it |
//! | 36 | 4 | entries of the first table |
//! | 40 | 8 | offset of the first table |
//! | 48 | 8 | offset of the table of reference counts |
//! | 56 | 4 | clusters of that table |
//! | 72 | 8 | features that a reader must know |
//! | 96 | 4 | bits of a reference count, as a power of two |
//! | 100 | 4 | length of the header |
//!
//! All integers are big-endian. Extensions follow the header, then the name of the disk beneath. The first table has an
//! entry for each span of 512 MiB, which leads to a table with an entry for each of its clusters of 64 KiB.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"QFI\xfb";
const VERSION: u32 = 3;
const HEADER_BYTES: usize = 104;

/// 64 KiB, as everybody has them.
const CLUSTER_BITS: u32 = 16;
pub(super) const CLUSTER: u64 = 1 << CLUSTER_BITS;

/// Clusters in a span, which one entry of the first table stands for: it leads to a cluster full of entries of eight bytes,
/// each for a cluster.
pub(super) const SPAN_CLUSTERS: u64 = CLUSTER / 8;
const SPAN: u64 = SPAN_CLUSTERS * CLUSTER;

/// Spans of a disk: as many as others allow, so that the first table fits into any memory.
const SPANS_LIMIT: u64 = 1 << 22;

/// In the entry of a table: where what it leads to begins.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// In the entry of a table: nothing else leads there.
pub(super) const ALONE: u64 = 1 << 63;

/// In the entry of a cluster: it is compressed.
pub(super) const COMPRESSED: u64 = 1 << 62;

/// In the entry of a cluster: it is all zeros, whatever is beneath it.
pub(super) const ZEROS: u64 = 1;

/// 16 bits.
const COUNT_ORDER: u32 = 4;

/// Says what the disk beneath is written in.
const BACKING_FORMAT: u32 = 0xE279_2ACA;

/// The kernel's longest path.
const NAME_LIMIT: u32 = 4096;

/// What a disk says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// As the machine sees it.
    pub(super) size_bytes: u64,
    /// The disk beneath.
    pub(super) backing: Option<PathBuf>,
}

impl Header {
    /// # Errors
    /// `InvalidData` for what is no such disk.
    pub(super) fn read(disk: &Path) -> io::Result<Header> {
        Ok(Header::read_from(&File::open(disk)?)?.0)
    }

    /// As [`read`](Header::read), with what its first table is.
    pub(super) fn read_from(file: &File) -> io::Result<(Header, FirstTable)> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let long = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| header[at + byte]));
        let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|byte| header[at + byte]));
        if header[..4] != MAGIC || word(4) != VERSION {
            return Err(invalid("it is no disk in the format qcow2, version 3"));
        }
        // One is to read data from another file, whatever that is; no other changes what Blink does, but none is needed.
        if long(72) != 0 {
            return Err(invalid("it uses features that are not known"));
        }
        if word(32) != 0 {
            return Err(invalid("it is encrypted"));
        }
        if word(20) != CLUSTER_BITS {
            return Err(invalid("its clusters are not of 64 KiB"));
        }
        if long(24).div_ceil(SPAN) > SPANS_LIMIT || u64::from(word(36)) > SPANS_LIMIT {
            return Err(invalid("it is larger than 2 PiB"));
        }
        let (offset, length) = (long(8), word(16));
        let backing = match (offset, length) {
            (0, _) => None,
            (_, 1..=NAME_LIMIT) => {
                let mut name = vec![0; length as usize];
                file.read_exact_at(&mut name, offset)?;
                Some(OsString::from_vec(name).into())
            }
            _ => {
                return Err(invalid(
                    "the name of the disk beneath it has an impossible length",
                ));
            }
        };
        let header = Header {
            size_bytes: long(24),
            backing,
        };
        let first_table = FirstTable {
            entries: u64::from(word(36)),
            offset: long(40),
        };
        Ok((header, first_table))
    }

    /// Writes a disk in which nothing has changed yet.
    ///
    /// # Errors
    /// `AlreadyExists` if there is a file of that name.
    pub(super) fn write_new(&self, disk: &Path) -> io::Result<()> {
        let (counts, count_block, first_table) = (CLUSTER, 2 * CLUSTER, 3 * CLUSTER);
        let clusters = 3 + self.first_table_clusters();
        let header = self.encode(&Tables {
            first_table,
            counts,
            counts_clusters: 1,
        })?;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(disk)?;
        file.write_all(&header)?;
        file.write_all_at(&count_block.to_be_bytes(), counts)?;
        let in_use: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
        file.write_all_at(&in_use, count_block)?;
        file.set_len(clusters * CLUSTER)?;
        file.sync_all()
    }

    /// Entries of the first table.
    pub(super) fn spans(&self) -> u64 {
        self.size_bytes.div_ceil(SPAN)
    }

    pub(super) fn first_table_clusters(&self) -> u64 {
        (self.spans() * 8).div_ceil(CLUSTER)
    }

    /// What stands at the file's start, shorter than a cluster.
    pub(super) fn encode(&self, tables: &Tables) -> io::Result<Vec<u8>> {
        let name = self
            .backing
            .as_ref()
            .map(|path| path.as_os_str().as_bytes());
        let mut extensions = Vec::new();
        if name.is_some() {
            extensions.extend(BACKING_FORMAT.to_be_bytes());
            extensions.extend(5_u32.to_be_bytes());
            extensions.extend(b"qcow2\0\0\0");
        }
        extensions.extend([0; 8]);
        let name_offset = match name {
            Some(_) => (HEADER_BYTES + extensions.len()) as u64,
            None => 0,
        };
        let name = name.unwrap_or_default();
        let mut header = Vec::with_capacity(HEADER_BYTES + extensions.len() + name.len());
        header.extend(MAGIC);
        header.extend(VERSION.to_be_bytes());
        header.extend(name_offset.to_be_bytes());
        header.extend(small(name.len() as u64)?.to_be_bytes());
        header.extend(CLUSTER_BITS.to_be_bytes());
        header.extend(self.size_bytes.to_be_bytes());
        header.extend([0; 4]);
        header.extend(small(self.spans())?.to_be_bytes());
        header.extend(tables.first_table.to_be_bytes());
        header.extend(tables.counts.to_be_bytes());
        header.extend(small(tables.counts_clusters)?.to_be_bytes());
        header.extend([0; 36]);
        header.extend(COUNT_ORDER.to_be_bytes());
        header.extend(small(HEADER_BYTES as u64)?.to_be_bytes());
        header.extend(extensions);
        header.extend(name);
        if header.len() as u64 > CLUSTER {
            return Err(invalid("the path of the disk beneath is too long"));
        }
        Ok(header)
    }
}

/// What a disk says of its first table.
pub(super) struct FirstTable {
    entries: u64,
    offset: u64,
}

impl FirstTable {
    /// Its entries: for each span, where its table is; 0 if it has none.
    pub(super) fn read(&self, file: &File) -> io::Result<Vec<u64>> {
        let mut table = read_table(file, self.offset, self.entries * 8)?;
        for entry in &mut table {
            *entry &= OFFSET;
        }
        Ok(table)
    }
}

/// Reads a table of entries of eight bytes.
pub(super) fn read_table(file: &File, offset: u64, bytes: u64) -> io::Result<Vec<u64>> {
    let mut table = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut table, offset)?;
    let (entries, _) = table.as_chunks();
    Ok(entries.iter().copied().map(u64::from_be_bytes).collect())
}

/// Where a disk's tables are, in bytes from its start.
pub(super) struct Tables {
    pub(super) first_table: u64,
    pub(super) counts: u64,
    pub(super) counts_clusters: u64,
}

fn small(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| invalid("the disk is too large"))
}

pub(super) fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_says_what_it_was_made_with() {
        let folder = tempfile::tempdir().unwrap();
        let beneath = folder.path().join("beneath \u{fc}");
        let disk = folder.path().join("disk");
        for size_bytes in [1 << 30, 10 << 30, (1 << 44) - 512] {
            for backing in [None, Some(beneath.clone())] {
                let header = Header {
                    size_bytes,
                    backing,
                };
                header.write_new(&disk).unwrap();
                assert_eq!(Header::read(&disk).unwrap(), header);
                assert!(disk.metadata().unwrap().len() < 1 << 20);
                let again = header.write_new(&disk).unwrap_err();
                assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
                std::fs::remove_file(&disk).unwrap();
            }
        }
    }

    #[test]
    fn what_is_no_disk_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        let header = Header {
            size_bytes: 1 << 30,
            backing: Some("/beneath".into()),
        };
        header.write_new(&disk).unwrap();
        let good = std::fs::read(&disk).unwrap();
        for (offset, byte) in [
            (0, 0),
            (7, 2),
            (16, 0xff),
            (19, 0),
            (23, 12),
            (24, 1),
            (35, 1),
            (36, 1),
            (79, 4),
        ] {
            let mut bad = good.clone();
            bad[offset] = byte;
            std::fs::write(&disk, bad).unwrap();
            let error = Header::read(&disk).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {offset}");
        }
        std::fs::write(&disk, &good[..50]).unwrap();
        assert!(Header::read(&disk).is_err());
    }

    #[test]
    fn the_reference_implementation_reads_it_too() {
        use std::process::Command;
        let folder = tempfile::tempdir().unwrap();
        let (beneath, disk) = (folder.path().join("beneath"), folder.path().join("disk"));
        let size_bytes = 3 << 30;
        let new = |backing, path: &Path| {
            let header = Header {
                size_bytes,
                backing,
            };
            header.write_new(path).unwrap();
        };
        new(None, &beneath);
        new(Some(beneath), &disk);
        let checking = Command::new("qemu-img").arg("check").arg(&disk).output();
        let output = checking.expect("qemu-img is there: scripts/setup test installs it");
        assert!(output.status.success(), "{output:?}");
        let output = Command::new("qemu-img")
            .args(["info", "--output=json"])
            .arg(&disk)
            .output()
            .unwrap();
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["virtual-size"], size_bytes);
        assert_eq!(told["backing-filename-format"], "qcow2");
    }
}
