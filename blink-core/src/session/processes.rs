//! The processes of a session that runs, beside whoever has the session.

use std::sync::Arc;
use std::time::Duration;

use blink_wire::{Attach, Peeked, ProcessId, Request, Response, Signal};
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::core::{DEFAULT_PATIENCE, LOOK_EVERY, missing};
use super::handle::Session;
use super::{lease, watch};
use crate::blink::Blink;
use crate::disk::SessionRow;
use crate::engine::engines;
use crate::error::{Error, ErrorKind, Result, during};
use crate::home::{Lifetime, SandboxFolder};
use crate::isolation::Isolation;
use crate::json;
use crate::link::{Link, LinkIo, Obituary, Options};
use crate::output::ExitStatus;
use crate::process::Process;
use crate::sandbox::{ProcessInfo, Sandbox};

/// The processes of a session that runs, from [`Blink::session_processes`].
///
/// Whoever has the session goes on, and keeps it. Calls fail with `SandboxDied` once its sandbox has ended.
pub struct SessionProcesses {
    link: Link,
    isolation: Isolation,
    _held: Held,
}

/// What keeps the sandbox for it.
#[expect(dead_code, reason = "it is there to be dropped")]
enum Held {
    /// Nobody takes the folder for one that is left over. A sandbox that ends with its last link goes on for this one's.
    Folder(SandboxFolder),
    /// The sandbox has one link only, that of who uses it.
    Session(Session, Arc<Sandbox>),
}

/// What is kept of a process's output: at most the last MiB of each stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessLogs {
    /// Standard output; that of a terminal has all of its output.
    pub stdout: Vec<u8>,
    /// How many bytes of standard output came before.
    pub stdout_offset: u64,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How many bytes of standard error came before.
    pub stderr_offset: u64,
}

impl Serialize for ProcessLogs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let end = |offset: u64, bytes: &[u8]| offset.saturating_add(bytes.len() as u64);
        let written = json::Written::new(
            (&self.stdout, end(self.stdout_offset, &self.stdout)),
            (&self.stderr, end(self.stderr_offset, &self.stderr)),
        );
        written.serialize(serializer)
    }
}

impl Blink {
    /// The processes of a session that runs, whoever has it open. Who only looks at them is no user of the session: it is
    /// changed, and ended, without regard to that. A micro-VM belongs to the process that started it, and so do they.
    ///
    /// # Errors
    /// `NotFound` if there is no such session, and if it does not run; `Busy` if another process starts it right
    /// now for longer than [`DEFAULT_PATIENCE`], or has its micro-VM.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(blink: blink_core::Blink) -> blink_core::Result<()> {
    /// let processes = blink.session_processes("server").await?;
    /// for process in processes.list().await? {
    ///     println!("{} {:?}", process.id, process.argv);
    ///     println!("{}", String::from_utf8_lossy(&processes.logs(process.id).await?.stdout));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn session_processes(&self, name: &str) -> Result<SessionProcesses> {
        during("session_processes", &*format!("session {name:?}"), async {
            let deadline = Instant::now() + DEFAULT_PATIENCE;
            loop {
                let wanted = name.to_owned();
                let row = self
                    .disks()
                    .with_registry(move |registry| registry.session(&wanted))
                    .await?
                    .ok_or_else(|| missing(name))?;
                let folder = self.home().sandboxes().join(&row.id);
                if !engines::is_alive(&folder) {
                    return Err(not_running(name));
                }
                let left = deadline.saturating_duration_since(Instant::now());
                if !engines::capabilities(row.isolation).shares_machines {
                    return self.take_processes(&row, left).await;
                }
                let visited = match self.home().open_sandbox(&row.id, Lifetime::Session) {
                    Ok(held) => {
                        watch::let_go_on_if_left(&folder);
                        match engines::visit(&folder) {
                            Some(Ok(io)) => reach(io, &row, held, left).await,
                            Some(Err(error)) => Err(error),
                            None => Err(not_running(name)),
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => Err(missing(name)),
                    // A sweep looks whose it is, or its last user leaves.
                    Err(error) if error.kind() == ErrorKind::Busy => {
                        Err(lease::busy(name, &lease::all_users(&folder)))
                    }
                    Err(error) => Err(error),
                };
                match visited {
                    Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
                    visited => return visited,
                }
            }
        })
        .await
    }

    async fn take_processes(&self, row: &SessionRow, left: Duration) -> Result<SessionProcesses> {
        let session = self.take_session(&row.name, left).await?;
        if !session.info().await.running {
            return Err(not_running(&row.name));
        }
        let sandbox = session.sandbox().await?;
        Ok(SessionProcesses {
            link: sandbox.link()?.clone(),
            isolation: row.isolation,
            _held: Held::Session(session, sandbox),
        })
    }
}

async fn reach(
    io: LinkIo,
    row: &SessionRow,
    folder: SandboxFolder,
    left: Duration,
) -> Result<SessionProcesses> {
    let name = row.name.clone();
    let obituary: Obituary = Box::new(move |reason| {
        let message = format!("the sandbox of the session {name:?} has ended ({reason})");
        Box::pin(async move { Error::new(ErrorKind::SandboxDied, message) })
    });
    Ok(SessionProcesses {
        link: Link::connect(io, left, Options::new(obituary, Box::new(|| {}))).await?,
        isolation: row.isolation,
        _held: Held::Folder(folder),
    })
}

fn not_running(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "the session {name:?} is not running, and its processes have ended with its sandbox; start it if it is to \
             have some"
        ),
    )
}

impl SessionProcesses {
    /// The isolation that they have.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// All that were spawned and not released, and those that somebody waits for right now.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox has ended.
    pub async fn list(&self) -> Result<Vec<ProcessInfo>> {
        crate::sandbox::processes(&self.link).await
    }

    /// What is kept of a process's output so far. Whoever is attached to it goes on.
    ///
    /// # Errors
    /// `NotFound` if it was released.
    pub async fn logs(&self, id: u64) -> Result<ProcessLogs> {
        during("logs", &*process(id), async {
            let first = self.peek(id, 0, 0).await?;
            let mut logs = ProcessLogs {
                stdout_offset: first.stdout_offset,
                stderr_offset: first.stderr_offset,
                stdout: first.stdout.into(),
                stderr: first.stderr.into(),
            };
            // As much as is kept: a program that goes on writing is not followed.
            for _ in 0..PEEKS_LIMIT {
                if logs.stdout.len().max(logs.stderr.len()) >= KEPT_BYTES {
                    break;
                }
                let end = |offset: u64, bytes: &[u8]| offset.saturating_add(bytes.len() as u64);
                let stdout_end = end(logs.stdout_offset, &logs.stdout);
                let stderr_end = end(logs.stderr_offset, &logs.stderr);
                let next = self.peek(id, stdout_end, stderr_end).await?;
                if next.stdout.is_empty() && next.stderr.is_empty() {
                    break;
                }
                // What has been overwritten meanwhile leaves no gap that nobody sees.
                if next.stdout_offset != stdout_end {
                    (logs.stdout, logs.stdout_offset) = (Vec::new(), next.stdout_offset);
                }
                if next.stderr_offset != stderr_end {
                    (logs.stderr, logs.stderr_offset) = (Vec::new(), next.stderr_offset);
                }
                logs.stdout.extend_from_slice(&next.stdout);
                logs.stderr.extend_from_slice(&next.stderr);
            }
            Ok(logs)
        })
        .await
    }

    async fn peek(&self, id: u64, stdout_offset: u64, stderr_offset: u64) -> Result<Peeked> {
        let from = Attach {
            process: ProcessId(id),
            stdout_offset,
            stderr_offset,
        };
        match self.link.call(&Request::Peek(from)).await? {
            Response::Peeked(peeked) => Ok(peeked),
            _ => Err(unexpected_answer()),
        }
    }

    /// Waits until a process has ended. Whoever is attached to it goes on.
    ///
    /// # Errors
    /// `NotFound` if it was released.
    pub async fn wait(&self, id: u64) -> Result<ExitStatus> {
        during("wait", &*process(id), async {
            match self.link.call(&Request::Wait(ProcessId(id))).await? {
                Response::Ended(report) => Ok(ExitStatus::from_report(&report)),
                _ => Err(unexpected_answer()),
            }
        })
        .await
    }

    /// Sends a signal to a process's group.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not a signal; `NotFound` if it was released.
    pub async fn signal(&self, id: u64, signal: u8) -> Result<()> {
        during("signal", &*process(id), async {
            self.send_signal(id, signal, false).await
        })
        .await
    }

    /// Kills a process and everything that it has started.
    ///
    /// # Errors
    /// `NotFound` if it was released.
    pub async fn kill(&self, id: u64) -> Result<()> {
        during("kill", &*process(id), async {
            const KILL: u8 = 9;
            self.send_signal(id, KILL, true).await
        })
        .await
    }

    async fn send_signal(&self, id: u64, signal: u8, tree: bool) -> Result<()> {
        let signal = Signal {
            process: ProcessId(id),
            signal,
            tree,
        };
        self.link.call(&Request::Signal(signal)).await.map(drop)
    }

    /// Attaches to a process, as [`Sandbox::process`](crate::Sandbox::process) does: who was attached is not any more.
    ///
    /// # Errors
    /// `NotFound` if it was released.
    pub async fn attach(&self, id: u64, stdout_offset: u64, stderr_offset: u64) -> Result<Process> {
        during("attach", &*process(id), async {
            let attach = Attach {
                process: ProcessId(id),
                stdout_offset,
                stderr_offset,
            };
            Process::start(&self.link, Request::Attach(attach), true, self.isolation).await
        })
        .await
    }
}

/// What the agent keeps of each stream.
const KEPT_BYTES: usize = 1 << 20;

/// Several times as many as it takes, since a part may have been overwritten before it is asked for.
const PEEKS_LIMIT: u32 = 64;

fn unexpected_answer() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "the sandbox's answer is not one to this request",
    )
}

fn process(id: u64) -> String {
    format!("process {id}")
}
