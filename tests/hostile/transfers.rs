//! Sandboxes whose files are meant to lead a later write on the host elsewhere, and odd places on the host to write to.

#[path = "../../blink-image/tests/image/builder.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of images, which use all of it"
)]
mod builder;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use blink_core::{Command, ErrorKind, Sandbox, Session};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::support::{TestBlink, blink, fails, ok, within};

async fn sandbox(blink: &TestBlink) -> Sandbox {
    ok(blink.sandbox().image("host").create()).await
}

async fn says(sandbox: &Sandbox, script: &str) {
    let output = ok(sandbox.exec(Command::shell(script))).await;
    assert!(output.status.success(), "{script}: {output:?}");
}

/// A folder to write to, and beside it what must never be touched.
struct Arena(TempDir);

impl Arena {
    fn new() -> Arena {
        let arena = Arena(tempfile::tempdir().unwrap());
        fs::create_dir(arena.path("victim")).unwrap();
        fs::write(arena.path("victim/file"), "alive").unwrap();
        arena
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn assert_untouched(&self) {
        let file = self.path("victim/file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "alive");
        assert_eq!(fs::symlink_metadata(&file).unwrap().nlink(), 1);
        let names: Vec<_> = fs::read_dir(self.path("victim")).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    fn pipe(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }
}

#[tokio::test]
async fn what_was_planted_redirects_nothing() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let files = sandbox.files().unwrap();
    let arena = Arena::new();
    let out = arena.path("out");
    let victim = arena.path("victim");
    let plant = format!(
        "mkdir -p /tmp/p; cd /tmp/p; ln -s {0} folder; ln -s {0}/file file; ln -s {0}/new new; mkfifo pipe; echo x > kept; \
         ln kept again",
        victim.display()
    );
    says(&sandbox, &plant).await;
    ok(files.download("/tmp/p", &out)).await;
    assert!(
        fs::symlink_metadata(out.join("folder"))
            .unwrap()
            .is_symlink()
    );
    says(
        &sandbox,
        "cd /tmp/p; rm -r *; mkdir folder; echo evil > folder/file; echo evil > folder/more; echo evil > file; \
         echo evil > new; echo evil > pipe; echo evil > again",
    )
    .await;
    // One after another, under the names that lead elsewhere.
    for name in ["folder", "file", "new", "pipe"] {
        let from = Path::new("/tmp/p").join(name);
        let error = fails(ErrorKind::InvalidArgument, files.download_into(&from, &out)).await;
        assert!(error.message().contains(name), "{error:?}");
        arena.assert_untouched();
    }
    // A file that has two names keeps its content under the other.
    ok(files.download_into("/tmp/p/again", &out)).await;
    assert_eq!(fs::read_to_string(out.join("kept")).unwrap(), "x\n");
    // All together: what is there gives way.
    ok(files.download("/tmp/p", &out)).await;
    arena.assert_untouched();
    assert_eq!(
        fs::read_to_string(out.join("folder/more")).unwrap(),
        "evil\n"
    );
    assert_eq!(fs::read_to_string(out.join("pipe")).unwrap(), "evil\n");
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn rights_stay_in_the_sandbox() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let files = sandbox.files().unwrap();
    let arena = Arena::new();
    says(
        &sandbox,
        "mkdir /tmp/p; cp /bin/true /tmp/p/run; chmod 6755 /tmp/p/run; chmod 7777 /tmp/p",
    )
    .await;
    ok(files.download("/tmp/p", arena.path("out"))).await;
    ok(files.download_into("/tmp/p/run", arena.path("victim"))).await;
    for name in ["out", "out/run", "victim/run"] {
        let found = fs::metadata(arena.path(name)).unwrap();
        assert_eq!(found.mode() & 0o7000, 0, "{name}");
        assert_eq!(found.uid(), rustix::process::geteuid().as_raw(), "{name}");
    }
    ok(sandbox.remove()).await;
}

/// Takes what is written to it, in a thread, until its writer is gone.
fn reader(path: &Path) -> std::thread::JoinHandle<Vec<u8>> {
    let path = path.to_owned();
    std::thread::spawn(move || fs::read(path).unwrap())
}

/// What can be written to a place that a user names, with what comes there as its beginning.
async fn ways_out(blink: &TestBlink, arena: &Arena) -> (Sandbox, [Session; 2]) {
    let sandbox = sandbox(blink).await;
    says(&sandbox, "echo content > /tmp/file").await;
    let host = ok(blink.session("host").image("host").open()).await;
    let base = arena.path("base");
    let layer = builder::LayerTar::new().folder("tmp/", 0o777);
    builder::Layout::of(&base, &[builder::StoredLayer::gzip(layer)]);
    let image = blink.session("image").image(base.to_str().unwrap());
    (sandbox, [host, ok(image.open()).await])
}

/// What is written where `place` names it, by each way out; `name` is for a message.
async fn write_each(
    ways: &(Sandbox, [Session; 2]),
    place: impl Fn(&str) -> PathBuf,
    check: impl AsyncFn(&str, &Path, &[u8]),
) {
    let (sandbox, [host, image]) = ways;
    let path = place("download");
    ok(sandbox.files().unwrap().download("/tmp/file", &path)).await;
    check("download", &path, b"content").await;
    let path = place("export");
    ok(host.export(&path)).await;
    check("export", &path, b"manifest.json").await;
    let path = place("image.tar");
    ok(image.export_oci(&path)).await;
    check("image.tar", &path, b"blobs").await;
}

#[tokio::test]
async fn devices_and_pipes_are_written_to() {
    let blink = blink().await;
    let arena = Arena::new();
    let ways = ways_out(&blink, &arena).await;
    if rustix::process::geteuid().is_root() {
        let nowhere = |name: &str| {
            let path = arena.path(&format!("null-{name}"));
            let null = rustix::fs::makedev(1, 3);
            mknodat(
                CWD,
                &path,
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o666),
                null,
            )
            .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
            path
        };
        write_each(&ways, nowhere, async |_, path, _| {
            let found = fs::symlink_metadata(path).unwrap();
            assert!(found.file_type().is_char_device(), "{path:?}");
            assert_eq!(found.rdev(), rustix::fs::makedev(1, 3));
            assert_eq!(found.mode() & 0o777, 0o666);
        })
        .await;
    }
    let readers = std::sync::Mutex::new(Vec::new());
    let pipe = |name: &str| {
        let path = arena.pipe(&format!("pipe-{name}"));
        readers.lock().unwrap().push(reader(&path));
        path.with_file_name(format!("pipe-{name}"))
    };
    // Its name ends as the format asks for.
    write_each(&ways, pipe, async |_, path, begin| {
        let reader = readers.lock().unwrap().pop().unwrap();
        let content = tokio::task::spawn_blocking(|| reader.join().unwrap())
            .await
            .unwrap();
        assert!(content.starts_with(begin), "{path:?}");
        assert!(fs::symlink_metadata(path).unwrap().file_type().is_fifo());
    })
    .await;
    let (sandbox, [host, image]) = ways;
    // A folder comes to neither.
    says(&sandbox, "mkdir /tmp/folder").await;
    let pipe = arena.pipe("pipe");
    fails(
        ErrorKind::NotADirectory,
        sandbox.files().unwrap().download("/tmp/folder", &pipe),
    )
    .await;
    fails(ErrorKind::InvalidArgument, image.export_oci(&pipe)).await;
    // Nothing is left beside them.
    let left: Vec<_> = fs::read_dir(arena.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let socket = arena.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for error in [
        fails(
            ErrorKind::InvalidArgument,
            sandbox.files().unwrap().download("/tmp/file", &socket),
        )
        .await,
        fails(ErrorKind::InvalidArgument, host.export(&socket)).await,
    ] {
        assert!(error.message().contains("socket"), "{error:?}");
    }
    assert!(
        fs::symlink_metadata(&socket)
            .unwrap()
            .file_type()
            .is_socket()
    );
    ok(sandbox.remove()).await;
    ok(host.remove()).await;
    ok(image.remove()).await;
}

#[tokio::test]
async fn a_pipe_whose_reader_goes_is_an_error() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let arena = Arena::new();
    says(&sandbox, "head -c 1000000 /dev/zero > /tmp/file").await;
    let pipe = arena.pipe("pipe");
    let path = pipe.clone();
    let reading = std::thread::spawn(move || {
        let mut file = fs::File::open(path).unwrap();
        std::io::Read::read_exact(&mut file, &mut [0; 10]).unwrap();
    });
    let failed = within(sandbox.files().unwrap().download("/tmp/file", &pipe)).await;
    assert!(failed.unwrap_err().message().contains("pipe"));
    reading.join().unwrap();
    ok(sandbox.remove()).await;
}

#[tokio::test]
async fn links_that_a_user_names_are_followed_and_stay() {
    let blink = blink().await;
    let arena = Arena::new();
    let ways = ways_out(&blink, &arena).await;
    let link = |there: bool| {
        let arena = &arena;
        move |name: &str| {
            let target = arena.path(&format!("{there}-{name}-target.tar"));
            if there {
                fs::write(&target, "former").unwrap();
                fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
            }
            // Through another one, and relative.
            let (path, between) = (
                arena.path(&format!("{there}-{name}")),
                arena.path(&format!("{there}-{name}-between")),
            );
            symlink(between.file_name().unwrap(), &path).unwrap();
            symlink(&target, &between).unwrap();
            path
        }
    };
    for there in [true, false] {
        write_each(&ways, link(there), async |name, path, begin| {
            assert!(fs::symlink_metadata(path).unwrap().is_symlink());
            let target = arena.path(&format!("{there}-{name}-target.tar"));
            assert!(fs::symlink_metadata(&target).unwrap().is_file());
            assert!(fs::read(&target).unwrap().starts_with(begin), "{path:?}");
        })
        .await;
    }
    let (sandbox, [host, image]) = ways;
    let files = sandbox.files().unwrap();
    let round = arena.path("round");
    symlink("round", &round).unwrap();
    fails(
        ErrorKind::InvalidArgument,
        files.download("/tmp/file", &round),
    )
    .await;
    fails(ErrorKind::InvalidArgument, host.export(&round)).await;
    assert_eq!(fs::read_link(&round).unwrap(), Path::new("round"));

    // Folders, in the same way.
    let folder = arena.path("folder");
    fs::create_dir(arena.path("real")).unwrap();
    symlink("real", &folder).unwrap();
    ok(files.download("/tmp", &folder)).await;
    assert!(fs::symlink_metadata(&folder).unwrap().is_symlink());
    assert_eq!(
        fs::read_to_string(arena.path("real/file")).unwrap(),
        "content\n"
    );
    let error = within(files.download("/tmp/file", &folder))
        .await
        .unwrap_err();
    assert!(error.message().contains("folder"), "{error:?}");
    within(host.export(&folder)).await.unwrap_err();
    fails(ErrorKind::InvalidArgument, image.export_oci(&folder)).await;
    let empty = arena.path("empty");
    symlink(arena.path("made"), &empty).unwrap();
    ok(image.export_oci(&empty)).await;
    assert!(fs::symlink_metadata(&empty).unwrap().is_symlink());
    assert!(arena.path("made/oci-layout").is_file());
    ok(sandbox.remove()).await;
    ok(host.remove()).await;
    ok(image.remove()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_swapped_meanwhile_leads_nowhere() {
    let blink = blink().await;
    let sandbox = sandbox(&blink).await;
    let files = sandbox.files().unwrap();
    let arena = Arena::new();
    says(
        &sandbox,
        "mkdir -p /tmp/x /tmp/y/x/in; echo evil > /tmp/x/file; echo evil > /tmp/file; echo evil > /tmp/y/x/file",
    )
    .await;
    let out = arena.path("out");
    fs::create_dir(&out).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (folder, link) = (arena.path("a-folder"), arena.path("a-link"));
            fs::create_dir(&folder).unwrap();
            symlink(arena.path("victim"), &link).unwrap();
            let (name, file) = (out.join("x"), out.join("file"));
            while !done.load(Ordering::Relaxed) {
                let _ = fs::rename(&folder, &name);
                let _ = fs::rename(&name, arena.path("gone"));
                let _ = fs::rename(&link, &name);
                let _ = fs::rename(&name, &link);
                let _ = fs::remove_dir_all(arena.path("gone"));
                let _ = fs::create_dir(&folder);
                let _ = fs::remove_file(&file);
                let _ = symlink(arena.path("victim/file"), &file);
            }
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for _ in 0..100 {
                    let _ = within(files.download_into("/tmp/x", &out)).await;
                    let _ = within(files.download_into("/tmp/file", &out)).await;
                    let _ = within(files.download("/tmp/y", &out)).await;
                }
            });
        });
        done.store(true, Ordering::Relaxed);
    });
    arena.assert_untouched();
    ok(sandbox.remove()).await;
}
