//! The commands about images as their users meet them, with a real registry.

#[path = "../../blink-image/tests/image/builder.rs"]
#[allow(
    dead_code,
    reason = "shared with the library's tests, which use all of it"
)]
mod builder;
#[path = "../../blink-image/tests/image/registry.rs"]
#[allow(
    dead_code,
    reason = "shared with the library's tests, which use all of it"
)]
mod registry;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use builder::{LayerTar, Layout, StoredLayer, architecture};
use registry::{Answer, PASSWORD, Proxy, Registry, Setup, USER};
use serde_json::{Value, json};

/// What a sandbox runs that has nothing else in its image.
const HELLO: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    printf("hello from %s\n", argc > 1 ? argv[1] : "nobody");
    fflush(stdout);
    if (argc > 2) sleep(1000);
    return 0;
}
"#;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn blink(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blink"));
        command
            .args(arguments)
            .env("BLINK_HOME", self.path("home"))
            .env("DOCKER_CONFIG", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in ["OFFLINE", "MIRRORS", "INSECURE_REGISTRIES", "REGISTRY_CA"] {
            command.env_remove(format!("BLINK_{name}"));
        }
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.blink(arguments).output().unwrap()
    }

    /// What a command that succeeds says.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.says(arguments);
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Expects Blink's own failure, as a person and as a program see it.
    fn fails(&self, arguments: &[&str], kind: &str) -> String {
        let output = self.output(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&line["event"], &line["kind"]),
            (&json!("error"), &json!(kind)),
            "{line}"
        );
        let message = line["message"].as_str().unwrap().to_owned();
        assert!(said(&output).contains(&message));
        message
    }

    /// An image whose one program says hello.
    fn layout(&self, name: &str) -> (Layout, Value) {
        let (source, program) = (self.path("hello.c"), self.path("hello"));
        fs::write(&source, HELLO).unwrap();
        let built = Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .args([&program, &source])
            .status();
        assert!(built.unwrap().success());
        let layer = LayerTar::new()
            .folder("bin/", 0o755)
            .file_with("bin/hello", 0o755, 0, &fs::read(program).unwrap())
            .folder("work/", 0o777)
            .folder("tmp/", 0o1777)
            .file("name", name);
        let layout = Layout::new(self.path(&format!("layout-{name}")));
        let image = layout.image(&[StoredLayer::gzip(layer)], architecture());
        layout.index(std::slice::from_ref(&image));
        (layout, image)
    }

    fn put(&self, registry: &Registry, name: &str, tag: &str) -> String {
        let (layout, image) = self.layout(&format!("{name}-{tag}"));
        registry.put(name, tag, &layout, &image);
        image["digest"].as_str().unwrap().to_owned()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run<'a>(image: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let begin = [
        "run",
        "--isolation",
        "namespace",
        "--user",
        "0",
        "--image",
        image,
    ];
    [&begin, more].concat()
}

#[test]
fn an_image_is_pulled_run_listed_and_removed() {
    let place = Place::new();
    let registry = Registry::start();
    let digest = place.put(&registry, "team/hello", "v1");
    let name = registry.name("team/hello:v1");
    let pulled = place.json(&["pull", "--json", &name]);
    assert_eq!(
        (&pulled["event"], &pulled["reference"], &pulled["digest"]),
        (&json!("image_pulled"), &json!(name), &json!(digest))
    );
    assert!(pulled["size_bytes"].as_u64().unwrap() > 100_000);
    assert!(place.says(&["pull", &name]).contains(&digest));
    drop(registry);
    for more in [&["--offline"][..], &[]] {
        let arguments = [more, &["--", "/bin/hello", "you"]].concat();
        assert_eq!(place.says(&run(&name, &arguments)), "hello from you\n");
    }
    let list = place.json(&["images", "--json"]);
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(
        (&list[0]["reference"], &list[0]["digest"]),
        (&json!(name), &json!(digest))
    );
    let pulled_at = list[0]["pulled_at"].as_str().unwrap();
    assert!(
        pulled_at.starts_with("20") && pulled_at.ends_with('Z'),
        "{pulled_at}"
    );
    let table = place.says(&["images"]);
    assert!(
        table.contains(&name) && table.contains(&digest[7..19]),
        "{table}"
    );
    let removed = place.json(&["rmi", "--json", &digest[7..19]]);
    assert_eq!(removed["event"], "image_removed");
    assert_eq!(
        (&removed["references"], &removed["digests"]),
        (&json!([name]), &json!([digest]))
    );
    assert!(removed["freed_bytes"].as_u64().unwrap() > 500_000);
    assert_eq!(place.json(&["images", "--json"]), json!([]));
    let message = place.fails(&["rmi", &name], "NotFound");
    assert!(message.contains(&name), "{message}");
}

#[test]
fn run_pulls_what_is_missing_and_nothing_else() {
    let place = Place::new();
    let registry = Registry::start();
    place.put(&registry, "hello", "v1");
    let proxy = Proxy::start(registry.port, |_, _| Answer::Pass);
    let name = proxy.name("hello:v1");
    let arguments = run(&name, &["--", "/bin/hello", "you"]);
    assert_eq!(place.says(&arguments), "hello from you\n");
    let asked = proxy.requests().len();
    assert!(asked > 0);
    assert_eq!(place.says(&arguments), "hello from you\n");
    assert_eq!(proxy.requests().len(), asked);
    place.says(&["pull", &name]);
    assert!(proxy.requests().len() > asked);
}

#[test]
fn what_cannot_be_had_fails_in_seconds_with_the_ways_that_are_left() {
    let place = Place::new();
    let begun = Instant::now();
    let name = format!("127.0.0.1:{}/hello:v1", registry::free_port());
    let message = place.fails(&["pull", &name], "ImageUnavailable");
    for part in [&name, "--image host", "docker save", "OCI layout"] {
        assert!(message.contains(part), "{message}");
    }
    // The default image, where no network may be used.
    let offline = [
        "run",
        "--isolation",
        "namespace",
        "--offline",
        "--json",
        "--",
        "true",
    ];
    let output = place.output(&offline);
    assert_eq!(output.status.code(), Some(125));
    for part in [
        "docker.io/library/alpine:3.20",
        "offline",
        "blink pull",
        "--image host",
    ] {
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    let mut by_environment = place.blink(&["pull", &name]);
    let output = by_environment.env("BLINK_OFFLINE", "1").output().unwrap();
    assert!(said(&output).contains("offline"), "{}", said(&output));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_moved_tag_is_pruned() {
    let place = Place::new();
    let registry = Registry::start();
    let old = place.put(&registry, "hello", "v1");
    let name = registry.name("hello:v1");
    place.says(&["pull", &name]);
    let (layout, image) = place.layout("other");
    registry.put("hello", "v1", &layout, &image);
    place.says(&["pull", &name]);
    let table = place.says(&["images"]);
    assert!(table.contains("<none>"), "{table}");
    let pruned = place.json(&["image", "prune", "--json"]);
    assert_eq!(
        (&pruned["event"], &pruned["digests"]),
        (&json!("images_pruned"), &json!([old]))
    );
    assert_eq!(
        place.json(&["images", "--json"]).as_array().unwrap().len(),
        1
    );
    assert_eq!(
        place.says(&run(&name, &["--", "/bin/hello", "you"])),
        "hello from you\n"
    );
}

#[test]
fn options_and_environment_reach_the_registry() {
    let place = Place::new();
    let registry = Registry::start();
    place.put(&registry, "library/hello", "v1");
    let mirror = format!("docker.io=http://127.0.0.1:{}", registry.port);
    let pulled = place.json(&["pull", "--json", "--mirror", &mirror, "hello:v1"]);
    assert_eq!(pulled["reference"], "docker.io/library/hello:v1");
    place.says(&["rmi", "hello:v1"]);
    let mut by_environment = place.blink(&["pull", "hello:v1"]);
    let output = by_environment
        .env("BLINK_MIRRORS", &mirror)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // Larger than allowed, by the option or the environment.
    for (option, variable) in [("10", None), ("1000000000", Some("10")), ("", Some("10"))] {
        let mut words = vec!["pull", "--mirror", &mirror, "hello:v1"];
        if !option.is_empty() {
            words.extend(["--image-limit-bytes", option]);
        }
        let mut command = place.blink(&words);
        if let Some(variable) = variable {
            command.env("BLINK_IMAGE_LIMIT_BYTES", variable);
        }
        let output = command.output().unwrap();
        let is_larger = option != "1000000000";
        assert_eq!(!output.status.success(), is_larger, "{}", said(&output));
        if is_larger {
            assert!(
                said(&output).contains("--image-limit-bytes"),
                "{}",
                said(&output)
            );
        }
    }
    let host = format!("localhost:{}", registry.port);
    let plain = [
        "pull",
        "--insecure-registry",
        &host,
        &format!("{host}/library/hello:v1"),
    ];
    place.says(&plain);
    for (option, value) in [
        ("--mirror", "docker.io"),
        ("--mirror", "=x"),
        ("--registry-ca", "/nowhere/ca.pem"),
    ] {
        let output = place.output(&["pull", option, value, "hello:v1"]);
        assert_eq!(output.status.code(), Some(125));
        assert!(said(&output).contains(value), "{}", said(&output));
    }
}

#[test]
fn a_credential_helper_of_dockers_is_asked() {
    let place = Place::new();
    let registry = Registry::start_with(&Setup {
        password: true,
        ..Setup::default()
    });
    place.put(&registry, "hello", "v1");
    let host = format!("127.0.0.1:{}", registry.port);
    let name = registry.name("hello:v1");
    let helper = |name: &str, script: &str| {
        let path = place.path(&format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    helper(
        "good",
        &format!(
            r#"[ "$1" = get ] && [ "$(cat)" = {host} ] &&
            echo '{{"ServerURL":"{host}","Username":"{USER}","Secret":"{PASSWORD}"}}'"#
        ),
    );
    helper(
        "empty",
        "echo credentials not found in native keychain; exit 1",
    );
    helper("broken", "echo no key chain here; exit 3");
    let path = format!(
        "{}:{}",
        place.folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let pull = |config: Value| {
        fs::write(place.path("config.json"), config.to_string()).unwrap();
        place
            .blink(&["pull", &name])
            .env("PATH", &path)
            .output()
            .unwrap()
    };
    for (config, part) in [
        (json!({ "credsStore": "empty" }), "docker login"),
        (json!({ "credsStore": "broken" }), "no key chain here"),
        (
            json!({ "credHelpers": { &host: "missing" } }),
            "docker-credential-missing",
        ),
    ] {
        let output = pull(config);
        assert_eq!(output.status.code(), Some(125));
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    for config in [
        json!({ "credsStore": "good", "auths": { &host: {} } }),
        json!({ "credsStore": "broken", "credHelpers": { &host: "good" } }),
    ] {
        let output = pull(config);
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn an_image_in_use_is_not_removed() {
    let place = Place::new();
    let (layout, _) = place.layout("used");
    let path = layout.path.to_str().unwrap().to_owned();
    let digest = place.json(&["pull", "--json", &path])["digest"].clone();
    let digest = digest.as_str().unwrap();
    let mut running = place.blink(&run(&path, &["--", "/bin/hello", "a", "sleeper"]));
    let mut running = running.spawn().unwrap();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(running.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "hello from a");
    let sandbox = only_name(&place.path("home/sandboxes"));
    let message = place.fails(&["rmi", digest], "Busy");
    assert!(message.contains(&sandbox), "{message}");
    assert_eq!(
        place.json(&["image", "prune", "--json"])["digests"],
        json!([])
    );
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    running.wait().unwrap();
    place.says(&["rmi", digest]);
}

fn only_name(folder: &Path) -> String {
    let mut names = fs::read_dir(folder).unwrap();
    let name = names.next().unwrap().unwrap().file_name();
    assert!(names.next().is_none());
    name.into_string().unwrap()
}

#[test]
fn a_pull_ends_with_its_signal_and_goes_on_later() {
    let place = Place::new();
    let registry = Registry::start();
    place.put(&registry, "hello", "v1");
    let proxy = Proxy::start(registry.port, |request, _| match request.is_blob() {
        true => Answer::Slowly(20_000, Duration::from_millis(100)),
        false => Answer::Pass,
    });
    let name = proxy.name("hello:v1");
    for arguments in [vec!["pull", &name], run(&name, &["--", "/bin/hello"])] {
        let asked = proxy.blob_requests().len();
        let mut child = place.blink(&arguments).spawn().unwrap();
        while proxy.blob_requests().len() < asked + 1 {
            assert!(child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(300));
        let pid = rustix::process::Pid::from_child(&child);
        let begun = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(begun.elapsed() < Duration::from_secs(2), "{arguments:?}");
    }
    let quick = format!(
        "127.0.0.1:{}=http://127.0.0.1:{}",
        proxy.port, registry.port
    );
    let arguments = run(&name, &["--mirror", &quick, "--", "/bin/hello", "you"]);
    assert_eq!(place.says(&arguments), "hello from you\n");
}
