//! New layers to write to.

use super::Session;
use super::layers::Making;
use super::registry::LayerRow;
use crate::engine::Engine;
use crate::error::Result;

/// A layer that a head can be made over, and those of it and beneath it that are not written down yet.
pub(super) struct Base {
    pub(super) layer: String,
    pub(super) new: Vec<LayerRow>,
}

impl Session {
    /// What shows the same as a layer and has not too many layers beneath it: the layer itself, or one in which the upper half
    /// of its chain is made one. Half, so that the next comes only after as many changes again.
    pub(super) async fn base(
        &self,
        engine: &dyn Engine,
        making: &Making,
        layer: &str,
        mut new: Vec<LayerRow>,
    ) -> Result<Base> {
        let unwritten = new.iter().find(|row| row.id == layer);
        let written = match unwritten {
            Some(row) => row.parent.clone(),
            None => Some(layer.to_owned()),
        };
        let mut chain = match written {
            Some(written) => self.chain(&written).await?,
            None => Vec::new(),
        };
        chain.extend(unwritten.map(|row| row.id.clone()));
        let layers = self.blink.layers();
        let folders: Vec<_> = chain.iter().map(|id| layers.folder(id)).collect();
        if chain.len() < 2 || !engine.is_deep(&folders) {
            let layer = layer.to_owned();
            return Ok(Base { layer, new });
        }
        let below = chain.len() / 2;
        let merged = layers.new_layer(making)?;
        engine
            .merge(&folders[below..], &layers.folder(&merged))
            .await?;
        new.push(LayerRow {
            id: merged.clone(),
            parent: below.checked_sub(1).map(|top| chain[top].clone()),
        });
        Ok(Base { layer: merged, new })
    }

    /// Makes an empty layer over another, to write to.
    pub(super) async fn new_head(
        &self,
        engine: &dyn Engine,
        making: &Making,
        base: &str,
    ) -> Result<LayerRow> {
        let layers = self.blink.layers();
        let id = layers.new_layer(making)?;
        engine
            .make_disk(&layers.folder(&id), &layers.folder(base))
            .await?;
        Ok(LayerRow {
            id,
            parent: Some(base.to_owned()),
        })
    }

    /// A layer and all beneath it, the lowest first.
    pub(super) async fn chain(&self, layer: &str) -> Result<Vec<String>> {
        let layer = layer.to_owned();
        self.blink
            .with_registry(move |registry| registry.chain(&layer))
            .await
    }
}
