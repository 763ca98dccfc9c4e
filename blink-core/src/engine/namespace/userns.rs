//! The 65,536 users of a sandbox that root makes.

use std::io;
use std::path::Path;

/// How many users and groups a sandbox has: what images expect.
pub(crate) const ID_COUNT: u32 = 65536;

/// The first id, on the host, of those that own the files of layers and disks: of the last of the ranges that systemd sets aside
/// for containers, so that no real user has one of them.
pub(crate) const ID_BASE: u32 = 0x7000_0000 - ID_COUNT;

/// The first id of those that own the files of layers and disks; `None` if Blink may not map ids.
pub(crate) fn id_base() -> Option<u32> {
    let root = rustix::process::geteuid().is_root();
    (root && are_mapped(ID_BASE, agent_id(ID_BASE))).then_some(ID_BASE)
}

/// Whether these are ids here: in a container, not all are.
pub(super) fn are_mapped(first: u32, last: u32) -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"]
        .into_iter()
        .all(|file| {
            std::fs::read_to_string(file).is_ok_and(|map| {
                map.lines().any(|line| {
                    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
                    match (numbers.next(), numbers.next(), numbers.next()) {
                        (Some(Ok(begin)), Some(Ok(_)), Some(Ok(count))) => {
                            begin <= u64::from(first) && begin + count > u64::from(last)
                        }
                        _ => false,
                    }
                })
            })
        })
}

/// The host id of the agent of a sandbox, which is none of its users: the one behind them.
pub(crate) fn agent_id(base: u32) -> u32 {
    base + ID_COUNT
}

/// Lets the sandboxes' users, and nobody else, pass through a folder.
pub(crate) fn open_to_sandboxes(folder: &Path, id_base: Option<u32>) -> io::Result<()> {
    let Some(group) = id_base else { return Ok(()) };
    std::os::unix::fs::chown(folder, None, Some(group))?;
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o710))
}
