//! What a sandbox is made of, opened once.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use blink_wire::{
    FileIdentity, LAUNCH_OVERLAY, LAUNCH_REPLACED, MountPlan, PathBytes, SandboxPlan,
};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fremovexattr, fstat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen,
};

use super::super::Failure;
use super::mounts::{self, HARMLESS, READ_ONLY};
use super::users::Namespace;

/// Devices of the host that every sandbox has.
pub(super) const DEVICES: [&str; 6] = ["null", "full", "random", "tty", "urandom", "zero"];

/// The step in which the kernel or a file system lets files have no other owners than they have.
pub(super) const LAUNCH_OWNERS: &str = "cannot have a sandbox's own users";

/// The first of them.
pub(super) const NULL: usize = 0;

pub(super) struct Sources {
    /// The root: an overlay.
    pub(super) root: OwnedFd,
    /// The agent's folder, and the disk beneath the overlay that is seen in it.
    pub(super) agent: OwnedFd,
    pub(super) disk: OwnedFd,
    /// In the order of the plan.
    pub(super) shown: Vec<OwnedFd>,
    pub(super) resolver: Option<OwnedFd>,
    pub(super) mounts: Vec<OwnedFd>,
    /// The host's, where the sandbox has the host's network.
    pub(super) sys: Option<OwnedFd>,
    /// In the order of [`DEVICES`].
    pub(super) devices: Vec<OwnedFd>,
    /// What the overlay is made of. To close the last descriptor of a mount takes time that a start need not wait for.
    _parts: Vec<OwnedFd>,
}

impl Sources {
    /// Opens them in the mount namespace that this process is in. With users of the sandbox's own, the files of its layers and
    /// its disk are theirs.
    pub(super) fn open(plan: &SandboxPlan, users: Option<&Namespace>) -> Result<Sources, Failure> {
        let read_only = |path: &Path| {
            let mount = mounts::copy(path)?;
            mounts::restrict(&mount, READ_ONLY, path)?;
            Ok(mount)
        };
        let devices = DEVICES.iter().map(|name| {
            let path = Path::new("/dev").join(name);
            mounts::copy(&path)
        });
        let (root, disk, parts) = overlay(plan, users)?;
        Ok(Sources {
            root,
            agent: read_only(path(&plan.agent))?,
            disk,
            shown: plan
                .shown
                .iter()
                .map(|shown| read_only(path(shown)))
                .collect::<Result<_, Failure>>()?,
            resolver: plan
                .resolver
                .as_ref()
                .map(|resolver| read_only(path(resolver)))
                .transpose()?,
            mounts: plan
                .mounts
                .iter()
                .map(open_mount)
                .collect::<Result<_, Failure>>()?,
            sys: match plan.own_network {
                true => None,
                false => read_only(Path::new("/sys")).ok(),
            },
            devices: devices.collect::<Result<_, Failure>>()?,
            _parts: parts,
        })
    }
}

/// What was there when the mount was asked for, or nothing.
fn open_mount(plan: &MountPlan) -> Result<OwnedFd, Failure> {
    let host = path(&plan.host);
    let source = openat(CWD, host, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(Failure::at(host, "cannot be opened"))?;
    let found = fstat(&source).map_err(Failure::at(host, "cannot be looked at"))?;
    let found = FileIdentity {
        device: found.st_dev,
        inode: found.st_ino,
    };
    if plan.identity.is_some_and(|expected| expected != found) {
        return Err(Failure::at(host, LAUNCH_REPLACED)(Errno::STALE));
    }
    let mount = mounts::copy_all_of(&source, host)?;
    let attributes = match plan.read_only {
        true => READ_ONLY,
        false => HARMLESS,
    };
    mounts::restrict(&mount, attributes, host)?;
    Ok(mount)
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How long the kernel may take to let go of a disk whose machine has ended.
const LETTING_GO: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The layers with the disk over them, what is written on the disk, and what both are made of. The kernel gets their descriptors' numbers, so that it matters neither how long
/// their paths are nor who may pass through the folders above them.
fn overlay(
    plan: &SandboxPlan,
    users: Option<&Namespace>,
) -> Result<(OwnedFd, OwnedFd, Vec<OwnedFd>), Failure> {
    const DESCRIPTORS: &str = "/proc/self/fd";
    let open = |parent: BorrowedFd<'_>, name: &Path, shown: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::empty()).map_err(Failure::at(shown, "cannot be opened"))
    };
    let folder = |path: &Path| {
        let folder = open(CWD, path, path)?;
        let Some(users) = users else {
            return Ok(folder);
        };
        let mount = mounts::copy_of(&folder, path)?;
        mounts::map_owners(&mount, users).map_err(Failure::at(path, LAUNCH_OWNERS))?;
        Ok(mount)
    };
    let number = |folder: &OwnedFd| folder.as_raw_fd().to_string();
    let layers = plan.layers.iter().map(|layer| folder(path(layer)));
    let layers = layers.collect::<Result<Vec<_>, Failure>>()?;
    // Both are of one mount.
    let disk = folder(path(&plan.disk))?;
    let (upper, work) = (path(&plan.upper), path(&plan.work));
    let (upper, work) = (
        open(disk.as_fd(), upper, upper)?,
        open(disk.as_fd(), work, work)?,
    );
    // The kernel has the highest first.
    let lower: Vec<_> = layers.iter().rev().map(number).collect();
    rustix::process::chdir(DESCRIPTORS).map_err(Failure::at(DESCRIPTORS, "cannot be entered"))?;
    let mut context = None;
    let mut made = || -> rustix::io::Result<OwnedFd> {
        let context = context.insert(fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?);
        fsconfig_set_string(context.as_fd(), "lowerdir", lower.join(":").as_str())?;
        fsconfig_set_string(context.as_fd(), "upperdir", number(&upper).as_str())?;
        fsconfig_set_string(context.as_fd(), "workdir", number(&work).as_str())?;
        match plan.trusted {
            true => {
                fsconfig_set_string(context.as_fd(), "redirect_dir", "on")?;
                fsconfig_set_string(context.as_fd(), "index", "on")?;
            }
            false => fsconfig_set_flag(context.as_fd(), "userxattr")?,
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, HARMLESS)
    };
    let begun = Instant::now();
    let made = loop {
        match made() {
            // The kernel has not quite let go of the disk's former machine.
            Err(Errno::BUSY) if begun.elapsed() < LETTING_GO => {
                std::thread::sleep(LOOK_EVERY);
            }
            // The layers are copies, or the image was made anew.
            Err(Errno::STALE) if forget_layers(&upper, &work) == Ok(true) => {}
            made => break made,
        }
    };
    let _ = rustix::process::chdir("/");
    let made = made.map_err(|error| {
        let said = context.map(said).unwrap_or_default();
        if !said.is_empty() {
            eprintln!("overlay: {said}");
        }
        Failure::at(path(&plan.disk), LAUNCH_OVERLAY)(error)
    })?;
    let written = mounts::copy_of(&upper, path(&plan.disk))?;
    mounts::restrict(&written, READ_ONLY, path(&plan.disk))?;
    let parts = layers.into_iter().chain([disk, upper, work]);
    Ok((made, written, parts.collect()))
}

/// Removes what the overlay remembers of the layers that it was made over, by their inodes: the kernel refuses others. What is
/// lost is which files in them had several names. Says whether there was something to forget.
fn forget_layers(upper: &OwnedFd, work: &OwnedFd) -> rustix::io::Result<bool> {
    const INDEX: &CStr = c"index";
    let readable = openat(upper, ".", FOLDER, Mode::empty())?;
    let had_origin = fremovexattr(&readable, c"trusted.overlay.origin").is_ok();
    let Ok(index) = openat(work, INDEX, FOLDER, Mode::empty()) else {
        return Ok(had_origin);
    };
    for entry in Dir::read_from(&index)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            unlinkat(&index, name, AtFlags::empty())?;
        }
    }
    unlinkat(work, INDEX, AtFlags::REMOVEDIR)?;
    Ok(true)
}

/// What the kernel has to say of a mount that it refuses.
fn said(context: OwnedFd) -> String {
    use std::io::Read;
    let mut said = String::new();
    let _ = File::from(context).take(4096).read_to_string(&mut said);
    said.trim().to_owned()
}

pub(super) fn path(bytes: &PathBytes) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
