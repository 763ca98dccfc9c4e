//! Sandboxes in which nothing runs: programs are answered from a script, and files are kept in memory.
//!
//! For the tests of programs that embed Blink: everything above an engine is real (sandboxes, sessions, checkpoints, streams,
//! timeouts), and takes microseconds. Sandboxes, and what is on their disks, last as long as the process; ports cannot be
//! reached, and sessions cannot be exported. Nothing takes this engine unless it is asked for by name.
//!
//! # Examples
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> blink_core::Result<()> {
//! use blink_core::scripted::{self, Reply};
//! use blink_core::{Blink, Command, IsolationChoice};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let home = folder.path().join("home");
//! let blink = Blink::builder().home(&home).isolation(IsolationChoice::Scripted).build().await?;
//! scripted::answer(blink.home_path(), |invocation| match invocation.words().as_slice() {
//!     ["git", "status"] => Reply::printing("clean\n"),
//!     ["make"] => Reply::exiting(2).and_complaining("no rule\n"),
//!     _ => Reply::not_found(),
//! });
//! let output = blink.run(Command::new("git").arg("status")).await?;
//! assert_eq!(output.text(), "clean\n");
//! # Ok(())
//! # }
//! ```

mod agent;
mod files;
mod script;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::watch;

use self::agent::Agent;
use self::files::Tree;
use self::script::Answer;
pub use self::script::{Invocation, Reply};
use super::kind::{Capabilities, Kind, Left, Share};
use super::{
    About, Archive, Consistency, Engine, Machine, MachineSpec, PackLayer, RootForm,
    host_memory_mib, record,
};
use crate::error::{Error, ErrorKind, Result};
use crate::home::Home;
use crate::isolation::Isolation;
use crate::link::LinkIo;
use blink_host::lock;

/// The scripts of homes.
static SCRIPTS: LazyLock<Mutex<HashMap<PathBuf, Arc<Answer>>>> = LazyLock::new(Mutex::default);
/// The disks that there are, by their folders.
static DISKS: LazyLock<Mutex<HashMap<PathBuf, Tree>>> = LazyLock::new(Mutex::default);
/// The machines that run, by their sandboxes' folders.
static MACHINES: LazyLock<Mutex<HashMap<PathBuf, Arc<Running>>>> = LazyLock::new(Mutex::default);

/// Says what programs do in the sandboxes of a [home](crate::Blink::home_path) that have the isolation `scripted`, in place of what was said before. Those
/// of a home for which nothing was said are not found.
pub fn answer(
    home: impl Into<PathBuf>,
    answer: impl Fn(&Invocation) -> Reply + Send + Sync + 'static,
) {
    lock(&SCRIPTS).insert(home.into(), Arc::new(answer));
}

/// What there is to know of the engine before it is opened.
pub(crate) struct Scripted;

#[async_trait]
impl Kind for Scripted {
    fn isolation(&self) -> Isolation {
        Isolation::Scripted
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            writes_through: true,
            ..Capabilities::default()
        }
    }

    fn default_share(&self) -> Share {
        Share {
            cpus: 1.0,
            memory_mib: host_memory_mib(),
        }
    }

    async fn open(&self, home: &Home) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(ScriptedEngine {
            home: home.path().to_owned(),
        }))
    }

    fn left(&self, folder: &Path, _record: Value) -> Option<Box<dyn Left>> {
        // Another process's is gone with that.
        let running = lock(&MACHINES).get(folder).cloned()?;
        Some(Box::new(LeftMachine(running)))
    }
}

/// A machine that runs.
pub(super) struct Running {
    folder: PathBuf,
    disk: Mutex<PathBuf>,
    agent: Agent,
    ended: watch::Sender<bool>,
}

impl Running {
    fn end(&self) {
        lock(&MACHINES).remove(&self.folder);
        self.agent.end();
        self.ended.send_replace(true);
    }
}

struct LeftMachine(Arc<Running>);

impl Left for LeftMachine {
    fn is_alive(&self) -> bool {
        !*self.0.ended.borrow()
    }

    fn kill(&self) {
        self.0.end();
    }
}

struct ScriptedEngine {
    home: PathBuf,
}

fn unsupported(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("a scripted sandbox {what}; use another isolation for that"),
    )
}

#[async_trait]
impl Engine for ScriptedEngine {
    fn root_form(&self) -> RootForm {
        RootForm::Folder
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>> {
        let disk = spec.disk.clone();
        let tree = {
            let mut disks = lock(&DISKS);
            // Those of sandboxes that were removed.
            disks.retain(|folder, _| folder.exists());
            disks.entry(disk.clone()).or_default().clone()
        };
        record::write(&spec.folder, Isolation::Scripted, &json!({}))
            .map_err(|error| Error::io("the sandbox's folder cannot be written", &error))?;
        let home = self.home.clone();
        let answer = move |invocation: &Invocation| {
            let script = lock(&SCRIPTS).get(&home).cloned();
            script.map_or_else(Reply::not_found, |script| script(invocation))
        };
        let running = Arc::new(Running {
            folder: spec.folder.clone(),
            disk: Mutex::new(disk),
            agent: Agent::new(tree, Arc::new(answer)),
            ended: watch::Sender::new(false),
        });
        lock(&MACHINES).insert(spec.folder.clone(), running.clone());
        Ok(Box::new(ScriptedMachine {
            running,
            outlives: spec.detached,
        }))
    }

    fn make_disk(&self, disk: &Path, over: &Path) -> Result<()> {
        let mut disks = lock(&DISKS);
        // A copy: what is written to one is not in the other.
        let tree = disks.get(over).map(Tree::copy).unwrap_or_default();
        disks.insert(disk.to_owned(), tree);
        Ok(())
    }

    fn is_deep(&self, _layers: &[PathBuf]) -> bool {
        false
    }

    async fn merge(&self, _beneath: &[PathBuf], layers: &[PathBuf], into: &Path) -> Result<()> {
        // Each holds all that it shows.
        match layers.last() {
            Some(top) => self.make_disk(into, top),
            None => Ok(()),
        }
    }

    fn is_settled(&self, _disk: &Path) -> Result<bool> {
        Ok(true)
    }

    async fn settle(&self, _: &Path, _: &[PathBuf], _: Option<&Path>) -> Result<()> {
        Ok(())
    }

    async fn export(
        &self,
        _disk: &Path,
        _layers: &[PathBuf],
        _rootfs: Option<&Path>,
        _archive: &Path,
        _about: About<'_>,
    ) -> Result<()> {
        Err(unsupported("cannot be exported"))
    }

    fn pack_layer(
        &self,
        _disk: &Path,
        _layers: &[PathBuf],
        _rootfs: Option<&Path>,
    ) -> Option<PackLayer> {
        None
    }

    async fn open_archive(&self, _archive: &Path) -> Result<Box<dyn Archive>> {
        Err(unsupported("cannot be imported"))
    }

    async fn adopt(&self, folder: &Path, _disk: &Path) -> Result<Option<Box<dyn Machine>>> {
        let running = lock(&MACHINES).get(folder).cloned();
        Ok(running.map(|running| {
            let machine = ScriptedMachine {
                running,
                outlives: true,
            };
            Box::new(machine) as Box<dyn Machine>
        }))
    }

    async fn discard(&self, folder: &Path) -> Result<()> {
        let running = lock(&MACHINES).get(folder).cloned();
        if let Some(running) = running {
            running.end();
        }
        record::remove(folder);
        Ok(())
    }
}

struct ScriptedMachine {
    running: Arc<Running>,
    outlives: bool,
}

#[async_trait]
impl Machine for ScriptedMachine {
    async fn open_link(&self) -> Result<LinkIo> {
        if *self.running.ended.borrow() {
            return Err(Error::new(ErrorKind::SandboxDied, "the sandbox has ended"));
        }
        Ok(self.running.agent.link())
    }

    async fn last_words(&self) -> Option<String> {
        let ended = *self.running.ended.borrow();
        ended.then(|| "it was ended".into())
    }

    async fn boot_failure(&self) -> Option<Error> {
        None
    }

    async fn snapshot(&self, layer: &Path, _frozen: bool) -> Result<Consistency> {
        let mut disks = lock(&DISKS);
        let tree = disks.get(&*lock(&self.running.disk)).map(Tree::copy);
        disks.insert(layer.to_owned(), tree.unwrap_or_default());
        Ok(Consistency::Frozen)
    }

    fn disk_moved(&self, disk: &Path) {
        let mut disks = lock(&DISKS);
        let before = std::mem::replace(&mut *lock(&self.running.disk), disk.to_owned());
        if let Some(tree) = disks.remove(&before) {
            disks.insert(disk.to_owned(), tree);
        }
    }

    fn is_alive(&self) -> bool {
        !*self.running.ended.borrow()
    }

    fn kill(&self) {
        self.running.end();
    }

    async fn gone(&self) {
        let mut ended = self.running.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for ScriptedMachine {
    fn drop(&mut self) {
        if !self.outlives {
            self.running.end();
        }
    }
}
