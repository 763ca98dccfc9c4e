//! Sessions from their opening to their removal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::support::{HOST, Home, said, wait};

#[test]
fn a_session_is_made_once_and_keeps_its_disk() {
    let home = Home::new();
    let mut open = vec!["open", "--name", "a", "--label", "project=demo"];
    open.extend(HOST);
    let opened = home.json(&open);
    assert_eq!(opened["event"], "session_opened");
    assert_eq!(
        (&opened["name"], &opened["isolation"], &opened["created"]),
        (&json!("a"), &json!("namespace"), &json!(true))
    );
    home.shell("a", "echo kept > /var/blink/memory/note");
    // Again, with the same options, and with none.
    assert_eq!(home.json(&open)["created"], false);
    assert_eq!(home.json(&["open", "--name", "a"])["created"], false);
    assert_eq!(home.shell("a", "cat /var/blink/memory/note"), "kept\n");
    let refusal = home.refusal(&["open", "--name", "a", "--memory-mib", "77"]);
    assert_eq!(refusal["kind"], "InvalidArgument");
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .contains("memory_mib is not set, not 77")
    );
    // The default is fine where it is what there is, and is asked for like anything else where it is not.
    assert_eq!(
        home.json(&["open", "--name", "a", "--network", "none"])["created"],
        false
    );
    let mut reaching = vec!["open", "--name", "reaching", "--network", "host"];
    reaching.extend(HOST);
    home.json(&reaching);
    let refusal = home.refusal(&["open", "--name", "reaching", "--network", "none"]);
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .contains("network is host, not none")
    );
    home.json(&["rm", "--name", "reaching"]);
    let refusal = home.refusal(&["open", "--name", "a", "--image", "alpine:3.20"]);
    assert_eq!(refusal["kind"], "InvalidArgument");
    let listed = home.json(&["ls"]);
    assert_eq!(
        (
            &listed[0]["name"],
            &listed[0]["running"],
            &listed[0]["image"]
        ),
        (&json!("a"), &json!(false), &json!("host"))
    );
    assert_eq!(listed[0]["labels"], json!({"project": "demo"}));
    let table = home.says(&["ls"]);
    assert!(
        table.contains("NAME") && table.contains("stopped"),
        "{table}"
    );
}

#[test]
fn a_session_has_what_it_was_made_with() {
    let home = Home::new();
    let shared = home.file("shared.txt", b"from the host\n");
    let mount = format!("{}:/shared.txt:ro", shared.display());
    let mut open = vec![
        "open",
        "--name",
        "a",
        "--env",
        "COLOR=blue",
        "--workdir",
        "/usr",
    ];
    open.extend([
        "--mount",
        &mount,
        "--memory-mib",
        "300",
        "--idle-stop",
        "10m",
    ]);
    open.extend(["--publish", "0:8000"]);
    open.extend(HOST);
    home.says(&open);
    assert_eq!(
        home.shell("a", "echo $COLOR; pwd; cat /shared.txt"),
        "blue\n/usr\nfrom the host\n"
    );
    let output = home.output(&["run", "--name", "a", "--", "true"]);
    assert!(said(&output).contains("port 8000"), "{}", said(&output));
    let known = home.json(&["inspect", "--name", "a"]);
    assert_eq!(known["event"], "session_inspected");
    assert_eq!(
        (
            &known["resources"]["memory_mib"],
            &known["idle_stop_ms"],
            &known["network"]
        ),
        (&json!(300), &json!(600_000), &json!("none"))
    );
    let (host, guest) = mount.split_once(':').unwrap();
    let guest = guest.trim_end_matches(":ro");
    assert_eq!(
        known["mounts"],
        json!([{"host": host, "guest": guest, "read_only": mount.ends_with(":ro")}])
    );
    let page = home.says(&["inspect", "--name", "a"]);
    for words in ["300 MiB", "namespace", "10 minutes", &mount] {
        assert!(page.contains(words), "{page}");
    }
}

#[test]
fn what_outlives_a_command_needs_a_warm_session() {
    let home = Home::with(&["a", "warm"]);
    for arguments in [
        &["spawn", "--name", "a", "--", "true"][..],
        &["start", "--name", "a"],
    ] {
        let refusal = home.refusal(arguments);
        assert_eq!(refusal["kind"], "InvalidArgument");
        assert!(refusal["message"].as_str().unwrap().contains("--warm"));
    }
    let stopped = home.json(&["stop", "--name", "warm"]);
    assert_eq!(
        (&stopped["event"], &stopped["was_running"]),
        (&json!("session_stopped"), &json!(true))
    );
    // A question starts nothing.
    assert_eq!(home.json(&["ps", "--name", "warm"]), json!([]));
    for task in ["attach", "logs", "wait", "kill"] {
        assert_eq!(
            home.refusal(&[task, "--name", "warm", "1"])["kind"],
            "NotFound"
        );
    }
    assert_eq!(home.json(&["stop", "--name", "warm"])["was_running"], false);
    let started = home.json(&["start", "--name", "warm"]);
    assert_eq!(
        (&started["event"], &started["was_running"]),
        (&json!("session_started"), &json!(false))
    );
    assert_eq!(home.json(&["start", "--name", "warm"])["was_running"], true);
    assert_eq!(home.json(&["inspect", "--name", "warm"])["running"], true);
    for task in ["attach", "logs", "wait", "kill"] {
        assert_eq!(
            home.refusal(&[task, "--name", "warm", "12345"])["kind"],
            "NotFound"
        );
    }
}

#[test]
fn a_session_is_shared_with_other_commands_and_ended_by_none() {
    let home = Home::with(&["a"]);
    let mut child = home
        .session(&["run", "--name", "a", "--", "sh", "-c", "echo ready; cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    for task in ["rm", "stop"] {
        let output = home.output(&[task, "--name", "a"]);
        assert_eq!(output.status.code(), Some(125));
        let words = said(&output);
        assert!(
            words.contains("another process") && words.contains(&child.id().to_string()),
            "{words}"
        );
    }
    // All else goes on beside it, in the same machine.
    let script = "echo beside >/dev/shm/beside; cat /dev/shm/beside";
    let output = home.output(&["run", "--name", "a", "--", "sh", "-c", script]);
    assert_eq!(output.stdout, b"beside\n");
    let ran = home.json(&["run", "--name", "a", "--", "cat", "/dev/shm/beside"]);
    assert_eq!(ran["stdout"], "beside\n");
    home.says(&["cp", "a:/etc/machine-id", home.0.path().to_str().unwrap()]);
    home.json(&["checkpoint", "--name", "a", "--snapshot", "one"]);
    home.json(&["rm", "--name", "a", "--snapshot", "one"]);
    let running = home.json(&["ps", "--name", "a"]);
    assert_eq!(running.as_array().map(Vec::len), Some(1), "{running}");
    assert_eq!(running[0]["command"][0], "sh");
    // What only looks does not wait.
    assert_eq!(home.json(&["ls"])[0]["running"], true);
    assert_eq!(home.json(&["list", "--name", "a"]), json!([]));
    drop(child.stdin.take());
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn sessions_are_renamed_and_removed() {
    let home = Home::with(&["a", "warm"]);
    let renamed = home.json(&["rename", "--name", "a", "--as", "b"]);
    assert_eq!(
        (&renamed["event"], &renamed["name"], &renamed["old_name"]),
        (&json!("session_renamed"), &json!("b"), &json!("a"))
    );
    let refusal = home.refusal(&["rename", "--name", "b", "--as", "warm"]);
    assert_eq!(refusal["kind"], "AlreadyExists");
    let refusal = home.refusal(&["rm", "--name", "warm"]);
    assert_eq!(refusal["kind"], "Busy");
    assert!(refusal["message"].as_str().unwrap().contains("--force"));
    let removed = home.json(&["rm", "--name", "warm", "--force"]);
    assert_eq!(
        (&removed["event"], &removed["name"]),
        (&json!("session_removed"), &json!("warm"))
    );
    home.says(&["rm", "--name", "b"]);
    assert_eq!(home.json(&["ls"]), json!([]));
}

#[test]
fn what_nobody_needs_is_pruned() {
    let home = Home::with(&["a"]);
    let left = home.0.path().join("home/layers/0123456789ab");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("file"), vec![1; 100_000]).unwrap();
    let pruned = home.json(&["prune"]);
    assert!(
        pruned["freed_bytes"].as_u64().unwrap() >= 100_000,
        "{pruned}"
    );
    assert!(!left.exists());
    assert!(home.says(&["prune"]).contains("free again"));
}

#[test]
fn bad_input_is_refused() {
    let home = Home::with(&["a"]);
    for arguments in [
        &["run", "--name", "none", "--", "true"][..],
        &["spawn", "--name", "none", "--", "true"],
        &["attach", "--name", "none", "1"],
        &["ps", "--name", "none"],
        &["logs", "--name", "none", "1"],
        &["wait", "--name", "none", "1"],
        &["kill", "--name", "none", "1"],
        &["checkpoint", "--name", "none", "--snapshot", "s"],
        &["restore", "--name", "none", "--snapshot", "s"],
        &["list", "--name", "none"],
        &["fork", "--name", "none", "--as", "b"],
        &["export", "--name", "none"],
        &["stop", "--name", "none"],
        &["start", "--name", "none"],
        &["rm", "--name", "none"],
        &["rename", "--name", "none", "--as", "b"],
        &["inspect", "--name", "none"],
    ] {
        let refusal = home.refusal(arguments);
        assert_eq!(refusal["kind"], "NotFound", "{arguments:?}");
        assert!(refusal["message"].as_str().unwrap().contains("none"));
    }
    for name in ["", "a b", "../x", "ü", "."] {
        let mut open = vec!["open", "--name", name];
        open.extend(HOST);
        assert_eq!(home.refusal(&open)["kind"], "InvalidArgument", "{name:?}");
    }
    for arguments in [
        &["run", "--name", "a"][..],
        &["run", "--name", "a", "--"],
        &["run", "--name", "a", "--tty", "--json", "--", "true"],
        &["spawn", "--name", "a"],
        &["attach", "--name", "a", "one"],
        &["kill", "--name", "a", "1", "--signal", "NONE"],
        &["open", "--name", "a", "--label", "x"],
        &["open", "--name", "a", "--idle-stop", "0"],
        &["fork", "--name", "a"],
        &["rm", "--name", "a", "--snapshot", "s", "--force"],
        &["rename", "--name", "a", "--as", "a b"],
        &["stop"],
        &["no-such-task"],
    ] {
        let output = home.output(arguments);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let script = home.output(&["run", "--name", "a", "no-such-script.py"]);
    assert!(
        said(&script).contains("no-such-script.py"),
        "{}",
        said(&script)
    );
    for arguments in [&["--help"][..], &["open", "--help"], &["run", "--help"]] {
        assert!(!home.says(arguments).is_empty());
    }
}
