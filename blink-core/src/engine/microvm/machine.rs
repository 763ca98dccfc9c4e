//! A booted machine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use blink_host::lock;
use boxlite::{BoxOptions, BoxStatus, BoxliteRuntime, LiteBox};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::disk::Disk;
use super::filter::Filter;
use super::record::Record;
use super::runtime::{self, Runtime};
use super::{archive, console, failure, link};
use crate::engine::kind::Left as _;
use crate::engine::tree::Tree;
use crate::engine::{Consistency, Machine, MachineSpec, given_up};
use crate::error::{Error, ErrorKind, Result};
use crate::link::LinkIo;

/// How long a broken link waits for the machine's end, to be able to say how it ended.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(700);

/// How often a machine that is no child of this process, on a kernel without process handles, is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// A machine of this engine.
pub(super) struct MicrovmMachine {
    /// BoxLite ends what it has booted when the last of its handles is dropped.
    _handle: Arc<LiteBox>,
    runtime: Arc<Runtime>,
    record: Record,
    disk: Mutex<Disk>,
    /// The engine's folder for it.
    folder: PathBuf,
    ended: watch::Receiver<bool>,
    removal: watch::Sender<bool>,
    killed: AtomicBool,
}

/// How long a boot that failed waits until nothing is left of it: it takes a moment, unless the engine hangs.
const UNDO_WAIT: Duration = Duration::from_secs(10);

/// How soon a machine whose boot was given up is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Machines that boot at once. A boot keeps about two processors busy, and the engine gives each 30 s, whatever else boots:
/// with more at once than that all are late.
static BOOTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Arc::new(Semaphore::new((processors / 2).max(1)))
});

impl MicrovmMachine {
    /// Boots a machine, in what is left of the time for it. One that is not up by then, or is given up, is ended and removed.
    pub(super) async fn boot(
        runtime: &Arc<Runtime>,
        spec: &MachineSpec,
        since: Instant,
        options: BoxOptions,
        secret: String,
        launcher: &Path,
    ) -> Result<MicrovmMachine> {
        let disk = Disk::of(&spec.disk);
        let is_new = !disk.exists();
        let handle = if is_new {
            create(runtime, options, spec.id.clone()).await?
        } else {
            let size_bytes = disk.size_bytes().map_err(not_noted)?;
            archive::provision(runtime, options, Some(spec.id.clone()), size_bytes).await?
        };
        let handle = Arc::new(handle);
        let mut record = Record {
            machine: handle.id().as_str().to_owned(),
            secret,
            process: None,
        };
        let mut unfinished = Unfinished::new(runtime, &record.machine);
        let folder = runtime.machine_folder(&record.machine);
        let booting = async {
            record.write(&spec.folder).map_err(not_noted)?;
            let place = runtime.disk_place(&record.machine);
            if !is_new {
                disk.lend(&place).map_err(not_noted)?;
            }
            let filter = Filter::put(launcher, &folder)?;
            let left = spec.boot_timeout.saturating_sub(since.elapsed());
            tokio::time::timeout(left, unfinished.start(&handle))
                .await
                .map_err(|_| late(spec.boot_timeout, &console::tail(&folder)))??;
            filter.check()?;
            if is_new {
                disk.adopt(&place).map_err(not_noted)?;
            }
            record.process = process_of(&handle, &filter).await;
            record.write(&spec.folder).map_err(not_noted)
        };
        let booted = tokio::select! {
            biased;
            () = spec.given_up.cancelled() => Err(given_up()),
            booted = booting => booted,
        };
        if let Err(error) = booted {
            unfinished.undo().await;
            return Err(error);
        }
        unfinished.machine = None;
        Ok(Self::watched(runtime, handle, record, disk, folder))
    }

    /// A machine that an earlier process has booted, if it runs.
    pub(super) async fn adopt(
        runtime: &Arc<Runtime>,
        folder: &Path,
        disk: &Path,
    ) -> Result<Option<MicrovmMachine>> {
        let Some(record) = Record::read(folder) else {
            return Ok(None);
        };
        let boxlite = runtime.boxlite()?.clone();
        let machine = record.machine.clone();
        let found = runtime.run(async move {
            let found = boxlite.get(&machine).await;
            found.map_err(|error| failure::translate("the micro-VM could not be found", &error))
        });
        let Some(handle) = found.await? else {
            return Ok(None);
        };
        let handle = Arc::new(handle);
        let info = handle.info().await.map_err(|error| {
            failure::translate("the micro-VM's state could not be read", &error)
        })?;
        let (disk, folder) = (Disk::of(disk), runtime.machine_folder(&record.machine));
        let running = info.status == BoxStatus::Running && record.is_alive();
        Ok(running.then(|| Self::watched(runtime, handle, record, disk, folder)))
    }

    fn watched(
        runtime: &Arc<Runtime>,
        handle: Arc<LiteBox>,
        record: Record,
        disk: Disk,
        folder: PathBuf,
    ) -> MicrovmMachine {
        let (sender, ended) = watch::channel(false);
        let process = record.process;
        runtime.spawn(async move {
            watch_end(process).await;
            let _ = sender.send(true);
        });
        let (removal, _) = watch::channel(false);
        MicrovmMachine {
            runtime: runtime.clone(),
            _handle: handle,
            record,
            disk: Mutex::new(disk),
            folder,
            ended,
            removal,
            killed: AtomicBool::new(false),
        }
    }
}

async fn create(runtime: &Runtime, options: BoxOptions, name: String) -> Result<LiteBox> {
    let boxlite = runtime.boxlite()?.clone();
    let created = runtime.run(async move {
        boxlite
            .create(options, Some(name))
            .await
            .map_err(|error| failure::translate("the micro-VM could not be made", &error))
    });
    created.await
}

fn not_noted(error: std::io::Error) -> Error {
    Error::io("the sandbox's folder cannot be written", &error)
}

/// A machine whose boot is not over. It is removed unless that is taken back.
struct Unfinished {
    runtime: Arc<Runtime>,
    machine: Option<String>,
    /// BoxLite's part of the boot, which cannot be given up.
    starting: Option<JoinHandle<boxlite::BoxliteResult<()>>>,
}

impl Unfinished {
    fn new(runtime: &Arc<Runtime>, machine: &str) -> Unfinished {
        Unfinished {
            runtime: runtime.clone(),
            machine: Some(machine.to_owned()),
            starting: None,
        }
    }

    /// Starts it when its turn has come.
    async fn start(&mut self, handle: &Arc<LiteBox>) -> Result<()> {
        let defect =
            |error: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, error.to_string());
        let turn = BOOTS.clone().acquire_owned().await;
        let turn = turn.map_err(|error| defect(&error))?;
        let handle = handle.clone();
        let starting = self.starting.insert(self.runtime.spawn(async move {
            let started = handle.start().await;
            // Also where nobody waits for it any more, the next one's turn comes when this one has ended.
            drop(turn);
            started
        }));
        let started = starting.await;
        self.starting = None;
        let Err(error) = started.map_err(|error| defect(&error))? else {
            return Ok(());
        };
        let machine = self.machine.as_deref().unwrap_or_default();
        let console = console::tail(&self.runtime.machine_folder(machine));
        tracing::debug!(console, "a micro-VM did not boot");
        Err(not_booted(&error, &console))
    }

    /// Removes it. What takes long goes on.
    async fn undo(mut self) {
        if let Some(undoing) = self.begin_undo() {
            let _ = tokio::time::timeout(UNDO_WAIT, undoing).await;
        }
    }

    fn begin_undo(&mut self) -> Option<JoinHandle<()>> {
        let machine = self.machine.take()?;
        let mut starting = self.starting.take();
        let boxlite = self.runtime.boxlite().ok()?.clone();
        let runtime = self.runtime.clone();
        Some(self.runtime.spawn(async move {
            // Its process may be hung, and then does not listen to the engine's requests to end; or is only to come.
            let mut killed = None;
            loop {
                let info = boxlite.get_info(&machine).await.ok().flatten();
                let pid =
                    pid_in(&runtime.machine_folder(&machine)).or(info.and_then(|info| info.pid));
                if pid != killed {
                    kill_process(pid);
                    killed = pid;
                }
                let Some(starting) = &mut starting else {
                    break;
                };
                if tokio::time::timeout(LOOK_AGAIN, starting).await.is_ok() {
                    break;
                }
            }
            discard(&boxlite, &machine).await;
            drop(runtime);
        }))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(self.begin_undo());
    }
}

fn kill_process(pid: Option<u32>) {
    if let Some(tree) = pid.and_then(|pid| Tree::of(i32::try_from(pid).ok()?)) {
        tree.kill();
    }
}

/// What the engine has written down while it boots: its database knows the process only afterwards.
fn pid_in(folder: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(folder.join("shim.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

async fn discard(boxlite: &BoxliteRuntime, machine: &str) {
    if let Err(error) = runtime::remove(boxlite, machine).await {
        tracing::warn!(%error, machine, "a micro-VM goes with the next start");
    }
}

/// The hypervisor itself. The jail around it ends with it, and not the other way round where the machine is detached.
async fn process_of(handle: &LiteBox, filter: &Filter) -> Option<Tree> {
    let pid = handle.info().await.ok()?.pid?;
    let jail = Tree::of(i32::try_from(pid).ok()?)?;
    Some(jail.running(&filter.hypervisor()).unwrap_or(jail))
}

async fn watch_end(process: Option<Tree>) {
    let Some(process) = process else {
        return;
    };
    let registered = process.handle().map(|handle| {
        // SAFETY: the descriptor is owned by what it is registered with, and closed only with it.
        unsafe { AsyncFd::register(handle) }
    });
    match registered {
        // It becomes readable when the process ends.
        Some(Ok(handle)) => {
            let _ = handle.readable().await;
        }
        _ => {
            while process.is_alive() {
                tokio::time::sleep(WATCH_EVERY).await;
            }
        }
    }
}

fn not_booted(error: &boxlite::BoxliteError, console: &str) -> Error {
    let error = failure::translate("the micro-VM did not boot", error);
    match console {
        "" => error,
        console => Error::new(
            error.kind(),
            format!("{error}; its console says: {console}"),
        ),
    }
}

fn late(deadline: Duration, console: &str) -> Error {
    let told = match console {
        "" => "it printed nothing on its console",
        console => console,
    };
    let message = format!(
        "the micro-VM did not boot within {deadline:?}, and was ended; its console: {told}"
    );
    Error::new(ErrorKind::Timeout, message)
}

#[async_trait]
impl Machine for MicrovmMachine {
    async fn open_link(&self) -> Result<LinkIo> {
        let sockets = self.folder.join("sockets");
        let stream = tokio::select! {
            accepted = link::accept(&sockets, &self.record.secret) => accepted?,
            () = self.gone() => {
                let message = format!("the micro-VM has ended: {}", console::tail(&self.folder));
                return Err(Error::new(ErrorKind::SandboxDied, message));
            }
        };
        let (reader, writer) = stream.into_split();
        Ok(LinkIo {
            reader: Box::new(reader),
            writer: Box::new(writer),
        })
    }

    async fn last_words(&self) -> Option<String> {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(|ended| *ended);
        tokio::time::timeout(LAST_WORDS_WAIT, end)
            .await
            .ok()?
            .ok()?;
        let tail = console::tail(&self.folder);
        Some(match tail.as_str() {
            "" => "it printed nothing on its console".into(),
            _ => tail,
        })
    }

    async fn boot_failure(&self) -> Option<Error> {
        None
    }

    async fn snapshot(&self, layer: &Path, frozen: bool) -> Result<Consistency> {
        let Some(process) = self.record.process else {
            return Err(Error::new(ErrorKind::SandboxDied, "the micro-VM has ended"));
        };
        let (disk, layer) = (lock(&self.disk).clone(), Disk::of(layer));
        let copying = self.runtime.run(async move {
            let copying = tokio::task::spawn_blocking(move || {
                let paused = process.pause();
                disk.copy_to(&layer)?;
                Ok::<_, std::io::Error>(paused.is_still())
            });
            copying
                .await
                .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
        });
        let was_still = copying
            .await?
            .map_err(|error| Error::io("the sandbox's disk could not be kept", &error))?;
        match (frozen, was_still) {
            (true, _) => Ok(Consistency::Frozen),
            (false, true) => Ok(Consistency::Crash),
            // Not even what a power cut leaves: parts of it are of different moments.
            (false, false) => Err(Error::new(
                ErrorKind::Busy,
                "the micro-VM could not be stopped while its disk was copied; try again, or stop the session first",
            )),
        }
    }

    fn disk_moved(&self, disk: &Path) {
        *lock(&self.disk) = Disk::of(disk);
    }

    fn is_alive(&self) -> bool {
        !*self.ended.borrow()
    }

    fn kill(&self) {
        if self.killed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.record.kill();
        let Ok(boxlite) = self.runtime.boxlite().cloned() else {
            return;
        };
        let (machine, removal) = (self.record.machine.clone(), self.removal.clone());
        // The runtime, and with it the task, goes on until this is done.
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            discard(&boxlite, &machine).await;
            removal.send_replace(true);
            drop(boxlite);
            drop(runtime);
        });
    }

    async fn gone(&self) {
        let mut ended = self.ended.clone();
        // An error means that the watching task is over: the runtime is ending.
        let _ = ended.wait_for(|ended| *ended).await;
        if self.killed.load(Ordering::Acquire) {
            let mut removal = self.removal.subscribe();
            let _ = removal.wait_for(|removed| *removed).await;
        }
    }
}
