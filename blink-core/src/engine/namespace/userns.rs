//! A user namespace with 65,536 users of its own, for sandboxes that root makes.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// How many users and groups a sandbox has: what images expect.
pub(crate) const ID_COUNT: u32 = 65536;

/// The first id, on the host, of the sandboxes' users: the last of the ranges that systemd sets aside for containers,
/// so that no real user has one of them.
const ID_BASE: u32 = 0x7000_0000 - ID_COUNT;

/// The first host id of the sandboxes' users; `None` where Blink may not map ids.
pub(crate) fn id_base() -> Option<u32> {
    let root = rustix::process::geteuid().is_root();
    let mapped = |file: &str| {
        std::fs::read_to_string(file).is_ok_and(|map| {
            map.lines().any(|line| {
                let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
                match (numbers.next(), numbers.next(), numbers.next()) {
                    (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) => {
                        first <= u64::from(ID_BASE)
                            && first + count >= u64::from(ID_BASE) + u64::from(ID_COUNT)
                    }
                    _ => false,
                }
            })
        })
    };
    (root && mapped("/proc/self/uid_map") && mapped("/proc/self/gid_map")).then_some(ID_BASE)
}

/// Lets the sandboxes' users, and nobody else, pass through a folder.
pub(crate) fn open_to_sandboxes(folder: &Path, id_base: Option<u32>) -> io::Result<()> {
    let Some(group) = id_base else { return Ok(()) };
    std::os::unix::fs::chown(folder, None, Some(group))?;
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o710))
}

/// Makes the namespace; it lives as long as its descriptor or a process in it.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let (hold, release) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Only what reads a byte and ends runs on it.
    let mut stack = vec![0_u128; 1024];
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let argument = std::ptr::without_provenance_mut::<c_void>(
        usize::try_from(hold.as_raw_fd()).unwrap_or_default(),
    );
    // No signal at its end: the program that embeds Blink need not hear of it.
    let flags = libc::CLONE_VM | libc::CLONE_NEWUSER;
    // SAFETY: the child shares this memory and runs `wait_for_release` on a stack of its own, which outlives it: it is
    // waited for below. It makes one system call and ends.
    let pid = unsafe { libc::clone(wait_for_release, top, flags, argument) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let map = format!("0 {ID_BASE} {ID_COUNT}\n");
    let namespace = std::fs::write(format!("/proc/{pid}/uid_map"), &map)
        .and_then(|()| std::fs::write(format!("/proc/{pid}/gid_map"), &map))
        .and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
    rustix::io::write(&release, b"x")?;
    // SAFETY: waits for the child that was just made; a null status is not written to.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    Ok(namespace?.into())
}

/// The first process of the namespace: it is there until the namespace is opened.
extern "C" fn wait_for_release(argument: *mut c_void) -> c_int {
    let mut byte = 0_u8;
    let fd = c_int::try_from(argument.addr()).unwrap_or(-1);
    // SAFETY: reads at most one byte into a local one.
    unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
    0
}
