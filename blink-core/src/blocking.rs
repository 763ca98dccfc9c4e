//! Work that may wait: for a disk, for a lock, for another process.

use crate::error::{Error, ErrorKind, Result};

/// Does it on a thread that may wait. Where the caller gives up, it goes on to its end.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
}
