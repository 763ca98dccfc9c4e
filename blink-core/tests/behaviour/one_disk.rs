//! A session's disk is one disk to its programs, however many layers it has: folders are renamed and files keep all their
//! names over checkpoints, forks, restores, exports, and layers that are made one.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command as HostCommand;

use blink_core::{Command, Session};

use crate::change::{as_root, take};
use crate::inside::Inside as _;
use crate::layout::LayerTar;
use crate::oci::image_with;
use crate::session::describe;
use crate::support::{Engine, blink, blink_in, ok, shown};

/// Changes a tree at random, always the same way with the same seed, and prints what it is then: names, kinds, contents, and
/// which names are the same file.
const PROGRAM: &str = r#"
import os, random, sys
top, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.makedirs(top, exist_ok=True)
os.chdir(top)
chance = random.Random(seed)

def look():
    folders, files = ["."], []
    for folder, below, names in os.walk("."):
        folders += [os.path.join(folder, name) for name in below]
        files += [os.path.join(folder, name) for name in names]
    return sorted(folders), sorted(files)

def step(number):
    folders, files = look()
    name = os.path.join(chance.choice(folders), "n%d" % number)
    what = chance.choice(["file", "folder", "link", "append", "append", "rename", "move", "move", "remove", "clear", "symlink"])
    if what == "file" or not files:
        open(name, "w").write("made %d\n" % number)
    elif what == "folder":
        os.makedirs(name + "/inner")
        open(name + "/inner/file", "w").write("in %d\n" % number)
    elif what == "link":
        os.link(chance.choice(files), name, follow_symlinks=False)
    elif what == "append":
        file = chance.choice(files)
        if not os.path.islink(file):
            open(file, "a").write("more %d\n" % number)
    elif what == "rename":
        os.rename(chance.choice(files), name)
    elif what == "move" and len(folders) > 1:
        folder = chance.choice(folders[1:])
        if not (name + "/").startswith(folder + "/"):
            os.rename(folder, name)
    elif what == "remove":
        os.unlink(chance.choice(files))
    elif what == "clear" and len(folders) > 1 and chance.random() < 0.3:
        folder = chance.choice(folders[1:])
        for above, below, names in os.walk(folder, topdown=False):
            for one in names: os.unlink(os.path.join(above, one))
            os.rmdir(above)
        # The same name again hides what was there.
        if chance.random() < 0.5:
            os.mkdir(folder)
    elif what == "symlink":
        os.symlink("target %d" % number, name)

for number in range(seed * 1000, seed * 1000 + steps):
    step(number)
folders, files = look()
first = {}
for name in folders:
    print(name + "/")
for name in files:
    stat = os.lstat(name)
    content = os.readlink(name) if os.path.islink(name) else open(name).read()
    print(name, repr(content), first.setdefault(stat.st_ino, name))
"#;

/// The tree on this machine, after the same changes.
fn expected(folder: &Path, seed: u32, steps: u32) -> String {
    let output = HostCommand::new("python3")
        .args(["-c", PROGRAM])
        .arg(folder)
        .args([seed.to_string(), steps.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn change(session: &Session, seed: u32, steps: u32) -> String {
    let program = Command::new("python3").args(["-c", PROGRAM, "/tree"]);
    let program = program.args([seed.to_string(), steps.to_string()]);
    let output = ok(session.exec(program)).await;
    assert!(output.status.success(), "{}", shown(&output));
    output.text().into_owned()
}

/// The changes are others where `BLINK_TEST_SEED` names another number.
fn seed() -> u32 {
    let seed = std::env::var("BLINK_TEST_SEED").unwrap_or_default();
    seed.parse().unwrap_or(0)
}

/// Tells only what differs.
fn same(found: &str, wanted: &str, when: &str) {
    let lines = |text: &str, other: &str| -> Vec<String> {
        let other: HashSet<_> = other.lines().collect();
        let own = text.lines().filter(|line| !other.contains(line));
        own.map(str::to_owned).collect()
    };
    let differing = (lines(found, wanted), lines(wanted, found));
    assert!(found == wanted, "{when}: found, and wanted: {differing:#?}");
}

/// Whether a disk is one here: an ordinary user's layers are not, as the kernel lets it have no such overlay.
fn is_one() -> bool {
    Engine::chosen() == Engine::Microvm || rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn programs_cannot_tell_how_many_layers_there_are() {
    const STEPS: u32 = 40;
    if !is_one() {
        return;
    }
    let first = seed();
    // As many layers as are made one, and more.
    let rounds = match Engine::chosen() {
        Engine::Namespace => 40,
        Engine::Microvm => 3,
    };
    let model = tempfile::tempdir().unwrap();
    let tree = model.path().join("tree");
    let kept = model.path().join("kept");
    let blink = blink().await;
    let mut session = ok(describe(&blink, "session-0").open()).await;
    for round in first + 1..=first + rounds {
        let wanted = expected(&tree, round, STEPS);
        let when = format!("round {round}");
        same(&change(&session, round, STEPS).await, &wanted, &when);
        // Of a session that runs it is a copy; the disk of one that is stopped becomes a layer itself.
        if round % 4 != 0 {
            ok(session.stop()).await;
        }
        ok(session.checkpoint(round.to_string())).await;
        same(
            &change(&session, 0, 0).await,
            &wanted,
            &format!("{when}, kept"),
        );
        match round % 5 {
            0 => {
                let fork = ok(session.fork(format!("session-{round}"))).await;
                ok(session.remove()).await;
                session = fork;
            }
            1 => {
                copy(&tree, &kept);
                let later = expected(&tree, round + 1000, STEPS);
                same(&change(&session, round + 1000, STEPS).await, &later, &when);
                ok(session.restore(&round.to_string())).await;
                copy(&kept, &tree);
            }
            _ => {}
        }
        same(
            &change(&session, 0, 0).await,
            &wanted,
            &format!("{when}, at its end"),
        );
    }
    // All of it comes along in an archive.
    let archive = model.path().join("archive");
    ok(session.stop()).await;
    ok(session.export(&archive)).await;
    let wanted = change(&session, 0, 0).await;
    let imported = ok(describe(&blink, "imported").import(&archive)).await;
    same(&change(&imported, 0, 0).await, &wanted, "imported");
    let later = expected(&tree, 5000, STEPS);
    same(&change(&imported, 5000, STEPS).await, &later, "changed");
    ok(imported.remove()).await;
    ok(session.remove()).await;
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let status = HostCommand::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([from, to])
        .status();
    assert!(status.unwrap().success());
}

/// An image with folders to rename, and a file of two names.
fn image(folder: &Path) -> std::path::PathBuf {
    image_with(
        folder,
        LayerTar::new()
            .folder("tree/", 0o755)
            .folder("tree/one/", 0o755)
            .folder("tree/one/deep/", 0o755)
            .file("tree/one/deep/file", "of the image\n")
            .file("tree/one/file", "of the image\n")
            .hard_link("tree/one/same", "tree/one/file")
            .folder("tree/two/", 0o755)
            .file("tree/two/file", "of the image\n"),
    )
}

#[tokio::test]
async fn folders_of_an_image_are_renamed_and_its_files_keep_their_names() {
    if !is_one() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let blink = blink().await;
    let describing = describe(&blink, "one").image(image.to_str().unwrap());
    let session = ok(as_root(describing).open()).await;
    let says = async |session: &Session, script: &str| {
        let output = ok(session.exec(Command::shell(script))).await;
        assert!(output.status.success(), "{script}: {}", shown(&output));
        output.text().into_owned()
    };
    says(
        &session,
        "cd /tree && echo more >>one/file && mv one two/moved && mkdir one && echo new >one/new && mv two second",
    )
    .await;
    let look = "cd /tree && ls -R . && cat one/new second/file second/moved/deep/file second/moved/file second/moved/same && \
                test ! -e two && test second/moved/file -ef second/moved/same";
    let wanted = says(&session, look).await;
    assert!(
        wanted.ends_with("of the image\nmore\nof the image\nmore\n"),
        "{wanted}"
    );
    ok(session.stop()).await;
    ok(session.checkpoint("first")).await;
    assert_eq!(says(&session, look).await, wanted);
    let fork = ok(session.fork("fork")).await;
    assert_eq!(says(&fork, look).await, wanted);
    // An archive and an image have what is beneath too.
    let archive = folder.path().join("archive");
    ok(session.export(&archive)).await;
    let imported = describe(&blink, "imported").image(image.to_str().unwrap());
    let imported = ok(imported.import(&archive)).await;
    assert_eq!(says(&imported, look).await, wanted);
    let exported = folder.path().join("exported");
    ok(session.export_oci(&exported)).await;
    let of_image = describe(&blink, "of-the-image").image(exported.to_str().unwrap());
    let of_image = ok(as_root(of_image).open()).await;
    assert_eq!(says(&of_image, look).await, wanted);
    for session in [session, fork, imported, of_image] {
        ok(session.remove()).await;
    }
}

/// An image that was made anew has other inodes, as a home has that was copied.
#[tokio::test]
async fn a_disk_goes_on_over_other_copies_of_its_layers() {
    if Engine::chosen() == Engine::Microvm || !is_one() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let change = "mkdir -p /d && ln -f /etc/passwd /d/passwd && echo more >>/d/passwd && rm -rf /home && mkdir /home";
    {
        let blink = blink_in(&home).await;
        let session = ok(describe(&blink, "one").open()).await;
        ok(session.exec(Command::shell(change))).await;
        ok(session.stop()).await;
        ok(session.checkpoint("first")).await;
        ok(session.exec(Command::shell(change))).await;
        ok(session.stop()).await;
    }
    let other = folder.path().join("other");
    copy(&home, &other);
    let blink = blink_in(&other).await;
    let session = ok(take(&blink, "one")).await;
    let output = ok(session.exec(Command::shell("tail -n 2 /d/passwd; ls /home"))).await;
    assert_eq!(output.text(), "more\nmore\n", "{}", shown(&output));
    ok(session.checkpoint("second")).await;
    ok(session.remove()).await;
}
