//! File operations run on threads of their own, so that a slow disk delays nobody else. A job's thread reads what the
//! host sends and writes what the host gets through its [`JobStream`], which blocks it within the stream's credit.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use blink_wire::{
    Counted, ErrorBody, ErrorKind, FrameType, INITIAL_WINDOW, Limit, Message, Response, Trailer,
};
use bytes::{Buf, Bytes};

use crate::failure::{errno_of, failed_as};
use crate::process::queue::{PATIENCE, RETRY};
use crate::room::Room;
use crate::stream::{BULK_BODY, Caller, Chunk};

/// Jobs that run at once. Each is a thread with a small stack and at most two windows of data.
const RUNNING_LIMIT: usize = 32;

/// Jobs that wait for their turn behind them.
const WAITING_LIMIT: usize = 4096;

/// The deepest call of a job is a walk through a folder; the default stack would count against small sandboxes.
const STACK_BYTES: usize = 512 << 10;

const CREDIT_STEP: u32 = INITIAL_WINDOW / 4;

/// A job's work: the stream it was given, and what it answers.
pub(crate) type Work = Box<dyn FnOnce(&mut JobStream) -> Result<Response, ErrorBody> + Send>;

/// What the loop has to tell a host about a job.
pub(crate) enum Notice {
    Ready(Caller),
    Credit(Caller, u32),
    Finished(Caller, Result<Response, ErrorBody>),
}

/// Both directions of one job's stream.
#[derive(Default)]
struct State {
    incoming: VecDeque<Bytes>,
    incoming_bytes: usize,
    /// The trailer of the incoming stream, once it has ended.
    incoming_end: Option<Bytes>,
    consumed: u32,
    outgoing: VecDeque<Outgoing>,
    credit: u64,
    cancelled: bool,
    result: Option<Result<Response, ErrorBody>>,
}

struct Outgoing {
    bytes: Bytes,
    end: bool,
}

struct Shared {
    id: u64,
    state: Mutex<State>,
    changed: Condvar,
    wake: Arc<Wake>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A job that panicked has aborted the agent, as its profile says; in tests the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the loop that jobs have something for it.
pub(crate) struct Wake {
    eventfd: OwnedFd,
    jobs: Mutex<Vec<u64>>,
    /// The limit that the guard has found exceeded.
    over_limit: Mutex<Option<Limit>>,
    /// Of what is transferred.
    room: Room,
    memory: MemoryLimit,
}

/// What programs may have in memory, which a host can change.
struct MemoryLimit {
    is_watched: AtomicBool,
    /// The largest number is none.
    bytes: AtomicU64,
}

impl Wake {
    fn tell(&self, job: u64) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if !jobs.contains(&job) {
            jobs.push(job);
        }
        drop(jobs);
        self.wake();
    }

    /// Whether somebody looks at what programs have in memory.
    pub(crate) fn watches_memory(&self) -> bool {
        self.memory.is_watched.load(Ordering::Acquire)
    }

    /// Somebody does from now on, and programs may have so much, if there is a limit.
    pub(crate) fn watch_memory(&self, bytes: Option<u64>) {
        let bytes = bytes.unwrap_or(u64::MAX);
        self.memory.bytes.store(bytes, Ordering::Release);
        self.memory.is_watched.store(true, Ordering::Release);
    }

    /// What programs may have in memory.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        let bytes = self.memory.bytes.load(Ordering::Acquire);
        (bytes != u64::MAX).then_some(bytes)
    }

    /// From now on, programs may have so much in memory, which is looked at at once.
    pub(crate) fn limit_memory(&self, bytes: u64) {
        self.memory.bytes.store(bytes, Ordering::Release);
        self.room.doubt();
    }

    /// Tells the loop which limit the sandbox is over, or that it is within all of them.
    pub(crate) fn set_over_limit(&self, limit: Option<Limit>) {
        let former = std::mem::replace(
            &mut *self
                .over_limit
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            limit,
        );
        if limit.is_some() || former.is_some() {
            self.wake();
        }
    }

    /// What the disk may still get.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    fn wake(&self) {
        // It cannot be full: the loop reads it.
        let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }
}

struct Job {
    caller: Caller,
    shared: Arc<Shared>,
}

/// All jobs.
pub(crate) struct Jobs {
    table: HashMap<u64, Job>,
    waiting: VecDeque<(u64, Work)>,
    running: usize,
    /// Since when there is no thread for the next one.
    stalled: Option<Instant>,
    next_id: u64,
    wake: Arc<Wake>,
    /// The chunk that is being sent.
    front: Bytes,
    pub(crate) notices: Vec<Notice>,
}

impl Jobs {
    pub(crate) fn new() -> rustix::io::Result<Jobs> {
        use rustix::event::{EventfdFlags, eventfd};
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Jobs {
            table: HashMap::new(),
            waiting: VecDeque::new(),
            running: 0,
            stalled: None,
            next_id: 1,
            wake: Arc::new(Wake {
                eventfd,
                jobs: Mutex::new(Vec::new()),
                over_limit: Mutex::new(None),
                room: Room::new(),
                memory: MemoryLimit {
                    is_watched: AtomicBool::new(false),
                    bytes: AtomicU64::new(u64::MAX),
                },
            }),
            front: Bytes::new(),
            notices: Vec::new(),
        })
    }

    pub(crate) fn wake(&self) -> Arc<Wake> {
        self.wake.clone()
    }

    /// What the guard has found.
    pub(crate) fn over_limit(&self) -> Option<Limit> {
        *self
            .wake
            .over_limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake_fd(&self) -> &OwnedFd {
        &self.wake.eventfd
    }

    /// Starts a job, now or when its turn comes.
    pub(crate) fn start(&mut self, caller: Caller, work: Work) -> Result<u64, ErrorBody> {
        if self.waiting.len() >= WAITING_LIMIT {
            let message = "too many file operations are waiting already; wait for some to end";
            return Err(ErrorBody::new(ErrorKind::ResourceExhausted, message));
        }
        let id = self.next_id;
        self.next_id += 1;
        let state = State {
            credit: u64::from(INITIAL_WINDOW),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            id,
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake: self.wake.clone(),
        });
        self.table.insert(id, Job { caller, shared });
        self.waiting.push_back((id, work));
        self.run_waiting();
        Ok(id)
    }

    /// When a job that there was no thread for is tried again.
    pub(crate) fn next_start(&self) -> Option<Instant> {
        let waits = self.stalled.is_some() && !self.waiting.is_empty();
        (waits && self.running < RUNNING_LIMIT).then(|| Instant::now() + RETRY)
    }

    /// Starts the jobs that wait, as far as there is room.
    pub(crate) fn run_waiting(&mut self) {
        while self.running < RUNNING_LIMIT
            && let Some((id, work)) = self.waiting.pop_front()
        {
            let Some(job) = self.table.get(&id) else {
                continue;
            };
            let caller = job.caller;
            match run(work, job.shared.clone()) {
                Ok(()) => {
                    self.running += 1;
                    self.stalled = None;
                }
                // Some thread or process may end soon.
                Err((work, _))
                    if self.stalled.get_or_insert_with(Instant::now).elapsed() < PATIENCE =>
                {
                    self.waiting.push_front((id, work));
                    return;
                }
                Err((_, error)) => {
                    self.table.remove(&id);
                    let message = format!(
                        "no thread for a file operation ({error}); the sandbox is at its limit of processes or memory"
                    );
                    self.notices.push(Notice::Finished(
                        caller,
                        Err(failed_as(
                            ErrorKind::ResourceExhausted,
                            errno_of(&error),
                            message,
                        )),
                    ));
                }
            }
        }
        if self.waiting.is_empty() {
            self.stalled = None;
        }
    }

    /// The caller is gone, or wants no more.
    pub(crate) fn cancel(&mut self, id: u64) {
        if let Some(job) = self.table.get(&id) {
            job.shared.lock().cancelled = true;
            job.shared.changed.notify_all();
            if self.waiting.iter().any(|(waiting, _)| *waiting == id) {
                self.waiting.retain(|(waiting, _)| *waiting != id);
                self.table.remove(&id);
            }
        }
    }

    /// Takes data for a job; `false` where it exceeds the window.
    pub(crate) fn push(&mut self, id: u64, bytes: Bytes, end: bool) -> bool {
        let Some(job) = self.table.get(&id) else {
            return true;
        };
        let mut state = job.shared.lock();
        if end {
            state.incoming_end = Some(bytes);
        } else {
            state.incoming_bytes += bytes.len();
            state.incoming.push_back(bytes);
        }
        job.shared.changed.notify_all();
        state.incoming_bytes <= INITIAL_WINDOW as usize
    }

    pub(crate) fn add_window(&mut self, id: u64, credit: u32) {
        if let Some(job) = self.table.get(&id) {
            let mut state = job.shared.lock();
            state.credit = state.credit.saturating_add(u64::from(credit));
            job.shared.changed.notify_all();
        }
    }

    /// Sees what the jobs that called have for the loop.
    pub(crate) fn collect(&mut self) {
        let mut buffer = [0; 8];
        let _ = rustix::io::read(&self.wake.eventfd, &mut buffer);
        let ids = std::mem::take(
            &mut *self
                .wake
                .jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for id in ids {
            self.collect_one(id);
        }
    }

    fn collect_one(&mut self, id: u64) {
        let Some(job) = self.table.get(&id) else {
            return;
        };
        let caller = job.caller;
        let mut state = job.shared.lock();
        if state.consumed >= CREDIT_STEP {
            let credit = std::mem::take(&mut state.consumed);
            self.notices.push(Notice::Credit(caller, credit));
        }
        if !state.outgoing.is_empty() && !state.cancelled {
            self.notices.push(Notice::Ready(caller));
            return;
        }
        let result = state.result.take();
        drop(state);
        if let Some(result) = result {
            self.table.remove(&id);
            self.running -= 1;
            self.notices.push(Notice::Finished(caller, result));
            self.run_waiting();
        }
    }

    pub(crate) fn next_chunk(&mut self, id: u64) -> Option<Chunk<'_>> {
        let job = self.table.get_mut(&id)?;
        let (bytes, end) = {
            let state = job.shared.lock();
            let front = state.outgoing.front()?;
            (front.bytes.clone(), front.end)
        };
        self.front = bytes;
        Some(Chunk {
            frame_type: FrameType::STREAM_DATA,
            end,
            first: &self.front,
            second: &[],
        })
    }

    /// The chunk that `next_chunk` gave has been sent.
    pub(crate) fn sent(&mut self, id: u64) {
        self.front = Bytes::new();
        let Some(job) = self.table.get(&id) else {
            return;
        };
        let mut state = job.shared.lock();
        state.outgoing.pop_front();
        let finished = state.outgoing.is_empty() && state.result.is_some();
        drop(state);
        if finished {
            self.collect_one(id);
        }
    }
}

/// Runs a job on a thread of its own; gives the work back where there is none.
fn run(work: Work, shared: Arc<Shared>) -> Result<(), (Work, io::Error)> {
    let held = Arc::new(Mutex::new(Some(work)));
    let taken = held.clone();
    let started = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let Some(work) = take(&taken) else { return };
            let mut stream = JobStream {
                shared,
                sent: Counted::default(),
                received: Counted::default(),
                current: Bytes::new(),
                unwritten: 0,
            };
            let result = work(&mut stream);
            let mut state = stream.shared.lock();
            state.result = Some(result);
            drop(state);
            stream.shared.wake.tell(stream.shared.id);
        });
    match started {
        Ok(_) => Ok(()),
        Err(error) => {
            // Nobody else could take it: the thread was never there.
            let work = take(&held).expect("the work of a thread that did not start is still held");
            Err((work, error))
        }
    }
}

fn take(held: &Mutex<Option<Work>>) -> Option<Work> {
    held.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A job's view of its stream: what it reads comes from the host, what it writes goes there.
pub(crate) struct JobStream {
    shared: Arc<Shared>,
    sent: Counted,
    received: Counted,
    current: Bytes,
    /// What it took of the disk's room last: with the next chunk that is written.
    unwritten: u64,
}

impl Drop for JobStream {
    fn drop(&mut self) {
        self.shared.wake.room.written(self.unwritten);
    }
}

impl JobStream {
    /// Takes the room for bytes that are written to the disk, of which those of holes need none. Those before them are written.
    ///
    /// # Errors
    /// `ENOSPC` where there is less: it would be over its limit, which ends programs.
    pub(crate) fn take_room(&mut self, bytes: &[u8]) -> io::Result<()> {
        const BLOCK: usize = 4096;
        let filled = bytes
            .chunks(BLOCK)
            .filter(|block| block.iter().any(|byte| *byte != 0));
        let needed = (filled.count() * BLOCK) as u64;
        let written = std::mem::take(&mut self.unwritten);
        if !self.shared.wake.room.take(needed, written) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.unwritten = needed;
        Ok(())
    }

    /// Sends a chunk, once there is credit for it.
    pub(crate) fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        self.sent.add(&bytes);
        let mut state = self.shared.lock();
        while state.credit < bytes.len() as u64 && !state.cancelled {
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.cancelled {
            return Err(cancelled());
        }
        state.credit -= bytes.len() as u64;
        state.outgoing.push_back(Outgoing { bytes, end: false });
        drop(state);
        self.shared.wake.tell(self.shared.id);
        Ok(())
    }

    /// The next chunk from the host, or `None` at its end.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Bytes>> {
        let mut state = self.shared.lock();
        let bytes = loop {
            if state.cancelled {
                return Err(cancelled());
            }
            if let Some(bytes) = state.incoming.pop_front() {
                break bytes;
            }
            if state.incoming_end.is_some() {
                return Ok(None);
            }
            state = self
                .shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        state.incoming_bytes -= bytes.len();
        state.consumed += u32::try_from(bytes.len()).unwrap_or_default();
        let tell = state.consumed >= CREDIT_STEP;
        drop(state);
        if tell {
            self.shared.wake.tell(self.shared.id);
        }
        self.received.add(&bytes);
        Ok(Some(bytes))
    }

    /// Ends the outgoing stream with its length and checksum.
    pub(crate) fn finish(&mut self) {
        let trailer = self.sent.trailer().to_body();
        self.shared.lock().outgoing.push_back(Outgoing {
            bytes: trailer,
            end: true,
        });
        self.shared.wake.tell(self.shared.id);
    }

    /// Reads the incoming stream to its end, and fails unless it is what the host says it sent.
    pub(crate) fn verify(&mut self) -> Result<(), ErrorBody> {
        let mut rest = [0; 4096];
        while io::Read::read(self, &mut rest)
            .map_err(|error| ErrorBody::new(ErrorKind::Internal, error.to_string()))?
            > 0
        {}
        let end = self.shared.lock().incoming_end.clone().unwrap_or_default();
        let told = Trailer::from_body(&end)
            .map_err(|error| ErrorBody::new(ErrorKind::Protocol, error.to_string()))?;
        match told == self.received.trailer() {
            true => Ok(()),
            false => Err(ErrorBody::new(
                ErrorKind::Corrupt,
                "the data that arrived in the sandbox is not what was sent; nothing was changed",
            )),
        }
    }
}

fn cancelled() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the caller has gone")
}

impl io::Read for JobStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            let Some(bytes) = self.receive()? else {
                return Ok(0);
            };
            self.current = bytes;
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl io::Write for JobStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = buffer.len().min(BULK_BODY);
        self.send(Bytes::copy_from_slice(&buffer[..count]))?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
