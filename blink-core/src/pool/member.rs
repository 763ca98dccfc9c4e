//! One sandbox of a pool, from its boot until nothing of it is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use blink_host::fault::{self, Step};
use blink_image::ImageConfig;
use tokio_util::sync::CancellationToken;

use super::boot::{boot_in, run};
use super::clock;
use super::pressure;
use super::template::Template;
use crate::blocking::on_thread;
use crate::budget::Need;
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::home::Lifetime;
use crate::sandbox::{self, Place as Booting, Remains, Request, Sandbox};
use crate::spec::{Network, SandboxSpec};

/// The folder of a member's disk in its own.
const DISK: &str = "disk";

/// An agent that has not answered by then is taken for dead: it takes microseconds, on a busy host milliseconds.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// What the host slept less than that is taken for the two clocks' imprecision.
const SUSPENSION: Duration = Duration::from_secs(1);

/// A booted sandbox for which everything is done that can be done before somebody asks for it.
pub(super) struct Member {
    pub(super) sandbox: Sandbox,
    pub(super) held: Held,
    /// For how long the host had been suspended when it was booted.
    suspended: Duration,
}

/// Whose members they are.
pub(super) trait Owner: Send + Sync {
    /// Nothing is left of one.
    fn gone(&self);
}

/// What is held as long as anything of a member is left.
pub(super) struct Held {
    owner: Arc<dyn Owner>,
    /// It is not to be handed out: a program that is to run has ended, or its agent does not answer.
    is_lost: Arc<AtomicBool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.owner.gone();
    }
}

/// What a boot has made.
pub(super) struct Made {
    sandbox: Sandbox,
    is_lost: Arc<AtomicBool>,
    pub(super) took: Duration,
}

/// What each member of a pool is made of.
pub(super) struct Mould {
    pub(super) request: Request,
    pub(super) template: Template,
    /// Run to their end in each member.
    pub(super) prepared: Vec<Command>,
    /// Started in each member, where they go on.
    pub(super) started: Vec<Command>,
    /// Languages whose interpreters wait for code in each member.
    pub(super) interpreters: Vec<&'static str>,
    pub(super) warmup_timeout: Duration,
    /// Nobody waits for its members any more.
    pub(super) given_up: CancellationToken,
    /// How long a member's folder is there.
    pub(super) lifetime: Lifetime,
}

impl Mould {
    /// Boots a member, and does in it what is to be done. Where it fails, nothing is left.
    pub(super) async fn make(&self, need: Need) -> Result<Made> {
        let request = Request {
            need,
            ..self.request.clone()
        };
        self.make_as(&request).await
    }

    /// As [`make`](Mould::make), of what one claim asks for.
    async fn make_as(&self, request: &Request) -> Result<Made> {
        pressure::check()?;
        let begun = Instant::now();
        let sandbox = self.boot(request).await?;
        let lost = Arc::new(AtomicBool::new(false));
        let prepared = self.prepare(&sandbox, &lost).await;
        if let Err(error) = prepared {
            if let Err(error) = sandbox.remove().await {
                tracing::warn!(%error, "a sandbox that could not be prepared goes later");
            }
            return Err(error);
        }
        Ok(Made {
            sandbox,
            is_lost: lost,
            took: begun.elapsed(),
        })
    }

    /// Boots a sandbox over the template, of what is asked for.
    pub(super) async fn boot(&self, request: &Request) -> Result<Sandbox> {
        let parts = self.template.parts();
        let home = request.blink.home().clone();
        let over = self.template.layer().map(|(_, folder)| folder.clone());
        let (engine, lifetime) = (parts.engine.clone(), self.lifetime);
        let (folder, disk) = on_thread(move || {
            let folder = home.new_sandbox(lifetime)?;
            let disk = disk_in(folder.path());
            let made = fault::before(Step::PoolDisk)
                .and_then(|()| blink_host::private::make_folder(&disk))
                .map_err(|error| Error::io("the sandbox's disk could not be made", &error))
                .and_then(|()| match over {
                    Some(over) => engine.make_disk(&disk, &over),
                    None => Ok(()),
                });
            match made {
                Ok(()) => Ok((folder, disk)),
                Err(error) => {
                    folder.remove_or_later();
                    Err(error)
                }
            }
        })
        .await?;
        let place = Booting {
            folder: folder.clone(),
            disk,
            layers: self.template.layers(),
            outlives: false,
            shared: self.template.shares_machines(),
        };
        boot_in(request, parts, place, folder, &self.given_up).await
    }

    async fn prepare(&self, sandbox: &Sandbox, lost: &Arc<AtomicBool>) -> Result<()> {
        fault::before(Step::PoolBooted)
            .map_err(|error| Error::io("the sandbox could not be prepared", &error))?;
        sandbox::identify(sandbox, sandbox.id()).await;
        for command in &self.prepared {
            run(sandbox, command, self.warmup_timeout, &self.given_up).await?;
        }
        for command in &self.started {
            let process = sandbox.spawn(command.clone()).await?;
            let (exit, lost) = (process.exit(), lost.clone());
            tokio::spawn(async move {
                let _ended = exit.await;
                lost.store(true, Ordering::Release);
            });
        }
        for language in &self.interpreters {
            sandbox.start_interpreter(language).await?;
        }
        // The first program of a sandbox finds nothing warm, and this is it. An image need not have it.
        let _ = sandbox.exec(Command::new("true")).await?;
        Ok(())
    }
}

/// The folder of a member's disk.
pub(super) fn disk(sandbox: &Sandbox) -> PathBuf {
    disk_in(sandbox.folder().path())
}

/// As [`disk`], in a member's folder.
pub(super) fn disk_in(folder: &Path) -> PathBuf {
    folder.join(DISK)
}

impl Member {
    pub(super) fn new(made: Made, owner: Arc<dyn Owner>) -> Member {
        Member {
            sandbox: made.sandbox,
            held: Held {
                owner,
                is_lost: made.is_lost,
            },
            suspended: clock::suspended(),
        }
    }

    /// Becomes what a claim asks for beside what the pool's sandboxes are; what it has been before comes back, where another was
    /// booted in its place.
    pub(super) async fn become_asked(
        &mut self,
        asked: &SandboxSpec,
        spec: &SandboxSpec,
        mould: &Mould,
    ) -> Result<Option<Remains>> {
        let mut replaced = None;
        let network = asked.network.as_ref().map(Network::effective);
        let is_other = network.is_some_and(|network| network != mould.request.spec.network());
        if is_other || !self.adjust(asked).await? {
            let mut request = mould.request.clone();
            request.spec = spec.clone();
            request.spec.publish.clear();
            let made = mould.make_as(&request).await?;
            let other = std::mem::replace(&mut self.sandbox, made.sandbox);
            self.held.is_lost = made.is_lost;
            self.suspended = clock::suspended();
            replaced = Some(other.into_remains());
        }
        if !asked.env.is_empty() {
            let config = mould.template.image().map(|image| &image.config);
            let defaults = spec.defaults(config.unwrap_or(&ImageConfig::default()));
            self.sandbox.set_defaults(defaults);
        }
        Ok(replaced)
    }

    /// Changes what can be changed of a sandbox that runs; `false` if something cannot.
    async fn adjust(&self, asked: &SandboxSpec) -> Result<bool> {
        if asked.hostname.is_none() && asked.memory_mib.is_none() {
            return Ok(true);
        }
        let adjusted = self
            .sandbox
            .adjust(asked.hostname.as_deref(), asked.memory_mib)
            .await;
        match adjusted {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether it can be handed out, as far as that is known.
    pub(super) fn is_good(&self) -> bool {
        let is_new = clock::suspended().saturating_sub(self.suspended) < SUSPENSION;
        let lost = self.held.is_lost.load(Ordering::Acquire);
        is_new && !lost && self.sandbox.death().is_none()
    }

    /// Asks its agent for a sign of life. It is not good any more if none comes.
    pub(super) fn ping(&self) -> impl Future<Output = bool> + Send + use<> {
        let link = self.sandbox.link().cloned();
        let lost = self.held.is_lost.clone();
        async move {
            let answers = match link {
                Ok(link) => {
                    tokio::time::timeout(ANSWER_PATIENCE, link.call(&blink_wire::Request::Ping))
                        .await
                        .is_ok_and(|answer| answer.is_ok())
                }
                Err(_) => false,
            };
            if !answers {
                lost.store(true, Ordering::Release);
            }
            answers
        }
    }
}
