//! The sessions of a home, whoever has them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::core::missing;
use super::lease;
use crate::blink::Blink;
use crate::blocking::on_thread;
use crate::disk::SessionRow;
use crate::engine::engines;
use crate::error::{Error, Result, during};
use crate::home::{Lifetime, SandboxFolder};
use crate::isolation::Isolation;
use crate::publish::PublishedPort;
use crate::spec::{Mount, Network, Resources};

/// Details of a session.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Names it in this home.
    pub name: String,
    /// Stays the same when it is renamed.
    pub id: String,
    /// The isolation that it has each time that it runs.
    pub isolation: Isolation,
    /// What it was made from.
    pub image: String,
    /// Whether its sandbox runs.
    pub running: bool,
    /// Whether its sandbox goes on when its host process ends.
    pub warm: bool,
    /// What it was labelled with.
    pub labels: BTreeMap<String, String>,
    /// The session that it was forked from, as `session` or `session@checkpoint`.
    pub forked_from: Option<String>,
    /// The checkpoint that its disk was last at.
    #[serde(rename = "snapshot")]
    pub checkpoint: Option<String>,
    /// When it was made.
    #[serde(serialize_with = "blink_host::json::time")]
    pub created_at: SystemTime,
    /// What its disk occupies beyond its checkpoints. Of a disk with very many files, what it occupied when it was measured
    /// last: some 15 s before at most, while it runs.
    pub disk_bytes: u64,
    /// What it can use of the machine.
    pub resources: Resources,
    /// What it can reach.
    pub network: Network,
    /// What it sees of the host.
    pub mounts: Vec<Mount>,
    /// Its ports, as they were asked for.
    pub publish: Vec<PublishedPort>,
    /// After how long without use its machine is stopped.
    #[serde(
        rename = "idle_stop_ms",
        serialize_with = "blink_host::json::optional_millis"
    )]
    pub idle_stop: Option<Duration>,
}

impl SessionInfo {
    /// Waits for the disk: some of its files are looked at.
    pub(super) fn of(blink: &Blink, row: &SessionRow) -> SessionInfo {
        let spec = row.options.spec.as_asked();
        SessionInfo {
            name: row.name.clone(),
            id: row.id.clone(),
            isolation: row.isolation,
            image: spec.image().to_owned(),
            resources: spec.resources(),
            running: engines::is_alive(&blink.home().sandboxes().join(&row.id)),
            warm: spec.is_warm(),
            labels: spec.labels,
            forked_from: row.forked_from.clone(),
            checkpoint: row.checkpoint.clone(),
            created_at: row.created_at,
            disk_bytes: blink.disks().usage(&row.head),
            network: spec.network.unwrap_or_default(),
            mounts: spec.mounts,
            publish: spec.publish,
            idle_stop: spec.idle_stop,
        }
    }
}

/// Makes a folder for a new session, with all that this process needs there to use it.
pub(super) fn new_session_folder(blink: &Blink) -> Result<SandboxFolder> {
    let folder = blink.home().new_sandbox(Lifetime::Session)?;
    match lease::prepare(folder.path()) {
        Ok(()) => Ok(folder),
        Err(error) => {
            folder.remove_or_later();
            Err(Error::io("the session's folder could not be made", &error))
        }
    }
}

impl Blink {
    /// All sessions of this home, by name.
    ///
    /// # Errors
    /// `Corrupt` if the list of sessions is damaged; `Unsupported` if a later Blink has written it.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>> {
        during("sessions", self, async {
            let rows = self
                .disks()
                .with_registry(|registry| registry.sessions())
                .await?;
            let blink = self.clone();
            on_thread(move || {
                let rows = rows.iter();
                Ok(rows.map(|row| SessionInfo::of(&blink, row)).collect())
            })
            .await
        })
        .await
    }

    /// Details of a session, whoever has it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn session_info(&self, name: &str) -> Result<SessionInfo> {
        during("session_info", &*format!("session {name:?}"), async {
            let wanted = name.to_owned();
            let row = self
                .disks()
                .with_registry(move |registry| registry.session(&wanted))
                .await?
                .ok_or_else(|| missing(name))?;
            let blink = self.clone();
            on_thread(move || Ok(SessionInfo::of(&blink, &row))).await
        })
        .await
    }

    /// Removes what no session, checkpoint or fork needs, and what processes that ended half-way have left; says how many
    /// bytes that has freed.
    ///
    /// # Errors
    /// `Busy` while another process makes or removes something of the kind.
    pub async fn prune_sessions(&self) -> Result<u64> {
        during("prune_sessions", self, async {
            self.sweep().await?;
            self.disks().prune().await
        })
        .await
    }
}
