//! Connections into a sandbox.

use std::future::Future;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Socket;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use blink_wire::{Address, FrameType, Request};
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::UnixStream;

use crate::error::{Error, ErrorKind, Result};
use crate::link::{Channel, Link, Reading, Stream};

/// What is read at once of either side that is carried.
const COPY_BYTES: usize = 64 << 10;

/// Bytes that one call of `poll_write` takes.
const WRITE_BYTES: usize = 64 << 10;

type Sending = Pin<Box<dyn Future<Output = Result<bool>> + Send + Sync>>;

/// A connection to a port or socket inside a sandbox: a byte stream in both directions. Shutting down the writing side
/// ends it for the peer; dropping it closes both. Where the peer takes no more, writing fails with `BrokenPipe`, but
/// not at once: what was written before is lost, as with any socket.
pub struct Connection {
    reading: Reading,
    stream: Stream,
    sending: Option<Sending>,
    ended: bool,
}

impl Connection {
    pub(crate) async fn open(link: &Link, address: Address) -> Result<Connection> {
        let stream = link.open(&Request::Connect(address)).await?;
        stream.opened().await?;
        Ok(Connection {
            reading: Reading::new(stream.clone(), Channel::Data),
            stream,
            sending: None,
            ended: false,
        })
    }

    /// Makes a socket of it, for whoever has no use for futures: a stream socket of this process, which blocks and is
    /// closed by `exec`. A task carries what goes through it.
    ///
    /// It behaves as a connection does: what was written before it is closed arrives, shutting down its writing side ends
    /// it for the peer alone, and where the peer takes no more, writing fails with `BrokenPipe`, but not at once. When the
    /// sandbox ends, it is at its end.
    ///
    /// # Errors
    /// `ResourceExhausted` if there are no more descriptors.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(sandbox: blink_core::Sandbox) -> blink_core::Result<()> {
    /// use std::io::{Read, Write};
    /// let mut socket = sandbox.connect_tcp("localhost", 8000).await?.into_socket()?;
    /// std::thread::spawn(move || {
    ///     socket.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    ///     std::io::copy(&mut socket, &mut std::io::stdout())
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_socket(self) -> Result<Socket> {
        let failed = |error: std::io::Error| {
            let message = format!("no socket could be made for the connection: {error}");
            Error::new(ErrorKind::ResourceExhausted, message)
        };
        let (socket, carried) = Socket::pair().map_err(failed)?;
        carried.set_nonblocking(true).map_err(failed)?;
        let carried = UnixStream::from_std(carried).map_err(failed)?;
        tokio::spawn(self.carry(carried));
        Ok(socket)
    }

    async fn carry(self, mut socket: UnixStream) {
        let end = socket.as_fd().try_clone_to_owned();
        let (from, to) = socket.split();
        let all_sent = || {
            let end = end?;
            // Nobody is there to read what the guest may still send.
            if is_closed(&end)? {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            // Whoever goes on writing is told.
            Ok(rustix::net::shutdown(&end, Shutdown::Read)?)
        };
        if let Err(error) = self.exchange(from, to, all_sent).await {
            tracing::debug!(%error, "a connection was closed");
        }
        if let Err(error) = socket.into_std().and_then(close) {
            tracing::debug!(%error, "a connection's socket was not closed in order");
        }
    }

    /// Carries both directions to their ends; the end of either is passed on by itself. Says when nothing more is carried to
    /// the guest.
    pub(crate) async fn exchange(
        self,
        from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        all_sent: impl FnOnce() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let (from_guest, mut to_guest) = tokio::io::split(self);
        let out = async {
            let mut from_guest = BufReader::with_capacity(COPY_BYTES, from_guest);
            tokio::io::copy_buf(&mut from_guest, &mut to).await?;
            to.shutdown().await
        };
        let sent = async {
            send(from, &mut to_guest).await?;
            all_sent()
        };
        tokio::try_join!(sent, out).map(drop)
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Ok(()));
        };
        let sent = ready!(sending.as_mut().poll(context));
        self.sending = None;
        let broken = |error| std::io::Error::new(std::io::ErrorKind::BrokenPipe, error);
        Poll::Ready(sent.map(drop).map_err(broken))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.reading).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        ready!(self.poll_sent(context))?;
        if self.ended {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let taken = Bytes::copy_from_slice(&bytes[..bytes.len().min(WRITE_BYTES)]);
        let (count, stream) = (taken.len(), self.stream.clone());
        self.sending = Some(Box::pin(async move {
            stream.send(FrameType::STREAM_DATA, taken).await
        }));
        match self.poll_sent(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.poll_sent(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        ready!(self.poll_sent(context))?;
        if !self.ended {
            self.ended = true;
            let stream = self.stream.clone();
            self.sending = Some(Box::pin(async move {
                stream.send_end(FrameType::STREAM_DATA, Bytes::new()).await;
                Ok(true)
            }));
        }
        self.poll_sent(context)
    }
}

/// Carries what a client sends. That the guest takes no more of it is no failure: its answer may still be under way.
async fn send(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        let taken = match count {
            0 => to.shutdown().await,
            _ => to.write_all(&buffer[..count]).await,
        };
        if count == 0 || taken.is_err() {
            return Ok(());
        }
    }
}

/// Closes a socket in order: with something unread in it, it would be a reset for the other end, also for its reading.
fn close(mut socket: Socket) -> std::io::Result<()> {
    socket.shutdown(std::net::Shutdown::Both)?;
    std::io::copy(&mut socket, &mut std::io::sink()).map(drop)
}

/// Whether the other end of a socket is closed, and not only shut down for writing.
fn is_closed(socket: &impl AsFd) -> std::io::Result<bool> {
    let mut looked = [PollFd::new(socket, PollFlags::empty())];
    poll(&mut looked, Some(&Timespec::default()))?;
    Ok(looked[0].revents().contains(PollFlags::HUP))
}
