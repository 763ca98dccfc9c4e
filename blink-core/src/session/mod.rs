//! Sessions: named sandboxes that outlive the process, with checkpoints of their disks.
//!
//! A disk is a tree of layers. A session writes to one, its head, and what it sees is the head over all that is beneath
//! it. A checkpoint names a layer that nobody writes to any more; a fork and a restored session begin with a new, empty head
//! over one. So each change is the making of a folder, and then one transaction of the registry.

mod archive;
mod ballast;
mod builder;
mod carried;
mod change;
mod checkpoint;
mod head;
mod idle;
mod layers;
mod lease;
mod machine;
mod name;
mod oci;
mod options;
mod ports;
mod processes;
mod registry;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Mutex;

pub use self::archive::ExportOptions;
pub use self::builder::SessionBuilder;
pub use self::carried::Declined;
#[cfg(feature = "fuzzing")]
pub(crate) use self::carried::read as read_carried;
use self::change::{Changing, Others};
pub use self::checkpoint::{Checkpoint, CheckpointOptions, Lineage};
use self::lease::{Gate, Lease};
pub use self::processes::{ProcessLogs, SessionProcesses};
pub(crate) use self::registry::Registry;
use self::registry::SessionRow;
use crate::blink::Blink;
use crate::blocking::on_thread;
use crate::command::Command;
use crate::engine::engines;
use crate::error::{Error, ErrorKind, Result, Subject, during};
use crate::files::Files;
use crate::home::{Lifetime, SandboxFolder};
use crate::isolation::Isolation;
use crate::json;
use crate::lock;
use crate::output::Output;
use crate::process::Process;
use crate::publish::PublishedPort;
use crate::sandbox::{ProcessInfo, Sandbox};
use crate::spec::{Mount, Network, Resources, SandboxSpec};
use serde::Serialize;

/// How long others who use or change a session, or have a home, are waited for, unless told otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// A session, open in this process.
///
/// Several tasks and several processes can have one open at once, each with as many of these as it likes. In a namespace all
/// of them run commands, see files and follow output in the same machine, which the first that needs it starts. What changes
/// the session (a checkpoint, a restore, its end) is done by one at a time; what would end the machine for others fails with
/// `Busy`, which names them. A micro-VM belongs to the process that started it: there, tasks share a session, and processes
/// have it one after another.
///
/// Dropping the last one lets go of the session. Its machine ends with its last user, however that ends, unless the session is
/// [warm](SessionBuilder::warm). For a micro-VM that is a power cut: what programs have written in its last seconds may not be
/// on its disk. [`close`](Session::close) and [`stop`](Session::stop) end it with everything there. The disk stays until the
/// session is [removed](Session::remove). Its methods can be used from several tasks at once.
pub struct Session {
    core: Arc<Core>,
    was_created: bool,
    declined: Vec<Declined>,
    patience: Duration,
    closed: bool,
}

/// A session that this process has open, once for each [`Blink`].
pub(crate) struct Core {
    blink: Blink,
    folder: SandboxFolder,
    isolation: Isolation,
    state: Arc<Mutex<State>>,
    /// Sessions of it that were not let go of.
    handles: AtomicUsize,
    lease: Arc<Lease>,
}

struct State {
    row: SessionRow,
    sandbox: Option<Arc<Sandbox>>,
    used_at: Instant,
    /// Nothing of it is left.
    removed: bool,
    /// A change whose end nobody has seen yet, when the other half of this is dropped: the row may be of before it.
    change: Option<tokio::sync::watch::Receiver<()>>,
    /// What lets this process change it right now.
    changing: Weak<Changing>,
}

/// Details of a session.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Names it in this home.
    pub name: String,
    /// Stays the same when it is renamed.
    pub id: String,
    /// The isolation that it has each time that it runs.
    pub isolation: Isolation,
    /// What it was made from.
    pub image: String,
    /// Whether its machine runs.
    pub running: bool,
    /// Whether its machine goes on when its host process ends.
    pub warm: bool,
    /// What it was labelled with.
    pub labels: BTreeMap<String, String>,
    /// The session that it was forked from, as `session` or `session@checkpoint`.
    pub forked_from: Option<String>,
    /// The checkpoint that its disk was last at.
    #[serde(rename = "snapshot")]
    pub checkpoint: Option<String>,
    /// When it was made.
    #[serde(serialize_with = "json::time")]
    pub created_at: SystemTime,
    /// What its disk occupies beyond its checkpoints. Of a disk with very many files, what it occupied when it was measured
    /// last: some 15 s before at most, while it runs.
    pub disk_bytes: u64,
    /// What it can use of the machine.
    pub resources: Resources,
    /// What it can reach.
    pub network: Network,
    /// What it sees of the host.
    pub mounts: Vec<Mount>,
    /// Its ports, as they were asked for.
    pub publish: Vec<PublishedPort>,
    /// After how long without use its machine is stopped.
    #[serde(rename = "idle_stop_ms", serialize_with = "json::optional_millis")]
    pub idle_stop: Option<Duration>,
}

impl Blink {
    /// Makes a folder for a new session, with all that this process needs there to use it.
    fn new_session_folder(&self) -> Result<SandboxFolder> {
        let folder = self.home().new_sandbox(Lifetime::Session)?;
        match lease::prepare(folder.path()) {
            Ok(()) => Ok(folder),
            Err(error) => {
                folder.remove_or_later();
                Err(Error::io("the session's folder could not be made", &error))
            }
        }
    }

    /// Describes a session to open, or to make if there is none of that name.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(blink: blink_core::Blink) -> blink_core::Result<()> {
    /// use blink_core::Command;
    /// let session = blink.session("notebook").image("host").open().await?;
    /// session.exec(Command::shell("echo 1 >> /var/blink/memory/runs")).await?;
    /// session.checkpoint("begun").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn session(&self, name: impl Into<String>) -> SessionBuilder {
        SessionBuilder::new(self.clone(), name.into())
    }

    /// All sessions of this home, by name.
    ///
    /// # Errors
    /// `Corrupt` and `Unsupported` for what is no list of sessions of this Blink.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>> {
        let blink = self.clone();
        on_thread(move || {
            let rows = lock(&*blink.registry()?).sessions()?;
            Ok(rows.iter().map(|row| blink.describe(row)).collect())
        })
        .await
    }

    /// Details of a session, whoever has it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn session_info(&self, name: &str) -> Result<SessionInfo> {
        let (blink, wanted) = (self.clone(), name.to_owned());
        let found = on_thread(move || {
            let row = lock(&*blink.registry()?).session(&wanted)?;
            Ok(row.map(|row| blink.describe(&row)))
        });
        found.await?.ok_or_else(|| missing(name))
    }

    /// Waits for the disk: some of its files are looked at.
    fn describe(&self, row: &SessionRow) -> SessionInfo {
        let spec = row.options.spec.as_asked();
        SessionInfo {
            name: row.name.clone(),
            id: row.id.clone(),
            isolation: row.isolation,
            image: spec.image().to_owned(),
            resources: spec.resources(),
            running: engines::is_alive(&self.home().sandboxes().join(&row.id)),
            warm: spec.is_warm(),
            labels: spec.labels,
            forked_from: row.forked_from.clone(),
            checkpoint: row.checkpoint.clone(),
            created_at: row.created_at,
            disk_bytes: self.layers().usage(&row.head),
            network: spec.network.unwrap_or_default(),
            mounts: spec.mounts,
            publish: spec.publish,
            idle_stop: spec.idle_stop,
        }
    }

    /// Where a session comes from, and the tree of its checkpoints, whoever has it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn session_lineage(&self, name: &str) -> Result<Lineage> {
        let wanted = name.to_owned();
        let found = self
            .with_registry(move |registry| {
                let Some(row) = registry.session(&wanted)? else {
                    return Ok(None);
                };
                let checkpoints = registry.checkpoints(&row.id)?;
                Ok(Some(Lineage::of(row, checkpoints)))
            })
            .await?;
        found.ok_or_else(|| missing(name))
    }

    /// Removes what no session, checkpoint or fork needs, and what processes that ended half-way have left; says how many
    /// bytes that has freed.
    ///
    /// # Errors
    /// `Busy` while another process makes or removes something of the kind.
    pub async fn prune_sessions(&self) -> Result<u64> {
        self.sweep().await?;
        let (blink, layers) = (self.clone(), self.layers());
        let freed_bytes = on_thread(move || layers.prune(&*blink.registry()?)).await?;
        Ok(freed_bytes + self.take_freed_bytes())
    }

    /// Opens a session that is there, without starting it. Others may have it open too.
    ///
    /// # Errors
    /// `NotFound`; `Busy`, with who and what, while another process changes it, or has its micro-VM, for longer than
    /// `patience`.
    pub async fn take_session(&self, name: &str, patience: Duration) -> Result<Session> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let wanted = name.to_owned();
            let row = self
                .look_up(move |registry| registry.session(&wanted))
                .await?
                .ok_or_else(|| missing(name))?;
            let id = row.id.clone();
            if let Some(core) = self.try_join(row)? {
                // It may have been changed before it was joined.
                let now = self
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
            tokio::time::sleep(CLAIM_EVERY).await;
        }
    }

    /// Becomes a user of a session, or finds that this process is one; `None` while another process keeps it from that.
    fn try_join(&self, row: SessionRow) -> Result<Option<Arc<Core>>> {
        let mut open = lock(self.open_sessions());
        if let Some(core) = open.get(&row.id).and_then(Weak::upgrade) {
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
        // The machine has one link, its owner's.
        if !is_shared && !lease::all_users(folder.path()).is_empty() {
            return Ok(None);
        }
        let core = Core::new(self, folder, row)?;
        open.retain(|_, core| core.strong_count() > 0);
        open.insert(core.folder.id().to_owned(), Arc::downgrade(&core));
        Ok(Some(core))
    }
}

impl State {
    /// Its machine, where this process has a link to one that runs.
    fn alive(&self) -> Option<&Arc<Sandbox>> {
        let sandbox = self.sandbox.as_ref();
        sandbox.filter(|sandbox| sandbox.death().is_none())
    }
}

/// How often it is looked whether a session is free.
const CLAIM_EVERY: Duration = Duration::from_millis(5);

fn missing(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no session {name:?}; look for its name in the list of sessions, or use the home that it is in \
             (BLINK_HOME)"
        ),
    )
}

impl Core {
    fn new(blink: &Blink, folder: SandboxFolder, row: SessionRow) -> Result<Arc<Core>> {
        let isolation = row.isolation;
        let ends = engines::capabilities(isolation).shares_machines && !row.options.spec.is_warm();
        let lease = Lease::take(folder.clone(), ends)
            .map_err(|error| Error::io("who uses the session cannot be written down", &error))?;
        Ok(Arc::new(Core {
            blink: blink.clone(),
            folder,
            isolation,
            state: Arc::new(Mutex::new(State {
                row,
                sandbox: None,
                used_at: Instant::now(),
                removed: false,
                change: None,
                changing: Weak::new(),
            })),
            handles: AtomicUsize::new(0),
            lease: Arc::new(lease),
        }))
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
    fn of(core: Arc<Core>, was_created: bool, patience: Duration) -> Session {
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
    fn made(blink: &Blink, folder: SandboxFolder, row: SessionRow) -> Result<Session> {
        let mut open = lock(blink.open_sessions());
        let core = Core::new(blink, folder, row)?;
        open.insert(core.folder.id().to_owned(), Arc::downgrade(&core));
        Ok(Session::of(core, true, DEFAULT_PATIENCE))
    }

    /// Stays the same when it is renamed.
    pub fn id(&self) -> &str {
        self.core.folder.id()
    }

    /// Whether opening it has made it.
    pub fn was_created(&self) -> bool {
        self.was_created
    }

    fn with_declined(mut self, declined: Vec<Declined>) -> Session {
        self.declined = declined;
        self
    }

    /// What the archive that this was [imported](SessionBuilder::import) from has asked for and was not given; nothing for a
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
        let mut state = self.core.state.lock().await;
        if let Err(error) = self.reread(&mut state).await {
            tracing::debug!(%error, "a session is told of as it was");
        }
        let (blink, row) = (self.core.blink.clone(), state.row.clone());
        let info = on_thread(move || Ok(blink.describe(&row))).await;
        let info = info.unwrap_or_else(|_| self.core.blink.describe(&state.row));
        SessionInfo {
            running: match &state.sandbox {
                Some(sandbox) if sandbox.death().is_none() => true,
                // Another process may have started it again, or left its machine running.
                _ => info.running,
            },
            ..info
        }
    }

    /// The sandbox that it runs in; it is started if it does not run.
    ///
    /// # Errors
    /// As for [`SessionBuilder::open`].
    pub async fn sandbox(&self) -> Result<Arc<Sandbox>> {
        during("sandbox", self, async {
            {
                let mut state = self.there().await?;
                self.use_now(&mut state);
                if let Some(sandbox) = state.alive() {
                    return Ok(sandbox.clone());
                }
            }
            let patience = self.patience.max(DEFAULT_PATIENCE);
            let (mut state, _changing) = self
                .change_within(patience, "has been starting it", Others::Stay)
                .await?;
            self.running(&mut state).await
        })
        .await
    }

    /// Starts it from its disk, or takes up the machine that still runs. Does nothing where it runs already.
    ///
    /// # Errors
    /// As for [`SessionBuilder::open`].
    pub async fn start(&self) -> Result<()> {
        during("start", self, async { self.sandbox().await.map(drop) }).await
    }

    /// Ends its machine; what its programs have written to its disk stays. Does nothing if it does not run.
    ///
    /// # Errors
    /// `Busy` while other processes use it, with all of them; `Internal` if the machine cannot be ended.
    pub async fn stop(&self) -> Result<()> {
        during("stop", self, async {
            let (mut state, _changing) = self
                .changing("has been stopping it", Others::LeaveWhatRuns)
                .await?;
            self.halt(&mut state).await.map(drop)
        })
        .await
    }

    /// Lets go of it. Where this is its last user, its machine ends with all that its programs have written on its disk, unless
    /// it is [warm](SessionBuilder::warm).
    ///
    /// # Errors
    /// As for [`stop`](Session::stop), but that it leaves a machine that others use to them.
    pub async fn close(mut self) -> Result<()> {
        self.closed = true;
        let is_last = self.core.handles.fetch_sub(1, Ordering::AcqRel) == 1;
        let mut state = self.core.state.lock().await;
        if !is_last || state.row.options.spec.is_warm() || state.sandbox.is_none() {
            return Ok(());
        }
        let gate = Gate::try_have(self.core.folder.path());
        match gate {
            Ok(Some(_gate)) if self.core.lease.others().is_empty() => {
                self.halt(&mut state).await.map(drop)
            }
            // Somebody else uses or changes it: it is theirs.
            _ => Ok(()),
        }
    }

    /// Runs a command to its end and captures its output.
    ///
    /// # Errors
    /// As for [`Sandbox::exec`].
    pub async fn exec(&self, command: Command) -> Result<Output> {
        self.sandbox().await?.exec(command).await
    }

    /// Starts a command and streams its input and output. Its number stays its own, also in later processes.
    ///
    /// # Errors
    /// As for [`Sandbox::spawn`].
    pub async fn spawn(&self, command: Command) -> Result<Process> {
        self.sandbox().await?.spawn(command).await
    }

    /// Attaches to a process that was spawned earlier, also by an earlier host process: its output goes on at the offsets
    /// that the caller has, or at the oldest byte of its last MiB.
    ///
    /// # Errors
    /// `NotFound` if it was released, or its machine has ended since.
    pub async fn process(
        &self,
        id: u64,
        stdout_offset: u64,
        stderr_offset: u64,
    ) -> Result<Process> {
        let sandbox = self.sandbox().await?;
        sandbox.process(id, stdout_offset, stderr_offset).await
    }

    /// The spawned processes that were not released.
    ///
    /// # Errors
    /// `SandboxDied` if the machine has ended.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        self.sandbox().await?.processes().await
    }

    /// Its files.
    ///
    /// # Errors
    /// As for [`Session::start`].
    pub async fn files(&self) -> Result<Files> {
        self.sandbox().await?.files()
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// `InvalidArgument`; `AlreadyExists`.
    pub async fn rename(&self, name: impl Into<String>) -> Result<()> {
        during("rename", self, async {
            let name = name.into();
            name::check("session", &name)?;
            let (mut state, _changing) =
                self.changing("has been renaming it", Others::Stay).await?;
            let (id, new) = (state.row.id.clone(), name.clone());
            self.change(
                &mut state,
                None,
                || Ok(()),
                move |registry, ()| registry.rename_session(&id, &new),
            )
            .await?;
            state.row.name = name;
            Ok(())
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
        let (mut state, changing) = match self.changing("has been removing it", others).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            changing => changing?,
        };
        self.halt(&mut state).await?;
        let id = state.row.id.clone();
        self.change_and_remove(
            &mut state,
            None,
            || Ok(()),
            move |registry, ()| registry.remove_session(&id),
        )
        .await?;
        // It is gone, whatever happens. What is left of it is nobody's, and goes with the next start.
        state.removed = true;
        let folder = self.core.folder.clone();
        let removing = tokio::task::spawn_blocking(move || {
            let _until_then = changing;
            folder.remove_or_later();
        });
        let _ = removing.await;
        Ok(())
    }
}
