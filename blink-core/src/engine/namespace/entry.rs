//! What bubblewrap's process is given, and what it does before it is bubblewrap: it joins its control group, becomes root
//! among the sandbox's own users, and sees Blink's home and the mounts where those users can reach them.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cgroup::ControlGroup;
use crate::engine::MachineSpec;
use crate::error::{Error, Result};

/// Names of what mounts are put at, in the sandbox's folder.
pub(super) const MOUNT_PREFIX: &str = "mount-";

/// What is to be mounted, as bubblewrap will find it, and how it gets there.
///
/// Where the sandbox has users of its own, they could not reach it where it is, and it would belong to nobody that they
/// know. So a copy of the mount is put into the sandbox's folder, in its mount namespace alone, in which what root owns
/// outside belongs to the sandbox's root; where the file system cannot map owners, it belongs to nobody inside.
pub(crate) fn show_mounts(
    spec: &MachineSpec,
    namespace: Option<&OwnedFd>,
) -> Result<(Vec<PathBuf>, Vec<MovedMount>)> {
    let Some(namespace) = namespace else {
        return Ok((
            spec.mounts.iter().map(|mount| mount.host.clone()).collect(),
            Vec::new(),
        ));
    };
    let (mut shown, mut moved) = (Vec::new(), Vec::new());
    for (index, mount) in spec.mounts.iter().enumerate() {
        let failed = |error: std::io::Error| {
            Error::io(format!("the mount {}", mount.host.display()), &error)
        };
        let target = spec.folder.join(format!("{MOUNT_PREFIX}{index}"));
        match mount.host.is_dir() {
            true => fs::create_dir(&target).map_err(failed)?,
            false => drop(File::create(&target).map_err(failed)?),
        }
        let tree = open_mount(&mount.host).map_err(|error| failed(error.into()))?;
        map_owners(&tree, namespace);
        let path =
            CString::new(target.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
        moved.push(MovedMount { tree, target: path });
        shown.push(target);
    }
    Ok((shown, moved))
}

/// A mount that is put somewhere else, in the sandbox's mount namespace.
pub(crate) struct MovedMount {
    tree: OwnedFd,
    target: CString,
}

impl MovedMount {
    /// Runs in the child: one system call.
    fn put(&self) -> std::io::Result<()> {
        use rustix::mount::{MoveMountFlags, move_mount};
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(
            self.tree.as_fd(),
            c"",
            rustix::fs::CWD,
            self.target.as_c_str(),
            flags,
        )?)
    }
}

fn open_mount(path: &Path) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(rustix::fs::CWD, path, flags)
}

/// Lets a mount's owners be the namespace's, where its file system can.
fn map_owners(tree: &OwnedFd, namespace: &OwnedFd) {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).unwrap_or_default(),
    };
    // SAFETY: the path is a NUL-terminated string, and the size is that of the struct.
    unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
}

/// Descriptors that the child keeps, under the numbers that they have here.
#[derive(Default)]
pub(crate) struct Passed {
    descriptors: Vec<OwnedFd>,
}

impl Passed {
    /// Adds a descriptor; returns its number.
    pub(crate) fn add(&mut self, fd: OwnedFd) -> String {
        let number = fd.as_raw_fd().to_string();
        self.descriptors.push(fd);
        number
    }
}

/// What bubblewrap's process does before it is bubblewrap.
pub(crate) struct Entry {
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
    mounts: Vec<MovedMount>,
}

struct View {
    closed: CString,
    /// The folders from there to the home.
    path: Vec<CString>,
    home: MovedMount,
}

impl Entry {
    pub(crate) fn prepare(
        home: &Path,
        namespace: Option<OwnedFd>,
        mounts: Vec<MovedMount>,
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
                view: View::prepare(home).map_err(failed)?,
                mounts,
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
    pub(crate) fn enter(&self) -> std::io::Result<()> {
        use rustix::process::setsid;
        if let Some(group) = &self.group {
            rustix::io::write(group, b"0")?;
        }
        // Signals of the terminal are the host program's, which passes on what it wants to.
        let _ = setsid();
        // Whatever the host program has left open for its own children is no business of a sandbox.
        // SAFETY: marks descriptors; closes none before the exec.
        if unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_int::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        } < 0
        {
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
        use rustix::mount::{MountPropagationFlags, mount_change};
        use rustix::thread::{UnshareFlags, unshare_unsafe};
        if self.view.is_some() || !self.mounts.is_empty() {
            // SAFETY: the child is alone in its thread group, and goes on to be another program.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
            mount_change(
                c"/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )?;
        }
        if let Some(view) = &self.view {
            view.show()?;
        }
        for mount in &self.mounts {
            mount.put()?;
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
        let home = MovedMount {
            tree: open_mount(&home)?,
            target: c_string(&home)?,
        };
        Ok(Some(View {
            closed: c_string(closed)?,
            path,
            home,
        }))
    }

    fn show(&self) -> std::io::Result<()> {
        use rustix::mount::{MountFlags, mount};
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount(
            c"tmpfs",
            self.closed.as_c_str(),
            c"tmpfs",
            flags,
            c"mode=0755,size=1m",
        )?;
        for folder in &self.path {
            match rustix::fs::mkdir(folder.as_c_str(), rustix::fs::Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.home.put()
    }
}
