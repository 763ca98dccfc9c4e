//! New layers to write to.

use std::sync::Arc;

use super::Session;
use super::layers::{Layers, Making};
use super::registry::LayerRow;
use crate::engine::Engine;
use crate::error::Result;
use crate::home::new_id;

/// What a head can be made over.
pub(super) struct Base {
    /// The layer, and all beneath it before it.
    pub(super) chain: Vec<String>,
    /// Those of it that are not written down yet.
    pub(super) new: Vec<LayerRow>,
}

/// A layer to write to that has its id, and is still to be made.
pub(super) struct NewHead {
    row: LayerRow,
    engine: Arc<dyn Engine>,
    layers: Layers,
    making: Making,
}

/// Makes all of them, or none that is of use; waits for the disk.
pub(super) fn make(heads: impl IntoIterator<Item = NewHead>) -> Result<Vec<LayerRow>> {
    heads.into_iter().map(NewHead::make).collect()
}

impl NewHead {
    pub(super) fn id(&self) -> &str {
        &self.row.id
    }

    /// Makes it; waits for the disk.
    pub(super) fn make(self) -> Result<LayerRow> {
        self.layers.make(self.id(), &self.making)?;
        let folder = |id: &str| self.layers.folder(id);
        if let Some(top) = &self.row.parent {
            self.engine.make_disk(&folder(self.id()), &folder(top))?;
        }
        Ok(self.row)
    }
}

impl Session {
    /// What shows the same as a chain of layers, the lowest first, and is not too long: the chain itself, or one in which the
    /// upper half is made one. Half, so that the next comes only after as many changes again.
    pub(super) async fn base(
        &self,
        engine: &dyn Engine,
        making: &Making,
        mut chain: Vec<String>,
        mut new: Vec<LayerRow>,
    ) -> Result<Base> {
        let layers = self.core.blink.layers();
        let folders: Vec<_> = chain.iter().map(|id| layers.folder(id)).collect();
        if chain.len() < 2 || !engine.is_deep(&folders) {
            return Ok(Base { chain, new });
        }
        let below = chain.len() / 2;
        let merged = layers.new_layer(making)?;
        engine
            .merge(
                &folders[..below],
                &folders[below..],
                &layers.folder(&merged),
            )
            .await?;
        chain.truncate(below);
        new.push(LayerRow {
            id: merged.clone(),
            parent: chain.last().cloned(),
        });
        chain.push(merged);
        Ok(Base { chain, new })
    }

    /// An empty layer over a chain of them, to write to.
    pub(super) fn new_head(
        &self,
        engine: &Arc<dyn Engine>,
        making: &Making,
        base: &[String],
    ) -> Result<NewHead> {
        Ok(NewHead {
            row: LayerRow {
                id: new_id()?,
                parent: base.last().cloned(),
            },
            engine: engine.clone(),
            layers: self.core.blink.layers(),
            making: making.clone(),
        })
    }

    /// A layer and all beneath it, the lowest first.
    pub(super) async fn chain(&self, layer: &str) -> Result<Vec<String>> {
        let layer = layer.to_owned();
        self.core
            .blink
            .look_up(move |registry| registry.chain(&layer))
            .await
    }
}
