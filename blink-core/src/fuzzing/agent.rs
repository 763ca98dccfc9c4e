//! The host's end of the link against an agent that says whatever it likes while all kinds of calls are under way.

use std::time::Duration;

use blink_wire::{
    Address, Decoder, Frame, FrameType, Hello, LINK_BODY_LIMIT, Message, Request, VERSION,
};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::task::JoinSet;

use super::ENDS;
use crate::command::{Command, Defaults};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::isolation::Isolation;
use crate::link::{Link, LinkIo, Obituary, Options};
use crate::process::{self, Process};

/// More than any call needs once its link has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than a window, so that whoever sends it waits for the agent.
const INPUT_BYTES: usize = 3 << 20;

const CALLS: u64 = 9;

/// Fewer than there are calls: the rest wait for their turn.
const FEW: usize = 4;

const TYPES: [FrameType; 14] = [
    FrameType::RPC_RESPONSE,
    FrameType::RPC_ERROR,
    FrameType::STREAM_DATA,
    FrameType::STDOUT,
    FrameType::STDERR,
    FrameType::EXIT,
    FrameType::WINDOW_UPDATE,
    FrameType::ERROR,
    FrameType::HEARTBEAT,
    FrameType::HANDSHAKE,
    FrameType::RPC_REQUEST,
    FrameType::STDIN,
    FrameType::TTY_RESIZE,
    FrameType(0x7f),
];

/// What the agent does next. The script is made of these:
///
/// | first byte | what follows | |
/// |---|---|---|
/// | 0 to 13 | number of the request, with bit 7 for END; length of the body, two bytes; the body | a frame |
/// | 14 | number of bytes, two bytes; the bytes | bytes that need not be a frame |
/// | 15 | type; number of the request; count | so many frames of 60 KiB each |
/// | 16 | number of the call | its caller gives it up |
/// | others | | what is under way goes on |
enum Step<'a> {
    Frame(Frame),
    Bytes(&'a [u8]),
    Flood(FrameType, u64, u8),
    GiveUp(u8),
    Pause,
}

struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn counted(&mut self) -> &'a [u8] {
        let length = u16::from_le_bytes([self.byte(), self.byte()]);
        self.take(length.into())
    }
}

impl<'a> Iterator for Script<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let first = self.byte();
        Some(match first {
            0..=13 => {
                let number = self.byte();
                let mut frame = Frame::new(
                    TYPES[usize::from(first)],
                    u64::from(number & 0x7f),
                    self.counted().to_vec(),
                );
                frame.end = number & 0x80 != 0;
                Step::Frame(frame)
            }
            14 => Step::Bytes(self.counted()),
            15 => {
                let frame_type = TYPES[usize::from(self.byte()) % TYPES.len()];
                Step::Flood(frame_type, self.byte().into(), self.byte())
            }
            16 => Step::GiveUp(self.byte()),
            _ => Step::Pause,
        })
    }
}

/// Lets an agent follow a script, and then be gone. Of the script's first byte, bit 0 says that the agent does not read what
/// the host sends, and bit 1 that calls wait for their turn.
///
/// # Panics
/// Where a call does not end with its link, or the link not with its agent; or by an error of another kind.
pub fn agent(script: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("there is room for a runtime");
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, follow(script))
            .await
            .expect("whatever an agent says, all calls end when it is gone");
    });
}

async fn follow(script: &[u8]) {
    let mut script = Script(script);
    let settings = script.byte();
    let reads = settings & 1 == 0;
    let obituary: Obituary = Box::new(|reason| {
        Box::pin(async move { Error::new(crate::ErrorKind::SandboxDied, reason) })
    });
    let mut options = Options::new(obituary, Box::new(|| {}));
    if settings & 2 != 0 {
        options.requests = FEW;
    }
    let (host, agent) = tokio::io::duplex(1 << 16);
    let (link, mut from_host, mut to_host) = greet(host, agent, options).await;
    let mut calls = JoinSet::new();
    let mut handles = Vec::new();
    for number in 0..CALLS {
        handles.push(calls.spawn(call(link.clone(), number)));
    }
    tokio::task::yield_now().await;
    let reading = tokio::spawn(async move {
        let mut rest = vec![0; 1 << 16];
        while reads && from_host.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        from_host
    });
    for step in script {
        match step {
            Step::Frame(frame) => send(&mut to_host, &frame, 1).await,
            Step::Bytes(bytes) => {
                let _ = to_host.write_all(bytes).await;
            }
            Step::Flood(frame_type, number, count) => {
                let frame = Frame::new(frame_type, number, vec![0; 60 << 10]);
                send(&mut to_host, &frame, count).await;
            }
            Step::GiveUp(number) => {
                if let Some(call) = handles.get(usize::from(number)) {
                    call.abort();
                }
            }
            Step::Pause => {
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    reading.abort();
    drop((reading.await, to_host));
    link.ended().await;
    check(link.dead().expect("it has ended"));
    while let Some(ended) = calls.join_next().await {
        match ended {
            Ok(()) => {}
            Err(error) => assert!(error.is_cancelled(), "a call panicked: {error}"),
        }
    }
    let later = link.call(&Request::Ping).await;
    check(&later.expect_err("the link has ended"));
}

fn check(error: &Error) {
    assert!(ENDS.contains(&error.kind()), "{error:?}");
}

async fn greet(
    host: DuplexStream,
    agent: DuplexStream,
    options: Options,
) -> (Link, ReadHalf<DuplexStream>, WriteHalf<DuplexStream>) {
    let (reader, writer) = tokio::io::split(host);
    let (mut from_host, mut to_host) = tokio::io::split(agent);
    let io = LinkIo {
        reader: Box::new(reader),
        writer: Box::new(writer),
    };
    let connecting = Link::connect(io, PATIENCE, options);
    let greeting = async {
        let mut decoder = Decoder::new(LINK_BODY_LIMIT);
        while !matches!(decoder.next_frame(), Ok(Some(_))) {
            decoder.reserve();
            from_host
                .read_buf(decoder.buffer_mut())
                .await
                .expect("the host greets");
        }
        let hello = Hello {
            protocol: VERSION,
            program: "hostile".into(),
            capabilities: Vec::new(),
            boot_id: "0".into(),
        };
        let frame = Frame::new(FrameType::HANDSHAKE, 0, hello.to_body());
        send(&mut to_host, &frame, 1).await;
    };
    let (link, ()) = tokio::join!(connecting, greeting);
    (link.expect("the agent has greeted"), from_host, to_host)
}

/// The host may have cut the link off before it takes everything.
async fn send(to_host: &mut WriteHalf<DuplexStream>, frame: &Frame, count: u8) {
    let mut bytes = BytesMut::new();
    frame.encode_into(&mut bytes);
    for _ in 0..count {
        if to_host.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// One of each kind. Whether an agent that does as it likes lets it succeed is no matter.
async fn call(link: Link, number: u64) {
    let files = Files::new(link.clone());
    let _: Result<()> = match number {
        0 => run(&link).await,
        1 => follow_output(&link).await,
        2 => files.read("/x").await.map(drop),
        3 => files.write("/x", vec![0; INPUT_BYTES]).await,
        4 => files.list("/x").await.map(drop),
        5 => files.stat("/x").await.map(drop),
        6 => connect(&link).await,
        7 => link.call(&Request::Ping).await.map(drop),
        _ => files.remove_all("/x").await,
    };
}

fn spawn() -> (Command, Request) {
    let command = Command::new("x").stdin_bytes(vec![0; INPUT_BYTES]);
    let spawn = command
        .to_spawn(&Defaults::default(), false)
        .expect("the command is in order");
    (command, Request::Spawn(spawn))
}

async fn run(link: &Link) -> Result<()> {
    let (command, request) = spawn();
    process::run(link, &command, request, Isolation::Namespace)
        .await
        .map(drop)
}

async fn follow_output(link: &Link) -> Result<()> {
    let mut process = Process::start(link, spawn().1, true, Isolation::Namespace).await?;
    let mut stdin = process.take_stdin().expect("it is piped");
    let mut stdout = process.take_stdout().expect("it was not taken");
    stdin.write(vec![0; 1000]).await?;
    while stdout.chunk().await?.is_some() {}
    process.wait().await.map(drop)
}

async fn connect(link: &Link) -> Result<()> {
    let address = Address::Tcp("localhost".into(), 80);
    let connection = Connection::open(link, address).await?;
    let (mut from, mut to) = tokio::io::split(connection);
    let mut sink = tokio::io::sink();
    let (sent, read) = tokio::join!(
        async {
            to.write_all(&vec![0; INPUT_BYTES]).await?;
            to.shutdown().await
        },
        tokio::io::copy(&mut from, &mut sink),
    );
    let broken = |error| Error::io("the connection", &error);
    sent.map_err(broken)?;
    read.map(drop).map_err(broken)
}
