//! Finding bubblewrap, in a version that can make overlays.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::child::{Launcher, Program};
use crate::error::{Error, ErrorKind, Result};

/// The first version with `--overlay`.
const OLDEST: (u32, u32) = (0, 11);

/// The names of the places where it may be told to be.
const FILE_VARIABLE: &str = "BLINK_BWRAP";
const RUNTIME_VARIABLE: &str = "BLINK_RUNTIME_DIR";

/// The first that works: what the environment names, what was installed beside this library, what `make setup` has put into
/// the cache, the system's, the one of the runtime that this library carries with it.
pub(crate) fn find(launcher: &Launcher) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()) {
        let named = PathBuf::from(named);
        return match version(launcher, &named)? {
            Ok(found) if found >= OLDEST => Ok(named),
            Ok((major, minor)) => Err(unavailable(&format!(
                "{FILE_VARIABLE} names {}, which is bubblewrap {major}.{minor}; it must be 0.11 or later",
                named.display()
            ))),
            Err(why) => Err(unavailable(&format!(
                "{FILE_VARIABLE} names {}, which {why}",
                named.display()
            ))),
        };
    }
    let mut too_old = None;
    for candidate in candidates() {
        match version(launcher, &candidate)? {
            Ok(found) if found >= OLDEST => return Ok(candidate),
            Ok(found) => too_old = Some((candidate, found)),
            Err(_) => {}
        }
    }
    // Last, because a release unpacks all of its runtime for it.
    if let Some(carried) = carried()
        && version(launcher, &carried)?.is_ok_and(|found| found >= OLDEST)
    {
        return Ok(carried);
    }
    let found = match too_old {
        Some((path, (major, minor))) => format!("{} is version {major}.{minor}", path.display()),
        None => "none was found".into(),
    };
    Err(unavailable(&format!(
        "namespaces need bubblewrap 0.11 or later, and {found}; run `make setup` in Blink's source tree, install \
         the package bubblewrap, or name one with {FILE_VARIABLE}"
    )))
}

#[cfg(feature = "microvm")]
fn carried() -> Option<PathBuf> {
    boxlite::util::find_binary("bwrap").ok()
}

#[cfg(not(feature = "microvm"))]
fn carried() -> Option<PathBuf> {
    None
}

fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(runtime) = std::env::var_os(RUNTIME_VARIABLE) {
        found.push(Path::new(&runtime).join("bwrap"));
    }
    found.extend(installed());
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    if let Some(Ok(runtimes)) = cache.map(|cache| fs::read_dir(cache.join("blink"))) {
        let mut runtimes: Vec<PathBuf> = runtimes
            .flatten()
            .map(|entry| entry.path().join("bwrap"))
            .collect();
        runtimes.sort();
        found.extend(runtimes.into_iter().rev());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path).map(|folder| folder.join("bwrap")));
    found.retain(|path| path.is_file());
    found
}

/// The one that was installed with the file that this code is in: a shared library, or else the program.
fn installed() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is one of this file's code, and there is room for the answer.
    let known = unsafe { libc::dladdr(installed as *const libc::c_void, info.as_mut_ptr()) };
    if known == 0 {
        return None;
    }
    // SAFETY: it was filled in, and zeros are an answer as well. The loader's string stays as long as the file is loaded.
    let name = unsafe {
        let name = info.assume_init().dli_fname;
        (!name.is_null()).then(|| std::ffi::CStr::from_ptr(name))
    }?;
    let file = fs::canonicalize(std::ffi::OsStr::from_bytes(name.to_bytes())).ok()?;
    Some(file.parent()?.join("blink").join("bwrap"))
}

/// Major and minor version of the program at `path`, or what is wrong with it.
///
/// # Errors
/// If no program can be started here.
fn version(launcher: &Launcher, path: &Path) -> Result<Result<(u32, u32), String>> {
    /// It prints a line.
    const PATIENCE: Duration = Duration::from_secs(10);
    let absolute = std::path::absolute(path).map_err(|error| Error::io(path.display(), &error))?;
    let program = Program::new(absolute).args(["--version"]);
    let output = match launcher.run(&program, PATIENCE) {
        Ok(output) => output,
        Err(error) if error.is_of_program() || error.kind() == std::io::ErrorKind::TimedOut => {
            return Ok(Err(format!("cannot be started ({error})")));
        }
        Err(error) => return Err(error.into_error("programs cannot be started here")),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(parse_version(&text).ok_or_else(|| "is not bubblewrap".into()))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("bubblewrap ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Copies the program into the home; once for each content.
pub(crate) fn copy_into(home: &Path, bubblewrap: &Path) -> Result<PathBuf> {
    let failed = |error: std::io::Error| {
        Error::io("bubblewrap could not be copied into Blink's home", &error)
    };
    let content = fs::read(bubblewrap).map_err(failed)?;
    let target = home.join("guest").join("bwrap");
    if fs::read(&target).is_ok_and(|known| known == content) {
        return Ok(target);
    }
    let folder = home.join("guest");
    crate::private::make_open_folder(&folder).map_err(failed)?;
    let mut temporary = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
    std::io::Write::write_all(&mut temporary, &content).map_err(failed)?;
    let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(temporary.path(), mode).map_err(failed)?;
    temporary
        .into_temp_path()
        .persist(&target)
        .map_err(|error| failed(error.error))?;
    Ok(target)
}

/// What bubblewrap says when it cannot make a sandbox, as an error of Blink's.
pub(crate) fn failure(said: &str) -> Error {
    let (kind, advice) = if said.contains("namespace") {
        let advice = "this machine lets this user make no user namespaces; allow them (sysctl user.max_user_namespaces, \
                      kernel.unprivileged_userns_clone, or the AppArmor profile of bwrap), or use another isolation";
        (ErrorKind::IsolationUnavailable, advice)
    } else if said.contains("overlay") && said.contains("not permitted") {
        (
            ErrorKind::IsolationUnavailable,
            "its kernel makes no overlays for users; it must be Linux 5.11 or later",
        )
    } else if said.contains("overlay") {
        let advice = "the file system that holds Blink's home takes no overlays (it may be an overlay itself, as in a \
                      container); name a home on ext4, xfs, btrfs or tmpfs with BLINK_HOME";
        (ErrorKind::IsolationUnavailable, advice)
    } else if said.contains("No space left") {
        (
            ErrorKind::ResourceExhausted,
            "free some space where Blink's home is, or name another home with BLINK_HOME",
        )
    } else {
        (
            ErrorKind::Internal,
            "run `blink doctor` to see what works on this machine",
        )
    };
    Error::new(
        kind,
        format!("the sandbox could not be booted: bubblewrap says {said:?}; {advice}"),
    )
}

fn unavailable(message: &str) -> Error {
    Error::new(ErrorKind::IsolationUnavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_becomes_an_error_of_the_right_kind() {
        let kind = |said| failure(said).kind();
        let forbidden =
            "No permissions to create a new namespace, likely because the kernel does not allow it";
        assert_eq!(kind(forbidden), ErrorKind::IsolationUnavailable);
        assert_eq!(
            kind("Creating new namespace failed: No space left on device"),
            ErrorKind::IsolationUnavailable
        );
        assert_eq!(
            kind("Can't mkdir /mnt/x: No space left on device"),
            ErrorKind::ResourceExhausted
        );
        assert!(
            failure("Can't bind mount")
                .message()
                .contains("Can't bind mount")
        );
    }

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(parse_version("bubblewrap 0.11.0\n"), Some((0, 11)));
        assert_eq!(parse_version("bubblewrap 1.0\n"), Some((1, 0)));
        assert_eq!(parse_version("something else"), None);
        assert!(parse_version("bubblewrap 0.8.0").unwrap() < OLDEST);
        assert!(parse_version("bubblewrap 1.0").unwrap() > OLDEST);
    }
}
