//! Programs that are still to be started.
//!
//! A host may ask for thousands at once. Each start costs more than all else that the loop does, and what has just been
//! started wants the processor to end. So few are started in one turn, few may be young at once, and the rest wait here,
//! each link's in the order in which they came. What the kernel has no room for waits too: some process may end soon.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use blink_wire::{ErrorBody, ErrorKind, INITIAL_WINDOW, Spawn, TtySize};
use bytes::Bytes;

use crate::stream::Caller;

/// Starts of one turn. Some milliseconds at most, so that signals, credit and output never wait long for them.
pub(crate) const STARTS_PER_TURN: usize = 8;

/// Programs that may have been started within [`YOUTH`] and still run. More of them would not end sooner, on any number
/// of processors that a sandbox has, and would use up its limit of processes.
pub(crate) const YOUNG_LIMIT: usize = 64;

/// A program that runs for longer does not count as young: hundreds that stay are started within half a second.
pub(crate) const YOUTH: Duration = Duration::from_millis(50);

/// How long a program waits for room where none is started meanwhile. It is less than what hosts wait for any answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The end of a process that is no child of the agent's is not announced to it; it looks again so often.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// Arguments and environments that may wait for one link: a few of the longest, thousands of the usual ones.
const BYTES_LIMIT: usize = 32 << 20;

/// One of them.
pub(crate) struct Waiting {
    pub(crate) caller: Caller,
    pub(crate) spawn: Spawn,
    /// What came for its standard input meanwhile, and whether it ends there.
    pub(crate) input: VecDeque<(Bytes, bool)>,
    input_bytes: usize,
    bytes: usize,
    arrived: Instant,
}

#[derive(Default)]
struct OfLink {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// All of them.
pub(crate) struct Queue {
    links: BTreeMap<u64, OfLink>,
    /// The link whose turn was last.
    last_link: u64,
    last_start: Instant,
    /// There was no room: when to look again.
    pub(crate) retry_at: Option<Instant>,
}

impl Queue {
    pub(crate) fn new() -> Queue {
        Queue {
            links: BTreeMap::new(),
            last_link: 0,
            last_start: Instant::now(),
            retry_at: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub(crate) fn push(&mut self, caller: Caller, spawn: Spawn) -> Result<(), ErrorBody> {
        let bytes = length(&spawn);
        let link = self.links.entry(caller.link).or_default();
        if link.bytes + bytes > BYTES_LIMIT {
            let message = "the arguments and environments of programs that wait to be started are too long together; wait for some to start";
            return Err(ErrorBody::new(ErrorKind::ResourceExhausted, message));
        }
        link.bytes += bytes;
        link.waiting.push_back(Waiting {
            caller,
            spawn,
            input: VecDeque::new(),
            input_bytes: 0,
            bytes,
            arrived: Instant::now(),
        });
        Ok(())
    }

    /// The next one; links take turns.
    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let after = self.links.range(self.last_link + 1..).next();
        let (&id, _) = after.or_else(|| self.links.iter().next())?;
        self.last_link = id;
        let link = self.links.get_mut(&id)?;
        let next = link.waiting.pop_front()?;
        link.bytes -= next.bytes;
        if link.waiting.is_empty() {
            self.links.remove(&id);
        }
        Some(next)
    }

    /// There is no room for it now: it stays the first of its link.
    pub(crate) fn put_back(&mut self, waiting: Waiting, now: Instant) {
        let link = self.links.entry(waiting.caller.link).or_default();
        link.bytes += waiting.bytes;
        link.waiting.push_front(waiting);
        self.retry_at = Some(now + RETRY);
    }

    /// Whether one that there is no room for has waited for long enough.
    pub(crate) fn is_given_up(&self, waiting: &Waiting, now: Instant) -> bool {
        now.saturating_duration_since(waiting.arrived.max(self.last_start)) >= PATIENCE
    }

    /// One has left the queue in the way that it wanted.
    pub(crate) fn progressed(&mut self, now: Instant) {
        self.last_start = now;
        self.retry_at = None;
    }

    /// The caller wants it no more.
    pub(crate) fn cancel(&mut self, caller: Caller) {
        let Some(link) = self.links.get_mut(&caller.link) else {
            return;
        };
        if let Some(at) = link
            .waiting
            .iter()
            .position(|waiting| waiting.caller == caller)
            && let Some(cancelled) = link.waiting.remove(at)
        {
            link.bytes -= cancelled.bytes;
        }
        if link.waiting.is_empty() {
            self.links.remove(&caller.link);
        }
    }

    /// Takes bytes for its standard input; `false` where they exceed the window.
    pub(crate) fn push_input(&mut self, caller: Caller, bytes: Bytes, end: bool) -> bool {
        let Some(waiting) = self.find(caller) else {
            return true;
        };
        waiting.input_bytes += bytes.len();
        // Empty frames take no credit, and must not take memory either.
        if !bytes.is_empty() || end {
            waiting.input.push_back((bytes, end));
        }
        waiting.input_bytes <= INITIAL_WINDOW as usize
    }

    pub(crate) fn resize(&mut self, caller: Caller, size: TtySize) {
        if let Some(waiting) = self.find(caller)
            && waiting.spawn.pty.is_some()
        {
            waiting.spawn.pty = Some(size);
        }
    }

    fn find(&mut self, caller: Caller) -> Option<&mut Waiting> {
        self.links
            .get_mut(&caller.link)?
            .waiting
            .iter_mut()
            .find(|waiting| waiting.caller == caller)
    }
}

/// About what it takes in memory.
fn length(spawn: &Spawn) -> usize {
    let argv: usize = spawn
        .argv
        .iter()
        .map(|arg| arg.len() + size_of_val(arg))
        .sum();
    let pair = |(name, value): &(blink_wire::PathBytes, blink_wire::PathBytes)| {
        name.len() + value.len() + 2 * size_of_val(name)
    };
    argv + spawn.env.iter().map(pair).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(link: u64, request: u64) -> Caller {
        Caller { link, request }
    }

    fn order(queue: &mut Queue) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| queue.pop())
            .map(|waiting| (waiting.caller.link, waiting.caller.request))
            .collect()
    }

    #[test]
    fn links_take_turns_and_each_keeps_its_order() {
        let mut queue = Queue::new();
        for request in 1..=3 {
            queue.push(caller(1, request), Spawn::default()).unwrap();
        }
        queue.push(caller(7, 1), Spawn::default()).unwrap();
        queue.cancel(caller(1, 2));
        queue.cancel(caller(2, 1));
        assert_eq!(order(&mut queue), [(1, 1), (7, 1), (1, 3)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_there_is_no_room_for_stays_the_first() {
        let mut queue = Queue::new();
        for request in 1..=2 {
            queue.push(caller(1, request), Spawn::default()).unwrap();
        }
        let now = Instant::now();
        let first = queue.pop().unwrap();
        assert!(!queue.is_given_up(&first, now));
        assert!(queue.is_given_up(&first, now + PATIENCE));
        queue.put_back(first, now);
        assert_eq!(queue.retry_at, Some(now + RETRY));
        assert_eq!(order(&mut queue), [(1, 1), (1, 2)]);
    }

    #[test]
    fn what_waits_is_bounded_for_each_link() {
        let mut queue = Queue::new();
        let long = || Spawn {
            argv: vec![vec![0; BYTES_LIMIT / 2 - 100].into()],
            ..Spawn::default()
        };
        assert!(queue.push(caller(1, 1), long()).is_ok());
        assert!(queue.push(caller(1, 2), long()).is_ok());
        let error = queue.push(caller(1, 3), long()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ResourceExhausted);
        assert!(queue.push(caller(2, 1), long()).is_ok());
        queue.cancel(caller(1, 1));
        assert!(queue.push(caller(1, 3), long()).is_ok());
    }

    #[test]
    fn input_that_comes_before_the_start_is_within_the_window() {
        let mut queue = Queue::new();
        queue.push(caller(1, 1), Spawn::default()).unwrap();
        let window = Bytes::from(vec![0; INITIAL_WINDOW as usize]);
        assert!(queue.push_input(caller(1, 1), window, false));
        assert!(queue.push_input(caller(1, 1), Bytes::new(), true));
        assert!(!queue.push_input(caller(1, 1), Bytes::from_static(b"x"), false));
        assert!(queue.push_input(caller(1, 2), Bytes::from_static(b"x"), false));
    }
}
