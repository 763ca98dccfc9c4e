//! Blink's guest agent: the one resident program in every sandbox.
//!
//! `blink-guest serve` is process 1. It takes links from hosts and does what they ask: `docs/BLIN.md` says what. On the
//! host, `blink-guest launch` starts programs for the library, and under another name it puts the filter over a micro-VM's
//! hypervisor.
//!
//! It is Blink's own program and started by Blink; its options may change with any version.

mod agent;
mod confine;
mod connect;
mod dial;
mod failure;
mod files;
mod freeze;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod guard;
mod hypervisor;
mod job;
mod launch;
mod link;
mod machine;
mod names;
mod poll;
mod process;
mod room;
mod signals;
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod slim;
mod sources;
mod stream;

use std::error::Error;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

/// Runs the program.
pub fn main() -> ExitCode {
    share_one_heap();
    let program = std::env::args_os().next().unwrap_or_default();
    if hypervisor::is_asked_for(program.as_ref()) {
        eprintln!("blink-guest: {}", hypervisor::run(program.as_ref()));
        return ExitCode::FAILURE;
    }
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some("serve") => serve(arguments),
        Some("launch") => return launch::run(),
        Some("--version") => {
            println!("blink-guest {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => Err("blink-guest is started by Blink: blink-guest serve".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blink-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A heap for each of its few threads would cost more than they would wait for each other.
fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers; there is one thread yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn serve(arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let mut settings = confine::Settings::default();
    let mut limits = guard::Limits::default();
    let mut endpoints = agent::Endpoints {
        link: None,
        listener: None,
        dial: None,
        leased: false,
        held: None,
    };
    let (mut host_name, mut port, mut secret) = (None, None, None);
    let (mut life, mut shared_memory_bytes) = (None, None);
    let mut arguments = Arguments(arguments);
    while let Some(option) = arguments.0.next() {
        match option.as_str() {
            "--link-fd" => endpoints.link = Some(arguments.descriptor(&option)?),
            "--listen-fd" => endpoints.listener = Some(arguments.descriptor(&option)?),
            "--leased" => endpoints.leased = true,
            "--hold-fd" => endpoints.held = Some(arguments.descriptor(&option)?),
            "--dial" => port = Some(u32::try_from(arguments.number(&option)?)?),
            "--secret" => secret = Some(arguments.value(&option)?),
            "--machine" => host_name = Some(arguments.value(&option)?),
            "--confine" => settings.confine = true,
            "--keep-owners" => settings.keep_owners = true,
            "--programs-fd" => settings.programs = Some(arguments.descriptor(&option)?),
            "--life-fd" => life = Some(arguments.descriptor(&option)?),
            "--cpus" => settings.cpus = Some(arguments.number(&option)?.try_into()?),
            "--processes" => settings.processes = Some(arguments.number(&option)?),
            "--memory-bytes" => limits.memory_bytes = Some(arguments.number(&option)?),
            "--shared-memory-bytes" => shared_memory_bytes = Some(arguments.number(&option)?),
            "--memory-events-fd" => {
                settings.memory_events = Some(arguments.descriptor(&option)?.into());
            }
            "--own-network" => limits.own_network = true,
            "--disk-bytes" => limits.disk_bytes = Some(arguments.number(&option)?),
            "--usage-fd" => limits.usage = Some(arguments.descriptor(&option)?.into()),
            "--disk-folder" => limits.disk_folder = Some(arguments.value(&option)?.into()),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    if let Some(port) = port {
        let secret = secret.ok_or("--dial needs --secret")?;
        confine::hide_argument(&secret)?;
        endpoints.dial = Some(dial::Dial { port, secret });
    }
    if endpoints.link.is_none() && endpoints.dial.is_none() {
        return Err("serve needs --link-fd or --dial".into());
    }
    confine::hide_agent()?;
    if let Some(host_name) = host_name {
        let machine = machine::Machine {
            host_name,
            processes: settings.processes,
            shared_memory_bytes,
        };
        machine.set_up()?;
        // The kernel is the sandbox's own.
        settings.memory_events = std::fs::File::open("/proc/vmstat").ok();
    }
    if let Some(life) = life {
        confine::write_files_as_root(&life)?;
    }
    if limits.memory_bytes.is_some() {
        limits.sockets = guard::Sockets::open().ok();
    }
    let confinement = confine::Confinement::prepare(settings)?;
    agent::Agent::new(endpoints, confinement, limits)?.run()?;
    Ok(())
}

struct Arguments<I>(I);

impl<I: Iterator<Item = String>> Arguments<I> {
    fn value(&mut self, option: &str) -> Result<String, Box<dyn Error>> {
        self.0
            .next()
            .ok_or_else(|| format!("{option} needs a value").into())
    }

    fn number(&mut self, option: &str) -> Result<u64, Box<dyn Error>> {
        let value = self.value(option)?;
        value
            .parse()
            .map_err(|_| format!("{option}: {value:?} is not a number").into())
    }

    fn descriptor(&mut self, option: &str) -> Result<OwnedFd, Box<dyn Error>> {
        let number = RawFd::try_from(self.number(option)?)?;
        // SAFETY: fcntl on a number; it fails where that is no open descriptor.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(format!("{option}: {number} is not an open descriptor").into());
        }
        // SAFETY: it is open, and whoever started the agent has passed it to be owned.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}
