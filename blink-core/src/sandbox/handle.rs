//! A sandbox, as those who use it have it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blink_host::lock;
use blink_wire::{Address, Adjust, Attach, ProcessId, Request};
use tokio::sync::Mutex;

use super::info::{ProcessInfo, processes};
use super::interpreter::{self, Waiting};
use super::remains::{Remains, Undertaker};
use crate::blocking::on_thread;
use crate::budget::Share;
use crate::command::{Command, Defaults};
use crate::connection::Connection;
use crate::engine::{Consistency, Machine, engines};
use crate::error::{Error, ErrorKind, Result, Subject, during};
use crate::files::Files;
use crate::home::{Lifetime, SandboxFolder};
use crate::isolation::Isolation;
use crate::link::Link;
use crate::output::Output;
use crate::process::{self, Process};
use crate::publish::{Bound, Published, PublishedPort};
use crate::spec::DEFAULT_BOOT_TIMEOUT;

/// A sandbox: an isolated environment with processes, files and a disk of its own.
///
/// Dropping it ends and removes it, unless it was made [detached](crate::SandboxBuilder::detached). Its methods can be used
/// from several tasks at once.
pub struct Sandbox {
    folder: SandboxFolder,
    pub(super) machine: Arc<dyn Machine>,
    link: Option<Link>,
    isolation: Isolation,
    defaults: Defaults,
    published: Published,
    /// It goes on when this is dropped.
    pub(super) outlives: bool,
    /// What makes this process a user of it, for other processes.
    user: Option<User>,
    /// Interpreters that wait for code.
    interpreters: std::sync::Mutex<Vec<Waiting>>,
    /// What it has of the budget, as long as anything of it is there.
    share: std::sync::Mutex<Option<Share>>,
    /// Who takes what is left of it when this is dropped.
    undertaker: std::sync::Mutex<Option<Undertaker>>,
    /// Nothing of it is left.
    removed: Mutex<bool>,
}

/// Somebody who uses a sandbox for as long as this lives.
type User = Arc<dyn std::any::Any + Send + Sync>;

impl Subject for Sandbox {
    fn subject(&self) -> String {
        format!("sandbox {}", self.id())
    }
}

impl Sandbox {
    pub(crate) fn assemble(
        folder: SandboxFolder,
        machine: Arc<dyn Machine>,
        isolation: Isolation,
        defaults: Defaults,
    ) -> Sandbox {
        Sandbox {
            folder,
            machine,
            link: None,
            isolation,
            defaults,
            published: Published::default(),
            outlives: false,
            user: None,
            interpreters: std::sync::Mutex::default(),
            share: std::sync::Mutex::default(),
            undertaker: std::sync::Mutex::default(),
            removed: Mutex::new(false),
        }
    }

    /// Failing to reach a machine that an earlier process has made is no reason to end it.
    pub(crate) fn adopted(mut self) -> Sandbox {
        self.outlives = true;
        self
    }

    /// Opens the link to a machine that an earlier process has left, and publishes its ports.
    pub(crate) async fn reached(mut self, ports: &[PublishedPort]) -> Result<Sandbox> {
        let ports = Bound::bind(ports)?;
        self.connect(Instant::now(), DEFAULT_BOOT_TIMEOUT).await?;
        self.publish(ports)?;
        Ok(self)
    }

    /// As [`reached`](Sandbox::reached), where another process publishes its ports.
    pub(crate) async fn reached_beside(mut self, ports: Vec<PublishedPort>) -> Result<Sandbox> {
        self.connect(Instant::now(), DEFAULT_BOOT_TIMEOUT).await?;
        self.publish_elsewhere(ports);
        Ok(self)
    }

    /// Keeps what makes this process a user of it, as long as this lives.
    pub(crate) fn used_by(mut self, user: User) -> Sandbox {
        self.user = Some(user);
        self
    }

    /// Has a part of the budget.
    pub(crate) fn within(self, share: Share) -> Sandbox {
        *lock(&self.share) = Some(share);
        self
    }

    /// One that others may share ends with this handle, as long as nobody has named it.
    pub(crate) fn ends_with_its_handle(mut self) -> Sandbox {
        self.outlives = false;
        self
    }

    /// Leaves what is left of it when this is dropped to somebody who has the time for it.
    pub(crate) fn left_to(self, undertaker: Undertaker) -> Sandbox {
        *lock(&self.undertaker) = Some(undertaker);
        self
    }

    /// Ends it, and leaves the rest to the caller.
    pub(crate) fn into_remains(mut self) -> Remains {
        *lock(&self.undertaker) = None;
        self.kill("the sandbox was removed");
        *self.removed.get_mut() = true;
        Remains::new(
            self.machine.clone(),
            self.folder.clone(),
            lock(&self.share).take(),
        )
    }

    /// Becomes a session's, whose folder and disk are these.
    pub(crate) fn become_sessions(
        &mut self,
        folder: SandboxFolder,
        disk: &Path,
        defaults: Defaults,
    ) {
        self.machine.disk_moved(disk);
        self.outlives = engines::capabilities(self.isolation).shares_machines;
        self.folder = folder;
        self.defaults = defaults;
        *lock(&self.undertaker) = None;
    }

    /// Changes it while it runs: its host name, and what it may use of the memory.
    ///
    /// # Errors
    /// `Unsupported` if it cannot be changed so.
    pub(crate) async fn adjust(
        &self,
        hostname: Option<&str>,
        memory_mib: Option<u64>,
    ) -> Result<()> {
        let memory_mib = match memory_mib {
            Some(mib) if self.machine.limit_memory(mib)? => None,
            memory_mib => memory_mib,
        };
        let adjust = Adjust {
            host_name: hostname.map(str::to_owned),
            memory_bytes: memory_mib.map(|mib| mib.saturating_mul(1 << 20)),
        };
        match adjust == Adjust::default() {
            true => Ok(()),
            false => self.link()?.call(&Request::Adjust(adjust)).await.map(drop),
        }
    }

    /// Starts an interpreter that waits for code.
    pub(crate) async fn start_interpreter(&self, language: &'static str) -> Result<()> {
        let process = self.spawn(interpreter::command()).await?;
        let waiting = Waiting::of(process, &self.defaults, language).await?;
        lock(&self.interpreters).push(waiting);
        Ok(())
    }

    /// One that waits for such code, if there is one.
    fn interpreter_for(&self, command: &Command) -> Option<Waiting> {
        command.as_code()?;
        let mut waiting = lock(&self.interpreters);
        let fits = |waiting: &Waiting| waiting.can_be(command, &self.defaults);
        let place = waiting.iter().position(fits)?;
        Some(waiting.swap_remove(place))
    }

    /// What its programs run with from now on.
    pub(crate) fn set_defaults(&mut self, defaults: Defaults) {
        self.defaults = defaults;
    }

    pub(crate) fn folder(&self) -> &SandboxFolder {
        &self.folder
    }

    fn kill(&mut self, reason: &str) {
        self.machine.kill();
        if let Some(link) = self.link.take() {
            link.close(Error::new(ErrorKind::SandboxDied, reason));
        }
    }

    /// Has everything written to the disk, before an end that leaves no time for it.
    pub(crate) async fn settle(&self) {
        if let Ok(link) = self.link()
            && !self.writes_through()
        {
            let _ = link.call(&Request::Freeze).await;
        }
    }

    fn writes_through(&self) -> bool {
        engines::capabilities(self.isolation).writes_through
    }

    /// Ends the machine. Its folder stays.
    pub(crate) async fn end(&self, reason: &str) {
        self.machine.kill();
        if let Some(link) = &self.link {
            link.close(Error::new(ErrorKind::SandboxDied, reason));
        }
        self.machine.gone().await;
    }

    /// Copies what the disk holds at this moment to a layer's folder.
    pub(crate) async fn snapshot(&self, layer: &Path, must_freeze: bool) -> Result<Consistency> {
        let link = self.link()?;
        let frozen = match link.call(&Request::Freeze).await {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::SandboxDied => return Err(error),
            Err(error) if must_freeze && !self.writes_through() => {
                return Err(error);
            }
            Err(error) => {
                tracing::debug!(sandbox = self.id(), %error, "the disk is not frozen");
                false
            }
        };
        let copied = self.machine.snapshot(layer, frozen).await;
        if frozen {
            link.call(&Request::Thaw).await?;
        }
        match copied? {
            Consistency::Crash if must_freeze => Err(Error::new(
                ErrorKind::Busy,
                "the sandbox's programs could not be stopped while its disk was copied: they let each other go on; stop the \
                 session first, or accept a checkpoint that is not frozen",
            )),
            consistency => Ok(consistency),
        }
    }

    /// Opens the link; a machine that does not answer is ended by the drop that follows.
    pub(crate) async fn connect(&mut self, started: Instant, limit: Duration) -> Result<()> {
        let machine = self.machine.clone();
        // The message names the whole limit, not what is left of it here.
        let late = || {
            let message = format!(
                "the sandbox did not boot within {limit:?}; give it more time (its boot timeout)"
            );
            Error::new(ErrorKind::Timeout, message)
        };
        let left = || limit.saturating_sub(started.elapsed());
        // A timer of nothing still lets through what is quick enough.
        if left().is_zero() {
            return Err(late());
        }
        let io = tokio::time::timeout(left(), self.machine.open_link())
            .await
            .map_err(|_| late())??;
        let overdue = self.machine.clone();
        let end_sandbox = Box::new(move || overdue.kill());
        let obituary: crate::link::Obituary = Box::new(move |reason: String| {
            let words: std::pin::Pin<Box<dyn Future<Output = Error> + Send>> =
                Box::pin(async move {
                    let message = match machine.last_words().await {
                        Some(words) => format!("the sandbox has ended: {words}"),
                        None => format!("the sandbox does not answer any more ({reason})"),
                    };
                    Error::new(ErrorKind::SandboxDied, message)
                });
            words
        });
        let options = crate::link::Options::new(obituary, end_sandbox);
        let link = Link::connect(io, left(), options).await;
        self.link = Some(link.map_err(|error| match error.kind() {
            ErrorKind::Timeout => late(),
            _ => error,
        })?);
        Ok(())
    }

    /// Leads ports of the host into it.
    pub(crate) fn publish(&mut self, ports: Bound) -> Result<()> {
        self.published = ports.lead(self.link()?);
        Ok(())
    }

    /// Knows where another process has published its ports.
    pub(crate) fn publish_elsewhere(&mut self, ports: Vec<PublishedPort>) {
        self.published = Published::elsewhere(ports);
    }

    pub(crate) fn is_published_elsewhere(&self) -> bool {
        self.published.is_elsewhere()
    }

    /// Leads the ports into it that another process has led before.
    pub(crate) fn publish_too(&self, ports: Bound) -> Result<()> {
        self.published.take_over(&ports.lead(self.link()?));
        Ok(())
    }

    pub(crate) fn link(&self) -> Result<&Link> {
        self.link
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::SandboxDied, "the sandbox was never booted"))
    }

    /// Names it among all sandboxes of this home.
    pub fn id(&self) -> &str {
        self.folder.id()
    }

    /// The isolation that it really has.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Runs a command to its end and captures its output.
    ///
    /// A command that exits with another code than 0, or is killed when its time is over, is no error: the output
    /// says so.
    ///
    /// # Errors
    /// `InvalidArgument` and `NotFound` for an invalid command; `ResourceExhausted`; `SandboxDied`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(sandbox: blink_core::Sandbox) -> blink_core::Result<()> {
    /// let output = sandbox.exec(blink_core::Command::new("uname").arg("-s")).await?;
    /// assert_eq!((output.status.code, &output.stdout[..]), (0, &b"Linux\n"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn exec(&self, command: Command) -> Result<Output> {
        during("exec", self, async {
        if matches!(command.stdin, crate::Stdin::Piped) {
            return Err(Error::invalid(
                "a captured command has no pipe for its standard input; give it bytes, or spawn it",
            ));
        }
        let spawn = command.to_spawn(&self.defaults, false)?;
        if let Some(waiting) = self.interpreter_for(&command) {
            return waiting.run(&command, &self.defaults).await;
        }
        process::run(
            self.link()?,
            &command,
            Request::Spawn(spawn),
            self.isolation,
        )
        .await
    }).await
    }

    /// Starts a command and streams its input and output.
    ///
    /// # Errors
    /// As for [`exec`](Sandbox::exec).
    pub async fn spawn(&self, command: Command) -> Result<Process> {
        during("spawn", self, async {
            let spawn = command.to_spawn(&self.defaults, true)?;
            let piped = matches!(command.stdin, crate::Stdin::Piped);
            let mut process =
                Process::start(self.link()?, Request::Spawn(spawn), true, self.isolation).await?;
            match command.stdin {
                crate::Stdin::Bytes(bytes) => {
                    let stdin = process.take_stdin();
                    tokio::spawn(async move {
                        if let Some(mut stdin) = stdin {
                            // A program that reads no more ends with a result of its own.
                            let _ = stdin.write(bytes).await;
                            stdin.close().await;
                        }
                    });
                }
                _ if !piped => drop(process.take_stdin()),
                _ => {}
            }
            Ok(process)
        })
        .await
    }

    /// Attaches to a process that was spawned earlier, also by an earlier host process: its output goes on at the
    /// offsets that the caller has, or at the oldest byte of its last MiB.
    ///
    /// # Errors
    /// `NotFound` if it was released.
    pub async fn process(
        &self,
        id: u64,
        stdout_offset: u64,
        stderr_offset: u64,
    ) -> Result<Process> {
        during("process", self, async {
            let attach = Attach {
                process: ProcessId(id),
                stdout_offset,
                stderr_offset,
            };
            Process::start(self.link()?, Request::Attach(attach), true, self.isolation).await
        })
        .await
    }

    /// The spawned processes that were not released.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox has ended.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        during("processes", self, async { processes(self.link()?).await }).await
    }

    /// Its files.
    ///
    /// # Errors
    /// `SandboxDied` if it was never booted.
    pub fn files(&self) -> Result<Files> {
        let files = Files::new(self.link()?.clone());
        Ok(files.owned_by(self.defaults.user.clone()))
    }

    /// Connects to a TCP port inside the sandbox; `host` is an IP address or `localhost`.
    ///
    /// # Errors
    /// `NotFound` if nothing answers.
    pub async fn connect_tcp(&self, host: &str, port: u16) -> Result<Connection> {
        during("connect_tcp", self, async {
            Connection::open(self.link()?, Address::Tcp(host.to_owned(), port)).await
        })
        .await
    }

    /// Connects to a unix socket inside the sandbox.
    ///
    /// # Errors
    /// `NotFound` if there is none, or nothing answers.
    pub async fn connect_unix(&self, path: impl AsRef<Path>) -> Result<Connection> {
        during("connect_unix", self, async {
            let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_ref().as_os_str()).to_vec();
            Connection::open(self.link()?, Address::Unix(path.into())).await
        })
        .await
    }

    /// Its published ports in the order in which they were asked for, each with the port that the host really has.
    pub fn published(&self) -> &[PublishedPort] {
        self.published.ports()
    }

    /// Asks the agent for a sign of life.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox has ended.
    pub async fn ping(&self) -> Result<()> {
        during("ping", self, async {
            self.link()?.call(&Request::Ping).await.map(drop)
        })
        .await
    }

    /// The version of its guest agent.
    pub fn agent(&self) -> Option<&str> {
        self.link
            .as_ref()?
            .agent()
            .map(|hello| hello.program.as_str())
    }

    /// Why it has ended, if it has.
    pub fn death(&self) -> Option<&Error> {
        self.link.as_ref()?.dead()
    }

    /// Whether its machine runs, which its link hears of a moment later.
    pub(crate) fn is_running(&self) -> bool {
        self.machine.is_alive()
    }

    /// Ends it and deletes everything in it, even if it was made detached. Calls that are under way in it, and all that
    /// come later, fail with `SandboxDied`; only this one does nothing then.
    ///
    /// # Errors
    /// `InvalidArgument` for a session's, which has a `remove` of its own; `Internal` if something of it could not be
    /// removed; the message names it.
    pub async fn remove(&self) -> Result<()> {
        during("remove", self, async {
            if self.folder.lifetime() == Lifetime::Session {
                return Err(Error::invalid(
                    "the sandbox belongs to a session; stop or remove the session instead",
                ));
            }
            let mut removed = self.removed.lock().await;
            if *removed {
                return Ok(());
            }
            self.published.end().await;
            self.end("the sandbox was removed").await;
            let folder = self.folder.clone();
            on_thread(move || folder.remove()).await?;
            *removed = true;
            // Nothing of it is left that others wait for.
            drop(lock(&self.share).take());
            drop(lock(&self.undertaker).take());
            Ok(())
        })
        .await
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(std::mem::take(&mut self.published));
        if *self.removed.get_mut() {
            return;
        }
        if self.outlives {
            // An agent that dials has one link; whoever opens the sandbox next waits for it.
            if let Some(link) = self.link.take() {
                let reason = "the sandbox was let go of, and runs on; open it again";
                link.close(Error::new(ErrorKind::SandboxDied, reason));
            }
            return;
        }
        self.kill("the sandbox was dropped");
        if self.folder.lifetime() == Lifetime::Session {
            return;
        }
        let share = lock(&self.share).take();
        let remains = Remains::new(self.machine.clone(), self.folder.clone(), share);
        let undertaker = lock(&self.undertaker).take();
        match undertaker {
            Some(undertaker) => undertaker(remains),
            None => drop(remains),
        }
    }
}
