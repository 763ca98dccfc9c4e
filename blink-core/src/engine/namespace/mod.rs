//! Sandboxes in Linux namespaces, made by Blink's own launcher: for machines without a usable hypervisor, and for tests.
//!
//! The sandbox's root is an overlay: below the image, above the sandbox's own disk, a folder in its home. The agent is
//! process 1 in it. Everything is unshared; programs have no capability, cannot gain a privilege, and pass through a
//! filter of system calls (the agent gives them that).
//!
//! As an ordinary user, the sandbox has one user, who is that user outside. As root, it has 65,536 users of its own,
//! none of whom is anybody outside: root is never root.

mod archive;
mod cgroup;
mod disk;
mod launch;
mod left;
mod links;
mod machine;
mod ranges;
mod userns;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use blink_archive::Marks;
use blink_host::private;
use serde_json::Value;

use super::host_root::{self, HostRoot};
use super::kind::{Capabilities, Kind, Left, Share};
use super::{About, Archive, Engine, Machine, MachineSpec, PackLayer, RootForm, Target};
use crate::blocking::on_thread;
use crate::child::Launcher;
use crate::error::{Error, ErrorKind, Result};
use crate::guest_binary;
use crate::home::Home;
use crate::isolation::Isolation;
use crate::spec::Network;

#[cfg(feature = "fuzzing")]
pub(crate) use archive::fuzzing as archive_fuzzing;
use left::LeftMachine;
use ranges::Span;
pub(crate) use userns::id_base;

/// What there is to know of the engine before it is opened.
pub(crate) struct Namespace;

#[async_trait]
impl Kind for Namespace {
    fn isolation(&self) -> Isolation {
        Isolation::Namespace
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            shares_machines: true,
            // The disk is a folder of the host's.
            writes_through: true,
            shares_network: true,
            isolates: true,
        }
    }

    fn default_share(&self) -> Share {
        let host = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Share {
            cpus: f64::from(u32::try_from(host).unwrap_or(u32::MAX)),
            memory_mib: cgroup::default_memory_mib(),
        }
    }

    async fn open(&self, home: &Home) -> Result<Arc<dyn Engine>> {
        Ok(Arc::new(NamespaceEngine::open(home)?))
    }

    fn left(&self, folder: &Path, record: Value) -> Option<Box<dyn Left>> {
        let record = serde_json::from_value(record).ok()?;
        Some(Box::new(LeftMachine::new(folder, record)))
    }
}

/// The engine, opened once.
pub(crate) struct NamespaceEngine {
    tools: Arc<Tools>,
}

/// What every boot needs, found or made once.
pub(crate) struct Tools {
    guest: PathBuf,
    /// The agent is the launcher's program.
    is_embedded: bool,
    launcher: Launcher,
    host_root: HostRoot,
    /// Where the overlays of new disks have their marks.
    marks: Marks,
    /// The first host id of the sandboxes' users, where Blink is root.
    id_base: Option<u32>,
    /// Of which each of root's sandboxes has a range of its own.
    span: Span,
}

impl NamespaceEngine {
    pub(crate) fn open(home: &Home) -> Result<NamespaceEngine> {
        let launcher = Launcher::in_home(home.path());
        let guest = guest_binary::install(home.path()).map_err(|error| {
            let message = format!(
                "the guest agent could not be put into Blink's home {}",
                home.path().display()
            );
            Error::io(message, &error)
        })?;
        // The agent's folder is shown as it is; the sandbox's own disk is shown in it.
        let disk = guest.with_file_name("disk");
        private::make_open_folder(&disk).map_err(|error| Error::io(disk.display(), &error))?;
        let id_base = id_base();
        for folder in [
            home.path(),
            &home.sandboxes(),
            &home.layers(),
            &home.images(),
            &home.path().join("guest"),
        ] {
            userns::open_to_sandboxes(folder, id_base).map_err(|error| {
                Error::io(
                    format!("Blink's home {} cannot be used", folder.display()),
                    &error,
                )
            })?;
        }
        let host_root = host_root::prepare(home, id_base)?;
        let tools = Tools {
            is_embedded: guest_binary::is_embedded(&guest),
            guest,
            launcher,
            host_root,
            marks: match id_base {
                Some(_) => disk::marks_in(&home.layers()),
                None => Marks::User,
            },
            id_base,
            span: Span::from_environment()?,
        };
        Ok(NamespaceEngine {
            tools: Arc::new(tools),
        })
    }
}

impl Tools {
    fn image(&self, rootfs: Option<&Path>) -> PathBuf {
        rootfs.unwrap_or(&self.host_root.path).to_owned()
    }

    /// All that is beneath a disk, the lowest first.
    fn over(&self, rootfs: Option<&Path>, layers: &[PathBuf]) -> Vec<PathBuf> {
        let uppers = layers.iter().filter_map(|layer| disk::Upper::of(layer));
        std::iter::once(self.image(rootfs))
            .chain(uppers.map(|upper| upper.path))
            .collect()
    }

    fn source(&self, disk: &Path, layers: &[PathBuf], rootfs: Option<&Path>) -> archive::Source {
        archive::Source {
            disks: [layers, &[disk.to_owned()]].concat(),
            image: self.image(rootfs),
            marks: self.marks,
            id_base: self.id_base,
        }
    }
}

#[async_trait]
impl Engine for NamespaceEngine {
    fn root_form(&self) -> RootForm {
        RootForm::Folder
    }

    async fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>> {
        if let Network::Hosts(_) = spec.network {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "namespaces cannot limit the network to named hosts; ask for micro-VMs, or for all of the network or \
                 none",
            ));
        }
        let (tools, spec) = (self.tools.clone(), spec.clone());
        let (machine, written) = on_thread(move || {
            let machine = launch::launch(&tools, &spec)?;
            let written = machine.write_down(spec.detached);
            Ok((machine, written))
        })
        .await?;
        if let Err(error) = written {
            machine.kill();
            machine.gone().await;
            return Err(error);
        }
        Ok(Box::new(machine))
    }

    fn make_disk(&self, disk: &Path, over: &Path) -> Result<()> {
        let Tools { marks, id_base, .. } = *self.tools;
        let over = match disk::Upper::of(over) {
            Some(upper) => Ok(upper),
            // It was never booted.
            None => disk::make(over, marks, id_base),
        };
        over.and_then(|over| disk::make(disk, over.marks, id_base))
            .map(drop)
            .map_err(|error| Error::io("the sandbox's disk could not be made", &error))
    }

    fn is_deep(&self, layers: &[PathBuf]) -> bool {
        layers.len() > disk::DEEPEST
    }

    async fn merge(&self, _beneath: &[PathBuf], layers: &[PathBuf], into: &Path) -> Result<()> {
        let (layers, into) = (layers.to_owned(), into.to_owned());
        let Tools { marks, id_base, .. } = *self.tools;
        on_thread(move || disk::merge(&layers, &into, marks, id_base)).await
    }

    fn is_settled(&self, disk: &Path) -> Result<bool> {
        links::are_settled(disk)
            .map_err(|error| Error::io("the session's disk cannot be read", &error))
    }

    async fn settle(&self, disk: &Path, layers: &[PathBuf], rootfs: Option<&Path>) -> Result<()> {
        let (disk, layers) = (disk.to_owned(), self.tools.over(rootfs, layers));
        on_thread(move || links::settle(&disk, &layers)).await
    }

    async fn export(
        &self,
        disk: &Path,
        layers: &[PathBuf],
        rootfs: Option<&Path>,
        archive: &Path,
        about: About<'_>,
    ) -> Result<()> {
        let source = self.tools.source(disk, layers, rootfs);
        let archive = archive.to_owned();
        let (session, tell) = (about.session.to_owned(), about.tell.clone());
        on_thread(move || archive::export(&source, &archive, &session, &tell)).await
    }

    fn pack_layer(
        &self,
        disk: &Path,
        layers: &[PathBuf],
        rootfs: Option<&Path>,
    ) -> Option<PackLayer> {
        let source = self.tools.source(disk, layers, rootfs);
        Some(Box::new(move |stream| archive::pack_layer(&source, stream)))
    }

    async fn open_archive(&self, archive: &Path) -> Result<Box<dyn Archive>> {
        let archive = archive.to_owned();
        let checked = on_thread(move || archive::open(&archive)).await?;
        Ok(Box::new(NamespaceArchive {
            checked,
            tools: self.tools.clone(),
        }))
    }

    async fn adopt(&self, folder: &Path, disk: &Path) -> Result<Option<Box<dyn Machine>>> {
        Ok(machine::NamespaceMachine::adopt(folder, disk)
            .map(|machine| Box::new(machine) as Box<dyn Machine>))
    }

    async fn discard(&self, folder: &Path) -> Result<()> {
        if let Some(record) = machine::Record::read(folder) {
            LeftMachine::new(folder, record).end().await;
        }
        launch::tidy(folder);
        Ok(())
    }
}

struct NamespaceArchive {
    checked: archive::Checked,
    tools: Arc<Tools>,
}

#[async_trait]
impl Archive for NamespaceArchive {
    fn session(&self) -> Option<&[u8]> {
        Some(self.checked.session())
    }

    async fn unpack(self: Box<Self>, target: &Target<'_>) -> Result<()> {
        let (disk, tell) = (target.disk.to_owned(), target.tell.clone());
        let limit_bytes = target.limit_mib.saturating_mul(1 << 20);
        let image = target
            .rootfs
            .unwrap_or(&self.tools.host_root.path)
            .to_owned();
        on_thread(move || {
            let place = archive::Place {
                disk: &disk,
                image: &image,
                marks: self.tools.marks,
                id_base: self.tools.id_base,
                limit_bytes,
            };
            self.checked.unpack(&place, &tell)
        })
        .await
    }
}

/// Whether this process may make control groups for its sandboxes.
pub(crate) fn has_control_groups() -> bool {
    cgroup::parent().is_some()
}
