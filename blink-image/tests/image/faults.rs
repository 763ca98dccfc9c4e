//! Networks that break, registries that lie, processes that are killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use blink_image::{ImageErrorKind, ImageSource, ImageStore, PullOptions};
use serde_json::{Value, json};

use crate::builder::{self, Layout, StoredLayer, architecture};
use crate::pull::{get, noise, plain, pull};
use crate::registry::{Answer, Proxy, Registry, Request, say};
use crate::support::{Arena, SINGLE, assert_flattened, base, obtain, upper};

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

fn range_of(request: &Request) -> Option<&str> {
    request.header("range")
}

/// Everything in the store is what its name says.
fn assert_sound(images: &Path) {
    for entry in fs::read_dir(images.join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let found = builder::digest(&fs::read(entry.path()).unwrap());
        assert_eq!(hex(&found), entry.file_name().to_str().unwrap());
    }
    if let Ok(list) = fs::read(images.join("images.json")) {
        serde_json::from_slice::<Value>(&list).unwrap();
    }
}

#[test]
fn a_download_that_breaks_goes_on_where_it_was() {
    let arena = Arena::new();
    let registry = Registry::start();
    let layer = noise(3_000_000);
    arena.put_layers(&registry, "app", "v1", std::slice::from_ref(&layer));
    let of_layer = hex(&layer.digest).to_owned();
    let proxy = Proxy::start(registry.port, move |request, _| {
        match (request.path.contains(&of_layer), range_of(request)) {
            (true, None) => Answer::CutAfter(1_000_000),
            (true, Some("bytes=1000000-")) => Answer::CutAfter(500_000),
            _ => Answer::Pass,
        }
    });
    let store = arena.store();
    let image = pull(&store, &proxy.name("app:v1"), plain()).unwrap();
    store.rootfs(&image, &|_| {}).unwrap();
    let ranges: Vec<_> = proxy
        .blob_requests()
        .iter()
        .filter(|request| request.path.contains(hex(&layer.digest)))
        .map(|request| range_of(request).map(str::to_owned))
        .collect();
    let expected = [
        None,
        Some("bytes=1000000-".to_owned()),
        Some("bytes=1500000-".to_owned()),
    ];
    assert_eq!(ranges, expected);
    arena.assert_no_leftovers();
}

#[test]
fn what_a_broken_download_left_is_taken_up_the_next_time() {
    let arena = Arena::new();
    let registry = Registry::start();
    let layer = noise(2_000_000);
    arena.put_layers(&registry, "app", "v1", std::slice::from_ref(&layer));
    let of_layer = hex(&layer.digest).to_owned();
    let proxy = Proxy::start(registry.port, move |request, _| {
        match request.path.contains(&of_layer) {
            true if range_of(request).is_none() => Answer::CutAfter(700_000),
            // The registry is gone behind that.
            true => say("503 Service Unavailable", &["Retry-After: 0"], ""),
            false => Answer::Pass,
        }
    });
    let of = format!("127.0.0.1:{}", registry.port);
    let through = plain().with_mirror(&of, format!("http://127.0.0.1:{}", proxy.port));
    let error = pull(&arena.store(), &proxy.name("app:v1"), plain()).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
    assert_eq!(arena.stored("downloads"), [hex(&layer.digest)]);
    let left = arena.path("images/downloads").join(hex(&layer.digest));
    assert_eq!(fs::metadata(&left).unwrap().len(), 700_000);
    // Another process, and another registry.
    let front = Proxy::start(registry.port, |_, _| Answer::Pass);
    pull(&arena.store(), &front.name("app:v1"), plain()).unwrap();
    let asked: Vec<_> = front.blob_requests();
    assert!(
        asked
            .iter()
            .any(|request| range_of(request) == Some("bytes=700000-")),
        "{asked:?}"
    );
    arena.assert_no_leftovers();
    drop(through);
}

#[test]
fn a_beginning_that_was_wrong_is_fetched_again() {
    let arena = Arena::new();
    let registry = Registry::start();
    let layer = noise(500_000);
    arena.put_layers(&registry, "app", "v1", std::slice::from_ref(&layer));
    let store = arena.store();
    // As a machine may leave it that lost its power.
    let left = arena.path("images/downloads").join(hex(&layer.digest));
    for length in [100_000, layer.size, layer.size + 1] {
        fs::write(&left, vec![0; length]).unwrap();
        pull(&store, &registry.name("app:v1"), plain()).unwrap();
        assert_sound(&arena.path("images"));
        fs::remove_file(arena.path("images/blobs/sha256").join(hex(&layer.digest))).unwrap();
    }
}

#[test]
fn content_that_was_changed_on_the_way_is_not_kept() {
    let arena = Arena::new();
    let registry = Registry::start();
    let layer = noise(300_000);
    let image = arena.put_layers(&registry, "app", "v1", std::slice::from_ref(&layer));
    let proxy = Proxy::start(registry.port, |request, _| match request.is_blob() {
        true => Answer::Alter(42),
        false => Answer::Pass,
    });
    let error = pull(&arena.store(), &proxy.name("app:v1"), plain()).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(arena.stored("blobs/sha256"), [""; 0]);
    arena.assert_no_leftovers();
    // A manifest, where its digest was asked for.
    let proxy = Proxy::start(registry.port, |_, _| Answer::Alter(20));
    let digest = image["digest"].as_str().unwrap();
    let error = pull(
        &arena.store(),
        &proxy.name(&format!("app@{digest}")),
        plain(),
    )
    .unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(digest), "{error}");
    assert!(arena.store().list().unwrap().is_empty());
}

#[test]
fn answers_without_end_are_cut_off() {
    let arena = Arena::new();
    let registry = Registry::start();
    arena.put_layers(&registry, "app", "v1", &[noise(100_000)]);
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let endless_manifest = Proxy::start(registry.port, |request, _| match request.is_manifest() {
        true => Answer::Endless(head.to_vec()),
        false => Answer::Pass,
    });
    let endless_blob = Proxy::start(registry.port, |request, _| match request.is_blob() {
        true => Answer::Endless(head.to_vec()),
        false => Answer::Pass,
    });
    let endless_error = Proxy::start(registry.port, |_, _| {
        Answer::Endless(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n".to_vec())
    });
    let token = Proxy::start(0, |_, _| Answer::Endless(head.to_vec()));
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{}/\"",
        token.port
    );
    let endless_token = Proxy::start(registry.port, move |_, _| {
        say("401 Unauthorized", &[&challenge], "")
    });
    for (proxy, kind) in [
        (endless_manifest, ImageErrorKind::Corrupt),
        (endless_blob, ImageErrorKind::Corrupt),
        (endless_error, ImageErrorKind::NotFound),
        (endless_token, ImageErrorKind::Corrupt),
    ] {
        let begun = Instant::now();
        let error = pull(&arena.store(), &proxy.name("app:v1"), plain()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
    }
    arena.assert_no_leftovers();
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let arena = Arena::new();
    let evil_token = Proxy::start(0, |_, _| {
        say("200 OK", &[], r#"{"token":"a\r\nX-Evil: 1"}"#)
    });
    let realm = |realm: &str| format!("WWW-Authenticate: Bearer realm=\"{realm}\"");
    let evil_realm = realm(&format!("http://127.0.0.1:{}/", evil_token.port));
    let manifest = |body: Value| say("200 OK", &[], &body.to_string());
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": builder::digest(b"x"), "size": 1,
    });
    let both = json!({ "schemaVersion": 2, "manifests": [], "layers": [] });
    let negative = json!({ "schemaVersion": 2, "config": { "mediaType": "x/y", "digest": builder::digest(b""), "size": -1 }, "layers": [layer] });
    let huge_config = json!({ "schemaVersion": 2, "config": { "mediaType": "x/y", "digest": builder::digest(b""), "size": 1_u64 << 40 }, "layers": [] });
    let path_digest = json!({ "schemaVersion": 2, "config": { "mediaType": "x/y", "digest": "sha256:../../../../etc/passwd", "size": 2 }, "layers": [] });
    use ImageErrorKind::{Corrupt, ImageUnavailable, Unsupported};
    let cases: Vec<(Answer, ImageErrorKind)> = vec![
        (
            say("401 Unauthorized", &[&evil_realm], ""),
            ImageUnavailable,
        ),
        (
            say("401 Unauthorized", &[&realm("nonsense")], ""),
            ImageUnavailable,
        ),
        (
            say("401 Unauthorized", &[&realm("file:///etc/passwd")], ""),
            ImageUnavailable,
        ),
        (say("401 Unauthorized", &[], ""), ImageUnavailable),
        (say("500 Internal Server Error", &[], "x"), ImageUnavailable),
        (
            say("302 Found", &["Location: /v2/app/manifests/v1"], ""),
            ImageUnavailable,
        ),
        (say("200 OK", &[], "no json"), Corrupt),
        (say("200 OK", &[], &"[".repeat(100_000)), Corrupt),
        (
            manifest(json!({ "schemaVersion": 1, "fsLayers": [] })),
            Unsupported,
        ),
        (
            manifest(json!({ "schemaVersion": 2, "blobs": [] })),
            Unsupported,
        ),
        (manifest(both), Corrupt),
        (manifest(negative), Corrupt),
        (manifest(huge_config), Corrupt),
        (manifest(path_digest), Corrupt),
        (
            Answer::Say(b"SSH-2.0-OpenSSH\r\n".to_vec()),
            ImageUnavailable,
        ),
        (Answer::Say(Vec::new()), ImageUnavailable),
    ];
    for (index, (answer, kind)) in cases.into_iter().enumerate() {
        let bytes = match answer {
            Answer::Say(bytes) => bytes,
            _ => unreachable!(),
        };
        let proxy = Proxy::start(0, move |_, _| Answer::Say(bytes.clone()));
        let error = pull(&arena.store(), &proxy.name("app:v1"), plain()).unwrap_err();
        assert_eq!(error.kind(), kind, "{index}: {error}");
        assert!(!error.to_string().contains('\n'), "{index}: {error}");
    }
    assert!(arena.store().list().unwrap().is_empty());
    assert_eq!(arena.stored("blobs/sha256"), [""; 0]);
}

#[test]
fn sizes_that_are_wrong_are_seen() {
    let registry = Registry::start();
    let honest = noise(200_000);
    for (tag, size, kind) in [
        ("more", honest.size - 1, ImageErrorKind::Corrupt),
        ("fewer", honest.size + 1, ImageErrorKind::Corrupt),
        ("far-fewer", 1 << 45, ImageErrorKind::ResourceExhausted),
    ] {
        let arena = Arena::new();
        let mut layer = honest.clone();
        layer.size = size;
        arena.put_layers(&registry, "app", tag, &[layer]);
        let begun = Instant::now();
        let error = pull(
            &arena.store(),
            &registry.name(&format!("app:{tag}")),
            plain(),
        )
        .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        assert!(arena.store().list().unwrap().is_empty());
    }
}

/// Not a test by itself: what the tests below run as another process.
#[test]
fn helper_that_pulls() {
    let Ok(home) = std::env::var("BLINK_TEST_PULL_HOME") else {
        return;
    };
    let name = std::env::var("BLINK_TEST_PULL_NAME").unwrap();
    let store = ImageStore::open(PathBuf::from(home).join("images"), SINGLE).unwrap();
    let image = match std::env::var("BLINK_TEST_PULL_MISSING") {
        Ok(_) => get(&store, &name, &PullOptions::default()).unwrap(),
        Err(_) => pull(&store, &name, plain()).unwrap(),
    };
    assert_flattened(&store.rootfs(&image, &|_| {}).unwrap());
    store.layout(&image).unwrap();
}

fn helper(arena: &Arena, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["faults::helper_that_pulls", "--exact", "--nocapture"])
        .env("BLINK_TEST_PULL_HOME", arena.folder.path())
        .env("BLINK_TEST_PULL_NAME", name)
        .stdout(Stdio::null());
    command
}

fn spawn(arena: &Arena, name: &str) -> Child {
    helper(arena, name).spawn().unwrap()
}

fn image_with_noise() -> Vec<StoredLayer> {
    let big = noise(600_000);
    vec![big, StoredLayer::gzip(base()), StoredLayer::gzip(upper())]
}

#[test]
fn processes_that_pull_the_same_image_share_the_work() {
    let arena = Arena::new();
    let registry = Registry::start();
    let proxy = Proxy::start(registry.port, |request, _| match request.is_blob() {
        true => Answer::Slowly(50_000, Duration::from_millis(30)),
        false => Answer::Pass,
    });
    let layers = image_with_noise();
    arena.put_layers(&registry, "app", "v1", &layers);
    let name = proxy.name("app:v1");
    let children: Vec<_> = (0..4).map(|_| spawn(&arena, &name)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    // The layers and the configuration, each once.
    assert_eq!(proxy.blob_requests().len(), layers.len() + 1);
    assert_sound(&arena.path("images"));
    arena.assert_no_leftovers();
    assert_eq!(arena.store().list().unwrap().len(), 1);
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_sound_store() {
    let arena = Arena::new();
    let registry = Registry::start();
    let proxy = Proxy::start(registry.port, |request, _| match request.is_blob() {
        true => Answer::Slowly(60_000, Duration::from_millis(10)),
        false => Answer::Pass,
    });
    arena.put_layers(&registry, "app", "v1", &image_with_noise());
    let name = proxy.name("app:v1");
    // How long a whole one takes here and now, unpacking included.
    let begun = Instant::now();
    assert!(spawn(&arena, &name).wait().unwrap().success());
    let whole = begun.elapsed();
    const KILLS: u32 = 24;
    let mut killed = 0;
    for kill in 0..KILLS {
        if kill % 3 == 0 {
            fs::remove_dir_all(arena.path("images")).unwrap();
        }
        let mut child = spawn(&arena, &name);
        std::thread::sleep(whole * kill / KILLS);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        if arena.path("images/blobs/sha256").exists() {
            assert_sound(&arena.path("images"));
        }
        // What is listed is there, whole.
        let store = arena.store();
        for image in store.list().unwrap() {
            assert!(store.get(&image.digest).unwrap().is_some());
        }
    }
    assert!(killed >= KILLS / 4, "{killed} were killed in time");
    assert!(spawn(&arena, &name).wait().unwrap().success());
    arena.assert_no_leftovers();
    assert_sound(&arena.path("images"));
}

#[test]
fn a_killed_process_is_succeeded_by_whoever_waits() {
    let arena = Arena::new();
    let registry = Registry::start();
    let proxy = Proxy::start(registry.port, |request, _| match request.is_blob() {
        true => Answer::Slowly(50_000, Duration::from_millis(20)),
        false => Answer::Pass,
    });
    let layers = [
        noise(3_000_000),
        StoredLayer::gzip(base()),
        StoredLayer::gzip(upper()),
    ];
    arena.put_layers(&registry, "app", "v1", &layers);
    let name = proxy.name("app:v1");
    let mut first = spawn(&arena, &name);
    while proxy.blob_requests().len() < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut second = spawn(&arena, &name);
    std::thread::sleep(Duration::from_millis(500));
    first.kill().unwrap();
    assert!(!first.wait().unwrap().success());
    assert!(second.wait().unwrap().success());
    // It went on with what the first had.
    assert!(
        proxy
            .blob_requests()
            .iter()
            .any(|request| range_of(request).is_some())
    );
    // The next start removes what the first has left.
    arena.store();
    arena.assert_no_leftovers();
}

#[test]
fn pruning_while_others_pull_takes_nothing_that_they_need() {
    let arena = Arena::new();
    let registry = Registry::start();
    arena.put_layers(&registry, "app", "v1", &image_with_noise());
    let name = registry.name("app:v1");
    for _ in 0..4 {
        let mut child = spawn(&arena, &name);
        let store = arena.store();
        while child.try_wait().unwrap().is_none() {
            store.prune().unwrap();
        }
        assert!(child.wait().unwrap().success());
        store.prune().unwrap();
        let mut again = helper(&arena, &name);
        assert!(
            again
                .env("BLINK_TEST_PULL_MISSING", "1")
                .status()
                .unwrap()
                .success()
        );
        store.remove(&name).unwrap();
        assert_eq!(arena.stored("blobs/sha256"), [""; 0]);
        assert_eq!(arena.stored("rootfs"), [""; 0]);
        assert_eq!(arena.stored("layouts"), [""; 0]);
    }
}

#[test]
fn a_local_image_whose_import_is_killed_leaves_nothing_wrong() {
    let arena = Arena::new();
    let layout = Layout::new(arena.path("layout"));
    let image = layout.image(&[noise(400_000)], architecture());
    layout.index(&[image]);
    let source = ImageSource::parse(arena.path("layout").to_str().unwrap()).unwrap();
    let store = arena.store();
    // As a killed process leaves it.
    let hex = hex(&noise(400_000).digest).to_owned();
    fs::write(arena.path("images/downloads").join(hex), vec![9; 1000]).unwrap();
    let image = obtain(&store, &source).unwrap();
    store.rootfs(&image, &|_| {}).unwrap();
    arena.assert_no_leftovers();
}
