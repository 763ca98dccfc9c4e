//! How changes of sessions come into the registry, and what they leave is removed.

use tokio::sync::{MutexGuard, watch};

use super::layers::{Layers, Making};
use super::registry::Registry;
use super::{Session, State, missing};
use crate::blink::Blink;
use crate::error::{Error, ErrorKind, Result};

impl Session {
    /// What it is now, unless it was removed.
    pub(super) async fn there(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().await;
        self.refresh(&mut state).await?;
        match state.removed {
            true => Err(missing(&state.row.name)),
            false => Ok(state),
        }
    }

    /// Looks what has become of a change that was given up.
    pub(super) async fn refresh(&self, state: &mut MutexGuard<'_, State>) -> Result<()> {
        let Some(change) = &mut state.change else {
            return Ok(());
        };
        while change.changed().await.is_ok() {}
        let id = state.row.id.clone();
        let now = self
            .blink
            .with_registry(move |registry| registry.session_by_id(&id))
            .await?;
        match now {
            Some(row) => state.row = row,
            None => state.removed = true,
        }
        state.change = None;
        Ok(())
    }

    /// Makes a change of it, for which layers were made. Where the caller gives up meanwhile, it is made nevertheless, and the
    /// next call looks what has become of it.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: Option<&Making>,
        change: impl FnOnce(&mut Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (under_way, over) = watch::channel(());
        state.change = Some(over);
        let making = making.cloned();
        let changed = self
            .blink
            .with_registry(move |registry| {
                let _until_then = (under_way, making);
                change(registry)
            })
            .await?;
        state.change = None;
        Ok(changed)
    }

    /// Makes a change that frees layers, and removes these; `making` is let go of in between.
    pub(super) async fn change_and_remove(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: Option<Making>,
        change: impl FnOnce(&mut Registry) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let layers = self.blink.layers();
        let change_and_remove = move |registry: &mut Registry| {
            change(registry)?;
            drop(making);
            if let Err(error) = layers.remove_forgotten(registry) {
                tracing::warn!(%error, "layers that nobody needs are collected later");
            }
            Ok(())
        };
        self.change(state, None, change_and_remove).await
    }
}

impl Blink {
    /// Works with the registry, on a thread that may wait.
    pub(crate) async fn with_registry<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let blink = self.clone();
        tokio::task::spawn_blocking(move || {
            let registry = blink.registry()?;
            work(&mut crate::lock(&registry))
        })
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
    }

    pub(crate) fn layers(&self) -> Layers {
        Layers::of(self.home())
    }

    /// Removes layers that were made and are not written down. What cannot be removed now is collected later: nothing fails for
    /// that.
    pub(crate) async fn collect_layers(&self) {
        let layers = self.layers();
        let collected = self
            .with_registry(move |registry| layers.collect(registry))
            .await;
        if let Err(error) = collected {
            tracing::warn!(%error, "layers that nobody needs are collected later");
        }
    }

    /// Whether the folder of a session that nobody has is a session's indeed. One that cannot be told stays.
    pub(crate) async fn is_session(&self, id: &str) -> bool {
        let id = id.to_owned();
        let row = self
            .with_registry(move |registry| registry.session_by_id(&id))
            .await;
        !matches!(row, Ok(None))
    }
}
