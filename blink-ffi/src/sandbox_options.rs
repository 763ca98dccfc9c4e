//! What sandbox to make.

use std::ffi::{c_char, c_void};
use std::net::IpAddr;

use blink_core::{Mount, Network, PublishedPort, SandboxBuilder, SandboxSpec};

use crate::call::{Caller, init};
use crate::command::flag;
use crate::failure::Failure;
use crate::isolation::isolation;
use crate::progress::{Telling, blink_progress_callback};
use crate::sized::{check_reserved, structure, zeros};
use crate::status::blink_status;

/// What a sandbox can reach.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum blink_network {
    /// Nothing but itself.
    None = 0,
    /// Everything that the host can reach.
    Host = 1,
    /// The hosts that are named, and no others; in micro-VMs only.
    Hosts = 2,
}

/// A file or folder of the host that a sandbox sees. It never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_mount {
    /// What the sandbox sees. Of a micro-VM, nothing that has Blink's home in it.
    pub host: *const c_char,
    /// Where it sees it.
    pub guest: *const c_char,
    /// 1: it may not change it.
    pub read_only: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A port inside a sandbox that programs of the host reach. It never grows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_port {
    /// The host's IP address to listen at. NULL: its loopback, 127.0.0.1, which only programs of this machine reach.
    pub address: *const c_char,
    /// The host's port; 0 is any that is free, which blink_sandbox_published_port() tells.
    pub host_port: u16,
    /// The TCP port inside the sandbox.
    pub guest_port: u16,
    /// Always 0.
    pub reserved: u32,
}

impl blink_port {
    pub(crate) const fn none() -> blink_port {
        blink_port {
            address: std::ptr::null(),
            host_port: 0,
            guest_port: 0,
            reserved: 0,
        }
    }
}

/// A sandbox to make. Everything is borrowed for the call that it is given to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_sandbox_options {
    /// sizeof(blink_sandbox_options), set by blink_sandbox_options_init().
    pub size: usize,
    /// Where its root file system comes from: "host" (this machine's own programs, read-only), a registry's reference, a
    /// folder in OCI layout, a tar of one or of `docker save`. NULL: "host".
    pub image: *const c_char,
    /// A blink_isolation; BLINK_ISOLATION_DEFAULT by default.
    pub isolation: i32,
    /// A blink_network; BLINK_NETWORK_NONE by default.
    pub network: i32,
    /// The hosts of BLINK_NETWORK_HOSTS: names, "*.name", IPv4 addresses, networks such as "10.1.0.0/16".
    pub hosts: *const *const c_char,
    /// How many they are.
    pub hosts_count: usize,
    /// Processors that it may use. 0: all of the host's for namespaces; two, or half of the host's, for a micro-VM.
    pub cpus: f64,
    /// Memory that it may use, in MiB. 0: half of the host's for namespaces, 2048 for a micro-VM.
    pub memory_mib: u64,
    /// What it may write, in MiB. 0: 10 GiB.
    pub disk_mib: u64,
    /// Processes and threads that it may have at once. 0: 1024.
    pub processes: u64,
    /// What it sees of the host.
    pub mounts: *const blink_mount,
    /// How many they are.
    pub mounts_count: usize,
    /// Its ports that programs of the host reach.
    pub ports: *const blink_port,
    /// How many they are.
    pub ports_count: usize,
    /// Environment variables for all its programs as "NAME=VALUE", over the image's.
    pub env: *const *const c_char,
    /// How many they are.
    pub env_count: usize,
    /// The folder in which its programs run unless told otherwise. NULL: the image's.
    pub current_dir: *const c_char,
    /// The user that its programs run as unless told otherwise. NULL: the image's.
    pub user: *const c_char,
    /// How long its boot may take, in milliseconds. 0: what `BLINK_BOOT_TIMEOUT` says in seconds, or 30 s.
    pub boot_timeout_ms: u64,
    /// 1: it goes on when this process ends, until it is removed; not for sessions. 0 by default.
    pub detached: u32,
    /// Always 0.
    pub reserved: u32,
    /// Is told how far the image is. NULL: nobody.
    pub progress: blink_progress_callback,
    /// Given to the callback.
    pub progress_data: *mut c_void,
    /// What `/dev/shm` may hold of the memory, in MiB. 0: half of it.
    pub shared_memory_mib: u64,
    /// Its host name: letters, digits, hyphens and dots, 64 at most. NULL: its id.
    pub hostname: *const c_char,
    /// Makes a repeated blink_sandbox_create() harmless: while what a key has made is there, nothing else is made with it, for
    /// 24 h, also after a crash of this process. A detached sandbox is opened again; one that somebody has is BUSY. 256 bytes
    /// at most. NULL: none.
    pub key: *const c_char,
}

structure!(blink_sandbox_options, zeros(), reserved);

/// Sets options to their defaults.
///
/// @param options  Written.
/// @param size     sizeof(blink_sandbox_options).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_sandbox_options_init(
    options: *mut blink_sandbox_options,
    size: usize,
) -> blink_status {
    init!(options, size)
}

/// What a program asks for, checked and copied.
pub(crate) struct Asked {
    pub(crate) spec: SandboxSpec,
    pub(crate) detached: bool,
    key: Option<String>,
    pub(crate) progress: blink_progress_callback,
    pub(crate) progress_data: *mut c_void,
}

impl Caller<'_> {
    pub(crate) fn sandbox_options(
        &self,
        options: *const blink_sandbox_options,
    ) -> Result<Asked, Failure> {
        let asked = self.options(options, "the sandbox's options")?;
        let some = |number: u64| (number > 0).then_some(number);
        let mounts = self.array(asked.mounts, asked.mounts_count, "mounts")?;
        let ports = self.array(asked.ports, asked.ports_count, "ports")?;
        let env = self.pairs(asked.env, asked.env_count, "env")?;
        let mut spec = SandboxSpec::default();
        spec.image = self.optional_text(asked.image, "image")?.map(str::to_owned);
        spec.isolation = isolation(asked.isolation)?;
        let hostname = self.optional_text(asked.hostname, "hostname")?;
        spec.hostname = hostname.map(str::to_owned);
        spec.network = self.network(&asked)?;
        spec.cpus = (asked.cpus != 0.0).then_some(asked.cpus);
        spec.memory_mib = some(asked.memory_mib);
        spec.shared_memory_mib = some(asked.shared_memory_mib);
        spec.disk_mib = some(asked.disk_mib);
        spec.processes = some(asked.processes);
        for mount in mounts {
            spec.mounts.push(self.mount(mount)?);
        }
        for port in ports {
            spec.publish.push(self.port(port)?);
        }
        for (name, value) in env {
            spec.env.push((name.to_owned(), value.to_owned()));
        }
        let dir = self.optional_words(asked.current_dir, "current_dir")?;
        spec.current_dir = dir.map(Into::into);
        spec.user = self.optional_text(asked.user, "user")?.map(str::to_owned);
        spec.boot_timeout = self.milliseconds(asked.boot_timeout_ms);
        Ok(Asked {
            spec,
            detached: flag(asked.detached, "detached")?,
            key: self.optional_text(asked.key, "key")?.map(str::to_owned),
            progress: asked.progress,
            progress_data: asked.progress_data,
        })
    }

    fn network(&self, asked: &blink_sandbox_options) -> Result<Option<Network>, Failure> {
        const NONE: i32 = blink_network::None as i32;
        const HOST: i32 = blink_network::Host as i32;
        const HOSTS: i32 = blink_network::Hosts as i32;
        let hosts = self.all_texts(asked.hosts, asked.hosts_count, "hosts")?;
        if asked.network != HOSTS && !hosts.is_empty() {
            return Err(Failure::invalid(
                "hosts are named, and the network is not BLINK_NETWORK_HOSTS",
            ));
        }
        match asked.network {
            NONE => Ok(None),
            HOST => Ok(Some(Network::Host)),
            HOSTS => Ok(Some(Network::Hosts(
                hosts.into_iter().map(str::to_owned).collect(),
            ))),
            other => Err(Failure::invalid(format!(
                "{other} is not a network; it can be 0 to {HOSTS}"
            ))),
        }
    }

    fn mount(&self, mount: &blink_mount) -> Result<Mount, Failure> {
        check_reserved(mount.reserved, "a mount")?;
        let host = self.words(mount.host, "a mount's host")?;
        let guest = self.words(mount.guest, "a mount's guest")?;
        let made = Mount::new(host, guest);
        Ok(match flag(mount.read_only, "a mount's read_only")? {
            true => made.read_only(),
            false => made,
        })
    }

    fn port(&self, port: &blink_port) -> Result<PublishedPort, Failure> {
        check_reserved(port.reserved, "a port")?;
        let made = PublishedPort::new(port.host_port, port.guest_port);
        let Some(address) = self.optional_text(port.address, "a port's address")? else {
            return Ok(made);
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| Failure::invalid(format!("{address:?} is not an IP address")))?;
        Ok(made.at(address))
    }
}

impl Asked {
    pub(crate) fn describe(self, builder: SandboxBuilder, telling: &Telling) -> SandboxBuilder {
        let mut builder = builder.spec(self.spec);
        if self.progress.is_some() {
            builder = builder.image_progress(telling.hear());
        }
        if let Some(key) = self.key {
            builder = builder.key(key);
        }
        match self.detached {
            true => builder.detached(),
            false => builder,
        }
    }
}
