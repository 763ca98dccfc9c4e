//! Programs that build trees deeper than any stack, than all descriptors, and than the longest path.

use std::time::Duration;

use blink_core::{Command, ErrorKind, Files};

use crate::inside::Inside as _;
use crate::support::{blink, fails, ok, within};

/// More than a thread's stack has room for with a frame for each, and far more than descriptors.
const LEVELS: u32 = 5_000;

/// Folders inside each other, and a file of a megabyte in the last.
fn build(top: &str) -> Command {
    let program = format!(
        "import os\n\
         os.mkdir({top:?}); os.chdir({top:?})\n\
         for _ in range({LEVELS}):\n    os.mkdir('d'); os.chdir('d')\n\
         open('file', 'wb').write(bytes(range(256)) * 4096)\n"
    );
    Command::new("python3")
        .args(["-c", &program])
        .timeout(Duration::from_secs(110))
}

async fn removed(files: &Files, top: &str) {
    ok(files.remove_all(top)).await;
    assert!(!ok(files.exists(top)).await);
}

#[tokio::test]
async fn an_agent_removes_what_its_programs_have_built_and_packs_none_of_it() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().image("host").create()).await;
    let built = ok(sandbox.exec(build("/var/top"))).await;
    assert!(built.status.success(), "{built:?}");
    let files = sandbox.files().unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = fails(
        ErrorKind::ResourceExhausted,
        files.download("/var/top", out.path().join("out")),
    )
    .await;
    assert!(error.message().contains("levels of folders"), "{error:?}");
    removed(&files, "/var/top").await;
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn a_session_with_a_deep_disk_lives_on() {
    let blink = blink().await;
    let session = ok(blink.session("deep").image("host").open()).await;
    let built = ok(session.exec(build("/var/top"))).await;
    assert!(built.status.success(), "{built:?}");
    // Copied while it runs, measured, and gone again.
    ok(session.checkpoint("one")).await;
    assert!(ok(session.checkpoints()).await[0].size_bytes >= 1 << 20);
    let fork = ok(session.fork("fork")).await;
    let files = ok(fork.files()).await;
    removed(&files, "/var/top").await;
    ok(session.stop()).await;
    let error = within(session.export(blink.home().join("out.boxlite"))).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ResourceExhausted);
    ok(fork.remove()).await;
    ok(session.remove()).await;
    let layers = std::fs::read_dir(blink.home().join("layers")).unwrap();
    assert_eq!(layers.count(), 0);
}
