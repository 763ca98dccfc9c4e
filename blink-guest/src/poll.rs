//! What the agent's loop waits for: one epoll, edge-triggered, with a token per descriptor.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io;

/// Names a descriptor in the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Listener,
    Signals,
    Wake,
    Link(u64),
    /// A process's standard input, or the writing side of its terminal.
    Stdin(u64),
    Stdout(u64),
    Stderr(u64),
    Connection(u64),
    Dialed,
}

const KIND_SHIFT: u32 = 56;

impl Token {
    fn pack(self) -> u64 {
        let (kind, id) = match self {
            Token::Listener => (0, 0),
            Token::Signals => (2, 0),
            Token::Wake => (3, 0),
            Token::Link(id) => (4, id),
            Token::Stdin(id) => (5, id),
            Token::Stdout(id) => (6, id),
            Token::Stderr(id) => (7, id),
            Token::Connection(id) => (8, id),
            Token::Dialed => (9, 0),
        };
        (kind << KIND_SHIFT) | id
    }

    fn unpack(packed: u64) -> Option<Token> {
        let id = packed & ((1 << KIND_SHIFT) - 1);
        Some(match packed >> KIND_SHIFT {
            0 => Token::Listener,
            2 => Token::Signals,
            3 => Token::Wake,
            4 => Token::Link(id),
            5 => Token::Stdin(id),
            6 => Token::Stdout(id),
            7 => Token::Stderr(id),
            8 => Token::Connection(id),
            9 => Token::Dialed,
            _ => return None,
        })
    }
}

/// What happened to a descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: Token,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// The epoll.
pub(crate) struct Poll {
    epoll: rustix::fd::OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Poll> {
        Ok(Poll {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(64),
        })
    }

    /// Watches a descriptor until it is closed. Edge-triggered: whoever is told goes on until it would block.
    pub(crate) fn add(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, fd, EventData::new_u64(token.pack()), flags)
    }

    /// Waits until something happens or the time is over.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let timeout = timeout.map(|t| rustix::time::Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        for event in &self.events {
            // Copied out: the kernel's struct is packed.
            let (flags, data) = (event.flags, event.data);
            let Some(token) = Token::unpack(data.u64()) else {
                continue;
            };
            let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            ready.push(Ready {
                token,
                readable: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                writable: broken || flags.contains(EventFlags::OUT),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn tokens_survive_packing() {
        for token in [
            Token::Wake,
            Token::Link(7),
            Token::Stderr((1 << 56) - 1),
            Token::Connection(0),
        ] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
