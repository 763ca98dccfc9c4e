//! The way from a machine's agent to this process: a stream socket of the hypervisor's, which the agent dials.
//!
//! The hypervisor connects a port of the machine to a socket in the engine's folder for it. The engine uses that pair
//! while it boots, to hear that the machine is ready; from then on it is Blink's. Any program in the machine can dial the
//! port, so that who dials has to show the secret that only this process and the agent know.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};

/// The port that the engine gives machines to say that they are ready.
pub(super) const PORT: u32 = 2696;

const SOCKET: &str = "ready.sock";

const SECRET_BYTES: usize = 16;

/// What each side says once it believes the other.
const AGREED: &[u8] = b"+";

/// Callers that have not shown the secret yet, at once and each for so long: more are programs of the machine at play.
const CALLERS_LIMIT: usize = 16;
const CALLER_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn new_secret() -> Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(
        |error| {
            Error::new(
                ErrorKind::Internal,
                format!("the kernel gave no random bytes: {error}"),
            )
        },
    )?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Takes the agent's call.
pub(super) async fn accept(sockets: &Path, secret: &str) -> Result<UnixStream> {
    let failed =
        |error: std::io::Error| Error::io("the sandbox's link could not be opened", &error);
    let listener = listen(sockets).map_err(failed)?;
    let mut callers = JoinSet::new();
    let agent = loop {
        tokio::select! {
            Some(agent) = callers.join_next() => {
                if let Ok(Some(agent)) = agent {
                    break agent;
                }
            }
            caller = listener.accept() => {
                let (caller, _) = caller.map_err(failed)?;
                if callers.len() < CALLERS_LIMIT {
                    callers.spawn(believed(caller, secret.to_owned()));
                }
            }
        }
    };
    let _ = fs::remove_file(sockets.join(SOCKET));
    Ok(agent)
}

/// A path of any length works: the socket is bound through its folder's descriptor.
fn listen(sockets: &Path) -> std::io::Result<UnixListener> {
    let path = sockets.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = fs::File::open(sockets)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?;
    // The hypervisor's process is another user, where Blink is root; the folders above are closed to all others.
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666))?;
    Ok(listener)
}

/// The caller, if it shows the secret in time.
async fn believed(mut caller: UnixStream, secret: String) -> Option<UnixStream> {
    let greeting = async {
        let mut shown = vec![0; secret.len() + 1];
        caller.read_exact(&mut shown).await.ok()?;
        if !is_same(&shown, format!("{secret}\n").as_bytes()) {
            return None;
        }
        caller.write_all(AGREED).await.ok()?;
        let mut answer = [0; AGREED.len()];
        caller.read_exact(&mut answer).await.ok()?;
        (answer == AGREED).then_some(())
    };
    tokio::time::timeout(CALLER_PATIENCE, greeting)
        .await
        .ok()??;
    Some(caller)
}

/// Takes the same time wherever they differ.
fn is_same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .fold(0, |different, (left, right)| different | (left ^ right))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn dial(sockets: &Path) -> UnixStream {
        loop {
            match UnixStream::connect(sockets.join(SOCKET)).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    #[tokio::test]
    async fn only_who_knows_the_secret_becomes_the_link() {
        let sockets = tempfile::tempdir().unwrap();
        let secret = new_secret().unwrap();
        assert_ne!(secret, new_secret().unwrap());
        let (path, known) = (sockets.path().to_owned(), secret.clone());
        let accepting = tokio::spawn(async move { accept(&path, &known).await });

        // One that says nothing, one that guesses, and one that goes away do not keep the agent out.
        let silent = dial(sockets.path()).await;
        let mut guessing = dial(sockets.path()).await;
        guessing
            .write_all(format!("{}\n", "0".repeat(secret.len())).as_bytes())
            .await
            .unwrap();
        drop(dial(sockets.path()).await);
        assert_eq!(
            guessing.read(&mut [0]).await.unwrap(),
            0,
            "a guess is answered with the end"
        );

        let mut agent = dial(sockets.path()).await;
        agent
            .write_all(format!("{secret}\n").as_bytes())
            .await
            .unwrap();
        let mut answer = [0];
        agent.read_exact(&mut answer).await.unwrap();
        agent.write_all(AGREED).await.unwrap();
        agent.write_all(b"hello").await.unwrap();
        let mut link = accepting.await.unwrap().unwrap();
        let mut hello = [0; 5];
        link.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        assert!(
            !sockets.path().join(SOCKET).exists(),
            "nobody else is let in"
        );
        drop(silent);
    }
}
