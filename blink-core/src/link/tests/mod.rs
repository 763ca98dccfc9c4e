//! The link against agents that break every rule.

use std::time::Duration;

use blink_wire::{
    Attached, Decoder, ErrorBody, ExitReport, Frame, FrameType, Hello, INITIAL_WINDOW,
    LINK_BODY_LIMIT, MAGIC, Message, ProcessId, Request, Response, Trailer, VERSION, WindowUpdate,
};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{Channel, Link, LinkIo, Options};
use crate::command::{Command, Defaults};
use crate::error::{Error, ErrorKind, Result};
use crate::files::Files;
use crate::isolation::Isolation;
use crate::process;

const PATIENCE: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("it hangs"))
}

fn options() -> Options {
    let obituary: super::Obituary =
        Box::new(|reason| Box::pin(async move { Error::new(ErrorKind::SandboxDied, reason) }));
    Options::new(obituary, Box::new(|| {}))
}

/// The other end, which does what it is told to.
struct Agent {
    io: DuplexStream,
    decoder: Decoder,
}

impl Agent {
    fn pair() -> (LinkIo, Agent) {
        let (host, agent) = tokio::io::duplex(1 << 16);
        let (reader, writer) = tokio::io::split(host);
        let io = LinkIo {
            reader: Box::new(reader),
            writer: Box::new(writer),
        };
        let agent = Agent {
            io: agent,
            decoder: Decoder::new(LINK_BODY_LIMIT),
        };
        (io, agent)
    }

    async fn connected() -> (Link, Agent) {
        let (io, mut agent) = Agent::pair();
        let connecting = Link::connect(io, DEADLINE, options());
        let greeting = async {
            assert_eq!(agent.next().await.unwrap().frame_type, FrameType::HANDSHAKE);
            agent.send(&hello(VERSION)).await;
        };
        let (link, ()) = within(async { tokio::join!(connecting, greeting) }).await;
        (link.unwrap(), agent)
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            self.decoder.reserve();
            if self.io.read_buf(self.decoder.buffer_mut()).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// The number of the next request; what else comes is dropped.
    async fn next_request(&mut self) -> u64 {
        loop {
            let frame = self.next().await.expect("the host goes on");
            if frame.frame_type == FrameType::RPC_REQUEST {
                return frame.request_id;
            }
        }
    }

    /// The host may have cut the link off before it takes everything.
    async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    async fn send(&mut self, frame: &Frame) {
        self.raw(&encoded(frame)).await;
    }

    /// Reads what the host sends until it has cut the link off.
    async fn drain(&mut self) {
        let mut rest = Vec::new();
        let _ = self.io.read_to_end(&mut rest).await;
    }
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode_into(&mut bytes);
    bytes
}

fn hello(protocol: u8) -> Frame {
    let hello = Hello {
        protocol,
        program: "fake".into(),
        capabilities: Vec::new(),
        boot_id: "0".into(),
    };
    Frame::new(FrameType::HANDSHAKE, 0, hello.to_body())
}

fn attached(request: u64) -> Frame {
    let attached = Attached {
        process: ProcessId(1),
        pid: 2,
        stdout_offset: 0,
        stderr_offset: 0,
    };
    Frame::new(
        FrameType::RPC_RESPONSE,
        request,
        Response::Attached(attached).to_body(),
    )
}

fn exit(request: u64, report: &ExitReport) -> Frame {
    Frame::new(FrameType::EXIT, request, report.to_body()).with_end()
}

fn report() -> ExitReport {
    ExitReport {
        code: Some(0),
        signal: None,
        timed_out: false,
        limit: None,
        reason: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        duration_us: 1,
    }
}

/// Runs a program on the link, as a sandbox does.
async fn exec(link: &Link, command: &Command) -> Result<crate::Output> {
    let spawn = command.to_spawn(&Defaults::default(), false).unwrap();
    process::run(link, command, Request::Spawn(spawn), Isolation::Namespace).await
}

/// Everything that can wait on a link: each must end in an error of one of the kinds.
async fn all_fail(
    link: &Link,
    agent: &mut Agent,
    misbehave: impl AsyncFnOnce(&mut Agent),
    kinds: &[ErrorKind],
) {
    let check = |what: &str, result: Result<()>| match result {
        Ok(()) => panic!("{what} succeeded"),
        Err(error) => assert!(kinds.contains(&error.kind()), "{what}: {error:?}"),
    };
    let command = Command::new("x").stdin_bytes(vec![0; 3 << 20]);
    let files = Files::new(link.clone());
    let stream = link.open(&Request::Ping).await.unwrap();
    within(async {
        tokio::join!(
            async { check("a call", link.call(&Request::Ping).await.map(drop)) },
            async { check("a program", exec(link, &command).await.map(drop)) },
            async { check("a file", files.read("/x").await.map(drop)) },
            async { check("a write", files.write("/x", vec![0; 3 << 20]).await) },
            async { check("a list", files.list("/x").await.map(drop)) },
            async { check("a chunk", stream.chunk(Channel::Stderr).await.map(drop)) },
            async { check("an exit", stream.exit().await.map(drop)) },
            async {
                misbehave(agent).await;
                agent.drain().await;
            },
        )
    })
    .await;
    let dead = link.dead().expect("the link has ended").kind();
    assert!(kinds.contains(&dead), "{dead:?}");
    check(
        "a later call",
        within(link.call(&Request::Ping)).await.map(drop),
    );
}

/// All calls fail with `Protocol` once these bytes have come.
async fn breaks_the_rules(bytes: &[u8]) {
    let (link, mut agent) = Agent::connected().await;
    all_fail(
        &link,
        &mut agent,
        async |agent: &mut Agent| agent.raw(bytes).await,
        &[ErrorKind::Protocol],
    )
    .await;
}

#[tokio::test]
async fn an_honest_agent_is_believed() {
    let (link, mut agent) = Agent::connected().await;
    assert_eq!(link.agent().unwrap().program, "fake");
    let command = Command::new("x").stdin_bytes("in");
    let serving = async {
        let request = agent.next().await.unwrap();
        assert_eq!(request.frame_type, FrameType::RPC_REQUEST);
        let id = request.request_id;
        agent.send(&attached(id)).await;
        assert_eq!(&agent.next().await.unwrap().body[..], b"in");
        assert!(agent.next().await.unwrap().end);
        agent.send(&Frame::new(FrameType::STDOUT, id, "out")).await;
        agent
            .send(&Frame::new(FrameType::STDERR, id, "err").with_end())
            .await;
        agent
            .send(&exit(
                id,
                &ExitReport {
                    stdout_bytes: 3,
                    stderr_bytes: 3,
                    ..report()
                },
            ))
            .await;
    };
    let (output, ()) = within(async { tokio::join!(exec(&link, &command), serving) }).await;
    let output = output.unwrap();
    assert_eq!(
        (output.text().as_ref(), &output.stderr[..]),
        ("out", &b"err"[..])
    );
    assert!(output.status.success() && !output.truncated());
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_the_link() {
    breaks_the_rules(b"HTTP/1.1 200 OK\r\n\r\n and so on").await;
    breaks_the_rules(&[0; 64]).await;
    breaks_the_rules(&[0xff; 4096]).await;
    let mut frame = encoded(&Frame::new(FrameType::HEARTBEAT, 0, ""));
    frame[4] = VERSION + 1;
    breaks_the_rules(&frame).await;
    let mut frame = encoded(&Frame::new(FrameType::STDOUT, 1, ""));
    frame[..4].copy_from_slice(&MAGIC.to_be_bytes());
    breaks_the_rules(&frame).await;
}

#[tokio::test]
async fn a_length_beyond_the_limit_ends_the_link_at_the_header() {
    for length in [LINK_BODY_LIMIT + 1, 1 << 30, u32::MAX] {
        let mut frame = encoded(&Frame::new(FrameType::STDOUT, 1, ""));
        frame[8..12].copy_from_slice(&length.to_le_bytes());
        breaks_the_rules(&frame).await;
    }
}

#[tokio::test]
async fn frames_out_of_place_end_the_link() {
    for frame in [
        hello(VERSION),
        Frame::new(FrameType::STDOUT, 1_000_000, "x"),
        Frame::new(FrameType::STDOUT, u64::MAX, "x"),
        Frame::new(FrameType::EXIT, 1_000_000, report().to_body()),
        Frame::new(FrameType::RPC_RESPONSE, 1 << 63, Response::Done.to_body()),
        Frame::new(
            FrameType::ERROR,
            0,
            ErrorBody::new(blink_wire::ErrorKind::Protocol, "x").to_body(),
        ),
        Frame::new(FrameType::ERROR, 0, "no message"),
        Frame::new(FrameType::RPC_RESPONSE, 1, "no message"),
        Frame::new(FrameType::RPC_ERROR, 1, ""),
        Frame::new(FrameType::EXIT, 1, vec![0xff; 100]),
        Frame::new(FrameType::WINDOW_UPDATE, 1, "12345678"),
        Frame::new(FrameType::WINDOW_UPDATE, 1, ""),
    ] {
        breaks_the_rules(&encoded(&frame)).await;
    }
}

#[tokio::test]
async fn data_after_the_end_ends_the_link() {
    for frame_type in [FrameType::STDOUT, FrameType::STDERR, FrameType::STREAM_DATA] {
        let mut bytes = encoded(&Frame::new(frame_type, 2, "x"));
        bytes.extend(encoded(&Frame::new(frame_type, 2, "").with_end()));
        bytes.extend(encoded(&Frame::new(frame_type, 2, "y")));
        breaks_the_rules(&bytes).await;
    }
    let trailer = Trailer { bytes: 0, crc32: 0 }.to_body();
    let mut bytes = encoded(&Frame::new(FrameType::STREAM_DATA, 2, trailer.clone()).with_end());
    bytes.extend(encoded(
        &Frame::new(FrameType::STREAM_DATA, 2, trailer).with_end(),
    ));
    breaks_the_rules(&bytes).await;
}

#[tokio::test]
async fn an_end_that_comes_twice_ends_the_link() {
    let (link, mut agent) = Agent::connected().await;
    let stream = link.open(&Request::Ping).await.unwrap();
    let mut bytes = encoded(&exit(1, &report()));
    bytes.extend(encoded(&exit(1, &report())));
    agent.raw(&bytes).await;
    // The first one was true when it came.
    let first = within(stream.exit()).await;
    assert!(first.is_ok() || first.unwrap_err().kind() == ErrorKind::Protocol);
    let error = within(link.call(&Request::Ping)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error:?}");
}

#[tokio::test]
async fn data_beyond_the_window_ends_the_link() {
    for frame_type in [FrameType::STDOUT, FrameType::STDERR, FrameType::STREAM_DATA] {
        let (link, mut agent) = Agent::connected().await;
        // Nobody reads it.
        let stream = link.open(&Request::Ping).await.unwrap();
        let full = Frame::new(frame_type, 1, vec![0; INITIAL_WINDOW as usize / 2]);
        agent.send(&full).await;
        agent.send(&full).await;
        assert!(link.dead().is_none());
        agent.send(&Frame::new(frame_type, 1, "x")).await;
        let error = within(stream.response()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error:?}");
    }
}

#[tokio::test]
async fn data_beyond_the_commands_limit_ends_the_command() {
    let (link, mut agent) = Agent::connected().await;
    let command = Command::new("x").output_limit_bytes(1000);
    let serving = async {
        agent.next().await.unwrap();
        agent.send(&attached(1)).await;
        for _ in 0..3 {
            agent
                .send(&Frame::new(FrameType::STDOUT, 1, vec![0; 600]))
                .await;
        }
    };
    let (result, ()) = within(async { tokio::join!(exec(&link, &command), serving) }).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Protocol);
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

/// More than anything that is bounded here, less than what a flood would leave.
const MEMORY_GROWTH: u64 = 80 << 20;

#[tokio::test]
async fn a_window_in_single_bytes_costs_little_more_than_a_window() {
    let (link, mut agent) = Agent::connected().await;
    let stream = link.open(&Request::Ping).await.unwrap();
    let before = resident_bytes();
    let mut some = BytesMut::new();
    for _ in 0..4096 {
        Frame::new(FrameType::STDOUT, 1, "x").encode_into(&mut some);
        Frame::new(FrameType::STDOUT, 1, "").encode_into(&mut some);
    }
    for _ in 0..INITIAL_WINDOW / 4096 {
        within(agent.raw(&some)).await;
    }
    agent
        .send(&Frame::new(FrameType::STDOUT, 1, "").with_end())
        .await;
    let mut length = 0;
    assert!(resident_bytes() < before + MEMORY_GROWTH);
    while let Some(chunk) = within(stream.chunk(Channel::Stdout)).await.unwrap() {
        length += chunk.len();
    }
    assert_eq!(length, INITIAL_WINDOW as usize);
}

#[tokio::test]
async fn floods_that_are_within_the_rules_cost_no_memory() {
    let update = WindowUpdate {
        channel: FrameType::STDIN,
        credit: 1 << 30,
    }
    .encode();
    for frame in [
        Frame::new(FrameType::HEARTBEAT, 0, vec![0; 64]),
        Frame::new(FrameType(0x7f), 0, ""),
        Frame::new(FrameType(0x7f), 1, ""),
        Frame::new(FrameType::RPC_REQUEST, 0, ""),
        Frame::new(FrameType::STDIN, 1, "x"),
        Frame::new(FrameType::STDOUT, 1, ""),
        Frame::new(FrameType::WINDOW_UPDATE, 1, update.to_vec()),
        Frame::new(FrameType::RPC_RESPONSE, 1, Response::Done.to_body()),
        Frame::new(
            FrameType::RPC_ERROR,
            1,
            ErrorBody::new(blink_wire::ErrorKind::Busy, "x".repeat(1000)).to_body(),
        ),
    ] {
        let (link, mut agent) = Agent::connected().await;
        let _stream = link.open(&Request::Ping).await.unwrap();
        let before = resident_bytes();
        let mut some = BytesMut::new();
        for _ in 0..1000 {
            frame.encode_into(&mut some);
        }
        // It never reads what the host answers.
        for _ in 0..100 {
            within(agent.raw(&some)).await;
        }
        assert!(resident_bytes() < before + MEMORY_GROWTH, "{frame:?}");
        assert!(link.outbox().backlog() < 4 << 20, "{frame:?}");
        if let Some(error) = link.dead() {
            assert_eq!(error.kind(), ErrorKind::Protocol, "{frame:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_type_is_answered_and_the_link_goes_on() {
    let (link, mut agent) = Agent::connected().await;
    agent.send(&Frame::new(FrameType(0x7e), 0, "new")).await;
    let answer = within(agent.next()).await.unwrap();
    assert_eq!(
        (answer.frame_type, answer.request_id),
        (FrameType::ERROR, 0)
    );
    let serving = async {
        let id = agent.next().await.unwrap().request_id;
        agent
            .send(&Frame::new(
                FrameType::RPC_RESPONSE,
                id,
                Response::Done.to_body(),
            ))
            .await;
    };
    let (answer, ()) = within(async { tokio::join!(link.call(&Request::Ping), serving) }).await;
    assert_eq!(answer.unwrap(), Response::Done);
}

#[tokio::test]
async fn an_agent_that_never_answers_the_handshake_is_given_up() {
    let (io, mut agent) = Agent::pair();
    let connecting = Link::connect(io, Duration::from_millis(50), options());
    let error = within(connecting).await.err().expect("it cannot succeed");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    // The connection is closed, not left to wait for ever.
    within(agent.drain()).await;
}

#[tokio::test]
async fn a_first_frame_that_is_no_handshake_is_a_broken_rule() {
    let mut reversed = hello(VERSION);
    reversed.request_id = 1;
    for frame in [
        Frame::new(FrameType::HEARTBEAT, 0, ""),
        Frame::new(FrameType::STDOUT, 1, "x"),
        Frame::new(FrameType::HANDSHAKE, 0, "no message"),
        Frame::new(FrameType::HANDSHAKE, 0, ""),
        Frame::new(FrameType::ERROR, 0, "no message"),
        Frame::new(FrameType::ERROR, 1, refusal().to_body()),
        Frame::new(FrameType::RPC_RESPONSE, 0, Response::Done.to_body()),
        hello(VERSION + 1),
        hello(0),
        reversed,
    ] {
        let (io, mut agent) = Agent::pair();
        agent.send(&frame).await;
        let error = within(Link::connect(io, DEADLINE, options()))
            .await
            .err()
            .expect("it cannot succeed");
        assert_eq!(error.kind(), ErrorKind::Protocol, "{frame:?}: {error:?}");
        within(agent.drain()).await;
    }
}

fn refusal() -> ErrorBody {
    ErrorBody::new(blink_wire::ErrorKind::ResourceExhausted, "too many links")
}

#[tokio::test]
async fn an_agent_that_refuses_a_link_says_why() {
    let (io, mut agent) = Agent::pair();
    agent
        .send(&Frame::new(FrameType::ERROR, 0, refusal().to_body()))
        .await;
    let error = within(Link::connect(io, DEADLINE, options()))
        .await
        .err()
        .expect("it cannot succeed");
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
    assert!(error.message().contains("too many links"), "{error:?}");
    within(agent.drain()).await;
}

#[tokio::test]
async fn an_agent_that_closes_at_any_point_fails_everything() {
    // Before, in and after the handshake.
    let greeting = encoded(&hello(VERSION));
    for length in 0..greeting.len() {
        let (io, mut agent) = Agent::pair();
        agent.raw(&greeting[..length]).await;
        drop(agent);
        let error = within(Link::connect(io, DEADLINE, options()))
            .await
            .err()
            .expect("it cannot succeed");
        assert_eq!(error.kind(), ErrorKind::SandboxDied, "{length}: {error:?}");
    }
    // In the middle of a conversation.
    let mut talk = encoded(&attached(3));
    talk.extend(encoded(&Frame::new(FrameType::STDOUT, 3, "some output")));
    talk.extend(encoded(&Frame::new(FrameType::STDERR, 3, "").with_end()));
    for length in 0..=talk.len() {
        let (link, mut agent) = Agent::connected().await;
        all_fail(
            &link,
            &mut agent,
            async |agent: &mut Agent| {
                agent.raw(&talk[..length]).await;
                let _ = agent.io.shutdown().await;
            },
            &[ErrorKind::SandboxDied],
        )
        .await;
    }
}

#[tokio::test]
async fn an_agent_that_reads_nothing_holds_up_nobody_for_ever() {
    let (link, agent) = Agent::connected().await;
    let command = Command::new("x").stdin_bytes(vec![0; 3 << 20]);
    let running = exec(&link, &command);
    let closing = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        link.close(Error::new(ErrorKind::SandboxDied, "closed"));
    };
    let (result, ()) = within(async { tokio::join!(running, closing) }).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::SandboxDied);
    drop(agent);
}

#[tokio::test]
async fn the_last_handle_closes_the_connection() {
    let (link, mut agent) = Agent::connected().await;
    let stream = link.open(&Request::Ping).await.unwrap();
    drop(link);
    assert_eq!(
        within(agent.next()).await.unwrap().frame_type,
        FrameType::RPC_REQUEST
    );
    drop(stream);
    within(agent.drain()).await;
}

#[tokio::test]
async fn numbers_at_their_ends_are_taken_as_they_are() {
    for (code, signal) in [
        (Some(0), None),
        (Some(i32::MIN), None),
        (None, Some(i32::MAX)),
        (None, Some(i32::MIN)),
        (None, None),
    ] {
        let (link, mut agent) = Agent::connected().await;
        let wild = ExitReport {
            code,
            signal,
            timed_out: true,
            stdout_bytes: u64::MAX,
            stderr_bytes: u64::MAX,
            duration_us: u64::MAX,
            ..report()
        };
        let command = Command::new("x");
        let serving = async {
            agent.next().await.unwrap();
            agent.send(&attached(1)).await;
            agent.send(&exit(1, &wild)).await;
        };
        let (output, ()) = within(async { tokio::join!(exec(&link, &command), serving) }).await;
        let output = output.unwrap();
        assert!(!output.status.success() && output.truncated());
        assert_ne!(output.status.code, 0, "it did not end by itself");
        assert!(!output.check_limits().unwrap_err().message().is_empty());
    }
    let (link, mut agent) = Agent::connected().await;
    let spawn = Command::new("x")
        .to_spawn(&Defaults::default(), true)
        .unwrap();
    let starting =
        process::Process::start(&link, Request::Spawn(spawn), true, Isolation::Namespace);
    let serving = async {
        agent.next().await.unwrap();
        let wild = Attached {
            process: ProcessId(u64::MAX),
            pid: u32::MAX,
            stdout_offset: u64::MAX,
            stderr_offset: u64::MAX,
        };
        agent
            .send(&Frame::new(
                FrameType::RPC_RESPONSE,
                1,
                Response::Attached(wild).to_body(),
            ))
            .await;
        agent
            .send(&Frame::new(FrameType::STDOUT, 1, "output"))
            .await;
    };
    let (process, ()) = within(async { tokio::join!(starting, serving) }).await;
    let mut stdout = process.unwrap().take_stdout().unwrap();
    assert_eq!(
        &within(stdout.chunk()).await.unwrap().unwrap()[..],
        b"output"
    );
    assert_eq!(stdout.offset(), u64::MAX);
}

#[tokio::test]
async fn an_answer_of_another_kind_is_a_broken_rule() {
    let (link, mut agent) = Agent::connected().await;
    let files = Files::new(link.clone());
    let command = Command::new("x");
    let serving = async {
        for _ in 0..3 {
            let id = agent.next_request().await;
            agent
                .send(&Frame::new(
                    FrameType::RPC_RESPONSE,
                    id,
                    Response::Processes(Vec::new()).to_body(),
                ))
                .await;
            agent
                .send(&Frame::new(FrameType::STREAM_DATA, id, "").with_end())
                .await;
        }
    };
    let calls = async {
        assert_eq!(
            exec(&link, &command).await.unwrap_err().kind(),
            ErrorKind::Protocol
        );
        assert_eq!(
            files.stat("/x").await.unwrap_err().kind(),
            ErrorKind::Protocol
        );
        assert!(files.read("/x").await.is_err());
    };
    within(async { tokio::join!(calls, serving) }).await;
}

#[tokio::test]
async fn a_listing_that_is_none_and_a_file_that_changed_on_the_way_are_told() {
    for (data, kind) in [
        (&b"\xff\xff"[..], ErrorKind::Protocol),
        (b"\x05\x00abcde", ErrorKind::Protocol),
        (b"\x00\x00", ErrorKind::Protocol),
    ] {
        let (link, mut agent) = Agent::connected().await;
        let files = Files::new(link.clone());
        let serving = async {
            agent.next().await.unwrap();
            let mut crc = crc32fast::Hasher::new();
            crc.update(data);
            let trailer = Trailer {
                bytes: data.len() as u64,
                crc32: crc.finalize(),
            };
            agent
                .send(&Frame::new(FrameType::STREAM_DATA, 1, data.to_vec()))
                .await;
            agent
                .send(&Frame::new(FrameType::STREAM_DATA, 1, trailer.to_body()).with_end())
                .await;
            agent
                .send(&Frame::new(
                    FrameType::RPC_RESPONSE,
                    1,
                    Response::Done.to_body(),
                ))
                .await;
        };
        let (listed, ()) = within(async { tokio::join!(files.list("/x"), serving) }).await;
        assert_eq!(listed.unwrap_err().kind(), kind, "{data:?}");
    }
    let (link, mut agent) = Agent::connected().await;
    let files = Files::new(link.clone());
    let serving = async {
        agent.next().await.unwrap();
        agent
            .send(&Frame::new(FrameType::STREAM_DATA, 1, "content"))
            .await;
        let trailer = Trailer { bytes: 7, crc32: 1 };
        agent
            .send(&Frame::new(FrameType::STREAM_DATA, 1, trailer.to_body()).with_end())
            .await;
        agent
            .send(&Frame::new(
                FrameType::RPC_RESPONSE,
                1,
                Response::Done.to_body(),
            ))
            .await;
    };
    let (read, ()) = within(async { tokio::join!(files.read("/x"), serving) }).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// An answer, whatever it is.
async fn answers<T>(what: &str, call: impl Future<Output = Result<T>>) {
    if tokio::time::timeout(PATIENCE / 2, call).await.is_err() {
        panic!("{what} hangs");
    }
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 0..64),
        Just(vec![7; 1 << 17]),
        Just(Response::Done.to_body().to_vec()),
        Just(attached(1).body.to_vec()),
        any::<(Option<i32>, Option<i32>, u64)>().prop_map(|(code, signal, count)| {
            ExitReport {
                code,
                signal,
                stdout_bytes: count,
                duration_us: count,
                ..report()
            }
            .to_body()
            .to_vec()
        }),
        any::<(u64, u32)>().prop_map(|(bytes, crc32)| Trailer { bytes, crc32 }.to_body().to_vec()),
        any::<u32>().prop_map(|credit| WindowUpdate {
            channel: FrameType::STDIN,
            credit: credit.max(1)
        }
        .encode()
        .to_vec()),
        Just(
            ErrorBody::new(blink_wire::ErrorKind::Busy, "busy")
                .to_body()
                .to_vec()
        ),
        Just(hello(VERSION).body.to_vec()),
    ]
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let types = prop_oneof![
        8 => prop::sample::select(vec![0x02, 0x03, 0x04, 0x11, 0x12, 0x20, 0x30, 0x31, 0x33_u8]),
        1 => any::<u8>(),
    ];
    let ids = prop_oneof![10 => 0..6_u64, 1 => any::<u64>()];
    (types, any::<bool>(), ids, any_body()).prop_map(|(frame_type, end, request_id, body)| Frame {
        frame_type: FrameType(frame_type),
        end,
        request_id,
        body: Bytes::from(body),
    })
}

mod load;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_end_in_an_answer(frames in proptest::collection::vec(any_frame(), 0..40), cut in 0..64_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (link, mut agent) = Agent::connected().await;
            let files = Files::new(link.clone());
            let command = Command::new("x").stdin_bytes(vec![0; 2 << 20]);
            let serving = async {
                for frame in &frames {
                    agent.send(frame).await;
                }
                // It ends in the middle of a frame.
                let last = encoded(&Frame::new(FrameType::STDOUT, 1, vec![0; 64]));
                agent.raw(&last[..cut]).await;
                let _ = agent.io.shutdown().await;
                agent.drain().await;
            };
            within(async {
                tokio::join!(
                    answers("a program", exec(&link, &command)),
                    answers("a file", files.read("/x")),
                    answers("a write", files.write("/x", vec![0; 2 << 20])),
                    answers("a call", link.call(&Request::Ping)),
                    answers("a list", files.list("/x")),
                    serving,
                )
            })
            .await;
            prop_assert!(link.dead().is_some());
            Ok(())
        })?;
    }

    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300), greeted in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (io, mut agent) = Agent::pair();
            if greeted {
                agent.send(&hello(VERSION)).await;
            }
            agent.raw(&bytes).await;
            agent.io.shutdown().await.unwrap();
            if let Ok(link) = within(Link::connect(io, DEADLINE, options())).await {
                let error = within(link.call(&Request::Ping)).await.unwrap_err();
                prop_assert!([ErrorKind::Protocol, ErrorKind::SandboxDied].contains(&error.kind()));
            }
            Ok(())
        })?;
    }
}
