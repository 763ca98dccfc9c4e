//! Folders and files whose modes are set, whatever the host process's mask would make of them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes a folder that only this user may use, with all that are missing above it.
pub fn make_folder(path: &Path) -> io::Result<()> {
    make_folders(path, 0o700)
}

/// Makes a folder that others may look into where they may pass to it, with all that are missing above it.
pub fn make_open_folder(path: &Path) -> io::Result<()> {
    make_folders(path, 0o755)
}

/// The mode of a folder that is there already stays.
fn make_folders(path: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
        .map(Path::to_owned)
        .collect();
    for folder in missing.into_iter().rev() {
        match make_new_folder(&folder, mode) {
            // Another process was faster.
            Err(_) if folder.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            made => made?,
        }
    }
    Ok(())
}

/// Makes a folder that must not be there yet.
pub fn make_new_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Opens a file that only this user may use, as the options say. A link there is not followed.
pub fn open_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Creates a file that only this user may use, or empties it. A link there is not followed.
pub fn create_file(path: &Path) -> io::Result<File> {
    open_file(
        path,
        File::options().write(true).create(true).truncate(true),
    )
}

/// Writes a file that only this user may use. A link there is not followed.
pub fn write_file(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    create_file(path)?.write_all(content.as_ref())
}
