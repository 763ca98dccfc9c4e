//! What has arrived for one request and was not taken yet.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use blink_host::lock;
use blink_wire::{ExitReport, INITIAL_WINDOW, Response};
use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::deadline::{Kind, Standing};
use super::turns::Length;
use crate::error::{Error, Result};

/// Bodies below this are joined, so that what a guest sends in single bytes costs no more memory than its window.
const JOIN_BELOW: usize = 4096;

/// Credit is given back in steps of this size, so that it does not cost a frame for each read.
const CREDIT_STEP: u32 = INITIAL_WINDOW / 4;

/// A request's channels from the guest: StreamData and Stdout are the first, Stderr the second.
pub(crate) const CHANNELS: usize = 2;

/// What one request waits for.
pub(crate) struct Inbox {
    pub(crate) id: u64,
    kind: Kind,
    /// The link's time when it was made.
    sent: u64,
    state: Mutex<State>,
    answered: Notify,
    exited: Notify,
    credited: Notify,
}

#[derive(Default)]
struct State {
    channels: [Queue; CHANNELS],
    response: Option<Result<Response>>,
    exit: Option<ExitReport>,
    /// The body of the frame that ended the first channel.
    trailer: Option<Bytes>,
    failed: Option<Error>,
    /// The link's time of the answer.
    answered: Option<u64>,
    /// What the request takes of the link until it is answered.
    length: Option<Length>,
    /// What may still be sent to the guest on this request.
    send_window: u64,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    /// Bytes that have come and for which no credit was given back.
    held: u32,
    consumed: u32,
    ended: bool,
    /// Nobody will take what comes.
    discard: bool,
    waker: Option<Waker>,
}

/// A rule that the guest has broken.
pub(crate) struct Violation(pub(crate) &'static str);

/// What a queue gives.
pub(crate) enum Taken {
    /// A chunk, and credit to give back (0: none yet).
    Chunk(Bytes, u32),
    /// The channel has ended.
    End,
}

impl Inbox {
    pub(crate) fn new(id: u64, kind: Kind, sent: u64, length: Option<Length>) -> Inbox {
        let state = State {
            send_window: u64::from(INITIAL_WINDOW),
            length,
            ..State::default()
        };
        Inbox {
            id,
            kind,
            sent,
            state: Mutex::new(state),
            answered: Notify::new(),
            exited: Notify::new(),
            credited: Notify::new(),
        }
    }

    /// Takes bytes of a channel; returns credit to give back for bytes that nobody wants.
    pub(crate) fn push(&self, channel: usize, body: Bytes, end: bool) -> Result<u32, Violation> {
        let mut state = lock(&self.state);
        let queue = &mut state.channels[channel];
        if queue.ended {
            return Err(Violation("data came after the stream's end"));
        }
        let mut credit = 0;
        if !body.is_empty() {
            let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
            queue.held = queue.held.saturating_add(length);
            if queue.held > INITIAL_WINDOW {
                return Err(Violation("more data came than the stream's window allows"));
            }
            match queue.discard {
                true => credit = queue.consume(length),
                false => queue.append(body),
            }
        }
        queue.ended |= end;
        let waker = queue.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Ok(credit)
    }

    /// Ends the first channel with the trailer of a transfer.
    pub(crate) fn push_trailer(&self, trailer: Bytes) -> Result<(), Violation> {
        {
            let mut state = lock(&self.state);
            if state.trailer.is_some() {
                return Err(Violation("a stream ended twice"));
            }
            state.trailer = Some(trailer);
        }
        self.push(0, Bytes::new(), true).map(|_| ())
    }

    pub(crate) fn trailer(&self) -> Option<Bytes> {
        lock(&self.state).trailer.clone()
    }

    /// The next chunk of a channel.
    pub(crate) fn poll_take(
        &self,
        channel: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Taken>> {
        let mut state = lock(&self.state);
        let failed = state.failed.clone();
        let queue = &mut state.channels[channel];
        if let Some(chunk) = queue.pop() {
            let credit = queue.consume(u32::try_from(chunk.len()).unwrap_or(u32::MAX));
            return Poll::Ready(Ok(Taken::Chunk(chunk, credit)));
        }
        if queue.ended {
            return Poll::Ready(Ok(Taken::End));
        }
        if let Some(error) = failed {
            return Poll::Ready(Err(error));
        }
        match &mut queue.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => queue.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Nobody will take this channel's bytes any more; returns credit to give back.
    pub(crate) fn discard(&self, channel: usize) -> u32 {
        let mut state = lock(&self.state);
        let queue = &mut state.channels[channel];
        queue.discard = true;
        queue.chunks.clear();
        queue.tail = BytesMut::new();
        let held = queue.held - queue.consumed;
        queue.consume(held)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it stands; `None` if nothing is due any more.
    pub(crate) fn standing(&self) -> Option<Standing> {
        let state = lock(&self.state);
        if self.id == 0 || state.exit.is_some() || state.failed.is_some() {
            return None;
        }
        let unread = |queue: &Queue| !queue.chunks.is_empty() || !queue.tail.is_empty();
        Some(Standing {
            kind: self.kind,
            sent: self.sent,
            answered: state.answered,
            unread: state.channels.iter().any(unread),
        })
    }

    /// Takes what a request that is given up still holds of the link.
    pub(crate) fn take_length(&self) -> Option<Length> {
        lock(&self.state).length.take()
    }

    pub(crate) fn set_response(&self, response: Result<Response>, now: u64) {
        let mut state = lock(&self.state);
        state.answered = Some(now);
        state.length = None;
        if let Err(error) = &response
            && state.failed.is_none()
        {
            state.failed = Some(error.clone());
        }
        state.response = Some(response);
        let wakers = state.wakers();
        drop(state);
        self.answered.notify_one();
        self.credited.notify_one();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits for the answer.
    pub(crate) async fn response(&self) -> Result<Response> {
        loop {
            {
                let mut state = lock(&self.state);
                if let Some(response) = state.response.take() {
                    return response;
                }
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
            }
            self.answered.notified().await;
        }
    }

    /// The process has ended, and all its output has come.
    pub(crate) fn set_exit(&self, report: ExitReport) {
        let mut state = lock(&self.state);
        state.exit = Some(report);
        for queue in &mut state.channels {
            queue.ended = true;
        }
        let wakers = state.wakers();
        drop(state);
        self.exited.notify_waiters();
        self.credited.notify_one();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits for the process's end.
    pub(crate) async fn exit(&self) -> Result<ExitReport> {
        loop {
            let exited = self.exited.notified();
            tokio::pin!(exited);
            exited.as_mut().enable();
            {
                let state = lock(&self.state);
                if let Some(report) = &state.exit {
                    return Ok(report.clone());
                }
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
            }
            exited.await;
        }
    }

    pub(crate) fn has_exited(&self) -> bool {
        lock(&self.state).exit.is_some()
    }

    /// Whether there is nothing more to come.
    pub(crate) fn is_over(&self) -> bool {
        let state = lock(&self.state);
        state.exit.is_some() || state.failed.is_some()
    }

    /// Fails everything that waits here; what has arrived can still be taken.
    pub(crate) fn fail(&self, error: Error) {
        let mut state = lock(&self.state);
        state.failed.get_or_insert(error);
        let wakers = state.wakers();
        drop(state);
        self.answered.notify_one();
        self.exited.notify_waiters();
        self.credited.notify_one();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn add_send_window(&self, credit: u32) {
        let mut state = lock(&self.state);
        state.send_window = state.send_window.saturating_add(u64::from(credit));
        drop(state);
        self.credited.notify_one();
    }

    /// Waits for credit and takes at most `wanted` of it; `None` if the guest wants no more.
    pub(crate) async fn take_send_window(&self, wanted: usize) -> Result<Option<usize>> {
        loop {
            {
                let mut state = lock(&self.state);
                if state.exit.is_some() {
                    return Ok(None);
                }
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                if state.send_window > 0 {
                    let granted = usize::try_from(state.send_window)
                        .unwrap_or(usize::MAX)
                        .min(wanted);
                    state.send_window -= granted as u64;
                    return Ok(Some(granted));
                }
            }
            self.credited.notified().await;
        }
    }
}

impl State {
    fn wakers(&mut self) -> Vec<Waker> {
        self.channels
            .iter_mut()
            .filter_map(|queue| queue.waker.take())
            .collect()
    }
}

impl Queue {
    fn append(&mut self, body: Bytes) {
        if body.len() < JOIN_BELOW {
            self.tail.extend_from_slice(&body);
        } else {
            if !self.tail.is_empty() {
                self.chunks.push_back(self.tail.split().freeze());
            }
            self.chunks.push_back(body);
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.chunks
            .pop_front()
            .or_else(|| (!self.tail.is_empty()).then(|| self.tail.split().freeze()))
    }

    fn consume(&mut self, length: u32) -> u32 {
        self.consumed = self.consumed.saturating_add(length);
        if self.consumed < CREDIT_STEP || self.ended {
            return 0;
        }
        let credit = std::mem::take(&mut self.consumed);
        self.held -= credit;
        credit
    }
}
