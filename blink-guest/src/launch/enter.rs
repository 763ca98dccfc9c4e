//! What the program's process does before it is the program: it joins its control group, becomes root among the sandbox's
//! own users, and sees Blink's home and the mounts where those users can reach them.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use blink_wire::{LAUNCH_EXECUTE, LaunchPlan, PathBytes, SandboxUsers};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::{Pid, getppid};
use rustix::thread::UnshareFlags;

use super::{Failure, users};

/// Everything that the process needs.
pub(crate) struct Entry<'a> {
    pub(crate) plan: &'a LaunchPlan,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) info: Option<OwnedFd>,
    pub(crate) namespace: Option<OwnedFd>,
}

/// Ends this process when its parent does, also where that was a moment ago. A change of user takes it back.
pub(crate) fn die_with(parent: Pid) {
    // SAFETY: system calls on numbers. The parent has one thread, so that its end is its process's.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        if getppid() != Some(parent) {
            libc::_exit(1);
        }
    }
}

impl Entry<'_> {
    /// Becomes the program; returns where that fails.
    pub(crate) fn run(self, launcher: Pid) -> Failure {
        match self.enter(launcher) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn enter(self, launcher: Pid) -> Result<Infallible, Failure> {
        die_with(launcher);
        if let Some(sandbox) = &self.plan.sandbox {
            if let Some(group) = &sandbox.group {
                let group = path(group);
                fs::write(group, "0").map_err(Failure::at(group, "cannot be joined"))?;
            }
            if let (Some(users), Some(namespace)) = (&sandbox.users, &self.namespace) {
                show(users, namespace)?;
                become_root_in(namespace)?;
                die_with(launcher);
            }
        }
        self.place_descriptors()?;
        Err(execute(self.plan))
    }

    /// Gives the program its descriptors under their numbers, and nothing else.
    fn place_descriptors(&self) -> Result<(), Failure> {
        const WHAT: (&str, &str) = ("a descriptor", "cannot be passed on");
        let info = self.plan.sandbox.as_ref().map(|plan| plan.info_number);
        let numbers = self.plan.numbers.iter().copied().chain(info);
        let all: Vec<_> = self
            .descriptors
            .iter()
            .chain(&self.info)
            .zip(numbers)
            .collect();
        let highest = all.iter().map(|(_, number)| *number).max().unwrap_or(0);
        let out_of_the_way = i32::try_from(highest.max(2) + 1).unwrap_or(i32::MAX);
        // First all of them elsewhere: one may have a number that another is to get.
        let mut moved = Vec::new();
        for (descriptor, number) in all {
            let descriptor = rustix::io::fcntl_dupfd_cloexec(descriptor, out_of_the_way)
                .map_err(Failure::at(WHAT.0, WHAT.1))?;
            moved.push((descriptor, number));
        }
        for (descriptor, number) in &moved {
            let number = i32::try_from(*number).unwrap_or(-1);
            // SAFETY: whatever has the number was moved before, or is not needed by the program.
            if unsafe { libc::dup2(descriptor.as_raw_fd(), number) } < 0 {
                return Err(Failure::at(WHAT.0, WHAT.1)(io::Error::last_os_error()));
            }
        }
        Ok(())
    }
}

fn execute(plan: &LaunchPlan) -> Failure {
    let program = path(&plan.program);
    let failed = |error: io::Error| Failure::at(program, LAUNCH_EXECUTE)(error);
    let c_strings = |list: &[PathBytes]| -> io::Result<Vec<CString>> {
        let strings = list.iter().map(|bytes| CString::new(bytes.to_vec()));
        strings
            .map(|string| string.map_err(io::Error::from))
            .collect()
    };
    let prepared = CString::new(program.as_os_str().as_bytes())
        .map_err(io::Error::from)
        .and_then(|name| {
            Ok((
                name,
                c_strings(&plan.arguments)?,
                c_strings(&plan.environment)?,
            ))
        });
    let (name, arguments, environment) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(error),
    };
    let arguments: Vec<_> = std::iter::once(&name)
        .chain(&arguments)
        .map(|argument| argument.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    let environment: Vec<_> = environment
        .iter()
        .map(|variable| variable.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates(program, &plan.search) {
        let Ok(candidate) = CString::new(candidate.into_os_string().as_bytes()) else {
            continue;
        };
        // SAFETY: NUL-terminated strings in lists that end with a null pointer, all of which outlive the call.
        unsafe { libc::execve(candidate.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        let error = io::Error::last_os_error();
        // One that is there says more than the others that are not.
        if error.kind() != io::ErrorKind::NotFound {
            last = error;
        }
    }
    failed(last)
}

fn candidates(program: &Path, search: &[u8]) -> Vec<PathBuf> {
    if program.as_os_str().as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let folders = search.split(|byte| *byte == b':').map(OsStr::from_bytes);
    folders
        .filter(|folder| Path::new(folder).is_absolute())
        .map(|folder| Path::new(folder).join(program))
        .collect()
}

fn path(bytes: &PathBytes) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn become_root_in(namespace: &OwnedFd) -> Result<(), Failure> {
    // SAFETY: system calls on numbers and an open descriptor; the pointer of setgroups is not read for a count of 0.
    let failed = unsafe {
        libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWUSER) < 0
            || libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) < 0
            || libc::syscall(libc::SYS_setresgid, 0, 0, 0) < 0
            || libc::syscall(libc::SYS_setresuid, 0, 0, 0) < 0
    };
    match failed {
        true => Err(Failure::at(
            "the sandbox's user namespace",
            "cannot be entered",
        )(io::Error::last_os_error())),
        false => Ok(()),
    }
}

/// Shows the home and the mounts to the sandbox's users, in a mount namespace of this process's own.
fn show(users: &SandboxUsers, namespace: &OwnedFd) -> Result<(), Failure> {
    let home = path(&users.home);
    let closed = first_closed(home);
    if closed.is_none() && users.mounts.is_empty() {
        return Ok(());
    }
    let failed = || Failure::at("a mount namespace", "cannot be made");
    // SAFETY: this process has one thread, and goes on to be another program.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(failed())?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", flags).map_err(failed())?;
    // All are opened before any is hidden.
    let mut mounts = Vec::new();
    for mount in &users.mounts {
        let tree = open_mount(path(&mount.host))?;
        users::map_owners(&tree, namespace);
        mounts.push((tree, path(&mount.target)));
    }
    if let Some(closed) = closed {
        hide_all_but(home, &closed)?;
    }
    for (tree, target) in &mounts {
        put(tree, target)?;
    }
    Ok(())
}

/// The first folder above the home that the sandbox's users cannot pass. The home itself was opened to them.
fn first_closed(home: &Path) -> Option<PathBuf> {
    const OTHERS_MAY_PASS: u32 = 0o001;
    let mut above: Vec<&Path> = home.ancestors().skip(1).collect();
    above.reverse();
    let closed = above.into_iter().find(|folder| {
        fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & OTHERS_MAY_PASS == 0)
    });
    closed.map(Path::to_owned)
}

/// Replaces the folder by an empty one through which only the home can be reached.
fn hide_all_but(home: &Path, closed: &Path) -> Result<(), Failure> {
    let tree = open_mount(home)?;
    rustix::mount::mount(
        c"tmpfs",
        closed,
        c"tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=0755,size=1m",
    )
    .map_err(Failure::at(closed, "cannot be hidden"))?;
    let mut between: Vec<&Path> = home
        .ancestors()
        .take_while(|folder| *folder != closed)
        .collect();
    between.reverse();
    for folder in between {
        fs::create_dir(folder).map_err(Failure::at(folder, "cannot be made"))?;
        // Not by the mask alone: others must be able to pass.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
            .map_err(Failure::at(folder, "cannot be opened to the sandbox"))?;
    }
    put(&tree, home)
}

fn open_mount(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags)
        .map_err(Failure::at(path, "cannot be mounted"))
}

fn put(tree: &OwnedFd, target: &Path) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree.as_fd(), c"", rustix::fs::CWD, target, flags)
        .map_err(Failure::at(target, "cannot be mounted on"))
}
