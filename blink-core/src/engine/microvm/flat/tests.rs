//! Against the reference implementation.

use std::fs;
use std::process::{Command, Stdio};

use super::*;

const SIZE: u64 = (2 << 30) + (64 << 20);

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self, disks: &[&str]) -> io::Result<Flat> {
        let disks: Vec<_> = disks.iter().map(|name| self.path(name)).collect();
        Flat::open(&disks, Beneath::ImageIn(self.0.path()))
    }

    /// A disk over another, that holds what these commands have written.
    fn disk(&self, name: &str, beneath: Option<(&str, &str)>, commands: &[&str]) -> PathBuf {
        let path = self.path(name);
        let mut create = vec!["create", "-q", "-f", "qcow2"];
        let backing = beneath.map(|(name, format)| (self.path(name), format));
        if let Some((backing, format)) = &backing {
            create.extend(["-b", backing.to_str().unwrap(), "-F", format]);
        }
        let size = SIZE.to_string();
        create.extend([path.to_str().unwrap(), &size]);
        qemu("qemu-img", &create);
        write(&path, "qcow2", commands);
        path
    }

    /// Makes it one, has the reference implementation look at it, and compares.
    fn flattened(&self, disks: &[&str]) -> PathBuf {
        self.written(disks[0], &self.open(disks).unwrap())
    }

    fn written(&self, disk: &str, flat: &Flat) -> PathBuf {
        let disk = self.path(disk);
        let whole = self.path("whole.qcow2");
        let written = copy_sparsely(flat.read().unwrap(), &File::create(&whole).unwrap());
        assert_eq!(written, flat.bytes());
        let whole_name = whole.to_str().unwrap();
        qemu("qemu-img", &["check", "-q", whole_name]);
        qemu(
            "qemu-img",
            &["compare", "-q", disk.to_str().unwrap(), whole_name],
        );
        let header = Header::read(&whole).unwrap();
        assert_eq!(header, flat.header);
        assert_eq!(header.size_bytes, SIZE);
        whole
    }
}

fn qemu(program: &str, arguments: &[&str]) {
    let ran = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = ran.expect("qemu's tools are there: scripts/setup test installs them");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

fn write(disk: &Path, format: &str, commands: &[&str]) {
    let mut arguments = vec!["-f", format];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(disk.to_str().unwrap());
    qemu("qemu-io", &arguments);
}

fn error(flat: io::Result<Flat>) -> io::Error {
    flat.err().expect("it was taken for a disk")
}

#[test]
fn several_are_one_with_what_each_has_written_and_emptied() {
    let folder = Folder::new();
    let image = folder.path("image.ext4");
    File::create(&image)
        .unwrap()
        .set_len((1 << 30) + 5000)
        .unwrap();
    let image_writes = [
        "write -P 1 0 300k",
        "write -P 2 700M 64k",
        "write -P 3 1073741824 5000",
    ];
    write(&image, "raw", &image_writes);
    folder.disk(
        "low.qcow2",
        Some(("image.ext4", "raw")),
        &[
            "write -P 4 64k 64k",
            "write -P 5 2G 1M",
            "write -P 6 2214526976 64k",
        ],
    );
    folder.disk(
        "high.qcow2",
        Some(("low.qcow2", "qcow2")),
        // Emptied: of the image's, of the one beneath, and of what was never written.
        &[
            "write -z 128k 64k",
            "write -z 2G 128k",
            "write -z 1G 64k",
            "write -P 7 1500M 70000",
        ],
    );
    let whole = folder.flattened(&["high.qcow2", "low.qcow2"]);
    write(
        &whole,
        "qcow2",
        &[
            "read -P 0 128k 64k",
            "read -P 4 64k 64k",
            "read -P 0 2G 128k",
        ],
    );
    // What is one already stays what it is.
    let again = folder.path("again.qcow2");
    fs::rename(&whole, &again).unwrap();
    let once_more = folder.flattened(&["again.qcow2"]);
    assert_eq!(fs::read(again).unwrap(), fs::read(once_more).unwrap());
}

#[test]
fn the_upper_ones_are_one_over_the_lower() {
    let folder = Folder::new();
    folder.disk(
        "lowest.qcow2",
        None,
        &["write -P 1 0 1M", "write -P 1 1G 64k"],
    );
    let over = |name| Some((name, "qcow2"));
    folder.disk("low.qcow2", over("lowest.qcow2"), &["write -P 2 64k 128k"]);
    folder.disk(
        "middle.qcow2",
        over("low.qcow2"),
        &[
            "write -P 3 128k 64k",
            "write -z 1G 64k",
            "write -z 256k 64k",
        ],
    );
    folder.disk(
        "high.qcow2",
        over("middle.qcow2"),
        &[
            "write -P 4 256k 64k",
            "write -z 128k 64k",
            "write -P 4 2G 64k",
        ],
    );
    let disks = ["high.qcow2", "middle.qcow2"].map(|name| folder.path(name));
    let merged = |beneath: &str| Flat::open(&disks, Beneath::Disk(folder.path(beneath)));
    let flat = merged("low.qcow2").unwrap();
    assert_eq!(flat.header.backing, Some(folder.path("low.qcow2")));
    let whole = folder.written("high.qcow2", &flat);
    // Of those beneath, nothing is in it.
    assert!(whole.metadata().unwrap().len() < 12 * CLUSTER);
    fs::rename(whole, folder.path("merged.qcow2")).unwrap();
    folder.flattened(&["merged.qcow2", "low.qcow2", "lowest.qcow2"]);
    assert!(
        error(merged("lowest.qcow2"))
            .to_string()
            .contains("another")
    );
    let alone = [folder.path("lowest.qcow2")];
    error(Flat::open(&alone, Beneath::Disk(folder.path("low.qcow2"))));
}

#[test]
fn an_empty_disk_and_a_full_table_are_written_right() {
    let folder = Folder::new();
    folder.disk("empty.qcow2", None, &[]);
    assert!(folder.flattened(&["empty.qcow2"]).metadata().unwrap().len() < 1 << 20);
    // More clusters than one block of counts counts: 32,768.
    let full = folder.path("full.qcow2");
    let options = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "preallocation=metadata",
    ];
    qemu(
        "qemu-img",
        &[&options[..], &[full.to_str().unwrap(), &SIZE.to_string()]].concat(),
    );
    folder.flattened(&["full.qcow2"]);
}

/// Leaves out the zeros.
fn copy_sparsely(mut from: impl Read, to: &File) -> u64 {
    let (mut block, zeros, mut length) = (vec![0; 64 << 10], vec![0; 64 << 10], 0);
    loop {
        let read = from.read(&mut block).unwrap();
        if read == 0 {
            to.set_len(length).unwrap();
            return length;
        }
        if block[..read] != zeros[..read] {
            to.write_all_at(&block[..read], length).unwrap();
        }
        length += read as u64;
    }
}

#[test]
fn counts_count_themselves() {
    for counts in (1..200_000)
        .step_by(997)
        .chain([COUNTED - 2, COUNTED - 1, COUNTED])
    {
        let shape = Shape::of(2, 3, counts);
        let blocks = shape.clusters - shape.blocks;
        assert!(blocks * COUNTED >= shape.clusters, "{counts}");
        assert!((blocks - 1) * COUNTED < shape.clusters, "{counts}");
        assert_eq!(
            shape.counts().len() as u64,
            (shape.clusters - counts) * CLUSTER
        );
    }
}

#[test]
fn what_is_no_disk_of_blinks_is_refused() {
    let folder = Folder::new();
    let good = folder.disk("good.qcow2", None, &["write -P 1 0 256k"]);
    let bytes = fs::read(&good).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = bytes.clone();
        change(&mut changed);
        fs::write(folder.path("bad.qcow2"), changed).unwrap();
        error(folder.open(&["bad.qcow2"]))
    };
    let set = |bytes: &mut [u8], at: usize, value: u64| {
        bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
    };
    let long = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let table = usize::try_from(long(40)).unwrap();
    let clusters = usize::try_from(long(table) & OFFSET).unwrap();

    // Each of its clusters is the same one.
    let same = refused(&|bytes| {
        for entry in 0..8192 {
            set(bytes, clusters + entry * 8, ALONE | CLUSTER);
        }
    });
    assert!(same.to_string().contains("the same"), "{same}");
    let compressed = refused(&|bytes| set(bytes, clusters, COMPRESSED | 1 << 20));
    assert!(
        compressed.to_string().contains("compressed"),
        "{compressed}"
    );
    let lost = refused(&|bytes| set(bytes, table, ALONE | 1 << 50));
    assert_eq!(lost.kind(), io::ErrorKind::UnexpectedEof);
    let tables = refused(&|bytes| {
        bytes[36..40].copy_from_slice(&4096_u32.to_be_bytes());
        set(bytes, 24, 1 << 41);
        for entry in 0..4096 {
            set(bytes, table + entry * 8, ALONE | clusters as u64);
        }
    });
    assert!(tables.to_string().contains("the same"), "{tables}");
    // The largest that there is costs little.
    let mut huge = bytes.clone();
    set(&mut huge, 24, 1 << 51);
    fs::write(folder.path("huge.qcow2"), huge).unwrap();
    let huge = folder.open(&["huge.qcow2"]).unwrap();
    assert!(huge.bytes() < 64 << 20);
    huge.read().unwrap();
}

#[test]
fn only_what_a_disk_lies_over_is_read_as_beneath_it() {
    let (folder, elsewhere) = (Folder::new(), tempfile::tempdir().unwrap());
    let secret = elsewhere.path().join("secret.ext4");
    fs::write(&secret, vec![7; 100_000]).unwrap();
    std::os::unix::fs::symlink(&secret, folder.path("link.ext4")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        folder.path("pipe.ext4"),
        rustix::fs::Mode::RUSR,
    )
    .unwrap();
    fs::write(folder.path("image.ext4"), vec![7; 100_000]).unwrap();
    folder.disk("other.qcow2", None, &[]);
    let beneath = |backing: Option<PathBuf>, under: &[&str]| {
        let disk = folder.path("disk.qcow2");
        let header = Header {
            size_bytes: SIZE,
            backing,
        };
        header.write_new(&disk).unwrap();
        let opened = folder.open(&[&["disk.qcow2"], under].concat());
        fs::remove_file(&disk).unwrap();
        opened.map(drop).map_err(|error| error.to_string())
    };
    let other = &["other.qcow2"][..];
    assert_eq!(beneath(Some(folder.path("image.ext4")), &[]), Ok(()));
    assert_eq!(beneath(Some(folder.path("other.qcow2")), other), Ok(()));
    // Also by another way to the same folder.
    let way = elsewhere.path().join("way");
    std::os::unix::fs::symlink(folder.0.path(), &way).unwrap();
    assert_eq!(beneath(Some(way.join("image.ext4")), &[]), Ok(()));
    assert_eq!(beneath(Some(way.join("other.qcow2")), other), Ok(()));
    for name in [
        "link.ext4",
        "pipe.ext4",
        "../secret.ext4",
        "disk.qcow2/x",
        "missing",
    ] {
        beneath(Some(folder.path(name)), &[]).unwrap_err();
    }
    beneath(Some(secret), &[]).unwrap_err();
    beneath(Some(folder.path("image.ext4")), other).unwrap_err();
    beneath(Some(folder.path("disk.qcow2")), other).unwrap_err();
    beneath(None, other).unwrap_err();
}

/// Looking at each of its clusters would take hours.
#[test]
fn a_disk_of_millions_of_empty_spans_is_looked_through() {
    let folder = Folder::new();
    let header = Header {
        size_bytes: 2 << 50,
        backing: None,
    };
    header.write_new(&folder.path("large")).unwrap();
    let flat = folder.open(&["large"]).unwrap();
    assert_eq!(flat.header, header);
    assert!(flat.spans.is_empty());
}
