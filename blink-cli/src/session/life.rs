//! `blink session stop`, `start`, `rm`, `rename` and `prune`.

use blink_core::{ErrorKind, SessionInfo};
use indicatif::HumanBytes;
use serde_json::json;

use super::Sessions;
use crate::failure::{Failure, print_event, print_text};
use crate::progress;

impl Sessions {
    /// Ends its sandbox.
    pub(crate) async fn stop(&self, name: &str) -> Result<i32, Failure> {
        let (session, info) = self.take(name).await?;
        progress::shown("stopping the session", session.stop()).await?;
        let words = match info.running {
            true => format!("stopped the session {name}"),
            false => format!("the session {name} was not running"),
        };
        let more = json!({"was_running": info.running});
        self.tell("session_stopped", name, info.isolation, more, &words)
    }

    /// Starts its sandbox.
    pub(crate) async fn start(&self, name: &str) -> Result<i32, Failure> {
        let (session, info) = self.take(name).await?;
        must_be_warm(&info)?;
        progress::shown("starting the session", session.start()).await?;
        let words = match info.running {
            true => format!("the session {name} was running"),
            false => format!("started the session {name}"),
        };
        let more = json!({"was_running": info.running});
        self.tell("session_started", name, info.isolation, more, &words)
    }

    /// Removes it with everything that it has; only by `force` where it goes on running for somebody, or others use it.
    pub(crate) async fn remove(&self, name: &str, force: bool) -> Result<i32, Failure> {
        let (session, info) = self.take(name).await?;
        if info.running && info.warm && !force {
            return Err(Failure::new(
                ErrorKind::Busy,
                format!(
                    "the session {name:?} is running; stop it first ('blink stop {name}'), or remove \
                     it with --force"
                ),
            ));
        }
        let removing = async {
            match force {
                true => session.remove_by_force().await,
                false => session.remove().await,
            }
        };
        progress::shown("removing the session", removing).await?;
        let words = format!("removed the session {name}");
        self.tell("session_removed", name, info.isolation, json!({}), &words)
    }

    /// Gives it another name.
    pub(crate) async fn rename(&self, name: &str, new: String) -> Result<i32, Failure> {
        let (session, info) = self.take(name).await?;
        session.rename(new.as_str()).await?;
        let words = format!("the session {name} is called {new} now");
        let more = json!({"old_name": name});
        self.tell("session_renamed", &new, info.isolation, more, &words)
    }

    /// Removes what nobody needs.
    pub(crate) async fn prune(&self) -> Result<i32, Failure> {
        let pruning = self.blink.prune_sessions();
        let freed_bytes = progress::shown("removing what is not needed", pruning).await?;
        if self.json {
            return print_event("sessions_pruned", &json!({"freed_bytes": freed_bytes}));
        }
        print_text(&format!("{} are free again\n", HumanBytes(freed_bytes)))
    }
}

/// What is to outlive this command needs a sandbox that does.
pub(super) fn must_be_warm(info: &SessionInfo) -> Result<(), Failure> {
    match info.warm {
        true => Ok(()),
        false => Err(Failure::invalid(format!(
            "the session {:?} is not warm: its sandbox, and all that runs in it, would end with this command; make \
             sessions with --warm for that, or use 'blink session run'",
            info.name
        ))),
    }
}
