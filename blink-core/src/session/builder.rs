//! How a session is opened.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use blink_host::transfer::{Tell, TransferProgress, tell_nobody};

use super::carried::{Carried, Declined};
use super::core::DEFAULT_PATIENCE;
use super::handle::Session;
use super::list::new_session_folder;
use super::name;
use crate::blink::Blink;
use crate::blocking::on_thread;
use crate::disk::{Draft, SessionOptions, SessionRow, session_taken};
use crate::engine::kind::Share;
use crate::engine::{Archive, Target, engines};
use crate::error::{Error, ErrorKind, Result, during};
use crate::isolation::IsolationChoice;
use crate::sandbox::{Builder, Parts};

/// A session to open, from [`Blink::session`].
///
/// What is said of its sandbox is for a session that is made. One that is there has what it was made with, and is not opened
/// with anything else: `InvalidArgument` shows the difference.
pub type SessionBuilder = Builder<OfSession>;

/// What is said of sessions only.
#[derive(Clone)]
pub struct OfSession {
    name: String,
    patience: Duration,
    import_progress: Tell,
}

/// What a session is made of.
#[derive(Default)]
struct Origin {
    archive: Option<Box<dyn Archive>>,
    /// The digest of the stored image that it must be.
    digest: Option<String>,
    /// What the archive has asked for and was not given.
    declined: Vec<Declined>,
}

impl Blink {
    /// Describes a session to open, or to make if there is none of that name.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(blink: blink_core::Blink) -> blink_core::Result<()> {
    /// use blink_core::Command;
    /// let session = blink.session("notebook").image("host").open().await?;
    /// let sandbox = session.sandbox().await?;
    /// sandbox.exec(Command::shell("echo 1 >> /var/blink/memory/runs")).await?;
    /// session.checkpoint("begun").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn session(&self, name: impl Into<String>) -> SessionBuilder {
        let of = OfSession {
            name: name.into(),
            patience: DEFAULT_PATIENCE,
            import_progress: tell_nobody(),
        };
        Builder::new(self.clone(), of)
    }
}

impl SessionBuilder {
    /// Labels it, for its owner's own use.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> SessionBuilder {
        let labels = &mut self.request.spec.labels;
        labels.insert(name.into(), value.into());
        self
    }

    /// Stops its sandbox after so long without a call, a process or a reader; never by default. It starts again with the
    /// next call.
    pub fn idle_stop(mut self, after: Duration) -> SessionBuilder {
        self.request.spec.idle_stop = Some(after);
        self
    }

    /// Keeps its sandbox running when its last user has gone, however that has ended: the next one finds its processes. `false`
    /// by default.
    pub fn warm(mut self, warm: bool) -> SessionBuilder {
        self.request.spec.warm = Some(warm);
        self
    }

    /// How long others are waited for: who changes the session when it is opened, and, with what is done in it later, who keeps
    /// that from being done; 10 s by default.
    pub fn patience(mut self, patience: Duration) -> SessionBuilder {
        self.of.patience = patience;
        self
    }

    /// Opens the session and starts it, or makes it if there is none: [`Session::was_created`] says which.
    ///
    /// # Errors
    /// `InvalidArgument` if the name is invalid, and for options that the session was not made with; `Busy` while another
    /// process changes it, or has its micro-VM, with that process; otherwise as for [`SandboxBuilder::create`](crate::SandboxBuilder::create). A new session that cannot start is
    /// removed again.
    pub async fn open(self) -> Result<Session> {
        let subject = format!("session {:?}", self.of.name);
        during("open", &*subject, async move {
            let session = self.take_or_make().await?;
            match session.start().await {
                Err(error) if session.was_created() => {
                    // Nothing is left of what could not begin.
                    let _ = session.remove().await;
                    Err(error)
                }
                Err(error) => Err(error),
                Ok(()) => Ok(session),
            }
        })
        .await
    }

    /// Calls `progress` while an archive is imported, after every few MiB: with what was read of the archive.
    pub fn import_progress(
        mut self,
        progress: impl Fn(TransferProgress) + Send + Sync + 'static,
    ) -> SessionBuilder {
        self.of.import_progress = Arc::new(progress);
        self
    }

    /// Makes a session whose disk is read from an archive that [`Session::export`] has written; it is not started.
    ///
    /// Archives may come from anybody. What is asked for here is what holds. What is not is as the archive says for what
    /// stays inside: environment, working directory, user, and labels, of which both sides' are kept; and for resources
    /// and the time after which it stops when idle, as far as that is less than the defaults. Its image is the one that is
    /// stored with the digest that the archive's session had: nothing is fetched because an archive says so. Whether it is
    /// warm, its mounts, network, ports and isolation are never the archive's. [`Session::declined`] tells what the archive
    /// has asked for and was not given.
    ///
    /// # Errors
    /// `AlreadyExists`; `Corrupt` for what is no whole archive, or asks for what cannot be, and `Unsupported` for one of the
    /// future, with nothing left behind; `ImageUnavailable` if its image is not stored, with the command that fetches it;
    /// `ResourceExhausted` if its disk holds more than the session's may; `InvalidArgument` for an archive of another
    /// isolation; otherwise as for [`open`](SessionBuilder::open).
    pub async fn import(mut self, archive: impl AsRef<Path>) -> Result<Session> {
        let subject = format!("session {:?}", self.of.name);
        during("import", &*subject, async move {
            self.check()?;
            self.check_free().await?;
            let path = archive.as_ref();
            let isolation = self
                .request
                .blink
                .choose(self.request.spec.isolation)
                .await?;
            // What is opened is what is made.
            self.request.spec.isolation = Some(isolation.into());
            let archive = self
                .request
                .blink
                .engine(isolation)
                .await?
                .open_archive(path)
                .await?;
            let mut origin = Origin::default();
            if let Some(text) = archive.session() {
                let carried = Carried::read(text, path)?;
                (origin.digest, origin.declined) =
                    self.take_over(carried, engines::default_share(isolation)?);
                self.check().map_err(|error| {
                    let message = format!(
                        "what the archive {} says of its session cannot be: {error}",
                        path.display()
                    );
                    Error::new(ErrorKind::Corrupt, message)
                })?;
            }
            origin.archive = Some(archive);
            self.make(origin).await
        })
        .await
    }

    /// What was not asked for is as an archive says, as far as it may; returns the digest that the image must have, and what
    /// was not given.
    fn take_over(&mut self, carried: Carried, share: Share) -> (Option<String>, Vec<Declined>) {
        let spec = &mut self.request.spec;
        let mut declined = carried.describe(spec, share);
        let own = std::mem::replace(&mut spec.labels, carried.labels);
        spec.labels.extend(own);
        spec.idle_stop = spec.idle_stop.or(carried.idle_stop);
        if carried.warm && spec.warm.is_none() {
            declined.push(Declined::new("warm", &true, &false));
        }
        match &spec.image {
            Some(own) => {
                if *own != carried.image {
                    declined.push(Declined::new("image", &carried.image, own));
                }
                (None, declined)
            }
            None => {
                spec.image = Some(carried.image);
                (carried.digest, declined)
            }
        }
    }

    /// What an import would otherwise find out at its end.
    async fn check_free(&self) -> Result<()> {
        match self.request.blink.session_info(&self.of.name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(session_taken(&self.of.name)),
        }
    }

    async fn take_or_make(&self) -> Result<Session> {
        self.check()?;
        let deadline = tokio::time::Instant::now() + self.of.patience;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match self.request.blink.take_session(&self.of.name, left).await {
                Ok(mut session) => {
                    self.compare(&session).await?;
                    session.patience = self.of.patience;
                    return Ok(session);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            match self.make(Origin::default()).await {
                // Another process was faster.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    let mut session = made?;
                    session.patience = self.of.patience;
                    return Ok(session);
                }
            }
        }
    }

    fn check(&self) -> Result<()> {
        name::check("session", &self.of.name)?;
        self.request.spec.validate()?;
        self.request.spec.to_keep().map(drop)
    }

    async fn compare(&self, session: &Session) -> Result<()> {
        let state = session.core.state.lock().await;
        let (asked, stored) = (&self.request.spec, &state.row);
        let mut differences = asked.differences(&stored.options.spec);
        let isolation = asked.isolation.or(self.request.blink.asked_isolation());
        if let Some(isolation) = isolation
            && isolation != IsolationChoice::Auto
            && isolation != stored.isolation.into()
        {
            differences.push(format!(
                "isolation is {}, not {}",
                stored.isolation,
                isolation.name()
            ));
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "the session {:?} was created with other options: {}; leave them out, or remove the session first",
                self.of.name,
                differences.join("; ")
            ))),
        }
    }

    async fn make(&self, origin: Origin) -> Result<Session> {
        // Its ports are bound when it starts.
        let Parts {
            isolation,
            engine,
            image,
            ..
        } = self.request.prepare_with(origin.digest.as_deref()).await?;
        let folder = new_session_folder(&self.request.blink)?;
        let claimed = self
            .request
            .blink
            .claim_image(image.as_ref(), &folder)
            .await;
        let made = async {
            claimed?;
            let mut draft = Draft::begin(self.request.blink.disks(), engine.clone())?;
            let (head, disk) = draft.layer(None)?;
            if let Some(archive) = origin.archive {
                let rootfs = self
                    .request
                    .rootfs(&*engine, image.as_ref(), &folder)
                    .await?;
                archive
                    .unpack(&Target {
                        disk: &disk,
                        rootfs: rootfs.as_deref(),
                        limit_mib: self.request.spec.resources().disk_mib,
                        tell: &self.of.import_progress,
                    })
                    .await?;
            }
            let mut spec = self.request.spec.to_keep()?;
            if origin.digest.is_some()
                && let Some(name) = image.as_ref().and_then(|image| image.reference.as_ref())
            {
                // What it is called here, whatever the archive calls it.
                spec.image = Some(name.clone());
            }
            let row = SessionRow {
                id: folder.id().to_owned(),
                name: self.of.name.clone(),
                isolation,
                options: SessionOptions {
                    spec,
                    digest: image.as_ref().map(|image| image.digest.clone()),
                    config: image.map(|image| image.config).unwrap_or_default(),
                },
                head,
                checkpoint: None,
                forked_from: None,
                created_at: SystemTime::now(),
            };
            let written = row.clone();
            // Also where the caller gives up meanwhile.
            on_thread(move || draft.write(|registry, made| registry.add_session(&written, made)))
                .await?;
            Ok(row)
        };
        match made.await {
            Ok(row) => {
                let session = Session::made(&self.request.blink, folder, row)?;
                Ok(session.with_declined(origin.declined))
            }
            Err(error) => {
                folder.remove_or_later();
                Err(error)
            }
        }
    }
}
