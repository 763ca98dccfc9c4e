//! The host's end of a link against whatever an agent sends, for a fuzzer.

use std::time::Duration;

use blink_wire::{
    Frame, FrameType, Hello, Message, PathOptions, ProcessId, Request, Spawn, VERSION,
};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Channel, Link, LinkIo, Options};
use crate::error::{Error, ErrorKind};

/// Nothing takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives a link these bytes, after a greeting, while requests of each kind are under way; the connection ends behind them.
///
/// # Panics
/// Where a request is not over by then, or the link is not.
pub fn feed_link(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime of one thread needs one descriptor or two");
    let feeding = async { tokio::time::timeout(PATIENCE, feed(bytes)).await };
    runtime
        .block_on(feeding)
        .expect("the link waits for what cannot come");
}

async fn feed(bytes: &[u8]) {
    let (host, mut agent) = tokio::io::duplex(1 << 16);
    let (reader, writer) = tokio::io::split(host);
    let io = LinkIo {
        reader: Box::new(reader),
        writer: Box::new(writer),
    };
    let obituary: super::Obituary =
        Box::new(|reason| Box::pin(async move { Error::new(ErrorKind::SandboxDied, reason) }));
    let options = Options {
        requests: 4,
        ..Options::new(obituary, Box::new(|| {}))
    };
    let hello = Hello {
        protocol: VERSION,
        program: String::new(),
        capabilities: vec![Hello::REQUEST_PARTS.into()],
        boot_id: String::new(),
    };
    let mut greeting = BytesMut::new();
    Frame::new(FrameType::HANDSHAKE, 0, hello.to_body()).encode_into(&mut greeting);
    let connecting = Link::connect(io, PATIENCE, options);
    let greeted = async {
        // It is read by the link, which is there.
        let _ = agent.write_all(&greeting).await;
    };
    let (link, ()) = tokio::join!(connecting, greeted);
    let Ok(link) = link else { return };
    let path = || PathOptions {
        path: b"/".to_vec().into(),
        follow: false,
    };
    let requests = [
        Request::Spawn(Spawn::default()),
        Request::Stat(path()),
        Request::List(path()),
        Request::Wait(ProcessId(1)),
        Request::Ping,
        // These two wait for a turn.
        Request::Stat(path()),
        Request::Spawn(Spawn::default()),
    ];
    let calls = requests.iter().map(|request| async {
        let Ok(stream) = link.open(request).await else {
            return;
        };
        let _ = stream.opened().await;
        for channel in [Channel::Data, Channel::Stderr] {
            while let Ok(Some(_)) = stream.chunk(channel).await {}
        }
        let _ = stream.exit().await;
    });
    let calls = async {
        let mut calls: Vec<_> = calls.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
            match calls.is_empty() {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
    };
    let serving = async {
        // The link may have cut it off before.
        let _ = agent.write_all(bytes).await;
        let _ = agent.shutdown().await;
        let _ = agent.read_to_end(&mut Vec::new()).await;
    };
    tokio::join!(calls, serving);
    link.ended().await;
}
