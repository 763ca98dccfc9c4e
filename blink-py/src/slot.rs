//! A thing of the library's that Python holds, uses from several threads, and closes.

use std::future::Future;
use std::sync::{Arc, Weak};

use blink_core::ErrorKind;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::runtime::{self, Boxed, Close};

/// What a call borrows while it is under way.
pub(crate) type Guard<T> = OwnedRwLockReadGuard<Option<T>, T>;

/// A thing that can be closed while others use it: their calls fail, and then it is ended.
pub(crate) struct Slot<T: Send + Sync + 'static>(Arc<Inner<T>>);

struct Inner<T: Send + Sync + 'static> {
    /// What messages call it.
    what: &'static str,
    /// Calls hold it for reading; who closes takes the value out.
    value: Arc<RwLock<Option<T>>>,
    closing: CancellationToken,
    end: fn(T) -> Boxed<Result<(), Failure>>,
}

impl<T: Send + Sync + 'static> Clone for Slot<T> {
    fn clone(&self) -> Slot<T> {
        Slot(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> Slot<T> {
    /// Holds a value; `end` says what closing it means.
    pub(crate) fn new(
        what: &'static str,
        value: T,
        end: fn(T) -> Boxed<Result<(), Failure>>,
    ) -> Slot<T> {
        let inner = Arc::new(Inner {
            what,
            value: Arc::new(RwLock::new(Some(value))),
            closing: CancellationToken::new(),
            end,
        });
        let open: Weak<Inner<T>> = Arc::downgrade(&inner);
        runtime::remember(open);
        Slot(inner)
    }

    /// Uses the value. Closing it meanwhile ends the call.
    pub(crate) async fn with<R, F: Future<Output = Result<R, Failure>>>(
        &self,
        call: impl FnOnce(Guard<T>) -> F,
    ) -> Result<R, Failure> {
        let guard = self.guard().await?;
        tokio::select! {
            biased;
            result = call(guard) => result,
            () = self.0.closing.cancelled() => Err(Failure::new(
                ErrorKind::SandboxDied,
                format!("the {} was closed while this call was under way", self.0.what),
            )),
        }
    }

    /// Borrows the value; whoever closes it waits until it is given back.
    pub(crate) async fn guard(&self) -> Result<Guard<T>, Failure> {
        self.check()?;
        let guard = self.0.value.clone().read_owned().await;
        OwnedRwLockReadGuard::try_map(guard, Option::as_ref).map_err(|_| self.closed())
    }

    /// # Errors
    /// `InvalidArgument` once it is closed.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.is_closed() {
            true => Err(self.closed()),
            false => Ok(()),
        }
    }

    /// Borrows the value where nobody is closing it, without waiting.
    pub(crate) fn try_get(&self) -> Result<Guard<T>, Failure> {
        let guard = self.0.value.clone().try_read_owned();
        guard
            .ok()
            .and_then(|guard| OwnedRwLockReadGuard::try_map(guard, Option::as_ref).ok())
            .ok_or_else(|| self.closed())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    fn closed(&self) -> Failure {
        Failure::new(
            ErrorKind::InvalidArgument,
            format!("the {} is closed; make or open another", self.0.what),
        )
    }

    /// Ends the calls that are under way, and then the value; once.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.0.close().await
    }

    /// As [`close`](Slot::close), but ends it in another way.
    pub(crate) async fn close_with<F: Future<Output = Result<(), Failure>>>(
        self,
        end: impl FnOnce(T) -> F,
    ) -> Result<(), Failure> {
        self.0.closing.cancel();
        let value = self.0.value.write().await.take();
        match value {
            Some(value) => end(value).await,
            None => Ok(()),
        }
    }
}

impl<T: Send + Sync + 'static> Close for Inner<T> {
    fn close(self: Arc<Self>) -> Boxed<Result<(), Failure>> {
        Box::pin(async move {
            let end = self.end;
            Slot(self).close_with(end).await
        })
    }
}

impl<T: Send + Sync + 'static> Drop for Inner<T> {
    fn drop(&mut self) {
        let (value, end) = (self.value.clone(), self.end);
        runtime::end_later(async move {
            let value = value.write().await.take();
            if let Some(value) = value {
                // Nobody is there to be told.
                let _ = end(value).await;
            }
        });
    }
}
