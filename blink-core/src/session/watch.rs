//! What the users of a machine do for each other: whoever is killed in the middle of something leaves it to them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::lease::Gate;
use super::ports;
use crate::engine::engines;
use crate::sandbox::Sandbox;

/// How often it is looked. Long beside what it costs (some files are read), and short beside the patience of who waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks after a sandbox for as long as this process has its sandbox.
pub(super) fn start(folder: &Path, sandbox: &Arc<Sandbox>) {
    let (folder, sandbox) = (folder.to_owned(), Arc::downgrade(sandbox));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(sandbox) = sandbox.upgrade() else {
                return;
            };
            if sandbox.death().is_some() {
                return;
            }
            let_go_on_if_left(&folder);
            if sandbox.is_published_elsewhere()
                && let Err(error) = ports::take_over(&folder, &sandbox)
            {
                tracing::debug!(%error, "the session's ports are not published any more");
            }
        }
    });
}

/// Lets a sandbox go on whose stopper is gone. Whoever asks changes the session.
pub(super) fn let_go_on(folder: &Path) {
    if engines::is_held_still(folder) {
        tracing::info!("a sandbox goes on that was held still by a process that is gone");
        engines::resume(folder);
    }
}

/// As [`let_go_on`], for one who does not change the session: whoever holds it still for a checkpoint does.
pub(super) fn let_go_on_if_left(folder: &Path) {
    if engines::is_held_still(folder)
        && let Ok(Some(_gate)) = Gate::try_have(folder)
    {
        let_go_on(folder);
    }
}
