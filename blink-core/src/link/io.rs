//! The two tasks of a link.

use std::io::IoSlice;
use std::sync::Weak;

use blink_host::lock;
use blink_wire::{
    Decoder, ErrorBody, ExitReport, Frame, FrameType, Hello, LINK_BODY_LIMIT, Message, Response,
    WindowUpdate,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Shared;
use super::deadline::Kind;
use super::inbox::{Inbox, Violation};
use super::outbox::{Next, Outbox};

/// While more than this waits to be sent, what only the guest asked for goes unanswered: a guest that asks and does not
/// read must not fill the host's memory.
const BACKLOG_BYTES: usize = 1 << 20;

/// How a link ended.
pub(crate) enum Ended {
    /// The guest broke a rule.
    Protocol(String),
    /// The other end is gone.
    Closed(String),
    /// Nobody uses the link any more.
    Dropped,
}

/// Reads until the end, sorting frames into their inboxes.
pub(crate) async fn read(
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    shared: &Weak<Shared>,
) -> Ended {
    let mut decoder = Decoder::new(LINK_BODY_LIMIT);
    loop {
        decoder.reserve();
        match reader.read_buf(decoder.buffer_mut()).await {
            Ok(0) => return Ended::Closed("its link was closed".into()),
            Ok(_) => {}
            Err(error) => return Ended::Closed(error.to_string()),
        }
        let Some(shared) = shared.upgrade() else {
            return Ended::Dropped;
        };
        shared.clock.heard();
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    if let Err(message) = shared.receive(frame) {
                        return Ended::Protocol(message);
                    }
                }
                Ok(None) => break,
                Err(error) => return Ended::Protocol(error.to_string()),
            }
        }
    }
}

/// Writes until the outbox closes.
pub(crate) async fn write(
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
    outbox: &Outbox,
) -> std::io::Result<()> {
    while let Some(next) = outbox.next().await {
        match next {
            Next::Control(frames) => writer.write_all(&frames).await?,
            Next::Bulk(bulk) => {
                let parts = [IoSlice::new(&bulk.header), IoSlice::new(&bulk.body)];
                let written = writer.write_vectored(&parts).await?;
                let in_header = written.min(bulk.header.len());
                writer.write_all(&bulk.header[in_header..]).await?;
                writer.write_all(&bulk.body[written - in_header..]).await?;
            }
        }
        writer.flush().await?;
    }
    writer.shutdown().await
}

impl Shared {
    /// Takes one frame from the guest; an error is a broken rule.
    fn receive(&self, frame: Frame) -> Result<(), String> {
        let id = frame.request_id;
        if self.agent.get().is_none() {
            return self.greeted(&frame);
        }
        if id == 0 {
            return self.receive_for_connection(&frame);
        }
        let Some(inbox) = lock(&self.routes).get(&id).cloned() else {
            // What was under way when a request was given up.
            return if id < self.next_id.load(std::sync::atomic::Ordering::Relaxed) {
                Ok(())
            } else {
                Err(format!(
                    "a frame came for request {id}, which was never made"
                ))
            };
        };
        let broken = |Violation(what): Violation| format!("{what} (request {id})");
        match frame.frame_type {
            FrameType::RPC_RESPONSE => {
                let response = parse::<Response>(&frame)?;
                self.answered(&inbox, Ok(response));
            }
            FrameType::RPC_ERROR => {
                let error = parse::<ErrorBody>(&frame)?;
                self.answered(&inbox, Err(error.into()));
            }
            FrameType::ERROR => inbox.fail(parse::<ErrorBody>(&frame)?.into()),
            FrameType::STDOUT | FrameType::STDERR => {
                let channel = usize::from(frame.frame_type == FrameType::STDERR);
                let credit = inbox.push(channel, frame.body, frame.end).map_err(broken)?;
                self.give_credit(id, frame.frame_type, credit);
            }
            FrameType::STREAM_DATA if frame.end && !frame.body.is_empty() => {
                inbox.push_trailer(frame.body).map_err(broken)?;
            }
            FrameType::STREAM_DATA => {
                let credit = inbox.push(0, frame.body, frame.end).map_err(broken)?;
                self.give_credit(id, FrameType::STREAM_DATA, credit);
            }
            FrameType::EXIT => {
                let report = parse::<ExitReport>(&frame)?;
                if inbox.has_exited() {
                    return Err(format!("a process exited twice (request {id})"));
                }
                inbox.set_exit(report);
            }
            FrameType::WINDOW_UPDATE => {
                let update =
                    WindowUpdate::decode(&frame.body).map_err(|error| error.to_string())?;
                inbox.add_send_window(update.credit);
            }
            other => self.refuse(id, other),
        }
        Ok(())
    }

    fn receive_for_connection(&self, frame: &Frame) -> Result<(), String> {
        match frame.frame_type {
            FrameType::HEARTBEAT if self.clock.is_own_beat(&frame.body) => Ok(()),
            FrameType::HEARTBEAT => {
                self.answer(FrameType::HEARTBEAT, 0, &frame.body);
                Ok(())
            }
            FrameType::ERROR => Err(format!(
                "it reports an error: {}",
                parse::<ErrorBody>(frame)?.message
            )),
            FrameType::HANDSHAKE => Err("a second handshake came".into()),
            other => {
                self.refuse(0, other);
                Ok(())
            }
        }
    }

    /// The first frame of the agent.
    fn greeted(&self, frame: &Frame) -> Result<(), String> {
        match (frame.request_id, frame.frame_type) {
            (0, FrameType::HANDSHAKE) => {}
            // It takes no more links: that is no fault of the one that stands.
            (0, FrameType::ERROR) => {
                let error = parse::<ErrorBody>(frame)?;
                let reason = format!("it reports an error: {}", error.message);
                self.fail(error.into());
                return Err(reason);
            }
            _ => return Err("its first frame is not a handshake".into()),
        }
        let hello = parse::<Hello>(frame)?;
        if hello.protocol != blink_wire::VERSION {
            return Err(format!(
                "it speaks version {} of the protocol, not {}",
                hello.protocol,
                blink_wire::VERSION
            ));
        }
        let _ = self.agent.set(hello);
        if let Some(greeting) = lock(&self.routes).remove(&0) {
            greeting.set_response(Ok(Response::Done), self.clock.now());
        }
        Ok(())
    }

    fn answered(&self, inbox: &Inbox, response: crate::Result<Response>) {
        if matches!(inbox.kind(), Kind::Spawn(_)) {
            self.clock.started();
        }
        inbox.set_response(response, self.clock.now());
    }

    /// A type that this host does not know is answered, not punished: the agent may be newer.
    fn refuse(&self, id: u64, frame_type: FrameType) {
        let error = ErrorBody::new(
            blink_wire::ErrorKind::Unsupported,
            format!("this host does not know frames of type {frame_type:?}"),
        );
        self.answer(FrameType::ERROR, id, &error.to_body());
    }

    fn answer(&self, frame_type: FrameType, id: u64, body: &[u8]) {
        if self.outbox.backlog() < BACKLOG_BYTES {
            self.outbox.control(frame_type, id, false, body, None);
        }
    }

    fn give_credit(&self, id: u64, channel: FrameType, credit: u32) {
        if credit > 0 {
            self.outbox.control(
                FrameType::WINDOW_UPDATE,
                id,
                false,
                &WindowUpdate { channel, credit }.encode(),
                None,
            );
        }
    }
}

fn parse<M: Message>(frame: &Frame) -> Result<M, String> {
    M::from_body(&frame.body).map_err(|error| error.to_string())
}
