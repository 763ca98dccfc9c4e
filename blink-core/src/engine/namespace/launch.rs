//! Booting: what the launcher is told, and what it is given.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use blink_archive::Marks;
use blink_host::fault::{self, Step};
use blink_host::new_id;
use blink_host::withheld::Withheld;
use blink_host::{file_lock, private};
use blink_wire::{
    FileIdentity, LAUNCH_IN_THE_WAY, LAUNCH_NAMESPACES, LAUNCH_NO_PLACE, LAUNCH_OVERLAY,
    LAUNCH_READ_ONLY, LAUNCH_REPLACED, LAUNCH_RESERVED, LaunchPlan, MountPlan, SandboxPlan,
    SandboxUsers,
};
use rustix::fs::FlockOperation;

use super::cgroup::{self, ControlGroup};
use super::disk::Upper;
use super::machine::{CONSOLE, NamespaceMachine, Record, SOCKET};
use super::ranges::Range;
use super::{Tools, disk, userns};
use crate::child::{self, LaunchError};
use crate::engine::{MachineSpec, record};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::Network;
use crate::usage;

/// The part of a sandbox's memory that files in `/dev/shm` may have, as a machine of its own would let them.
const SHARED_MEMORY_SHARE: u64 = 2;

/// What files in `/run` may have: sockets, and numbers of processes.
const RUN_BYTES: u64 = 16 << 20;

const LOCK: &str = "machine.lock";

/// Boots a machine, which nobody finds before it is written down.
pub(crate) fn launch(tools: &Tools, spec: &MachineSpec) -> Result<NamespaceMachine> {
    let failed = |what: &str, error: std::io::Error| {
        Error::io(format!("the sandbox could not be booted: {what}"), &error)
    };
    let beneath = spec.layers.last().and_then(|layer| Upper::of(layer));
    let marks = beneath.map_or(tools.marks, |upper| upper.marks);
    let upper =
        disk::make(&spec.disk, marks, tools.id_base).map_err(|error| failed("its disk", error))?;
    userns::open_to_sandboxes(&spec.folder, tools.id_base)
        .map_err(|error| failed("its folder", error))?;
    let (link, agent_link) = UnixStream::pair().map_err(|error| failed("its link", error))?;
    let console = private::open_file(
        &spec.folder.join(CONSOLE),
        File::options().create(true).append(true),
    )
    .map_err(|error| failed("its console", error))?;
    let listener = (spec.detached || spec.shared)
        .then(|| listen(&spec.folder))
        .transpose()
        .map_err(|error| failed("its socket", error))?;
    let held = spec.shared.then(|| hold_folder(&spec.folder)).transpose()?;
    let leased = spec.shared && !spec.detached;

    // Each boot has one of its own: whoever hears late of an earlier machine's end ends that alone.
    let group = ControlGroup::create(&format!("{}-{}", spec.id, new_id()?), &spec.resources);
    let mut descriptors = vec![console.as_fd(), console.as_fd(), agent_link.as_fd()];
    let mut numbers = vec![1, 2, LINK];
    let mut agent = vec!["--link-fd".to_owned(), LINK.to_string()];
    if let Some(listener) = &listener {
        descriptors.push(listener.as_fd());
        numbers.push(LISTENER);
        agent.extend(["--listen-fd".to_owned(), LISTENER.to_string()]);
    }
    if let Some(held) = &held {
        descriptors.push(held.file().as_fd());
        numbers.push(HELD);
        agent.extend(["--hold-fd".to_owned(), HELD.to_string()]);
    }
    let usage = (spec.disk != spec.folder)
        .then(|| usage::open(&spec.disk))
        .transpose()
        .map_err(|error| failed("its disk", error))?;
    if let Some(usage) = &usage {
        descriptors.push(usage.as_fd());
        numbers.push(USAGE);
        agent.extend(["--usage-fd".to_owned(), USAGE.to_string()]);
    }
    let memory_events = group.as_ref().and_then(ControlGroup::memory_events);
    if let Some(events) = &memory_events {
        descriptors.push(events.as_fd());
        numbers.push(MEMORY_EVENTS);
        agent.extend(["--memory-events-fd".to_owned(), MEMORY_EVENTS.to_string()]);
    }
    if leased {
        agent.push("--leased".to_owned());
    }
    let range = tools.id_base.and_then(|_| tools.span.take());
    if let Some(range) = &range {
        // The launcher's, and so in use for as long as the sandbox is there.
        descriptors.push(range.file().as_fd());
    }
    if spec.rootfs.is_none() {
        descriptors.push(tools.host_root.used.file().as_fd());
    }
    agent.extend(["--programs-fd".to_owned(), PROGRAMS.to_string()]);
    agent.extend(["--life-fd".to_owned(), LIFE.to_string()]);
    agent.extend(agent_limits(spec, group.is_some()));
    let mut plan = LaunchPlan {
        parent: 0,
        program: child::bytes(match tools.is_embedded {
            true => "",
            false => "/.blink/blink-guest",
        }),
        arguments: std::iter::once("serve".to_owned())
            .chain(agent)
            .map(child::bytes)
            .collect(),
        environment: Vec::new(),
        search: child::bytes(""),
        numbers,
        sandbox: Some(sandbox_plan(
            tools,
            spec,
            &upper,
            group.as_ref(),
            range.as_ref(),
        )),
        kept: u32::from(range.is_some()) + u32::from(spec.rootfs.is_none()),
    };
    fault::before(Step::NamespaceBoot).map_err(|error| failed("its launcher", error))?;
    let launched = tools
        .launcher
        .start(&mut plan, &descriptors)
        .map_err(not_launched)?;
    // The other ends must see it end.
    drop((agent_link, listener, held, range));
    let first = match launched.first_process(spec.boot_timeout) {
        Ok(first) => first,
        Err(error) => {
            launched.end();
            if error.kind() == io::ErrorKind::TimedOut {
                let message = format!(
                    "the sandbox did not boot within {:?}, and was ended; give it a longer boot timeout",
                    spec.boot_timeout
                );
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            return Err(not_launched(error));
        }
    };
    let record = Record::new(
        first,
        launched.pid(),
        group.as_ref().map(ControlGroup::path),
        leased,
    );
    Ok(NamespaceMachine::started(
        spec.folder.clone(),
        spec.disk.clone(),
        launched,
        record,
        link,
        group,
    ))
}

/// The numbers of the agent's descriptors.
const LINK: u32 = 3;
const LISTENER: u32 = 4;
const HELD: u32 = 5;
const PROGRAMS: u32 = 6;
const LIFE: u32 = 7;
const USAGE: u32 = 8;
const MEMORY_EVENTS: u32 = 9;

fn not_launched(error: LaunchError) -> Error {
    const TASK: &str = "the sandbox could not be booted";
    let refused = |kind, advice: &str| Error::new(kind, format!("{TASK}: {error}{advice}"));
    match (error.step(), error.kind()) {
        (LAUNCH_NAMESPACES, _) => refused(
            ErrorKind::IsolationUnavailable,
            "; allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, or the AppArmor \
             profile of what embeds Blink), or use another isolation",
        ),
        (LAUNCH_OVERLAY, io::ErrorKind::StorageFull) => error.into_error(TASK),
        (LAUNCH_OVERLAY, io::ErrorKind::PermissionDenied) => refused(
            ErrorKind::IsolationUnavailable,
            "; its kernel makes no overlays for users: it must be Linux 5.11 or later",
        ),
        (LAUNCH_OVERLAY, _) => refused(
            ErrorKind::IsolationUnavailable,
            "; the file system that holds Blink's home takes no overlays (it may be an overlay itself, as in a container): \
             name a home on ext4, xfs, btrfs or tmpfs with BLINK_HOME",
        ),
        (
            LAUNCH_IN_THE_WAY | LAUNCH_REPLACED | LAUNCH_NO_PLACE | LAUNCH_READ_ONLY
            | LAUNCH_RESERVED,
            _,
        ) => {
            let message = format!("{TASK}: {}", error.what());
            Error::new(ErrorKind::InvalidArgument, message)
        }
        _ => error.into_error(TASK),
    }
}

/// What the sandbox is made of.
fn sandbox_plan(
    tools: &Tools,
    spec: &MachineSpec,
    upper: &Upper,
    group: Option<&ControlGroup>,
    range: Option<&Range>,
) -> SandboxPlan {
    let layers = tools.over(spec.rootfs.as_deref(), &spec.layers);
    let shown = match spec.rootfs {
        None => &tools.host_root.shown[..],
        Some(_) => &[],
    };
    let mounts = spec.mounts.iter().map(|mount| MountPlan {
        host: child::bytes(&mount.host),
        identity: mount.pinned.map(|pinned| FileIdentity {
            device: pinned.device,
            inode: pinned.inode,
        }),
        guest: child::bytes(&mount.guest),
        read_only: mount.read_only,
    });
    // The machine's resolver, wherever its link leads.
    let resolver = match spec.network {
        Network::Host => fs::canonicalize("/etc/resolv.conf").ok(),
        _ => None,
    };
    SandboxPlan {
        group: group.map(|group| child::bytes(group.path().join("cgroup.procs"))),
        users: tools.id_base.map(|stored| SandboxUsers {
            base: range.map_or(stored, |range| range.base),
            count: userns::ID_COUNT,
            agent: range.map_or(userns::agent_id(stored), |range| range.agent),
            stored,
        }),
        host_name: spec.host_name.clone(),
        own_network: spec.network == Network::None,
        layers: layers.iter().map(child::bytes).collect(),
        disk: child::bytes(&spec.disk),
        upper: child::bytes(Upper::name(upper.marks)),
        work: child::bytes(disk::WORK),
        trusted: upper.marks == Marks::Trusted,
        shown: shown.iter().map(child::bytes).collect(),
        resolver: resolver.map(child::bytes),
        agent: child::bytes(tools.guest.parent().unwrap_or(&tools.guest)),
        shared_memory_bytes: match spec.resources.shared_memory_mib {
            Some(shared) => shared.saturating_mul(1 << 20),
            None => cgroup::memory_bytes(&spec.resources) / SHARED_MEMORY_SHARE,
        },
        run_bytes: RUN_BYTES,
        mounts: mounts.collect(),
        programs_number: PROGRAMS,
        life_number: LIFE,
        processes: spec.resources.processes,
    }
}

/// The socket for further links. A path of any length works: it is bound through its folder's descriptor.
fn listen(folder: &Path) -> std::io::Result<UnixListener> {
    let folder = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// A lock that the agent has from the fork on: whoever boots in this folder next, because the process that has booted the
/// machine was killed before it could write it down, sees by it whether that has ended.
fn hold_folder(folder: &Path) -> Result<Withheld> {
    const PATIENCE: Duration = Duration::from_secs(10);
    const LOOK_EVERY: Duration = Duration::from_millis(2);
    let failed = |error| Error::io("the sandbox could not be booted: its lock", &error);
    let path = folder.join(LOCK);
    // The agent gets no file of the host's to write to.
    let lock = file_lock::open(&path)
        .and_then(|_| File::open(&path))
        .map(Withheld::new)
        .map_err(failed)?;
    let begun = Instant::now();
    while rustix::fs::flock(lock.file(), FlockOperation::NonBlockingLockExclusive).is_err() {
        if begun.elapsed() > PATIENCE {
            return Err(Error::new(
                ErrorKind::Busy,
                "an earlier machine of the session has not ended yet, though its process has; try again in a moment",
            ));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(lock)
}

fn agent_limits(spec: &MachineSpec, grouped: bool) -> Vec<String> {
    let resources = &spec.resources;
    let disk_bytes = resources.disk_mib.saturating_mul(1 << 20);
    let mut limits = vec!["--confine".to_owned()];
    if spec.mounts.iter().any(|mount| !mount.read_only) {
        limits.push("--keep-owners".to_owned());
    }
    if spec.network == Network::None {
        limits.push("--own-network".to_owned());
    }
    let mut add = |name: &str, value: String| limits.extend([name.to_owned(), value]);
    add("--processes", resources.processes.to_string());
    add("--disk-bytes", disk_bytes.to_string());
    add("--disk-folder", "/.blink/disk".into());
    if !grouped {
        add(
            "--memory-bytes",
            cgroup::memory_bytes(resources).to_string(),
        );
        if let Some(cpus) = resources.cpus {
            // No machine has as many; a larger number would not be one for the agent.
            const MOST: f64 = 65536.0;
            add("--cpus", format!("{:.0}", cpus.ceil().min(MOST)));
        }
    }
    limits
}

/// Removes what a boot has left in a sandbox's folder, so that it can boot again.
pub(super) fn tidy(folder: &Path) {
    record::remove(folder);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Some(SOCKET | CONSOLE) = entry.file_name().to_str() {
            let _ = fs::remove_file(entry.path());
        }
    }
}
