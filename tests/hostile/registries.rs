//! Hostile registries: they lead elsewhere for credentials, and send too much, too little, or too slowly.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use blink_image::{
    IdMap, ImageError, ImageErrorKind, ImageStore, PullOptions, PullPolicy, RegistryOptions,
    StoredImage,
};
use serde_json::json;
use tempfile::TempDir;

use crate::server::{Answer, Image, Layer, Request, Server, digest, head, say, tar_of};
use crate::support::within;

const USER: &str = "alice";
const PASSWORD: &str = "correct horse";

/// What `alice` and her password are in a header.
const BASIC: &str = "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==";

struct Store {
    folder: TempDir,
    store: ImageStore,
}

impl Store {
    fn new() -> Store {
        let folder = tempfile::tempdir().unwrap();
        let ids = IdMap {
            uid_base: 0,
            single: true,
        };
        let store = ImageStore::open(folder.path().join("images"), ids).unwrap();
        Store { folder, store }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    async fn pull(&self, name: &str, registry: RegistryOptions) -> Result<StoredImage, ImageError> {
        let options = PullOptions::default()
            .with_policy(PullPolicy::Always)
            .with_registry(registry);
        let source = name.parse().unwrap();
        within(self.store.obtain(&source, &options, &|_| {})).await
    }

    /// What is stored, or was begun.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for folder in ["blobs/sha256", "downloads", "rootfs", "layouts"] {
            left.extend(names(&self.at("images").join(folder)));
        }
        let begun = names(&self.at("images"));
        left.extend(begun.into_iter().filter(|name| name.starts_with("tmp-")));
        left
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn image() -> Image {
    Image::of(&[Layer::plain(&tar_of("file", b"content"))])
}

fn login(server: &Server) -> RegistryOptions {
    RegistryOptions::default().with_credentials(server.name(""), USER, PASSWORD)
}

fn basic_challenge() -> Answer {
    let header = "WWW-Authenticate: Basic realm=\"x\"".to_owned();
    say("401 Unauthorized", &[header], b"")
}

fn bearer_challenge(realm: &str) -> Answer {
    let header = format!(
        "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:other:push\""
    );
    say("401 Unauthorized", &[header], b"")
}

fn redirect(status: &str, to: &str) -> Answer {
    say(status, &[format!("Location: {to}")], b"")
}

/// What only the registry may be told, wherever it is.
fn knows(server: &Server) -> bool {
    let secrets = [
        "correct horse",
        "correct+horse",
        "YWxpY2U6",
        "t0ken",
        "r3fresh",
    ];
    server.requests().iter().any(|request| {
        let all = format!("{request:?}");
        secrets.iter().any(|secret| all.contains(secret))
    })
}

const REDIRECTIONS: [&str; 5] = [
    "301 Moved Permanently",
    "302 Found",
    "303 See Other",
    "307 Temporary Redirect",
    "308 Permanent Redirect",
];

/// The one of the issue: A leads to B, and B asks for the password, in each way that there is.
#[tokio::test]
async fn who_a_registry_leads_to_is_told_nothing() {
    for status in REDIRECTIONS {
        for of_blobs in [false, true] {
            for bearer in [false, true] {
                let thief = Server::start(|_| say("200 OK", &[], br#"{"token":"t0ken"}"#));
                let realm = thief.url("/token");
                let other = Server::start(move |_| match bearer {
                    true => bearer_challenge(&realm),
                    false => basic_challenge(),
                });
                let (served, to) = (image(), other.url(""));
                let registry = Server::start(move |request| {
                    if request.path.contains("/blobs/") == of_blobs {
                        return redirect(status, &format!("{to}{}", request.path));
                    }
                    match request.header("authorization") {
                        Some(BASIC) => served.answer(request),
                        _ => basic_challenge(),
                    }
                });
                let store = Store::new();
                let name = registry.name("/app:v1");
                let error = store.pull(&name, login(&registry)).await.unwrap_err();
                assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
                assert!(!error.to_string().contains(PASSWORD), "{error}");
                assert!(!other.requests().is_empty(), "{status} was not followed");
                assert!(!knows(&other), "{status} {:?}", other.requests());
                assert!(thief.requests().is_empty(), "{:?}", thief.requests());
            }
        }
    }
}

/// As registries lead to where their blobs are, which works, and where a token is nobody's affair.
#[tokio::test]
async fn a_store_of_blobs_is_asked_without_a_token() {
    for status in REDIRECTIONS {
        let served = image();
        let blobs = Server::start({
            let served = served.clone();
            move |request| match request.header("authorization") {
                None => served.answer(request),
                Some(_) => say("400 Bad Request", &[], b""),
            }
        });
        let tokens = Server::start(|_| say("200 OK", &[], br#"{"token":"t0ken"}"#));
        let (realm, to) = (tokens.url("/token"), blobs.url(""));
        let registry = Server::start(move |request| {
            match request.header("authorization") {
                Some("Bearer t0ken") => {}
                _ => return bearer_challenge(&realm),
            }
            match request.path.strip_prefix("/v2/moved/blobs/") {
                // A path of its own first, with the token.
                Some(rest) => redirect(status, &format!("/v2/here/blobs/{rest}")),
                None if request.path.contains("/blobs/") => {
                    redirect(status, &format!("{to}{}", request.path))
                }
                None => served.answer(request),
            }
        });
        let store = Store::new();
        let name = registry.name("/moved:v1");
        store.pull(&name, login(&registry)).await.unwrap();
        assert!(!knows(&blobs), "{:?}", blobs.requests());
        let asked = tokens.requests();
        assert_eq!(asked[0].header("authorization"), Some(BASIC));
        // For what is wanted, and not for what a challenge would like.
        assert!(asked[0].path.contains("scope=repository%3Amoved%3Apull"));
        assert!(!asked[0].path.contains("push"), "{asked:?}");
    }
}

#[tokio::test]
async fn a_way_back_to_the_registry_is_no_way_to_its_token() {
    let served = image();
    let own = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let back = own.clone();
    let other = Server::start(move |_| redirect("307 Temporary Redirect", back.get().unwrap()));
    let to = other.url("/");
    let registry = Server::start(move |request| match request.header("authorization") {
        _ if request.path == "/private" => served.answer(request),
        Some(BASIC) if request.path.contains("/blobs/") => redirect("302 Found", &to),
        Some(BASIC) => served.answer(request),
        _ => basic_challenge(),
    });
    own.set(registry.url("/private")).unwrap();
    let store = Store::new();
    let pulled = store.pull(&registry.name("/a:v1"), login(&registry)).await;
    assert!(pulled.is_err());
    let requests = registry.requests();
    let last = requests
        .iter()
        .find(|request| request.path == "/private")
        .unwrap();
    assert_eq!(last.header("authorization"), None, "{last:?}");
}

#[tokio::test]
async fn a_token_server_keeps_what_it_was_told_to_itself() {
    for status in REDIRECTIONS {
        for refresh in [false, true] {
            let other = Server::start(|_| say("200 OK", &[], br#"{"token":"t0ken"}"#));
            let to = other.url("/token");
            let tokens = Server::start(move |_| redirect(status, &to));
            let realm = tokens.url("/token");
            let registry = Server::start(move |_| bearer_challenge(&realm));
            let store = Store::new();
            let config = store.at("config.json");
            let auth = match refresh {
                true => json!({ "identitytoken": "r3fresh" }),
                false => json!({ "username": USER, "password": PASSWORD }),
            };
            let auths = json!({ "auths": { registry.name(""): auth } });
            fs::write(&config, auths.to_string()).unwrap();
            let options = RegistryOptions::default().with_docker_config(&config);
            let error = store.pull(&registry.name("/a:v1"), options).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
            assert!(knows(&tokens), "{:?}", tokens.requests());
            assert!(other.requests().is_empty(), "{:?}", other.requests());
        }
    }
}

#[tokio::test]
async fn a_token_for_a_token_goes_in_a_form() {
    let served = image();
    let tokens = Server::start(|request| match request.method.as_str() {
        "POST" => say("200 OK", &[], br#"{"access_token":"t0ken"}"#),
        _ => say("400 Bad Request", &[], b""),
    });
    let realm = tokens.url("/token");
    let registry = Server::start(move |request| match request.header("authorization") {
        Some("Bearer t0ken") => served.answer(request),
        _ => bearer_challenge(&realm),
    });
    let store = Store::new();
    let config = store.at("config.json");
    let auths = json!({ "auths": { registry.name(""): { "identitytoken": "r3fresh" } } });
    fs::write(&config, auths.to_string()).unwrap();
    let options = RegistryOptions::default().with_docker_config(&config);
    store.pull(&registry.name("/a:v1"), options).await.unwrap();
    let asked = tokens.requests();
    assert!(asked[0].body.contains("refresh_token=r3fresh"), "{asked:?}");
    assert!(!asked[0].path.contains("r3fresh"), "{asked:?}");
}

#[tokio::test]
async fn a_mirror_is_not_told_the_credentials_of_the_registry() {
    let mirror = Server::start(|_| basic_challenge());
    let served = image();
    let registry = Server::start(move |request| match request.header("authorization") {
        Some(BASIC) => served.answer(request),
        _ => basic_challenge(),
    });
    let options = login(&registry).with_mirror(registry.name(""), mirror.url(""));
    let store = Store::new();
    store.pull(&registry.name("/a:v1"), options).await.unwrap();
    assert!(!mirror.requests().is_empty());
    assert!(!knows(&mirror), "{:?}", mirror.requests());
}

/// Docker's keys for other hosts and ports are for other registries.
#[tokio::test]
async fn credentials_of_another_port_are_anothers() {
    let registry = Server::start(|_| basic_challenge());
    let store = Store::new();
    let config = store.at("config.json");
    let auth = json!({ "username": USER, "password": PASSWORD });
    let keys = [
        "127.0.0.1".to_owned(),
        "127.0.0.1:1".to_owned(),
        "http://127.0.0.1".to_owned(),
        format!("localhost:{}", registry.port),
        "*".to_owned(),
        "*.0.0.1".to_owned(),
        format!("127.0.0.1:{}/other", registry.port),
        "https://index.docker.io/v1/".to_owned(),
    ];
    let auths: serde_json::Map<_, _> = keys.map(|key| (key, auth.clone())).into_iter().collect();
    fs::write(&config, json!({ "auths": auths }).to_string()).unwrap();
    let options = RegistryOptions::default().with_docker_config(&config);
    store
        .pull(&registry.name("/a:v1"), options)
        .await
        .unwrap_err();
    assert!(!knows(&registry), "{:?}", registry.requests());
}

#[tokio::test]
async fn redirections_without_end_are_an_error() {
    let registry = Server::start(|request| redirect("302 Found", &format!("{}x", request.path)));
    let store = Store::new();
    let error = store
        .pull(&registry.name("/a:v1"), RegistryOptions::default())
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
    assert!(
        registry.requests().len() < 20,
        "{}",
        registry.requests().len()
    );
    for to in [
        "",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://",
        "http://u:p@127.0.0.1/",
        "\u{ff}",
    ] {
        let to = to.to_owned();
        let registry = Server::start(move |_| redirect("302 Found", &to));
        let error = store
            .pull(&registry.name("/a:v1"), RegistryOptions::default())
            .await;
        assert_eq!(error.unwrap_err().kind(), ImageErrorKind::ImageUnavailable);
        let requests = registry.requests();
        assert!(
            requests
                .iter()
                .all(|request| request.header("authorization").is_none())
        );
    }
}

/// Not a test by itself: `PATH` and the environment are a process's own.
#[tokio::test]
async fn helper_that_asks_a_credential_helper() {
    let Ok(name) = std::env::var("BLINK_TEST_HELPED_PULL") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let config = std::env::var("BLINK_TEST_HELPED_CONFIG").unwrap();
    let options = RegistryOptions::default().with_docker_config(config);
    let blink = blink_core::Blink::builder()
        .home(home.path())
        .with_registry(options);
    let blink = blink.build().await.unwrap();
    let outcome = match blink.pull(&name).run().await {
        Ok(_) => "pulled".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("outcome: {outcome}");
}

fn helped(registry: &Server, folder: &Path, config: &serde_json::Value) -> String {
    let path = folder.join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    let paths = std::env::var("PATH").unwrap_or_default();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "registries::helper_that_asks_a_credential_helper",
            "--exact",
            "--nocapture",
        ])
        .env("BLINK_TEST_HELPED_PULL", registry.name("/a:v1"))
        .env("BLINK_TEST_HELPED_CONFIG", path)
        .env("PATH", format!("{}:{paths}", folder.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.split_once("outcome: "));
    line.unwrap_or_else(|| panic!("{said}")).1.to_owned()
}

#[test]
fn credential_helpers_that_misbehave() {
    let folder = tempfile::tempdir().unwrap();
    let helper = |name: &str, script: &str| {
        let path = folder.path().join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let served = image();
    let registry = Server::start(move |request| match request.header("authorization") {
        Some(BASIC) => served.answer(request),
        _ => basic_challenge(),
    });
    let of = registry.name("");
    let answer = |server: &str| {
        json!({ "ServerURL": server, "Username": USER, "Secret": PASSWORD }).to_string()
    };
    helper(
        "good",
        &format!(
            "read server; test \"$server\" = {of} || exit 1; echo '{}'",
            answer(&of)
        ),
    );
    helper(
        "bare",
        &format!("echo '{}'", json!({ "Username": USER, "Secret": PASSWORD })),
    );
    helper("wrong", &format!("echo '{}'", answer("other.example")));
    helper("port", &format!("echo '{}'", answer("127.0.0.1:1")));
    helper("huge", "exec head -c 2000000 /dev/zero");
    helper("text", "echo nonsense");
    helper("fails", "printf 'no\\033[2J such luck'; exit 1");
    helper(
        "none",
        "echo 'credentials not found in native keychain'; exit 1",
    );
    let outside = folder.path().join("evil");
    fs::write(&outside, "#!/bin/sh\ntouch \"$0.ran\"\n").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, words) in [
        ("good", "pulled"),
        ("bare", "pulled"),
        ("wrong", "other.example"),
        ("port", "127.0.0.1:1'"),
        ("huge", "65536 bytes"),
        ("text", "cannot be understood"),
        ("fails", "such luck"),
        ("none", "docker login"),
        ("../evil", "no name of a credential helper"),
        ("x/../../evil", "no name of a credential helper"),
        ("a b", "no name of a credential helper"),
        ("missing", "could not be"),
    ] {
        for config in [
            json!({ "credHelpers": { of.clone(): name } }),
            json!({ "credsStore": name }),
        ] {
            let outcome = helped(&registry, folder.path(), &config);
            assert!(
                outcome.contains(words) || (name == "missing" && outcome != "pulled"),
                "{name}: {outcome}"
            );
            assert!(
                !outcome.contains('\u{1b}') && !outcome.contains(PASSWORD),
                "{outcome}"
            );
        }
    }
    assert!(!folder.path().join("evil.ran").exists());
    // One for another registry is not started.
    helper("other", "touch \"$0.ran\"");
    let config = json!({ "credHelpers": { "127.0.0.1": "other", "127.0.0.1:1": "other" } });
    helped(&registry, folder.path(), &config);
    assert!(!folder.path().join("docker-credential-other.ran").exists());
}

/// 1 byte every now and then, where the manifest promises more.
#[tokio::test]
async fn a_download_that_drips_is_given_up() {
    let layer = Layer::plain(&tar_of("file", &[7; 100_000]));
    for what in ["manifest", "blob"] {
        let served = Image::of(std::slice::from_ref(&layer));
        let registry = Server::start(move |request| {
            let is_layer = served.is_layer(request);
            match what {
                "blob" if is_layer => Answer::Drip(head()),
                "manifest" if request.path.contains("/manifests/") => Answer::Drip(head()),
                _ => served.answer(request),
            }
        });
        let store = Store::new();
        let options = RegistryOptions::default().with_slowest(10_000, Duration::from_millis(300));
        let error = store
            .pull(&registry.name("/a:v1"), options)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::ImageUnavailable, "{error}");
        // What came can be taken up, is no more than was promised, and goes with a prune.
        for name in names(&store.at("images/downloads")) {
            let length = fs::metadata(store.at("images/downloads").join(name))
                .unwrap()
                .len();
            assert!(length <= layer.size);
        }
        store.store.prune().unwrap();
        assert_eq!(store.left(), [""; 0]);
    }
}

#[tokio::test]
async fn more_than_an_image_may_have_is_not_begun() {
    let layer = Layer::plain(&tar_of("file", b"content"));
    for size in [60 << 30, (16 << 30) + 1, i64::MAX as u64, u64::MAX] {
        let served = Image::of(&[layer.clone().claiming(size)]);
        let registry = Server::start(move |request| match served.is_layer(request) {
            true => Answer::Endless(head()),
            false => served.answer(request),
        });
        let store = Store::new();
        let name = registry.name("/a:v1");
        let error = store
            .pull(&name, RegistryOptions::default())
            .await
            .unwrap_err();
        assert!(error.is_for_size(), "{size}: {error}");
        let asked = registry.requests();
        assert!(
            asked
                .iter()
                .all(|request| !request.path.contains(&digest(&layer.stored)))
        );
        assert_eq!(store.left(), [""; 0], "{size}");
    }
}

trait ForSize {
    fn is_for_size(&self) -> bool;
}

impl ForSize for ImageError {
    /// `Corrupt` where it is no size at all.
    fn is_for_size(&self) -> bool {
        matches!(
            self.kind(),
            ImageErrorKind::ResourceExhausted | ImageErrorKind::Corrupt
        )
    }
}

/// Bodies that are not what their manifest or their own header says.
#[tokio::test]
async fn bodies_that_lie_leave_nothing() {
    let layer = Layer::plain(&tar_of("file", &[7; 200_000]));
    let second = Layer::plain(&tar_of("other", b"content"));
    let length = |length: u64| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
            .into_bytes()
    };
    type Lie = Box<dyn Fn(&Layer) -> Answer + Send + Sync>;
    let lies: Vec<(&str, Lie)> = vec![
        ("endless", Box::new(|_| Answer::Endless(head()))),
        (
            "longer",
            Box::new(move |layer| Answer::Endless(length(layer.size + 1))),
        ),
        (
            "far longer",
            Box::new(move |_| Answer::Endless(length(1 << 50))),
        ),
        (
            "shorter",
            Box::new(move |layer| {
                let mut answer = length(layer.size - 1);
                answer.extend(&layer.stored[1..]);
                Answer::Say(answer)
            }),
        ),
        (
            "other",
            Box::new(move |layer| {
                let mut answer = length(layer.size);
                answer.extend(vec![1; layer.stored.len()]);
                Answer::Say(answer)
            }),
        ),
    ];
    for (what, lie) in lies {
        let (served, lied) = (Image::of(&[second.clone(), layer.clone()]), layer.clone());
        let of_layer = digest(&layer.stored);
        let registry = Server::start(move |request| match request.path.contains(&of_layer) {
            true => lie(&lied),
            false => served.answer(request),
        });
        let store = Store::new();
        let name = registry.name("/a:v1");
        let error = store
            .pull(&name, RegistryOptions::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ImageErrorKind::Corrupt, "{what}: {error}");
        assert_eq!(store.left(), [""; 0], "{what}");
        assert!(store.store.list().unwrap().is_empty());
    }
}

/// Of two images that share a layer, the one that is refused does not take the other's.
#[tokio::test]
async fn what_others_need_stays() {
    let shared = Layer::plain(&tar_of("shared", &[7; 10_000]));
    let good = Image::of(std::slice::from_ref(&shared));
    let liar = Layer::plain(&tar_of("liar", b"x"));
    let bad = Image::of(&[shared.clone(), liar.clone()]);
    let registry = Server::start(move |request: &Request| {
        if request.path.contains(&digest(&liar.stored)) {
            return Answer::Endless(head());
        }
        match request.path.contains("/bad/") {
            true => bad.answer(request),
            false => good.answer(request),
        }
    });
    let store = Store::new();
    let options = RegistryOptions::default;
    let image = store
        .pull(&registry.name("/good:v1"), options())
        .await
        .unwrap();
    let before = store.left();
    store
        .pull(&registry.name("/bad:v1"), options())
        .await
        .unwrap_err();
    assert_eq!(store.left(), before);
    store.store.rootfs(&image, &|_| {}).unwrap();
}

#[tokio::test]
async fn more_layers_or_words_than_anybody_needs_are_refused() {
    let layer = Layer::plain(&tar_of("file", b"content"));
    let many = Image::of(&vec![layer.clone(); 10_000]);
    let served = many.clone();
    let registry = Server::start(move |request| served.answer(request));
    let store = Store::new();
    let error = store
        .pull(&registry.name("/a:v1"), RegistryOptions::default())
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ImageErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("layers"), "{error}");
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| !request.path.contains("/blobs/"))
    );
    assert_eq!(store.left(), [""; 0]);
    // A manifest that is longer than any, and one without end.
    for endless in [false, true] {
        let registry = Server::start(move |_| match endless {
            true => Answer::Endless(head()),
            false => say("200 OK", &[], &vec![b' '; 5 << 20]),
        });
        let error = store
            .pull(&registry.name("/a:v1"), RegistryOptions::default())
            .await;
        assert_eq!(error.unwrap_err().kind(), ImageErrorKind::Corrupt);
        assert_eq!(store.left(), [""; 0]);
    }
}
