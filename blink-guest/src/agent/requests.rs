//! What comes in over a link: frames, and the requests in them.

use blink_wire::{
    Adjust, ErrorBody, ErrorKind, Frame, FrameType, Hello, Limit, Message, ProcessId, Request,
    Response, Spawn, TtySize, VERSION, WindowUpdate,
};
use bytes::Bytes;

use super::Agent;
use crate::link::{Broken, Link};
use crate::process::Started;
use crate::process::queue::STARTS_PER_TURN;
use crate::stream::{Caller, Stream};
use crate::{files, freeze, names};

impl Agent {
    pub(super) fn handle_frame(&mut self, id: u64, frame: Frame) -> Result<(), Broken> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        if !link.greeted {
            return greet(link, &frame, &self.boot_id);
        }
        let request = frame.request_id;
        let caller = Caller { link: id, request };
        match frame.frame_type {
            FrameType::HEARTBEAT => link.send(FrameType::HEARTBEAT, request, false, &frame.body),
            FrameType::RPC_PART => {
                if !link.push_part(request, &frame.body) {
                    return Err(protocol_error(link, "the parts of requests are too long"));
                }
            }
            FrameType::RPC_REQUEST => {
                match Request::from_body(&link.take_parts(request, frame.body)) {
                    Ok(asked) => self.handle_request(caller, asked),
                    Err(error) => link.fail(
                        request,
                        &ErrorBody::new(ErrorKind::Unsupported, error.to_string()),
                    ),
                }
            }
            FrameType::ERROR => {
                drop(link.take_parts(request, Bytes::new()));
                if let Some(stream) = link.streams.remove(&request) {
                    self.end_stream(caller, stream);
                }
            }
            FrameType::WINDOW_UPDATE => {
                let update = WindowUpdate::decode(&frame.body)
                    .map_err(|error| protocol_error(link, &error.to_string()))?;
                self.add_window(caller, update);
            }
            FrameType::TTY_RESIZE => {
                let Ok(size) = TtySize::decode(&frame.body) else {
                    return Ok(());
                };
                let processes = &mut self.sources.processes;
                match link.streams.get(&request) {
                    Some(Stream::Waiting) => processes.queue.resize(caller, size),
                    Some(Stream::Process(process)) => processes.resize(*process, size),
                    _ => {}
                }
            }
            FrameType::STDIN | FrameType::STREAM_DATA => {
                // Data for a stream that is over crossed its end on the way.
                let Some(&stream) = link.streams.get(&request) else {
                    return Ok(());
                };
                let within = match stream {
                    Stream::Waiting => {
                        let queue = &mut self.sources.processes.queue;
                        queue.push_input(caller, frame.body, frame.end)
                    }
                    Stream::Process(process) => self
                        .sources
                        .processes
                        .push_stdin(process, frame.body, frame.end),
                    Stream::End(_) => false,
                    Stream::Job(job) => self.sources.jobs.push(job, frame.body, frame.end),
                    Stream::Connection(connection) => self
                        .sources
                        .connections
                        .push(connection, frame.body, frame.end),
                };
                if !within {
                    return Err(protocol_error(
                        link,
                        "more data came than the stream's window allows",
                    ));
                }
            }
            other => {
                let message = format!("this agent does not know frames of type {other:?}");
                link.send_error(request, &ErrorBody::new(ErrorKind::Unsupported, message));
            }
        }
        Ok(())
    }

    fn add_window(&mut self, caller: Caller, update: WindowUpdate) {
        let stream = self
            .links
            .get(&caller.link)
            .and_then(|link| link.streams.get(&caller.request))
            .copied();
        match stream {
            Some(Stream::Process(process)) => {
                self.sources
                    .processes
                    .add_window(process, update.channel, update.credit)
            }
            Some(Stream::Job(job)) => self.sources.jobs.add_window(job, update.credit),
            Some(Stream::Connection(connection)) => self
                .sources
                .connections
                .add_window(connection, update.credit),
            Some(Stream::Waiting | Stream::End(_)) | None => return,
        }
        if let Some(link) = self.links.get_mut(&caller.link) {
            link.mark_ready(caller.request);
        }
    }

    /// The name first: it is what may fail.
    fn adjust(&self, ask: &Adjust) -> Result<(), ErrorBody> {
        let limited = self.sources.jobs.wake();
        if ask.memory_bytes.is_some() && !limited.watches_memory() {
            return Err(ErrorBody::new(
                ErrorKind::Unsupported,
                "this agent watches over no memory",
            ));
        }
        if let Some(name) = &ask.host_name {
            names::change_to(name).map_err(|error| {
                let message = format!("this agent cannot change the host name: {error}");
                ErrorBody::new(ErrorKind::Unsupported, message)
            })?;
        }
        if let Some(bytes) = ask.memory_bytes {
            limited.limit_memory(bytes);
        }
        Ok(())
    }

    fn handle_request(&mut self, caller: Caller, request: Request) {
        let opened = match request {
            Request::Ping => Ok((Some(Response::Done), None)),
            Request::Freeze => freeze::freeze().map(|()| (Some(Response::Done), None)),
            Request::Thaw => freeze::thaw().map(|()| (Some(Response::Done), None)),
            Request::Adjust(ask) => self.adjust(&ask).map(|()| (Some(Response::Done), None)),
            Request::Spawn(spawn) => self.enqueue(spawn, caller),
            Request::Attach(attach) => {
                self.sources
                    .processes
                    .attach(&attach, caller)
                    .map(|attached| {
                        (
                            Some(Response::Attached(attached)),
                            Some(Stream::Process(attach.process.0)),
                        )
                    })
            }
            Request::Peek(from) => self
                .sources
                .processes
                .peek(&from)
                .map(|peeked| (Some(Response::Peeked(peeked)), None)),
            Request::Wait(process) => {
                self.sources
                    .processes
                    .wait(process, caller)
                    .map(|ended| match ended {
                        Some(report) => (Some(Response::Ended(report)), None),
                        None => (None, Some(Stream::End(process.0))),
                    })
            }
            Request::Signal(signal) => self
                .sources
                .processes
                .signal(&signal)
                .map(|()| (Some(Response::Done), None)),
            Request::Release(process) => self
                .sources
                .processes
                .release(process)
                .map(|()| (Some(Response::Done), None)),
            Request::Processes => {
                let list = self.sources.processes.list(ProcessId(0));
                Ok((Some(Response::Processes(list)), None))
            }
            Request::ProcessesAfter(process) => {
                let list = self.sources.processes.list(process);
                Ok((Some(Response::Processes(list)), None))
            }
            Request::Connect(address) => self
                .sources
                .connections
                .open(&address, caller, &self.poll)
                .map(|connection| (None, Some(Stream::Connection(connection)))),
            Request::Shutdown => {
                self.ending = true;
                Ok((Some(Response::Done), None))
            }
            other => match files::work(other) {
                Some(work) => self
                    .sources
                    .jobs
                    .start(caller, work)
                    .map(|job| (None, Some(Stream::Job(job)))),
                None => Err(ErrorBody::new(
                    ErrorKind::Unsupported,
                    "this agent does not know that request",
                )),
            },
        };
        let Some(link) = self.links.get_mut(&caller.link) else {
            return;
        };
        match opened {
            Err(error) => link.fail(caller.request, &error),
            Ok((response, stream)) => {
                if let Some(response) = response {
                    link.respond(caller.request, &response);
                }
                if let Some(stream) = stream {
                    if let Stream::Process(process) = stream {
                        self.pumpable.insert(process);
                    }
                    if link.open_stream(caller.request, stream) {
                        link.mark_ready(caller.request);
                    } else {
                        let message = "too many streams are open on this link, or the request's number is taken";
                        link.send_error(
                            caller.request,
                            &ErrorBody::new(ErrorKind::ResourceExhausted, message),
                        );
                        self.end_stream(caller, stream);
                    }
                }
            }
        }
    }

    /// Has a program started in its turn.
    fn enqueue(
        &mut self,
        spawn: Spawn,
        caller: Caller,
    ) -> Result<(Option<Response>, Option<Stream>), ErrorBody> {
        if self.over_limit == Some(Limit::Disk) {
            let message =
                "the sandbox's disk is over its limit; remove files before starting programs";
            return Err(ErrorBody::new(ErrorKind::ResourceExhausted, message));
        }
        self.sources.processes.queue.push(caller, spawn)?;
        Ok((None, Some(Stream::Waiting)))
    }

    /// Starts some of the programs that wait.
    pub(super) fn start_programs(&mut self) {
        for _ in 0..STARTS_PER_TURN {
            let Some(Started { caller, result }) = self.sources.processes.start_next(&self.poll)
            else {
                return;
            };
            let Some(link) = self.links.get_mut(&caller.link) else {
                continue;
            };
            match result {
                Ok((process, attached)) => {
                    link.respond(caller.request, &Response::Attached(attached));
                    link.streams
                        .insert(caller.request, Stream::Process(process));
                    link.mark_ready(caller.request);
                    self.pumpable.insert(process);
                }
                Err(error) => {
                    link.streams.remove(&caller.request);
                    link.fail(caller.request, &error);
                }
            }
        }
    }
}

/// The first frame of a link must be the host's greeting.
fn greet(link: &mut Link, frame: &Frame, boot_id: &str) -> Result<(), Broken> {
    if frame.frame_type != FrameType::HANDSHAKE {
        return Err(protocol_error(link, "a link begins with a handshake"));
    }
    let hello =
        Hello::from_body(&frame.body).map_err(|error| protocol_error(link, &error.to_string()))?;
    let answer = Hello {
        protocol: VERSION.min(hello.protocol),
        program: concat!("blink-guest ", env!("CARGO_PKG_VERSION")).into(),
        capabilities: vec![Hello::REQUEST_PARTS.into()],
        boot_id: boot_id.into(),
    };
    link.send(FrameType::HANDSHAKE, 0, false, &answer.to_body());
    link.greeted = true;
    Ok(())
}

fn protocol_error(link: &mut Link, message: &str) -> Broken {
    link.send_error(0, &ErrorBody::new(ErrorKind::Protocol, message));
    Broken
}
