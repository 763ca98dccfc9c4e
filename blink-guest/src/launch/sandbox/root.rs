//! The sandbox's root, from its parts.
//!
//! The parts that are the sandbox's own (its agent, `/proc`, `/dev`, `/sys`) are put in place last, on folders that were
//! opened first, while the root was nothing but its overlay: what is put in place in between goes where the
//! image, mounts and earlier programs lead, and none of that leads into them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use blink_wire::SandboxPlan;
use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};

use super::super::Failure;
use super::mounts::{self, HARMLESS, READ_ONLY};
use super::sources::{DEVICES, NULL, Sources, path};
use super::way::{End, NewRoot};

/// Who terminals belong to.
const TTY_GROUP: u32 = 5;

/// Of `/proc`, what tells of the host, or is slow or dangerous to read: what Docker hides, and what tells where the kernel is
/// and how it was built.
const HIDDEN: &[&str] = &[
    "acpi",
    "asound",
    "config.gz",
    "interrupts",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "sched_debug",
    "schedstat",
    "scsi",
    "slabinfo",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
];

/// Of `/proc`, what is of the whole kernel and nobody's to change.
const UNCHANGEABLE: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Of `/sys`, the same: what containers hide, and what names the machine or shows where its kernel is.
const HIDDEN_OF_SYS: &[&str] = &[
    "devices/virtual/dmi",
    "devices/virtual/powercap",
    "firmware",
    "fs/bpf",
    "fs/cgroup",
    "fs/pstore",
    "kernel/debug",
    "kernel/notes",
    "kernel/security",
    "kernel/slab",
    "kernel/tracing",
    "kernel/vmcoreinfo",
];

/// What the sandbox's namespaces are set to, below `/proc`. The network belongs to no program, so that any may listen at any
/// port and send pings; and messages and memory of System V, which nothing counts, have an end: 4 MiB and 64 MiB.
const SETTINGS: &[(&str, &str)] = &[
    ("sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("sys/net/ipv4/ping_group_range", "0 65535"),
    ("sys/kernel/msgmni", "256"),
    ("sys/kernel/shmall", "16384"),
];

/// Makes the root of this process, in a mount namespace of its own.
pub(super) fn enter(plan: &SandboxPlan, sources: Sources) -> Result<(), Failure> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", flags).map_err(Failure::at("/", "cannot be kept from other mounts"))?;
    let old = rustix::fs::open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(Failure::at("/", "cannot be opened"))?;
    mounts::put(&sources.root, &old, "/")?;
    let mut root = NewRoot::new(sources.root);

    let agent = root.own(".blink")?;
    let proc = root.own("proc")?;
    let dev = root.own("dev")?;
    let sys = root.own("sys")?;
    let own_run = root.own("run")?;

    for (folder, mount) in plan.shown.iter().zip(&sources.shown) {
        let place = root.place(path(folder), End::Folder)?;
        mounts::put(mount, place, path(folder))?;
    }
    let run = mounts::new(
        c"tmpfs",
        &[
            ("mode", "0755".to_owned()),
            ("size", plan.run_bytes.to_string()),
        ],
        HARMLESS,
    )?;
    mounts::put(&run, own_run, "/run")?;
    root.own_in(&run, "blink")?;
    crate::names::write_down(&root, &plan.host_name);
    if let Some(resolver) = &sources.resolver {
        let name = Path::new("/etc/resolv.conf");
        mounts::put(resolver, root.place(name, End::File)?, name)?;
    }
    // What a mount is in comes before it, whatever the order in which they were given.
    let mut order: Vec<_> = plan.mounts.iter().zip(&sources.mounts).collect();
    order.sort_by_key(|(mount, _)| path(&mount.guest).components().count());
    for (planned, mount) in order {
        let guest = path(&planned.guest);
        let end = match is_folder(mount, guest)? {
            true => End::Folder,
            false => End::File,
        };
        let place = root.place(guest, end)?;
        mounts::put(mount, place, guest)?;
        root.is_hosts(mount, guest)?;
    }

    mounts::put(&sources.agent, agent, "/.blink")?;
    let disk = open_in(&sources.agent, "disk", "/.blink/disk")?;
    mounts::put(&sources.disk, disk, "/.blink/disk")?;
    make_dev(dev, plan, &sources.devices)?;
    let mut nothing = Nothing::new(&sources.devices[NULL]);
    make_proc(proc, &mut nothing)?;
    make_sys(sys, sources.sys, &mut nothing)?;
    change_to(&root)
}

fn is_folder(mount: &OwnedFd, shown: &Path) -> Result<bool, Failure> {
    let found = rustix::fs::fstat(mount).map_err(Failure::at(shown, "cannot be looked at"))?;
    Ok(rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir())
}

fn open_in(folder: impl AsFd, name: &str, shown: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::empty()).map_err(Failure::at(shown, "cannot be opened"))
}

/// This process's own, without what tells of the host or changes it.
fn make_proc(place: OwnedFd, nothing: &mut Nothing<'_>) -> Result<(), Failure> {
    let attributes = HARMLESS | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = mounts::new(c"proc", &[], attributes)?;
    mounts::put(&proc, place, "/proc")?;
    for (name, value) in SETTINGS {
        // A kernel that has no such setting for a namespace of its own has another limit.
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(setting) = openat(&proc, *name, flags, Mode::empty()) {
            let _ = rustix::io::write(setting, value.as_bytes());
        }
    }
    for entry in UNCHANGEABLE {
        if let Some(place) = open_if_there(&proc, entry)? {
            let same = mounts::copy_of(&place, entry)?;
            mounts::restrict(&same, READ_ONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC, entry)?;
            mounts::put(same, place, entry)?;
        }
    }
    nothing.hide(&proc, HIDDEN)
}

/// What the kernel tells of its processors and devices, as containers see it: read-only, with the sandbox's own network, and without
/// what is hidden. Where the network is the host's, it is the host's too.
fn make_sys(
    place: OwnedFd,
    hosts: Option<OwnedFd>,
    nothing: &mut Nothing<'_>,
) -> Result<(), Failure> {
    let attributes = READ_ONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let sys = match hosts {
        Some(hosts) => hosts,
        // A host that has hidden a part of its own from this process lets it have no other.
        None => match mounts::new(c"sysfs", &[], attributes) {
            Ok(sys) => sys,
            Err(_) => return Ok(()),
        },
    };
    mounts::put(&sys, place, "/sys")?;
    nothing.hide(&sys, HIDDEN_OF_SYS)
}

/// An empty file and an empty folder, to lie over others.
struct Nothing<'a> {
    file: &'a OwnedFd,
    folder: Option<OwnedFd>,
}

impl Nothing<'_> {
    fn new(file: &OwnedFd) -> Nothing<'_> {
        Nothing { file, folder: None }
    }

    fn hide(&mut self, root: &OwnedFd, entries: &[&str]) -> Result<(), Failure> {
        for entry in entries {
            let Some(place) = open_if_there(root, entry)? else {
                continue;
            };
            if !is_folder(&place, Path::new(entry))? {
                mounts::put(mounts::copy_of(self.file, entry)?, place, entry)?;
            } else if let Some(folder) = &self.folder {
                mounts::put(mounts::copy_of(folder, entry)?, place, entry)?;
            } else {
                let folder = mounts::new(c"tmpfs", &[("size", "4k".to_owned())], READ_ONLY)?;
                mounts::put(&folder, place, entry)?;
                self.folder = Some(folder);
            }
        }
        Ok(())
    }
}

fn open_if_there(folder: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(folder, name, flags, Mode::empty()) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::ACCESS) => Ok(None),
        Err(error) => Err(Failure::at(name, "cannot be opened")(error)),
    }
}

/// The host's harmless devices, terminals of its own, and shared memory.
fn make_dev(place: OwnedFd, plan: &SandboxPlan, devices: &[OwnedFd]) -> Result<(), Failure> {
    let dev = mounts::new(
        c"tmpfs",
        &[("mode", "0755".to_owned()), ("size", "64k".to_owned())],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?;
    mounts::put(&dev, place, "/dev")?;
    let failed = |name: &str| Failure::at(Path::new("/dev").join(name), "cannot be made");
    for (name, device) in DEVICES.iter().zip(devices) {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&dev, *name, flags, Mode::from_raw_mode(0o666)).map_err(failed(name))?;
        mounts::put(device, file, Path::new("/dev").join(name))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlinkat(target, &dev, name).map_err(failed(name))?;
    }
    let folder = |name: &str| {
        mkdirat(&dev, name, Mode::from_raw_mode(0o755)).map_err(failed(name))?;
        open_in(&dev, name, name)
    };
    let mut options = vec![("ptmxmode", "0666".to_owned()), ("mode", "0620".to_owned())];
    if plan.users.is_some() {
        options.push(("gid", TTY_GROUP.to_string()));
    }
    let terminals = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mounts::put(
        mounts::new(c"devpts", &options, terminals)?,
        folder("pts")?,
        "/dev/pts",
    )?;
    let options = [
        ("mode", "1777".to_owned()),
        ("size", plan.shared_memory_bytes.to_string()),
    ];
    mounts::put(
        mounts::new(c"tmpfs", &options, HARMLESS)?,
        folder("shm")?,
        "/dev/shm",
    )?;
    mounts::restrict_alone(&dev, MountAttrFlags::MOUNT_ATTR_RDONLY, "/dev")
}

/// Leaves the host's root behind.
fn change_to(root: &NewRoot) -> Result<(), Failure> {
    const STEP: &str = "cannot be changed to the sandbox's";
    rustix::process::fchdir(root).map_err(Failure::at("/", STEP))?;
    // SAFETY: two NUL-terminated strings.
    let changed = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    if changed < 0 {
        return Err(Failure::at("/", STEP)(std::io::Error::last_os_error()));
    }
    // The old root lies over the new one now.
    unmount(c".", UnmountFlags::DETACH).map_err(Failure::at("/", STEP))?;
    rustix::process::chdir(c"/").map_err(Failure::at("/", STEP))
}
