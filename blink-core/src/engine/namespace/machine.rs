//! A booted machine, and what is written down about it for later processes.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use blink_host::fault::{self, Step};
use blink_host::lock;
use tokio::sync::watch;

use super::cgroup::{self, ControlGroup, Frozen};
use super::disk;
use crate::child::Launched;
use crate::engine::tree::{Paused, Tree};
use crate::engine::{Consistency, Machine, record};
use crate::error::{Error, ErrorKind, Result};
use crate::isolation::Isolation;
use crate::link::LinkIo;

pub(super) const CONSOLE: &str = "console.log";
pub(super) const SOCKET: &str = "agent.sock";

/// How long a broken link waits for the machine's end, to be able to say how it ended.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(500);

/// What of the console goes into a message.
const CONSOLE_TAIL_BYTES: u64 = 2048;

/// How often an adopted machine is looked at: it is not this process's child, whose end the kernel would tell.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// What later processes must know of a machine.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    /// The agent, as the host numbers it.
    agent: Option<Tree>,
    /// The launcher, which ends with it.
    monitor: Option<Tree>,
    group: Option<PathBuf>,
    /// Whether it ends with the process that has booted it, for all that is known.
    #[serde(default)]
    leashed: bool,
    /// Whether it ends with its last link.
    #[serde(default)]
    leased: bool,
}

impl Record {
    pub(crate) fn new(
        agent: Option<i32>,
        monitor: i32,
        group: Option<&Path>,
        leased: bool,
    ) -> Record {
        Record {
            agent: agent.and_then(Tree::of),
            monitor: Tree::of(monitor),
            group: group.map(Path::to_owned),
            leashed: false,
            leased,
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> std::io::Result<()> {
        record::write(folder, Isolation::Namespace, self)
    }

    pub(crate) fn read(folder: &Path) -> Option<Record> {
        record::read_as(folder, Isolation::Namespace)
    }

    /// Whether it may end yet with the process that boots it.
    pub(super) fn is_leashed(&self) -> bool {
        self.leashed
    }

    /// Whether it ends with its last link.
    pub(super) fn is_leased(&self) -> bool {
        self.leased
    }

    /// Whether somebody has stopped the agent.
    pub(super) fn is_held_still(&self) -> bool {
        let is_frozen = || self.group().is_some_and(|group| group.is_frozen());
        self.agent
            .is_some_and(|agent| agent.is_alive() && (agent.is_stopped() || is_frozen()))
    }

    /// Its control group, which goes with what is returned if it is empty.
    pub(super) fn group(&self) -> Option<ControlGroup> {
        self.group.clone().map(ControlGroup::from_path)
    }

    /// Stops it and its programs until what is returned is dropped.
    fn stop(&self, agent: Tree) -> Stopped {
        match self.group().and_then(|group| group.freeze()) {
            Some(frozen) => Stopped::ByGroup(frozen),
            None => Stopped::BySignals(agent.pause()),
        }
    }

    /// Lets it and its programs go on.
    pub(super) fn resume(&self) {
        if let Some(group) = self.group() {
            group.thaw();
        }
        self.agent.into_iter().for_each(Tree::resume);
    }

    pub(crate) fn is_alive(&self) -> bool {
        [self.agent, self.monitor]
            .into_iter()
            .flatten()
            .any(Tree::is_alive)
    }

    /// Ends the agent, and with it everything in its namespace; the monitor ends after it.
    pub(crate) fn kill(&self) {
        match self.agent {
            Some(agent) => agent.kill_alone(),
            None => self.monitor.into_iter().for_each(Tree::kill_alone),
        }
        if let Some(group) = self.group() {
            group.kill();
        }
    }
}

/// Programs that go on when this is dropped.
enum Stopped {
    ByGroup(Frozen),
    BySignals(Paused),
}

impl Stopped {
    /// Whether they have all stood still until now.
    fn are_still(&self) -> bool {
        match self {
            Stopped::ByGroup(frozen) => frozen.is_still(),
            Stopped::BySignals(paused) => paused.is_still(),
        }
    }
}

/// A machine of this engine.
pub(crate) struct NamespaceMachine {
    folder: PathBuf,
    disk: Mutex<PathBuf>,
    record: Record,
    /// The first link, until it is taken.
    link: Mutex<Option<UnixStream>>,
    /// What this process has started; `None` if an earlier one has.
    launched: Option<Arc<Launched>>,
    /// Whether it ends when this is dropped, or this process ends.
    is_leashed: AtomicBool,
    ended: watch::Receiver<bool>,
}

impl NamespaceMachine {
    pub(crate) fn started(
        folder: PathBuf,
        disk: PathBuf,
        launched: Launched,
        record: Record,
        link: UnixStream,
        group: Option<ControlGroup>,
    ) -> NamespaceMachine {
        let (sender, ended) = watch::channel(false);
        let launched = Arc::new(launched);
        let watched = launched.clone();
        tokio::spawn(async move {
            watched.ended().await;
            if let Some(group) = group {
                group.kill();
            }
            let _ = sender.send(true);
        });
        NamespaceMachine {
            folder,
            disk: Mutex::new(disk),
            record,
            link: Mutex::new(Some(link)),
            launched: Some(launched),
            is_leashed: AtomicBool::new(true),
            ended,
        }
    }

    /// Writes down how later processes find it. A machine that is to outlive this process does so from now on.
    pub(crate) fn write_down(&self, outlives: bool) -> Result<()> {
        let failed = |error| Error::io("the sandbox could not be booted: its record", &error);
        let leashed = Record {
            leashed: outlives,
            ..self.record.clone()
        };
        fault::before(Step::NamespaceBooted)
            .and_then(|()| leashed.write(&self.folder))
            .and_then(|()| fault::before(Step::NamespaceRecorded))
            .map_err(failed)?;
        if (outlives || self.record.leased)
            && let Some(launched) = &self.launched
        {
            // Where it has ended already, that shows at its link. What is leased is held by its links from now on.
            launched.release();
            self.is_leashed.store(false, Ordering::Relaxed);
        }
        if outlives {
            self.record.write(&self.folder).map_err(failed)?;
        }
        Ok(())
    }

    /// A machine that an earlier process has booted, if it runs.
    pub(crate) fn adopt(folder: &Path, disk: &Path) -> Option<NamespaceMachine> {
        let record = Record::read(folder)?;
        if record.leashed {
            // It is about to end, as its host process has.
            record.kill();
            return None;
        }
        if !record.is_alive() {
            return None;
        }
        let (sender, ended) = watch::channel(false);
        let watched = record.clone();
        tokio::spawn(async move {
            while watched.is_alive() && !sender.is_closed() {
                tokio::time::sleep(WATCH_EVERY).await;
            }
            drop(watched.group());
            let _ = sender.send(true);
        });
        Some(NamespaceMachine {
            folder: folder.to_owned(),
            disk: Mutex::new(disk.to_owned()),
            record,
            link: Mutex::new(None),
            launched: None,
            is_leashed: AtomicBool::new(false),
            ended,
        })
    }

    fn console_tail(&self) -> String {
        use std::io::{Read, Seek, SeekFrom};
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = fs::File::open(self.folder.join(CONSOLE))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(CONSOLE_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default())
            .trim()
            .to_owned()
    }
}

impl Drop for NamespaceMachine {
    fn drop(&mut self) {
        if self.is_leashed.load(Ordering::Relaxed)
            && let Some(launched) = &self.launched
        {
            launched.kill();
        }
    }
}

/// Another link to the agent of the machine in this folder.
pub(super) fn connect(folder: &Path) -> Result<UnixStream> {
    fs::File::open(folder)
        .and_then(|folder| {
            UnixStream::connect(format!(
                "/proc/self/fd/{}/{SOCKET}",
                folder.as_fd().as_raw_fd()
            ))
        })
        .map_err(no_link)
}

pub(super) fn link_io(stream: UnixStream) -> Result<LinkIo> {
    let stream = stream
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixStream::from_std(stream))
        .map_err(no_link)?;
    let (reader, writer) = stream.into_split();
    Ok(LinkIo {
        reader: Box::new(reader),
        writer: Box::new(writer),
    })
}

fn no_link(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::SandboxDied,
        format!("the sandbox does not take links ({error})"),
    )
}

#[async_trait]
impl Machine for NamespaceMachine {
    async fn open_link(&self) -> Result<LinkIo> {
        let first = lock(&self.link).take();
        let connected = match first {
            Some(link) => Ok(link),
            None => connect(&self.folder),
        };
        connected.and_then(link_io)
    }

    async fn last_words(&self) -> Option<String> {
        tokio::time::timeout(LAST_WORDS_WAIT, self.gone())
            .await
            .ok()?;
        let tail = self.console_tail();
        Some(if tail.is_empty() {
            "it printed nothing on its console".into()
        } else {
            tail
        })
    }

    async fn boot_failure(&self) -> Option<Error> {
        // The launcher has told.
        None
    }

    async fn snapshot(&self, layer: &Path, _frozen: bool) -> Result<Consistency> {
        let Some(agent) = self.record.agent else {
            return Err(Error::new(ErrorKind::SandboxDied, "the sandbox has ended"));
        };
        let (disk, layer) = (lock(&self.disk).clone(), layer.to_owned());
        let record = self.record.clone();
        let copying = tokio::task::spawn_blocking(move || {
            let stopped = record.stop(agent);
            disk::copy(&disk, &layer)?;
            // The programs' kernel is this one: what they have written is what is read.
            Ok(match stopped.are_still() {
                true => Consistency::Frozen,
                false => Consistency::Crash,
            })
        });
        copying
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
    }

    fn limit_memory(&self, memory_mib: u64) -> Result<bool> {
        let Some(group) = &self.record.group else {
            return Ok(false);
        };
        cgroup::limit_memory(group, memory_mib)
            .map(|()| true)
            .map_err(|error| Error::io("the sandbox's memory cannot be limited", &error))
    }

    fn disk_moved(&self, disk: &Path) {
        disk.clone_into(&mut lock(&self.disk));
    }

    fn is_alive(&self) -> bool {
        self.record.is_alive()
    }

    fn kill(&self) {
        if let Some(launched) = &self.launched {
            launched.kill();
        }
        self.record.kill();
    }

    async fn gone(&self) {
        let mut ended = self.ended.clone();
        // An error means that the watching task is over: the runtime is ending.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}
