//! Hostile images in folders and tars: made to fill disks, or to be read for ever.

use std::fs;
use std::io::Write;
use std::path::Path;

use blink_core::{Blink, Error, ErrorKind};
use serde_json::json;
use tempfile::TempDir;

use crate::server::{Image, Layer, bomb, digest, tar_of};
use crate::support::{fails, isolation, ok, within};

const MIB: u64 = 1 << 20;

struct Home {
    folder: TempDir,
    blink: Blink,
}

impl Home {
    /// Images may have so many bytes.
    async fn with_limit(bytes: u64) -> Home {
        let folder = tempfile::tempdir().unwrap();
        let blink = Blink::builder()
            .home(folder.path().join("home"))
            .isolation(isolation())
            .image_limit_bytes(bytes);
        let blink = ok(blink.build()).await;
        Home { folder, blink }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    async fn refused(&self, image: &Path, kind: ErrorKind) -> Error {
        let image = image.to_str().unwrap();
        let error = fails(kind, self.blink.pull(image).run()).await;
        self.has_nothing();
        error
    }

    /// Nothing is stored, unpacked, or half there.
    fn has_nothing(&self) {
        assert_eq!(self.left(&["blobs/sha256", "downloads"]), [""; 0]);
        self.has_nothing_unpacked();
    }

    fn has_nothing_unpacked(&self) {
        assert_eq!(self.left(&["rootfs", "layouts", "downloads"]), [""; 0]);
        let begun = self.left(&[""]);
        assert!(
            begun.iter().all(|name| !name.starts_with("tmp-")),
            "{begun:?}"
        );
    }

    fn left(&self, folders: &[&str]) -> Vec<String> {
        let mut left = Vec::new();
        for folder in folders {
            let entries = fs::read_dir(self.at("home/images").join(folder)).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
        }
        left
    }
}

#[tokio::test]
async fn what_unpacks_to_more_than_allowed_is_not_kept() {
    let home = Home::with_limit(32 * MIB).await;
    let image = home.at("bomb");
    // Each fits; together they do not.
    Image::of(&[bomb(24 * MIB), Layer::plain(&tar_of("file", &[7; 9 << 20]))]).write(&image);
    let sandbox = home.blink.sandbox().image(image.to_str().unwrap());
    let error = fails(ErrorKind::ResourceExhausted, sandbox.create()).await;
    assert!(error.message().contains("--image-limit-bytes"), "{error}");
    home.has_nothing_unpacked();
    // With a larger limit, it is an image like any other.
    let blink = Blink::builder()
        .home(home.at("home"))
        .isolation(isolation())
        .image_limit_bytes(64 * MIB);
    let blink = ok(blink.build()).await;
    ok(blink.pull(image.to_str().unwrap()).run()).await;
}

#[tokio::test]
async fn what_is_stored_as_more_than_allowed_is_not_read() {
    let home = Home::with_limit(MIB).await;
    let image = home.at("large");
    Image::of(&[Layer::plain(&tar_of("file", &[7; 1 << 20]))]).write(&image);
    let error = home.refused(&image, ErrorKind::ResourceExhausted).await;
    assert!(error.message().contains("image_limit_bytes"), "{error}");
    // What only claims to be so large is not read either, nor what is larger than any disk.
    for size in [60 << 30, u64::from(u32::MAX), i64::MAX as u64] {
        let image = home.at(&format!("claims-{size}"));
        Image::of(&[Layer::plain(&tar_of("file", b"x")).claiming(size)]).write(&image);
        home.refused(&image, ErrorKind::ResourceExhausted).await;
    }
    let none = Blink::builder().home(home.at("home")).image_limit_bytes(0);
    fails(ErrorKind::InvalidArgument, none.build()).await;
}

#[tokio::test]
async fn a_layer_that_lies_leaves_nothing() {
    let home = Home::with_limit(MIB).await;
    let honest = Layer::plain(&tar_of("file", b"content"));
    for size in [honest.size - 1, honest.size + 1, 0] {
        let image = home.at(&format!("lies-{size}"));
        let first = Layer::plain(&tar_of("first", b"x"));
        Image::of(&[first, honest.clone().claiming(size)]).write(&image);
        home.refused(&image, ErrorKind::Corrupt).await;
    }
}

/// A tar as a whole, plain or compressed, with files of zeros or more of them than anybody needs.
#[tokio::test]
async fn archives_that_are_bombs_leave_nothing() {
    let home = Home::with_limit(8 * MIB).await;
    let large = home.at("large.tar");
    fs::write(&large, tar_of("blobs/x", &vec![0; 9 << 20])).unwrap();
    let error = home.refused(&large, ErrorKind::ResourceExhausted).await;
    assert!(error.message().contains("large.tar"), "{error}");
    let packed = home.at("packed.tar");
    fs::write(&packed, bomb(256 * MIB).stored).unwrap();
    assert!(fs::metadata(&packed).unwrap().len() < MIB);
    home.refused(&packed, ErrorKind::ResourceExhausted).await;
    let many = home.at("many.tar");
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    for at in 0..17_000 {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{at}"), std::io::empty())
            .unwrap();
    }
    fs::write(&many, tar.into_inner().unwrap().finish().unwrap()).unwrap();
    home.refused(&many, ErrorKind::ResourceExhausted).await;
}

/// One file, named for thousands of layers: it would be read as often.
#[tokio::test]
async fn an_archive_of_docker_save_with_too_many_layers_is_refused() {
    let home = Home::with_limit(64 * MIB).await;
    let path = home.at("saved.tar");
    let layer = tar_of("file", &vec![7; 4 << 20]);
    let diff_id = digest(&layer);
    let save = |count: usize| {
        let configuration = json!({
            "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", _ => "arm64" },
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": vec![diff_id.clone(); count] },
        });
        let manifest = json!([{ "Config": "config.json", "Layers": vec!["layer.tar"; count] }]);
        let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, content) in [
            ("config.json", configuration.to_string().into_bytes()),
            ("manifest.json", manifest.to_string().into_bytes()),
            ("layer.tar", layer.clone()),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content.as_slice())
                .unwrap();
        }
        tar.into_inner().unwrap().flush().unwrap();
    };
    save(10_000);
    let error = home.refused(&path, ErrorKind::Corrupt).await;
    assert!(error.message().contains("layers"), "{error}");
    // As many as are allowed are one file, and counted as what they are.
    save(1000);
    home.refused(&path, ErrorKind::ResourceExhausted).await;
    save(3);
    within(home.blink.pull(path.to_str().unwrap()).run())
        .await
        .unwrap();
}
