//! A pool is kept for other processes of the home.

use std::sync::Arc;
use std::time::Duration;

use super::claim::Claim;
use super::keeper::Keeper;
use super::place::{Answer, Ask, Kept, Lease, PATIENCE};
use crate::error::{Error, Result};

/// How long a listener rests that cannot accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Keeps a pool for others, in the background.
pub(super) fn keep(kept: Kept, keeper: Arc<Keeper>) {
    tokio::spawn(async move { serve(&kept, keeper).await });
}

/// Answers others until the pool is closed.
async fn serve(kept: &Kept, keeper: Arc<Keeper>) {
    loop {
        let accepted = tokio::select! {
            () = keeper.closing() => return,
            accepted = kept.accept() => accepted,
        };
        let Ok(mut lease) = accepted else {
            // Descriptors are short.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let keeper = keeper.clone();
        tokio::spawn(async move {
            let Ok(Ok(ask)) = tokio::time::timeout(PATIENCE, lease.hear()).await else {
                return;
            };
            if let Err(error) = answer(&keeper, ask, &mut lease).await {
                let failed = Answer::Failed {
                    kind: error.kind().code(),
                    message: error.message().to_owned(),
                    retryable: error.is_retryable(),
                };
                let _ = lease.say(&failed).await;
            }
        });
    }
}

async fn answer(keeper: &Arc<Keeper>, ask: Ask, lease: &mut Lease) -> Result<()> {
    let gone = |error| Error::io("the claimant is gone", &error);
    match ask {
        Ask::Claim {
            asked,
            timeout_ms,
            session,
        } => {
            let claim = Claim::of(keeper, *asked, Duration::from_millis(timeout_ms));
            match session {
                Some(name) => {
                    let session = claim.into_session(name).await?;
                    lease.say(&Answer::Session).await.map_err(gone)?;
                    // Until the other has a link of its own, or is gone.
                    lease.ended().await;
                    drop(session);
                }
                None => {
                    // A claimant that dies while it waits gives up its place in the queue.
                    let (sandbox, spec) = tokio::select! {
                        claimed = claim.claim_for_another(keeper) => claimed?,
                        () = lease.ended() => return Ok(()),
                    };
                    let id = sandbox.id().to_owned();
                    let spec = Box::new(spec);
                    lease
                        .say(&Answer::Sandbox { id, spec })
                        .await
                        .map_err(gone)?;
                    lease.ended().await;
                    // Removes it, whether the claimant let go of it or died.
                    drop(sandbox);
                }
            }
        }
        Ask::Stats => {
            let stats = Answer::Stats(Box::new(keeper.stats()));
            lease.say(&stats).await.map_err(gone)?;
        }
        Ask::Drain { patience_ms } => {
            let _awaited = keeper.awaited();
            keeper.drain(Duration::from_millis(patience_ms)).await?;
            lease.say(&Answer::Drained).await.map_err(gone)?;
        }
    }
    Ok(())
}
