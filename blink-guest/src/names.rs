//! What a sandbox is called, for the programs that look it up in files: `/etc/hostname` and `/etc/hosts`. An image has none of
//! its own, or those of the machine that it was made on. They are files like all others: what programs change in them stays.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FileType, fstat};

use crate::launch::sandbox::way::{End, NewRoot};

/// A longer file is nothing that a start should read.
const LONGEST: u64 = 256 << 10;

/// The address of the sandbox's own name, as Debian has it: one of the loopback's that is nobody else's.
const OWN_ADDRESS: &str = "127.0.1.1";

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Without this file, glibc asks the network before it reads `/etc/hosts`.
const LOOKUPS: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// Gives the sandbox that this runs in another name.
pub(crate) fn change_to(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes())?;
    write_down(&NewRoot::new(File::open("/")?.into()), name);
    Ok(())
}

/// Writes the name down beneath a root, wherever links lead there. A root in which that cannot be is left as it is.
pub(crate) fn write_down(root: &NewRoot, name: &str) {
    let own = format!("{name}\n");
    change(root, "/etc/hostname", |known| {
        (known != own).then(|| own.clone())
    });
    change(root, "/etc/hosts", |known| hosts(known, name));
    change(root, "/etc/nsswitch.conf", |known| {
        known.is_empty().then(|| LOOKUPS.to_owned())
    });
}

/// What `/etc/hosts` is to say; `None` where it says it.
fn hosts(known: &str, name: &str) -> Option<String> {
    let has = |wanted: &str| {
        known
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .any(|line| line.split_whitespace().skip(1).any(|word| word == wanted))
    };
    if has("localhost") && has(name) {
        return None;
    }
    let mut text = match has("localhost") {
        true => String::new(),
        false => LOCALHOST.to_owned(),
    };
    // Another name at this address was an earlier one of this sandbox, or of the one that it began with.
    let is_own = |line: &&str| line.split_whitespace().next() == Some(OWN_ADDRESS);
    for line in known.lines().filter(|line| !is_own(line)) {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!("{OWN_ADDRESS}\t{name}\n"));
    Some(text)
}

fn change(root: &NewRoot, path: &str, changed: impl FnOnce(&str) -> Option<String>) {
    let write = || -> io::Result<()> {
        let place = root
            .place(Path::new(path), End::File)
            .map_err(|_| io::ErrorKind::NotFound)?;
        let found = fstat(&place)?;
        let is_short = u64::try_from(found.st_size).is_ok_and(|size| size <= LONGEST);
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || !is_short {
            return Ok(());
        }
        let mut known = Vec::new();
        open(&place, File::options().read(true))?
            .take(LONGEST)
            .read_to_end(&mut known)?;
        match changed(&String::from_utf8_lossy(&known)) {
            Some(text) => {
                open(&place, File::options().write(true).truncate(true))?.write_all(text.as_bytes())
            }
            None => Ok(()),
        }
    };
    let _ = write();
}

fn open(place: impl AsFd, options: &std::fs::OpenOptions) -> io::Result<File> {
    options
        .clone()
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", place.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn written(set_up: impl FnOnce(&Path)) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        set_up(folder.path());
        let root = NewRoot::new(File::open(folder.path()).unwrap().into());
        write_down(&root, "box");
        folder
    }

    fn text(folder: &tempfile::TempDir, path: &str) -> String {
        std::fs::read_to_string(folder.path().join(path)).unwrap()
    }

    #[test]
    fn a_root_without_names_gets_them() {
        let folder = written(|_| {});
        assert_eq!(text(&folder, "etc/hostname"), "box\n");
        assert_eq!(
            text(&folder, "etc/hosts"),
            format!("{LOCALHOST}127.0.1.1\tbox\n")
        );
        assert_eq!(text(&folder, "etc/nsswitch.conf"), LOOKUPS);
    }

    #[test]
    fn what_was_written_stays_and_a_former_name_goes() {
        let folder = written(|root| {
            let etc = root.join("etc");
            std::fs::write(etc.join("hostname"), "other\n").unwrap();
            std::fs::write(etc.join("nsswitch.conf"), "hosts: files\n").unwrap();
            let hosts = "127.0.0.1 localhost # box\n127.0.1.1 other\n10.0.0.1 box.net\n";
            std::fs::write(etc.join("hosts"), hosts).unwrap();
        });
        assert_eq!(text(&folder, "etc/hostname"), "box\n");
        let hosts = "127.0.0.1 localhost # box\n10.0.0.1 box.net\n127.0.1.1\tbox\n";
        assert_eq!(text(&folder, "etc/hosts"), hosts);
        assert_eq!(text(&folder, "etc/nsswitch.conf"), "hosts: files\n");
        assert_eq!(super::hosts(hosts, "box"), None);
    }

    #[test]
    fn a_link_leads_where_it_leads_inside_and_other_files_are_left_alone() {
        let outside = tempfile::tempdir().unwrap();
        let folder = written(|root| {
            symlink(outside.path().join("hosts"), root.join("etc/hosts")).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                root.join("etc/hostname"),
                FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o600),
                0,
            )
            .unwrap();
        });
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let inside = outside.path().strip_prefix("/").unwrap().join("hosts");
        assert!(text(&folder, inside.to_str().unwrap()).contains("box"));
    }
}
