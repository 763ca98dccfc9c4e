//! A boot for a pool, and what is run in what was booted.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::blocking::on_thread;
use crate::command::Command;
use crate::engine;
use crate::error::{Error, ErrorKind, Result};
use crate::home::SandboxFolder;
use crate::sandbox::{self, Place, Request, Sandbox};

/// Boots in a folder, of which nothing is left where that fails.
pub(super) async fn boot_in(
    request: &Request,
    parts: sandbox::Parts,
    place: Place,
    folder: SandboxFolder,
    given_up: &CancellationToken,
) -> Result<Sandbox> {
    let booted = request.boot(parts, place, given_up.clone()).await;
    match booted {
        Ok(sandbox) => Ok(sandbox.ends_with_its_handle()),
        Err(error) => {
            let _ = on_thread(move || {
                folder.remove_or_later();
                Ok(())
            })
            .await;
            Err(error)
        }
    }
}

/// Runs a command that must succeed, unless nobody waits for it any more.
pub(super) async fn run(
    sandbox: &Sandbox,
    command: &Command,
    timeout: Duration,
    given_up: &CancellationToken,
) -> Result<()> {
    let command = match command.timeout {
        Some(_) => command.clone(),
        None => command.clone().timeout(timeout),
    };
    let output = tokio::select! {
        output = sandbox.exec(command.clone()) => output?,
        () = given_up.cancelled() => return Err(engine::given_up()),
    };
    if output.status.success() {
        return Ok(());
    }
    let name = command.shown();
    let (kind, message) = match output.status.timed_out {
        true => (
            ErrorKind::Timeout,
            format!(
                "the warmup command {name:?} did not end in time; start what goes on instead of running it, or give it a \
                 longer timeout"
            ),
        ),
        false => (
            ErrorKind::InvalidArgument,
            format!(
                "the warmup command {name:?} failed ({}): {}",
                output.status.shown(),
                output.last_words()
            ),
        ),
    };
    Err(Error::new(kind, message).with_output(output))
}
