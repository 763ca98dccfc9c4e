//! Homes that others may look into, that belong to others, or that lead elsewhere; and locks that somebody holds for good.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command as HostCommand, Stdio};

use blink_core::{Blink, Error, ErrorKind};

use crate::inside::Inside as _;
use crate::support::{fails, isolation, ok};

async fn open(home: &Path) -> Result<Blink, Error> {
    Blink::builder()
        .home(home)
        .isolation(isolation())
        .build()
        .await
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// No user of this machine.
const SOMEBODY: u32 = 54321;

#[tokio::test]
async fn a_home_that_others_could_look_into_is_made_private() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    set_mode(&home, 0o755);
    let blink = ok(open(&home)).await;
    let session = ok(blink.session("one").env("SECRET", "x").open()).await;
    ok(session.exec(blink_core::Command::new("true"))).await;
    let private = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        let expected = if found.is_dir() { 0o710 } else { 0o600 };
        assert_eq!(
            mode(path) & !expected & 0o077,
            0,
            "{}: {:o}",
            path.display(),
            mode(path)
        );
    };
    private(&home);
    for entry in fs::read_dir(&home).unwrap() {
        let path = entry.unwrap().path();
        // The root of sandboxes' files belongs to their users.
        if !path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("host-")
        {
            private(&path);
        }
    }
    for name in ["blink.db", "blink.db-wal", "blink.db-shm"] {
        assert_eq!(mode(&home.join(name)), 0o600, "{name}");
    }
    let sandbox = home.join("sandboxes").join(session.id());
    for entry in fs::read_dir(sandbox).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
        }
    }
    ok(session.remove()).await;
    drop((session, blink));

    set_mode(&home, 0o777);
    set_mode(&home.join("blink.db"), 0o644);
    set_mode(&home.join("sandboxes"), 0o777);
    drop(ok(open(&home)).await);
    private(&home);
    private(&home.join("sandboxes"));
    assert_eq!(mode(&home.join("blink.db")), 0o600);
}

#[tokio::test]
async fn nothing_in_a_home_is_followed() {
    for name in ["sandboxes", "layers", "images", "guest", "blink.db"] {
        let folder = tempfile::tempdir().unwrap();
        let (home, target) = (folder.path().join("home"), folder.path().join("target"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&target).unwrap();
        set_mode(&target, 0o755);
        symlink(&target, home.join(name)).unwrap();
        let error = fails(ErrorKind::InvalidArgument, open(&home)).await;
        assert!(error.message().contains(name), "{error}");
        assert_eq!(mode(&target), 0o755);
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn the_way_to_a_home_may_go_through_ones_own_links() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("real")).unwrap();
    symlink("real", folder.path().join("link")).unwrap();
    let home = folder.path().join("link/home");
    let blink = ok(open(&home)).await;
    let output = ok(blink.run(blink_core::Command::new("true"))).await;
    assert!(output.status.success());
    assert!(folder.path().join("real/home/sandboxes").is_dir());
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_refused() {
    if !is_root() {
        // One that only root can make; the system's own will do.
        fails(ErrorKind::InvalidArgument, open(Path::new("/usr"))).await;
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let error = fails(ErrorKind::InvalidArgument, open(&home)).await;
    assert!(error.message().contains(&SOMEBODY.to_string()), "{error}");
    assert!(error.message().contains("BLINK_HOME"), "{error}");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);

    chown(&home, Some(0), Some(0)).unwrap();
    drop(ok(open(&home)).await);
    for name in ["sandboxes", "layers", "images"] {
        chown(home.join(name), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        let error = fails(ErrorKind::InvalidArgument, open(&home)).await;
        assert!(error.message().contains(name), "{error}");
        assert_eq!(fs::metadata(home.join(name)).unwrap().uid(), SOMEBODY);
        chown(home.join(name), Some(0), Some(0)).unwrap();
    }

    // Somebody's link, in a folder in which anybody may make one.
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    symlink(&home, shared.join("link")).unwrap();
    std::os::unix::fs::lchown(shared.join("link"), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let error = fails(ErrorKind::InvalidArgument, open(&shared.join("link"))).await;
    assert!(error.message().contains("link"), "{error}");
}

#[tokio::test]
async fn what_others_could_have_put_into_a_home_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    drop(ok(open(&home)).await);
    set_mode(&home.join("sandboxes"), 0o777);
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    set_mode(&elsewhere, 0o755);
    symlink(&elsewhere, home.join("sandboxes/0123456789ab")).unwrap();
    let error = fails(ErrorKind::InvalidArgument, open(&home)).await;
    assert!(error.message().contains("0123456789ab"), "{error}");
    assert_eq!(
        fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// A process that holds the lock of a file or folder, and does nothing else.
struct Holder(std::process::Child);

impl Holder {
    fn of(path: &Path) -> Holder {
        let mut child = HostCommand::new("flock")
            .arg("--exclusive")
            .arg(path)
            .args(["sh", "-c", "echo; read -r _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_lock_that_is_held_for_good_is_not_waited_for_for_ever_and_its_holder_named() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let blink = ok(open(&home)).await;
    let session = ok(blink.session("one").open()).await;
    ok(session.stop()).await;
    drop(session);
    // Of `flock` and its child, which has the same open file, either holds it.
    let names = |error: &Error| {
        assert!(error.message().contains("another process (pid "), "{error}");
        let own = format!("(pid {})", std::process::id());
        assert!(!error.message().contains(&own), "{error}");
    };
    {
        let _holder = Holder::of(&home.join("sandboxes"));
        names(&fails(ErrorKind::Busy, open(&home)).await);
        names(&fails(ErrorKind::Busy, blink.sandbox().create()).await);
    }
    {
        let _holder = Holder::of(&home.join("layers"));
        names(&fails(ErrorKind::Busy, blink.session("two").open()).await);
    }
    let session = ok(blink.session("one").open()).await;
    ok(session.remove()).await;
}
