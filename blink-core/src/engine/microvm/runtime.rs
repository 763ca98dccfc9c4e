//! BoxLite, opened once for each home of this process.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::{Duration, Instant};

use blink_host::file_lock::{self, FileLock, Share};
use blink_host::{lock, withheld};
use boxlite::{BoxliteOptions, BoxliteRuntime};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::failure::translate;
use super::owner::{Owner, PATIENCE};
use crate::error::{Error, ErrorKind, Result};
use crate::home::Home;

/// BoxLite lets a home have one runtime, so all users in this process share it.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, Arc<Slot>>>> = LazyLock::new(Mutex::default);

/// In the engine's folder.
const BOXLITE_LOCK: &str = ".lock";

/// One opens it, the others wait for it.
type Slot = tokio::sync::Mutex<Weak<Runtime>>;

/// Threads for BoxLite's own tasks: it waits for files at times, which must not hold up the caller's.
const THREADS: usize = 2;

/// BoxLite with the tasks that belong to it. They outlive whichever runtime asked for them first.
pub(super) struct Runtime {
    folder: PathBuf,
    /// The descriptor of BoxLite's own lock.
    withheld: Option<withheld::Number>,
    boxlite: Option<Arc<BoxliteRuntime>>,
    tasks: Tasks,
    /// Let go of last.
    _owner: Owner,
}

impl Runtime {
    /// The runtime of a home.
    ///
    /// # Errors
    /// `IsolationUnavailable` if a program that machines are made with is missing; `Busy` if another process has
    /// the home.
    pub(super) async fn open(home: &Home) -> Result<Arc<Runtime>> {
        check_programs(|name| boxlite::util::find_binary(name).is_ok())?;
        let folder = folder(home);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| Error::io("the micro-VMs' folder could not be made", &error))?;
        let folder = fs::canonicalize(&folder)
            .map_err(|error| Error::io("the micro-VMs' folder cannot be used", &error))?;
        let slot = lock(&OPEN).entry(folder.clone()).or_default().clone();
        let mut open = slot.lock().await;
        if let Some(runtime) = open.upgrade() {
            return Ok(runtime);
        }
        let owner = Owner::become_in(&folder, PATIENCE).await?;
        let runtime = Arc::new(Self::start(folder, owner).await?);
        *open = Arc::downgrade(&runtime);
        runtime.collect(home).await;
        Ok(runtime)
    }

    async fn start(folder: PathBuf, owner: Owner) -> Result<Runtime> {
        let tasks = Tasks::start()
            .map_err(|error| Error::io("the micro-VMs' threads could not be started", &error))?;
        let home = folder.clone();
        let opening = tasks.handle().spawn_blocking(move || open_patiently(&home));
        let boxlite = opening
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))??;
        Ok(Runtime {
            withheld: withheld::Number::of(&folder.join(BOXLITE_LOCK)),
            folder,
            boxlite: Some(Arc::new(boxlite)),
            tasks,
            _owner: owner,
        })
    }

    pub(super) fn boxlite(&self) -> Result<&Arc<BoxliteRuntime>> {
        self.boxlite.as_ref().ok_or_else(ended)
    }

    /// Runs a task on BoxLite's own threads, to its end also where the caller gives up.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let task = self.tasks.handle().spawn(task);
        task.await
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
    }

    /// Starts a task on BoxLite's own threads.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.handle().spawn(task)
    }

    /// Everything of the engine, and what must be on the same file system.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the engine has the disks that it makes of images.
    pub(super) fn image_disks(&self) -> PathBuf {
        self.folder.join("images/disk-images")
    }

    /// Where the engine looks for a machine's disk.
    pub(super) fn disk_place(&self, machine: &str) -> PathBuf {
        self.machine_folder(machine).join("disks/disk.qcow2")
    }

    /// The engine's folder for a machine.
    pub(super) fn machine_folder(&self, machine: &str) -> PathBuf {
        self.folder.join("boxes").join(machine)
    }

    /// Ends a machine and removes its disk; no error if there is none.
    pub(super) async fn remove(&self, machine: &str) -> Result<()> {
        let boxlite = self.boxlite()?.clone();
        let machine = machine.to_owned();
        self.run(async move { remove(&boxlite, &machine).await })
            .await
    }

    /// Removes machines whose sandboxes are gone: their host process ended before it could.
    async fn collect(&self, home: &Home) {
        let Ok(boxlite) = self.boxlite().cloned() else {
            return;
        };
        let sandboxes = home.sandboxes();
        let boxes = self.folder.join("boxes");
        let collecting = self.run(async move {
            let machines = boxlite
                .list_info()
                .await
                .map_err(|error| translate("the micro-VMs could not be listed", &error))?;
            let known = machines
                .iter()
                .map(|machine| machine.id.as_str().to_owned());
            remove_unknown(&boxes, &known.collect());
            for machine in machines {
                let sandbox = machine.name.as_deref().map(|name| sandboxes.join(name));
                if sandbox.is_some_and(|folder| folder.is_dir()) {
                    continue;
                }
                tracing::info!(
                    machine = machine.id.as_str(),
                    "removing a micro-VM whose sandbox is gone"
                );
                if let Err(error) = remove(&boxlite, machine.id.as_str()).await {
                    tracing::warn!(%error, "a left-over micro-VM could not be removed");
                }
            }
            Ok(())
        });
        if let Err(error) = collecting.await {
            tracing::warn!(%error, "left-over micro-VMs could not be removed");
        }
    }
}

/// Removes folders of machines that the engine has not written down: it makes the folder first, and this process alone has
/// the engine.
fn remove_unknown(boxes: &Path, known: &HashSet<String>) {
    let Ok(folder) = fs::File::open(boxes) else {
        return;
    };
    for entry in fs::read_dir(boxes).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| known.contains(name)) {
            continue;
        }
        tracing::info!(machine = %name.display(), "removing a micro-VM that was never finished");
        if let Err(error) = blink_archive::remove_tree(folder.as_fd(), &name) {
            tracing::warn!(%error, machine = %name.display(), "it could not be removed");
        }
    }
}

/// BoxLite looks for its programs only when it needs them, and panics where one is missing.
fn check_programs(is_there: impl Fn(&str) -> bool) -> Result<()> {
    const PROGRAMS: [&str; 4] = ["boxlite-shim", "boxlite-guest", "mke2fs", "debugfs"];
    let missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|name| !is_there(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::IsolationUnavailable,
        format!(
            "the programs that micro-VMs are made with are missing ({}); let BOXLITE_RUNTIME_DIR name the folder of BoxLite's \
             runtime, install Blink again, or ask for less isolation with isolation = \"namespace\"",
            missing.join(", ")
        ),
    ))
}

/// BoxLite has a lock of its own beneath the owner's. A process that has ended, or a child that it was just starting, holds
/// it for a moment longer; so does a program that uses BoxLite there without Blink.
fn open_patiently(folder: &Path) -> Result<BoxliteRuntime> {
    const LOOK_EVERY: Duration = Duration::from_millis(25);
    let deadline = Instant::now() + PATIENCE;
    let mut unexplained = false;
    loop {
        let opened = BoxliteRuntime::new(BoxliteOptions {
            home_dir: folder.to_owned(),
            image_registries: Vec::new(),
            image_registry_proxy: None,
        });
        let error = match opened {
            Ok(boxlite) => return Ok(boxlite),
            Err(error) => error,
        };
        if !is_locked(folder) {
            // Whoever had it may have let go just now.
            if !std::mem::replace(&mut unexplained, true) {
                continue;
            }
            const WHAT: &str = "the micro-VMs' runtime could not be opened";
            // It does not say so itself.
            check_room(folder).map_err(|error| Error::io(WHAT, &error))?;
            return Err(translate(WHAT, &error));
        }
        if Instant::now() >= deadline {
            let holder = std::fs::File::open(folder.join(BOXLITE_LOCK))
                .map(|lock| file_lock::holder(&lock))
                .ok();
            let who = holder
                .as_ref()
                .map_or_else(|| "another program".into(), |holder| holder.to_string());
            let message = format!(
                "{who} uses {} as its BoxLite home, and did for all of {PATIENCE:.0?}; wait for it, or use another \
                 home (BLINK_HOME)",
                folder.display()
            );
            return Err(Error::new(ErrorKind::Busy, message).held_by(holder));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether another runtime has the folder.
fn is_locked(folder: &Path) -> bool {
    std::fs::File::open(folder.join(BOXLITE_LOCK))
        .and_then(|lock| FileLock::try_take(lock, Share::Alone))
        .is_ok_and(|lock| lock.is_none())
}

/// BoxLite's database needs room also to be read.
fn check_room(folder: &Path) -> std::io::Result<()> {
    const NEEDED_BYTES: usize = 64 << 10;
    tempfile::tempfile_in(folder)?.write_all(&[0; NEEDED_BYTES])
}

/// Where BoxLite keeps everything of a home.
fn folder(home: &Home) -> PathBuf {
    home.path().join("microvm")
}

pub(super) async fn remove(boxlite: &BoxliteRuntime, machine: &str) -> Result<()> {
    match boxlite.remove(machine, true).await {
        Ok(()) | Err(boxlite::BoxliteError::NotFound(_)) => Ok(()),
        Err(error) => Err(translate("the micro-VM could not be removed", &error)),
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Internal, "the micro-VMs' runtime has ended")
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Before BoxLite closes it.
        drop(self.withheld.take());
        // It ends machines that are still there, which takes a moment and needs its tasks.
        drop(self.boxlite.take());
    }
}

/// Threads for BoxLite's own tasks. They may be let go of anywhere, also by a future that is given up.
struct Tasks {
    handle: Handle,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Tasks {
    fn start() -> std::io::Result<Tasks> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("blink-microvm")
            .enable_all()
            .build()?;
        Ok(Tasks {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_end_where_waiting_is_not_allowed() {
        drop(Tasks::start().unwrap());
    }

    #[test]
    fn the_folder_of_a_machine_that_was_never_written_down_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let boxes = home.path().join("boxes");
        for machine in ["known", "unknown"] {
            fs::create_dir_all(boxes.join(machine).join("disks")).unwrap();
            fs::write(boxes.join(machine).join("disks/disk.qcow2"), "x").unwrap();
        }
        std::os::unix::fs::symlink(home.path(), boxes.join("link")).unwrap();
        remove_unknown(&boxes, &HashSet::from(["known".to_owned()]));
        let left = fs::read_dir(&boxes)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["known"]);
        remove_unknown(&home.path().join("none"), &HashSet::new());
    }

    #[test]
    fn a_missing_program_is_named() {
        check_programs(|_| true).unwrap();
        let error = check_programs(|name| name != "mke2fs").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsolationUnavailable);
        assert!(error.message().contains("(mke2fs)"), "{error}");
    }
}
