//! Bytes between the program and this command's own standard streams.
//!
//! Standard streams are blocking, and may be anything: each is served by a thread of its own, which holds a few chunks
//! at most. The thread that reads ends with this process: nothing can wake it.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use blink_core::{ProcessOutput, ProcessStdin};
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};

use crate::failure::Failure;

/// Chunks under way between a thread and the link: enough to keep both busy.
const CHUNKS: usize = 4;

/// What is read at once.
const READ_BYTES: usize = 256 << 10;

/// Why output did not get out.
pub(crate) enum Broken {
    /// Whoever read it reads no more.
    Pipe,
    /// It could not be written, or did not come.
    Failed(Failure),
}

impl From<blink_core::Error> for Broken {
    fn from(error: blink_core::Error) -> Broken {
        Broken::Failed(error.into())
    }
}

/// Carries a stream of the program to one of this command's, to its end.
pub(crate) async fn pass_on(
    mut output: ProcessOutput,
    to: BorrowedFd<'static>,
    name: &'static str,
) -> Result<(), Broken> {
    let (sender, mut chunks) = mpsc::channel::<Bytes>(CHUNKS);
    let (report, written) = oneshot::channel();
    thread::spawn(move || {
        let result = (|| {
            while let Some(chunk) = chunks.blocking_recv() {
                write_all(to, &chunk)?;
            }
            Ok(())
        })();
        // Before the report, so that the sender sees it.
        drop(chunks);
        let _ = report.send(result);
    });
    while let Some(chunk) = output.chunk().await? {
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Errno::PIPE)) => Err(Broken::Pipe),
        Ok(Err(error)) => Err(Broken::Failed(Failure::internal(format!(
            "{name} could not be written: {}",
            io::Error::from(error)
        )))),
        Err(_) => Err(Broken::Failed(Failure::internal(format!(
            "what writes {name} has ended"
        )))),
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Somebody who shares it has made it non-blocking.
            Err(Errno::AGAIN) => wait_for(to, PollFlags::OUT)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for(fd: BorrowedFd<'_>, what: PollFlags) -> Result<(), Errno> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Captures a stream of the program, at most `limit_bytes` of it; returns it with its true length.
pub(crate) async fn capture(
    mut output: ProcessOutput,
    limit_bytes: usize,
) -> Result<(Vec<u8>, u64), Broken> {
    let mut captured = Vec::new();
    let mut length = 0;
    while let Some(chunk) = output.chunk().await? {
        length += chunk.len() as u64;
        let room = limit_bytes - captured.len();
        captured.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    Ok((captured, length))
}

/// Carries this command's standard input to the program, until one of them has enough. Says whether it was the user, by
/// `leave_key`: then the program's input stays open.
pub(crate) async fn feed(stdin: &mut ProcessStdin, leave_key: Option<u8>) -> bool {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(CHUNKS);
    thread::spawn(move || read_all(&sender));
    while let Some(mut chunk) = chunks.recv().await {
        let leaves = leave_key.and_then(|key| chunk.iter().position(|byte| *byte == key));
        chunk.truncate(leaves.unwrap_or(chunk.len()));
        // The program reads no more, or is gone: its own end tells.
        let failed = stdin.write_all(&chunk).await.is_err();
        if failed || leaves.is_some() {
            return leaves.is_some();
        }
    }
    let _ = stdin.shutdown().await;
    false
}

fn read_all(sender: &mpsc::Sender<Vec<u8>>) {
    let from = rustix::stdio::stdin();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if wait_for(from, PollFlags::IN).is_ok() => {}
            // A terminal that has hung up.
            Err(Errno::IO) => return,
            Err(error) => {
                crate::failure::warn(format_args!(
                    "standard input could not be read: {}",
                    io::Error::from(error)
                ));
                return;
            }
        }
    }
}
