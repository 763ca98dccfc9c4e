//! Options that several commands share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use blink_core::RegistryOptions;
use blink_core::{Blink, IsolationChoice, Mount, Network, PublishedPort, SandboxSpec};
use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::values;

/// How images come from registries. Each option has an environment variable of the same meaning.
#[derive(Debug, Default, Args)]
pub(crate) struct RegistryArguments {
    /// Never use the network: only stored images, folders and tars
    #[arg(long, env = "BLINK_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) offline: bool,
    /// Try a mirror first for a registry's images. May be repeated
    #[arg(
        long,
        value_name = "REGISTRY=URL",
        env = "BLINK_MIRRORS",
        value_delimiter = ',',
        value_parser = values::mirror
    )]
    pub(crate) mirror: Vec<(String, String)>,
    /// Talk to a registry over plain HTTP. May be repeated
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        env = "BLINK_INSECURE_REGISTRIES",
        value_delimiter = ','
    )]
    pub(crate) insecure_registry: Vec<String>,
    /// Trust the certificate authorities in a PEM file, in addition to this machine's. May be repeated
    #[arg(long, value_name = "FILE", env = "BLINK_REGISTRY_CA", value_hint = clap::ValueHint::FilePath)]
    pub(crate) registry_ca: Vec<PathBuf>,
    /// Refuse images that are larger than this, compressed or unpacked [default: 16 GiB]
    #[arg(
        long,
        value_name = "BYTES",
        env = "BLINK_IMAGE_LIMIT_BYTES",
        allow_negative_numbers = true
    )]
    pub(crate) image_limit_bytes: Option<u64>,
}

impl RegistryArguments {
    /// Opens a home with these options.
    pub(crate) async fn open(self, home: Option<PathBuf>) -> blink_core::Result<Blink> {
        let mut options = RegistryOptions::default();
        for (registry, url) in self.mirror {
            options = options.with_mirror(registry, url);
        }
        for registry in self.insecure_registry {
            options = options.with_insecure(registry);
        }
        for path in self.registry_ca {
            options = options.with_ca_file(path);
        }
        let mut builder = Blink::builder().with_registry(options);
        if self.offline {
            builder = builder.with_offline(true);
        }
        if let Some(bytes) = self.image_limit_bytes {
            builder = builder.image_limit_bytes(bytes);
        }
        if let Some(home) = home {
            builder = builder.home(home);
        }
        builder.build().await
    }
}

/// What a sandbox is made of.
#[derive(Debug, Args)]
pub(crate) struct SandboxOptions {
    /// The root file system: an image in a registry, an OCI layout folder, a tar of one or of 'docker save', or host
    /// [default: alpine:3.20]
    ///
    /// An image that is not stored is downloaded; 'blink pull' follows a tag that has moved. 'host' is this machine's own
    /// programs, read-only, and nothing of its users; it needs no download. If a folder or tar contains several images,
    /// append :NAME.
    #[arg(long)]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
    /// How the sandbox is isolated: microvm, namespace or auto [default: microvm]
    ///
    /// 'microvm' is a virtual machine with its own kernel. 'namespace' shares this machine's kernel. 'auto' uses the
    /// strongest that works here, and prints which on standard error. BLINK_ISOLATION changes the default.
    #[arg(long, value_name = "ISOLATION", value_parser = isolation_values())]
    pub(crate) isolation: Option<IsolationChoice>,
    /// The sandbox's host name [default: its ID]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Processors it may use, for example 2 or 0.5 [default: all; micro-VM: 2, at most half of the host's]
    #[arg(long, value_parser = values::cpus, allow_negative_numbers = true)]
    pub(crate) cpus: Option<f64>,
    /// Memory it may use, in MiB [default: half of the host's; micro-VM: 2048]
    #[arg(long, value_name = "MIB", value_parser = values::mib, allow_negative_numbers = true)]
    pub(crate) memory_mib: Option<u64>,
    /// Size of /dev/shm, which counts as memory, in MiB [default: half of the memory]
    #[arg(long, value_name = "MIB", value_parser = values::mib, allow_negative_numbers = true)]
    pub(crate) shm_mib: Option<u64>,
    /// Disk space it may use, in MiB [default: 10240]
    #[arg(long, value_name = "MIB", value_parser = values::mib, allow_negative_numbers = true)]
    pub(crate) disk_mib: Option<u64>,
    /// The network it can reach: none, or this machine's [default: none]
    #[arg(long, value_enum)]
    pub(crate) network: Option<NetworkOption>,
    /// Allow only this host: pypi.org, *.pypi.org, 192.0.2.1 or 10.1.0.0/16. May be repeated
    ///
    /// Requires a micro-VM: with namespaces, it is the whole network or none.
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,
    /// Publish a TCP port of the sandbox on this machine. May be repeated
    ///
    /// Listens on 127.0.0.1 unless another address is given; with 0.0.0.0, other machines can connect too. HOST_PORT 0
    /// picks a free port, and prints it on standard error. Works with any --network.
    #[arg(
        short,
        long,
        value_name = "[HOST_ADDRESS:]HOST_PORT:PORT",
        value_parser = values::published_port
    )]
    pub(crate) publish: Vec<PublishedPort>,
    /// Mount a file or folder of this machine; :ro makes it read-only. May be repeated
    #[arg(long, value_name = "HOST:GUEST[:ro]", value_parser = values::MountParser)]
    pub(crate) mount: Vec<Mount>,
}

/// The image where none is named, as the field expects it.
const DEFAULT_IMAGE: &str = "alpine:3.20";

impl SandboxOptions {
    pub(crate) fn image(&self) -> &str {
        self.image.as_deref().unwrap_or(DEFAULT_IMAGE)
    }

    /// What is asked for; the image as it is named, or not.
    ///
    /// # Errors
    /// `InvalidArgument` for options that contradict each other.
    pub(crate) fn spec(&self) -> Result<SandboxSpec, Failure> {
        let mut spec = SandboxSpec::default();
        spec.image.clone_from(&self.image);
        spec.isolation = self.isolation;
        spec.hostname.clone_from(&self.hostname);
        spec.cpus = self.cpus;
        spec.memory_mib = self.memory_mib;
        spec.shared_memory_mib = self.shm_mib;
        spec.disk_mib = self.disk_mib;
        spec.network = self.network()?;
        spec.mounts.clone_from(&self.mount);
        spec.publish.clone_from(&self.publish);
        Ok(spec)
    }

    fn network(&self) -> Result<Option<Network>, Failure> {
        match (self.network, &self.allow_host[..]) {
            (None, []) => Ok(None),
            (Some(NetworkOption::None), []) => Ok(Some(Network::None)),
            (Some(NetworkOption::Host), []) => Ok(Some(Network::Host)),
            (None | Some(NetworkOption::None), hosts) => Ok(Some(Network::Hosts(hosts.to_vec()))),
            (Some(NetworkOption::Host), [host, ..]) => Err(Failure::invalid(format!(
                "--network host lets the sandbox reach everything; for {host} and nothing else, leave it out"
            ))),
        }
    }
}

/// How a program runs that this command stays with.
#[derive(Debug, Args)]
pub(crate) struct ProgramOptions {
    /// Kill the program and everything it started after this time: 2, 500ms, 1.5s, 1m or 1h
    ///
    /// A bare number is seconds. The time to start the sandbox does not count.
    #[arg(long, value_parser = values::timeout, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) surroundings: Surroundings,
    /// Allocate a terminal; standard input must be one
    #[arg(long, conflicts_with = "json")]
    pub(crate) tty: bool,
}

/// What a program finds when it starts.
#[derive(Debug, Args)]
pub(crate) struct Surroundings {
    /// Set an environment variable; NAME alone passes on its current value. May be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<OsString>,
    /// The working directory in the sandbox [default: the image's]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) workdir: Option<OsString>,
    /// The user to run as, in the sandbox: NAME, ID, NAME:GROUP or ID:ID [default: the image's]
    #[arg(long)]
    pub(crate) user: Option<String>,
}

impl Surroundings {
    /// The environment, with this command's own values where none are given.
    pub(crate) fn variables(&self) -> Vec<(OsString, OsString)> {
        values::environment(self.env.clone(), |name| std::env::var_os(name))
    }
}

fn isolation_values() -> impl clap::builder::TypedValueParser<Value = IsolationChoice> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(["auto", "microvm", "namespace"])
        .try_map(|name| name.parse::<IsolationChoice>())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkOption {
    /// Only its own loopback interface
    None,
    /// This machine's network, including services on its loopback interface
    Host,
}
