//! Booting: what bubblewrap is told, and what its process is given.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::cgroup::ControlGroup;
use super::machine::{NamespaceMachine, Record};
use super::{Tools, userns};
use crate::engine::MachineSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::sandbox::{Mount, Network};

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

const CONSOLE: &str = "console.log";
pub(crate) const SOCKET: &str = "agent.sock";

/// Boots a machine.
pub(crate) fn launch(tools: &Tools, spec: &MachineSpec) -> Result<NamespaceMachine> {
    let failed = |what: &str, error: std::io::Error| {
        Error::io(format!("the sandbox could not be booted: {what}"), &error)
    };
    make_disk(&spec.folder, tools.id_base).map_err(|error| failed("its disk", error))?;
    let namespace = match tools.id_base {
        Some(_) => Some(userns::create().map_err(|error| forbidden(&error))?),
        None => None,
    };
    let group = ControlGroup::create(&spec.id, &spec.resources);

    let (link, agent_link) = UnixStream::pair().map_err(|error| failed("its link", error))?;
    let mut passed = Passed::default();
    let agent_link = passed.add(agent_link.into());
    let mut agent = vec!["--link-fd".to_owned(), agent_link];
    let leash = match spec.detached {
        true => {
            let listener = listen(&spec.folder).map_err(|error| failed("its socket", error))?;
            agent.extend(["--listen-fd".to_owned(), passed.add(listener.into())]);
            None
        }
        false => {
            let (hold, leash) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map_err(|error| failed("its leash", error.into()))?;
            agent.extend(["--leash-fd".to_owned(), passed.add(hold)]);
            Some(leash)
        }
    };
    agent.extend(agent_limits(spec, group.is_some()));
    let (mut info, info_writer) = std::io::pipe().map_err(|error| failed("a pipe", error))?;
    let info_writer = passed.add(info_writer.into());

    let mut arguments = arguments(tools, spec, &mut passed, namespace.as_ref())?;
    arguments.extend(["--info-fd".into(), info_writer.into()]);
    arguments.extend(["--".into(), "/.blink/blink-guest".into(), "serve".into()]);
    arguments.extend(agent.into_iter().map(OsString::from));

    let console = OpenOptions::new()
        .create(true)
        .append(true)
        .open(spec.folder.join(CONSOLE))
        .map_err(|error| failed("its console", error))?;
    let child_console = console
        .try_clone()
        .map_err(|error| failed("its console", error))?;
    let entry = Entry::prepare(tools, namespace, group.as_ref(), passed)?;
    let mut command = Command::new(&tools.bubblewrap);
    command
        .args(&arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(child_console);
    // SAFETY: `enter` makes system calls on what was prepared, and allocates nothing.
    unsafe { command.pre_exec(move || entry.enter()) };
    let child = command.spawn().map_err(|error| {
        if let Some(group) = &group {
            group.remove();
        }
        failed("bubblewrap", error)
    })?;
    // Drops the descriptors that the child was passed: their other ends must see it end.
    drop(command);

    let mut text = Vec::new();
    // Ends when bubblewrap closes its end: after it has told the process's number, or failed.
    let _ = info.read_to_end(&mut text);
    let pid = serde_json::from_slice::<Info>(&text)
        .ok()
        .map(|info| info.child_pid);
    let record = Record::new(pid, child.id(), group.as_ref().map(ControlGroup::path));
    record
        .write(&spec.folder)
        .map_err(|error| failed("its record", error))?;
    Ok(NamespaceMachine::started(
        spec.folder.clone(),
        child,
        record,
        link,
        leash,
        group,
    ))
}

/// What bubblewrap tells about itself.
#[derive(serde::Deserialize)]
struct Info {
    #[serde(rename = "child-pid")]
    child_pid: i32,
}

fn make_disk(folder: &Path, id_base: Option<u32>) -> std::io::Result<()> {
    for name in ["upper", "work"] {
        let path = folder.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        if let Some(id) = id_base {
            std::os::unix::fs::chown(&path, Some(id), Some(id))?;
        }
    }
    userns::open_to_sandboxes(folder, id_base)
}

/// The socket for further links. A path of any length works: it is bound through its folder's descriptor.
fn listen(folder: &Path) -> std::io::Result<UnixListener> {
    let folder = File::open(folder)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
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
            add("--cpus", format!("{:.0}", cpus.ceil()));
        }
    }
    limits
}

fn arguments(
    tools: &Tools,
    spec: &MachineSpec,
    passed: &mut Passed,
    namespace: Option<&OwnedFd>,
) -> Result<Vec<OsString>> {
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
        os("--new-session"),
    ]);
    let lower = spec.rootfs.as_deref().unwrap_or(&tools.host_root.path);
    add(&[os("--overlay-src"), lower.as_os_str()]);
    let (upper, work) = (spec.folder.join("upper"), spec.folder.join("work"));
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
    for mount in &spec.mounts {
        let fd = passed.add(open_mount(mount, namespace)?);
        let option = if mount.read_only {
            "--ro-bind-fd"
        } else {
            "--bind-fd"
        };
        add(&[os(option), os(&fd), mount.guest.as_os_str()]);
    }
    add(&["--cap-drop", "ALL"].map(os));
    for capability in AGENT_CAPABILITIES {
        add(&[os("--cap-add"), os(capability)]);
    }
    Ok(list)
}

/// Opens what is to be mounted. Where the sandbox has users of its own, what root owns outside belongs to its root
/// inside, by a mapping of this mount alone; where the file system cannot map, it belongs to nobody inside.
fn open_mount(mount: &Mount, namespace: Option<&OwnedFd>) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let failed = |error: rustix::io::Errno| {
        Error::io(format!("the mount {}", mount.host.display()), &error.into())
    };
    if let Some(namespace) = namespace
        && let Some(mapped) = map_mount(&mount.host, namespace)
    {
        return Ok(mapped);
    }
    rustix::fs::open(&mount.host, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
}

/// A copy of a mount, with ids as the namespace maps them.
fn map_mount(path: &Path, namespace: &OwnedFd) -> Option<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(rustix::fs::CWD, path, flags).ok()?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).ok()?,
    };
    // SAFETY: the path is a NUL-terminated string, and the size is that of the struct.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    (result == 0).then_some(tree)
}

/// Descriptors that the child keeps, under the numbers that they have here.
#[derive(Default)]
struct Passed {
    descriptors: Vec<OwnedFd>,
}

impl Passed {
    /// Adds a descriptor; returns its number.
    fn add(&mut self, fd: OwnedFd) -> String {
        let number = fd.as_raw_fd().to_string();
        self.descriptors.push(fd);
        number
    }
}

/// What bubblewrap's process does before it is bubblewrap.
struct Entry {
    passed: Passed,
    group: Option<File>,
    user: Option<UserEntry>,
}

/// Becoming root among the sandbox's own users.
struct UserEntry {
    namespace: OwnedFd,
    /// The home, and the first folder above it that the sandbox's users could not pass. In the sandbox's view, before
    /// there is one, it is replaced by an empty folder through which only the home can be reached.
    view: Option<View>,
}

struct View {
    home: OwnedFd,
    closed: CString,
    /// The folders from there to the home.
    path: Vec<CString>,
}

impl Entry {
    fn prepare(
        tools: &Tools,
        namespace: Option<OwnedFd>,
        group: Option<&ControlGroup>,
        passed: Passed,
    ) -> Result<Entry> {
        let failed = |error: std::io::Error| Error::io("the sandbox could not be booted", &error);
        let group = group
            .map(|group| {
                OpenOptions::new()
                    .write(true)
                    .open(group.path().join("cgroup.procs"))
            })
            .transpose()
            .map_err(failed)?;
        let user = match namespace {
            Some(namespace) => Some(UserEntry {
                namespace,
                view: View::prepare(&tools.home).map_err(failed)?,
            }),
            None => None,
        };
        Ok(Entry {
            passed,
            group,
            user,
        })
    }

    /// Runs in the child, between fork and exec: system calls only.
    fn enter(&self) -> std::io::Result<()> {
        use rustix::process::setsid;
        if let Some(group) = &self.group {
            rustix::io::write(group, b"0")?;
        }
        // Signals of the terminal are the host program's, which passes on what it wants to.
        let _ = setsid();
        // Whatever the host program has left open for its own children is no business of a sandbox.
        // SAFETY: marks descriptors; closes none before the exec.
        if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_int::MAX, libc::CLOSE_RANGE_CLOEXEC) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        for fd in &self.passed.descriptors {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        match &self.user {
            Some(user) => user.enter(),
            None => Ok(()),
        }
    }
}

impl UserEntry {
    fn enter(&self) -> std::io::Result<()> {
        if let Some(view) = &self.view {
            view.show()?;
        }
        // SAFETY: system calls on numbers and an open descriptor; the pointer of setgroups is not read for a count of 0.
        unsafe {
            if libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWUSER) < 0
                || libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) < 0
                || libc::syscall(libc::SYS_setresgid, 0, 0, 0) < 0
                || libc::syscall(libc::SYS_setresuid, 0, 0, 0) < 0
            {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

impl View {
    fn prepare(home: &Path) -> std::io::Result<Option<View>> {
        use rustix::mount::{OpenTreeFlags, open_tree};
        let home = fs::canonicalize(home)?;
        let above: Vec<&Path> = home.ancestors().collect();
        // The home itself was opened to the sandboxes' users.
        let closed = above
            .iter()
            .rev()
            .filter(|folder| **folder != home)
            .find(|folder| {
                const OTHERS_MAY_PASS: u32 = 0o001;
                fs::metadata(folder).is_ok_and(|found| {
                    std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & OTHERS_MAY_PASS
                        == 0
                })
            });
        let Some(closed) = closed else {
            return Ok(None);
        };
        let c_string =
            |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(std::io::Error::from);
        let mut path: Vec<CString> = above
            .iter()
            .filter(|folder| folder.starts_with(closed) && folder != &closed)
            .map(|folder| c_string(folder))
            .collect::<Result<_, _>>()?;
        path.reverse();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let home_tree = open_tree(rustix::fs::CWD, &home, flags)?;
        Ok(Some(View {
            home: home_tree,
            closed: c_string(closed)?,
            path,
        }))
    }

    fn show(&self) -> std::io::Result<()> {
        use rustix::mount::{
            MountFlags, MountPropagationFlags, MoveMountFlags, mount, mount_change, move_mount,
        };
        use rustix::thread::{UnshareFlags, unshare_unsafe};
        // SAFETY: the child is alone in its thread group, and goes on to be another program.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change(
            c"/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        mount(
            c"tmpfs",
            self.closed.as_c_str(),
            c"tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            c"mode=0755,size=1m",
        )?;
        for folder in &self.path {
            match rustix::fs::mkdir(folder.as_c_str(), rustix::fs::Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(target) = self.path.last() else {
            return Ok(());
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(
            self.home.as_fd(),
            c"",
            rustix::fs::CWD,
            target.as_c_str(),
            flags,
        )?)
    }
}

fn forbidden(error: &std::io::Error) -> Error {
    let message = format!(
        "this machine lets nobody make user namespaces ({error}); allow them (sysctl user.max_user_namespaces), or use \
         another isolation"
    );
    Error::new(ErrorKind::IsolationUnavailable, message)
}

/// Where a boot's console is.
pub(crate) fn console(folder: &Path) -> PathBuf {
    folder.join(CONSOLE)
}
