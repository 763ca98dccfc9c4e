//! `blink run`.

mod program;
mod result;
mod session;
mod signals;
mod streams;
mod target;
mod terminal;

use std::ffi::OsString;
use std::path::PathBuf;

use blink_core::{Blink, IsolationChoice, Network, Sandbox, SandboxBuilder};

use crate::arguments::{NetworkOption, RunOptions};
use crate::failure::{Failure, warn};
use crate::progress::Sign;
use session::Ending;
use signals::Signals;
use target::Target;
use terminal::Terminal;

/// Runs a program in a sandbox of its own; returns this command's exit code.
pub(crate) async fn run(
    mut options: RunOptions,
    home: Option<PathBuf>,
    argv: &[OsString],
) -> Result<i32, Failure> {
    let program = std::mem::take(&mut options.program);
    let target = Target::new(program, argv)?;
    let terminal = if options.tty {
        Some(Terminal::open()?)
    } else {
        None
    };
    let mut signals = Signals::catch()?;
    let blink = std::mem::take(&mut options.registry).open(home).await?;
    let sandbox = match boot(describe(&blink, &options)?, &mut signals).await? {
        Ok(sandbox) => sandbox,
        Err(ended_by) => return Ok(ended_by),
    };
    if options.isolation == IsolationChoice::Auto {
        say_isolation(&sandbox);
    }
    say_ports(&sandbox, &options);
    let ending = session::hold(&sandbox, &target, options, terminal, &mut signals).await;
    let removed = signals.ends_at_once_while(sandbox.remove()).await;
    let code = ending.and_then(Ending::tell);
    if let Err(error) = removed {
        warn(error);
    }
    code
}

fn describe(blink: &Blink, options: &RunOptions) -> Result<SandboxBuilder, Failure> {
    let network = match (options.network, &options.allow_host[..]) {
        (NetworkOption::None, []) => Network::None,
        (NetworkOption::None, hosts) => Network::Hosts(hosts.to_vec()),
        (NetworkOption::Host, []) => Network::Host,
        (NetworkOption::Host, [host, ..]) => {
            return Err(Failure::invalid(format!(
                "--network host lets the sandbox reach everything; for {host} and nothing else, leave it out"
            )));
        }
    };
    let mut builder = blink
        .sandbox()
        .image(options.image.as_str())
        .isolation(options.isolation)
        .network(network);
    if let Some(cpus) = options.cpus {
        builder = builder.cpus(cpus);
    }
    if let Some(memory_mib) = options.memory_mib {
        builder = builder.memory_mib(memory_mib);
    }
    if let Some(disk_mib) = options.disk_mib {
        builder = builder.disk_mib(disk_mib);
    }
    for mount in &options.mount {
        builder = builder.mount(mount.clone());
    }
    for port in &options.publish {
        builder = builder.publish(*port);
    }
    Ok(builder)
}

/// Boots, or returns the exit code where a signal came first.
async fn boot(
    builder: SandboxBuilder,
    signals: &mut Signals,
) -> Result<Result<Sandbox, i32>, Failure> {
    let sign = Sign::new("starting the sandbox");
    let builder = builder.image_progress(sign.image());
    // Apart from the boot, since a download may take long, and may be given up.
    tokio::select! {
        fetched = sign.shown(builder.fetch_image()) => fetched?,
        signal = signals.ending() => return Ok(Err(signals::exit_code(signal))),
    }
    // In a task of its own: a boot that is given up half-way could leave something behind, so that it is always
    // waited for.
    let mut booting = tokio::spawn(builder.create());
    let working = sign.shown(async {
        tokio::select! {
            booted = &mut booting => (booted, None),
            ended_by = signals.ending() => {
                (signals.ends_at_once_while(&mut booting).await, Some(ended_by))
            }
        }
    });
    let (booted, ended_by) = working.await;
    let booted = booted.map_err(|error| Failure::internal(format!("the boot failed: {error}")))?;
    match (booted, ended_by) {
        (Ok(sandbox), None) => Ok(Ok(sandbox)),
        (Ok(sandbox), Some(signal)) => {
            signals.ends_at_once_while(sandbox.remove()).await?;
            Ok(Err(signals::exit_code(signal)))
        }
        (Err(_), Some(signal)) => Ok(Err(signals::exit_code(signal))),
        (Err(error), None) => Err(error.into()),
    }
}

/// Where any port was asked for, nobody else knows which it is.
fn say_ports(sandbox: &Sandbox, options: &RunOptions) {
    for (asked, port) in options.publish.iter().zip(sandbox.published()) {
        if asked.host.port() == 0 {
            warn(format_args!(
                "{} leads to port {} of the sandbox",
                port.host, port.guest
            ));
        }
    }
}

/// Nobody is to believe in more isolation than there is.
fn say_isolation(sandbox: &Sandbox) {
    let isolation = sandbox.isolation();
    match isolation {
        blink_core::Isolation::Namespace => warn(format_args!(
            "isolation: {isolation} (shares the host's kernel; '--isolation microvm' insists on one of its own)"
        )),
        _ => warn(format_args!("isolation: {isolation}")),
    }
}
