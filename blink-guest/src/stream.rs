//! Streams of requests: whose they are, what they belong to, and what goes over them.

use blink_wire::FrameType;
use bytes::BufMut;
use rustix::io;

/// Bodies of bulk frames: large enough that headers and system calls cost little, small enough that a control frame
/// behind one waits for some tens of microseconds.
pub(crate) const BULK_BODY: usize = 128 << 10;

/// What a request's stream belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// A program that is still to be started.
    Waiting,
    Process(u64),
    /// Waits for a process's end, and carries nothing.
    End(u64),
    Job(u64),
    Connection(u64),
}

/// A request of a link: where answers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Caller {
    pub(crate) link: u64,
    pub(crate) request: u64,
}

/// The next frame's body, in up to two parts.
pub(crate) struct Chunk<'a> {
    pub(crate) frame_type: FrameType,
    pub(crate) end: bool,
    pub(crate) first: &'a [u8],
    pub(crate) second: &'a [u8],
}

/// Reads into a buffer's spare room.
pub(crate) fn read_into(
    fd: impl std::os::fd::AsFd,
    buffer: &mut bytes::BytesMut,
) -> io::Result<usize> {
    let spare = buffer.spare_capacity_mut();
    let count = io::retry_on_intr(|| {
        let (initialized, _) = io::read(fd.as_fd(), &mut *spare)?;
        Ok(initialized.len())
    })?;
    // SAFETY: the kernel has just written these bytes.
    unsafe { buffer.advance_mut(count) };
    Ok(count)
}
