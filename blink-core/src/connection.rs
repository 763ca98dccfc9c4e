//! Connections into a sandbox.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use blink_wire::{Address, FrameType, Request};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::Result;
use crate::link::{Channel, Link, Reading, Stream};

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
        let stream = link.open(&Request::Connect(address))?;
        stream.opened().await?;
        Ok(Connection {
            reading: Reading::new(stream.clone(), Channel::Data),
            stream,
            sending: None,
            ended: false,
        })
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
