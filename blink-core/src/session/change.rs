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
        if let Some(change) = &mut state.change {
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
        }
        match state.removed {
            true => Err(missing(&state.row.name)),
            false => Ok(state),
        }
    }

    /// Makes a change of it. Where the caller gives up meanwhile, the next one looks what has become of it.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        state: &mut MutexGuard<'_, State>,
        change: impl FnOnce(&mut Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (under_way, over) = watch::channel(());
        state.change = Some(over);
        let changed = self
            .blink
            .with_registry(move |registry| {
                let _under_way = under_way;
                change(registry)
            })
            .await;
        state.change = None;
        changed
    }

    /// Makes a change that has the registry forget layers, and removes these; `making` is let go of in between.
    pub(super) async fn forget(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: Option<Making>,
        change: impl FnOnce(&mut Registry) -> Result<Vec<String>> + Send + 'static,
    ) -> Result<()> {
        let (layers, are_others_left) = (self.blink.layers(), self.blink.has_leftovers());
        let forget = move |registry: &mut Registry| {
            let forgotten = change(registry)?;
            drop(making);
            Ok(match are_others_left {
                true => layers.collect(registry),
                false => layers.remove(&forgotten, registry),
            })
        };
        let removed = self.change(state, forget).await?;
        self.blink.note_collected(removed);
        Ok(())
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

    /// Removes what no session needs any more, also what was made and is not written down. What cannot be removed now is
    /// collected later: no change fails for that.
    pub(crate) async fn collect_layers(&self) {
        let layers = self.layers();
        let collected = self
            .with_registry(move |registry| layers.collect(registry))
            .await;
        self.note_collected(collected);
    }

    fn note_collected(&self, collected: Result<bool>) {
        let are_left = match collected {
            Ok(collected) => !collected,
            Err(error) => {
                tracing::warn!(%error, "layers that nobody needs are collected later");
                true
            }
        };
        self.set_leftovers(are_left);
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
