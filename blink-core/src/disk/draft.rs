//! Changes of disks that are not written down yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blink_host::fault::{self, Step};
use blink_host::new_id;

use super::disks::Disks;
use super::layers::Making;
use super::registry::{LayerRow, Registry};
use crate::blocking::on_thread;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Layers for a change of the registry, and for as long as this lives, nobody removes any. [Written](Draft::write), they are
/// there; dropped before, nothing is left of them.
pub(crate) struct Draft {
    disks: Disks,
    engine: Arc<dyn Engine>,
    /// `None` once it is written.
    making: Option<Making>,
    made: Vec<LayerRow>,
    /// Layers to write to, which are made last: where somebody waits for the change, on another thread.
    heads: Vec<LayerRow>,
}

impl Draft {
    pub(crate) fn begin(disks: &Disks, engine: Arc<dyn Engine>) -> Result<Draft> {
        Ok(Draft {
            making: Some(disks.making()?),
            disks: disks.clone(),
            engine,
            made: Vec::new(),
            heads: Vec::new(),
        })
    }

    /// Makes the folder of a new layer over another, for a disk that is put there.
    pub(crate) fn layer(&mut self, parent: Option<&str>) -> Result<(String, PathBuf)> {
        let row = LayerRow {
            id: new_id()?,
            parent: parent.map(str::to_owned),
        };
        self.disks.layers().make(&row.id)?;
        let made = (row.id.clone(), self.disks.folder(&row.id));
        self.made.push(row);
        Ok(made)
    }

    /// Makes a layer of a disk that is somewhere else in the home: its folder moves. A machine that uses it goes on.
    pub(crate) fn take(
        &mut self,
        disk: &Path,
        parent: Option<LayerRow>,
    ) -> Result<(String, PathBuf)> {
        let row = LayerRow {
            id: new_id()?,
            parent: parent.as_ref().map(|parent| parent.id.clone()),
        };
        let folder = self.disks.folder(&row.id);
        fault::before(Step::LayerMake)
            .and_then(|()| std::fs::rename(disk, &folder))
            .map_err(|error| {
                Error::io("the sandbox's disk could not be made a session's", &error)
            })?;
        self.made.extend(parent);
        let taken = (row.id.clone(), folder);
        self.made.push(row);
        Ok(taken)
    }

    /// An empty layer over a chain of them, to write to. It is made by [`make_heads`](Draft::make_heads), or when the draft is
    /// written.
    pub(crate) fn head(&mut self, over: &[String]) -> Result<String> {
        let row = LayerRow {
            id: new_id()?,
            parent: over.last().cloned(),
        };
        let id = row.id.clone();
        self.heads.push(row);
        Ok(id)
    }

    /// What shows the same as a chain of layers, the lowest first, and is not too long: the chain itself, or one in which the
    /// upper half is made one. Half, so that the next comes only after as many changes again.
    pub(crate) async fn shortened(&mut self, mut chain: Vec<String>) -> Result<Vec<String>> {
        let folders = self.disks.folders(&chain);
        if chain.len() < 2 || !self.engine.is_deep(&folders) {
            return Ok(chain);
        }
        let (below, above) = folders.split_at(chain.len() / 2);
        chain.truncate(below.len());
        let (merged, folder) = self.layer(chain.last().map(String::as_str))?;
        self.engine.merge(below, above, &folder).await?;
        chain.push(merged);
        Ok(chain)
    }

    /// Makes the heads now: what can fail, fails before something else is done.
    pub(crate) async fn make_heads(mut self) -> Result<Draft> {
        on_thread(move || {
            self.make()?;
            Ok(self)
        })
        .await
    }

    fn make(&mut self) -> Result<()> {
        while !self.heads.is_empty() {
            let head = self.heads.remove(0);
            self.disks.layers().make(&head.id)?;
            let (id, parent) = (head.id.clone(), head.parent.clone());
            self.made.push(head);
            if let Some(parent) = parent {
                let (disk, over) = (self.disks.folder(&id), self.disks.folder(&parent));
                self.engine.make_disk(&disk, &over)?;
            }
        }
        Ok(())
    }

    /// Makes the heads and the change, which writes the layers down, and removes the layers that it frees. Waits for the disk.
    pub(crate) fn write<T>(
        mut self,
        change: impl FnOnce(&mut Registry, &[LayerRow]) -> Result<T>,
    ) -> Result<T> {
        self.make()?;
        let disks = self.disks.clone();
        disks.write(|registry| {
            let written = change(registry, &self.made)?;
            // From here on there is nothing to collect, and whoever removes layers may.
            self.making = None;
            Ok(written)
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Whoever removes layers needs them for itself.
        if self.making.take().is_none() || self.made.is_empty() {
            return;
        }
        // At once, also on a thread of the caller's runtime: it is little, and whoever sees the failure finds nothing left.
        self.disks.collect();
    }
}
