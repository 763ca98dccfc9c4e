//! One host's connection: frames in, frames out, and which streams it carries.
//!
//! What goes out first is what was begun; then control frames; then one bulk frame of each stream that has something
//! to send and the credit to send it, in turn. So a control frame waits for one bulk frame at most.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;

use blink_wire::{
    Decoder, ErrorBody, Frame, FrameType, Header, LINK_BODY_LIMIT, Message, REQUEST_LIMIT,
};
use bytes::{BufMut, Bytes, BytesMut};
use rustix::io::{self, Errno, IoSlice};

use crate::sources::Sources;
use crate::stream::{BULK_BODY, Stream, read_into};

/// Streams that one host may have open at once; each costs the agent some memory.
const STREAMS_LIMIT: usize = 4096;

/// Answers wait while the host does not read. Beyond this no more of its requests are read, so that a host that only
/// asks cannot fill the agent's memory.
const CONTROL_BACKLOG: usize = 1 << 20;

/// The link is over.
#[derive(Debug)]
pub(crate) struct Broken;

/// Says to who connects that there are too many links; there is always room for so little.
pub(crate) fn refuse(socket: &OwnedFd, limit: usize) {
    let message = format!(
        "{limit} programs and tasks have a link to the sandbox already; try again when one of them has ended"
    );
    let body = ErrorBody::new(blink_wire::ErrorKind::ResourceExhausted, message).to_body();
    let Ok(body_len) = u32::try_from(body.len()) else {
        return;
    };
    let header = Header {
        frame_type: FrameType::ERROR,
        end: false,
        body_len,
        request_id: 0,
    };
    let _ = rustix::io::ioctl_fionbio(socket, true);
    let _ = io::write(socket, &[&header.encode()[..], &body].concat());
}

/// One connection.
pub(crate) struct Link {
    socket: OwnedFd,
    decoder: Decoder,
    pub(crate) greeted: bool,
    pub(crate) streams: HashMap<u64, Stream>,
    /// Requests whose streams may have something to send, in turn.
    ready: VecDeque<u64>,
    is_ready: HashSet<u64>,
    /// Requests of which parts have come.
    parts: HashMap<u64, BytesMut>,
    parts_bytes: usize,
    control: Vec<u8>,
    pending: Vec<u8>,
    pending_sent: usize,
    readable: bool,
    writable: bool,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Link> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Link {
            socket,
            decoder: Decoder::new(LINK_BODY_LIMIT),
            greeted: false,
            streams: HashMap::new(),
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            parts: HashMap::new(),
            parts_bytes: 0,
            control: Vec::new(),
            pending: Vec::new(),
            pending_sent: 0,
            readable: true,
            writable: true,
        })
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn became(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Whether there is something to take now. What was read already counts: no event announces it again.
    pub(crate) fn wants_read(&self) -> bool {
        self.takes_more() && (self.readable || self.decoder.has_frame())
    }

    /// Whether answers have room. It comes back when they are sent, which `wants_flush` is about.
    fn takes_more(&self) -> bool {
        self.control.len() < CONTROL_BACKLOG
    }

    /// Remembers what a request's stream belongs to; `false` where there are too many.
    pub(crate) fn open_stream(&mut self, request: u64, stream: Stream) -> bool {
        let room = self.streams.len() < STREAMS_LIMIT && !self.streams.contains_key(&request);
        if room {
            self.streams.insert(request, stream);
        }
        room
    }

    /// Reads once, unless there are frames left of an earlier read: they come first, so that memory stays bounded.
    pub(crate) fn read(&mut self) -> Result<(), Broken> {
        if !self.readable || self.decoder.has_frame() {
            return Ok(());
        }
        self.decoder.reserve();
        let buffer = self.decoder.buffer_mut();
        match read_into(&self.socket, buffer) {
            Ok(0) => Err(Broken),
            Ok(_) => Ok(()),
            Err(Errno::AGAIN) => {
                self.readable = false;
                Ok(())
            }
            Err(_) => Err(Broken),
        }
    }

    /// The next whole frame that has arrived, while its answer has room.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, Broken> {
        if !self.takes_more() {
            return Ok(None);
        }
        match self.decoder.next_frame() {
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.send_error(
                    0,
                    &ErrorBody::new(blink_wire::ErrorKind::Protocol, error.to_string()),
                );
                Err(Broken)
            }
        }
    }

    /// Keeps a part of a request until the rest has come; `false` where it is more than a request may be.
    pub(crate) fn push_part(&mut self, request: u64, part: &[u8]) -> bool {
        self.parts_bytes += part.len();
        self.parts.entry(request).or_default().put_slice(part);
        // Empty parts take no bytes and must not take memory either.
        self.parts_bytes <= REQUEST_LIMIT && self.parts.len() <= STREAMS_LIMIT
    }

    /// The parts of a request that have come, with the rest of it.
    pub(crate) fn take_parts(&mut self, request: u64, rest: Bytes) -> Bytes {
        let Some(mut body) = self.parts.remove(&request) else {
            return rest;
        };
        self.parts_bytes -= body.len();
        body.put_slice(&rest);
        body.freeze()
    }

    /// Queues a control frame.
    pub(crate) fn send(&mut self, frame_type: FrameType, request_id: u64, end: bool, body: &[u8]) {
        let Ok(body_len) = u32::try_from(body.len()) else {
            return;
        };
        self.control.extend_from_slice(
            &Header {
                frame_type,
                end,
                body_len,
                request_id,
            }
            .encode(),
        );
        self.control.extend_from_slice(body);
    }

    pub(crate) fn respond(&mut self, request: u64, response: &blink_wire::Response) {
        let body = response.to_body();
        if body.len() > LINK_BODY_LIMIT as usize {
            let error = ErrorBody::new(
                blink_wire::ErrorKind::ResourceExhausted,
                "the answer is larger than a frame may be",
            );
            return self.fail(request, &error);
        }
        self.send(FrameType::RPC_RESPONSE, request, false, &body);
    }

    /// Answers a request with an error.
    pub(crate) fn fail(&mut self, request: u64, error: &ErrorBody) {
        self.send(FrameType::RPC_ERROR, request, false, &error.to_body());
    }

    /// Tells the host of an error that is not an answer.
    pub(crate) fn send_error(&mut self, request: u64, error: &ErrorBody) {
        self.send(FrameType::ERROR, request, false, &error.to_body());
    }

    /// The stream of a request may have something to send.
    pub(crate) fn mark_ready(&mut self, request: u64) {
        if self.is_ready.insert(request) {
            self.ready.push_back(request);
        }
    }

    /// Whether a call of `flush` could get further now.
    pub(crate) fn wants_flush(&self) -> bool {
        self.writable
            && (!self.pending.is_empty() || !self.control.is_empty() || !self.ready.is_empty())
    }

    /// Sends what is waiting: at most one bulk frame, so that others have their turn.
    pub(crate) fn flush(&mut self, sources: &mut Sources) -> Result<(), Broken> {
        if self.pending.is_empty() && !self.control.is_empty() {
            std::mem::swap(&mut self.pending, &mut self.control);
        }
        self.flush_pending()?;
        if !self.pending.is_empty() {
            return Ok(());
        }
        while let Some(request) = self.ready.pop_front() {
            self.is_ready.remove(&request);
            if self.flush_stream(request, sources)? {
                self.mark_ready(request);
                break;
            }
        }
        if self.pending.is_empty() && !self.control.is_empty() {
            std::mem::swap(&mut self.pending, &mut self.control);
            self.flush_pending()?;
        }
        Ok(())
    }

    /// Sends one frame of a stream; `false` if it has nothing to send.
    fn flush_stream(&mut self, request: u64, sources: &mut Sources) -> Result<bool, Broken> {
        let Some(&stream) = self.streams.get(&request) else {
            return Ok(false);
        };
        let Some(chunk) = sources.next_chunk(stream, BULK_BODY) else {
            return Ok(false);
        };
        let length = chunk.first.len() + chunk.second.len();
        let header = Header {
            frame_type: chunk.frame_type,
            end: chunk.end,
            body_len: u32::try_from(length).unwrap_or_default(),
            request_id: request,
        }
        .encode();
        let parts = [&header[..], chunk.first, chunk.second];
        let sent = match io::writev(&self.socket, &parts.map(IoSlice::new)) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(Errno::AGAIN) => {
                self.writable = false;
                0
            }
            Err(_) => return Err(Broken),
        };
        let mut skip = sent;
        for part in parts {
            let from = skip.min(part.len());
            self.pending.put_slice(&part[from..]);
            skip -= from;
        }
        let frame_type = chunk.frame_type;
        sources.sent(stream, frame_type, length);
        Ok(true)
    }

    fn flush_pending(&mut self) -> Result<(), Broken> {
        while self.pending_sent < self.pending.len() {
            match io::write(&self.socket, &self.pending[self.pending_sent..]) {
                Ok(count) => self.pending_sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    return Ok(());
                }
                Err(_) => return Err(Broken),
            }
        }
        self.pending_sent = 0;
        self.pending.clear();
        // One long answer is no reason to hold its memory for ever.
        if self.pending.capacity() > 2 * BULK_BODY {
            self.pending = Vec::new();
        }
        Ok(())
    }
}
