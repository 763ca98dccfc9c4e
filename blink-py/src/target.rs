//! What programs run in: a sandbox, or the one that a session has at the moment.

use std::sync::Arc;

use blink_core::{Command, Isolation, Output, Process as CoreProcess, Sandbox, Session};

use crate::failure::Failure;
use crate::slot::{Guard, Slot};

/// A sandbox, and whether it goes on when it is closed.
pub(crate) struct Held {
    pub(crate) sandbox: Sandbox,
    pub(crate) detached: bool,
}

/// Either of the two.
pub(crate) enum Target {
    Sandbox(Slot<Held>),
    Session(Slot<Session>),
}

impl Clone for Target {
    fn clone(&self) -> Target {
        match self {
            Target::Sandbox(slot) => Target::Sandbox(slot.clone()),
            Target::Session(slot) => Target::Session(slot.clone()),
        }
    }
}

/// The sandbox of a target, while a call uses it.
pub(crate) enum Current {
    Sandbox(Guard<Held>),
    Session {
        sandbox: Arc<Sandbox>,
        /// Who closes the session waits until the call is over.
        _session: Guard<Session>,
    },
}

impl std::ops::Deref for Current {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        match self {
            Current::Sandbox(held) => &held.sandbox,
            Current::Session { sandbox, .. } => sandbox,
        }
    }
}

impl Target {
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self {
            Target::Sandbox(slot) => slot.check(),
            Target::Session(slot) => slot.check(),
        }
    }

    /// Uses the sandbox; a session that does not run is started.
    pub(crate) async fn with<R, F: Future<Output = Result<R, Failure>>>(
        &self,
        call: impl FnOnce(Current) -> F,
    ) -> Result<R, Failure> {
        match self {
            Target::Sandbox(slot) => slot.with(|held| call(Current::Sandbox(held))).await,
            Target::Session(slot) => {
                slot.with(|session| async move {
                    let sandbox = session.sandbox().await?;
                    let current = Current::Session {
                        sandbox,
                        _session: session,
                    };
                    call(current).await
                })
                .await
            }
        }
    }

    pub(crate) async fn exec(&self, command: Command) -> Result<Output, Failure> {
        self.with(|sandbox| async move { Ok(sandbox.exec(command).await?) })
            .await
    }

    pub(crate) async fn spawn(
        &self,
        command: Command,
    ) -> Result<(CoreProcess, Isolation), Failure> {
        self.with(|sandbox| async move {
            let process = sandbox.spawn(command).await?;
            Ok((process, sandbox.isolation()))
        })
        .await
    }
}
