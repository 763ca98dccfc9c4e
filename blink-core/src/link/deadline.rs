//! How long an agent may take: every request has a deadline, and a sandbox whose agent misses one is ended.
//!
//! Time is counted in ticks of the link's own. A host process that was stopped for an hour, or a runtime that somebody
//! has blocked, has seen few of them, and finds its sandboxes alive.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use blink_wire::{FrameType, Request};
use tokio::sync::Notify;

use super::{Shared, lock};
use crate::error::{Error, ErrorKind};

/// How long a sandbox's agent may leave a request without an answer, and anything at all without a sign of life, before the
/// sandbox is ended with `SandboxDied`: 60 seconds. An agent answers within milliseconds, on an emulated host within a
/// few seconds.
///
/// What may take long has no such limit: a program, a large file, a reader that does not read. There only the agent
/// must be alive, which it is asked for from time to time.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// How long after a command's timeout its program may take to end, before the sandbox is ended with `SandboxDied`: 10
/// seconds. A call of [`Sandbox::exec`](crate::Sandbox::exec) is over 15 seconds after its timeout in any case.
pub const TIMEOUT_GRACE: Duration = Duration::from_secs(10);

/// Holding a disk still writes all to it that is not there yet: gigabytes, on a slow disk.
const FREEZE_DEADLINE: Duration = Duration::from_secs(300);

/// The deadlines of one link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// How exactly time is measured.
    pub(crate) tick: Duration,
    pub(crate) answer: Duration,
    pub(crate) freeze: Duration,
    pub(crate) grace: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            tick: Duration::from_secs(1),
            answer: ANSWER_DEADLINE,
            freeze: FREEZE_DEADLINE,
            grace: TIMEOUT_GRACE,
        }
    }
}

/// What a request asks for, as far as its deadline minds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The agent's loop answers it by itself.
    Prompt(&'static str),
    /// The agent starts programs in turn, and goes on with it.
    Spawn(Option<Duration>),
    /// The disk has to be written.
    Freeze,
    /// It takes as long as it takes.
    Long(&'static str),
}

impl Kind {
    pub(crate) fn of(request: &Request) -> Kind {
        match request {
            Request::Spawn(spawn) => Kind::Spawn(spawn.timeout_ms.map(Duration::from_millis)),
            Request::Freeze => Kind::Freeze,
            Request::Ping => Kind::Prompt("a ping"),
            Request::Attach(_) => Kind::Prompt("attaching to a process"),
            Request::Signal(_) => Kind::Prompt("sending a signal"),
            Request::Release(_) => Kind::Prompt("releasing a process"),
            Request::Processes | Request::ProcessesAfter(_) => Kind::Prompt("listing processes"),
            Request::Peek(_) => Kind::Prompt("a look at a process's output"),
            Request::Thaw => Kind::Prompt("letting the disk change again"),
            Request::Adjust(_) => Kind::Prompt("changing the sandbox"),
            Request::Shutdown => Kind::Prompt("shutting down"),
            Request::Wait(_) => Kind::Long("waiting for a process"),
            Request::Connect(_) => Kind::Long("a connection"),
            _ => Kind::Long("a file operation"),
        }
    }

    /// Whether it must not wait behind others; only what has no stream.
    pub(crate) fn is_urgent(request: &Request) -> bool {
        matches!(
            request,
            Request::Ping
                | Request::Signal(_)
                | Request::Release(_)
                | Request::Thaw
                | Request::Shutdown
        )
    }

    /// How long its turn may take to come.
    pub(crate) fn patience(self) -> Option<Duration> {
        match self {
            Kind::Spawn(timeout) => timeout,
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Spawn(_) => "starting a program",
            Kind::Freeze => "holding the disk still",
            Kind::Prompt(name) | Kind::Long(name) => name,
        }
    }
}

/// Where a request stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) kind: Kind,
    pub(crate) sent: u64,
    pub(crate) answered: Option<u64>,
    /// Somebody on the host has something to take first.
    pub(crate) unread: bool,
}

/// The link's time, and when the agent was last heard.
pub(crate) struct Clock {
    pub(crate) deadlines: Deadlines,
    ticks: AtomicU64,
    heard: AtomicU64,
    /// When an answer to a Spawn came.
    started: AtomicU64,
    /// The heartbeat that the agent was sent.
    beat: AtomicU64,
    /// Nothing is under way, and nobody counts.
    resting: AtomicBool,
    wake: Notify,
}

impl Clock {
    pub(crate) fn new(deadlines: Deadlines) -> Clock {
        Clock {
            deadlines,
            ticks: AtomicU64::new(1),
            heard: AtomicU64::new(1),
            started: AtomicU64::new(0),
            beat: AtomicU64::new(0),
            resting: AtomicBool::new(true),
            wake: Notify::new(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Something was asked of the agent.
    pub(crate) fn asked(&self) {
        if self.resting.load(Ordering::Acquire) {
            self.wake.notify_one();
        }
    }

    /// Something came from the agent.
    pub(crate) fn heard(&self) {
        self.heard.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn started(&self) {
        self.started.store(self.now(), Ordering::Relaxed);
    }

    /// Whether a heartbeat is the answer to the link's own.
    pub(crate) fn is_own_beat(&self, body: &[u8]) -> bool {
        body == self.beat.load(Ordering::Relaxed).to_le_bytes()
    }

    fn ticks_of(&self, time: Duration) -> u64 {
        let ticks = time
            .as_nanos()
            .div_ceil(self.deadlines.tick.as_nanos().max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// What the agent has left undone for too long, in words.
    fn overdue(&self, standing: Standing) -> Option<String> {
        let Deadlines {
            answer,
            freeze,
            grace,
            ..
        } = self.deadlines;
        let (now, heard) = (self.now(), self.heard.load(Ordering::Relaxed));
        let name = standing.kind.name();
        let is_over =
            |since: u64, limit: Duration| now.saturating_sub(since) > self.ticks_of(limit);
        let unanswered = |limit: Duration| {
            format!("its agent did not answer a request ({name}) within {limit:?}")
        };
        if let (Some(answered), Kind::Spawn(Some(timeout))) = (standing.answered, standing.kind) {
            let limit = timeout.saturating_add(grace);
            if is_over(answered, limit) && !standing.unread {
                return Some(format!(
                    "its agent did not end a program within {grace:?} of its timeout of {timeout:?}"
                ));
            }
        }
        if standing.answered.is_none() {
            let started = self.started.load(Ordering::Relaxed);
            let (since, limit) = match standing.kind {
                Kind::Prompt(_) => (standing.sent, answer),
                Kind::Freeze => (standing.sent, freeze),
                Kind::Spawn(timeout) => {
                    let limit =
                        timeout.map_or(answer, |timeout| timeout.saturating_add(grace).min(answer));
                    (standing.sent.max(started), limit)
                }
                Kind::Long(_) => (standing.sent.max(heard), answer),
            };
            return is_over(since, limit).then(|| unanswered(limit));
        }
        is_over(standing.sent.max(heard), answer).then(|| {
            format!("its agent gave no sign of life within {answer:?}, while a request ({name}) was under way")
        })
    }
}

/// Ticks without a request after which nobody counts any more. One that is made between others must not wake a task.
const REST_AFTER: u32 = 10;

/// Watches over a link's deadlines for as long as it lives.
pub(super) async fn watch(weak: Weak<Shared>, clock: Arc<Clock>) {
    let mut idle = 0;
    loop {
        if clock.resting.load(Ordering::Acquire) {
            clock.wake.notified().await;
            clock.resting.store(false, Ordering::Release);
            idle = 0;
        }
        tokio::time::sleep(clock.deadlines.tick).await;
        let now = clock.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(shared) = weak.upgrade() else { return };
        let standings = shared.standings();
        if let Some(what) = standings
            .iter()
            .find_map(|standing| clock.overdue(*standing))
        {
            let message = format!("the sandbox was ended: {what}");
            shared.fail(Error::new(ErrorKind::SandboxDied, message));
            (shared.end_sandbox)();
            return;
        }
        idle = if standings.is_empty() { idle + 1 } else { 0 };
        if idle >= REST_AFTER {
            clock.resting.store(true, Ordering::Release);
            // One that was made just now has not seen it.
            if !lock(&shared.routes).is_empty() {
                clock.resting.store(false, Ordering::Release);
            }
        }
        let quiet = now.saturating_sub(clock.heard.load(Ordering::Relaxed));
        let every = clock.ticks_of(clock.deadlines.answer / 4).max(1);
        if !standings.is_empty() && quiet > 0 && quiet.is_multiple_of(every) {
            clock.beat.store(now, Ordering::Relaxed);
            let body = now.to_le_bytes();
            shared
                .outbox
                .control(FrameType::HEARTBEAT, 0, false, &body, None);
        }
    }
}
