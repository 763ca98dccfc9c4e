//! What goes to a process's standard input, or into its terminal.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use blink_wire::INITIAL_WINDOW;
use bytes::{Buf, Bytes};
use rustix::io::{self, Errno};

/// Credit is given back in steps of this size, so that small writes do not each cost a frame.
const CREDIT_STEP: u32 = INITIAL_WINDOW / 4;

/// The writing end, with what has arrived and is not written yet. Never more than the window that the host was given.
pub(crate) struct Stdin {
    fd: Option<OwnedFd>,
    queue: VecDeque<Bytes>,
    queued: usize,
    end: bool,
    /// A terminal has no end; its reader is told by a character.
    terminal: bool,
    consumed: u32,
    /// What may wait: a window, and what a former host has left.
    limit: usize,
}

impl Stdin {
    pub(crate) fn new(fd: Option<OwnedFd>, terminal: bool) -> Stdin {
        Stdin {
            fd,
            queue: VecDeque::new(),
            queued: 0,
            end: false,
            terminal,
            consumed: 0,
            limit: INITIAL_WINDOW as usize,
        }
    }

    /// Takes what arrived; `false` where the host sent more than it had credit for.
    pub(crate) fn push(&mut self, bytes: Bytes, end: bool) -> bool {
        if self.queued + bytes.len() > self.limit {
            return false;
        }
        if !bytes.is_empty() && !self.end {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
        self.end |= end;
        true
    }

    /// Writes what can be written; returns credit to give back, or 0.
    pub(crate) fn pump(&mut self) -> u32 {
        while let (Some(fd), Some(bytes)) = (&self.fd, self.queue.front_mut()) {
            match io::write(fd.as_fd(), bytes) {
                Ok(count) => {
                    bytes.advance(count);
                    self.queued -= count;
                    self.consumed += u32::try_from(count).unwrap_or_default();
                    if bytes.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody reads any more.
                Err(_) => self.fd = None,
            }
        }
        if self.fd.is_none() {
            // The writer must not wait for a reader that is gone.
            self.consumed += u32::try_from(self.queued).unwrap_or_default();
            self.queue.clear();
            self.queued = 0;
        }
        if self.queue.is_empty() && self.end {
            self.finish();
        }
        match self.consumed >= CREDIT_STEP {
            true => std::mem::take(&mut self.consumed),
            false => 0,
        }
    }

    fn finish(&mut self) {
        const END_OF_TRANSMISSION: &[u8] = b"\x04";
        if !self.terminal {
            self.fd = None;
        } else if let Some(fd) = &self.fd {
            let written = io::write(fd, END_OF_TRANSMISSION);
            self.end = matches!(written, Err(Errno::AGAIN | Errno::INTR));
        }
    }

    /// A host that attaches anew begins with a whole window.
    pub(crate) fn reset_credit(&mut self) {
        self.consumed = 0;
        self.limit = INITIAL_WINDOW as usize + self.queued;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    #[test]
    fn bytes_then_the_end_arrive_and_credit_comes_back() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let mut stdin = Stdin::new(Some(writer), false);
        assert!(stdin.push(Bytes::from(vec![7; CREDIT_STEP as usize]), true));
        let (mut got, mut credit) = (0, 0);
        let mut buffer = vec![0; 1 << 16];
        loop {
            credit += stdin.pump();
            match io::read(&reader, &mut buffer) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((got, credit), (CREDIT_STEP as usize, CREDIT_STEP));
    }

    #[test]
    fn more_than_the_window_is_refused() {
        let (_reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let mut stdin = Stdin::new(Some(writer), false);
        assert!(stdin.push(Bytes::from(vec![0; INITIAL_WINDOW as usize]), false));
        assert!(!stdin.push(Bytes::from_static(b"x"), false));
    }

    #[test]
    fn a_reader_that_is_gone_does_not_hold_up_the_writer() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        drop(reader);
        // SAFETY: ignoring SIGPIPE has no precondition; the agent does the same.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        let mut stdin = Stdin::new(Some(writer), false);
        assert!(stdin.push(Bytes::from(vec![0; INITIAL_WINDOW as usize]), false));
        assert_eq!(stdin.pump(), INITIAL_WINDOW);
    }
}
