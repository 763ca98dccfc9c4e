//! New layers to write to.

use super::Session;
use super::layers::Making;
use super::registry::LayerRow;
use crate::engine::Engine;
use crate::error::Result;

/// What a head can be made over.
pub(super) struct Base {
    /// The layer, and all beneath it before it.
    pub(super) chain: Vec<String>,
    /// Those of it that are not written down yet.
    pub(super) new: Vec<LayerRow>,
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
        let layers = self.blink.layers();
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

    /// Makes an empty layer over a chain of them, to write to.
    pub(super) async fn new_head(
        &self,
        engine: &dyn Engine,
        making: &Making,
        base: &[String],
    ) -> Result<LayerRow> {
        let layers = self.blink.layers();
        let id = layers.new_layer(making)?;
        let Some(top) = base.last() else {
            return Ok(LayerRow { id, parent: None });
        };
        engine
            .make_disk(&layers.folder(&id), &layers.folder(top))
            .await?;
        Ok(LayerRow {
            id,
            parent: Some(top.clone()),
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
