//! What waits to be sent.

use std::collections::VecDeque;
use std::sync::Mutex;

use blink_host::lock;
use blink_wire::{FrameType, HEADER_LEN, Header};
use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::turns::{Length, Place};

/// Bulk frames that wait at once, over all streams; further senders wait for their turn, which is first come, first
/// served. Few, so that memory stays bounded and a new stream is soon served; enough to keep the connection busy.
const BULK_FRAMES: usize = 4;

/// What a request that was given up holds until the agent is told: the next one is sent after that, so that the agent
/// never counts more than there are.
pub(crate) type Leaving = (Place, Option<Length>);

/// Frames to send.
pub(crate) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    taken: Notify,
    slots: std::sync::Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    control: BytesMut,
    /// Of the requests whose last word is among the control frames.
    leaving: Vec<Leaving>,
    bulk: VecDeque<Bulk>,
    /// Bulk frames that were ever queued, and that the writer has taken.
    queued: u64,
    taken: u64,
    closed: bool,
}

/// One bulk frame.
pub(crate) struct Bulk {
    pub(crate) header: [u8; HEADER_LEN],
    pub(crate) body: Bytes,
    _slot: Option<OwnedSemaphorePermit>,
    _leaving: Option<Leaving>,
}

/// What to send next.
pub(crate) enum Next {
    Control(BytesMut),
    Bulk(Bulk),
}

impl Outbox {
    pub(crate) fn new() -> Outbox {
        Outbox {
            state: Mutex::default(),
            filled: Notify::new(),
            taken: Notify::new(),
            slots: std::sync::Arc::new(Semaphore::new(BULK_FRAMES)),
        }
    }

    /// Queues a control frame: it overtakes all bulk frames.
    pub(crate) fn control(
        &self,
        frame_type: FrameType,
        request_id: u64,
        end: bool,
        body: &[u8],
        leaving: Option<Leaving>,
    ) {
        let header = header(frame_type, request_id, end, body.len());
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        state.control.extend_from_slice(&header);
        state.control.extend_from_slice(body);
        state.leaving.extend(leaving);
        drop(state);
        self.filled.notify_one();
    }

    /// Queues a frame that may not overtake the bulk frames that wait: they are few.
    pub(crate) fn behind_bulk(
        &self,
        frame_type: FrameType,
        request_id: u64,
        body: &[u8],
        leaving: Option<Leaving>,
    ) {
        let mut state = lock(&self.state);
        if state.bulk.is_empty() || state.closed {
            drop(state);
            return self.control(frame_type, request_id, false, body, leaving);
        }
        state.queued += 1;
        state.bulk.push_back(Bulk {
            header: header(frame_type, request_id, false, body.len()),
            body: Bytes::copy_from_slice(body),
            _slot: None,
            _leaving: leaving,
        });
        drop(state);
        self.filled.notify_one();
    }

    /// Bytes of control frames that wait.
    pub(crate) fn backlog(&self) -> usize {
        lock(&self.state).control.len()
    }

    /// Queues a bulk frame, when its turn comes.
    pub(crate) async fn bulk(
        &self,
        frame_type: FrameType,
        request_id: u64,
        end: bool,
        body: Bytes,
    ) {
        // Closed only with the link, whose streams have all failed then.
        let Ok(slot) = self.slots.clone().acquire_owned().await else {
            return;
        };
        let header = header(frame_type, request_id, end, body.len());
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        state.queued += 1;
        state.bulk.push_back(Bulk {
            header,
            body,
            _slot: Some(slot),
            _leaving: None,
        });
        drop(state);
        self.filled.notify_one();
    }

    /// Waits until the writer has taken the bulk frames that are queued now: what is queued after that, a control frame
    /// too, is sent behind them.
    pub(crate) async fn drained(&self) {
        let wanted = lock(&self.state).queued;
        loop {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            taken.as_mut().enable();
            {
                let state = lock(&self.state);
                if state.taken >= wanted || state.closed {
                    return;
                }
            }
            taken.await;
        }
    }

    /// Waits for something to send; `None` once closed.
    pub(crate) async fn next(&self) -> Option<Next> {
        loop {
            {
                let mut state = lock(&self.state);
                if !state.control.is_empty() {
                    state.leaving.clear();
                    return Some(Next::Control(state.control.split()));
                }
                if let Some(bulk) = state.bulk.pop_front() {
                    state.taken += 1;
                    drop(state);
                    self.taken.notify_waiters();
                    return Some(Next::Bulk(bulk));
                }
                if state.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Drops what waits; the writer ends.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.control = BytesMut::new();
        state.bulk.clear();
        state.leaving.clear();
        drop(state);
        self.slots.close();
        self.filled.notify_one();
        self.taken.notify_waiters();
    }
}

fn header(frame_type: FrameType, request_id: u64, end: bool, length: usize) -> [u8; HEADER_LEN] {
    let body_len = u32::try_from(length).unwrap_or(u32::MAX);
    Header {
        frame_type,
        end,
        body_len,
        request_id,
    }
    .encode()
}
