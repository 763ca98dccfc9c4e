//! The guest agent's binary: embedded in the library, and put into the home for engines to hand to sandboxes.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The agent that the build script made.
static EMBEDDED: &[u8] = include_bytes!(env!("BLINK_GUEST_PATH"));

/// The embedded agent's SHA-256, in hexadecimal.
const EMBEDDED_SHA256: &str = env!("BLINK_GUEST_SHA256");

/// At run time, names an agent to use instead of the embedded one.
const BINARY_VARIABLE: &str = "BLINK_GUEST_BINARY";

/// How much of the SHA-256 names a version's folder: 64 bits, plenty for one user's versions and short in a path.
const FOLDER_NAME_DIGITS: usize = 16;

const EXECUTABLE: u32 = 0o755;

/// Puts the agent at `<home>/guest/<version>/blink-guest` and returns that path.
///
/// The agent is alone in its folder, so that an engine can mount the folder in a sandbox. The version is the start of
/// the agent's SHA-256: a file that is there already is the right one and is used again, also by other processes.
///
/// Where the environment variable `BLINK_GUEST_BINARY` names a file, its content is used instead of the embedded agent.
///
/// # Errors
/// If `BLINK_GUEST_BINARY` names what is not an executable file, or the home cannot be written.
pub(crate) fn install(home: &Path) -> io::Result<PathBuf> {
    match env::var_os(BINARY_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => install_named(home, &path),
        None => install_embedded(home),
    }
}

/// As [`install`], whatever `BLINK_GUEST_BINARY` names: what runs on the host is Blink's own.
///
/// # Errors
/// If the home cannot be written.
pub(crate) fn install_embedded(home: &Path) -> io::Result<PathBuf> {
    install_bytes(home, EMBEDDED, EMBEDDED_SHA256)
}

/// Whether an installed agent is the embedded one.
pub(crate) fn is_embedded(installed: &Path) -> bool {
    let folder = installed.parent().and_then(Path::file_name);
    folder.is_some_and(|name| name == &EMBEDDED_SHA256[..FOLDER_NAME_DIGITS])
}

fn install_named(home: &Path, path: &OsStr) -> io::Result<PathBuf> {
    let path = Path::new(path);
    let explain = |kind, reason: &dyn std::fmt::Display| {
        io::Error::new(
            kind,
            format!("{BINARY_VARIABLE} names {}, which {reason}", path.display()),
        )
    };
    let metadata = fs::metadata(path)
        .map_err(|error| explain(error.kind(), &format_args!("cannot be used: {error}")))?;
    if !metadata.is_file() {
        return Err(explain(io::ErrorKind::InvalidInput, &"is not a file"));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(explain(
            io::ErrorKind::PermissionDenied,
            &"is not executable",
        ));
    }
    let bytes = fs::read(path)
        .map_err(|error| explain(error.kind(), &format_args!("cannot be read: {error}")))?;
    install_bytes(home, &bytes, &hex(&Sha256::digest(&bytes)))
}

fn install_bytes(home: &Path, agent: &[u8], sha256: &str) -> io::Result<PathBuf> {
    let folder = home.join("guest").join(&sha256[..FOLDER_NAME_DIGITS]);
    let installed = folder.join("blink-guest");
    if !is_installed(&installed, agent.len()) {
        blink_host::private::make_folder(&home.join("guest"))?;
        blink_host::private::make_open_folder(&folder)?;
        write_whole(&folder, &installed, agent)?;
    }
    Ok(installed)
}

/// The folder's name vouches for the content, and the size for a file system that lost the end of it in a crash.
fn is_installed(path: &Path, size: usize) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| {
        found.is_file()
            && found.len() == size as u64
            && found.permissions().mode() & 0o777 == EXECUTABLE
    })
}

/// Writes a file that appears whole or not at all, even if several processes write it at once.
fn write_whole(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".blink-guest-")
        .tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(EXECUTABLE))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PT_INTERP: u32 = 3;

    /// The types of a 64-bit little-endian ELF file's segments.
    fn segment_types(elf: &[u8]) -> Vec<u32> {
        let number = |range: std::ops::Range<usize>| {
            elf[range]
                .iter()
                .rev()
                .fold(0usize, |number, byte| number << 8 | usize::from(*byte))
        };
        let (table, entry_size, entries) = (number(32..40), number(54..56), number(56..58));
        (0..entries)
            .map(|entry| table + entry * entry_size)
            .map(|start| u32::try_from(number(start..start + 4)).unwrap())
            .collect()
    }

    fn names_in(folder: &Path) -> Vec<String> {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn embedded_agent_is_a_static_program_and_has_the_stated_checksum() {
        assert!(
            EMBEDDED.starts_with(b"\x7fELF\x02\x01"),
            "not 64-bit little-endian ELF"
        );
        assert!(
            !segment_types(EMBEDDED).contains(&PT_INTERP),
            "asks for a dynamic loader"
        );
        assert_eq!(hex(&Sha256::digest(EMBEDDED)), EMBEDDED_SHA256);
    }

    #[test]
    fn gives_an_executable_in_the_home_whatever_the_environment_names() {
        let home = tempfile::tempdir().unwrap();
        let agent = install(home.path()).unwrap();

        assert!(agent.starts_with(home.path()));
        assert_ne!(
            fs::metadata(&agent).unwrap().permissions().mode() & 0o111,
            0
        );
    }

    #[test]
    fn installs_an_executable_that_is_alone_in_its_folder() {
        let home = tempfile::tempdir().unwrap();
        let agent = install_embedded(home.path()).unwrap();

        assert!(agent.starts_with(home.path().join("guest")));
        assert_eq!(fs::read(&agent).unwrap(), EMBEDDED);
        assert_eq!(
            fs::metadata(&agent).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(names_in(agent.parent().unwrap()), ["blink-guest"]);
    }

    #[test]
    fn uses_an_installed_agent_again() {
        let home = tempfile::tempdir().unwrap();
        let first = install_embedded(home.path()).unwrap();
        let written = fs::metadata(&first).unwrap().modified().unwrap();

        assert_eq!(install_embedded(home.path()).unwrap(), first);
        assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn replaces_a_damaged_agent() {
        let home = tempfile::tempdir().unwrap();
        let agent = install_embedded(home.path()).unwrap();

        fs::write(&agent, &EMBEDDED[..100]).unwrap();
        install_embedded(home.path()).unwrap();
        assert_eq!(fs::read(&agent).unwrap(), EMBEDDED);

        fs::set_permissions(&agent, Permissions::from_mode(0o644)).unwrap();
        install_embedded(home.path()).unwrap();
        assert_eq!(
            fs::metadata(&agent).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn many_can_install_at_once() {
        let home = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    assert_eq!(
                        fs::read(install_embedded(home.path()).unwrap()).unwrap(),
                        EMBEDDED
                    )
                });
            }
        });
        assert_eq!(
            names_in(install_embedded(home.path()).unwrap().parent().unwrap()),
            ["blink-guest"]
        );
    }

    #[test]
    fn a_named_agent_is_installed_apart_from_the_embedded_one() {
        let home = tempfile::tempdir().unwrap();
        let named = home.path().join("other agent");
        fs::write(&named, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&named, Permissions::from_mode(0o700)).unwrap();

        let installed = install_named(home.path(), named.as_os_str()).unwrap();
        assert_eq!(fs::read(&installed).unwrap(), b"#!/bin/sh\n");
        assert_eq!(installed.file_name(), Some(OsStr::new("blink-guest")));
        assert_ne!(installed, install_embedded(home.path()).unwrap());
    }

    #[test]
    fn a_named_agent_that_cannot_run_is_an_error_that_names_it() {
        let home = tempfile::tempdir().unwrap();
        let plain = home.path().join("plain");
        fs::write(&plain, "").unwrap();
        fs::set_permissions(&plain, Permissions::from_mode(0o644)).unwrap();

        for (path, reason) in [
            (plain.as_path(), "is not executable"),
            (home.path(), "is not a file"),
            (Path::new("/nonexistent/agent"), "No such file"),
        ] {
            let message = install_named(home.path(), path.as_os_str())
                .unwrap_err()
                .to_string();
            assert!(message.contains("BLINK_GUEST_BINARY"), "{message}");
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(message.contains(reason), "{message}");
        }
    }
}
