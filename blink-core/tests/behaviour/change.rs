//! The changes that are interrupted, what each begins with, and what is seen afterwards.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command as HostCommand;
use std::time::Duration;

use blink_core::{Blink, Command, Error, ErrorKind, Session, SessionBuilder};

use crate::inside::Inside as _;
use crate::session::describe;
use crate::support::{Engine, blink_in, ok, shown};
use crate::{oci, pool, stopped};

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
pub(crate) const CHANGES: [Change; 20] = [
    change("create", &["new ", "one 2", "one@first 1"]),
    change("create warm", &["new ", "one 2", "one@first 1"]),
    // What was claimed is gone with its process, and a session stays.
    change("claim", &["one 2", "one@first 1"]),
    change("claim a session", &["new ", "one 2", "one@first 1"]),
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

/// With so many more, the next has layers merged. Reading the disk of a session that is stopped makes one each time.
fn many() -> usize {
    match stopped::machines_start() {
        true => 31,
        false => 29,
    }
}

/// In a home.
const ARCHIVE: &str = "archive.boxlite";
const IMAGES: [&str; 2] = ["image", "image.tar"];

pub(crate) async fn take(blink: &Blink, name: &str) -> Result<Session, Error> {
    blink.take_session(name, Duration::from_secs(10)).await
}

impl Change {
    /// Whether it can be made where no machine starts.
    pub(crate) fn starts_none(&self) -> bool {
        let starts = ["create", "claim", "export an image"];
        !starts.iter().any(|begin| self.name.starts_with(begin))
            && !self.name.ends_with("while it runs")
    }

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
            "claim" => return claim(blink, None).await,
            "claim a session" => return claim(blink, Some("new")).await,
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

/// All that becomes of a pool: its template, boots, claims, what is released and reset, and its end.
async fn claim(blink: &Blink, name: Option<&str>) -> Result<(), Error> {
    let pool = blink.pool(pool::spec()).reset_on_release(name.is_none());
    let pool = match name {
        Some(_) => pool.warmup(Command::shell("true")),
        None => pool,
    };
    let pool = pool.build().await?;
    let claimed = match name {
        Some(name) => pool.claim().into_session(name).await.map(drop),
        None => {
            async {
                drop(pool.claim().key("claimed").await?);
                drop(pool.claim().await?);
                Ok(())
            }
            .await
        }
    };
    pool.close().await;
    claimed
}

/// A home with a session `one`, whose file says 2, and said 1 at its checkpoint `first`. It is made where its copies will
/// be: what lies over a micro-VM's disk knows that by its whole name.
pub(crate) struct Template(tempfile::TempDir);

impl Template {
    pub(crate) async fn of(change: &Change, home: &Path) -> Template {
        let blink = blink_in(home).await;
        let session = match stopped::machines_start() {
            true => open(change, &blink).await,
            false => stopped::import(home, &blink, "one").await,
        };
        write_file(home, &session, 1).await;
        ok(session.checkpoint("first")).await;
        if change.name == "checkpoint over many" {
            for number in 0..many() {
                ok(session.checkpoint(number.to_string())).await;
            }
            for number in 0..many() {
                ok(session.remove_checkpoint(&number.to_string())).await;
            }
        }
        write_file(home, &session, 2).await;
        if change.name == "import" {
            ok(session.export(home.join(ARCHIVE))).await;
        }
        drop((session, blink));
        // What the overlay needs for itself while it is mounted, into which an ordinary user may not look.
        for layer in std::fs::read_dir(home.join("layers")).unwrap() {
            if let Ok(work) = std::fs::File::open(layer.unwrap().path().join("work")) {
                blink_archive::remove_tree(work.as_fd(), "work".as_ref()).unwrap();
            }
        }
        let template = Template(tempfile::tempdir().unwrap());
        copy(home, &template.home());
        std::fs::remove_dir_all(home).unwrap();
        template
    }

    fn home(&self) -> PathBuf {
        self.0.path().join("home")
    }

    /// Makes another home of this.
    pub(crate) fn copy(&self, home: &Path) {
        copy(&self.home(), home);
    }

    /// What is in a home in which nothing is left.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.home())
    }
}

fn copy(home: &Path, to: &Path) {
    let status = HostCommand::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([home, to])
        .status()
        .unwrap();
    assert!(status.success());
}

/// What is in a home and its engine's folder, but for the archive of a change, what databases have while they are open, and
/// what was found out about the machine.
pub(crate) fn names(home: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["", "microvm", "microvm/boxes", "microvm/images"] {
        let entries = std::fs::read_dir(home.join(folder)).into_iter().flatten();
        let entries = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.extend(
            entries
                .filter(|name| name != ARCHIVE && !IMAGES.contains(&&**name))
                .filter(|name| !name.contains(".db-") && name != "hypervisor.json")
                .map(|name| format!("{folder}/{name}")),
        );
    }
    names.sort();
    names
}

async fn open(change: &Change, blink: &Blink) -> Session {
    let folder = tempfile::tempdir().unwrap();
    let mut describing = describe(blink, "one");
    if change.name.starts_with("export an image") {
        let image = oci::image(folder.path());
        describing = as_root(describing.image(image.to_str().unwrap()));
    }
    ok(describing.open()).await
}

/// Of a session that is stopped then.
async fn write_file(home: &Path, session: &Session, number: u8) {
    if !stopped::machines_start() {
        stopped::write(home, session.id(), number);
        // With it comes what the home keeps for exports.
        assert_eq!(stopped::read(session).await, number.to_string());
        return;
    }
    let script = format!("echo {number} >/tmp/file");
    ok(session.exec(Command::shell(script))).await;
    ok(session.stop()).await;
}

pub(crate) async fn file_of(session: &Session) -> String {
    if !stopped::machines_start() {
        return stopped::read(session).await;
    }
    if Engine::chosen() == Engine::Microvm {
        match stopped::read_file(session, "/tmp/file").await {
            Ok(content) => return String::from_utf8(content).unwrap().trim().to_owned(),
            // One that was not started yet can be.
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}"),
        }
    }
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
pub(crate) fn as_root(session: SessionBuilder) -> SessionBuilder {
    session.user("root").current_dir("/")
}
