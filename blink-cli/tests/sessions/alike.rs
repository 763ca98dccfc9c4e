//! The commands that take sessions and detached sandboxes alike.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Home, said};

/// `blink …` in a home.
fn blink(home: &Home, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_blink"));
    command
        .args(arguments)
        .env("BLINK_HOME", home.0.path().join("home"))
        .current_dir(home.0.path())
        .stdin(std::process::Stdio::null());
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code(), stdout, said(&output))
}

fn told(home: &Home, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = blink(home, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn refused(home: &Home, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = blink(home, arguments);
    assert_eq!(code, Some(125), "{arguments:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// A sandbox that a program has left running.
fn detached(home: &Home) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = home.0.path().join("home");
    runtime.block_on(async {
        let blink = blink_core::Blink::builder()
            .home(folder)
            .isolation(blink_core::IsolationChoice::Namespace)
            .build()
            .await
            .unwrap();
        let sandbox = blink.sandbox().detached().create().await.unwrap();
        sandbox.id().to_owned()
    })
}

#[test]
fn sessions_are_used_by_their_names() {
    let home = Home::with(&["warm"]);
    let ran = told(&home, &["exec", "warm", "--json", "--", "echo", "hello"]);
    assert_eq!(
        (&ran["stdout"], &ran["exit_code"]),
        (&json!("hello\n"), &json!(0))
    );
    assert_eq!(
        blink(&home, &["exec", "warm", "--", "sh", "-c", "exit 7"]).0,
        Some(7)
    );
    home.file("in", b"from here");
    told(&home, &["cp", "--json", "in", "warm:/tmp/in"]);
    assert_eq!(home.shell("warm", "cat /tmp/in"), "from here");

    let listed = told(&home, &["ps", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed[0]["kind"], &listed[0]["name"]),
        (&json!("session"), &json!("warm"))
    );
    let id = home.spawn("warm", "sleep 60", &[]);
    told(&home, &["kill", "--json", "warm", &id]);
    assert_eq!(blink(&home, &["wait", "warm", &id]).0, Some(137));
    told(&home, &["stop", "--json", "warm"]);
    assert_eq!(
        told(&home, &["wait", "--json", "warm"])["event"],
        "session_stopped"
    );
    assert_eq!(told(&home, &["ps", "--json"]), json!([]));
    assert_eq!(told(&home, &["ps", "--all", "--json"])[0]["running"], false);
    told(&home, &["start", "--json", "warm"]);
    assert_eq!(told(&home, &["inspect", "--json", "warm"])["running"], true);
    told(&home, &["rename", "--json", "warm", "other"]);
    let info = told(&home, &["info", "--json"]);
    assert_eq!(
        (&info["sessions"], &info["sessions_running"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(refused(&home, &["rm", "--json", "other"])["kind"], "Busy");
    told(&home, &["rm", "--json", "--force", "other"]);
    assert_eq!(
        refused(&home, &["exec", "--json", "other", "--", "true"])["kind"],
        "NotFound"
    );
}

#[test]
fn sandboxes_are_used_by_their_ids() {
    let home = Home::new();
    let id = detached(&home);
    let listed = told(&home, &["ps", "--json"]);
    assert_eq!(
        (&listed[0]["kind"], &listed[0]["id"], &listed[0]["running"]),
        (&json!("sandbox"), &json!(id), &json!(true))
    );
    // The beginning of an ID is enough, and what one command leaves the next finds.
    let short = &id[..6];
    let script = "echo kept > /tmp/kept";
    assert_eq!(
        blink(&home, &["exec", short, "--", "sh", "-c", script]).0,
        Some(0)
    );
    let ran = told(&home, &["exec", "--json", &id, "--", "cat", "/tmp/kept"]);
    assert_eq!(
        (&ran["stdout"], &ran["name"]),
        (&json!("kept\n"), &json!(id))
    );
    told(&home, &["cp", "--json", &format!("{id}:/tmp/kept"), "out"]);
    let out = std::fs::read_to_string(home.0.path().join("out")).unwrap();
    assert_eq!(out, "kept\n");
    assert_eq!(
        told(&home, &["inspect", "--json", &id])["isolation"],
        "namespace"
    );
    for arguments in [
        &["stop", "--json", id.as_str()][..],
        &["start", "--json", &id],
        &["rename", "--json", &id, "new"],
        &["wait", "--json", &id, "1"],
        &["kill", "--json", &id, "1"],
    ] {
        assert_eq!(
            refused(&home, arguments)["kind"],
            "Unsupported",
            "{arguments:?}"
        );
    }
    assert_eq!(
        told(&home, &["rm", "--json", short])["event"],
        "sandbox_removed"
    );
    assert_eq!(told(&home, &["ps", "--all", "--json"]), json!([]));
    assert_eq!(
        refused(&home, &["inspect", "--json", &id])["kind"],
        "NotFound"
    );
}

/// Kills the agent of a sandbox once `blink wait` has had so long to find it; says what that came to.
fn waited_for(home: &Home, id: &str, patience: Duration) -> (Option<i32>, String, String) {
    let record = home
        .0
        .path()
        .join(format!("home/sandboxes/{id}/record.json"));
    let record: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let agent = record["agent"]["pid"].as_i64().unwrap();
    let agent = rustix::process::Pid::from_raw(agent.try_into().unwrap()).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| blink(home, &["wait", "--json", id]));
        std::thread::sleep(patience);
        rustix::process::kill_process(agent, rustix::process::Signal::KILL).unwrap();
        waiting.join().unwrap()
    })
}

#[test]
fn a_sandbox_is_waited_for_and_gone_when_it_has_ended() {
    let home = Home::new();
    let running = detached(&home);
    // On a busy machine it may end before anybody waits for it.
    let mut patience = Duration::from_millis(200);
    loop {
        let ended = detached(&home);
        let (code, stdout, stderr) = waited_for(&home, &ended, patience);
        if code == Some(0) {
            let gone: Value = serde_json::from_str(&stdout).unwrap();
            assert_eq!(gone, json!({"event": "sandbox_ended", "id": ended}));
            break;
        }
        assert!(patience < Duration::from_secs(10), "{stderr}");
        patience *= 3;
    }
    let listed = told(&home, &["ps", "--all", "--json"]);
    assert_eq!(
        (listed.as_array().unwrap().len(), &listed[0]["id"]),
        (1, &json!(running))
    );
    assert_eq!(
        told(&home, &["prune", "--json"])["event"],
        "sessions_pruned"
    );
    told(&home, &["kill", "--json", &running]);
    assert_eq!(told(&home, &["ps", "--all", "--json"]), json!([]));
}

#[test]
fn a_name_is_a_word_or_an_option() {
    let home = Home::with(&["a", "b"]);
    assert_eq!(home.says(&["run", "a", "--", "echo", "x"]), "x\n");
    assert_eq!(home.says(&["run", "--name", "a", "--", "echo", "x"]), "x\n");
    let script = home.file("script.sh", b"echo $*");
    let script = script.to_str().unwrap();
    assert_eq!(
        home.says(&["run", "a", script, "--name", "x"]),
        "--name x\n"
    );
    home.says(&["checkpoint", "a", "one"]);
    home.says(&["checkpoint", "--name", "a", "--snapshot", "two"]);
    home.says(&["fork", "a", "c", "--snapshot", "one"]);
    home.says(&["restore", "a", "two"]);
    home.says(&["rename", "c", "d"]);
    let listed = home.json(&["checkpoints", "a"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(home.names(), ["a", "b", "d"]);
    for arguments in [
        &["checkpoint", "a"][..],
        &["rename", "a"],
        &["run", "--name"],
    ] {
        assert_eq!(
            home.refusal(arguments)["kind"],
            "InvalidArgument",
            "{arguments:?}"
        );
    }
}
