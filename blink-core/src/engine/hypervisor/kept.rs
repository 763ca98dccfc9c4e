//! The answer of a trial, kept in Blink's home for as long as it holds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Hypervisor;

const FILE: &str = "hypervisor.json";

/// The trial's version: whoever changes what it tries asks anew.
const TRIAL: u32 = 1;

/// What is longer than this is not ours.
const LIMIT_BYTES: u64 = 4096;

/// What an answer is true of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    trial: u32,
    boot_id: String,
    device: Device,
}

/// The device, as it was made when the kernel's module was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    filesystem: u64,
    inode: u64,
    number: u64,
    changed_seconds: i64,
    changed_nanoseconds: i64,
}

impl Key {
    /// The key of the open device, if the machine tells what it takes.
    pub(super) fn of(device: &File) -> Option<Key> {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let metadata = device.metadata().ok()?;
        Some(Key {
            trial: TRIAL,
            boot_id: boot_id.trim().to_owned(),
            device: Device {
                filesystem: metadata.dev(),
                inode: metadata.ino(),
                number: metadata.rdev(),
                changed_seconds: metadata.ctime(),
                changed_nanoseconds: metadata.ctime_nsec(),
            },
        })
    }
}

/// An answer, and what it is true of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    key: Key,
    /// Why the hypervisor cannot be used; `None` if it can.
    problem: Option<String>,
}

impl Kept {
    pub(super) fn new(key: Key, hypervisor: &Hypervisor) -> Kept {
        Kept {
            key,
            problem: hypervisor.reason().map(str::to_owned),
        }
    }

    pub(super) fn is_for(&self, key: &Key) -> bool {
        self.key == *key
    }

    pub(super) fn hypervisor(&self) -> Hypervisor {
        match self.problem.clone() {
            None => Hypervisor::Usable,
            Some(reason) => Hypervisor::Unusable { reason },
        }
    }

    /// The kept answer, if there is one that is whole and for this key. Any other is as good as none.
    pub(super) fn read(home: &Path, key: &Key) -> Option<Kept> {
        let kept: Kept = serde_json::from_slice(&read(&home.join(FILE)).ok()?).ok()?;
        kept.is_for(key).then_some(kept)
    }

    /// Keeps the answer: whoever reads meanwhile gets the one before, or this one.
    pub(super) fn write(&self, home: &Path) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".hypervisor-")
            .tempfile_in(home)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.persist(home.join(FILE))?;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        // Whatever is there instead of the file must not be followed, or waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let mut content = Vec::new();
    match file.take(LIMIT_BYTES + 1).read_to_end(&mut content)? as u64 {
        ..=LIMIT_BYTES => Ok(content),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    fn key() -> Key {
        Key::of(&File::open("/dev/null").unwrap()).unwrap()
    }

    fn unusable() -> Hypervisor {
        Hypervisor::Unusable {
            reason: "it stopped".into(),
        }
    }

    fn home_with(hypervisor: &Hypervisor) -> TempDir {
        let home = tempfile::tempdir().unwrap();
        Kept::new(key(), hypervisor).write(home.path()).unwrap();
        home
    }

    #[test]
    fn an_answer_is_kept() {
        for hypervisor in [Hypervisor::Usable, unusable()] {
            let home = home_with(&hypervisor);
            let kept = Kept::read(home.path(), &key()).unwrap();
            assert_eq!(kept.hypervisor(), hypervisor);
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_later_answer_replaces_it() {
        let home = home_with(&unusable());
        Kept::new(key(), &Hypervisor::Usable)
            .write(home.path())
            .unwrap();
        let kept = Kept::read(home.path(), &key()).unwrap();
        assert_eq!(kept.hypervisor(), Hypervisor::Usable);
    }

    #[test]
    fn an_answer_of_another_boot_device_or_trial_is_none() {
        let home = home_with(&Hypervisor::Usable);
        let changes: [fn(&mut Key); 5] = [
            |key| key.trial += 1,
            |key| key.boot_id.push('0'),
            |key| key.device.inode += 1,
            |key| key.device.number += 1,
            |key| key.device.changed_nanoseconds += 1,
        ];
        for change in changes {
            let mut other = key();
            change(&mut other);
            assert_eq!(Kept::read(home.path(), &other), None, "{other:?}");
        }
    }

    #[test]
    fn a_damaged_or_foreign_file_is_no_answer() {
        let home = home_with(&Hypervisor::Usable);
        let path = home.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let mut longer = whole.clone();
        longer.resize(1 << 20, b' ');
        for content in [
            &b""[..],
            b"usable",
            b"{}",
            b"[null]",
            b"\xff\xfe",
            &whole[..whole.len() - 1],
            &[&whole[..], b"}"].concat(),
            &[b"[", &whole[..], b"]"].concat(),
            &whole[1..],
            &longer,
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(Kept::read(home.path(), &key()), None);
        }
        fs::write(&path, whole).unwrap();
        assert!(Kept::read(home.path(), &key()).is_some());
    }

    #[test]
    fn what_is_not_a_file_is_no_answer() {
        let home = home_with(&Hypervisor::Usable);
        let path = home.path().join(FILE);
        fs::rename(&path, home.path().join("elsewhere")).unwrap();
        assert_eq!(Kept::read(home.path(), &key()), None);
        symlink("elsewhere", &path).unwrap();
        assert_eq!(Kept::read(home.path(), &key()), None);
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        assert_eq!(Kept::read(home.path(), &key()), None);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(Kept::read(home.path(), &key()), None);
    }

    #[test]
    fn a_home_that_cannot_be_used_is_no_answer() {
        let home = home_with(&Hypervisor::Usable);
        fs::set_permissions(home.path().join(FILE), PermissionsExt::from_mode(0o000)).unwrap();
        if !rustix::process::geteuid().is_root() {
            assert_eq!(Kept::read(home.path(), &key()), None);
        }
        let nowhere = home.path().join("nowhere");
        assert_eq!(Kept::read(&nowhere, &key()), None);
        assert!(
            Kept::new(key(), &Hypervisor::Usable)
                .write(&nowhere)
                .is_err()
        );
    }
}
