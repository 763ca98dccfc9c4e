//! The loop against hosts that send and read as they like: whenever it would wait, nothing is left that it could do.

use std::os::fd::OwnedFd;
use std::time::Duration;

use blink_wire::{
    Decoder, Frame, FrameType, Hello, LINK_BODY_LIMIT, Message, PathOptions, Request, Spawn,
    VERSION,
};
use bytes::{Buf, BytesMut};
use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Agent, Endpoints};
use crate::confine::{Confinement, Settings};
use crate::guard;
use crate::stream::read_into;

/// A loop that waits for so long, with nothing due, waits for something that does not come.
const STALL: Duration = Duration::from_secs(10);

/// Turns of the loop from which nothing came: more than any answer here takes, also while it waits for a thread.
const SPINS: usize = 100_000;

/// The host's end of a link. It does nothing by itself.
struct Host {
    socket: OwnedFd,
    unsent: BytesMut,
    decoder: Decoder,
    asked: u64,
    answered: u64,
}

/// A request whose answer can be counted.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Ping,
    /// Answered with as many bytes: what fills the backlog of answers when the host does not read.
    Heartbeat(usize),
    Processes,
    /// By a thread.
    Stat,
    /// A program that is missing: an answer, then its exit.
    Spawn,
    Unknown,
}

/// What happens on the host's side, or in the loop.
#[derive(Debug, Clone)]
enum Action {
    Ask(Ask, u16),
    Write(usize),
    Read(usize),
    Step(u8),
}

impl Host {
    fn connected() -> (Host, Agent) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, link) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let endpoints = Endpoints {
            link: Some(link),
            listener: None,
            dial: None,
            leased: false,
            held: None,
        };
        let confinement = Confinement::prepare(Settings::default()).unwrap();
        let agent = Agent::new(endpoints, confinement, guard::Limits::default()).unwrap();
        let mut host = Host {
            socket,
            unsent: BytesMut::new(),
            decoder: Decoder::new(LINK_BODY_LIMIT),
            asked: 0,
            answered: 0,
        };
        let hello = Hello {
            protocol: VERSION,
            program: "host".into(),
            capabilities: Vec::new(),
            boot_id: String::new(),
        };
        host.send(FrameType::HANDSHAKE, 0, hello.to_body());
        (host, agent)
    }

    fn send(&mut self, frame_type: FrameType, request: u64, body: impl Into<bytes::Bytes>) {
        self.asked += 1;
        Frame::new(frame_type, request, body).encode_into(&mut self.unsent);
    }

    fn ask(&mut self, ask: Ask) {
        let request = match ask {
            Ask::Heartbeat(length) => {
                return self.send(FrameType::HEARTBEAT, 0, vec![7; length]);
            }
            Ask::Unknown => return self.send(FrameType(0x7e), self.asked + 1, ""),
            Ask::Ping => Request::Ping,
            Ask::Processes => Request::Processes,
            Ask::Stat => Request::Stat(PathOptions {
                path: b"/".to_vec().into(),
                follow: false,
                owner: None,
            }),
            Ask::Spawn => {
                // Two frames come for it.
                self.asked += 1;
                Request::Spawn(Spawn {
                    argv: vec![b"/there/is/no/such/program".to_vec().into()],
                    ..Spawn::default()
                })
            }
        };
        self.send(FrameType::RPC_REQUEST, self.asked + 1, request.to_body());
    }

    /// Writes at most so many bytes; how many the link has taken.
    fn write(&mut self, limit: usize) -> usize {
        let length = self.unsent.len().min(limit);
        let count = rustix::io::write(&self.socket, &self.unsent[..length]).unwrap_or_default();
        self.unsent.advance(count);
        count
    }

    /// Reads at least so many bytes if they have come; how many there were.
    fn read(&mut self, enough: usize) -> usize {
        let mut total = 0;
        while total < enough {
            self.decoder.reserve();
            match read_into(&self.socket, self.decoder.buffer_mut()) {
                Ok(0) => panic!("the agent has closed the link"),
                Ok(count) => total += count,
                Err(_) => break,
            }
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                assert!(frame.request_id <= self.asked);
                self.answered += 1;
            }
        }
        total
    }

    /// Sends and reads everything; each request must be answered.
    fn finish(&mut self, agent: &mut Agent) {
        let mut idle = 0;
        while !self.unsent.is_empty() || self.answered < self.asked {
            if self.write(usize::MAX) + self.read(usize::MAX) > 0 {
                idle = 0;
                continue;
            }
            idle += 1;
            assert!(idle < SPINS, "the loop turns, and nothing comes of it");
            let patience = agent.patience();
            let events = agent.step(Some(patience.unwrap_or(STALL))).unwrap();
            assert!(
                events > 0 || patience.is_some() || self.read(1) > 0,
                "the loop waits, and {} of {} frames are unanswered",
                self.asked - self.answered,
                self.asked
            );
        }
        assert_eq!(self.answered, self.asked);
    }
}

#[test]
fn more_frames_than_a_turn_takes_are_all_answered() {
    for ask in [
        Ask::Ping,
        Ask::Heartbeat(0),
        Ask::Processes,
        Ask::Stat,
        Ask::Spawn,
        Ask::Unknown,
    ] {
        let (mut host, mut agent) = Host::connected();
        host.finish(&mut agent);
        for _ in 0..super::FRAMES_PER_TURN * 3 {
            host.ask(ask);
        }
        host.finish(&mut agent);
    }
}

#[test]
fn a_host_that_only_asks_fills_no_memory_and_is_answered_once_it_reads() {
    let (mut host, mut agent) = Host::connected();
    for _ in 0..20_000 {
        host.ask(Ask::Heartbeat(1024));
    }
    loop {
        let written = host.write(usize::MAX);
        let patience = agent.patience();
        let events = agent.step(Some(Duration::ZERO)).unwrap();
        if written == 0 && events == 0 && patience.is_none() {
            break;
        }
    }
    // Most of it is still here: the agent reads no more.
    assert!(host.unsent.len() > 10 << 20);
    host.finish(&mut agent);
}

fn any_ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        Just(Ask::Ping),
        prop_oneof![0..64_usize, Just(4096), Just(200_000)].prop_map(Ask::Heartbeat),
        Just(Ask::Processes),
        Just(Ask::Stat),
        Just(Ask::Spawn),
        Just(Ask::Unknown),
    ]
}

fn any_action() -> impl Strategy<Value = Action> {
    let count = prop_oneof![1..4_u16, 200..700_u16];
    let bytes = || prop_oneof![1..64_usize, 1000..9000_usize, Just(usize::MAX)];
    prop_oneof![
        3 => (any_ask(), count).prop_map(|(ask, count)| match ask {
            // Each is a child, which costs more than the rest together.
            Ask::Spawn | Ask::Stat => Action::Ask(ask, count / 10 + 1),
            Ask::Heartbeat(5000..) => Action::Ask(ask, count / 50 + 1),
            ask => Action::Ask(ask, count),
        }),
        3 => bytes().prop_map(Action::Write),
        2 => bytes().prop_map(Action::Read),
        3 => (1..4_u8).prop_map(Action::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Any bursts, cut anywhere, with any of the host's reads and the loop's turns in between.
    #[test]
    fn no_frame_waits_for_an_event_that_need_not_come(actions in proptest::collection::vec(any_action(), 1..40)) {
        let (mut host, mut agent) = Host::connected();
        for action in actions {
            match action {
                Action::Ask(ask, count) => (0..count).for_each(|_| host.ask(ask)),
                Action::Write(limit) => {
                    host.write(limit);
                }
                Action::Read(enough) => {
                    host.read(enough);
                }
                Action::Step(count) => {
                    for _ in 0..count {
                        agent.step(Some(Duration::ZERO)).unwrap();
                    }
                }
            }
        }
        host.finish(&mut agent);
    }
}
