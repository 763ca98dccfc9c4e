//! One blob from whichever registry gives it, taken up again where a connection breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::blobs::{Begun, BlobFolder, Partial};
use crate::contents::Blob;
use crate::error::ImageError;
use crate::registry::client::Remote;
use crate::registry::failure::{Failure, Reason, innermost};
use crate::registry::options::Pace;

/// So much is gathered before it is written: what a kill can cost.
const WRITE_BYTES: usize = 256 * 1024;

/// Tries in a row that may bring nothing new.
const MOST_FRUITLESS: u32 = 3;
/// All tries: a registry that gives a byte at a time is not worth more.
const MOST_TRIES: u32 = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How often another process's progress is looked at.
const WATCH_PAUSE: Duration = Duration::from_millis(50);

/// A blob to bring into the store.
pub(crate) struct Download {
    pub(crate) blobs: BlobFolder,
    pub(crate) remotes: Arc<Vec<Remote>>,
    pub(crate) blob: Blob,
    /// Names the blob in messages.
    pub(crate) what: String,
    /// How many of its bytes are there.
    pub(crate) done: Arc<AtomicU64>,
    /// Nobody wants it any more. What is on its way to the disk gets there first, so that it can be told when nothing is
    /// written any more.
    pub(crate) given_up: CancellationToken,
}

impl Download {
    /// Brings it, or waits while another process does.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let partial = loop {
            if self.given_up.is_cancelled() {
                return Err(given_up());
            }
            let (blobs, blob) = (self.blobs.clone(), self.blob);
            match blocking(move || blobs.begin(blob)).await? {
                Begun::Present => {
                    self.done.store(self.blob.size, Ordering::Relaxed);
                    return Ok(());
                }
                Begun::Elsewhere(size) => {
                    self.done.store(size.min(self.blob.size), Ordering::Relaxed);
                    tokio::time::sleep(WATCH_PAUSE).await;
                }
                Begun::Mine(partial) => break *partial,
            }
        };
        let mut partial = partial;
        let mut last = None;
        for remote in self.remotes.iter() {
            match self.from(remote, partial).await {
                Ok(()) => return Ok(()),
                Err((_, failure @ Failure::Unusable(_))) if is_this_machines(&failure) => {
                    return Err(failure);
                }
                Err((None, failure)) => return Err(failure),
                Err((Some(kept), failure)) => {
                    partial = kept;
                    last = Some(failure);
                }
            }
        }
        // What is damaged everywhere is not worth keeping.
        if matches!(last, Some(Failure::Unusable(_))) {
            partial.discard();
        }
        Err(last.unwrap_or_else(|| Failure::Unreachable("there is no registry to ask".into())))
    }

    /// Tries one registry for as long as that brings anything.
    async fn from(
        &self,
        remote: &Remote,
        mut partial: Partial,
    ) -> Result<(), (Option<Partial>, Failure)> {
        let (mut fruitless, mut pause) = (0, FIRST_PAUSE);
        for _ in 0..MOST_TRIES {
            let before = partial.length();
            let failure;
            (partial, failure) = match self.attempt(remote, partial).await {
                Ok(()) => return Ok(()),
                Err((Some(partial), failure)) => (partial, failure),
                lost => return lost,
            };
            if !matches!(failure, Failure::Broken(_)) || self.given_up.is_cancelled() {
                return Err((Some(partial), failure));
            }
            fruitless = if partial.length() > before {
                0
            } else {
                fruitless + 1
            };
            if fruitless == MOST_FRUITLESS {
                return Err((Some(partial), failure));
            }
            tracing::debug!(
                ?failure,
                at = partial.length(),
                "taking a download up again"
            );
            if fruitless > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        let message = format!("{} breaks off again and again", remote.endpoint().shown());
        Err((Some(partial), Failure::Broken(message.into())))
    }

    /// One connection.
    async fn attempt(
        &self,
        remote: &Remote,
        partial: Partial,
    ) -> Result<(), (Option<Partial>, Failure)> {
        let mut partial = partial;
        let mut broken = None;
        if !partial.is_whole() {
            let asking = remote.blob(partial.blob(), partial.length());
            let content = match self.unless_given_up(asking).await.and_then(|got| got) {
                Ok(content) => content,
                Err(failure) => return Err((Some(partial), failure)),
            };
            if content.offset != partial.length()
                && let Err(error) = partial.restart()
            {
                return Err((Some(partial), Failure::Unusable(error)));
            }
            let mut response = content.response;
            let mut pace = Watch::new(remote.pace());
            let is_counted = response.content_length().is_some();
            loop {
                let gathering = gather(&mut response, &mut pace);
                let (gathered, ended) = match self.unless_given_up(gathering).await {
                    Ok(gathered) => gathered,
                    Err(failure) => return Err((Some(partial), failure)),
                };
                partial = self.write(partial, gathered).await?;
                match ended {
                    Ok(false) => {}
                    Ok(true) if !is_counted && !partial.is_whole() => {
                        // Nothing tells an end from a breaking off.
                        let message = format!("{} broke off", remote.endpoint().shown());
                        broken = Some(Failure::Broken(message.into()));
                        break;
                    }
                    Ok(true) => break,
                    Err(failure) => {
                        broken = Some(failure);
                        break;
                    }
                }
            }
        }
        match broken {
            Some(failure) if !partial.is_whole() => Err((Some(partial), failure)),
            _ => self.finish(partial).await,
        }
    }

    async fn unless_given_up<T>(&self, network: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.given_up.cancelled() => Err(given_up()),
            got = network => Ok(got),
        }
    }

    async fn write(
        &self,
        mut partial: Partial,
        gathered: Vec<u8>,
    ) -> Result<Partial, (Option<Partial>, Failure)> {
        let what = self.what.clone();
        let (partial, written) = on_thread(move || {
            let written = partial.append(&gathered, &what);
            (partial, written)
        })
        .await?;
        self.done.store(partial.length(), Ordering::Relaxed);
        match written {
            Ok(()) => Ok(partial),
            Err(error) => Err(self.damaged(partial, error)),
        }
    }

    async fn finish(&self, mut partial: Partial) -> Result<(), (Option<Partial>, Failure)> {
        let what = self.what.clone();
        let (partial, finished) = on_thread(move || {
            let finished = partial.finish(&what);
            (partial, finished)
        })
        .await?;
        finished.map_err(|error| self.damaged(partial, error))
    }

    /// Nothing of what turned out to be wrong is kept. Where its beginning was an earlier process's, that may be at
    /// fault: then it is worth another try.
    fn damaged(&self, mut partial: Partial, error: ImageError) -> (Option<Partial>, Failure) {
        let was_resumed = partial.was_resumed();
        self.done.store(0, Ordering::Relaxed);
        if let Err(error) = partial.restart() {
            return (Some(partial), Failure::Unusable(error));
        }
        let is_corrupt = error.kind() == crate::ImageErrorKind::Corrupt;
        match was_resumed && is_corrupt {
            true => (Some(partial), Failure::Broken(error.to_string().into())),
            false => (Some(partial), Failure::Unusable(error)),
        }
    }
}

fn given_up() -> Failure {
    Failure::Broken("the image was given up".into())
}

/// How much came in the time that counts.
struct Watch {
    pace: Pace,
    until: Instant,
    came: u64,
}

impl Watch {
    fn new(pace: Pace) -> Watch {
        Watch {
            pace,
            until: Instant::now() + pace.window,
            came: 0,
        }
    }

    /// What comes next.
    async fn chunk(&mut self, response: &mut reqwest::Response) -> Result<Option<Bytes>, Failure> {
        let host = response.url().host_str().unwrap_or_default().to_owned();
        loop {
            match tokio::time::timeout_at(self.until, response.chunk()).await {
                Ok(Ok(chunk)) => {
                    self.came += chunk.as_ref().map_or(0, Bytes::len) as u64;
                    return Ok(chunk);
                }
                Ok(Err(error)) => {
                    let message = format!("{host} broke off in the middle: {}", innermost(&error));
                    return Err(Failure::Broken(Reason::because(message, error)));
                }
                Err(_) if self.came < self.pace.bytes => {
                    return Err(Failure::Slow(
                        format!(
                            "{host} has sent {} bytes in {:?}, and less than {} are not waited for",
                            self.came, self.pace.window, self.pace.bytes
                        )
                        .into(),
                    ));
                }
                Err(_) => *self = Watch::new(self.pace),
            }
        }
    }
}

/// Takes what comes, to a size worth writing; tells whether that was the end.
async fn gather(
    response: &mut reqwest::Response,
    pace: &mut Watch,
) -> (Vec<u8>, Result<bool, Failure>) {
    let mut gathered = Vec::with_capacity(WRITE_BYTES + 64 * 1024);
    while gathered.len() < WRITE_BYTES {
        match pace.chunk(response).await {
            Ok(Some(chunk)) => gathered.extend_from_slice(&chunk),
            Ok(None) => return (gathered, Ok(true)),
            Err(failure) => return (gathered, Err(failure)),
        }
    }
    (gathered, Ok(false))
}

/// Whether another registry could not help either.
fn is_this_machines(failure: &Failure) -> bool {
    use crate::ImageErrorKind::{Internal, ResourceExhausted};
    matches!(failure, Failure::Unusable(error) if matches!(error.kind(), Internal | ResourceExhausted))
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, (Option<Partial>, Failure)> {
    blocking(move || Ok(work()))
        .await
        .map_err(|failure| (None, failure))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, Failure> {
    crate::store::blocking(work)
        .await
        .map_err(Failure::Unusable)
}
