//! Which process has the engine: BoxLite serves one process for each of its homes.

use std::path::Path;
use std::time::Duration;

use blink_host::Held;
use blink_host::file_lock::{self, FileLock, NotLocked, Share};

use crate::blocking::on_thread;
use crate::error::{Error, ErrorKind, Result};

const LOCK: &str = "owner.lock";

/// How long another process is waited for: commands of scripts that follow each other overlap for less.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// This process has the engine while this lives.
#[derive(Debug)]
pub(super) struct Owner {
    _lock: FileLock,
}

impl Owner {
    /// Becomes the owner, once whoever is has let go.
    pub(super) async fn become_in(home: &Path, patience: Duration) -> Result<Owner> {
        let failed =
            |error: std::io::Error| Error::io("the micro-VMs' folder cannot be locked", &error);
        let path = home.join(LOCK);
        on_thread(move || {
            let lock = file_lock::open(&path).map_err(failed)?;
            let mut lock =
                FileLock::take(lock, Share::Alone, patience).map_err(|error| match error {
                    NotLocked::Held(held) => busy(held),
                    NotLocked::Failed(error) => failed(error),
                })?;
            lock.sign();
            Ok(Owner { _lock: lock })
        })
        .await
    }
}

fn busy(Held { holder, patience }: Held) -> Error {
    let message = format!(
        "the micro-VMs of this home belong to {holder}, and did for all of {patience:.0?}; only one process at a time can use \
         them: wait for it, or use another home (BLINK_HOME)"
    );
    Error::new(ErrorKind::Busy, message).held_by([holder])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_second_waits_and_is_told_who_has_it() {
        let home = tempfile::tempdir().unwrap();
        let first = Owner::become_in(home.path(), Duration::ZERO).await.unwrap();
        let error = Owner::become_in(home.path(), Duration::from_millis(60))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(
            error.message().contains("belong to this process"),
            "{error}"
        );

        let second = Owner::become_in(home.path(), Duration::from_secs(60));
        let (second, ()) = tokio::join!(second, async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(first);
        });
        second.unwrap();
    }
}
