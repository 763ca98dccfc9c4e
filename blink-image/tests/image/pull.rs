//! Images from a real registry: what is fetched, when, and from where.

use std::error::Error as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use blink_image::{
    ImageError, ImageErrorKind, ImageStore, PullOptions, PullPolicy, PullProgress, RegistryOptions,
    StoredImage,
};
use serde_json::Value;

use crate::builder::{LayerTar, Layout, StoredLayer, architecture, for_platform};
use crate::registry::{Answer, PASSWORD, Proxy, Registry, Setup, USER, free_port, say};
use crate::support::{Arena, assert_flattened, base, runtime, upper};

/// Brings an image from a registry, asking it in any case.
pub(crate) fn pull(
    store: &ImageStore,
    name: &str,
    registry: RegistryOptions,
) -> Result<StoredImage, ImageError> {
    let options = PullOptions::default()
        .with_policy(PullPolicy::Always)
        .with_registry(registry);
    get(store, name, &options)
}

pub(crate) fn get(
    store: &ImageStore,
    name: &str,
    options: &PullOptions,
) -> Result<StoredImage, ImageError> {
    let source = name.parse().unwrap();
    runtime().block_on(store.obtain(&source, options, &|_| {}))
}

pub(crate) fn plain() -> RegistryOptions {
    RegistryOptions::default()
}

impl Arena {
    /// An image with a base and an upper layer, as [`assert_flattened`] expects, in a registry.
    pub(crate) fn put(&self, registry: &Registry, name: &str, tag: &str) -> Value {
        let layers = [
            StoredLayer::gzip(base()),
            StoredLayer::new(&upper().end(), "+zstd"),
        ];
        self.put_layers(registry, name, tag, &layers)
    }

    pub(crate) fn put_layers(
        &self,
        registry: &Registry,
        name: &str,
        tag: &str,
        layers: &[StoredLayer],
    ) -> Value {
        let layout = Layout::new(self.path(&format!("made-{tag}")));
        let image = layout.image(layers, architecture());
        registry.put(name, tag, &layout, &image);
        image
    }
}

fn assert_unpacks(store: &ImageStore, image: &StoredImage) {
    assert_flattened(&store.rootfs(image, &|_| {}).unwrap());
}

/// A layer of so many bytes that no compression makes smaller.
pub(crate) fn noise(bytes: usize) -> StoredLayer {
    let mut state = 1_u64;
    let content: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_le_bytes()[7]
        })
        .collect();
    StoredLayer::new(
        &LayerTar::new().file_with("noise", 0o644, 0, &content).end(),
        "",
    )
}

#[test]
fn what_was_pulled_is_there_without_the_registry() {
    let arena = Arena::new();
    let registry = Registry::start();
    let made = arena.put(&registry, "team/app", "v1");
    let name = registry.name("team/app:v1");
    let store = arena.store();
    let image = get(&store, &name, &PullOptions::default()).unwrap();
    assert_eq!(image.reference.as_deref(), Some(name.as_str()));
    assert_eq!(image.digest, made["digest"].as_str().unwrap());
    assert_eq!(image.config.entrypoint, ["/bin/run"]);
    assert_unpacks(&store, &image);
    drop(registry);
    for policy in [PullPolicy::Missing, PullPolicy::Never] {
        let options = PullOptions::default().with_policy(policy);
        assert_eq!(get(&arena.store(), &name, &options).unwrap(), image);
    }
    assert_eq!(store.list().unwrap(), [image]);
    arena.assert_no_leftovers();
}

#[test]
fn the_image_for_this_machine_is_taken() {
    let arena = Arena::new();
    let registry = Registry::start();
    let layout = Layout::new(arena.path("made"));
    let other = layout.image(
        &[StoredLayer::gzip(LayerTar::new().file("x", ""))],
        "riscv64",
    );
    let mine = layout.image(
        &[StoredLayer::gzip(base()), StoredLayer::gzip(upper())],
        architecture(),
    );
    let index = layout.nested_index(&[
        for_platform(other.clone(), "riscv64"),
        for_platform(mine.clone(), architecture()),
    ]);
    registry.put("app", "many", &layout, &index);
    registry.put(
        "app",
        "other",
        &layout,
        &layout.nested_index(&[for_platform(other, "riscv64")]),
    );
    let store = arena.store();
    let image = pull(&store, &registry.name("app:many"), plain()).unwrap();
    assert_eq!(image.digest, mine["digest"].as_str().unwrap());
    assert_unpacks(&store, &image);
    // Also by the digest of the index, which names what it names for ever.
    let pinned = registry.name(&format!("app@{}", index["digest"].as_str().unwrap()));
    assert_eq!(pull(&store, &pinned, plain()).unwrap().digest, image.digest);
    let error = pull(&store, &registry.name("app:other"), plain()).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("linux/riscv64"), "{error}");
}

#[test]
fn progress_reaches_the_whole() {
    let arena = Arena::new();
    let registry = Registry::start();
    arena.put_layers(
        &registry,
        "app",
        "v1",
        &[noise(3_000_000), StoredLayer::gzip(base())],
    );
    let told = Mutex::new(Vec::<PullProgress>::new());
    let source = registry.name("app:v1").parse().unwrap();
    let tell = |progress| told.lock().unwrap().push(progress);
    runtime()
        .block_on(
            arena
                .store()
                .obtain(&source, &PullOptions::default(), &tell),
        )
        .unwrap();
    let told = told.into_inner().unwrap();
    let last = told.last().unwrap();
    assert_eq!(
        (last.bytes_done, last.layer, last.layers),
        (last.bytes_total, 2, 2)
    );
    assert!(last.bytes_total > 3_000_000);
    assert!(
        told.windows(2)
            .all(|pair| pair[0].bytes_done <= pair[1].bytes_done)
    );
}

#[test]
fn a_tag_that_moves_is_followed_when_asked() {
    let arena = Arena::new();
    let registry = Registry::start();
    let name = registry.name("app:v1");
    let store = arena.store();
    arena.put_layers(&registry, "app", "v1", &[noise(200_000)]);
    let old = pull(&store, &name, plain()).unwrap();
    store.rootfs(&old, &|_| {}).unwrap();
    arena.put(&registry, "app", "v1");
    assert_eq!(
        get(&store, &name, &PullOptions::default()).unwrap().digest,
        old.digest
    );
    let new = pull(&store, &name, plain()).unwrap();
    assert_ne!(new.digest, old.digest);
    assert_eq!(
        get(&store, &name, &PullOptions::default()).unwrap().digest,
        new.digest
    );
    // What it was stays until a prune, without a name.
    let names: Vec<_> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|image| (image.reference, image.digest))
        .collect();
    assert!(names.contains(&(None, old.digest.clone())), "{names:?}");
    let removed = store.prune().unwrap();
    assert_eq!(removed.digests, [old.digest]);
    assert!(removed.freed_bytes >= 400_000, "{removed:?}");
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&new));
    assert_unpacks(&store, &new);
    assert_eq!(store.prune().unwrap().freed_bytes, 0);
}

#[test]
fn what_is_shared_is_fetched_once() {
    let arena = Arena::new();
    let registry = Registry::start();
    let proxy = Proxy::start(registry.port, |_, _| Answer::Pass);
    let shared = noise(100_000);
    arena.put_layers(&registry, "app", "v1", std::slice::from_ref(&shared));
    arena.put_layers(
        &registry,
        "app",
        "v2",
        &[shared.clone(), StoredLayer::gzip(base())],
    );
    let store = arena.store();
    pull(&store, &proxy.name("app:v1"), plain()).unwrap();
    let image = pull(&store, &proxy.name("app:v2"), plain()).unwrap();
    let hex = shared.digest.strip_prefix("sha256:").unwrap();
    let fetched = proxy.blob_requests();
    assert_eq!(
        fetched
            .iter()
            .filter(|request| request.path.contains(hex))
            .count(),
        1
    );
    // What the other image needs stays.
    store.remove(&proxy.name("app:v1")).unwrap();
    store.rootfs(&image, &|_| {}).unwrap();
}

#[test]
fn what_is_not_there_is_not_found() {
    let arena = Arena::new();
    let registry = Registry::start();
    arena.put(&registry, "app", "v1");
    for rest in ["app:v2", "other:v1"] {
        let error = pull(&arena.store(), &registry.name(rest), plain()).unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(rest), "{error}");
    }
    let missing = registry.name(&format!("app@{}", crate::builder::digest(b"nothing")));
    let error = pull(&arena.store(), &missing, plain()).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::NotFound, "{error}");
    arena.assert_no_leftovers();
}

#[test]
fn a_registry_that_is_down_is_told_in_seconds() {
    let arena = Arena::new();
    let begun = Instant::now();
    let name = format!("127.0.0.1:{}/app:v1", free_port());
    let error = pull(&arena.store(), &name, plain()).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
    for part in [
        &name,
        "--image host",
        "docker save",
        "OCI layout",
        "--mirror",
        "refused",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // Down to the system call, and without an address, in which there may be a secret.
    let causes: Vec<_> = std::iter::successors(error.source(), |&cause| cause.source()).collect();
    let io = causes.last().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(io.kind(), io::ErrorKind::ConnectionRefused, "{causes:?}");
    assert!(
        !causes
            .iter()
            .any(|cause| cause.to_string().contains("http://")),
        "{causes:?}"
    );
    // One that takes connections and says nothing.
    let silent = Proxy::start(0, |_, _| Answer::Silence);
    let error = pull(&arena.store(), &silent.name("app:v1"), plain()).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn offline_asks_nobody() {
    let arena = Arena::new();
    let registry = Registry::start();
    arena.put(&registry, "app", "v1");
    let proxy = Proxy::start(registry.port, |_, _| Answer::Pass);
    let never = PullOptions::default().with_policy(PullPolicy::Never);
    let error = get(&arena.store(), &proxy.name("app:v1"), &never).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable);
    for part in ["app:v1", "offline", "blink pull", "--image host"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(proxy.requests().is_empty());
}

#[test]
fn a_registry_with_a_password() {
    let arena = Arena::new();
    let registry = Registry::start_with(&Setup {
        password: true,
        ..Setup::default()
    });
    arena.put(&registry, "app", "v1");
    let name = registry.name("app:v1");
    let host = format!("127.0.0.1:{}", registry.port);
    let nobody = plain().with_docker_config(arena.path("config.json"));
    let error = pull(&arena.store(), &name, nobody.clone()).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
    assert!(error.to_string().contains("docker login"), "{error}");
    let wrong = plain().with_credentials(&host, USER, "wrong");
    let error = pull(&arena.store(), &name, wrong).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let given = plain().with_credentials(&host, USER, PASSWORD);
    pull(&arena.store(), &name, given).unwrap();
    let kept = serde_json::json!({ "auths": { host: { "username": USER, "password": PASSWORD } } });
    fs::write(arena.path("config.json"), kept.to_string()).unwrap();
    let image = pull(&Arena::new().store(), &name, nobody).unwrap();
    assert_eq!(image.reference, Some(name));
}

#[test]
fn a_registry_that_wants_a_token() {
    let arena = Arena::new();
    let registry = Registry::start();
    arena.put(&registry, "team/app", "v1");
    let expected = format!("Basic {}", base64(&format!("{USER}:{PASSWORD}")));
    let tokens = Proxy::start(0, move |request, _| {
        let is_asked = request
            .path
            .contains("scope=repository%3Ateam%2Fapp%3Apull")
            && request.path.contains("service=here");
        match request.header("authorization") {
            _ if !is_asked => say("400 Bad Request", &[], ""),
            Some(given) if given == expected => say("200 OK", &[], r#"{"token":"s3cret"}"#),
            Some(_) => say("401 Unauthorized", &[], ""),
            None => say("200 OK", &[], r#"{"access_token":"anonymous"}"#),
        }
    });
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{}/token\",service=\"here\"",
        tokens.port
    );
    let guard = Proxy::start(registry.port, move |request, _| {
        match request.header("authorization") {
            Some("Bearer s3cret") => Answer::Pass,
            Some(_) => say("403 Forbidden", &[], r#"{"errors":[{"code":"DENIED"}]}"#),
            None => say("401 Unauthorized", &[&challenge], ""),
        }
    });
    let host = format!("127.0.0.1:{}", guard.port);
    let name = guard.name("team/app:v1");
    let login = |password| plain().with_credentials(&host, USER, password);
    let image = pull(&arena.store(), &name, login(PASSWORD)).unwrap();
    assert_unpacks(&arena.store(), &image);
    // One token is enough for all.
    assert_eq!(tokens.requests().len(), 1);
    for (options, part) in [
        (login("wrong"), "refuses the credentials"),
        (plain().with_docker_config("/nowhere"), "DENIED"),
    ] {
        let error = pull(&arena.store(), &name, options).unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Writes an authority, and a certificate and key by it for 127.0.0.1.
fn make_certificates(folder: &Path) -> [std::path::PathBuf; 3] {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority = authority.self_signed(&authority_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &authority, &authority_key)
        .unwrap();
    let files = ["ca.pem", "certificate.pem", "key.pem"].map(|name| folder.join(name));
    fs::write(&files[0], authority.pem()).unwrap();
    fs::write(&files[1], certificate.pem()).unwrap();
    fs::write(&files[2], key.serialize_pem()).unwrap();
    files
}

#[test]
fn a_registry_with_an_authority_of_its_own() {
    let arena = Arena::new();
    let [authority, certificate, key] = make_certificates(arena.folder.path());
    let registry = Registry::start_with(&Setup {
        tls: Some((&certificate, &key)),
        ..Setup::default()
    });
    arena.put(&registry, "app", "v1");
    let name = registry.name("app:v1");
    let error = pull(&arena.store(), &name, plain()).unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
    assert!(error.to_string().contains("--registry-ca"), "{error}");
    let trusting = plain().with_ca_file(&authority);
    let image = pull(&arena.store(), &name, trusting).unwrap();
    assert_unpacks(&arena.store(), &image);
    for wrong in [arena.path("missing.pem"), arena.path("canary")] {
        let error = pull(&arena.store(), &name, plain().with_ca_file(&wrong)).unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::InvalidArgument, "{error}");
        assert!(
            error.to_string().contains(wrong.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_mirror_is_asked_first_and_the_registry_after_it() {
    let arena = Arena::new();
    let (mirror, origin) = (Registry::start(), Registry::start());
    arena.put(&mirror, "app", "v1");
    arena.put(&origin, "app", "v1");
    arena.put_layers(&origin, "app", "v2", &[StoredLayer::gzip(base())]);
    let front = Proxy::start(origin.port, |_, _| Answer::Pass);
    let of = format!("127.0.0.1:{}", front.port);
    let mirrored = plain()
        .with_mirror(&of, format!("http://127.0.0.1:{}", free_port()))
        .with_mirror(&of, format!("http://127.0.0.1:{}", mirror.port));
    let image = pull(&arena.store(), &front.name("app:v1"), mirrored.clone()).unwrap();
    assert_eq!(image.reference, Some(front.name("app:v1")));
    assert!(front.requests().is_empty());
    pull(&arena.store(), &front.name("app:v2"), mirrored.clone()).unwrap();
    assert!(!front.requests().is_empty());
    // Nobody has it: everybody is named.
    let error = pull(&arena.store(), &front.name("app:v3"), mirrored).unwrap_err();
    for port in [mirror.port, front.port] {
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}

#[test]
fn a_mirror_that_lies_is_passed_over() {
    let arena = Arena::new();
    let registry = Registry::start();
    arena.put(&registry, "app", "v1");
    let liar = Proxy::start(registry.port, |request, _| match request.is_blob() {
        true => Answer::Alter(3),
        false => Answer::Pass,
    });
    let of = format!("127.0.0.1:{}", registry.port);
    let mirrored = plain().with_mirror(of, format!("http://127.0.0.1:{}", liar.port));
    let image = pull(&arena.store(), &registry.name("app:v1"), mirrored).unwrap();
    assert_unpacks(&arena.store(), &image);
    assert!(!liar.blob_requests().is_empty());
}
