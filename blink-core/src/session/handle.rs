//! A session, as those who use it have it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use blink_host::lock;

use super::carried::Declined;
use super::core::{Core, DEFAULT_PATIENCE, LOOK_EVERY, missing};
use super::lease::{self, Gate};
use super::list::SessionInfo;
use super::name;
use super::turn::{Others, Turn};
use crate::blink::Blink;
use crate::blocking::on_thread;
use crate::disk::SessionRow;
use crate::engine::engines;
use crate::error::{Error, ErrorKind, Result, Subject, during};
use crate::home::{Lifetime, SandboxFolder};
use crate::sandbox::Sandbox;
use crate::spec::SandboxSpec;

/// A session, open in this process.
///
/// Several tasks and several processes can have one open at once, each with as many of these as it likes. In a namespace all
/// of them run commands, see files and follow output in the same machine, which the first that needs it starts. What changes
/// the session (a checkpoint, a restore, its end) is done by one at a time; what would end the sandbox for others fails with
/// `Busy`, which names them. A micro-VM belongs to the process that started it: there, tasks share a session, and processes
/// have it one after another.
///
/// Dropping the last one lets go of the session. Its sandbox ends with its last user, however that ends, unless the session is
/// [warm](crate::SessionBuilder::warm). For a micro-VM that is a power cut: what programs have written in its last seconds may not be
/// on its disk. [`close`](Session::close) and [`stop`](Session::stop) end it with everything there. The disk stays until the
/// session is [removed](Session::remove). Its methods can be used from several tasks at once.
pub struct Session {
    pub(super) core: Arc<Core>,
    was_created: bool,
    declined: Vec<Declined>,
    pub(super) patience: Duration,
    closed: bool,
}

impl Blink {
    /// Opens a session that is there, without starting it. Others may have it open too.
    ///
    /// # Errors
    /// `NotFound`; `Busy`, with who and what, while another process changes it, or has its micro-VM, for longer than
    /// `patience`.
    pub async fn take_session(&self, name: &str, patience: Duration) -> Result<Session> {
        during("take_session", &*format!("session {name:?}"), async {
            let deadline = tokio::time::Instant::now() + patience;
            loop {
                let wanted = name.to_owned();
                let row = self
                    .disks()
                    .look_up(move |registry| registry.session(&wanted))
                    .await?
                    .ok_or_else(|| missing(name))?;
                let id = row.id.clone();
                if let Some(core) = self.try_join(row)? {
                    // It may have been changed before it was joined.
                    let now = self
                        .disks()
                        .look_up(move |registry| registry.session_by_id(&id))
                        .await?;
                    return match now {
                        Some(now) if now.name == name => {
                            if let Ok(mut state) = core.state.try_lock()
                                && state.change.is_none()
                            {
                                state.row = now;
                            }
                            Ok(Session::of(core, false, patience))
                        }
                        _ => Err(missing(name)),
                    };
                }
                if tokio::time::Instant::now() >= deadline {
                    let users = lease::all_users(&self.home().sandboxes().join(&id));
                    return Err(lease::busy(name, &users));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await
    }

    /// Becomes a user of a session, or finds that this process is one; `None` while another process keeps it from that.
    fn try_join(&self, row: SessionRow) -> Result<Option<Arc<Core>>> {
        // Of several tasks that come at once, one opens it.
        let mut open = lock(self.open_sessions());
        if let Some(core) = Core::opened(&open, &row.id) {
            return Ok(Some(core));
        }
        let folder = match self.home().open_sandbox(&row.id, Lifetime::Session) {
            Ok(folder) => folder,
            // A sweep looks whose it is, or its last user leaves.
            Err(error) if error.kind() == ErrorKind::Busy => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing(&row.name)),
            Err(error) => return Err(error),
        };
        let is_shared = engines::capabilities(row.isolation).shares_machines;
        let gate = match is_shared {
            true => Gate::try_pass(folder.path()),
            false => Gate::try_have(folder.path()),
        };
        let _gate = match gate {
            Ok(Some(gate)) => gate,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing(&row.name));
            }
            Err(error) => return Err(Error::io("the session cannot be locked", &error)),
        };
        // The sandbox has one link, its owner's.
        if !is_shared && !lease::all_users(folder.path()).is_empty() {
            return Ok(None);
        }
        Core::open(&mut open, self, folder, row).map(Some)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.closed {
            self.core.handles.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Subject for Session {
    fn subject(&self) -> String {
        match self.core.state.try_lock() {
            Ok(state) => format!("session {:?}", state.row.name),
            // It is being changed, and its name perhaps too.
            Err(_) => format!("session {}", self.id()),
        }
    }
}

impl Session {
    pub(super) fn of(core: Arc<Core>, was_created: bool, patience: Duration) -> Session {
        core.handles.fetch_add(1, Ordering::Relaxed);
        Session {
            core,
            was_created,
            declined: Vec::new(),
            patience,
            closed: false,
        }
    }

    /// One that was just made, and that nobody else knows yet.
    pub(super) fn made(blink: &Blink, folder: SandboxFolder, row: SessionRow) -> Result<Session> {
        let mut open = lock(blink.open_sessions());
        let core = match Core::opened(&open, &row.id) {
            // Another task has found it.
            Some(core) => core,
            None => Core::open(&mut open, blink, folder, row)?,
        };
        Ok(Session::of(core, true, DEFAULT_PATIENCE))
    }

    /// Takes a turn at changing it.
    pub(super) async fn turn(&self, what: &str, others: Others) -> Result<Turn> {
        self.core.turn(self.patience, what, others).await
    }

    /// Stays the same when it is renamed.
    pub fn id(&self) -> &str {
        self.core.folder.id()
    }

    /// Its name now, which any process can change.
    pub async fn name(&self) -> String {
        match self.core.reread().await {
            Ok(state) => state.row.name.clone(),
            Err(error) => {
                tracing::debug!(%error, "a session is told of as it was");
                self.core.state.lock().await.row.name.clone()
            }
        }
    }

    /// Whether opening it has made it.
    pub fn was_created(&self) -> bool {
        self.was_created
    }

    pub(super) fn with_declined(mut self, declined: Vec<Declined>) -> Session {
        self.declined = declined;
        self
    }

    /// What the archive that this was [imported](crate::SessionBuilder::import) from has asked for and was not given; nothing for a
    /// session that was opened.
    pub fn declined(&self) -> &[Declined] {
        &self.declined
    }

    /// What it was made with, where another is to be like it. The isolation is that of [`info`](Session::info).
    pub async fn spec(&self) -> SandboxSpec {
        self.core.state.lock().await.row.options.spec.as_asked()
    }

    /// What there is to say about it.
    pub async fn info(&self) -> SessionInfo {
        let state = match self.core.reread().await {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(%error, "a session is told of as it was");
                self.core.state.clone().lock_owned().await
            }
        };
        let (blink, row) = (self.core.blink.clone(), state.row.clone());
        let info = on_thread(move || Ok(SessionInfo::of(&blink, &row))).await;
        let info = info.unwrap_or_else(|_| SessionInfo::of(&self.core.blink, &state.row));
        SessionInfo {
            running: match &state.sandbox {
                Some(sandbox) if sandbox.death().is_none() => true,
                // Another process may have started it again, or left its sandbox running.
                _ => info.running,
            },
            ..info
        }
    }

    /// The sandbox that it runs in, which has its commands, processes, files and ports; the session is started if it does not
    /// run. It costs next to nothing where it runs already, so ask for it each time: what is returned ends with
    /// [`stop`](Session::stop) and [`restore`](Session::restore), and a session whose sandbox is held is not idle.
    ///
    /// # Errors
    /// As for [`SessionBuilder::open`](crate::SessionBuilder::open); `NotFound` once it was removed.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(session: blink_core::Session) -> blink_core::Result<()> {
    /// let output = session.sandbox().await?.exec(blink_core::Command::new("ls")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn sandbox(&self) -> Result<Arc<Sandbox>> {
        during("sandbox", self, async {
            {
                let mut state = self.core.there().await?;
                self.core.use_now(&mut state);
                if let Some(sandbox) = state.alive()
                    && !self.core.may_be_stopped(&state, sandbox)
                {
                    return Ok(sandbox.clone());
                }
            }
            let patience = self.patience.max(DEFAULT_PATIENCE);
            let what = "has been starting it";
            let mut turn = self.core.turn(patience, what, Others::Stay).await?;
            turn.running().await
        })
        .await
    }

    /// Starts it from its disk, or takes up the sandbox that still runs. Does nothing where it runs already.
    ///
    /// # Errors
    /// As for [`SessionBuilder::open`](crate::SessionBuilder::open).
    pub async fn start(&self) -> Result<()> {
        during("start", self, async { self.sandbox().await.map(drop) }).await
    }

    /// Ends its sandbox; what its programs have written to its disk stays. Does nothing if it does not run.
    ///
    /// # Errors
    /// `Busy` while other processes use it, with all of them; `Internal` if the machine cannot be ended.
    pub async fn stop(&self) -> Result<()> {
        during("stop", self, async {
            let what = "has been stopping it";
            let mut turn = self.turn(what, Others::LeaveWhatRuns).await?;
            turn.halt().await.map(drop)
        })
        .await
    }

    /// Lets go of it. Where this is its last user, its sandbox ends with all that its programs have written on its disk, unless
    /// it is [warm](crate::SessionBuilder::warm).
    ///
    /// # Errors
    /// As for [`stop`](Session::stop), but that it leaves a sandbox that others use to them.
    pub async fn close(mut self) -> Result<()> {
        self.closed = true;
        let is_last = self.core.handles.fetch_sub(1, Ordering::AcqRel) == 1;
        let state = self.core.state.clone().lock_owned().await;
        if !is_last || state.row.options.spec.is_warm() || state.sandbox.is_none() {
            return Ok(());
        }
        match self
            .core
            .try_turn(state, "has been closing it", Others::Leave)
        {
            Ok(Some(mut turn)) => turn.halt().await.map(drop),
            // Somebody else uses or changes it: it is theirs.
            _ => Ok(()),
        }
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// `InvalidArgument`; `AlreadyExists`.
    pub async fn rename(&self, name: impl Into<String>) -> Result<()> {
        during("rename", self, async {
            let name = name.into();
            name::check("session", &name)?;
            let mut turn = self.turn("has been renaming it", Others::Stay).await?;
            let id = turn.row().id.clone();
            turn.write(move |registry| registry.rename_session(&id, &name))
                .await
        })
        .await
    }

    /// Ends it and deletes everything in it: its disk, its checkpoints, its name. Forks of it stay whole. Files that cannot
    /// be removed go when Blink is next started in this home. Calls that come later fail with `NotFound`; only this one
    /// does nothing then.
    ///
    /// # Errors
    /// `Busy` while other processes have it open, with all of them; otherwise as for [`stop`](Session::stop). A full disk is no
    /// hindrance: room for this is kept in the home.
    pub async fn remove(&self) -> Result<()> {
        during("remove", self, async {
            self.remove_from(Others::Leave).await
        })
        .await
    }

    /// As [`remove`](Session::remove), also while other processes have it open: their calls fail from then on.
    ///
    /// # Errors
    /// As for [`remove`](Session::remove); `Busy` only while another process changes it.
    pub async fn remove_by_force(&self) -> Result<()> {
        during("remove_by_force", self, async {
            self.remove_from(Others::Stay).await
        })
        .await
    }

    async fn remove_from(&self, others: Others) -> Result<()> {
        let mut turn = match self.turn("has been removing it", others).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            turn => turn?,
        };
        turn.halt().await?;
        let id = turn.row().id.clone();
        turn.write(move |registry| registry.remove_session(&id))
            .await?;
        // It is gone, whatever happens. What is left of it is nobody's, and goes with the next start.
        turn.state.removed = true;
        let folder = self.core.folder.clone();
        let removing = tokio::task::spawn_blocking(move || {
            let _until_then = turn;
            folder.remove_or_later();
        });
        let _ = removing.await;
        Ok(())
    }
}
