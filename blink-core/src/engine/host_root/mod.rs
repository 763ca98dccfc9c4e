//! The root folder of the image `host`: the machine's own programs, and nothing of its users.
//!
//! It is made once in the home and shared by all sandboxes, as the lower layer of their overlays. The machine's `/usr`
//! is mounted over it, read-only. The parts of `/etc` that programs cannot do without are copied, as each mount would
//! cost every start of a sandbox more than all of them together cost once.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use blink_host::private;
use blink_host::withheld::Withheld;

use crate::error::{Error, Result};
use crate::home::Home;

mod packages;
mod usage;

/// Changes whenever what is made here changes, so that an older home's is not taken for it.
const VERSION: u32 = 4;

/// Folders of the root, with their modes. The agent lives in `.blink`.
const FOLDERS: &[(&str, u32)] = &[
    (".blink", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/ssl", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/blink", 0o755),
    ("var/blink/memory", 0o777),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
         user:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    (
        "etc/group",
        "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:\nuser:x:1000:\nnogroup:x:65534:\n",
    ),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
    ("etc/host.conf", "multi on\n"),
    ("etc/shells", "/bin/sh\n/bin/bash\n"),
];

/// Folders of the root that are links into `/usr` on most machines, and folders of their own on others.
const PROGRAM_FOLDERS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Parts of the machine's `/etc` that programs of `/usr` need to start or to work, that tell nothing about the machine's
/// users, and that no package has brought as they are.
const TAKEN_OF_ETC: &[&str] = &[
    "R/Renviron",
    "alternatives",
    "ca-certificates",
    "fonts",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "pam.d",
    "perl",
    "pki",
    "protocols",
    "python3",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "texmf",
    "timezone",
    "xml",
];

/// The root folder, and what is mounted over it.
pub(crate) struct HostRoot {
    pub(crate) path: PathBuf,
    /// Nobody removes it while this is open, here or in the launcher of a sandbox that has it.
    pub(crate) used: Withheld,
    /// Paths that the sandbox sees as they are on the host, read-only.
    pub(crate) shown: Vec<PathBuf>,
}

/// Makes the root folder, once for each home.
pub(crate) fn prepare(home: &Home, id_base: Option<u32>) -> Result<HostRoot> {
    let links: Vec<(&str, PathBuf)> = PROGRAM_FOLDERS
        .iter()
        .filter_map(|name| Some((*name, fs::read_link(Path::new("/").join(name)).ok()?)))
        .collect();
    let own: Vec<&str> = PROGRAM_FOLDERS
        .iter()
        .copied()
        .filter(|name| {
            fs::symlink_metadata(Path::new("/").join(name)).is_ok_and(|found| found.is_dir())
        })
        .collect();
    let taken_of_etc: Vec<(&str, SystemTime)> = TAKEN_OF_ETC
        .iter()
        .filter_map(|name| {
            Some((
                *name,
                fs::metadata(Path::new("/etc").join(name))
                    .ok()?
                    .modified()
                    .ok()?,
            ))
        })
        .collect();

    // The name tells what it was made from: another machine's links, another owner, or a later state of what is taken
    // make another folder.
    let packages = packages::changed();
    let description =
        format!("{VERSION} {id_base:?} {links:?} {own:?} {taken_of_etc:?} {packages:?}");
    let name = format!(
        "{}{:08x}",
        usage::PREFIX,
        crc32fast::hash(description.as_bytes())
    );
    let path = home.path().join(name);
    let used = loop {
        if let Some(used) = usage::share(&path).map_err(|error| failed(&error))? {
            break used;
        }
        let temporary = tempfile::tempdir_in(home.path()).map_err(|error| failed(&error))?;
        make(temporary.path(), &links, &own, &taken_of_etc, id_base)
            .map_err(|error| failed(&error))?;
        match fs::rename(temporary.path(), &path) {
            // Another process was faster.
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(failed(&error)),
            Ok(()) => {
                drop(temporary.keep());
                usage::remove_others(home.path(), &path);
            }
        }
    };
    let mut shown = vec![PathBuf::from("/usr")];
    shown.extend(own.into_iter().map(|name| Path::new("/").join(name)));
    Ok(HostRoot { path, used, shown })
}

fn make(
    root: &Path,
    links: &[(&str, PathBuf)],
    own: &[&str],
    taken_of_etc: &[(&str, SystemTime)],
    id_base: Option<u32>,
) -> std::io::Result<()> {
    fs::set_permissions(root, PermissionsExt::from_mode(0o755))?;
    let give = |path: &Path| match id_base {
        Some(id) => chown(path, Some(id), Some(id)),
        None => Ok(()),
    };
    give(root)?;
    for (name, mode) in FOLDERS
        .iter()
        .copied()
        .chain(own.iter().map(|name| (*name, 0o755)))
    {
        let path = root.join(name);
        private::make_new_folder(&path, mode)?;
        give(&path)?;
    }
    for (name, content) in FILES {
        private::write_file(&root.join(name), content)?;
        fs::set_permissions(root.join(name), PermissionsExt::from_mode(0o644))?;
        give(&root.join(name))?;
    }
    for (name, target) in links {
        symlink(target, root.join(name))?;
    }
    symlink("/proc/self/mounts", root.join("etc/mtab"))?;
    let taken = taken_of_etc.iter().map(|(name, _)| PathBuf::from(name));
    for name in taken.chain(packages::unchanged_files()) {
        let (from, to) = (Path::new("/etc").join(&name), root.join("etc").join(&name));
        if to.symlink_metadata().is_ok() {
            continue;
        }
        make_folders_above(&root.join("etc"), &name, &give)?;
        copy_public(&from, &to, &give)?;
    }
    let user_home = root.join("home/user");
    private::make_new_folder(&user_home, 0o755)?;
    if let Some(id) = id_base {
        const USER: u32 = 1000;
        chown(&user_home, Some(id + USER), Some(id + USER))?;
    }
    Ok(())
}

fn make_folders_above(
    etc: &Path,
    name: &Path,
    give: &impl Fn(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut folder = etc.to_owned();
    for part in name.parent().into_iter().flatten() {
        folder.push(part);
        if folder.symlink_metadata().is_err() {
            private::make_new_folder(&folder, 0o755)?;
            give(&folder)?;
        }
    }
    Ok(())
}

/// Copies what everybody may read; the rest is nobody's business in a sandbox either.
fn copy_public(
    from: &Path,
    to: &Path,
    give: &impl Fn(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut left = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = left.pop() {
        if !copy_one(&from, &to)? {
            continue;
        }
        let found = fs::symlink_metadata(&to)?;
        if found.is_dir() {
            for entry in fs::read_dir(&from)? {
                let entry = entry?;
                left.push((entry.path(), to.join(entry.file_name())));
            }
        }
        if !found.is_symlink() {
            give(&to)?;
        }
    }
    Ok(())
}

/// Copies a file or link, or makes an empty folder; whether it did.
fn copy_one(from: &Path, to: &Path) -> std::io::Result<bool> {
    const OTHERS_MAY_READ: u32 = 0o004;
    let found = fs::symlink_metadata(from)?;
    if found.is_symlink() {
        return symlink(fs::read_link(from)?, to).map(|()| true);
    }
    if found.permissions().mode() & OTHERS_MAY_READ == 0 {
        return Ok(false);
    }
    if found.is_dir() {
        private::make_new_folder(to, 0o755)?;
    } else if found.is_file() {
        fs::copy(from, to)?;
        fs::set_permissions(to, PermissionsExt::from_mode(0o644))?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn failed(error: &std::io::Error) -> Error {
    Error::io(
        "the root folder for sandboxes could not be made in Blink's home",
        error,
    )
}
