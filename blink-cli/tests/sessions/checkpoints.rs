//! Checkpoints and forks.

use serde_json::json;

use crate::support::Home;

#[test]
fn checkpoints_are_a_tree() {
    let home = Home::with(&["a"]);
    let note = "/var/blink/memory/note";
    let checkpoint = |snapshot: &str| {
        home.shell("a", &format!("echo {snapshot} >> {note}"));
        home.json(&["checkpoint", "--name", "a", "--snapshot", snapshot])
    };
    let first = checkpoint("first");
    assert_eq!(
        (
            &first["event"],
            &first["name"],
            &first["snapshot"],
            &first["consistency"]
        ),
        (
            &json!("session_checkpoint"),
            &json!("a"),
            &json!("first"),
            &json!("stopped")
        )
    );
    assert_eq!(checkpoint("second")["parent"], "first");
    let restored = home.json(&["restore", "--name", "a", "--snapshot", "first"]);
    assert_eq!(
        (&restored["event"], &restored["snapshot"]),
        (&json!("session_restored"), &json!("first"))
    );
    assert_eq!(home.shell("a", &format!("cat {note}")), "first\n");
    checkpoint("third");
    let listed = home.json(&["checkpoints", "--name", "a"]);
    let found: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|each| {
            (
                each["name"].as_str().unwrap(),
                each["parent"].as_str(),
                each["current"] == true,
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("first", None, false),
            ("second", Some("first"), false),
            ("third", Some("first"), true)
        ]
    );
    let tree = home.says(&["list", "--name", "a"]);
    let starts: Vec<_> = tree
        .lines()
        .map(|line| line.split("  stopped").next().unwrap())
        .collect();
    assert_eq!(
        starts,
        ["a", "└─ first", "   ├─ second", "   └─ third"],
        "{tree}"
    );
    let removed = home.json(&["rm", "--name", "a", "--snapshot", "first"]);
    assert_eq!(removed["event"], "session_checkpoint_removed");
    let tree = home.says(&["list", "--name", "a"]);
    assert!(
        tree.contains("\n├─ second") && tree.contains("\n└─ third"),
        "{tree}"
    );
    let refusal = home.refusal(&["checkpoint", "--name", "a", "--snapshot", "third"]);
    assert_eq!(refusal["kind"], "AlreadyExists");
    for arguments in [
        &["restore", "--name", "a", "--snapshot", "none"][..],
        &["rm", "--name", "a", "--snapshot", "none"],
        &["fork", "--name", "a", "--snapshot", "none", "--as", "b"],
    ] {
        assert_eq!(home.refusal(arguments)["kind"], "NotFound");
    }
    let refusal = home.refusal(&["checkpoint", "--name", "a", "--snapshot", "a/b"]);
    assert_eq!(refusal["kind"], "InvalidArgument");
}

#[test]
fn a_warm_session_is_copied_while_it_runs() {
    let home = Home::with(&["warm"]);
    home.shell("warm", "echo one > /var/blink/memory/note");
    let id = home.spawn("warm", "sleep 1000", &[]);
    let made = home.json(&[
        "checkpoint",
        "--name",
        "warm",
        "--snapshot",
        "s",
        "--require-frozen",
    ]);
    assert_eq!(made["consistency"], "frozen");
    assert_eq!(home.process("warm", &id)["running"], true);
    home.shell("warm", "echo two > /var/blink/memory/note");
    let restored = home.json(&["restore", "--name", "warm", "--snapshot", "s"]);
    assert_eq!(restored["running"], true);
    assert_eq!(home.shell("warm", "cat /var/blink/memory/note"), "one\n");
}

#[test]
fn forks_go_their_own_way() {
    let home = Home::with(&["a"]);
    home.shell("a", "echo one > /var/blink/memory/note");
    home.says(&["checkpoint", "--name", "a", "--snapshot", "s"]);
    home.shell("a", "echo two > /var/blink/memory/note");
    let forked = home.json(&["fork", "--name", "a", "--snapshot", "s", "--as", "b"]);
    assert_eq!(
        (&forked["event"], &forked["name"], &forked["forked_from"]),
        (&json!("session_forked"), &json!("b"), &json!("a@s"))
    );
    home.says(&["fork", "--name", "a", "--as", "c"]);
    assert_eq!(home.names(), ["a", "b", "c"]);
    home.json(&["rm", "--name", "a"]);
    assert_eq!(home.shell("b", "cat /var/blink/memory/note"), "one\n");
    assert_eq!(home.shell("c", "cat /var/blink/memory/note"), "two\n");
    assert!(home.says(&["list", "--name", "b"]).contains("a@s"));
    let refusal = home.refusal(&["fork", "--name", "b", "--as", "c"]);
    assert_eq!(refusal["kind"], "AlreadyExists");
    let refusal = home.refusal(&["fork", "--name", "b", "--as", "-c"]);
    assert_eq!(refusal["kind"], "InvalidArgument");
    let pruned = home.json(&["prune"]);
    assert_eq!(pruned["event"], "sessions_pruned");
    assert!(pruned["freed_bytes"].is_number());
    assert_eq!(home.shell("b", "cat /var/blink/memory/note"), "one\n");
}
