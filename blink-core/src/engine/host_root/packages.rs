//! What the packages of a Debian machine have put into its `/etc`, as they have put it there.
//!
//! A program finds its settings there: Java its security, Maven its launcher, PAM its rules. What the machine's
//! administrator has changed may hold a password, and is left out; so is what no package has brought, such as the users.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use md5::{Digest as _, Md5};

const STATUS: &str = "/var/lib/dpkg/status";

/// Whoever has a larger one keeps data in it.
const LARGEST: u64 = 1 << 20;

/// When packages came or went last; `None` if there are none of this kind.
pub(super) fn changed() -> Option<SystemTime> {
    fs::metadata(STATUS).ok()?.modified().ok()
}

/// The files, below `/etc`.
pub(super) fn unchanged_files() -> Vec<PathBuf> {
    let status = fs::read(STATUS).unwrap_or_default();
    listed(&String::from_utf8_lossy(&status))
        .filter(|(path, sum)| is_unchanged(&Path::new("/etc").join(path), sum))
        .map(|(path, _)| path.into())
        .collect()
}

/// Each file of the packages' lists with the sum of what it was.
fn listed(status: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut is_list = false;
    status.lines().filter_map(move |line| {
        let Some(entry) = line.strip_prefix(' ') else {
            is_list = line.starts_with("Conffiles:");
            return None;
        };
        let mut words = entry.split(' ');
        match (is_list, words.next(), words.next(), words.next()) {
            (true, Some(path), Some(sum), None) => Some((path.strip_prefix("/etc/")?, sum)),
            // Another word says that it belongs to no package any more.
            _ => None,
        }
    })
}

fn is_unchanged(path: &Path, sum: &str) -> bool {
    let is_small =
        fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() <= LARGEST);
    is_small
        && fs::read(path).is_ok_and(|content| {
            let found = Md5::digest(content);
            let found = found.iter().map(|byte| format!("{byte:02x}"));
            found.collect::<String>() == sum
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_tell_their_files_and_what_they_were() {
        let status = "Package: a\nConffiles:\n /etc/a/b.conf 0123\n /etc/gone 4567 obsolete\n /opt/x 89\nDescription: d\n /etc/no 1\n\n\
                      Package: b\nConffiles:\n /etc/c newconffile\nVersion: 1\n";
        let found: Vec<_> = listed(status).collect();
        assert_eq!(found, [("a/b.conf", "0123"), ("c", "newconffile")]);
    }

    #[test]
    fn what_was_changed_is_told_from_what_was_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conf");
        std::fs::write(&path, "hello\n").unwrap();
        assert!(is_unchanged(&path, "b1946ac92492d2347c6235b4d2611184"));
        std::fs::write(&path, "password\n").unwrap();
        assert!(!is_unchanged(&path, "b1946ac92492d2347c6235b4d2611184"));
        std::os::unix::fs::symlink(&path, folder.path().join("link")).unwrap();
        std::fs::write(&path, "hello\n").unwrap();
        let link = folder.path().join("link");
        assert!(!is_unchanged(&link, "b1946ac92492d2347c6235b4d2611184"));
    }
}
