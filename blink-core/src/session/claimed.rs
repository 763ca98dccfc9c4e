//! A session made of a sandbox that runs already.

use blink_host::fault::{self, Step};
use blink_image::StoredImage;

use super::core::DEFAULT_PATIENCE;
use super::handle::Session;
use super::turn::Others;
use super::{lease, name};
use crate::blink::Blink;
use crate::blocking::on_thread;
use crate::disk::{Draft, LayerRow, SessionOptions, SessionRow, session_taken};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::sandbox::Sandbox;
use crate::spec::SandboxSpec;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// What a session is made of.
pub(crate) struct Claimed {
    pub(crate) sandbox: Sandbox,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) spec: SandboxSpec,
    pub(crate) image: Option<StoredImage>,
    /// The sandbox's disk, in its folder.
    pub(crate) disk: PathBuf,
    /// The layer beneath.
    pub(crate) beneath: Option<LayerRow>,
}

/// What can be found out before anything is changed.
pub(crate) async fn check_free(blink: &Blink, name: &str, spec: &SandboxSpec) -> Result<()> {
    name::check("session", name)?;
    spec.to_keep()?;
    if spec.is_warm() {
        return Err(Error::invalid(
            "a sandbox of a pool ends with its last user, so that the session made of it cannot be warm; open a warm session \
             instead",
        ));
    }
    match blink.session_info(name).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(session_taken(name)),
    }
}

impl Blink {
    /// The name of the session of this id, if there is one.
    pub(crate) async fn session_name(&self, id: &str) -> Result<Option<String>> {
        let id = id.to_owned();
        let row = self
            .disks()
            .look_up(move |registry| registry.session_by_id(&id))
            .await?;
        Ok(row.map(|row| row.name))
    }

    /// Gives a sandbox that runs a name, under which it stays. Where that fails, the sandbox is gone.
    pub(crate) async fn session_of(&self, name: &str, claimed: Claimed) -> Result<Session> {
        let Claimed {
            mut sandbox,
            engine,
            spec,
            image,
            disk,
            beneath,
        } = claimed;
        let isolation = sandbox.isolation();
        let digest = image.as_ref().map(|image| image.digest.clone());
        let options = SessionOptions {
            spec: spec.to_keep()?,
            digest,
            config: image.map(|image| image.config).unwrap_or_default(),
        };
        let defaults = options.spec.defaults(&options.config);
        let (folder, disks, name) = (
            sandbox.folder().clone(),
            self.disks().clone(),
            name.to_owned(),
        );
        let named = on_thread(move || {
            let folder = folder.into_session()?;
            let failed = |error| Error::io("the session's folder could not be made", &error);
            lease::prepare(folder.path()).map_err(failed)?;
            fault::before(Step::PoolNamed).map_err(failed)?;
            let mut draft = Draft::begin(&disks, engine)?;
            let (head, disk) = draft.take(&disk, beneath)?;
            fault::before(Step::PoolTaken).map_err(failed)?;
            let row = SessionRow {
                id: folder.id().to_owned(),
                name,
                isolation,
                options,
                head,
                checkpoint: None,
                forked_from: None,
                created_at: SystemTime::now(),
            };
            draft.write(|registry, made| registry.add_session(&row, made))?;
            fault::after(Step::PoolShared);
            // It is there, whatever happens to it.
            folder.share()?;
            Ok((folder, row, disk))
        })
        .await;
        let (folder, row, disk) = match named {
            Ok(named) => named,
            Err(error) => {
                let _ = sandbox.remove().await;
                return Err(error);
            }
        };
        let asked = row.options.spec.publish.clone();
        sandbox.become_sessions(folder.clone(), &disk, defaults);
        let session = Session::made(self, folder.clone(), row)?;
        let core = session.core.clone();
        let what = "has been starting it";
        let mut turn = core.turn(DEFAULT_PATIENCE, what, Others::Stay).await?;
        core.publish_claimed(&mut sandbox, &asked).await?;
        turn.hold(sandbox.used_by(core.lease.clone()));
        drop(turn);
        Ok(session)
    }
}
