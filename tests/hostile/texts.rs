//! Text from inside that would do something to the terminal or the log that shows it.

use blink_core::{Command, ErrorKind, terminal};

use crate::support::{fails, ok};

const HOSTILE: &str = "\x1b]0;owned\x07\r\nblink: all is well\u{9b}2J\u{202e}\x7f";

fn harmless(text: &str) -> bool {
    !text.contains(terminal::is_obeyed)
}

#[tokio::test]
async fn messages_about_hostile_names_are_one_harmless_line() {
    let blink = crate::support::blink().await;
    let sandbox = ok(blink.sandbox().create()).await;
    let files = ok(async { sandbox.files() }).await;
    let path = format!("/tmp/{HOSTILE}");
    for error in [
        fails(ErrorKind::NotFound, files.read(&path)).await,
        fails(ErrorKind::NotFound, files.list(&path)).await,
        fails(ErrorKind::NotFound, files.rename(&path, "/tmp/x")).await,
        fails(
            ErrorKind::NotFound,
            sandbox.exec(Command::new("true").current_dir(&path)),
        )
        .await,
        fails(
            ErrorKind::NotFound,
            sandbox.exec(Command::new("true").user(HOSTILE)),
        )
        .await,
    ] {
        assert!(harmless(&error.to_string()), "{error:?}");
        assert!(error.message().contains("owned"), "{error:?}");
    }
    // The name itself is not lost.
    let error = fails(ErrorKind::NotFound, files.read(&path)).await;
    assert_eq!(error.path(), Some(std::path::Path::new(&path)));
    ok(files.write(&path, "content")).await;
    let found = ok(files.list("/tmp")).await;
    assert!(found.iter().any(|entry| entry.name == *HOSTILE));
    ok(sandbox.remove()).await;
}
