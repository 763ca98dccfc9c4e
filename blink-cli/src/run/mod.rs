//! `blink run`.

pub(crate) mod hold;
pub(crate) mod program;
pub(crate) mod result;
pub(crate) mod signals;
mod streams;
pub(crate) mod target;
pub(crate) mod terminal;

use std::ffi::OsString;
use std::path::PathBuf;

use blink_core::{Blink, Isolation, IsolationChoice, PublishedPort, Sandbox, SandboxBuilder};

use crate::arguments::RunOptions;
use crate::failure::{Failure, warn};
use crate::options::SandboxOptions;
use crate::progress::Sign;
use hold::{Ending, Holding};
use signals::Signals;
use target::Target;
use terminal::Terminal;

/// Runs a program in a sandbox of its own; returns this command's exit code.
pub(crate) async fn run(
    mut options: RunOptions,
    home: Option<PathBuf>,
    argv: &[OsString],
) -> Result<i32, Failure> {
    let target = Target::new(std::mem::take(&mut options.words), argv)?;
    let terminal = Terminal::wanted(options.program.tty)?;
    let mut signals = Signals::catch()?;
    let blink = std::mem::take(&mut options.sandbox.registry)
        .open(home)
        .await?;
    let booted = match &options.pool {
        Some(pool) => claim(&blink, pool, &options.sandbox, &mut signals).await?,
        None => boot(sandbox(&blink, &options.sandbox)?, &mut signals).await?,
    };
    let sandbox = match booted {
        Ok(sandbox) => sandbox,
        Err(ended_by) => return Ok(ended_by),
    };
    if options.sandbox.isolation == Some(IsolationChoice::Auto) {
        say_isolation(sandbox.isolation());
    }
    say_ports(&sandbox, &options.sandbox.publish);
    let holding = Holding {
        isolation: sandbox.isolation(),
        session: None,
        terminal: terminal.as_ref(),
        json: options.json,
    };
    let mounts = &options.sandbox.mount;
    let ending = holding
        .run(&sandbox, &target, mounts, &options.program, &mut signals)
        .await;
    let removed = signals.ends_at_once_while(sandbox.remove()).await;
    let code = ending.and_then(Ending::tell);
    if let Err(error) = removed {
        warn(error);
    }
    code
}

/// Describes a sandbox as the user wants it.
pub(crate) fn sandbox(blink: &Blink, options: &SandboxOptions) -> Result<SandboxBuilder, Failure> {
    Ok(blink.sandbox().spec(options.spec()?).image(options.image()))
}

/// Claims one of a pool's, or returns the exit code where a signal came first.
async fn claim(
    blink: &Blink,
    pool: &str,
    options: &SandboxOptions,
    signals: &mut Signals,
) -> Result<Result<Sandbox, i32>, Failure> {
    let spec = options.spec()?;
    let mut claim = blink.open_pool(pool).await?.claim();
    if let Some(hostname) = spec.hostname {
        claim = claim.hostname(hostname);
    }
    if let Some(memory_mib) = spec.memory_mib {
        claim = claim.memory_mib(memory_mib);
    }
    if let Some(network) = spec.network {
        claim = claim.network(network);
    }
    for port in spec.publish {
        claim = claim.publish(port);
    }
    let sign = Sign::new("waiting for a sandbox");
    tokio::select! {
        claimed = sign.shown(async { claim.await }) => Ok(Ok(claimed?)),
        signal = signals.ending() => Ok(Err(signals::exit_code(signal))),
    }
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
pub(crate) fn say_ports(sandbox: &Sandbox, asked: &[PublishedPort]) {
    for (asked, port) in asked.iter().zip(sandbox.published()) {
        if asked.host.port() == 0 {
            warn(format_args!(
                "{} leads to port {} of the sandbox",
                port.host, port.guest
            ));
        }
    }
}

/// Nobody is to believe in more isolation than there is.
pub(crate) fn say_isolation(isolation: Isolation) {
    match isolation {
        Isolation::Namespace => warn(format_args!(
            "isolation: {isolation} (shares the host's kernel; '--isolation microvm' insists on one of its own)"
        )),
        _ => warn(format_args!("isolation: {isolation}")),
    }
}
