//! Stops a machine that nobody uses.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;

use super::State;
use crate::sandbox::Sandbox;

/// A session is looked at so often in the time that it may be idle.
const LOOKS: u32 = 10;

/// Stops the machine once nobody has asked for anything for so long, no process runs that somebody may come back to,
/// and nobody holds its sandbox. What is held ends the watch with the session.
pub(super) fn watch(state: &Arc<Mutex<State>>, sandbox: &Arc<Sandbox>, after: Duration) {
    let (state, sandbox) = (Arc::downgrade(state), Arc::downgrade(sandbox));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep((after / LOOKS).max(Duration::from_millis(1))).await;
            if is_over(&state, &sandbox, after).await {
                return;
            }
        }
    });
}

/// Whether there is nothing to watch any more.
async fn is_over(state: &Weak<Mutex<State>>, sandbox: &Weak<Sandbox>, after: Duration) -> bool {
    let Some(state) = state.upgrade() else {
        return true;
    };
    let mut state = state.lock().await;
    let Some(sandbox) = sandbox.upgrade() else {
        return true;
    };
    // The session's own, and the one here.
    const OURS: usize = 2;
    let held = Arc::strong_count(&sandbox) > OURS;
    if held || state.used_at.elapsed() < after {
        return false;
    }
    match sandbox.processes().await {
        Ok(processes) if processes.iter().any(|process| process.status.is_none()) => false,
        _ => {
            tracing::info!(sandbox = sandbox.id(), "stopping an idle session");
            state.sandbox = None;
            sandbox.settle().await;
            sandbox.end("the session was idle, and was stopped").await;
            true
        }
    }
}
