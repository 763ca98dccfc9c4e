//! What goes through the processes' descriptors: input, output, a terminal's size.

use blink_wire::{FrameType, TtySize};
use bytes::Bytes;

use super::descriptors::winsize;
use super::output::{Output, Progress};
use super::state::Process;
use super::{Notice, Processes};
use crate::stream::Chunk;

/// Reads of one stream before others have their turn.
const READS_PER_TURN: usize = 4;

const CHANNELS: [FrameType; 2] = [FrameType::STDOUT, FrameType::STDERR];

impl Processes {
    pub(crate) fn resize(&mut self, id: u64, size: TtySize) {
        if let Some(Process {
            terminal: Some(terminal),
            ..
        }) = self.table.get(&id)
        {
            // The program may just have closed it.
            let _ = rustix::termios::tcsetwinsize(terminal, winsize(size));
        }
    }

    pub(crate) fn add_window(&mut self, id: u64, channel: FrameType, credit: u32) {
        if let (Some(process), Some(index)) = (
            self.table.get_mut(&id),
            CHANNELS.iter().position(|known| *known == channel),
        ) {
            process.outputs[index].add_window(credit);
            self.notices.extend(process.reader.map(Notice::Ready));
        }
    }

    /// Takes bytes for a process's standard input; `false` where they exceed the window.
    pub(crate) fn push_stdin(&mut self, id: u64, bytes: Bytes, end: bool) -> bool {
        let Some(process) = self.table.get_mut(&id) else {
            return true;
        };
        let within = process.stdin.push(bytes, end);
        self.pump_stdin(id);
        within
    }

    pub(crate) fn pump_stdin(&mut self, id: u64) {
        let Some(process) = self.table.get_mut(&id) else {
            return;
        };
        let credit = process.stdin.pump();
        if let (1.., Some(reader)) = (credit, process.reader) {
            self.notices.push(Notice::Credit(reader, credit));
        }
    }

    pub(crate) fn became_readable(&mut self, id: u64, index: usize) {
        if let Some(process) = self.table.get_mut(&id) {
            process.outputs[index].became_readable();
        }
    }

    /// Reads a process's output for one turn; `true` if it wants another.
    pub(crate) fn pump_output(&mut self, id: u64) -> bool {
        let Some(process) = self.table.get_mut(&id) else {
            return false;
        };
        for output in &mut process.outputs {
            for _ in 0..READS_PER_TURN {
                if output.read() != Progress::Bytes {
                    break;
                }
            }
        }
        if process.outputs.iter().any(Output::wants_send) {
            self.notices.extend(process.reader.map(Notice::Ready));
        }
        let more = process.outputs.iter().any(Output::wants_read);
        self.settle(id);
        more
    }

    pub(crate) fn next_chunk(&mut self, id: u64, limit: usize) -> Option<Chunk<'_>> {
        let process = self.table.get(&id)?;
        let (output, frame_type) = process
            .outputs
            .iter()
            .zip(CHANNELS)
            .find(|(output, _)| output.wants_send())?;
        let (first, second) = output.next(limit);
        Some(Chunk {
            frame_type,
            end: false,
            first,
            second,
        })
    }

    pub(crate) fn sent(&mut self, id: u64, channel: FrameType, length: usize) {
        if let (Some(process), Some(index)) = (
            self.table.get_mut(&id),
            CHANNELS.iter().position(|known| *known == channel),
        ) {
            process.outputs[index].advance(length);
        }
    }

    /// Whether a process's output wants reading, now that some of it has been sent.
    pub(crate) fn wants_pump(&self, id: u64) -> bool {
        self.table.get(&id).is_some_and(|process| {
            process.outputs.iter().any(Output::wants_read)
                || (process.ended.is_some() && !process.settled)
        })
    }
}
