//! Who uses a made root: a machine that gets other packages gets another root, and the former goes when nothing runs on it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use blink_host::withheld::Withheld;
use rustix::fs::{FlockOperation, flock};

/// How the names of roots begin.
pub(super) const PREFIX: &str = "host-";

/// What an image made from one is called besides.
const IMAGE: &str = "oci";

/// Uses the root at a path for as long as what is returned is open; `None` if there is none.
pub(super) fn share(path: &Path) -> io::Result<Option<Withheld>> {
    loop {
        let folder = match File::open(path) {
            Ok(folder) => Withheld::new(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Whoever removes it has it for a moment.
        flock(folder.file(), FlockOperation::LockShared)?;
        let (opened, found) = (folder.file().metadata()?, fs::metadata(path));
        match found {
            Ok(found) if found.ino() == opened.ino() => return Ok(Some(folder)),
            _ => {}
        }
    }
}

/// Removes all roots but one that nobody uses, and the images that were made from them. What cannot be removed stays.
pub(super) fn remove_others(home: &Path, kept: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let is_root = name.to_str().is_some_and(|name| {
            let digits = name.strip_prefix(PREFIX).unwrap_or_default();
            digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        if is_root && path != kept {
            let _ = remove(home, &path);
        }
    }
}

fn remove(home: &Path, path: &Path) -> io::Result<()> {
    let folder = Withheld::new(File::open(path)?);
    flock(folder.file(), FlockOperation::NonBlockingLockExclusive)?;
    // Under its name it is whole or not at all.
    let trash = tempfile::tempdir_in(home)?;
    fs::rename(path, trash.path().join("root"))?;
    let image = path.with_extension(IMAGE);
    match fs::rename(image, trash.path().join("image")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    trash.close()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_somebody_uses_stays() {
        let home = tempfile::tempdir().unwrap();
        let root = |name: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.join("etc")).unwrap();
            path
        };
        let [kept, used, old] = ["host-00000001", "host-00000002", "host-00000003"].map(root);
        let image = root("host-00000003.oci");
        let other = root("host-is-mine");
        let in_use = share(&used).unwrap().unwrap();
        remove_others(home.path(), &kept);
        assert!(kept.is_dir() && used.is_dir() && other.is_dir());
        assert!(!old.exists() && !image.exists());
        drop(in_use);
        remove_others(home.path(), &kept);
        assert!(!used.exists());
        assert!(share(&used).unwrap().is_none());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    }
}
