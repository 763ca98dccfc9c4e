//! Archives as nobody honest writes them.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use blink_host::transfer::{sha256, tell_nobody};

use super::format::{
    BLOCK, EXPANSION_LIMIT, LAYER, MANIFEST, MANIFEST_ROOM, SESSION, layer_start, tar_header,
};
use super::*;
use crate::engine::namespace::id_base;
use crate::error::ErrorKind;

/// What archives here say of their sessions.
const SAID: &[u8] = br#"{"said":"by the session"}"#;

fn export(disks: &[PathBuf], image: &Path, archive: &Path, id_base: Option<u32>) -> Result<()> {
    let source = Source {
        disks: disks.to_owned(),
        image: image.to_owned(),
        marks: marks(id_base),
        id_base,
    };
    super::export(&source, archive, SAID, &tell_nobody())
}

/// As the engine has them.
fn marks(id_base: Option<u32>) -> Marks {
    match id_base {
        Some(_) => disk::marks_in(&std::env::temp_dir()),
        None => Marks::User,
    }
}

fn write(archive: &Path, pack: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    format::write(archive, SAID, &tell_nobody(), pack)
}

fn import(archive: &Path, place: &Place<'_>) -> Result<()> {
    let checked = open(archive)?;
    assert_eq!(checked.session(), SAID);
    checked.unpack(place, &tell_nobody())
}

/// Folders of a test: layers, an image, and a disk to import to, with something beside it that must stay as it is.
struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Scratch {
        let folder = tempfile::tempdir().unwrap();
        for name in ["image/etc", "disk", "layer"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("image/etc/gone"), "").unwrap();
        fs::write(folder.path().join("canary"), "alive").unwrap();
        disk::make(&folder.path().join("layer"), marks(id_base()), id_base()).unwrap();
        Scratch { folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn upper(&self, disk: &str) -> PathBuf {
        Upper::of(&self.at(disk)).unwrap().path
    }

    /// A file in the layer, as a program in the sandbox with this id makes it.
    fn put(&self, path: &str, content: &[u8], id: u32) {
        let path = self.upper("layer").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if let Some(base) = id_base() {
            std::os::unix::fs::chown(&path, Some(base + id), Some(base + id)).unwrap();
        }
    }

    fn export(&self) -> Vec<u8> {
        let archive = self.at("archive");
        export(&[self.at("layer")], &self.at("image"), &archive, id_base()).unwrap();
        fs::read(archive).unwrap()
    }

    fn import(&self) -> Result<()> {
        let place = Place {
            disk: &self.at("disk"),
            image: &self.at("image"),
            marks: marks(id_base()),
            id_base: id_base(),
            limit_bytes: 1 << 40,
        };
        import(&self.at("archive"), &place)
    }

    fn import_bytes(&self, bytes: &[u8]) -> Result<()> {
        fs::write(self.at("archive"), bytes).unwrap();
        self.import()
    }

    /// It is refused, and nothing is left of it.
    fn refuses(&self, kind: ErrorKind, what: &str) -> Error {
        let error = self.import().expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(
            error
                .message()
                .contains(&*self.at("archive").to_string_lossy()),
            "{what}: {error}"
        );
        self.is_empty(what);
        error
    }

    fn is_empty(&self, what: &str) {
        assert_eq!(fs::read_dir(self.at("disk")).unwrap().count(), 0, "{what}");
        assert_eq!(fs::read(self.at("canary")).unwrap(), b"alive", "{what}");
    }
}

/// The archive with another manifest.
fn with_manifest(archive: &[u8], text: &str) -> Vec<u8> {
    let old = usize::try_from(BLOCK + MANIFEST_ROOM).unwrap();
    let mut bytes = tar_header(MANIFEST, text.len() as u64).unwrap().to_vec();
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(&archive[old..]);
    bytes
}

fn manifest(archive: &[u8]) -> String {
    let end = usize::try_from(BLOCK + MANIFEST_ROOM).unwrap();
    String::from_utf8(archive[512..end].to_vec()).unwrap()
}

#[test]
fn what_a_sandbox_made_comes_back_and_owners_are_its_own() {
    let scratch = Scratch::new();
    scratch.put("etc/file", b"content", 5);
    scratch.put("etc/program", b"#!", 0);
    let program = scratch.upper("layer").join("etc/program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4751)).unwrap();
    let upper = scratch.upper("layer").join("etc");
    for name in ["gone", "never there"] {
        let mode = rustix::fs::Mode::empty();
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, upper.join(name), kind, mode, 0).unwrap();
    }
    let bytes = scratch.export();
    // Anybody can look into it.
    let mut tar = tar::Archive::new(&bytes[..]);
    let names: Vec<_> = tar
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().into_owned())
        .collect();
    assert_eq!(names, [MANIFEST, SESSION, LAYER].map(Path::new));
    let start = usize::try_from(layer_start(SAID)).unwrap();
    let layer = zstd::Decoder::new(&bytes[start..]).unwrap().single_frame();
    let mut inner = tar::Archive::new(layer);
    let owners: Vec<_> = inner
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path_bytes().ends_with(b"file"))
        .map(|entry| entry.header().uid().unwrap())
        .collect();
    let seen = if id_base().is_some() { 5 } else { 0 };
    assert_eq!(owners, [seen]);

    scratch.import().unwrap();
    let upper = scratch.upper("disk").join("etc");
    let file = fs::metadata(upper.join("file")).unwrap();
    assert_eq!(fs::read(upper.join("file")).unwrap(), b"content");
    if let Some(base) = id_base() {
        assert_eq!((file.uid(), file.gid()), (base + 5, base + 5));
    }
    let program = fs::metadata(upper.join("program")).unwrap();
    assert_eq!(program.mode() & 0o7777, 0o4751);
    let gone = fs::symlink_metadata(upper.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert!(!upper.join("never there").exists());
    assert!(scratch.at("disk/work").is_dir());
    // An ordinary user's is the same.
    let of_user = Place {
        disk: &scratch.at("user"),
        image: &scratch.at("image"),
        marks: Marks::User,
        id_base: None,
        limit_bytes: 1 << 60,
    };
    fs::create_dir(of_user.disk).unwrap();
    import(&scratch.at("archive"), &of_user).unwrap();
    let file = fs::metadata(scratch.at("user/upper/etc/file")).unwrap();
    assert_eq!(file.uid(), rustix::process::geteuid().as_raw());
    let again = scratch.at("again");
    export(&[scratch.at("user")], &scratch.at("image"), &again, None).unwrap();
}

#[test]
fn every_cut_and_every_altered_byte_is_noticed() {
    let scratch = Scratch::new();
    scratch.put("etc/file", b"content", 0);
    let good = scratch.export();
    for length in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        fs::write(scratch.at("archive"), &good[..length]).unwrap();
        scratch.refuses(ErrorKind::Corrupt, &format!("cut to {length}"));
    }
    for at in (0..good.len()).step_by(3) {
        for mask in [0x01, 0x80] {
            let mut altered = good.clone();
            altered[at] ^= mask;
            fs::write(scratch.at("archive"), &altered).unwrap();
            scratch.refuses(ErrorKind::Corrupt, &format!("byte {at} ^ {mask:x}"));
        }
    }
    let longer = [&good[..], b"x"].concat();
    fs::write(scratch.at("archive"), longer).unwrap();
    scratch.refuses(ErrorKind::Corrupt, "goes on");
    // As tar programs fill archives up.
    let padded = [&good[..], &[0; 10240]].concat();
    scratch.import_bytes(&padded).unwrap();
}

#[test]
fn manifests_are_believed_only_where_they_are_true() {
    let scratch = Scratch::new();
    scratch.put("etc/file", b"content", 0);
    let good = scratch.export();
    let text = manifest(&good);
    let mut parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bytes = parsed["layers"][0]["bytes"].as_u64().unwrap();
    let compressed = parsed["layers"][0]["compressed_bytes"].as_u64().unwrap();
    let (limit, u64_max) = (compressed * EXPANSION_LIMIT, u64::MAX.to_string());
    let replaced = |from: String, to: &str| {
        assert!(text.contains(&from), "{from} in {text}");
        text.replace(&from, to)
    };
    let size = format!("\"bytes\":{bytes},");
    let packed = format!("\"compressed_bytes\":{compressed}");
    let corrupt = [
        replaced("blink-namespace".into(), "blink-other"),
        replaced("\"version\":1".into(), "\"version\":0"),
        replaced("\"version\":1".into(), "\"version\":-1"),
        replaced("\"version\":1".into(), "\"version\":\"1\""),
        replaced(LAYER.into(), "layers/0001.tar.zst"),
        replaced(LAYER.into(), "../../x"),
        replaced(size.clone(), "\"bytes\":0,"),
        replaced(size.clone(), &format!("\"bytes\":{},", bytes - 512)),
        replaced(size.clone(), &format!("\"bytes\":{},", bytes + 512)),
        replaced(size.clone(), &format!("\"bytes\":{},", limit + 1)),
        replaced(size.clone(), &format!("\"bytes\":{u64_max},")),
        replaced(packed.clone(), "\"compressed_bytes\":1"),
        replaced(packed, &format!("\"compressed_bytes\":{u64_max}")),
        replaced("\"sha256\":\"".into(), "\"sha256\":\"00"),
        replaced(sha256(SAID), &sha256(b"something else")),
        replaced(SESSION.into(), "other.json"),
        replaced("\"format\"".into(), "\"more\":1,\"format\""),
        replaced("}]".into(), "},{}]"),
        "{}".into(),
        "[]".into(),
        "[".repeat(100_000),
        "\u{0}".repeat(512),
        " ".repeat(2 << 20),
        String::new(),
    ];
    for text in corrupt {
        fs::write(scratch.at("archive"), with_manifest(&good, &text)).unwrap();
        let shown: String = text.trim().chars().take(200).collect();
        scratch.refuses(ErrorKind::Corrupt, &shown);
    }
    parsed["version"] = 2.into();
    parsed["layers"] = "anything".into();
    let future = with_manifest(&good, &parsed.to_string());
    fs::write(scratch.at("archive"), future).unwrap();
    let error = scratch.refuses(ErrorKind::Unsupported, "future");
    assert!(error.message().contains("version 2"), "{error}");
    // The same manifest at any length.
    let short = with_manifest(&good, text.trim());
    scratch.import_bytes(&short).unwrap();
}

#[test]
fn what_is_no_archive_of_this_kind_is_refused() {
    let scratch = Scratch::new();
    let archive = scratch.at("archive");
    let mut microvm = zstd::encode_all(&b"manifest.json"[..], 3).unwrap();
    microvm.resize(2000, 0);
    fs::write(&archive, microvm).unwrap();
    let error = scratch.refuses(ErrorKind::InvalidArgument, "of a micro-VM");
    assert!(error.message().contains("micro-VM"), "{error}");
    let good = scratch.export();
    // Another entry first, last, or in another's place; other kinds of entries.
    let header = |name: &str, kind: tar::EntryType, size: u64| {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let regular = tar::EntryType::Regular;
    let layer_header = usize::try_from(layer_start(SAID) - BLOCK).unwrap();
    let (before, after) = good.split_at(layer_header);
    let hostile = [
        [&header("other", regular, 0)[..], &good].concat(),
        [before, &header("other", regular, 0), after].concat(),
        [
            &good[..good.len() - 1024],
            &header("other", regular, 0),
            &[0; 1024],
        ]
        .concat(),
        [&good[..], &good].concat(),
        [&header(MANIFEST, tar::EntryType::Symlink, 0)[..], after].concat(),
        [
            before,
            &header(LAYER, tar::EntryType::Link, 0),
            &after[512..],
        ]
        .concat(),
        [before, &header(LAYER, regular, 1 << 32), &after[512..]].concat(),
        [before, &header(LAYER, regular, u64::MAX), &after[512..]].concat(),
        [&header(MANIFEST, regular, u64::MAX)[..], &good[512..]].concat(),
    ];
    for (index, bytes) in hostile.iter().enumerate() {
        fs::write(&archive, bytes).unwrap();
        scratch.refuses(ErrorKind::Corrupt, &format!("case {index}"));
    }
    fs::remove_file(&archive).unwrap();
    scratch.refuses(ErrorKind::NotFound, "missing");
    fs::create_dir(&archive).unwrap();
    scratch.refuses(ErrorKind::InvalidArgument, "folder");
    fs::remove_dir(&archive).unwrap();
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &archive,
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )
    .unwrap();
    scratch.refuses(ErrorKind::InvalidArgument, "pipe");
}

/// Kind, name, link and content.
type InnerEntry<'a> = (tar::EntryType, &'a str, &'a str, &'a [u8]);

/// A tar with one entry of any name after another.
fn inner(entries: &[InnerEntry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, link, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn layers_that_lead_outside_are_refused() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let scratch = Scratch::new();
    let outside = scratch.at("canary");
    let outside = outside.to_str().unwrap();
    let parent = scratch.folder.path().to_str().unwrap();
    let long = "x".repeat(98);
    let attribute = b"39 SCHILY.xattr.user.overlay.redirect=/\n";
    let attribute = (tar::EntryType::XHeader, "x", "", &attribute[..]);
    let hostile: &[&[InnerEntry<'_>]] = &[
        &[(Regular, "../../canary", "", b"dead")],
        &[(Regular, "a/../../../canary", "", b"dead")],
        &[(Regular, outside, "", b"dead")],
        &[(Directory, "..", "", b"")],
        &[
            (Symlink, "l", parent, b""),
            (Regular, "l/canary", "", b"dead"),
        ],
        &[
            (Symlink, "l", "../..", b""),
            (Regular, "l/canary", "", b"dead"),
        ],
        &[(Symlink, "l", outside, b""), (Regular, "l", "", b"dead")],
        &[(Link, "l", outside, b""), (Regular, "l", "", b"dead")],
        &[(Link, "l", "../../canary", b"")],
        &[(Regular, "f", "", b""), (Regular, "f/canary", "", b"")],
        &[(Symlink, ".", "/", b"")],
        &[attribute, (Directory, "d", "", b"")],
    ];
    for (index, entries) in hostile.iter().enumerate() {
        let tar = inner(entries);
        write(&scratch.at("archive"), |stream| {
            stream.write_all(&tar).unwrap();
            Ok(())
        })
        .unwrap();
        scratch.refuses(ErrorKind::Corrupt, &format!("case {index}"));
    }
    // Links that lead nowhere from here are the sandbox's own affair.
    let tar = inner(&[
        (Symlink, "l", "/etc/passwd", b""),
        (Regular, &long, "", b""),
    ]);
    write(&scratch.at("archive"), |stream| {
        stream.write_all(&tar).unwrap();
        Ok(())
    })
    .unwrap();
    scratch.import().unwrap();
}

#[test]
fn what_unpacks_to_too_much_or_to_no_tar_is_refused() {
    let scratch = Scratch::new();
    let archive = scratch.at("archive");
    let zeros = vec![0; 1 << 20];
    // A file that is longer than the archive, and one that never ends.
    let mut endless = tar::Header::new_ustar();
    endless.set_path("large").unwrap();
    endless.set_size(1 << 40);
    endless.set_mode(0o644);
    endless.set_cksum();
    for (megabytes, what) in [(1, "longer than there is"), (64, "a bomb")] {
        write(&archive, |stream| {
            stream.write_all(endless.as_bytes()).unwrap();
            for _ in 0..megabytes {
                stream.write_all(&zeros).unwrap();
            }
            Ok(())
        })
        .unwrap();
        scratch.refuses(ErrorKind::Corrupt, what);
    }
    // A bomb that tells less than it is.
    let large = inner(&[(tar::EntryType::Regular, "large", "", &vec![1; 16 << 20])]);
    write(&archive, |stream| {
        stream.write_all(&large).unwrap();
        Ok(())
    })
    .unwrap();
    let bytes = fs::read(&archive).unwrap();
    let told = format!("\"bytes\":{},", large.len());
    let text = manifest(&bytes).replace(&told, "\"bytes\":2048,");
    fs::write(&archive, with_manifest(&bytes, &text)).unwrap();
    scratch.refuses(ErrorKind::Corrupt, "tells less");
    for content in [&b""[..], b"no tar", &[7; 4096]] {
        write(&archive, |stream| {
            stream.write_all(content).unwrap();
            Ok(())
        })
        .unwrap();
        scratch.refuses(ErrorKind::Corrupt, &format!("{} bytes", content.len()));
    }
    // More than any disk has, and as well packed as can be.
    let mut layer = Layer {
        file: LAYER.to_owned(),
        bytes: 0,
        compressed_bytes: 1 << 33,
        sha256: String::new(),
    };
    layer.bytes = layer.compressed_bytes * EXPANSION_LIMIT;
    let place = Place {
        disk: &scratch.at("disk"),
        image: &scratch.at("image"),
        marks: Marks::User,
        id_base: None,
        limit_bytes: 1 << 60,
    };
    let contents = Contents {
        session: Vec::new(),
        layer,
        layer_start: layer_start(SAID),
    };
    let file = File::open(&archive).unwrap();
    let upper = Upper {
        path: scratch.at("image"),
        marks: place.marks,
    };
    let bad = unpack_layer(&file, &contents, &place, &upper, &tell_nobody())
        .err()
        .unwrap();
    assert_eq!(bad.told(&archive).kind(), ErrorKind::ResourceExhausted);
}

#[test]
fn an_export_that_fails_leaves_nothing() {
    let scratch = Scratch::new();
    let folder = scratch.at("exports");
    fs::create_dir(&folder).unwrap();
    let archive = folder.join("archive");
    let failed = write(&archive, |stream| {
        stream.write_all(&[1; 100_000]).unwrap();
        Err(Error::new(ErrorKind::ResourceExhausted, "full"))
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::ResourceExhausted);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    let (layers, image) = ([scratch.at("layer")], scratch.at("image"));
    let error = export(&layers, &image, &folder, id_base()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IsADirectory, "{error}");
    let error = export(&layers, &image, &folder.join("no/archive"), id_base()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // What is there already is replaced, and a link to it is followed and stays.
    fs::write(folder.join("other"), "replaced").unwrap();
    symlink("other", &archive).unwrap();
    export(&layers, &image, &archive, id_base()).unwrap();
    assert!(archive.is_symlink());
    assert_ne!(fs::read(folder.join("other")).unwrap(), b"replaced");
    assert_eq!(fs::metadata(&archive).unwrap().mode() & 0o777, 0o600);
    // A disk that no machine was booted from.
    fs::create_dir(scratch.at("new")).unwrap();
    export(
        &[scratch.at("new")],
        &image,
        &scratch.at("archive"),
        id_base(),
    )
    .unwrap();
    scratch.import().unwrap();
}
