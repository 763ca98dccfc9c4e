//! Whose a home is, and whose all in it is: this user's alone.
//!
//! Whoever could write to the home could make Blink read and write elsewhere, and run a program of theirs; whoever can read
//! it reads the secrets of sessions. So what is this user's is made private, and what is not is refused.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::engine::namespace::id_base;
use crate::error::{Error, Result};

const OTHERS_MAY_DO_ANYTHING: u32 = 0o077;
const OTHERS_MAY_WRITE: u32 = 0o022;

/// Folders and files of Blink's own in a home.
const ENTRIES: [&str; 9] = [
    "sandboxes",
    "layers",
    "images",
    "guest",
    "microvm",
    "blink.db",
    "blink.db-wal",
    "blink.db-shm",
    "hypervisor.json",
];

/// Links on the way to a home, at most: as the kernel has it.
const MOST_LINKS: u32 = 40;

/// The home's path without links. A link of the user's own, or of the system's, is followed to what it names; one that
/// someone else could have made leads to someone else's.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let mut resolved = PathBuf::from("/");
    let mut rest: Vec<PathBuf> = components(path);
    let mut links = 0;
    while let Some(next) = rest.pop() {
        if next == Path::new("..") {
            resolved.pop();
            continue;
        }
        let here = resolved.join(&next);
        let Ok(found) = fs::symlink_metadata(&here) else {
            // It is to be made.
            resolved = here;
            continue;
        };
        if !found.is_symlink() {
            resolved = here;
            continue;
        }
        links += 1;
        if !is_trusted(found.uid()) || links > MOST_LINKS {
            return Err(Error::invalid(format!(
                "Blink's home {} goes through the link {}, which belongs to {}; name another home with BLINK_HOME, or \
                 make the link yourself",
                path.display(),
                here.display(),
                user(found.uid()),
            )));
        }
        let target = fs::read_link(&here).map_err(|error| Error::io(here.display(), &error))?;
        if target.is_absolute() {
            resolved = PathBuf::from("/");
        }
        rest.extend(components(&target));
    }
    Ok(resolved)
}

/// The last first.
fn components(path: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = path
        .components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| PathBuf::from(component.as_os_str()))
        .collect();
    names.reverse();
    names
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn user(uid: u32) -> String {
    match uid {
        0 => "root".into(),
        uid => format!("the user with the id {uid}"),
    }
}

/// Refuses the default home where `sudo` has left `HOME` as it was: what root makes there, the user could not use.
pub(super) fn refuse_home_of_sudo(folder: &Path) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let by = std::env::var("SUDO_UID")
        .ok()
        .and_then(|uid| uid.parse::<u32>().ok());
    let owner = fs::metadata(folder).map(|found| found.uid()).ok();
    if is_root && owner.is_some_and(|owner| owner != 0 && by == Some(owner)) {
        return Err(Error::invalid(format!(
            "HOME is {}, which belongs to the user who has called sudo; call sudo with -H, or name a home for Blink with \
             BLINK_HOME",
            folder.display()
        )));
    }
    Ok(())
}

/// Takes the home, which exists, for this user alone.
pub(super) fn take(home: &Path) -> Result<()> {
    let found = look(home)?
        .ok_or_else(|| Error::invalid(format!("Blink's home {} is gone", home.display())))?;
    if !found.is_dir() {
        return Err(Error::invalid(format!(
            "Blink's home {} is no folder; name another with BLINK_HOME",
            home.display()
        )));
    }
    refuse_foreign(home, home, &found)?;
    let was_open = close(home, &found)?;
    for name in ENTRIES {
        take_entry(home, &home.join(name))?;
    }
    if was_open {
        // Anybody may have put anything there before.
        for entry in entries(home)? {
            take_entry(home, &entry)?;
        }
    }
    Ok(())
}

fn take_entry(home: &Path, path: &Path) -> Result<()> {
    let Some(found) = look(path)? else {
        return Ok(());
    };
    if found.is_symlink() {
        return Err(Error::invalid(format!(
            "{} in Blink's home is a link, which is not followed; remove it, or name another home with BLINK_HOME",
            path.display()
        )));
    }
    refuse_foreign(home, path, &found)?;
    // A root folder that is made for sandboxes belongs to their users, and only they can pass to it.
    let is_root_folder = id_base() == Some(found.uid());
    if !is_root_folder && close(path, &found)? && found.is_dir() {
        for entry in entries(path)? {
            let Some(found) = look(&entry)? else { continue };
            if found.is_symlink() {
                take_entry(home, &entry)?;
            }
            refuse_foreign(home, &entry, &found)?;
        }
    }
    Ok(())
}

fn refuse_foreign(home: &Path, path: &Path, found: &Metadata) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if found.uid() == own || id_base() == Some(found.uid()) {
        return Ok(());
    }
    let what = match path == home {
        true => format!("Blink's home {}", home.display()),
        false => format!("{} in Blink's home", path.display()),
    };
    Err(Error::invalid(format!(
        "{what} belongs to {}, and this process is {}; name a home of your own with BLINK_HOME, or make it yours (chown \
         --recursive --no-dereference {own} {})",
        user(found.uid()),
        user(own),
        home.display()
    )))
}

/// Makes it private; says whether others could write to it. What is opened to sandboxes' own users, by their group, stays so.
fn close(path: &Path, found: &Metadata) -> Result<bool> {
    let mode = found.permissions().mode() & 0o7777;
    let private = match (found.is_dir(), id_base() == Some(found.gid())) {
        // Another Blink may have sandboxes in there right now.
        (true, true) => 0o710,
        (true, false) => 0o700,
        (false, _) => 0o600,
    };
    if mode & OTHERS_MAY_DO_ANYTHING & !private == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(private)).map_err(|error| {
        Error::io(
            format!(
                "{} in Blink's home can be read by others, and cannot be made private; do that (chmod {private:o} {0}), \
                 or name another home with BLINK_HOME",
                path.display()
            ),
            &error,
        )
    })?;
    tracing::info!(path = %path.display(), "made private");
    Ok(mode & OTHERS_MAY_WRITE != 0)
}

fn look(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(
            format!(
                "Blink's home {} cannot be used; name another with BLINK_HOME",
                path.display()
            ),
            &error,
        )),
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: io::Error| Error::io(folder.display(), &error);
    let listed = fs::read_dir(folder).map_err(failed)?;
    listed
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}
