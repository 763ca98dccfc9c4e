//! The changes that are interrupted, what each begins with, and what is seen afterwards.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command as HostCommand;
use std::time::Duration;

use blink_core::{Blink, Command, Error, Session, SessionBuilder};

use crate::oci;
use crate::session::describe;
use crate::support::{TestBlink, blink, blink_in, ok, shown};

/// A change of what a home holds.
pub(crate) struct Change {
    pub(crate) name: &'static str,
    /// What is seen before, and after.
    pub(crate) old: &'static [&'static str],
    pub(crate) new: &'static [&'static str],
}

const fn change(name: &'static str, new: &'static [&'static str]) -> Change {
    let old = &["one 2", "one@first 1"];
    Change { name, old, new }
}

/// All that must survive.
pub(crate) const CHANGES: [Change; 18] = [
    change("create", &["new ", "one 2", "one@first 1"]),
    change("create warm", &["new ", "one 2", "one@first 1"]),
    change("checkpoint", &["one 2", "one@first 1", "one@new 2"]),
    change(
        "checkpoint while it runs",
        &["one 2", "one@first 1", "one@new 2"],
    ),
    change(
        "checkpoint over many",
        &["one 2", "one@first 1", "one@new 2"],
    ),
    change("restore", &["one 1", "one@first 1"]),
    change("restore while it runs", &["one 1", "one@first 1"]),
    change("fork", &["new 2", "newer 2", "one 2", "one@first 1"]),
    change(
        "fork while it runs",
        &["new 2", "newer 2", "one 2", "one@first 1"],
    ),
    change("fork from a checkpoint", &["new 1", "one 2", "one@first 1"]),
    change("remove a checkpoint", &["one 2"]),
    change("rename", &["new 2", "new@first 1"]),
    change("remove", &[]),
    change("export", &["one 2", "one@first 1", "the archive 2"]),
    change(
        "export while it runs",
        &["one 2", "one@first 1", "the archive 2"],
    ),
    change("export an image", &["one 2", "one@first 1", "the image 2"]),
    change(
        "export an image in a tar",
        &["one 2", "one@first 1", "the image 2"],
    ),
    Change {
        name: "import",
        old: &["one 2", "one@first 1", "the archive 2"],
        new: &["new 2", "one 2", "one@first 1", "the archive 2"],
    },
];

/// With so many more, the next has layers merged.
const MANY: usize = 31;

/// In a home.
const ARCHIVE: &str = "archive.boxlite";
const IMAGES: [&str; 2] = ["image", "image.tar"];

pub(crate) async fn take(blink: &Blink, name: &str) -> Result<Session, Error> {
    blink.take_session(name, Duration::from_secs(10)).await
}

impl Change {
    pub(crate) fn named(name: &str) -> &'static Change {
        CHANGES.iter().find(|change| change.name == name).unwrap()
    }

    /// Makes the change, in a home that is as [`Template`] has it. The session that it is of stays held, where it stays.
    pub(crate) async fn make(
        &self,
        home: &Path,
        blink: &Blink,
        held: &mut Option<Session>,
    ) -> Result<(), Error> {
        let archive = home.join(ARCHIVE);
        match self.name {
            "create" => return describe(blink, "new").open().await.map(drop),
            "create warm" => return describe(blink, "new").warm(true).open().await.map(drop),
            "import" => return describe(blink, "new").import(&archive).await.map(drop),
            _ => {}
        }
        let session = match held.take() {
            Some(session) => session,
            None => take(blink, "one").await?,
        };
        if self.name == "remove" {
            return session.remove().await;
        }
        let session = held.insert(session);
        if self.name.ends_with("while it runs") {
            session.start().await?;
        }
        match self.name.trim_end_matches(" while it runs") {
            "checkpoint" | "checkpoint over many" => session.checkpoint("new").await.map(drop),
            "restore" => session.restore("first").await,
            "fork" => session.fork_many(["new", "newer"]).await.map(drop),
            "fork from a checkpoint" => session.fork_from("first", "new").await.map(drop),
            "remove a checkpoint" => session.remove_checkpoint("first").await,
            "rename" => session.rename("new").await,
            "export" => session.export(&archive).await,
            "export an image" => session.export_oci(home.join(IMAGES[0])).await,
            "export an image in a tar" => session.export_oci(home.join(IMAGES[1])).await,
            other => panic!("unknown change {other}"),
        }
    }
}

/// A home with a session `one`, whose file says 2, and said 1 at its checkpoint `first`.
pub(crate) struct Template {
    blink: TestBlink,
}

impl Template {
    pub(crate) async fn of(change: &Change) -> Template {
        let blink = blink().await;
        let folder = tempfile::tempdir().unwrap();
        let mut describing = describe(&blink, "one");
        if change.name.starts_with("export an image") {
            let image = oci::image(folder.path());
            describing = as_root(describing.image(image.to_str().unwrap()));
        }
        let session = ok(describing.open()).await;
        ok(session.exec(Command::shell("echo 1 >/tmp/file"))).await;
        ok(session.stop()).await;
        ok(session.checkpoint("first")).await;
        if change.name == "checkpoint over many" {
            for number in 0..MANY {
                ok(session.checkpoint(number.to_string())).await;
            }
            for number in 0..MANY {
                ok(session.remove_checkpoint(&number.to_string())).await;
            }
        }
        ok(session.exec(Command::shell("echo 2 >/tmp/file"))).await;
        ok(session.stop()).await;
        if change.name == "import" {
            ok(session.export(blink.home().join(ARCHIVE))).await;
        }
        drop(session);
        // What the overlay needs for itself while it is mounted, into which an ordinary user may not look.
        for layer in std::fs::read_dir(blink.home().join("layers")).unwrap() {
            let work = std::fs::File::open(layer.unwrap().path().join("work")).unwrap();
            blink_archive::remove_tree(work.as_fd(), "work".as_ref()).unwrap();
        }
        Template { blink }
    }

    /// Makes another home of this.
    pub(crate) fn copy(&self, home: &Path) {
        let status = HostCommand::new("cp")
            .args(["--archive", "--no-target-directory"])
            .arg(self.blink.home())
            .arg(home)
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// What is in a home in which nothing is left.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.blink.home())
    }
}

/// What is in a home, but for the archive of a change, and what the database has while it is open.
pub(crate) fn names(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(home).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ARCHIVE && !IMAGES.contains(&&**name))
        .filter(|name| !name.starts_with("blink.db-"))
        .collect();
    names.sort();
    names
}

pub(crate) async fn file_of(session: &Session) -> String {
    let output = ok(session.exec(Command::shell("cat /tmp/file || true"))).await;
    assert!(output.status.success(), "{}", shown(&output));
    output.text().trim().to_owned()
}

/// All that can be known of a home: its sessions with what they hold, and what they hold at each checkpoint.
pub(crate) async fn state(home: &Path) -> Vec<String> {
    let blink = blink_in(home).await;
    let mut state = Vec::new();
    for info in ok(blink.sessions()).await {
        let session = ok(take(&blink, &info.name)).await;
        if info.image != "host" {
            // Whoever writes an image next removes what an unfinished one has left.
            let again = home.join("again");
            ok(session.export_oci(&again)).await;
            std::fs::remove_dir_all(again).unwrap();
        }
        state.push(format!("{} {}", info.name, file_of(&session).await));
        for checkpoint in ok(session.checkpoints()).await {
            ok(session.restore(&checkpoint.name)).await;
            let content = file_of(&session).await;
            state.push(format!("{}@{} {content}", info.name, checkpoint.name));
        }
    }
    let archive = home.join(ARCHIVE);
    if archive.exists() {
        let session = ok(describe(&blink, "of-the-archive").import(&archive)).await;
        state.push(format!("the archive {}", file_of(&session).await));
        ok(session.remove()).await;
    }
    for image in IMAGES.map(|name| home.join(name)) {
        if image.exists() {
            let name = "of-the-image";
            let describing = describe(&blink, name).image(image.to_str().unwrap());
            let session = ok(as_root(describing).open()).await;
            state.push(format!("the image {}", file_of(&session).await));
            ok(session.remove()).await;
        }
    }
    state
}

/// The user of the image that is used here may not write.
fn as_root(session: SessionBuilder) -> SessionBuilder {
    session.user("root").current_dir("/")
}
