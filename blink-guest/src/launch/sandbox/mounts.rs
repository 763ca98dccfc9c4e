//! Mounts that have no place yet: each is a descriptor, from when its source was opened until it is put where a descriptor
//! of the new root says. Between the two, nothing has a path.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::super::Failure;
use super::users::Namespace;

const CANNOT_BE_MOUNTED: &str = "cannot be mounted";

/// No device and no program of another user's rights is ever one by a mount of a sandbox.
pub(super) const HARMLESS: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// What nobody can change besides.
pub(super) const READ_ONLY: MountAttrFlags = HARMLESS.union(MountAttrFlags::MOUNT_ATTR_RDONLY);

/// A copy of a mount from a file or folder on, with what is mounted beneath.
pub(super) fn copy(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(rustix::fs::CWD, path, flags).map_err(Failure::at(path, CANNOT_BE_MOUNTED))
}

/// The same of what a descriptor names, which must be of this process's mount namespace.
pub(super) fn copy_all_of(place: impl AsFd, shown: &Path) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(place, c"", flags).map_err(Failure::at(shown, CANNOT_BE_MOUNTED))
}

/// The same without what is mounted beneath.
pub(super) fn copy_of(place: impl AsFd, shown: impl AsRef<Path>) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(place, c"", flags).map_err(Failure::at(shown.as_ref(), CANNOT_BE_MOUNTED))
}

/// A file system of its own.
pub(super) fn new(
    kind: &CStr,
    options: &[(&str, String)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Failure> {
    let made = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, value) in options {
            fsconfig_set_string(&context, *name, value.as_str())?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    made().map_err(Failure::at(
        kind.to_string_lossy().into_owned(),
        CANNOT_BE_MOUNTED,
    ))
}

/// Puts a mount over what a descriptor names.
pub(super) fn put(
    mount: impl AsFd,
    place: impl AsFd,
    shown: impl AsRef<Path>,
) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", place, c"", flags)
        .map_err(Failure::at(shown.as_ref(), "cannot be mounted on"))
}

/// Sets attributes of a mount, and of those beneath it.
pub(super) fn restrict(
    mount: impl AsFd,
    attributes: MountAttrFlags,
    shown: impl AsRef<Path>,
) -> Result<(), Failure> {
    set_attributes(
        mount.as_fd(),
        attributes,
        libc::AT_RECURSIVE,
        shown.as_ref(),
    )
}

/// The same without those beneath it.
pub(super) fn restrict_alone(
    mount: impl AsFd,
    attributes: MountAttrFlags,
    shown: impl AsRef<Path>,
) -> Result<(), Failure> {
    set_attributes(mount.as_fd(), attributes, 0, shown.as_ref())
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttrFlags,
    depth: i32,
    shown: &Path,
) -> Result<(), Failure> {
    let wanted = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    set(mount, &wanted, depth).map_err(Failure::at(shown, "cannot be restricted"))
}

/// Lets a mount's owners be a user namespace's. Not every file system can.
pub(super) fn map_owners(mount: &OwnedFd, namespace: &Namespace) -> io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.descriptor().as_raw_fd()).unwrap_or_default(),
    };
    set(mount.as_fd(), &wanted, 0)
}

fn set(mount: BorrowedFd<'_>, wanted: &libc::mount_attr, flags: i32) -> io::Result<()> {
    // SAFETY: the path is a NUL-terminated string, and the size is that of the struct.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(wanted),
            size_of::<libc::mount_attr>(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
