//! `blink pool` as its users meet it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn blink(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_blink"))
            .args(words)
            .env("BLINK_HOME", self.0.path().join("home"))
            .env("BLINK_ISOLATION", "namespace")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn says(&self, words: &[&str]) -> String {
        let output = self.blink(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.says(words)).unwrap()
    }

    fn fails(&self, words: &[&str]) -> String {
        let output = self.blink(words);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Place {
    /// What a test that has failed leaves.
    fn drop(&mut self) {
        self.blink(&["pool", "rm", "workers", "others"]);
    }
}

const HOST: [&str; 2] = ["--image", "host"];

fn exists(pid: u64) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[test]
fn a_pool_is_kept_in_the_background_until_it_is_drained() {
    let place = Place::new();
    let create = [
        "pool",
        "create",
        "workers",
        "--size",
        "2",
        "--warmup",
        "echo warm > /srv/state",
        "--json",
    ];
    let created = place.json(&[&create[..], &HOST].concat());
    assert_eq!(
        (&created["event"], &created["name"]),
        (&"pool_created".into(), &"workers".into())
    );
    assert_eq!((&created["idle"], &created["size"]), (&2.into(), &2.into()));
    let pid = created["pid"].as_u64().unwrap();
    assert!(exists(pid));

    let run = [
        "run",
        "--pool",
        "workers",
        "--hostname",
        "one",
        "--",
        "sh",
        "-c",
        "cat /srv/state; hostname",
    ];
    assert_eq!(place.says(&run), "warm\none\n");
    let listed = place.says(&["pool", "ls"]);
    assert!(
        listed.lines().nth(1).unwrap().starts_with("workers  "),
        "{listed}"
    );
    let listed = place.json(&["pool", "list", "--json"]);
    assert_eq!(listed[0]["name"], "workers");
    let stats = place.json(&["pool", "stats", "workers", "--json"]);
    assert_eq!(stats["hits"], 1);
    assert!(place.says(&["pool", "stats", "workers"]).contains("hits 1"));
    let metrics = place.says(&["pool", "stats", "workers", "--openmetrics"]);
    assert!(metrics.contains("blink_pool_claims_total{pool=\"workers\",outcome=\"hit\"} 1\n"));

    let again = place.fails(&[&["pool", "create", "workers"][..], &HOST].concat());
    assert!(again.contains("another process keeps"), "{again}");
    let other = place.fails(&["run", "--pool", "workers", "--image", "host", "--", "true"]);
    assert!(other.contains("--image"), "{other}");
    assert_eq!(
        place.json(&["pool", "drain", "workers", "--json"])["event"],
        "pool_drained"
    );
    let begun = std::time::Instant::now();
    while exists(pid) && begun.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!exists(pid));
    assert_eq!(place.says(&["pool", "ls", "--json"]), "[]\n");
    let gone = place.fails(&["run", "--pool", "workers", "--", "true"]);
    assert!(gone.contains("blink pool create"), "{gone}");
}

#[test]
fn what_no_pool_can_be_is_told_and_leaves_nothing() {
    let place = Place::new();
    for (options, expected) in [
        (&["--size", "0"][..], "size 0"),
        (&["--size", "2", "--max", "1"], "max 2"),
        (&["--warmup", "echo told >&2; exit 3"], "exit code 3"),
        (&["--prepare", "exit 4"], "exit code 4"),
        (
            &["--prepare", "sleep 1000", "--warmup-timeout", "300ms"],
            "did not end in time",
        ),
        (&["--publish", "0:80"], "published ports"),
        (&["--isolation", "microvm"], "micro"),
    ] {
        let create = [&["pool", "create", "others"][..], &HOST, options].concat();
        let said = place.fails(&create);
        assert!(said.contains(expected), "{options:?}: {said}");
    }
    let json = place.blink(&[
        "pool", "create", "others", "--image", "host", "--size", "0", "--json",
    ]);
    let event: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&event["event"], &event["kind"]),
        (&"error".into(), &"InvalidArgument".into())
    );
    assert!(
        place
            .fails(&["pool", "rm", "others"])
            .contains("no process keeps")
    );
    assert!(place.fails(&["pool", "stats", "../x"]).contains("pool"));
    assert_eq!(place.says(&["pool", "ls", "--json"]), "[]\n");
}

#[test]
fn a_killed_keeper_is_replaced() {
    let place = Place::new();
    let create = [&["pool", "create", "workers", "--json"][..], &HOST].concat();
    let pid = i32::try_from(place.json(&create)["pid"].as_u64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(place.json(&create)["event"], "pool_created");
    assert_eq!(
        place.says(&["run", "--pool", "workers", "--", "echo", "works"]),
        "works\n"
    );
    assert_eq!(
        place.json(&["pool", "rm", "workers", "--json"])["event"],
        "pool_removed"
    );
}
