//! Hostile archives of sessions: they ask for what is the importer's to give, and hold more than they may.
//!
//! Those of namespaces, whose format is Blink's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blink_core::{ErrorKind, IsolationChoice, Session};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Image, Layer, Server, digest, say, tar_of};
use crate::support::{TestBlink, blink, fails, isolation, ok};

const MIB: u64 = 1 << 20;

struct Scene {
    blink: TestBlink,
    folder: TempDir,
}

impl Scene {
    /// `None` for an engine whose archives are others.
    async fn new() -> Option<Scene> {
        if isolation() != IsolationChoice::Namespace {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let blink = blink().await;
        Some(Scene { blink, folder })
    }

    /// An archive that says this of its session, with an empty disk.
    fn saying(&self, session: &Value) -> PathBuf {
        self.archive(session.to_string().as_bytes(), &tar(&[]))
    }

    fn archive(&self, session: &[u8], layer: &[u8]) -> PathBuf {
        let packed = zstd::encode_all(layer, 1).unwrap();
        let sum = |content: &[u8]| digest(content).replace("sha256:", "");
        let manifest = json!({
            "format": "blink-namespace",
            "version": 1,
            "session": { "file": "session.json", "sha256": sum(session) },
            "layers": [{
                "file": "layers/0000.tar.zst",
                "bytes": layer.len(),
                "compressed_bytes": packed.len(),
                "sha256": sum(&packed),
            }],
        });
        let manifest = manifest.to_string().into_bytes();
        let files = [
            ("manifest.json", manifest.as_slice()),
            ("session.json", session),
            ("layers/0000.tar.zst", &packed),
        ];
        let path = self.folder.path().join("hostile.boxlite");
        fs::write(&path, tar(&files)).unwrap();
        path
    }

    async fn import(&self, archive: &Path) -> Session {
        ok(self.blink.session("one").import(archive)).await
    }

    async fn refused(&self, kind: ErrorKind, archive: &Path) -> String {
        let error = fails(kind, self.blink.session("one").import(archive)).await;
        self.has_nothing();
        error.message().to_owned()
    }

    fn has_nothing(&self) {
        for folder in ["layers", "sandboxes"] {
            let entries = fs::read_dir(self.blink.home().join(folder));
            let left: Vec<_> = entries.into_iter().flatten().flatten().collect();
            let left: Vec<_> = left.iter().filter(|entry| entry.path().is_dir()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// What an honest archive says.
fn session() -> Value {
    json!({
        "version": 1, "image": "host", "digest": null,
        "resources": { "cpus": null, "memory_mib": null, "disk_mib": 10240, "processes": 1024 },
        "env": [], "current_dir": null, "user": null, "labels": {}, "idle_stop": null, "warm": false,
    })
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut session = session();
    for (path, value) in changes {
        *session.pointer_mut(path).unwrap() = value.clone();
    }
    session
}

fn declined(session: &Session) -> Vec<&str> {
    let mut options: Vec<_> = session.declined().iter().map(|one| one.option).collect();
    options.sort_unstable();
    options
}

#[tokio::test]
async fn nothing_is_given_beyond_the_importers_limits() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let greedy = scene.saying(&with(&[
        ("/resources/processes", json!(1_000_000)),
        ("/resources/disk_mib", json!(u64::MAX)),
        ("/resources/cpus", json!(1e300)),
        ("/warm", json!(true)),
    ]));
    let session = scene.import(&greedy).await;
    let info = session.info().await;
    assert_eq!(info.resources.processes, 1024);
    assert_eq!(info.resources.disk_mib, 10 * 1024);
    assert_eq!(info.resources.cpus, None);
    assert!(!info.warm && !info.running);
    assert_eq!(
        declined(&session),
        ["cpus", "disk_mib", "processes", "warm"]
    );
    let disk = session
        .declined()
        .iter()
        .find(|one| one.option == "disk_mib")
        .unwrap();
    assert_eq!(
        (disk.asked.as_str(), disk.given.as_str()),
        ("18446744073709551615", "10240")
    );
    ok(session.remove()).await;

    // What the importer says holds, in either direction and also where it is the default.
    for (mib, processes) in [(64, 64), (10 * 1024, 1024), (20 * 1024, 2048)] {
        for asked in [8, 1_000_000] {
            let archive = scene.saying(&with(&[
                ("/resources/processes", json!(asked)),
                ("/resources/disk_mib", json!(asked)),
                ("/resources/memory_mib", json!(asked)),
                ("/resources/cpus", json!(0.25)),
                ("/idle_stop", json!({ "secs": 7, "nanos": 0 })),
            ]));
            let importing = scene
                .blink
                .session("one")
                .disk_mib(mib)
                .processes(processes);
            let importing = importing
                .memory_mib(512)
                .cpus(0.5)
                .idle_stop(Duration::from_secs(9));
            let session = ok(importing.import(&archive)).await;
            let info = session.info().await;
            assert_eq!(info.resources.disk_mib, mib, "{asked}");
            assert_eq!(info.resources.processes, processes, "{asked}");
            assert_eq!(info.resources.memory_mib, Some(512), "{asked}");
            assert_eq!(info.resources.cpus, Some(0.5), "{asked}");
            assert_eq!(info.idle_stop, Some(Duration::from_secs(9)));
            ok(session.remove()).await;
        }
    }

    // Less than the defaults is what it has.
    let modest = scene.saying(&with(&[
        ("/resources/processes", json!(100)),
        ("/resources/disk_mib", json!(50)),
        ("/resources/memory_mib", json!(64)),
        ("/resources/cpus", json!(0.25)),
        ("/idle_stop", json!({ "secs": 7, "nanos": 0 })),
    ]));
    let session = scene.import(&modest).await;
    let info = session.info().await;
    assert_eq!(
        (info.resources.processes, info.resources.disk_mib),
        (100, 50)
    );
    assert_eq!(
        (info.resources.memory_mib, info.resources.cpus),
        (Some(64), Some(0.25))
    );
    assert_eq!(info.idle_stop, Some(Duration::from_secs(7)));
    assert!(session.declined().is_empty(), "{:?}", session.declined());
}

#[tokio::test]
async fn nobody_is_asked_for_an_image_because_an_archive_names_it() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let registry = Server::start(|_| say("404 Not Found", &[], b""));
    let image = Image::of(&[Layer::plain(&tar_of("file", b"content"))]);
    let name = registry.name("/team/app:v1");
    for name in [
        name.clone(),
        format!("{name}@{}", image.digest()),
        "./folder".to_owned(),
        "a\" b".to_owned(),
    ] {
        let archive = scene.saying(&with(&[
            ("/image", json!(name)),
            ("/digest", json!(image.digest())),
        ]));
        let message = scene.refused(ErrorKind::ImageUnavailable, &archive).await;
        for part in [image.digest().as_str(), "blink pull", "--image"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(registry.requests().is_empty(), "{:?}", registry.requests());
        // The importer's own choice, also where it is the default.
        let session = ok(scene.blink.session("one").image("host").import(&archive)).await;
        assert_eq!(session.info().await.image, "host");
        assert_eq!(declined(&session), ["image"]);
        ok(session.remove()).await;
    }
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
    let archive = scene.saying(&with(&[
        ("/image", json!(name)),
        ("/digest", json!(image.digest())),
    ]));
    let message = scene.refused(ErrorKind::ImageUnavailable, &archive).await;
    assert!(
        message.contains(&format!("127.0.0.1:{}/team/app", registry.port)),
        "{message}"
    );

    // Where it is stored, it is used, whatever the archive calls it.
    let layout = scene.folder.path().join("layout");
    image.write(&layout);
    ok(scene.blink.pull(layout.to_str().unwrap()).run()).await;
    let session = scene.import(&archive).await;
    assert!(!session.info().await.running);
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
}

#[tokio::test]
async fn what_no_session_can_have_been_is_corrupt() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let long = "x".repeat(100_000);
    let labels: serde_json::Map<_, _> = (0..5000).map(|at| (at.to_string(), json!(""))).collect();
    let changes = [
        ("/resources/processes", json!(0)),
        ("/resources/processes", json!(-1)),
        ("/resources/disk_mib", json!(0)),
        ("/resources/disk_mib", json!(1e30)),
        ("/resources/memory_mib", json!(0)),
        ("/resources/cpus", json!(0)),
        ("/resources/cpus", json!(-1)),
        ("/env", json!([["A=B", "1"]])),
        ("/env", json!([["", "1"]])),
        ("/env", json!([["A", "1\u{0}"]])),
        ("/env", json!(vec![["A", "1"]; 10_000])),
        ("/labels", json!(labels)),
        ("/labels", json!({ "a": long })),
        ("/user", json!(long)),
        ("/user", json!("root\nx")),
        ("/current_dir", json!(long)),
        ("/image", json!(long)),
        ("/image", json!("\u{1b}[2J")),
        ("/image", json!("/etc")),
        ("/digest", json!("sha256:../../../x")),
        (
            "/idle_stop",
            json!({ "secs": u64::MAX, "nanos": 999_999_999 }),
        ),
        (
            "/idle_stop",
            json!({ "secs": u64::MAX, "nanos": 1_000_000_000 }),
        ),
        ("/idle_stop", json!({ "secs": 0, "nanos": 0 })),
        ("/warm", json!("yes")),
        ("/version", json!(0.5)),
    ];
    for change in changes {
        let archive = scene.saying(&with(std::slice::from_ref(&change)));
        let message = scene.refused(ErrorKind::Corrupt, &archive).await;
        assert!(
            message.len() < 1000 && !message.contains('\u{1b}'),
            "{message}"
        );
    }
    let mut more = session();
    for (field, value) in [
        (
            "mounts",
            json!([{ "host": "/", "guest": "/host", "read_only": false }]),
        ),
        ("network", json!("Host")),
        ("publish", json!([])),
        ("isolation", json!("microvm")),
        ("detached", json!(true)),
    ] {
        more[field] = value;
        scene
            .refused(ErrorKind::Corrupt, &scene.saying(&more))
            .await;
        more.as_object_mut().unwrap().remove(field);
    }
}

/// What is compressed to nothing is not unpacked to more than the session's disk may hold.
#[tokio::test]
async fn a_disk_holds_no_more_than_the_session_may() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let session = with(&[("/resources/disk_mib", json!(u64::MAX))]).to_string();
    let full = tar(&[("file", &vec![7; 9 << 20])]);
    let archive = scene.archive(session.as_bytes(), &full);
    assert!(fs::metadata(&archive).unwrap().len() < MIB);
    let importing = || scene.blink.session("one").disk_mib(8);
    let error = fails(ErrorKind::ResourceExhausted, importing().import(&archive)).await;
    assert!(error.message().contains("--disk-mib"), "{error}");
    scene.has_nothing();
    let session_of_full = ok(importing().disk_mib(10).import(&archive)).await;
    ok(session_of_full.remove()).await;

    // Zeros take no room, and may still not be read for ever.
    for (zeros, is_taken) in [(32_usize << 20, true), (136 << 20, false)] {
        let archive = scene.archive(session.as_bytes(), &tar(&[("file", &vec![0; zeros])]));
        match is_taken {
            true => ok(ok(importing().import(&archive)).await.remove()).await,
            false => {
                fails(ErrorKind::ResourceExhausted, importing().import(&archive)).await;
                scene.has_nothing();
            }
        }
    }
    // More files than the disk has room for.
    let mut many = tar::Builder::new(Vec::new());
    for at in 0..21_000 {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o600);
        many.append_data(&mut header, format!("{at}"), std::io::empty())
            .unwrap();
    }
    let archive = scene.archive(session.as_bytes(), &many.into_inner().unwrap());
    let importing = scene.blink.session("one").disk_mib(1);
    let error = fails(ErrorKind::ResourceExhausted, importing.import(&archive)).await;
    assert!(error.message().contains("--disk-mib"), "{error}");
    scene.has_nothing();
}
