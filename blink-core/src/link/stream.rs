//! One request and its stream, as its caller sees it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use blink_wire::{
    ErrorBody, ErrorKind, ExitReport, FrameType, Message, Response, Trailer, WindowUpdate,
};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

use super::Link;
use super::inbox::{Inbox, Taken};
use super::turns::Place;
use crate::error::{Error, Result};

/// Bodies of bulk frames: what a pipe or socket takes at once.
pub(crate) const BULK_BODY: usize = 128 << 10;

/// One of a request's channels from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// A file's or a connection's bytes.
    Data,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    fn index(self) -> usize {
        usize::from(self == Channel::Stderr)
    }

    fn frame_type(self) -> FrameType {
        match self {
            Channel::Data => FrameType::STREAM_DATA,
            Channel::Stdout => FrameType::STDOUT,
            Channel::Stderr => FrameType::STDERR,
        }
    }
}

/// A request. Dropping the last handle of one that is not over gives it up: the agent is told.
#[derive(Clone)]
pub(crate) struct Stream {
    guard: Arc<Guard>,
}

struct Guard {
    link: Link,
    inbox: Arc<Inbox>,
    place: Option<Place>,
    answered: std::sync::atomic::AtomicBool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let id = self.inbox.id;
        self.link.forget(id);
        let over = self.inbox.is_over() || self.answered.load(std::sync::atomic::Ordering::Relaxed);
        if !over {
            let error = ErrorBody::new(ErrorKind::Internal, "the caller has given the request up");
            // Behind what was sent on it: giving up a process is no reason to take back its input.
            let leaving = self
                .place
                .take()
                .map(|place| (place, self.inbox.take_length()));
            self.link
                .outbox()
                .behind_bulk(FrameType::ERROR, id, &error.to_body(), leaving);
        }
    }
}

impl Stream {
    pub(crate) fn new(link: Link, inbox: Arc<Inbox>, place: Place) -> Stream {
        Stream {
            guard: Arc::new(Guard {
                link,
                inbox,
                place: Some(place),
                answered: false.into(),
            }),
        }
    }

    fn inbox(&self) -> &Inbox {
        &self.guard.inbox
    }

    /// Waits for the answer that ends the request.
    pub(crate) async fn response(&self) -> Result<Response> {
        let response = self.inbox().response().await;
        self.guard
            .answered
            .store(true, std::sync::atomic::Ordering::Relaxed);
        response
    }

    /// Waits for the answer that begins the stream.
    pub(crate) async fn opened(&self) -> Result<Response> {
        self.inbox().response().await
    }

    /// Waits for the process's end.
    pub(crate) async fn exit(&self) -> Result<ExitReport> {
        self.inbox().exit().await
    }

    /// The next chunk of a channel; `None` at its end.
    pub(crate) fn poll_chunk(
        &self,
        channel: Channel,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        Poll::Ready(
            match ready!(self.inbox().poll_take(channel.index(), context))? {
                Taken::Chunk(chunk, credit) => {
                    self.give_credit(channel, credit);
                    Ok(Some(chunk))
                }
                Taken::End => Ok(None),
            },
        )
    }

    pub(crate) async fn chunk(&self, channel: Channel) -> Result<Option<Bytes>> {
        std::future::poll_fn(|context| self.poll_chunk(channel, context)).await
    }

    /// Nobody will read a channel any more; what comes is thrown away.
    pub(crate) fn discard(&self, channel: Channel) {
        let credit = self.inbox().discard(channel.index());
        self.give_credit(channel, credit);
    }

    fn give_credit(&self, channel: Channel, credit: u32) {
        if credit > 0 {
            let update = WindowUpdate {
                channel: channel.frame_type(),
                credit,
            };
            self.guard.link.outbox().control(
                FrameType::WINDOW_UPDATE,
                self.inbox().id,
                false,
                &update.encode(),
                None,
            );
        }
    }

    /// Sends bytes within the guest's credit; `false` where it wants no more.
    pub(crate) async fn send(&self, frame_type: FrameType, mut bytes: Bytes) -> Result<bool> {
        while bytes.has_remaining() {
            let wanted = bytes.len().min(BULK_BODY);
            let Some(granted) = self.inbox().take_send_window(wanted).await? else {
                return Ok(false);
            };
            self.guard
                .link
                .outbox()
                .bulk(frame_type, self.inbox().id, false, bytes.split_to(granted))
                .await;
        }
        // Whatever the caller does next comes behind these bytes, also another attachment to the same process.
        self.guard.link.outbox().drained().await;
        Ok(true)
    }

    /// Ends the direction to the guest, behind everything that was sent.
    pub(crate) async fn send_end(&self, frame_type: FrameType, body: Bytes) {
        self.guard
            .link
            .outbox()
            .bulk(frame_type, self.inbox().id, true, body)
            .await;
    }

    /// Sends a control frame of this request.
    pub(crate) fn control(&self, frame_type: FrameType, body: &[u8]) {
        self.guard
            .link
            .outbox()
            .control(frame_type, self.inbox().id, false, body, None);
    }

    /// The trailer that ended the data.
    pub(crate) fn trailer(&self) -> Result<Trailer> {
        let body = self.inbox().trailer().unwrap_or_default();
        Trailer::from_body(&body)
            .map_err(|error| Error::new(crate::ErrorKind::Protocol, error.to_string()))
    }
}

/// A channel as a byte stream.
pub(crate) struct Reading {
    pub(crate) stream: Stream,
    pub(crate) channel: Channel,
    current: Bytes,
}

impl Reading {
    pub(crate) fn new(stream: Stream, channel: Channel) -> Reading {
        Reading {
            stream,
            channel,
            current: Bytes::new(),
        }
    }

    /// The next chunk, as it came; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if !self.current.is_empty() {
            return Ok(Some(std::mem::take(&mut self.current)));
        }
        self.stream.chunk(self.channel).await
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.current.is_empty() {
            let chunk = ready!(self.stream.poll_chunk(self.channel, context))
                .map_err(std::io::Error::other)?;
            self.current = chunk.unwrap_or_default();
        }
        let count = buffer.remaining().min(self.current.len());
        buffer.put_slice(&self.current.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stream.discard(self.channel);
    }
}
