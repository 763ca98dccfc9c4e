//! A sandbox's disk: the upper folder of an overlay. A layer is such a folder that nobody writes to any more.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{id_base, userns};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;

/// What the overlay shows over the layers beneath it.
pub(super) const UPPER: &str = "upper";

/// What the overlay needs for itself.
pub(super) const WORK: &str = "work";

/// Makes what is not there yet.
pub(super) fn make(disk: &Path, id_base: Option<u32>) -> io::Result<()> {
    for name in [UPPER, WORK] {
        let path = disk.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        fault::step();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        if let Some(id) = id_base {
            std::os::unix::fs::chown(&path, Some(id), Some(id))?;
        }
    }
    userns::open_to_sandboxes(disk, id_base)
}

/// Copies what a disk holds, with owners, attributes and the overlay's own marks of what is gone. Shares blocks where the
/// file system can.
pub(super) fn copy(disk: &Path, layer: &Path) -> Result<()> {
    let failed = |error: &io::Error| Error::io("the sandbox's disk could not be kept", error);
    userns::open_to_sandboxes(layer, id_base()).map_err(|error| failed(&error))?;
    let output = Command::new("cp")
        .args(["--archive", "--reflink=auto", "--no-target-directory", "--"])
        .args([disk.join(UPPER), layer.join(UPPER)])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(&error))?;
    fault::step();
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let kind = match said.contains("No space left") {
        true => ErrorKind::ResourceExhausted,
        false => ErrorKind::Internal,
    };
    Err(Error::new(
        kind,
        format!("the sandbox's disk could not be kept: {}", said.trim()),
    ))
}
