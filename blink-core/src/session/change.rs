//! How changes of sessions come into the registry, and what they leave is removed.

use std::sync::Mutex;

use tokio::sync::{MutexGuard, watch};

use super::layers::{Layers, Making};
use super::registry::Registry;
use super::{Session, State, missing};
use crate::blink::Blink;
use crate::blocking::on_thread;
use crate::error::Result;
use crate::lock;

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

    /// Makes a change of it, for which layers were made, or are by `prepare`, before it has the registry.
    pub(super) async fn change<P, T: Send + 'static>(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: Option<&Making>,
        prepare: impl FnOnce() -> Result<P> + Send + 'static,
        change: impl FnOnce(&mut Registry, P) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let making = making.cloned();
        self.to_its_end(state, move |registry| {
            let _until_then = making;
            let prepared = prepare()?;
            change(&mut lock(registry), prepared)
        })
        .await
    }

    /// As [`change`](Session::change), and removes the layers that it frees; `making` is let go of in between.
    pub(super) async fn change_and_remove<P>(
        &self,
        state: &mut MutexGuard<'_, State>,
        making: Option<Making>,
        prepare: impl FnOnce() -> Result<P> + Send + 'static,
        change: impl FnOnce(&mut Registry, P) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let layers = self.blink.layers();
        self.to_its_end(state, move |registry| {
            let prepared = prepare()?;
            change(&mut lock(registry), prepared)?;
            drop(making);
            if let Err(error) = layers.remove_forgotten(registry) {
                tracing::warn!(%error, "layers that nobody needs are collected later");
            }
            Ok(())
        })
        .await
    }

    /// Where the caller gives up meanwhile, it is done nevertheless, and the next call looks what has become of it.
    async fn to_its_end<T: Send + 'static>(
        &self,
        state: &mut MutexGuard<'_, State>,
        work: impl FnOnce(&Mutex<Registry>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (under_way, over) = watch::channel(());
        state.change = Some(over);
        let blink = self.blink.clone();
        let done = on_thread(move || {
            let _until_then = under_way;
            work(&*blink.registry()?)
        })
        .await?;
        state.change = None;
        Ok(done)
    }
}

impl Blink {
    /// Works with the registry, on a thread that may wait.
    pub(crate) async fn with_registry<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let blink = self.clone();
        on_thread(move || {
            let registry = blink.registry()?;
            work(&mut lock(&registry))
        })
        .await
    }

    /// Looks up a few rows: at once where nobody has the registry, since a change of thread takes longer than that. Those who
    /// read do not wait for those who write, of this process or another.
    pub(crate) async fn look_up<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if let Some(registry) = self.opened_registry()
            && let Ok(registry) = registry.try_lock()
        {
            return work(&registry);
        }
        self.with_registry(|registry| work(registry)).await
    }

    pub(crate) fn layers(&self) -> Layers {
        Layers::of(self.home())
    }

    /// Removes layers that were made and are not written down. What cannot be removed now is collected later: nothing fails for
    /// that.
    pub(crate) async fn collect_layers(&self) {
        let (blink, layers) = (self.clone(), self.layers());
        let collected = on_thread(move || layers.collect(&*blink.registry()?)).await;
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
