//! Which process has the engine: BoxLite serves one process for each of its homes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, ErrorKind, Result};

const LOCK: &str = "owner.lock";

/// How long another process is waited for: commands of scripts that follow each other overlap for less.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// This process has the engine while this lives.
#[derive(Debug)]
pub(super) struct Owner {
    lock: File,
}

impl Owner {
    /// Becomes the owner, once whoever is has let go.
    pub(super) async fn become_in(home: &Path, patience: Duration) -> Result<Owner> {
        let failed =
            |error: std::io::Error| Error::io("the micro-VMs' folder cannot be locked", &error);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(home.join(LOCK))
            .map_err(failed)?;
        let deadline = Instant::now() + patience;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() >= deadline {
                return Err(busy(&mut lock, patience));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(describe_this_process().as_bytes()));
        written.map_err(failed)?;
        Ok(Owner { lock })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Said, not left to the closing: a child that is just being forked has the same open file for a moment longer.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

fn busy(lock: &mut File, patience: Duration) -> Error {
    let mut owner = String::new();
    let _ = lock
        .rewind()
        .and_then(|()| lock.read_to_string(&mut owner).map(drop));
    let owner = match owner.trim() {
        "" => "another process",
        owner => owner,
    };
    let message = format!(
        "the micro-VMs of this home belong to {owner}, and did for all of {patience:.0?}; one process at a time can have \
         them: wait for it, or use another home (BLINK_HOME)"
    );
    Error::new(ErrorKind::Busy, message)
}

/// The number and the command, for people who wait.
fn describe_this_process() -> String {
    const LONGEST: usize = 80;
    let command: String = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|letter| !letter.is_control())
        .take(LONGEST)
        .collect();
    format!("pid {} ({command})", std::process::id())
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
            error
                .message()
                .contains(&format!("pid {} (", std::process::id())),
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
