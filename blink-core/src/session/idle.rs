//! Stops a sandbox that nobody uses.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use blink_host::private;

use super::core::Core;
use super::lease::Gate;
use crate::sandbox::Sandbox;

/// A session is looked at so often in the time that it may be idle.
const LOOKS: u32 = 10;

/// Stops the sandbox once nobody has asked for anything for so long, in any process, no process runs that somebody may come
/// back to, and nobody holds its sandbox. What is held ends the watch with the session.
pub(super) fn watch(core: &Arc<Core>, sandbox: &Arc<Sandbox>, after: Duration) {
    let (core, sandbox) = (Arc::downgrade(core), Arc::downgrade(sandbox));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep((after / LOOKS).max(Duration::from_millis(1))).await;
            if is_over(&core, &sandbox, after).await {
                return;
            }
        }
    });
}

/// Whether there is nothing to watch any more.
async fn is_over(core: &Weak<Core>, sandbox: &Weak<Sandbox>, after: Duration) -> bool {
    let Some(core) = core.upgrade() else {
        return true;
    };
    let mut state = core.state.lock().await;
    let Some(sandbox) = sandbox.upgrade() else {
        return true;
    };
    // The session's own, and the one here.
    const OURS: usize = 2;
    if Arc::strong_count(&sandbox) > OURS {
        core.lease.touch();
        return false;
    }
    if state.used_at.elapsed() < after {
        return false;
    }
    match sandbox.processes().await {
        Ok(processes) if processes.iter().any(|process| process.status.is_none()) => return false,
        Err(_) if sandbox.death().is_some() => return true,
        _ => {}
    }
    // Nobody changes it now.
    let Ok(Some(_gate)) = Gate::try_have(core.folder.path()) else {
        return false;
    };
    // Written before anybody is asked: who begins to use it says so first, and then looks here.
    let Ok(stop) = Stop::announce(core.folder.path()) else {
        return false;
    };
    let now = SystemTime::now();
    let used_lately = |at: SystemTime| now.duration_since(at).is_ok_and(|since| since < after);
    if core
        .lease
        .others()
        .iter()
        .any(|user| used_lately(user.used_at()))
    {
        stop.take_back();
        return false;
    }
    tracing::info!(sandbox = sandbox.id(), "stopping an idle session");
    state.sandbox = None;
    sandbox.settle().await;
    sandbox.end("the session was idle, and was stopped").await;
    true
}

/// A stop that was announced. It is there until the session is started again.
pub(super) struct Stop(PathBuf);

impl Stop {
    /// Announces one. Whoever asks changes the session.
    fn announce(folder: &Path) -> io::Result<Stop> {
        let stop = Stop(folder.join("idle-stop"));
        private::create_file(&stop.0)?;
        Ok(stop)
    }

    /// The one that was announced and not taken back.
    pub(super) fn of(folder: &Path) -> Option<Stop> {
        let stop = Stop(folder.join("idle-stop"));
        stop.0.exists().then_some(stop)
    }

    /// Forgets it. Whoever asks changes the session.
    pub(super) fn take_back(self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "a stop that is over is looked at once more");
        }
    }
}
