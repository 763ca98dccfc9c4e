//! The agent's loop: one thread that waits for links, processes, jobs, connections and signals, and moves what can be
//! moved. Nothing in it blocks but the wait.
//!
//! Events are edges: each is told once. So what there is to do is never derived from events, but from what the loop
//! holds: what may be read or written until the kernel says that it would block, whole frames that were read and not
//! taken, answers that were not sent, programs and jobs that are still to be started. The loop waits only where none of
//! it can go on, and then without a time only where an event must come.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io;

use crate::confine::Confinement;
use crate::connect::Connections;
use crate::dial::{Dial, Dialer};
use crate::job::Jobs;
use crate::link::{self, Broken, Link};
use crate::poll::{Poll, Ready, Token};
use crate::process::Processes;
use crate::sources::Sources;
use crate::stream::{Caller, Stream};
use crate::{guard, signals};

mod notices;
mod requests;
#[cfg(test)]
mod tests;

/// Links at once. A host process has one or two, whatever it does, and a command of a shell is a process: this is a burst of
/// those. Each costs the agent some KiB, and one of the 1,024 descriptors that it may have where nobody raises that.
const LINKS_LIMIT: usize = 256;

/// Frames of one link before others have their turn.
const FRAMES_PER_TURN: usize = 256;

/// Where descriptors or memory are short, nothing says when there is room for a link again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

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
    /// Links could not be taken: when to try again.
    accept_at: Option<Instant>,
    sources: Sources,
    /// Processes whose output may be readable.
    pumpable: BTreeSet<u64>,
    boot_id: String,
    over_limit: Option<blink_wire::Limit>,
    ending: bool,
    /// The memory of the last wait's events.
    ready: Vec<Ready>,
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
            accept_at: None,
            sources,
            pumpable: BTreeSet::new(),
            boot_id: boot_id(),
            over_limit: None,
            ending: false,
            ready: Vec::new(),
        };
        if let Some(socket) = first {
            agent.add_link(socket);
        }
        Ok(agent)
    }

    /// Serves until the sandbox is to end.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.ending {
            self.step(self.patience())?;
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

    /// Waits for events at most so long, and does what there is to do; returns how many events came.
    fn step(&mut self, patience: Option<Duration>) -> io::Result<usize> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poll.wait(patience, &mut ready)?;
        for event in &ready {
            self.handle(*event);
        }
        self.turn();
        let count = ready.len();
        self.ready = ready;
        Ok(count)
    }

    /// How long nothing can be done unless something happens; `None` for as long as that takes.
    fn patience(&self) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let due = [
            self.sources.processes.next_due(),
            self.sources.jobs.next_start(),
            self.accept_at,
        ];
        due.into_iter()
            .flatten()
            .min()
            .map(|due| due.saturating_duration_since(Instant::now()))
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
        if self.accept_at.is_some_and(|at| at <= Instant::now()) {
            self.accept();
        }
        let ids: Vec<u64> = self.links.keys().copied().collect();
        for id in &ids {
            if self.links.get(id).is_some_and(Link::wants_read) && self.read_link(*id).is_err() {
                self.drop_link(*id);
            }
        }
        let due = self.sources.processes.expire(Instant::now());
        self.pumpable.extend(due);
        self.sources.processes.kill_doomed();
        self.sources.jobs.run_waiting();
        self.start_programs();
        for id in std::mem::take(&mut self.pumpable) {
            if self.sources.processes.pump_output(id) {
                self.pumpable.insert(id);
            }
        }
        self.deliver_notices();
        for id in &ids {
            self.flush_link(*id);
        }
        // A link that has broken meanwhile.
        self.sources.processes.kill_doomed();
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
        self.accept_at = None;
        loop {
            let Some(listener) = &self.endpoints.listener else {
                return;
            };
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.add_link(socket),
                Err(io::Errno::AGAIN) => return,
                // Whoever wanted this one has gone; others may be behind it.
                Err(io::Errno::CONNABORTED | io::Errno::INTR) => {}
                Err(_) => {
                    self.accept_at = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
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
            Stream::Waiting => self.sources.processes.queue.cancel(caller),
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

    fn watch_limits(&mut self) {
        let over = self.sources.jobs.over_limit();
        if let Some(limit) = over {
            self.sources.processes.kill_all(limit);
        }
        self.over_limit = over;
    }
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
