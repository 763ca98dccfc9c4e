//! The disks of a home: the folders of their layers, and the registry that says what they are.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use blink_host::lock;
use once_cell::sync::OnceCell;

use super::layers::{Layers, Making};
use super::registry::Registry;
use crate::blocking::on_thread;
use crate::error::Result;
use crate::home::Home;

/// All of a home's. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Disks {
    shared: Arc<Shared>,
}

struct Shared {
    home: PathBuf,
    layers: Layers,
    registry: OnceCell<Mutex<Registry>>,
    /// What opening the registry has freed, until somebody is told.
    freed_bytes: AtomicU64,
}

impl Disks {
    pub(crate) fn of(home: &Home) -> Disks {
        let shared = Shared {
            home: home.path().to_owned(),
            layers: Layers::of(home),
            registry: OnceCell::new(),
            freed_bytes: AtomicU64::new(0),
        };
        Disks {
            shared: Arc::new(shared),
        }
    }

    /// It may take a moment to open it.
    pub(super) fn registry(&self) -> Result<&Mutex<Registry>> {
        self.shared.registry.get_or_try_init(|| {
            let registry = Mutex::new(Registry::open(&self.shared.home)?);
            // What processes that are gone were making. What cannot be told stays.
            match self.shared.layers.prune(&registry) {
                Ok(bytes) => {
                    self.shared.freed_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::debug!(%error, "layers that nobody needs are collected later");
                }
            }
            Ok(registry)
        })
    }

    /// Works with the registry, on a thread that may wait.
    pub(crate) async fn with_registry<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let disks = self.clone();
        on_thread(move || work(&mut lock(disks.registry()?))).await
    }

    /// Looks up a few rows: at once where nobody has the registry, since a change of thread takes longer than that. Those who
    /// read do not wait for those who write, of this process or another.
    pub(crate) async fn look_up<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if let Some(registry) = self.shared.registry.get()
            && let Ok(registry) = registry.try_lock()
        {
            return work(&registry);
        }
        self.with_registry(|registry| work(registry)).await
    }

    /// A layer and all beneath it, the lowest first.
    pub(crate) async fn chain(&self, layer: &str) -> Result<Vec<String>> {
        let layer = layer.to_owned();
        self.look_up(move |registry| registry.chain(&layer)).await
    }

    /// The folder of a layer.
    pub(crate) fn folder(&self, layer: &str) -> PathBuf {
        self.shared.layers.folder(layer)
    }

    /// The folders of a chain of layers.
    pub(crate) fn folders(&self, chain: &[String]) -> Vec<PathBuf> {
        chain.iter().map(|layer| self.folder(layer)).collect()
    }

    /// What a layer occupies, as [`Layers::usage`] has it. Waits for the disk.
    pub(crate) fn usage(&self, layer: &str) -> u64 {
        self.shared.layers.usage(layer)
    }

    /// While what is returned lives, nobody removes layers.
    pub(super) fn making(&self) -> Result<Making> {
        self.shared.layers.making()
    }

    pub(super) fn layers(&self) -> &Layers {
        &self.shared.layers
    }

    /// Makes a change of the registry that needs no layers, and removes the layers that it frees. Waits for the disk.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Registry) -> Result<T>) -> Result<T> {
        let registry = self.registry()?;
        let done = change(&mut lock(registry))?;
        if let Err(error) = self.shared.layers.remove_forgotten(registry) {
            tracing::warn!(%error, "layers that nobody needs are collected later");
        }
        Ok(done)
    }

    /// Removes layers that were made and are not written down. What cannot be removed now is collected later: nothing fails for
    /// that. Waits for the disk.
    pub(crate) fn collect(&self) {
        let collected = self
            .registry()
            .and_then(|registry| self.shared.layers.collect(registry));
        if let Err(error) = collected {
            tracing::warn!(%error, "layers that nobody needs are collected later");
        }
    }

    /// Removes all layers that nothing needs; returns how many bytes that, and opening the registry, has freed.
    ///
    /// # Errors
    /// `Busy` while another process makes layers.
    pub(crate) async fn prune(&self) -> Result<u64> {
        let disks = self.clone();
        on_thread(move || {
            let freed_bytes = disks.shared.layers.prune(disks.registry()?)?;
            Ok(freed_bytes + disks.shared.freed_bytes.swap(0, Ordering::Relaxed))
        })
        .await
    }
}
