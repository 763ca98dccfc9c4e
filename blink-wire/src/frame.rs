//! Whole frames, and frames out of a byte stream.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::header::{FrameType, HEADER_LEN, Header, HeaderError};

/// Room for a read while little comes, in bytes. A process's usual output and every control frame fit, and a thousand
/// quiet links cost 8 MiB.
const QUIET_CHUNK: usize = 8 << 10;

/// Room for a read while much comes, in bytes. Four times what a pipe or a socket gives at once, so that a block is
/// filled by few reads and holds several bulk frames, and still fits a processor's second-level cache.
const BULK_CHUNK: usize = 256 << 10;

/// How many short reads in a row end bulk. One short read between long ones is usual and must not cost a new block.
const QUIET_AFTER: u8 = 16;

/// A body shares its block only if it is at least this part of it; a shorter one is copied. So a body that is kept
/// holds at most 8 times its own length in memory: a peer cannot pin a block with each byte that it is owed.
const SHARED_PART: usize = 8;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the frame is.
    pub frame_type: FrameType,
    /// Whether this is the last frame that the sender sends on the stream.
    pub end: bool,
    /// The request or stream that the frame belongs to; 0 is the connection itself.
    pub request_id: u64,
    /// The body, at most as long as the channel's limit allows.
    pub body: Bytes,
}

impl Frame {
    /// A frame that is not its stream's last.
    #[must_use]
    pub fn new(frame_type: FrameType, request_id: u64, body: impl Into<Bytes>) -> Frame {
        Frame {
            frame_type,
            end: false,
            request_id,
            body: body.into(),
        }
    }

    /// The same frame as the last that this side sends on the stream.
    #[must_use]
    pub fn with_end(self) -> Frame {
        Frame { end: true, ..self }
    }

    /// The header that goes before the body.
    ///
    /// Keeping the body within the channel's limit is the sender's part. A body that a header cannot even describe is
    /// announced with `u32::MAX` bytes, which every peer refuses.
    #[must_use]
    pub fn header(&self) -> Header {
        Header {
            frame_type: self.frame_type,
            end: self.end,
            body_len: u32::try_from(self.body.len()).unwrap_or(u32::MAX),
            request_id: self.request_id,
        }
    }

    /// Appends the header and the body to `out`.
    ///
    /// A sender of bulk data can avoid the copy: it writes [`Header::encode`] and the body in one vectored write.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.reserve(HEADER_LEN.saturating_add(self.body.len()));
        out.put_slice(&self.header().encode());
        out.put_slice(&self.body);
    }
}

/// Takes frames out of a byte stream, however it is cut.
///
/// The caller makes room with [`reserve`](Decoder::reserve), appends what it read to
/// [`buffer_mut`](Decoder::buffer_mut), and calls [`next_frame`](Decoder::next_frame) until it has no more.
///
/// Memory follows what came, never what a header announced: one frame of the limit's length and one read at most,
/// beside the bodies that the caller keeps. A long body shares the memory that it was read into; a short one is
/// copied, so that keeping it does not keep a whole block.
#[derive(Debug)]
pub struct Decoder {
    body_limit: u32,
    buffer: BytesMut,
    /// The size of the memory that `buffer` is the rest of.
    block: usize,
    /// The room that the last `reserve` left, from which the next one sees how much was read.
    room: usize,
    /// Short reads in a row.
    short_reads: u8,
    failed: Option<HeaderError>,
}

impl Decoder {
    /// A decoder for a channel whose bodies are at most `body_limit` bytes long. Allocates nothing yet.
    #[must_use]
    pub fn new(body_limit: u32) -> Decoder {
        Decoder {
            body_limit,
            buffer: BytesMut::new(),
            block: 0,
            room: 0,
            short_reads: QUIET_AFTER,
            failed: None,
        }
    }

    /// The buffer to append to what was read. Nothing but appending is allowed.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Makes room for the next read: at least 4 KiB, and at least 128 KiB while much comes.
    ///
    /// Reuses the memory where no body of an earlier frame is alive. Grows for an unfinished frame only as far as its
    /// bytes have come, and gives back what a busier time needed.
    pub fn reserve(&mut self) {
        let chunk = self.next_chunk();
        let oversized = self.block > 2 * chunk && self.buffer.len() <= chunk;
        if oversized || !self.buffer.try_reclaim(chunk / 2) {
            self.move_to_new_block(chunk);
        }
        self.room = self.buffer.capacity() - self.buffer.len();
    }

    fn next_chunk(&mut self) -> usize {
        // Taking a frame out moves the buffer's start, not its end: only reading makes the room smaller.
        let room = self.buffer.capacity() - self.buffer.len();
        let read = self.room.saturating_sub(room);
        self.short_reads = if read >= QUIET_CHUNK / 2 {
            0
        } else {
            self.short_reads.saturating_add(1).min(QUIET_AFTER)
        };
        if self.short_reads < QUIET_AFTER {
            BULK_CHUNK
        } else {
            QUIET_CHUNK
        }
    }

    fn move_to_new_block(&mut self, chunk: usize) {
        let unread = self.buffer.len();
        let longest_frame = HEADER_LEN.saturating_add(self.body_limit as usize);
        // Doubling keeps the copies of a long frame's beginning below the frame's own length.
        let growth = unread.min(longest_frame.saturating_sub(unread)).max(chunk);
        let mut buffer = BytesMut::with_capacity(unread + growth);
        buffer.put_slice(&self.buffer);
        self.block = buffer.capacity();
        self.buffer = buffer;
    }

    /// The next frame, or `None` until more has been read.
    ///
    /// # Errors
    ///
    /// [`HeaderError`] as soon as a broken header has come. The decoder stays failed: it drops what it holds and
    /// gives the same error again.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, HeaderError> {
        if let Some(error) = self.failed {
            self.buffer.clear();
            return Err(error);
        }
        let Some(bytes) = self.buffer.first_chunk() else {
            return Ok(None);
        };
        let header = match Header::decode(bytes, self.body_limit) {
            Ok(header) => header,
            Err(error) => {
                self.failed = Some(error);
                self.buffer = BytesMut::new();
                return Err(error);
            }
        };
        let body_len = header.body_len as usize;
        if self.buffer.len() - HEADER_LEN < body_len {
            return Ok(None);
        }
        // The caller may have appended more than there was room for.
        self.block = self.block.max(self.buffer.capacity());
        self.buffer.advance(HEADER_LEN);
        Ok(Some(Frame {
            frame_type: header.frame_type,
            end: header.end,
            request_id: header.request_id,
            body: self.take_body(body_len),
        }))
    }

    /// Whether [`next_frame`](Decoder::next_frame) would return a frame or an error now, without anything more being read.
    ///
    /// Whoever leaves frames for later has to ask: no event announces what has been read already.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        if self.failed.is_some() {
            return true;
        }
        let Some(bytes) = self.buffer.first_chunk() else {
            return false;
        };
        match Header::decode(bytes, self.body_limit) {
            Ok(header) => self.buffer.len() - HEADER_LEN >= header.body_len as usize,
            Err(_) => true,
        }
    }

    fn take_body(&mut self, len: usize) -> Bytes {
        if len >= self.block / SHARED_PART {
            return self.buffer.split_to(len).freeze();
        }
        let body = Bytes::copy_from_slice(&self.buffer[..len]);
        self.buffer.advance(len);
        body
    }

    /// Says whether the input ended between two frames. To be asked at its end, when
    /// [`next_frame`](Decoder::next_frame) has no more.
    ///
    /// # Errors
    ///
    /// [`Truncated`] if it ended inside a frame. A decoder that failed has said so already, and says nothing here.
    pub fn finish(&self) -> Result<(), Truncated> {
        if self.failed.is_some() || self.buffer.is_empty() {
            return Ok(());
        }
        let body_len = match self.buffer.first_chunk() {
            Some(bytes) => Header::decode(bytes, self.body_limit).map_or(0, |h| h.body_len),
            None => 0,
        };
        Err(Truncated {
            received: self.buffer.len(),
            expected: HEADER_LEN.saturating_add(body_len as usize),
        })
    }
}

/// The input ended inside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the connection ended inside a frame, after {received} of at least {expected} bytes")]
#[non_exhaustive]
pub struct Truncated {
    /// How many bytes of the frame had come.
    pub received: usize,
    /// How many were needed, as far as is known: a header's, or the whole frame's once its header had come.
    pub expected: usize,
}
