//! The agent's loop: one thread that waits for links, processes, jobs, connections and signals, and moves what can be
//! moved. Nothing in it blocks but the wait.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use blink_wire::{
    ErrorBody, ErrorKind, Frame, FrameType, Hello, Message, ProcessId, Request, Response, TtySize,
    VERSION, WindowUpdate,
};
use rustix::io;

use crate::confine::Confinement;
use crate::connect::{self, Connections};
use crate::dial::{Dial, Dialer};
use crate::job::{self, Jobs};
use crate::link::{self, Broken, Caller, Link, Stream};
use crate::poll::{Poll, Ready, Token};
use crate::process::{self, Processes};
use crate::sources::Sources;
use crate::{files, freeze, guard, signals};

/// Links at once. A host process has one or two, whatever it does, and a command of a shell is a process: this is a burst of
/// those. Each costs the agent some KiB, and one of the 1,024 descriptors that it may have where nobody raises that.
const LINKS_LIMIT: usize = 256;

/// Frames of one link before others have their turn.
const FRAMES_PER_TURN: usize = 256;

/// What `serve` was given.
pub(crate) struct Endpoints {
    /// A link that stands already.
    pub(crate) link: Option<OwnedFd>,
    /// Where further links come in.
    pub(crate) listener: Option<OwnedFd>,
    /// Where to open links to.
    pub(crate) dial: Option<Dial>,
    /// The sandbox ends when its last link does: whoever uses it has one.
    pub(crate) leased: bool,
    /// Held until the agent ends, for the host to see that it has.
    pub(crate) held: Option<OwnedFd>,
}

pub(crate) struct Agent {
    poll: Poll,
    endpoints: Endpoints,
    dialer: Option<Dialer>,
    signals: OwnedFd,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    sources: Sources,
    /// Processes whose output may be readable.
    pumpable: BTreeSet<u64>,
    boot_id: String,
    over_limit: Option<blink_wire::Limit>,
    ending: bool,
}

impl Agent {
    pub(crate) fn new(
        mut endpoints: Endpoints,
        confinement: Confinement,
        limits: guard::Limits,
    ) -> Result<Agent, Box<dyn std::error::Error>> {
        let poll = Poll::new()?;
        let signals = signals::open()?;
        poll.add(&signals, Token::Signals)?;
        if let Some(listener) = &endpoints.listener {
            io::ioctl_fionbio(listener, true)?;
            poll.add(listener, Token::Listener)?;
        }
        let jobs = Jobs::new()?;
        poll.add(jobs.wake_fd(), Token::Wake)?;
        guard::start(limits, jobs.wake())
            .map_err(|error| format!("the limits cannot be watched over: {error}"))?;
        let first = endpoints.link.take();
        let dialer = match endpoints.dial.take() {
            Some(dial) => Some(start_to_dial(dial, &poll)?),
            None => None,
        };
        let sources = Sources {
            processes: Processes::new(confinement)?,
            jobs,
            connections: Connections::default(),
        };
        let mut agent = Agent {
            poll,
            endpoints,
            dialer,
            signals,
            links: BTreeMap::new(),
            next_link: 1,
            sources,
            pumpable: BTreeSet::new(),
            boot_id: boot_id(),
            over_limit: None,
            ending: false,
        };
        if let Some(socket) = first {
            agent.add_link(socket);
        }
        Ok(agent)
    }

    /// Serves until the sandbox is to end.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while !self.ending {
            let timeout = match self.has_work() {
                true => Some(Duration::ZERO),
                false => self
                    .sources
                    .processes
                    .next_due()
                    .map(|due| due.saturating_duration_since(Instant::now())),
            };
            self.poll.wait(timeout, &mut ready)?;
            for event in &ready {
                self.handle(*event);
            }
            self.turn();
            self.ending |= self.is_left();
        }
        Ok(())
    }

    /// Whether nobody uses the sandbox any more, where it ends with that. Who has just come to its socket counts.
    fn is_left(&mut self) -> bool {
        if !self.endpoints.leased || !self.links.is_empty() {
            return false;
        }
        self.accept();
        self.links.is_empty()
    }

    fn has_work(&self) -> bool {
        !self.pumpable.is_empty()
            || self
                .links
                .values()
                .any(|link| link.wants_flush() || link.wants_read())
    }

    fn handle(&mut self, event: Ready) {
        match event.token {
            Token::Listener => self.accept(),
            Token::Dialed => {
                if let Some(socket) = self.dialer.as_ref().and_then(Dialer::take) {
                    self.add_link(socket);
                }
            }
            Token::Signals => {
                self.ending |= signals::drain(&self.signals);
                let ended = self.sources.processes.reap();
                self.pumpable.extend(ended);
            }
            Token::Wake => {
                self.sources.jobs.collect();
                self.watch_limits();
            }
            Token::Link(id) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.became(event.readable, event.writable);
                }
            }
            Token::Stdin(id) => {
                if event.writable {
                    self.sources.processes.pump_stdin(id);
                }
            }
            Token::Stdout(id) | Token::Stderr(id) => {
                if event.readable {
                    let index = usize::from(event.token == Token::Stderr(id));
                    self.sources.processes.became_readable(id, index);
                    self.pumpable.insert(id);
                }
            }
            Token::Connection(id) => {
                self.sources
                    .connections
                    .pump(id, event.readable, event.writable, Some(&self.poll));
            }
        }
    }

    /// Moves everything that can be moved, a little of each.
    fn turn(&mut self) {
        let ids: Vec<u64> = self.links.keys().copied().collect();
        for id in &ids {
            if self.links.get(id).is_some_and(Link::wants_read) && self.read_link(*id).is_err() {
                self.drop_link(*id);
            }
        }
        let due = self.sources.processes.expire(Instant::now());
        self.pumpable.extend(due);
        for id in std::mem::take(&mut self.pumpable) {
            if self.sources.processes.pump_output(id) {
                self.pumpable.insert(id);
            }
        }
        self.deliver_notices();
        for id in &ids {
            self.flush_link(*id);
        }
        self.deliver_notices();
    }

    fn flush_link(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if !link.wants_flush() {
            return;
        }
        let flushed = link.flush(&mut self.sources);
        // What was sent has made room to read more, or was the last of a process that has ended.
        let processes = link.streams.values().filter_map(|stream| match stream {
            Stream::Process(id) => Some(*id),
            _ => None,
        });
        self.pumpable
            .extend(processes.filter(|id| self.sources.processes.wants_pump(*id)));
        if flushed.is_err() {
            self.drop_link(id);
        }
    }

    fn accept(&mut self) {
        use rustix::net::{SocketFlags, accept_with};
        let Some(listener) = &self.endpoints.listener else {
            return;
        };
        let mut sockets = Vec::new();
        while let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            sockets.push(socket);
        }
        for socket in sockets {
            self.add_link(socket);
        }
    }

    fn add_link(&mut self, socket: OwnedFd) {
        if self.links.len() >= LINKS_LIMIT {
            return link::refuse(&socket, LINKS_LIMIT);
        }
        let id = self.next_link;
        self.next_link += 1;
        // One that fails here is closed, which is what its host will see.
        if let Ok(link) = Link::new(socket)
            && self.poll.add(link.socket(), Token::Link(id)).is_ok()
        {
            self.links.insert(id, link);
        } else {
            self.dial_if_alone();
        }
    }

    fn dial_if_alone(&self) {
        if let Some(dialer) = &self.dialer
            && self.links.is_empty()
        {
            dialer.dial_again();
        }
    }

    fn drop_link(&mut self, id: u64) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        for (request, stream) in link.streams {
            self.end_stream(Caller { link: id, request }, stream);
        }
        self.dial_if_alone();
    }

    /// The caller wants no more of a stream.
    fn end_stream(&mut self, caller: Caller, stream: Stream) {
        match stream {
            Stream::Process(process) => {
                self.sources.processes.detach(process, caller);
                self.pumpable.insert(process);
            }
            Stream::End(process) => self.sources.processes.stop_waiting(process, caller),
            Stream::Job(job) => self.sources.jobs.cancel(job),
            Stream::Connection(connection) => self.sources.connections.close(connection),
        }
    }

    fn read_link(&mut self, id: u64) -> Result<(), Broken> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        link.read()?;
        for _ in 0..FRAMES_PER_TURN {
            let Some(link) = self.links.get_mut(&id) else {
                return Ok(());
            };
            let Some(frame) = link.next_frame()? else {
                break;
            };
            self.handle_frame(id, frame)?;
        }
        Ok(())
    }

    fn handle_frame(&mut self, id: u64, frame: Frame) -> Result<(), Broken> {
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
            FrameType::RPC_REQUEST => match Request::from_body(&frame.body) {
                Ok(asked) => self.handle_request(caller, asked),
                Err(error) => link.fail(
                    request,
                    &ErrorBody::new(ErrorKind::Unsupported, error.to_string()),
                ),
            },
            FrameType::ERROR => {
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
                if let (Some(Stream::Process(process)), Ok(size)) =
                    (link.streams.get(&request), TtySize::decode(&frame.body))
                {
                    self.sources.processes.resize(*process, size);
                }
            }
            FrameType::STDIN | FrameType::STREAM_DATA => {
                // Data for a stream that is over crossed its end on the way.
                let Some(&stream) = link.streams.get(&request) else {
                    return Ok(());
                };
                let within = match stream {
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
            Some(Stream::End(_)) | None => return,
        }
        if let Some(link) = self.links.get_mut(&caller.link) {
            link.mark_ready(caller.request);
        }
    }

    fn handle_request(&mut self, caller: Caller, request: Request) {
        let opened = match request {
            Request::Ping => Ok((Some(Response::Done), None)),
            Request::Freeze => freeze::freeze().map(|()| (Some(Response::Done), None)),
            Request::Thaw => freeze::thaw().map(|()| (Some(Response::Done), None)),
            Request::Spawn(spawn) => self.spawn(&spawn, caller),
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

    fn spawn(
        &mut self,
        spawn: &blink_wire::Spawn,
        caller: Caller,
    ) -> Result<(Option<Response>, Option<Stream>), ErrorBody> {
        if self.over_limit == Some(blink_wire::Limit::Disk) {
            let message =
                "the sandbox's disk is over its limit; remove files before starting programs";
            return Err(ErrorBody::new(ErrorKind::ResourceExhausted, message));
        }
        let (id, attached) = self.sources.processes.spawn(spawn, caller, &self.poll)?;
        Ok((
            Some(Response::Attached(attached)),
            Some(Stream::Process(id)),
        ))
    }

    fn watch_limits(&mut self) {
        let over = self.sources.jobs.over_limit();
        if let Some(limit) = over {
            self.sources.processes.kill_all(limit);
        }
        self.over_limit = over;
    }

    fn deliver_notices(&mut self) {
        for notice in std::mem::take(&mut self.sources.processes.notices) {
            match notice {
                process::Notice::Ready(caller) => self.mark_ready(caller),
                process::Notice::Credit(caller, credit) => {
                    self.give_credit(caller, FrameType::STDIN, credit)
                }
                process::Notice::Exited(caller, report) => {
                    self.end(caller, FrameType::EXIT, &report.to_body())
                }
                process::Notice::Ended(caller, report) => {
                    let response = Response::Ended(report);
                    self.end(caller, FrameType::RPC_RESPONSE, &response.to_body());
                }
                process::Notice::Taken(caller) => {
                    let error = ErrorBody::new(
                        ErrorKind::Busy,
                        "another program has attached to this process",
                    );
                    self.end(caller, FrameType::ERROR, &error.to_body());
                }
            }
        }
        for notice in std::mem::take(&mut self.sources.jobs.notices) {
            match notice {
                job::Notice::Ready(caller) => self.mark_ready(caller),
                job::Notice::Credit(caller, credit) => {
                    self.give_credit(caller, FrameType::STREAM_DATA, credit)
                }
                job::Notice::Finished(caller, Ok(response)) => {
                    self.end(caller, FrameType::RPC_RESPONSE, &response.to_body());
                }
                job::Notice::Finished(caller, Err(error)) => {
                    self.end(caller, FrameType::RPC_ERROR, &error.to_body())
                }
            }
        }
        for notice in std::mem::take(&mut self.sources.connections.notices) {
            match notice {
                connect::Notice::Ready(caller) => self.mark_ready(caller),
                connect::Notice::Credit(caller, credit) => {
                    self.give_credit(caller, FrameType::STREAM_DATA, credit)
                }
                connect::Notice::Connected(caller) => {
                    if let Some(link) = self.links.get_mut(&caller.link) {
                        link.respond(caller.request, &Response::Done);
                    }
                }
                connect::Notice::Refused(caller, error) => {
                    self.end(caller, FrameType::RPC_ERROR, &error.to_body())
                }
                connect::Notice::Closed(caller) => {
                    if let Some(link) = self.links.get_mut(&caller.link) {
                        link.streams.remove(&caller.request);
                    }
                }
                connect::Notice::Broken(caller, error) => {
                    self.end(caller, FrameType::ERROR, &error.to_body())
                }
            }
        }
    }

    fn mark_ready(&mut self, caller: Caller) {
        if let Some(link) = self.links.get_mut(&caller.link) {
            link.mark_ready(caller.request);
        }
    }

    fn give_credit(&mut self, caller: Caller, channel: FrameType, credit: u32) {
        if let Some(link) = self.links.get_mut(&caller.link) {
            link.send(
                FrameType::WINDOW_UPDATE,
                caller.request,
                false,
                &WindowUpdate { channel, credit }.encode(),
            );
        }
    }

    /// Sends the last frame of a stream.
    fn end(&mut self, caller: Caller, frame_type: FrameType, body: &[u8]) {
        if let Some(link) = self.links.get_mut(&caller.link) {
            link.streams.remove(&caller.request);
            link.send(frame_type, caller.request, true, body);
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
        capabilities: Vec::new(),
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

fn start_to_dial(dial: Dial, poll: &Poll) -> io::Result<Dialer> {
    let dialer = Dialer::start(dial)
        .map_err(|error| io::Errno::from_raw_os_error(error.raw_os_error().unwrap_or_default()))?;
    poll.add(dialer.dialed_fd(), Token::Dialed)?;
    Ok(dialer)
}

fn boot_id() -> String {
    let mut bytes = [0; 16];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
