//! Pools that several processes of a home share by their names.
//!
//! One process keeps a shared pool, and has its folder in the home locked. Others ask it through a socket there, a line of JSON
//! each way: for a sandbox, which they then link to themselves, and whose connection they hold as long as they have it; or for
//! what there is to say of the pool. Whoever of both is killed, the other notices, and removes what was between them.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blink_host::file_lock::{self, FileLock, Share};
use blink_host::private;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::stats::PoolStats;
use crate::blink::Blink;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::SandboxSpec;

const LOCK: &str = "owner.lock";
const SOCKET: &str = "owner.sock";

/// A line is a description and a few words; more is none.
const LINE_BYTES: u64 = 1 << 20;

/// What an owner that runs answers within, where it need not wait for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer than its claim's time a claimant waits for an answer.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// What one process asks of another that keeps a pool.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ask {
    /// A sandbox that is this beside what the pool's are; a session if it is to have a name.
    Claim {
        asked: Box<SandboxSpec>,
        timeout_ms: u64,
        session: Option<String>,
    },
    Stats,
    /// To hand out no more, and to end once what was claimed is gone, or so long after.
    Drain {
        patience_ms: u64,
    },
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// A sandbox, and what its programs run with.
    Sandbox {
        id: String,
        spec: Box<SandboxSpec>,
    },
    /// A session has the name.
    Session,
    Stats(Box<PoolStats>),
    Drained,
    Failed {
        kind: u16,
        message: String,
        retryable: bool,
    },
}

/// The folder of a pool that others know by its name.
pub(super) struct Place {
    folder: PathBuf,
}

impl Place {
    pub(super) fn of(blink: &Blink, name: &str) -> Place {
        Place {
            folder: blink.home().pools().join(name),
        }
    }

    /// Becomes the one that keeps it; `None` while another process does.
    pub(super) fn try_keep(&self) -> Result<Option<Kept>> {
        let failed = |error| {
            Error::io(
                format!("the pool's folder {}", self.folder.display()),
                &error,
            )
        };
        private::make_folder(&self.folder).map_err(failed)?;
        let file = file_lock::open(&self.folder.join(LOCK)).map_err(failed)?;
        let Some(mut lock) = FileLock::try_take(file, Share::Alone).map_err(failed)? else {
            return Ok(None);
        };
        lock.sign();
        let socket = self.folder.join(SOCKET);
        // Of one that is gone.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        Ok(Some(Kept {
            listener,
            folder: self.folder.clone(),
            _lock: lock,
        }))
    }

    /// Asks whoever keeps it.
    pub(super) async fn ask(&self, ask: &Ask, patience: Duration) -> Result<(Answer, Lease)> {
        let answered = tokio::time::timeout(patience, async {
            let stream = UnixStream::connect(self.folder.join(SOCKET))
                .await
                .map_err(|_| self.unkept())?;
            let mut lease = Lease {
                stream: BufReader::new(stream),
            };
            lease.say(ask).await.map_err(|_| self.unkept())?;
            let answer: Answer = lease.hear().await.map_err(|_| self.unkept())?;
            Ok::<_, Error>((answer, lease))
        });
        let (answer, lease) = answered.await.map_err(|_| {
            let message = format!(
                "the process that keeps the pool {:?} does not answer",
                self.name()
            );
            Error::new(ErrorKind::Timeout, message).retryable(true)
        })??;
        match answer {
            Answer::Failed {
                kind,
                message,
                retryable,
            } => {
                let kind = ErrorKind::ALL.iter().find(|known| known.code() == kind);
                let kind = kind.copied().unwrap_or(ErrorKind::Internal);
                Err(Error::new(kind, message).retryable(retryable))
            }
            answer => Ok((answer, lease)),
        }
    }

    fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn unkept(&self) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "no process keeps a pool {:?} in this home; make it ('blink pool create')",
                self.name()
            ),
        )
    }
}

/// The connection of two processes, one of which has what the other keeps.
pub(super) struct Lease {
    stream: BufReader<UnixStream>,
}

impl Lease {
    pub(super) async fn say(&mut self, what: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await
    }

    pub(super) async fn hear<T: for<'a> Deserialize<'a>>(&mut self) -> std::io::Result<T> {
        let mut line = Vec::new();
        (&mut self.stream)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await?;
        Ok(serde_json::from_slice(&line)?)
    }

    /// Lets go, where the other is to do the rest.
    pub(super) async fn let_go(&mut self) {
        let _ = self.stream.get_mut().shutdown().await;
    }

    /// Waits until the other has let go.
    pub(super) async fn ended(&mut self) {
        let mut rest = [0; 64];
        while matches!(self.stream.read(&mut rest).await, Ok(1..)) {}
    }
}

/// A pool that this process keeps for others, until this is dropped.
pub(super) struct Kept {
    listener: UnixListener,
    folder: PathBuf,
    _lock: FileLock,
}

impl Kept {
    /// The next who asks.
    pub(super) async fn accept(&self) -> io::Result<Lease> {
        let (stream, _) = self.listener.accept().await?;
        Ok(Lease {
            stream: BufReader::new(stream),
        })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.join(SOCKET));
        let _ = fs::remove_file(self.folder.join(LOCK));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Whether somebody keeps a pool in this folder, or has.
pub(super) fn has_socket(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(SOCKET)).is_ok_and(|found| found.file_type().is_socket())
}
