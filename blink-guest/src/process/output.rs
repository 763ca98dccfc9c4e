//! One output stream of a process: what was read from it, and how far its reader has come.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{self, Errno, IoSliceMut};

/// How much of a kept process's output stays readable. One mebibyte is several thousand lines of a log: enough to
/// show what happened before whoever comes back came back, and little beside any sandbox's memory.
pub(crate) const RETAINED_BYTES: usize = 1 << 20;

/// How much of an unkept process's output may wait for its reader. It covers the link's round trip at full speed
/// and stays in the processor's cache.
const UNRETAINED_BYTES: usize = 256 << 10;

/// What most programs write fits into this, so most rings never grow.
const FIRST_CAPACITY: usize = 16 << 10;

/// A byte stream's newest part, addressed by offsets from the stream's beginning.
#[derive(Default)]
struct Ring {
    /// A power of two long, or empty.
    bytes: Vec<u8>,
    start: u64,
    end: u64,
}

impl Ring {
    fn at(&self, offset: u64) -> usize {
        usize::try_from(offset & (self.bytes.len() as u64 - 1))
            .expect("masked by the length of a Vec")
    }

    /// The bytes from `offset` on, at most `limit` of them, in up to two parts.
    fn slices(&self, offset: u64, limit: usize) -> (&[u8], &[u8]) {
        let wanted = usize::try_from(self.end - offset)
            .unwrap_or(usize::MAX)
            .min(limit);
        if wanted == 0 {
            return (&[], &[]);
        }
        let at = self.at(offset);
        let first = wanted.min(self.bytes.len() - at);
        (&self.bytes[at..at + first], &self.bytes[..wanted - first])
    }

    /// Takes another capacity, which has room for what it holds.
    fn resize(&mut self, capacity: usize) {
        let mut bigger = Ring {
            bytes: vec![0; capacity],
            start: self.start,
            end: self.start,
        };
        let (first, second) = self.slices(self.start, usize::MAX);
        for part in [first, second] {
            let mut part = part;
            while !part.is_empty() {
                let at = bigger.at(bigger.end);
                let length = part.len().min(capacity - at);
                bigger.bytes[at..at + length].copy_from_slice(&part[..length]);
                bigger.end += length as u64;
                part = &part[length..];
            }
        }
        *self = bigger;
    }

    /// Reads at most `room` bytes, overwriting the oldest ones.
    fn read(&mut self, fd: impl AsFd, room: usize) -> io::Result<usize> {
        let at = self.at(self.end);
        let (before, after) = self.bytes.split_at_mut(at);
        let first = room.min(after.len());
        let second = (room - first).min(before.len());
        let mut parts = [
            IoSliceMut::new(&mut after[..first]),
            IoSliceMut::new(&mut before[..second]),
        ];
        let count = io::readv(fd, &mut parts)?;
        self.end += count as u64;
        self.start = self
            .start
            .max(self.end.saturating_sub(self.bytes.len() as u64));
        Ok(count)
    }
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Bytes came.
    Bytes,
    /// Nothing for now: the pipe is empty, or the reader must catch up first.
    Nothing,
    /// The stream has ended.
    End,
}

/// One output stream.
pub(crate) struct Output {
    fd: Option<OwnedFd>,
    /// The pipe may have bytes: it said so, and no read has found it empty since.
    readable: bool,
    ring: Ring,
    retain: bool,
    /// Up to where the attached reader has been sent bytes; it holds the stream back.
    sent: Option<u64>,
    /// Credit that the attached reader has left.
    window: u64,
    /// Bytes beyond this are counted and not sent.
    limit: u64,
}

impl Output {
    pub(crate) fn new(fd: Option<OwnedFd>, retain: bool, limit: Option<u64>) -> Output {
        Output {
            readable: fd.is_some(),
            fd,
            ring: Ring::default(),
            retain,
            sent: None,
            window: 0,
            limit: limit.unwrap_or(u64::MAX),
        }
    }

    /// All that the process wrote so far.
    pub(crate) fn total(&self) -> u64 {
        self.ring.end
    }

    pub(crate) fn ended(&self) -> bool {
        self.fd.is_none()
    }

    pub(crate) fn became_readable(&mut self) {
        self.readable = self.fd.is_some();
    }

    /// Whether a read could bring something now.
    pub(crate) fn wants_read(&self) -> bool {
        self.readable && self.waiting() < self.capacity_limit()
    }

    /// Stops reading; what was read stays.
    pub(crate) fn close(&mut self) {
        self.fd = None;
        self.readable = false;
    }

    /// Gives the stream to a reader that has everything before `offset`; returns where it will go on.
    pub(crate) fn attach(&mut self, offset: u64, window: u64) -> u64 {
        let from = offset.clamp(self.ring.start, self.ring.end);
        self.sent = Some(from);
        self.window = window;
        from
    }

    /// Where what is kept from `offset` on begins, and at most `limit` bytes of it; the reader goes on as it was.
    pub(crate) fn peek(&self, offset: u64, limit: usize) -> (u64, Vec<u8>) {
        let from = offset.clamp(self.ring.start, self.ring.end);
        let (first, second) = self.ring.slices(from, limit);
        (from, [first, second].concat())
    }

    pub(crate) fn detach(&mut self) {
        self.sent = None;
        self.window = 0;
    }

    pub(crate) fn add_window(&mut self, credit: u32) {
        self.window = self.window.saturating_add(u64::from(credit));
    }

    /// The reader has everything that it will get.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent
            .is_none_or(|sent| sent >= self.ring.end.min(self.limit))
    }

    /// Whether there is something for the reader, and credit to send it.
    pub(crate) fn wants_send(&self) -> bool {
        self.window > 0 && !self.is_sent()
    }

    /// The next bytes for the reader: at most `limit`, and no more than its credit allows.
    pub(crate) fn next(&self, limit: usize) -> (&[u8], &[u8]) {
        let Some(sent) = self.sent else {
            return (&[], &[]);
        };
        let left = self.limit.saturating_sub(sent).min(self.window);
        self.ring
            .slices(sent, usize::try_from(left).unwrap_or(usize::MAX).min(limit))
    }

    /// The reader was sent this many bytes.
    pub(crate) fn advance(&mut self, count: usize) {
        self.window -= count as u64;
        if let Some(sent) = &mut self.sent {
            *sent += count as u64;
            if *sent == self.ring.end && !self.retain {
                // Nobody will ask for these bytes again, so the ring need not grow to hold more.
                self.ring.start = self.ring.end;
            }
        }
    }

    /// Gives back the memory that what is kept does not need.
    pub(crate) fn shrink(&mut self) {
        let used = usize::try_from(self.ring.end - self.ring.start).unwrap_or(usize::MAX);
        let needed = match used {
            0 => 0,
            used => used.next_power_of_two(),
        };
        if needed < self.ring.bytes.len() {
            self.ring.resize(needed);
        }
    }

    /// Bytes of memory that it occupies.
    pub(crate) fn capacity(&self) -> usize {
        self.ring.bytes.len()
    }

    /// Forgets what was kept; how much it was is still known.
    pub(crate) fn forget(&mut self) {
        self.ring.start = self.ring.end;
        self.ring.bytes = Vec::new();
    }

    fn capacity_limit(&self) -> usize {
        if self.retain {
            RETAINED_BYTES
        } else {
            UNRETAINED_BYTES
        }
    }

    /// Bytes that may not be overwritten, because the reader is still to get them.
    fn waiting(&self) -> usize {
        match self.sent {
            Some(sent) if sent < self.limit => {
                usize::try_from(self.ring.end - sent).unwrap_or(usize::MAX)
            }
            // Nobody reads, or the reader wants no more: the oldest bytes make room for the newest.
            _ => 0,
        }
    }

    /// Reads once.
    pub(crate) fn read(&mut self) -> Progress {
        let Some(fd) = &self.fd else {
            return Progress::End;
        };
        if !self.wants_read() {
            return Progress::Nothing;
        }
        let used = usize::try_from(self.ring.end - self.ring.start).unwrap_or(usize::MAX);
        if used >= self.ring.bytes.len() && self.ring.bytes.len() < self.capacity_limit() {
            let capacity = (self.ring.bytes.len() * 4).clamp(FIRST_CAPACITY, self.capacity_limit());
            self.ring.resize(capacity);
        }
        let capacity = self.ring.bytes.len();
        let kept = if self.retain && capacity < self.capacity_limit() {
            used
        } else {
            self.waiting()
        };
        let room = capacity - kept;
        match self.ring.read(fd, room) {
            Ok(0) => {
                self.close();
                Progress::End
            }
            Ok(_) => Progress::Bytes,
            Err(Errno::AGAIN) => {
                self.readable = false;
                Progress::Nothing
            }
            Err(Errno::INTR) => Progress::Bytes,
            // A terminal whose last user has gone says EIO; whatever else fails has no more bytes either.
            Err(_) => {
                self.close();
                Progress::End
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn output(retain: bool, limit: Option<u64>) -> (OwnedFd, Output) {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        (writer, Output::new(Some(reader), retain, limit))
    }

    fn write(fd: &OwnedFd, bytes: &[u8], output: &mut Output) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = io::write(fd, &rest[..rest.len().min(4096)]).unwrap();
            rest = &rest[count..];
            output.became_readable();
            while output.read() == Progress::Bytes {}
        }
    }

    fn take(output: &mut Output, limit: usize) -> Vec<u8> {
        let (first, second) = output.next(limit);
        let bytes = [first, second].concat();
        output.advance(bytes.len());
        bytes
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length)
            .map(|i| u8::try_from(i % 251).unwrap())
            .collect()
    }

    #[test]
    fn a_reader_gets_every_byte_in_order_within_its_credit() {
        let (writer, mut output) = output(false, None);
        output.attach(0, 100_000);
        let bytes = pattern(150_000);
        write(&writer, &bytes, &mut output);
        let mut got = Vec::new();
        while output.wants_send() {
            got.extend(take(&mut output, 7777));
        }
        assert_eq!(got, bytes[..100_000]);
        output.add_window(u32::MAX);
        while output.wants_send() {
            got.extend(take(&mut output, 7777));
        }
        assert_eq!(got, bytes);
    }

    #[test]
    fn a_reader_that_stops_stops_the_reading() {
        let (writer, mut output) = output(false, None);
        output.attach(0, 10);
        let mut written = 0;
        while let Ok(count) = io::write(&writer, &[1; 4096]) {
            written += count;
            output.became_readable();
            while output.read() == Progress::Bytes {}
        }
        assert!(written > UNRETAINED_BYTES && written < UNRETAINED_BYTES + (1 << 20));
        assert!(!output.wants_read());
    }

    #[test]
    fn the_last_mebibyte_stays_when_nobody_reads() {
        let (writer, mut output) = output(true, None);
        let bytes = pattern(3 << 20);
        write(&writer, &bytes, &mut output);
        assert_eq!(output.total(), 3 << 20);
        let from = output.attach(5, u64::MAX);
        assert_eq!(from, 2 << 20);
        assert_eq!(take(&mut output, usize::MAX), bytes[2 << 20..]);
        assert_eq!(output.attach((3 << 20) - 3, u64::MAX), (3 << 20) - 3);
        assert_eq!(take(&mut output, usize::MAX), bytes[(3 << 20) - 3..]);
    }

    #[test]
    fn who_peeks_takes_nothing_from_the_reader() {
        let (writer, mut output) = output(true, None);
        let bytes = pattern((1 << 20) + 1000);
        output.attach(0, 10);
        write(&writer, &bytes[..1000], &mut output);
        assert_eq!(output.peek(0, 7), (0, bytes[..7].to_vec()));
        assert_eq!(output.peek(990, 100), (990, bytes[990..1000].to_vec()));
        assert_eq!(output.peek(u64::MAX, 100), (1000, Vec::new()));
        assert_eq!(take(&mut output, 100), bytes[..10]);
        output.detach();
        write(&writer, &bytes[1000..], &mut output);
        assert_eq!(output.peek(0, 2), (1000, bytes[1000..1002].to_vec()));
        assert_eq!(
            output.peek(5000, usize::MAX),
            (5000, bytes[5000..].to_vec())
        );
    }

    #[test]
    fn beyond_the_limit_bytes_are_counted_and_not_sent() {
        let (writer, mut output) = output(false, Some(1000));
        output.attach(0, u64::MAX);
        write(&writer, &pattern(1500), &mut output);
        let mut got = Vec::new();
        while output.wants_send() {
            got.extend(take(&mut output, 100));
        }
        // The reader has all that it will get: what comes now must not hold the program back.
        write(&writer, &pattern(5 << 20), &mut output);
        assert!(!output.wants_send() && output.is_sent());
        assert_eq!((got, output.total()), (pattern(1000), 1500 + (5 << 20)));
    }

    #[test]
    fn the_end_is_told_once_everything_was_read() {
        let (writer, mut output) = output(false, None);
        io::write(&writer, b"x").unwrap();
        drop(writer);
        assert_eq!(
            (output.read(), output.read()),
            (Progress::Bytes, Progress::End)
        );
        assert!(output.ended());
    }
}
