//! The processes that hosts have started: their table, their output, their ends.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use blink_wire::{
    Attach, Attached, ErrorBody, ErrorKind, ExitReport, INITIAL_WINDOW, Limit, Peeked, ProcessId,
    ProcessInfo, Spawn,
};
use rustix::fs::{self, Mode, OFlags};
use rustix::io;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, wait, waitid,
};

use crate::confine::Confinement;
use crate::failure::exhausted;
use crate::poll::{Poll, Token};
use crate::stream::{BULK_BODY, Caller};
use descriptors::Descriptors;
use kept::Kept;
use launch::{Launched, Stack, Stdio};
use output::Output;
use queue::{Queue, YOUNG_LIMIT, YOUTH};
use state::{Ended, Process, Reason};
use stdin::Stdin;
use tree::{Marker, Proc, Trees};
use user::Users;
use victims::Victims;

mod descriptors;
mod kept;
mod launch;
mod output;
pub(crate) mod queue;
mod state;
mod stdin;
mod streams;
pub(crate) mod tree;
mod user;
mod victims;

/// Running processes that hosts have started; the tree of each may be larger.
const RUNNING_LIMIT: usize = 1024;

/// Bytes of a command line that a list of processes shows, and of a key.
const ARGV_SHOWN: usize = 4096;

/// Of a list of processes, what goes into one answer: a frame, less what stands around the largest entry (its command line,
/// its key, and their numbers).
const LIST_BYTES: usize = 512 << 10;

/// What the loop has to tell a host.
pub(crate) enum Notice {
    /// There is something to send for the caller's stream.
    Ready(Caller),
    /// Credit for standard input.
    Credit(Caller, u32),
    /// The process has ended and everything was sent: the stream is over.
    Exited(Caller, ExitReport),
    /// The process has ended.
    Ended(Caller, ExitReport),
    /// Another host has attached: the stream is over.
    Taken(Caller),
}

/// Why a program was not started.
pub(crate) enum NotStarted {
    /// It cannot be right, or something is broken.
    Refused(ErrorBody),
    /// There is no room for it now.
    NoRoom(ErrorBody),
}

impl From<ErrorBody> for NotStarted {
    fn from(error: ErrorBody) -> NotStarted {
        NotStarted::Refused(error)
    }
}

/// What became of a program that waited.
pub(crate) struct Started {
    pub(crate) caller: Caller,
    pub(crate) result: Result<(u64, Attached), ErrorBody>,
}

/// The table.
pub(crate) struct Processes {
    pub(crate) queue: Queue,
    /// Those that run, and those of whom there is something left to read or to tell.
    table: BTreeMap<u64, Process>,
    /// Those that are over, for whoever comes back.
    kept: Kept,
    by_pid: HashMap<i32, u64>,
    users: Users,
    next_id: u64,
    proc: Proc,
    /// Made ahead, so that no start waits for it.
    next_marker: Option<Marker>,
    /// What is to be killed before anything is answered.
    doomed: Trees,
    confinement: Confinement,
    /// Where the kernel counts those that it ends for want of memory.
    victims: Option<Victims>,
    stack: Stack,
    dev_null: OwnedFd,
    pub(crate) notices: Vec<Notice>,
}

/// Numbers of one life of the agent are not those of another: who comes back with one from before the sandbox was booted
/// again finds no process, and not another one. Every number is exact in a double, as JSON's readers have it.
fn first_id() -> u64 {
    const PROCESSES_BITS: u32 = 24;
    const LIVES_BITS: u32 = 28;
    let mut bytes = [0; 8];
    // Without random bytes, lives are told apart by their sandboxes' other numbers.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    let life = u64::from_le_bytes(bytes) & ((1 << LIVES_BITS) - 1);
    (life << PROCESSES_BITS) + 1
}

impl Processes {
    /// # Errors
    /// With the path that cannot be opened.
    pub(crate) fn new(
        mut confinement: Confinement,
    ) -> Result<Processes, Box<dyn std::error::Error>> {
        const NULL: &str = "/dev/null";
        let not_opened = |path: &str, error: io::Errno| format!("{path} cannot be opened: {error}");
        Ok(Processes {
            queue: Queue::new(),
            table: BTreeMap::new(),
            kept: Kept::default(),
            by_pid: HashMap::new(),
            users: Users::default(),
            next_id: first_id(),
            proc: Proc::open().map_err(|error| not_opened("/proc", error))?,
            next_marker: None,
            doomed: Trees::default(),
            victims: confinement.memory_events.take().map(Victims::new),
            confinement,
            stack: Stack::new(),
            dev_null: fs::open(NULL, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| not_opened(NULL, error))?,
            notices: Vec::new(),
        })
    }

    /// Starts the next program that waits, if one can be started now.
    pub(crate) fn start_next(&mut self, poll: &Poll) -> Option<Started> {
        let now = Instant::now();
        if self.next_start(now).is_none_or(|start| start > now) {
            return None;
        }
        let mut waiting = self.queue.pop()?;
        let caller = waiting.caller;
        let result = match self.spawn(&waiting.spawn, caller, poll) {
            Ok((id, attached)) => {
                for (bytes, end) in std::mem::take(&mut waiting.input) {
                    self.push_stdin(id, bytes, end);
                }
                Ok((id, attached))
            }
            Err(NotStarted::Refused(error)) => Err(error),
            Err(NotStarted::NoRoom(error)) if self.queue.is_given_up(&waiting, now) => {
                return Some(Started {
                    caller,
                    result: Err(error),
                });
            }
            Err(NotStarted::NoRoom(_)) => {
                self.queue.put_back(waiting, now);
                return None;
            }
        };
        self.queue.progressed(now);
        Some(Started { caller, result })
    }

    /// When the next program that waits can be started.
    fn next_start(&self, now: Instant) -> Option<Instant> {
        if self.queue.is_empty() {
            return None;
        }
        if let Some(retry) = self.queue.retry_at {
            return Some(retry);
        }
        let mut young: Vec<Instant> = self
            .by_pid
            .values()
            .filter_map(|id| self.table.get(id))
            .map(|process| process.started + YOUTH)
            .filter(|grown| *grown > now)
            .collect();
        if young.len() < YOUNG_LIMIT {
            return Some(now);
        }
        // So many must have grown up, or ended, that less than the limit are left.
        let enough = young.len() - YOUNG_LIMIT;
        Some(*young.select_nth_unstable(enough).1)
    }

    /// Starts a process whose output goes to `caller`, or attaches to the one with the same key.
    fn spawn(
        &mut self,
        spawn: &Spawn,
        caller: Caller,
        poll: &Poll,
    ) -> Result<(u64, Attached), NotStarted> {
        if let Some(key) = &spawn.key
            && let Some(id) = self.with_key(key)
        {
            let attach = Attach {
                process: ProcessId(id),
                stdout_offset: 0,
                stderr_offset: 0,
            };
            return Ok((id, self.attach(&attach, caller)?));
        }
        if self.by_pid.len() >= RUNNING_LIMIT {
            let message =
                format!("{RUNNING_LIMIT} processes are running already; wait for some to end");
            let error = ErrorBody::new(ErrorKind::ResourceExhausted, message);
            return Err(NotStarted::NoRoom(error));
        }
        if spawn.key.as_ref().is_some_and(|key| key.len() > ARGV_SHOWN) {
            let message = format!("a process's key may have {ARGV_SHOWN} bytes");
            return Err(ErrorBody::new(ErrorKind::InvalidArgument, message).into());
        }
        let id = self.next_id;
        let process = self.start(spawn, id, poll)?;
        self.next_id += 1;
        if process.ended.is_none() {
            self.by_pid.insert(process.pid, id);
        }
        self.table.insert(id, process);
        let attached = self.attach(
            &Attach {
                process: ProcessId(id),
                stdout_offset: 0,
                stderr_offset: 0,
            },
            caller,
        )?;
        Ok((id, attached))
    }

    fn with_key(&self, key: &str) -> Option<u64> {
        let mut all = self.table.iter().chain(self.kept.all());
        let has_it = |process: &Process| !process.released && process.key.as_deref() == Some(key);
        all.find(|(_, process)| has_it(process)).map(|(&id, _)| id)
    }

    fn known(&self, id: ProcessId) -> Result<&Process, ErrorBody> {
        self.table
            .get(&id.0)
            .or_else(|| self.kept.get(id.0))
            .filter(|process| !process.released)
            .ok_or_else(|| unknown(id))
    }

    fn start(&mut self, spawn: &Spawn, id: u64, poll: &Poll) -> Result<Process, NotStarted> {
        let user = self.users.find(spawn.user.as_deref())?;
        let started = Instant::now();
        let marker = self.next_marker.take();
        let marker = marker.or_else(|| self.proc.mark_next_child()).map(Rc::new);
        let ends = Descriptors::open(spawn, &self.dev_null)
            .map_err(|error| NotStarted::NoRoom(exhausted("pipes for the program", error)))?;
        if user.uid != 0 {
            ends.give_to(user.uid, user.gid);
        }
        // Before the program runs: what cannot be followed is not started.
        let watch = |fd: &Option<OwnedFd>, token| match fd {
            Some(fd) => poll
                .add(fd, token)
                .map_err(|error| NotStarted::NoRoom(exhausted("watching the program", error))),
            None => Ok(()),
        };
        watch(&ends.stdin, Token::Stdin(id))?;
        watch(&ends.stdout, Token::Stdout(id))?;
        watch(&ends.stderr, Token::Stderr(id))?;
        let stdio = Stdio {
            stdin: ends.child[0].as_fd(),
            stdout: ends.child[1].as_fd(),
            stderr: ends.child[2].as_fd(),
            terminal: ends.terminal.is_some(),
        };
        let launched = launch::launch(spawn, &user, &stdio, &self.confinement, &mut self.stack)?;
        let (pid, ended) = match launched {
            Launched::Running(pid) => (pid, None),
            Launched::NotExecuted { code, reason } => (
                0,
                Some(Ended {
                    at: Instant::now(),
                    code: Some(code),
                    signal: None,
                    reason: Some(reason),
                }),
            ),
        };
        drop(ends.child);
        // While the program begins.
        self.next_marker = self.proc.mark_next_child();
        let mut shown = 0;
        Ok(Process {
            pid,
            marker,
            argv: spawn
                .argv
                .iter()
                .map(|arg| arg.to_vec())
                .take_while(|arg| {
                    // Also empty ones take room.
                    shown += arg.len() + 1;
                    shown <= ARGV_SHOWN
                })
                .collect(),
            key: spawn.key.clone(),
            keep: spawn.keep,
            released: false,
            stdin: Stdin::new(ends.stdin, ends.terminal.is_some()),
            terminal: ends.terminal,
            outputs: [ends.stdout, ends.stderr]
                .map(|fd| Output::new(fd, spawn.keep, spawn.output_limit_bytes)),
            reader: None,
            waiting: Vec::new(),
            started,
            deadline: spawn
                .timeout_ms
                .and_then(|timeout| started.checked_add(Duration::from_millis(timeout))),
            killed_for: None,
            ended,
            lingered: false,
            settled: false,
        })
    }

    /// Gives a process's output to `caller`, from the offsets on that it names.
    pub(crate) fn attach(
        &mut self,
        attach: &Attach,
        caller: Caller,
    ) -> Result<Attached, ErrorBody> {
        if let Some(process) = self.kept.take(attach.process.0) {
            self.table.insert(attach.process.0, process);
        }
        let process = self
            .table
            .get_mut(&attach.process.0)
            .filter(|process| !process.released)
            .ok_or_else(|| unknown(attach.process))?;
        let former = process.reader.replace(caller);
        process.stdin.reset_credit();
        process.settled = false;
        let window = u64::from(INITIAL_WINDOW);
        let attached = Attached {
            process: attach.process,
            pid: process.pid.cast_unsigned(),
            stdout_offset: process.outputs[0].attach(attach.stdout_offset, window),
            stderr_offset: process.outputs[1].attach(attach.stderr_offset, window),
        };
        self.notices.extend(former.map(Notice::Taken));
        self.notices.push(Notice::Ready(caller));
        Ok(attached)
    }

    /// What is kept of a process's output, from the offsets on that are named.
    pub(crate) fn peek(&self, from: &Attach) -> Result<Peeked, ErrorBody> {
        let [stdout, stderr] = &self.known(from.process)?.outputs;
        let (stdout_offset, stdout) = stdout.peek(from.stdout_offset, BULK_BODY);
        let (stderr_offset, stderr) = stderr.peek(from.stderr_offset, BULK_BODY);
        Ok(Peeked {
            stdout_offset,
            stdout: stdout.into(),
            stderr_offset,
            stderr: stderr.into(),
        })
    }

    /// How a process has ended; where it has not, `caller` is told when it does.
    pub(crate) fn wait(
        &mut self,
        id: ProcessId,
        caller: Caller,
    ) -> Result<Option<ExitReport>, ErrorBody> {
        let report = self.known(id)?.report();
        if report.is_none()
            && let Some(process) = self.table.get_mut(&id.0)
        {
            process.waiting.push(caller);
        }
        Ok(report)
    }

    pub(crate) fn stop_waiting(&mut self, id: u64, caller: Caller) {
        if let Some(process) = self.table.get_mut(&id) {
            process.waiting.retain(|waiting| *waiting != caller);
        }
    }

    /// The caller's stream is gone: a process that nobody keeps goes with it.
    pub(crate) fn detach(&mut self, id: u64, caller: Caller) {
        let Some(process) = self.table.get_mut(&id) else {
            return;
        };
        if process.reader != Some(caller) {
            return;
        }
        process.reader = None;
        process.outputs.iter_mut().for_each(Output::detach);
        if !process.keep && process.ended.is_none() {
            self.doomed.add(process.pid, process.marker.as_ref());
        }
    }

    pub(crate) fn signal(&mut self, signal: &blink_wire::Signal) -> Result<(), ErrorBody> {
        let process = self
            .table
            .get(&signal.process.0)
            .filter(|process| !process.released)
            .or_else(|| self.kept.get(signal.process.0))
            .ok_or_else(|| unknown(signal.process))?;
        let number = i32::from(signal.signal);
        if !(1..=64).contains(&number) {
            return Err(ErrorBody::new(
                ErrorKind::InvalidArgument,
                format!("{number} is not a signal; signals are 1 to 64"),
            ));
        }
        // SAFETY: the number is one of Linux's signals; realtime ones are as good here, where it is only sent.
        let number = unsafe { Signal::from_raw_unchecked(number) };
        match (signal.tree, number) {
            (true, Signal::KILL) => self.doomed.add(process.pid, process.marker.as_ref()),
            (true, _) => self.proc.signal(&process.tree(), number),
            (false, _) => {
                if let (None, Some(group)) = (&process.ended, Pid::from_raw(process.pid)) {
                    // It may be ending right now.
                    let _ = kill_process_group(group, number);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, id: ProcessId) -> Result<(), ErrorBody> {
        if self.kept.take(id.0).is_some() {
            return Ok(());
        }
        let process = self
            .table
            .get_mut(&id.0)
            .filter(|process| !process.released)
            .ok_or_else(|| unknown(id))?;
        process.keep = false;
        process.released = true;
        if process.ended.is_none() {
            self.doomed.add(process.pid, process.marker.as_ref());
        }
        self.settle(id.0);
        Ok(())
    }

    /// Those whose numbers are above `after`, in the order of their numbers: as many as fit into an answer.
    pub(crate) fn list(&self, after: ProcessId) -> Vec<ProcessInfo> {
        let mut list = Vec::new();
        let (mut last, mut bytes) = (after.0, 0);
        // The next of the one or the other.
        while let Some((&id, process)) = [&self.table, self.kept.all()]
            .into_iter()
            .filter_map(|some| some.range(last.saturating_add(1)..).next())
            .min_by_key(|(id, _)| **id)
        {
            last = id;
            if process.released || (!process.keep && process.settled) {
                continue;
            }
            let info = process.info(ProcessId(id));
            bytes += listed_bytes(&info);
            if bytes > LIST_BYTES && !list.is_empty() {
                break;
            }
            list.push(info);
        }
        list
    }

    /// Collects children that have ended, this agent's own and orphans; returns the ids of its own.
    pub(crate) fn reap(&mut self) -> Vec<u64> {
        let mut ended = Vec::new();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(id) = self.by_pid.remove(&pid.as_raw_nonzero().get()) else {
                continue;
            };
            if let Some(process) = self.table.get_mut(&id) {
                process.end(status);
                let (signal, code) = (status.terminating_signal(), status.exit_status());
                if let Some(victims) = &mut self.victims
                    && victims.has(signal, code)
                    && process.killed_for.is_none()
                {
                    process.killed_for = Some(Reason::Limit(Limit::Memory));
                }
                self.queue.retry_at = None;
                if let Some(report) = process.report() {
                    let waiting = std::mem::take(&mut process.waiting).into_iter();
                    self.notices
                        .extend(waiting.map(|caller| Notice::Ended(caller, report.clone())));
                }
                ended.push(id);
            }
        }
        ended
    }

    /// Kills what was found to be over since the last call, all at once: a walk through all processes takes as long for one
    /// tree as for a thousand. No answer says that a tree was killed before it was.
    pub(crate) fn kill_doomed(&mut self) {
        let doomed = std::mem::take(&mut self.doomed);
        if !doomed.is_empty() {
            self.proc.kill(&doomed);
        }
    }

    /// Does what is due; returns the processes that it did it for.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<u64> {
        let mut due = Vec::new();
        for (&id, process) in &mut self.table {
            if process.ended.is_none() && process.deadline.is_some_and(|deadline| deadline <= now) {
                process.deadline = None;
                // One that has ended by itself, and was only not collected yet, was in time.
                if !has_ended(process.pid) {
                    process.killed_for = Some(Reason::Timeout);
                    self.doomed.add(process.pid, process.marker.as_ref());
                }
            }
            if process.linger_ends().is_some_and(|end| end <= now) {
                // Once: from now on only its reader is waited for, who is heard of.
                process.lingered = true;
                due.push(id);
            }
        }
        due
    }

    /// When `expire` has something to do next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = |process: &Process| match process.ended {
            None => process.deadline,
            Some(_) => process.linger_ends(),
        };
        let due = self.table.values().filter_map(due).min();
        due.into_iter().chain(self.next_start(Instant::now())).min()
    }

    /// Kills every tree, because the sandbox is over a limit.
    pub(crate) fn kill_all(&mut self, limit: Limit) {
        for process in self.table.values_mut() {
            if process.ended.is_none() {
                process.killed_for = Some(Reason::Limit(limit));
                self.doomed.add(process.pid, process.marker.as_ref());
            }
        }
        self.kill_doomed();
        // What is left are children of programs that have ended.
        for pid in self.proc.pids() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Tells the end of a process once all its output is sent, and forgets it unless it is kept.
    fn settle(&mut self, id: u64) {
        let Some(process) = self.table.get_mut(&id) else {
            return;
        };
        if process.ended.is_none() {
            return;
        }
        if !process.settled {
            if !process.can_be_told() {
                return;
            }
            process.settled = true;
            if let (Some(reader), Some(report)) = (process.reader.take(), process.report()) {
                process.outputs.iter_mut().for_each(Output::detach);
                self.notices.push(Notice::Exited(reader, report));
            }
        }
        // A child that was left behind may go on writing: it is read, so that it does not stop or die of it.
        if !process.outputs.iter().all(Output::ended) {
            return;
        }
        if let Some(process) = self.table.remove(&id)
            && process.keep
        {
            self.kept.add(id, process);
        }
    }
}

/// No less than what an entry occupies in a list.
fn listed_bytes(info: &ProcessInfo) -> usize {
    /// Of each number and each string, and all numbers of an entry, with what an end has to say.
    const EACH: usize = 9;
    const NUMBERS: usize = 256;
    let argv = info.argv.iter().map(|arg| arg.len() + EACH);
    let reason = info.exit.as_ref().and_then(|exit| exit.reason.as_ref());
    let texts = [info.key.as_ref(), reason].into_iter().flatten();
    argv.sum::<usize>() + texts.map(|text| text.len() + EACH).sum::<usize>() + NUMBERS
}

/// Looks up a user by name or number.
pub(crate) fn find_user(spec: &str) -> Result<user::User, ErrorBody> {
    user::find(Some(spec))
}

fn unknown(id: ProcessId) -> ErrorBody {
    let message = format!(
        "there is no process {}; it was released, or the sandbox has started anew",
        id.0
    );
    ErrorBody::new(ErrorKind::NotFound, message)
}

/// Whether a child has ended and was not collected yet.
fn has_ended(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Pid::from_raw(pid).is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))))
}
