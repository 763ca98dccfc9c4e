//! Booting: what the launcher and bubblewrap are told, and what they are given.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blink_wire::{LaunchPlan, SandboxPlan, SandboxUsers, ShownMount};
use rustix::fs::FlockOperation;

use super::cgroup::ControlGroup;
use super::machine::{NamespaceMachine, Record};
use super::{Tools, disk, machine, userns};
use crate::child::{self, LaunchError};
use crate::engine::MachineSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{self, Step};
use crate::home::new_id;
use crate::sandbox::{Mount, Network};
use crate::withheld::Withheld;
use crate::{file_lock, private};

/// What the agent keeps of the capabilities that it has over the sandbox's own users, and over nobody else: to give
/// each program its user and its marker, to see and end all of them, and to write files for any of them. No program
/// gets any.
const AGENT_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
];

/// Files in memory: for programs that share memory, and sockets. Large ones belong on the disk.
const SHARED_MEMORY_BYTES: u64 = 64 << 20;
const RUN_BYTES: u64 = 16 << 20;

/// Names of what mounts are put at, in the sandbox's folder.
const MOUNT_PREFIX: &str = "mount-";

const CONSOLE: &str = "console.log";
pub(crate) const SOCKET: &str = "agent.sock";
const LOCK: &str = "machine.lock";

/// Boots a machine, which nobody finds before it is written down.
pub(crate) fn launch(tools: &Tools, spec: &MachineSpec) -> Result<NamespaceMachine> {
    let failed = |what: &str, error: std::io::Error| {
        Error::io(format!("the sandbox could not be booted: {what}"), &error)
    };
    disk::make(&spec.disk, tools.id_base).map_err(|error| failed("its disk", error))?;
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

    let shown = targets_of_mounts(tools, spec)?;
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
    if leased {
        agent.push("--leased".to_owned());
    }
    agent.extend(agent_limits(spec, group.is_some()));
    let mut arguments = arguments(tools, spec, &shown);
    arguments.extend(["--info-fd".into(), INFO.to_string().into()]);
    arguments.extend(["--".into(), "/.blink/blink-guest".into(), "serve".into()]);
    arguments.extend(agent.into_iter().map(OsString::from));

    let mut plan = LaunchPlan {
        parent: 0,
        program: child::bytes(&tools.bubblewrap),
        arguments: arguments.into_iter().map(child::bytes).collect(),
        environment: Vec::new(),
        search: child::bytes(""),
        numbers,
        sandbox: Some(SandboxPlan {
            info_number: INFO,
            group: group
                .as_ref()
                .map(|group| child::bytes(group.path().join("cgroup.procs"))),
            users: tools.id_base.map(|base| SandboxUsers {
                base,
                count: userns::ID_COUNT,
                home: child::bytes(&tools.home),
                mounts: spec
                    .mounts
                    .iter()
                    .zip(&shown)
                    .map(|(mount, target)| ShownMount {
                        host: child::bytes(&mount.host),
                        target: child::bytes(target),
                    })
                    .collect(),
            }),
        }),
    };
    fault::before(Step::NamespaceBoot).map_err(|error| failed("its launcher", error))?;
    let launched = tools
        .launcher
        .start(&mut plan, &descriptors)
        .map_err(not_launched)?;
    // The other ends must see it end.
    drop((agent_link, listener, held));
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

/// The numbers of bubblewrap's descriptors, and the agent's.
const LINK: u32 = 3;
const LISTENER: u32 = 4;
const HELD: u32 = 5;
const INFO: u32 = 6;

fn not_launched(error: LaunchError) -> Error {
    let text = error.to_string();
    if text.contains("user namespace") {
        let message = format!(
            "this machine lets nobody make user namespaces ({text}); allow them (sysctl user.max_user_namespaces), or use \
             another isolation"
        );
        return Error::new(ErrorKind::IsolationUnavailable, message);
    }
    error.into_error("the sandbox could not be booted")
}

/// Where bubblewrap finds what is to be mounted.
///
/// Where the sandbox has users of its own, they could not reach it where it is, and it would belong to nobody that they
/// know. So the launcher shows it in the sandbox's folder, in its mount namespace alone, in a way in which what root owns
/// outside belongs to the sandbox's root; where the file system cannot map owners, it belongs to nobody inside.
fn targets_of_mounts(tools: &Tools, spec: &MachineSpec) -> Result<Vec<PathBuf>> {
    let target = |(index, mount): (usize, &Mount)| {
        if tools.id_base.is_none() {
            return Ok(mount.host.clone());
        }
        let target = spec.folder.join(format!("{MOUNT_PREFIX}{index}"));
        let made = match mount.host.is_dir() {
            true => private::make_new_folder(&target, 0o755),
            false => private::create_file(&target).map(drop),
        };
        made.map_err(|error| Error::io(format!("the mount {}", mount.host.display()), &error))?;
        Ok(target)
    };
    spec.mounts.iter().enumerate().map(target).collect()
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
    let mut add = |name: &str, value: String| limits.extend([name.to_owned(), value]);
    add("--processes", resources.processes.to_string());
    add("--file-bytes", disk_bytes.to_string());
    add("--disk-bytes", disk_bytes.to_string());
    add("--disk-folder", "/.blink/disk".into());
    if !grouped {
        if let Some(memory) = resources.memory_mib {
            let bytes = memory.saturating_mul(1 << 20).to_string();
            add("--memory-bytes", bytes.clone());
            add("--process-memory-bytes", bytes);
        }
        if let Some(cpus) = resources.cpus {
            // No machine has as many; a larger number would not be one for the agent.
            const MOST: f64 = 65536.0;
            add("--cpus", format!("{:.0}", cpus.ceil().min(MOST)));
        }
    }
    limits
}

/// Whether an overlay of these layers can be mounted, with a disk over them and an image beneath: for the kernel, the options
/// of a mount are one page.
pub(super) fn fit_in_options(layers: &[PathBuf]) -> bool {
    const PAGE: usize = 4096;
    /// Their names, and what an image's path is longer than a layer's.
    const REST: usize = 256;
    const AROUND: usize = "/oldroot:".len();
    let written = |layer: &PathBuf| {
        let path = layer.join(disk::UPPER);
        let bytes = path.as_os_str().as_encoded_bytes();
        let escaped = bytes.iter().filter(|byte| b"\\,:".contains(byte));
        bytes.len() + escaped.count() + AROUND
    };
    let sizes: Vec<usize> = layers.iter().map(written).collect();
    // The disk has two folders.
    let others = 3 * sizes.iter().max().unwrap_or(&0);
    sizes.iter().sum::<usize>() + others + REST < PAGE
}

fn arguments(tools: &Tools, spec: &MachineSpec, shown: &[PathBuf]) -> Vec<OsString> {
    let mut list: Vec<OsString> = Vec::with_capacity(128);
    let mut add = |words: &[&OsStr]| list.extend(words.iter().map(|word| (*word).to_owned()));
    let os = OsStr::new;
    if tools.id_base.is_none() {
        add(&[
            os("--unshare-user"),
            os("--uid"),
            os("0"),
            os("--gid"),
            os("0"),
        ]);
    }
    add(&[
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    .map(os));
    if spec.network == Network::None {
        add(&[os("--unshare-net")]);
    }
    add(&[
        os("--hostname"),
        os(&spec.host_name),
        os("--clearenv"),
        os("--as-pid-1"),
        os("--die-with-parent"),
        os("--new-session"),
    ]);
    let lower = spec.rootfs.as_deref().unwrap_or(&tools.host_root.path);
    add(&[os("--overlay-src"), lower.as_os_str()]);
    for layer in &spec.layers {
        add(&[os("--overlay-src"), layer.join(disk::UPPER).as_os_str()]);
    }
    let (upper, work) = (spec.disk.join(disk::UPPER), spec.disk.join(disk::WORK));
    add(&[
        os("--overlay"),
        upper.as_os_str(),
        work.as_os_str(),
        os("/"),
    ]);
    if spec.rootfs.is_none() {
        for path in &tools.host_root.shown {
            add(&[os("--ro-bind"), path.as_os_str(), path.as_os_str()]);
        }
    }
    if spec.network == Network::Host {
        // The machine's resolver, wherever its link leads.
        if let Ok(resolver) = fs::canonicalize("/etc/resolv.conf") {
            add(&[
                os("--ro-bind"),
                resolver.as_os_str(),
                os("/etc/resolv.conf"),
            ]);
        }
    }
    add(&["--proc", "/proc", "--dev", "/dev"].map(os));
    let (shared_memory, run) = (SHARED_MEMORY_BYTES.to_string(), RUN_BYTES.to_string());
    add(&[
        "--perms",
        "1777",
        "--size",
        &shared_memory,
        "--tmpfs",
        "/dev/shm",
        "--remount-ro",
        "/dev",
    ]
    .map(os));
    add(&["--size", &run, "--tmpfs", "/run"].map(os));
    let agent = tools.guest.parent().unwrap_or(&tools.guest);
    add(&[os("--ro-bind"), agent.as_os_str(), os("/.blink")]);
    add(&[os("--ro-bind"), upper.as_os_str(), os("/.blink/disk")]);
    for (mount, shown) in spec.mounts.iter().zip(shown) {
        // Folders that the mount is in are everybody's to pass; bubblewrap would make them for root alone.
        let above: Vec<&Path> = mount
            .guest
            .ancestors()
            .skip(1)
            .filter(|path| path.parent().is_some())
            .collect();
        for folder in above.into_iter().rev() {
            add(&[os("--perms"), os("0755"), os("--dir"), folder.as_os_str()]);
        }
        let option = if mount.read_only {
            "--ro-bind"
        } else {
            "--bind"
        };
        add(&[os(option), shown.as_os_str(), mount.guest.as_os_str()]);
    }
    add(&["--cap-drop", "ALL"].map(os));
    for capability in AGENT_CAPABILITIES {
        add(&[os("--cap-add"), os(capability)]);
    }
    list
}

/// Removes what a boot has left in a sandbox's folder, so that it can boot again.
pub(super) fn tidy(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        match name.to_str() {
            Some(SOCKET | CONSOLE | machine::RECORD) => drop(fs::remove_file(path)),
            // Only a name to put a mount at: a folder with something in it is not removed.
            Some(name) if name.starts_with(MOUNT_PREFIX) => {
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(path));
            }
            _ => {}
        }
    }
}

/// Where a boot's console is.
pub(crate) fn console(folder: &Path) -> PathBuf {
    folder.join(CONSOLE)
}
