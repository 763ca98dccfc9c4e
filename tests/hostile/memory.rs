//! Programs that want the host's memory: what they make is read by whoever embeds Blink.

use blink_core::{Command, ErrorKind};

use crate::support::{blink, fails, ok};

/// A gibibyte of holes costs a program nothing, and whoever reads it as a whole, that much.
#[tokio::test]
async fn a_file_that_is_too_long_for_memory_is_refused() {
    let blink = blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let make = "truncate -s 1025M /tmp/long; truncate -s 64M /tmp/short";
    ok(sandbox.exec(Command::shell(make))).await;
    let files = sandbox.files().unwrap();
    let error = fails(ErrorKind::ResourceExhausted, files.read("/tmp/long")).await;
    assert!(error.message().contains("/tmp/long"), "{error}");
    assert_eq!(ok(files.read("/tmp/short")).await.len(), 64 << 20);
    // The sandbox goes on, and so does the file for whoever takes it in parts.
    let mut part = Vec::new();
    ok(files.read_part("/tmp/long", 1 << 30, Some(1 << 20), &mut part)).await;
    assert_eq!(part.len(), 1 << 20);
    ok(sandbox.remove()).await;
}
