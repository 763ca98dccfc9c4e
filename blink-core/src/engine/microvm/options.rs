//! A machine in BoxLite's words.

use std::path::{Path, PathBuf};

use boxlite::runtime::options::VolumeSpec;
use boxlite::{
    AdvancedBoxOptions, BoxOptions, ContainerCapabilities, NetworkSpec, RootfsSpec, SecurityOptions,
};

use super::failure::translate;
use super::link::PORT;
use crate::engine::{MachineSpec, host_memory_mib};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{Network, Resources};

/// Where the guest agent's folder is mounted.
const AGENT_FOLDER: &str = "/.blink";

/// Processors of a machine that does not say: enough for a build beside a server, and quick to start. At most half of the
/// host's: a machine that has all of them waits for itself.
const DEFAULT_CPUS: u8 = 2;

/// Memory of a machine that does not say. It is the host's only once it is used.
pub(super) const DEFAULT_MEMORY_MIB: u64 = 2048;

/// What the machine's own kernel and the engine's agent need beside the sandbox's programs.
const MACHINE_MEMORY_MIB: u64 = 128;

/// The largest disk that a machine can have, in GiB: a file of ext4's default block size.
const LARGEST_DISK_GIB: u64 = 16 * 1024;

/// The image has its place on the disk beside what the sandbox may write.
const IMAGE_GIB: u64 = 1;

/// What the agent needs beyond what programs have; it takes these away from every program.
const AGENT_CAPABILITIES: [&str; 3] = ["SYS_ADMIN", "SYS_PTRACE", "SYS_RESOURCE"];

/// What the hypervisor's process may open at once: each file that a program has open on a mount is one.
const OPEN_FILES: u64 = 1 << 20;

/// What every machine sees of the host.
pub(super) struct Mounts<'a> {
    /// The folder with the guest agent.
    pub(super) agent: &'a Path,
    /// Folders that are shown, read-only, where they are on the host.
    pub(super) shown: &'a [PathBuf],
}

/// Describes the machine of a sandbox.
pub(super) fn describe(
    spec: &MachineSpec,
    layout: &Path,
    mounts: &Mounts<'_>,
    secret: &str,
) -> Result<BoxOptions> {
    check_mounts(spec, mounts)?;
    for mount in &spec.mounts {
        check_beside_home(&mount.host, mounts.agent)?;
    }
    let mut volumes = vec![volume(mounts.agent, Path::new(AGENT_FOLDER), true)?];
    for folder in mounts.shown {
        volumes.push(volume(folder, folder, true)?);
    }
    for mount in &spec.mounts {
        volumes.push(volume(&mount.host, &mount.guest, mount.read_only)?);
    }
    Ok(BoxOptions {
        cpus: Some(cpus(&spec.resources)),
        memory_mib: Some(memory_mib(&spec.resources)),
        disk_size_gb: Some(disk_gib(&spec.resources, host_disk_gib(&spec.folder))),
        rootfs: RootfsSpec::RootfsPath(text(layout)?),
        volumes,
        network: network(&spec.network),
        // The engine starts no program without a path; Blink's commands have their own environment.
        // All programs can read it: it is in the kernel's command line.
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        entrypoint: Some(entrypoint(spec, secret)),
        user: Some("0:0".into()),
        working_dir: Some("/".into()),
        // Blink removes it: what is removed by itself when it stops cannot go on when this process ends.
        auto_delete: Some(0),
        detach: spec.detached,
        advanced: advanced()?,
        ..BoxOptions::default()
    })
}

/// The hypervisor has eleven interrupt lines for devices, and each folder that is shown is a device, beside eight that
/// every machine has and one for a network. It does not say so, but fails.
fn check_mounts(spec: &MachineSpec, mounts: &Mounts<'_>) -> Result<()> {
    const LINES: usize = 11;
    const DEVICES: usize = 8;
    let network = usize::from(spec.network != Network::None);
    let own = 1 + mounts.shown.len();
    let room = LINES.saturating_sub(DEVICES + network + own);
    if spec.mounts.len() <= room {
        return Ok(());
    }
    let (with, what) = match (network, mounts.shown.len()) {
        (0, 0) => ("", "an image"),
        (0, _) => ("", "the image 'host'"),
        (_, 0) => (" and a network", "an image"),
        (_, _) => (" and a network", "the image 'host'"),
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "a micro-VM with {what}{with} has room for {room} mounts, and {} are asked for; mount a folder that has them \
             all in it, copy files instead, or use namespaces",
            spec.mounts.len()
        ),
    ))
}

/// The hypervisor's process sees a folder that is mounted in place of what is in it, its own files among that; and a machine
/// would be shown the disks of all others.
fn check_beside_home(mounted: &Path, in_home: &Path) -> Result<()> {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if !canonical(in_home).starts_with(canonical(mounted)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the mount {} has Blink's home in it, with the disks of all sandboxes, which a micro-VM is not shown; mount a folder \
         beside the home, or use another home (BLINK_HOME)",
        mounted.display()
    )))
}

fn advanced() -> Result<AdvancedBoxOptions> {
    let mut advanced = AdvancedBoxOptions::default();
    let mut security = SecurityOptions::default();
    security.resource_limits.max_open_files = Some(open_files());
    // The engine's is 1 GiB, and ends the machine whose disk, or file on a mount, gets larger; the disk has its own limit.
    security.resource_limits.max_file_size = None;
    // Blink's own is set where the hypervisor starts (`filter`).
    security.seccomp_enabled = false;
    // The log's level is this process's affair; the machine would print its own into the output of programs.
    security.env_allowlist.clear();
    advanced.security = security;
    let capabilities = ContainerCapabilities {
        add: AGENT_CAPABILITIES.map(str::to_owned).to_vec(),
        drop: Vec::new(),
    };
    advanced
        .set_capabilities(Some(capabilities))
        .map_err(|error| translate("the micro-VM could not be described", &error))?;
    Ok(advanced)
}

/// As many as this process could give itself.
fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .maximum
        .unwrap_or(OPEN_FILES)
        .min(OPEN_FILES)
}

fn network(network: &Network) -> NetworkSpec {
    match network {
        Network::None => NetworkSpec::Disabled,
        Network::Host => NetworkSpec::Enabled {
            allow_net: Vec::new(),
        },
        Network::Hosts(hosts) => NetworkSpec::Enabled {
            allow_net: hosts.clone(),
        },
    }
}

fn entrypoint(spec: &MachineSpec, secret: &str) -> Vec<String> {
    let resources = &spec.resources;
    let disk_bytes = resources.disk_mib.saturating_mul(1 << 20).to_string();
    let mut words = vec![format!("{AGENT_FOLDER}/blink-guest"), "serve".to_owned()];
    let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
    add("--dial", PORT.to_string());
    // The agent takes it out of its arguments before any program is started.
    add("--secret", secret.to_owned());
    add("--machine", spec.host_name.clone());
    add("--processes", resources.processes.to_string());
    add("--disk-bytes", disk_bytes);
    if let Some(memory) = resources.memory_mib {
        add("--memory-bytes", memory.saturating_mul(1 << 20).to_string());
    }
    if let Some(shared) = resources.shared_memory_mib {
        let bytes = shared.saturating_mul(1 << 20);
        add("--shared-memory-bytes", bytes.to_string());
    }
    words
}

fn host_cpus() -> u8 {
    let host = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u8::try_from(host).unwrap_or(u8::MAX)
}

/// The processors of a machine for which none were asked for.
pub(super) fn default_cpus() -> u8 {
    DEFAULT_CPUS.min((host_cpus() / 2).max(1))
}

fn cpus(resources: &Resources) -> u8 {
    match resources.cpus {
        // The number is above 0 and was checked; more than the host has are the host's.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float to an integer ends at the integer's borders"
        )]
        Some(cpus) => (cpus.ceil() as u8).clamp(1, host_cpus()),
        None => default_cpus(),
    }
}

fn memory_mib(resources: &Resources) -> u32 {
    let wanted = resources.memory_mib.map_or(DEFAULT_MEMORY_MIB, |memory| {
        memory.saturating_add(MACHINE_MEMORY_MIB)
    });
    let most = host_memory_mib().max(MACHINE_MEMORY_MIB);
    u32::try_from(wanted.min(most)).unwrap_or(u32::MAX)
}

/// The engine counts in GiB; the agent holds the exact limit. No larger than the host's own, which it could never fill: a
/// file system's tables grow with its size, and are written before the first boot.
fn disk_gib(resources: &Resources, host: u64) -> u64 {
    let most = host.clamp(1, LARGEST_DISK_GIB - IMAGE_GIB);
    resources.disk_mib.div_ceil(1024).min(most) + IMAGE_GIB
}

/// The largest disk of a machine that may hold so much, in GiB.
pub(super) fn largest_disk_gib(disk_mib: u64) -> u64 {
    disk_mib.div_ceil(1024).min(LARGEST_DISK_GIB - IMAGE_GIB) + IMAGE_GIB
}

/// The size of the file system that a folder is on.
fn host_disk_gib(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(LARGEST_DISK_GIB, |disk| {
        disk.f_blocks
            .saturating_mul(disk.f_frsize)
            .div_ceil(1 << 30)
    })
}

fn volume(host: &Path, guest: &Path, read_only: bool) -> Result<VolumeSpec> {
    // The engine resolves the path in its own time and place.
    let host = std::path::absolute(host).map_err(|error| Error::io(host.display(), &error))?;
    let mut volume = VolumeSpec::bind_mount(text(&host)?, text(guest)?);
    volume.read_only = read_only;
    Ok(volume)
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::invalid(format!(
            "the path {} is no text in UTF-8, which micro-VMs need; rename it, or use namespaces",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_machine_is_shown_the_home() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, beside) = (folder.path().join("home/guest"), folder.path().join("data"));
        std::fs::create_dir_all(&agent).unwrap();
        std::fs::create_dir(&beside).unwrap();
        check_beside_home(&beside, &agent).unwrap();
        let link = beside.join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        for mounted in [folder.path(), &folder.path().join("home/."), &link] {
            let error = check_beside_home(mounted, &agent).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.message().contains("BLINK_HOME"), "{error}");
        }
    }

    #[test]
    fn what_is_asked_for_stays_within_what_there_is() {
        let huge = Resources {
            cpus: Some(1e30),
            memory_mib: Some(u64::MAX),
            shared_memory_mib: None,
            disk_mib: u64::MAX,
            processes: u64::MAX,
        };
        let host = std::thread::available_parallelism().unwrap().get();
        assert_eq!(usize::from(cpus(&huge)), host.min(255));
        assert!(u64::from(memory_mib(&huge)) <= host_memory_mib());
        assert_eq!(disk_gib(&huge, u64::MAX), LARGEST_DISK_GIB);
        assert_eq!(disk_gib(&huge, 5), 6);
        assert_eq!(
            disk_gib(&huge, host_disk_gib("/nowhere".as_ref())),
            LARGEST_DISK_GIB
        );
        assert!(host_disk_gib("/".as_ref()) >= 1);
        let small = Resources {
            cpus: Some(0.2),
            memory_mib: Some(64),
            shared_memory_mib: None,
            disk_mib: 16,
            processes: 30,
        };
        assert_eq!(
            (cpus(&small), memory_mib(&small), disk_gib(&small, 100)),
            (1, 192, 2)
        );
        assert!(cpus(&Resources::default()) >= 1);
        assert_eq!(
            u64::from(memory_mib(&Resources::default())),
            2048.min(host_memory_mib())
        );
    }
}
