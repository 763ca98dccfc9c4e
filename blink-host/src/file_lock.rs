//! Locks between processes, and who holds one.
//!
//! The kernel releases a lock when its holder ends, however it ends. Neither the programs that Blink starts
//! nor the children that the embedding program forks inherit it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::holder::{Held, Holder};
use crate::process::start_of;
use crate::withheld::Withheld;

/// How long others are waited for that hold a lock for a moment: one that is stopped meanwhile is not waited for longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often is looked whether a lock has become free.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Who else may have a lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Nobody.
    Alone,
    /// Others who share it.
    Shared,
}

impl Share {
    fn operation(self) -> FlockOperation {
        match self {
            Share::Alone => FlockOperation::NonBlockingLockExclusive,
            Share::Shared => FlockOperation::NonBlockingLockShared,
        }
    }
}

/// A lock on a file or folder, held while this lives.
#[derive(Debug)]
pub struct FileLock {
    file: Withheld,
    share: Share,
    signed: bool,
}

/// Why there is no lock.
#[derive(Debug)]
pub enum NotLocked {
    /// Others held it for all of the time that it was waited for.
    Held(Held),
    /// The kernel refused it.
    Failed(io::Error),
}

impl FileLock {
    /// Takes the lock of an open file, once whoever has it lets go.
    pub fn take(file: File, share: Share, patience: Duration) -> Result<FileLock, NotLocked> {
        let deadline = Instant::now() + patience;
        let file = Withheld::new(file);
        while !lock(file.file(), share).map_err(NotLocked::Failed)? {
            if Instant::now() >= deadline {
                let holder = holder(file.file());
                return Err(NotLocked::Held(Held { holder, patience }));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(FileLock {
            file,
            share,
            signed: false,
        })
    }

    /// Takes the lock of an open file where nobody has it.
    pub fn try_take(file: File, share: Share) -> io::Result<Option<FileLock>> {
        let file = Withheld::new(file);
        Ok(lock(file.file(), share)?.then(|| FileLock {
            file,
            share,
            signed: false,
        }))
    }

    /// Says in the file who holds it, for those who may not look into this process. On a full disk they are not told, and
    /// where several share it, none of them is named.
    pub fn sign(&mut self) {
        if self.share == Share::Shared {
            return;
        }
        let text = Signature::of_this_process();
        self.signed = self
            .file()
            .set_len(0)
            .and_then(|()| self.file().write_all_at(text.as_bytes(), 0))
            .is_ok();
    }

    /// Whether it is this process's alone from now on, where others could share it.
    pub fn try_alone(&self) -> bool {
        self.is_here() && lock(self.file(), Share::Alone).unwrap_or(false)
    }

    /// Shares it from now on, with whoever comes. For a moment nobody has it.
    pub fn share(&self) -> io::Result<bool> {
        lock(self.file(), Share::Shared)
    }

    /// Whether this is still the process that took it, and not a child that was forked since.
    pub fn is_here(&self) -> bool {
        self.file.is_here()
    }

    /// The file that is locked.
    pub fn file(&self) -> &File {
        self.file.file()
    }
}

/// `false` while others have it.
fn lock(file: &File, share: Share) -> io::Result<bool> {
    loop {
        match rustix::fs::flock(file, share.operation()) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.signed {
            let _ = self.file().set_len(0);
        }
        // Said, not left to the closing: a child that is just being started has the same open file for a moment longer.
        let _ = rustix::fs::flock(self.file(), FlockOperation::Unlock);
    }
}

/// Opens a file that is only there to be locked. What is a link there is not followed.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    // Whatever the host process's mask has made of it.
    if file.metadata()?.permissions().mode() & 0o777 != 0o600 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Opens a file that is there to be locked; one that is not there is not made.
pub fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Who has the lock of a file: whoever has signed it, if that is alive, or else whoever is seen to have it.
pub fn holder(file: &File) -> Holder {
    let pid = Signature::read(file).or_else(|| {
        let metadata = file.metadata().ok()?;
        seen_holder(&metadata, "FLOCK")
    });
    Holder::of_process(pid)
}

/// Who has a lock of the other kind, such as SQLite's, on a file. The file is not opened: closing it would let go of all
/// locks that this process has on it.
pub fn holder_of_records(path: &Path) -> Holder {
    let metadata = fs::symlink_metadata(path).ok();
    Holder::of_process(metadata.and_then(|metadata| seen_holder(&metadata, "POSIX")))
}

/// The number and the start of a process: numbers are used again.
struct Signature;

impl Signature {
    fn of_this_process() -> String {
        let pid = std::process::id();
        match i32::try_from(pid).ok().and_then(start_of) {
            Some(started) => format!("{pid} {started}"),
            None => pid.to_string(),
        }
    }

    /// Who has signed, if that is alive.
    fn read(file: &File) -> Option<u32> {
        let mut text = [0; 64];
        let length = file.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let mut numbers = text.split_ascii_whitespace();
        let pid: u32 = numbers.next()?.parse().ok()?;
        let started: u64 = numbers.next()?.parse().ok()?;
        (start_of(pid.try_into().ok()?)? == started).then_some(pid)
    }
}

/// Looks at all descriptors that this process may see for the one with the lock.
fn seen_holder(file: &fs::Metadata, kind: &str) -> Option<u32> {
    let inode = format!(":{} ", file.ino());
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        for descriptor in fs::read_dir(process.path().join("fdinfo"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(descriptor.path()).unwrap_or_default();
            let has_lock = text.lines().any(|line| {
                line.starts_with("lock:") && line.contains(kind) && line.contains(&inode)
            });
            let is_this = || {
                let target = process.path().join("fd").join(descriptor.file_name());
                fs::metadata(target)
                    .is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
            };
            if has_lock && is_this() {
                return Some(pid);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn held(path: &Path) -> String {
        match FileLock::take(open(path).unwrap(), Share::Alone, SHORT) {
            Err(NotLocked::Held(held)) => held.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn this_process_is_told_so_whether_it_has_signed_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut lock = FileLock::take(open(&path).unwrap(), Share::Alone, SHORT).unwrap();
        assert!(held(&path).contains("in use by this process"));
        lock.sign();
        assert!(held(&path).contains("in use by this process"));
        drop(lock);
        FileLock::take(open(&path).unwrap(), Share::Alone, SHORT).unwrap();
        assert_eq!(
            fs::read(&path).unwrap(),
            b"",
            "nobody is named who has let go"
        );
    }

    #[test]
    fn another_process_is_named_and_not_the_one_that_has_signed_and_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let mut child = Command::new("flock")
            .arg("--exclusive")
            .arg(&path)
            .args(["sh", "-c", "echo; read -r _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        // No process has the number of this one and an earlier start.
        for signature in ["", "x", &format!("{} 1", std::process::id())] {
            fs::write(&path, signature).unwrap();
            let said = held(&path);
            assert!(said.contains("another process (pid "), "{said}");
            assert!(
                !said.contains(&format!("pid {}:", std::process::id())),
                "{said}"
            );
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn who_shares_a_lock_does_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        let open = || File::open(folder.path()).unwrap();
        let _first = FileLock::take(open(), Share::Shared, SHORT).unwrap();
        let _second = FileLock::take(open(), Share::Shared, SHORT).unwrap();
        assert!(FileLock::take(open(), Share::Alone, SHORT).is_err());
    }

    #[test]
    fn a_link_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join("lock")).unwrap();
        open(&folder.path().join("lock")).unwrap_err();
        assert!(!folder.path().join("elsewhere").exists());
    }
}
