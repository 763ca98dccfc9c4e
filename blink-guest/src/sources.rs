//! Where streams' bytes come from.

use blink_wire::FrameType;

use crate::connect::Connections;
use crate::job::Jobs;
use crate::process::Processes;
use crate::stream::{Chunk, Stream};

/// Everything that streams can belong to.
pub(crate) struct Sources {
    pub(crate) processes: Processes,
    pub(crate) jobs: Jobs,
    pub(crate) connections: Connections,
}

impl Sources {
    /// The next frame of a stream, if it has one and the credit for it.
    pub(crate) fn next_chunk(&mut self, stream: Stream, limit: usize) -> Option<Chunk<'_>> {
        match stream {
            Stream::Process(id) => self.processes.next_chunk(id, limit),
            Stream::Waiting | Stream::End(_) => None,
            Stream::Job(id) => self.jobs.next_chunk(id),
            Stream::Connection(id) => self.connections.next_chunk(id),
        }
    }

    /// That frame has been sent, or copied to be sent.
    pub(crate) fn sent(&mut self, stream: Stream, frame_type: FrameType, length: usize) {
        match stream {
            Stream::Process(id) => self.processes.sent(id, frame_type, length),
            Stream::Waiting | Stream::End(_) => {}
            Stream::Job(id) => self.jobs.sent(id),
            Stream::Connection(id) => self.connections.sent(id, length),
        }
    }
}
