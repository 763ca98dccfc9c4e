//! Sessions as images: other programs read them, and sandboxes start from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as HostCommand;
use std::sync::{Arc, Mutex};

use blink_core::{Blink, Command, ErrorKind, ExportOptions, Sandbox, Session, WriteOptions};
use serde_json::Value;

use crate::inside::Inside as _;
use crate::layout::{LayerTar, Layout, StoredLayer};
use crate::session::describe;
use crate::support::{Capability, Engine, blink, describe_in, fails, noise, ok, require, shown};

/// Of busybox, which all of the image's programs are.
const PROGRAMS: [&str; 18] = [
    "sh", "cat", "chmod", "echo", "id", "ln", "ls", "mkdir", "mkfifo", "mv", "pwd", "readlink",
    "rm", "stat", "sync", "touch", "truncate", "wc",
];

/// An image of two layers, as a folder in OCI layout.
pub(crate) fn image(folder: &Path) -> PathBuf {
    let more = LayerTar::new()
        .folder("data/", 0o755)
        .file("data/kept", "of the image\n")
        .file("data/gone", "of the image\n")
        .folder("data/again/", 0o755)
        .file("data/again/hidden", "of the image\n");
    image_with(folder, more)
}

/// One of programs and of what else is given.
pub(crate) fn image_with(folder: &Path, more: LayerTar) -> PathBuf {
    let program = fs::read("/usr/bin/busybox").or_else(|_| fs::read("/bin/busybox"));
    let program = program.expect("there is no busybox here; `scripts/setup test` installs it");
    let mut base =
        LayerTar::new()
            .folder("bin/", 0o755)
            .file_with("bin/busybox", 0o755, 0, &program);
    for name in PROGRAMS {
        base = base.symlink(&format!("bin/{name}"), "busybox");
    }
    for name in ["dev/", "etc/", "proc/", "run/", "sys/", "tmp/", "work/"] {
        base = base.folder(name, 0o755);
    }
    let base = base
        .file(
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
        )
        .file("etc/group", "root:x:0:\nuser:x:1000:\n");
    let layers = [
        StoredLayer::gzip(base),
        StoredLayer::new(&more.end(), "+zstd"),
    ];
    Layout::of(folder.join("base"), &layers).path
}

async fn open(blink: &Blink, image: &Path) -> Session {
    let describing = describe(blink, "one").image(image.to_str().unwrap());
    // The image's own user may not write, and has no such working directory.
    ok(describing
        .user("root")
        .current_dir("/")
        .env("S", "secret")
        .open())
    .await
}

async fn says(session: &Session, script: &str) -> String {
    let output = ok(session.exec(Command::new("sh").args(["-c", script]))).await;
    assert!(output.status.success(), "{script}: {}", shown(&output));
    output.text().trim_end().to_owned()
}

async fn change(session: &Session) {
    says(
        session,
        "set -e
         rm /data/gone; rm -rf /data/again; mkdir /data/again; echo new >/data/again/new
         mkdir -p /made/deep; echo one >/made/deep/one; ln /made/deep/one /made/two
         ln -s /data/kept /made/link; mkfifo /made/pipe
         echo run >/made/program; chmod 4751 /made/program; touch -d @1000000000 /made/program
         truncate -s 300000 /made/hole; echo end >>/made/hole
         rm /bin/wc; echo changed >>/etc/group; sync",
    )
    .await;
    let options = WriteOptions::default().mode(0o640).user("user");
    let files = ok(session.files()).await;
    ok(files.write_with("/made/owned", &mut &b"mine"[..], &options)).await;
    says(session, "sync").await;
}

/// In a sandbox that was made of the image.
async fn has_the_changes(blink: &Blink, image: &str) {
    // A machine's first boot of an image makes a disk of it, on an emulated host for half a minute.
    let boot_timeout = std::time::Duration::from_secs(120);
    let describing = describe_in(blink).image(image).boot_timeout(boot_timeout);
    let sandbox: Sandbox = ok(describing.create()).await;
    let script = "cat /data/kept; ls -A /data /data/again; cat /data/again/new
         stat -c '%n %a %u %s' /made/program /made/hole /made/owned
         stat -c %Y /made/program; stat -c %F /made/pipe
         cat /made/two; [ /made/two -ef /made/deep/one ] && stat -c %h /made/two
         readlink /made/link; ls /bin/wc 2>/dev/null; cat /etc/group; echo $A $S; pwd; id -u";
    let output = ok(sandbox.exec(Command::new("sh").args(["-c", script]))).await;
    let owner = match Capability::Users.is_there() {
        true => "1000",
        false => "0",
    };
    assert_eq!(
        output.text(),
        format!(
            "of the image\n/data:\nagain\nkept\n\n/data/again:\nnew\nnew\n\
             /made/program 4751 0 4\n/made/hole 644 0 300004\n/made/owned 640 {owner} 4\n\
             1000000000\nfifo\none\n2\n/data/kept\nroot:x:0:\nuser:x:1000:\nchanged\n1\n/work\n1000\n"
        ),
        "{}",
        shown(&output)
    );
    ok(sandbox.remove()).await;
}

fn skopeo(arguments: &[&str]) -> String {
    let output = HostCommand::new("skopeo").args(arguments).output();
    let output = output.expect("there is no skopeo here; `scripts/setup test` installs it");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn read_json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn manifest(layout: &Path) -> Value {
    let index = read_json(layout.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    read_json(layout.join("blobs").join(digest.replace(':', "/")))
}

fn digests(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().unwrap();
    layers
        .iter()
        .map(|layer| layer["digest"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn an_image_is_of_a_checkpoint_and_a_session_of_an_image() {
    let blink = blink().await;
    let folder = tempfile::tempdir().unwrap();
    let session = open(&blink, &image(folder.path())).await;
    says(&session, "echo 1 >/data/file; sync").await;
    ok(session.checkpoint("first")).await;
    says(&session, "echo 2 >/data/file; rm /data/kept; sync").await;
    let first = folder.path().join("first");
    let options = ExportOptions::default().checkpoint("first");
    ok(session.export_oci_with(&first, options.clone())).await;
    let archive = folder.path().join("first.boxlite");
    ok(session.export_with(&archive, options)).await;
    assert_eq!(says(&session, "cat /data/file").await, "2");
    let missing = ExportOptions::default().checkpoint("missing");
    let never = folder.path().join("never");
    fails(
        ErrorKind::NotFound,
        session.export_oci_with(&never, missing.clone()),
    )
    .await;
    fails(ErrorKind::NotFound, session.export_with(&never, missing)).await;
    assert!(!never.exists());

    let describing = describe(&blink, "two").image(first.to_str().unwrap());
    let two = ok(describing.user("root").current_dir("/").open()).await;
    let three = ok(describe(&blink, "three").import(&archive)).await;
    for session in [&two, &three] {
        assert_eq!(
            says(session, "cat /data/file /data/kept").await,
            "1\nof the image"
        );
    }
    // Once more, over that.
    says(&two, "rm /data/file /data/gone; sync").await;
    let second = folder.path().join("second");
    ok(two.export_oci(&second)).await;
    let describing = describe(&blink, "four").image(second.to_str().unwrap());
    let four = ok(describing.user("root").current_dir("/").open()).await;
    assert_eq!(says(&four, "ls /data").await, "again\nkept");
}

#[tokio::test]
async fn what_cannot_become_an_image_leaves_nothing() {
    let blink = blink().await;
    let folder = tempfile::tempdir().unwrap();
    let host = ok(describe(&blink, "host").open()).await;
    let goal = folder.path().join("goal");
    let error = fails(ErrorKind::Unsupported, host.export_oci(&goal)).await;
    assert!(error.message().contains("host"), "{error:?}");
    ok(host.remove()).await;

    let session = open(&blink, &image(folder.path())).await;
    let missing = folder.path().join("no/folder");
    fails(ErrorKind::NotFound, session.export_oci(&missing)).await;
    let taken = folder.path().join("base");
    let error = fails(ErrorKind::InvalidArgument, session.export_oci(&taken)).await;
    assert!(error.message().contains("base"), "{error:?}");
    says(&session, "echo x >/data/.wh.kept; sync").await;
    let error = fails(ErrorKind::Unsupported, session.export_oci(&goal)).await;
    assert!(error.message().contains(".wh.kept"), "{error:?}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        says(&session, "rm /data/.wh.kept; cat /data/kept").await,
        "of the image"
    );
    // An empty folder is as good as none.
    fs::create_dir(&goal).unwrap();
    ok(session.export_oci(&goal)).await;
    assert!(goal.join("oci-layout").is_file());
}

#[tokio::test]
async fn what_a_session_was_made_with_comes_with_its_archive() {
    let (blink, other) = (blink().await, blink().await);
    let folder = tempfile::tempdir().unwrap();
    let base = image(folder.path());
    let archive = folder.path().join("one.boxlite");
    let describing = describe(&blink, "one")
        .image(base.to_str().unwrap())
        .processes(333)
        .env("S", "kept")
        .env("T", "theirs")
        .label("team", "blue")
        .label("kind", "theirs")
        .user("root")
        .current_dir("/data")
        .idle_stop(std::time::Duration::from_secs(1000))
        .mount(blink_core::Mount::new(&base, "/mounted").read_only());
    let session = ok(describing.open()).await;
    ok(ok(session.files())
        .await
        .write("/data/large", noise(9 << 20)))
    .await;
    says(&session, "sync").await;
    ok(session.stop()).await;
    ok(session.export(&archive)).await;

    // The image is none that a registry has.
    let importing = describe(&other, "two").import(&archive);
    let error = fails(ErrorKind::ImageUnavailable, importing).await;
    assert!(error.message().contains("--image"), "{error:?}");
    assert!(other.folders().is_empty());
    ok(other.pull(base.to_str().unwrap()).run()).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = told.clone();
    let importing = describe(&other, "two")
        .env("T", "mine")
        .label("kind", "mine")
        .import_progress(move |progress| teller.lock().unwrap().push(progress))
        .import(&archive);
    let session = ok(importing).await;
    let told = told.lock().unwrap().clone();
    assert!(told.is_sorted_by_key(|progress| progress.bytes_done));
    let last = told.last().unwrap();
    assert!(last.bytes_done > 9 << 20, "{last:?}");
    assert_eq!(last.bytes_total, Some(last.bytes_done));
    let info = session.info().await;
    assert_eq!(info.image, base.to_str().unwrap());
    assert_eq!(info.resources.processes, 333);
    assert_eq!(info.idle_stop, Some(std::time::Duration::from_secs(1000)));
    let labels: Vec<_> = info.labels.iter().collect();
    assert_eq!(
        format!("{labels:?}"),
        r#"[("kind", "mine"), ("team", "blue")]"#
    );
    // Nothing of this machine is given for an archive's word.
    assert!(info.mounts.is_empty());
    let told = says(
        &session,
        "echo $S $T $A; pwd; wc -c </data/large; ls /mounted 2>/dev/null; :",
    )
    .await;
    assert_eq!(told, "kept mine 1\n/data\n9437184");
}

mod needs_users {
    use super::*;

    #[tokio::test]
    async fn a_session_becomes_an_image_that_others_read_and_start_from() {
        require(Capability::Users);
        let (blink, other) = (blink().await, blink().await);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let base = image(folder.path());
        let session = open(&blink, &base).await;
        change(&session).await;

        // While it runs; it goes on.
        ok(session.export_oci(at("running"))).await;
        assert!(session.info().await.running);
        ok(session.stop()).await;
        let told = Arc::new(Mutex::new(Vec::new()));
        let teller = told.clone();
        let options = ExportOptions::default().progress(move |progress| {
            teller.lock().unwrap().push(progress.bytes_done);
        });
        ok(session.export_oci_with(at("stopped"), options)).await;
        let told = told.lock().unwrap().clone();
        assert!(
            told.is_sorted() && *told.last().unwrap() > 300_000,
            "{told:?}"
        );
        ok(session.export_oci(at("image.tar"))).await;
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 4, "{left:?}");

        let made = manifest(&at("stopped"));
        let annotations = &made["annotations"];
        assert!(
            annotations["org.opencontainers.image.base.digest"].is_string(),
            "{annotations}"
        );
        if Engine::chosen() == Engine::Namespace {
            // The image's own layers, and one more; and always the same.
            let (made, of_base) = (digests(&made), manifest(&base));
            assert_eq!(made.len(), 3);
            assert_eq!(made[..2], digests(&of_base)[..]);
            let index = |name: &str| fs::read(at(name).join("index.json")).unwrap();
            assert_eq!(index("running"), index("stopped"));
        }
        let stopped = format!("oci:{}", at("stopped").display());
        let inspected: Value = serde_json::from_str(&skopeo(&["inspect", &stopped])).unwrap();
        assert_eq!(
            inspected["Layers"],
            made["layers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|layer| layer["digest"].clone())
                .collect::<Value>()
        );
        assert!(inspected["Env"].to_string().contains("A=1"), "{inspected}");
        assert!(
            !inspected["Env"].to_string().contains("secret"),
            "{inspected}"
        );
        skopeo(&[
            "copy",
            "--quiet",
            &stopped,
            &format!("oci:{}", at("copied").display()),
        ]);
        let tar = format!("oci-archive:{}", at("image.tar").display());
        skopeo(&[
            "copy",
            "--quiet",
            &tar,
            &format!("oci:{}", at("of-tar").display()),
        ]);
        ok(session.remove()).await;
        for name in ["running", "stopped", "copied", "image.tar", "of-tar"] {
            has_the_changes(&other, at(name).to_str().unwrap()).await;
        }
    }
}
