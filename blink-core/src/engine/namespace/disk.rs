//! A sandbox's disk: the upper folder of an overlay. A layer is such a folder that nobody writes to any more.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use blink_archive::{
    ArchiveError, Limits, Ownership, PackOptions, Root, UnpackOptions, merge_overlay, pack_overlay,
    remove_tree, unpack_overlay,
};

use super::{id_base, userns};
use crate::error::{Error, ErrorKind, ROOM_ADVICE, Result};
use crate::fault::{self, Step};

/// What the overlay shows over the layers beneath it.
pub(super) const UPPER: &str = "upper";

/// What the overlay needs for itself.
pub(super) const WORK: &str = "work";

/// Layers beneath a disk, at most. Each costs every lookup of a name that is in none of those above it.
pub(super) const DEEPEST: usize = 32;

/// Makes what is not there yet.
pub(super) fn make(disk: &Path, id_base: Option<u32>) -> io::Result<()> {
    for name in [UPPER, WORK] {
        let path = disk.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        fault::before(Step::NamespaceDisk)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        if let Some(id) = id_base {
            std::os::unix::fs::chown(&path, Some(id), Some(id))?;
        }
    }
    userns::open_to_sandboxes(disk, id_base)
}

/// Makes one layer of several, the lowest first. Files are shared with them.
pub(super) fn merge(layers: &[PathBuf], into: &Path, id_base: Option<u32>) -> Result<()> {
    let failed = |error: &io::Error| Error::io("layers could not be merged", error);
    let archive_failed = |error: ArchiveError| match error.io_error() {
        Some(source) => failed(source),
        None => Error::new(
            ErrorKind::ResourceExhausted,
            format!("layers could not be merged: {error}"),
        ),
    };
    let mut roots = Vec::new();
    for layer in layers {
        // One that was never booted is empty.
        make(layer, id_base).map_err(|error| failed(&error))?;
        roots.push(Root::open(layer.join(UPPER)).map_err(archive_failed)?);
    }
    fault::before(Step::LayerMerge)
        .and_then(|()| make(into, id_base))
        .map_err(|error| failed(&error))?;
    let upper = Root::open(into.join(UPPER)).map_err(archive_failed)?;
    merge_overlay(&roots, &upper).map_err(archive_failed)?;
    fault::before(Step::LayerMerged).map_err(|error| failed(&error))
}

/// Copies what a disk holds, with owners, attributes and the overlay's own marks of what is gone. Shares blocks where the
/// file system can.
pub(super) fn copy(disk: &Path, layer: &Path) -> Result<()> {
    let failed = |error: &io::Error| Error::io("the sandbox's disk could not be kept", error);
    fault::before(Step::NamespaceDiskCopy)
        .and_then(|()| userns::open_to_sandboxes(layer, id_base()))
        .map_err(|error| failed(&error))?;
    let output = Command::new("cp")
        .args(["--archive", "--reflink=auto", "--no-target-directory", "--"])
        .args([disk.join(UPPER), layer.join(UPPER)])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Error::io(
                "the sandbox's disk could not be kept: cp cannot be started",
                &error,
            )
        })?;
    fault::before(Step::NamespaceDiskCopied).map_err(|error| failed(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if id_base().is_none() && says(&said, "Permission denied") {
        return copy_unreadable(disk, layer);
    }
    let (kind, advice) = match says(&said, "No space left on device") {
        true => (ErrorKind::ResourceExhausted, ROOM_ADVICE),
        false => (ErrorKind::Internal, ""),
    };
    Err(Error::new(
        kind,
        format!(
            "the sandbox's disk could not be kept: {}{advice}",
            said.trim()
        ),
    ))
}

/// Whether `cp` gives this reason. It stands at a line's end: before it are names of files, which programs in the sandbox
/// choose, and which `cp` quotes.
fn says(said: &str, reason: &str) -> bool {
    let reason = format!(": {reason}");
    said.lines().any(|line| line.ends_with(&reason))
}

/// As [`copy`], for an ordinary user whose sandbox holds files that their owner may not read: in there, that is no hindrance.
fn copy_unreadable(disk: &Path, layer: &Path) -> Result<()> {
    let failed = |error: ArchiveError| {
        let message = format!("the sandbox's disk could not be kept: {error}");
        match error.io_error() {
            Some(source) => Error::io(message, source),
            None => Error::new(ErrorKind::ResourceExhausted, message),
        }
    };
    let io_failed = |error: io::Error| Error::io("the sandbox's disk could not be kept", &error);
    let folder = fs::File::open(layer).map_err(io_failed)?;
    // What was copied before the first such file.
    remove_tree(folder.as_fd(), OsStr::new(UPPER)).map_err(failed)?;
    fs::create_dir(layer.join(UPPER)).map_err(io_failed)?;
    let from = [Root::open(disk.join(UPPER)).map_err(failed)?];
    let to = Root::open(layer.join(UPPER)).map_err(failed)?;
    let limits = Limits::default().with_total_bytes(u64::MAX);
    let pack = PackOptions::default()
        .with_ownership(Ownership::Ignore)
        .with_limits(limits);
    let unpack = UnpackOptions::default()
        .with_special_bits(true)
        .with_root_metadata(true)
        .with_limits(limits);
    // No pipe: whoever writes to one that nobody reads any more gets a signal, which may end the host.
    let (reader, writer) = UnixStream::pair().map_err(io_failed)?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| pack_overlay(&from, io::BufWriter::new(writer), &pack));
        let unpacked = unpack_overlay(reader, &to, None, &unpack);
        let packed = packing
            .join()
            .map_err(|_| Error::new(ErrorKind::Internal, "copying the sandbox's disk panicked"))?;
        // Where one of them has failed, the other only sees that the pipe has ended.
        match (packed, unpacked) {
            (Err(error), Err(ArchiveError::Truncated)) => Err(failed(error)),
            (_, Err(error)) | (Err(error), Ok(_)) => Err(failed(error)),
            (Ok(_), Ok(_)) => Ok(()),
        }
    })
}
