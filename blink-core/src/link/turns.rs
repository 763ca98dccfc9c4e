//! How many requests are under way at once. Beyond that they wait for their turn, first come, first served.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, ErrorKind, Result};

/// Requests that one link carries at once: as many streams as the agent opens for a host.
pub(crate) const REQUESTS_LIMIT: usize = 4096;

/// Requests beside them that must not wait behind others: signals, releases, signs of life. They have no streams, so that
/// they do not count for the agent, and each is answered at once.
const URGENT_LIMIT: usize = 256;

/// A request that is longer than this counts by its length as well. The usual ones are shorter, and as many of them as
/// are under way at once fit into 16 MiB.
const SHORT_BYTES: usize = 4 << 10;

/// What all longer requests that were not answered yet have together: one of the longest that there can be.
const LONG_LIMIT: usize = blink_wire::REQUEST_LIMIT;

/// Lengths are counted in units of this many bytes, so that a semaphore can hold them.
const UNIT: usize = 1 << 10;

pub(crate) struct Turns {
    requests: Arc<Semaphore>,
    urgent: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

/// A request's place among those under way. It is free again when this is dropped.
pub(crate) struct Place {
    _count: OwnedSemaphorePermit,
}

/// What a long request takes until it is answered.
pub(crate) struct Length {
    _units: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new(requests: usize) -> Turns {
        Turns {
            requests: Arc::new(Semaphore::new(requests)),
            urgent: Arc::new(Semaphore::new(URGENT_LIMIT)),
            long: Arc::new(Semaphore::new(LONG_LIMIT / UNIT)),
        }
    }

    /// Waits for the turn of a request, at most for `patience`; `None` once the link has ended.
    pub(crate) async fn take(
        &self,
        urgent: bool,
        length: usize,
        patience: Option<Duration>,
    ) -> Result<Option<(Place, Option<Length>)>> {
        let turn = async {
            let length = match length {
                0..=SHORT_BYTES => None,
                _ => {
                    let units = u32::try_from(length.min(LONG_LIMIT).div_ceil(UNIT));
                    let units = self.long.clone().acquire_many_owned(units.unwrap_or(1));
                    Some(Length {
                        _units: units.await.ok()?,
                    })
                }
            };
            let places = if urgent { &self.urgent } else { &self.requests };
            let place = Place {
                _count: places.clone().acquire_owned().await.ok()?,
            };
            Some((place, length))
        };
        let Some(patience) = patience else {
            return Ok(turn.await);
        };
        tokio::time::timeout(patience, turn).await.map_err(|_| {
            let message = format!(
                "so many requests are under way in the sandbox that this one's turn did not come within its timeout of {patience:?}; make fewer at once"
            );
            Error::new(ErrorKind::Timeout, message)
        })
    }

    /// Whoever waits goes on, to find that the link has ended.
    pub(crate) fn close(&self) {
        for semaphore in [&self.requests, &self.urgent, &self.long] {
            semaphore.close();
        }
    }
}
