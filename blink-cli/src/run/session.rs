//! A program and its user, from its start to its end.

use std::time::{Duration, Instant};

use blink_core::{DEFAULT_OUTPUT_LIMIT_BYTES, ExitStatus, Process, Sandbox};
use tokio::task::JoinHandle;

use super::program;
use super::result::Captured;
use super::signals::{Caught, Signals, exit_code};
use super::streams::{self, Broken};
use super::target::Target;
use super::terminal::Terminal;
use crate::arguments::RunOptions;
use crate::failure::{EXIT_BROKEN_PIPE, Failure, warn};

/// The agent kills a program when its time is over. If it has not by so much later, this command does.
const DEADLINE_GRACE: Duration = Duration::from_secs(5);

/// How long a killed program's last output may take to get out.
const KILLED_GRACE: Duration = Duration::from_secs(2);

const EXIT_TIMED_OUT: i32 = 124;
const EXIT_KILLED: i32 = 128 + 9;

/// How it came to an end.
pub(crate) enum Ending {
    /// The program has ended, having written this if it was captured.
    Exited(ExitStatus, Option<Captured>),
    /// It did not, but this command does with this code.
    GivenUp(i32),
}

impl Ending {
    /// Tells the user what the program has not; returns the exit code.
    pub(crate) fn tell(self) -> Result<i32, Failure> {
        let (status, captured) = match self {
            Ending::Exited(status, captured) => (status, captured),
            Ending::GivenUp(code) => return Ok(code),
        };
        if let Some(limit) = status.over_limit {
            warn(format_args!(
                "the program was killed because the sandbox was over its {limit} limit"
            ));
        }
        if status.timed_out {
            let after = status.duration;
            warn(format_args!(
                "the program was killed with everything it had started after {after:.1?}, when its time was over"
            ));
        }
        if let Some(reason) = &status.reason {
            warn(reason);
        }
        if let Some(captured) = captured {
            let code = captured.print(&status)?;
            if code != 0 {
                return Ok(code);
            }
        }
        Ok(match status.timed_out {
            true => EXIT_TIMED_OUT,
            // What the parent of a process is told of its exit code.
            false => status.code & 0xff,
        })
    }
}

/// What becomes of the output.
type Taking = JoinHandle<Result<Option<Captured>, Broken>>;

/// Starts the program and stays with it to its end.
pub(crate) async fn hold(
    sandbox: &Sandbox,
    target: &Target,
    mut options: RunOptions,
    terminal: Option<Terminal>,
    signals: &mut Signals,
) -> Result<Ending, Failure> {
    let (mut process, started) = tokio::select! {
        started = program::start(sandbox, target, &mut options, terminal.as_ref()) => started?,
        signal = signals.ending() => return Ok(Ending::GivenUp(exit_code(signal))),
    };
    // Restored when this function is left, before anything else is said.
    let _raw = terminal.as_ref().map(Terminal::raw).transpose()?;
    if let Some(stdin) = process.take_stdin() {
        tokio::spawn(streams::feed(stdin));
    }
    let mut session = Session {
        sandbox,
        started,
        timeout: options.timeout,
        taking: take(&mut process, options.json, started),
        process,
        terminal: terminal.as_ref(),
        interrupted: false,
        killed: None,
    };
    session.stay(signals).await
}

fn take(process: &mut Process, json: bool, started: Instant) -> Taking {
    let (stdout, stderr) = (process.take_stdout(), process.take_stderr());
    tokio::spawn(async move {
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Ok(None);
        };
        if json {
            let limit = usize::try_from(DEFAULT_OUTPUT_LIMIT_BYTES).unwrap_or(usize::MAX);
            let (stdout, stderr) = tokio::try_join!(
                streams::capture(stdout, limit),
                streams::capture(stderr, limit)
            )?;
            return Ok(Some(Captured {
                stdout,
                stderr,
                elapsed: started.elapsed(),
                isolation: None,
            }));
        }
        tokio::try_join!(
            streams::pass_on(stdout, rustix::stdio::stdout(), "standard output"),
            streams::pass_on(stderr, rustix::stdio::stderr(), "standard error")
        )?;
        Ok(None)
    })
}

struct Session<'a> {
    sandbox: &'a Sandbox,
    process: Process,
    taking: Taking,
    started: Instant,
    timeout: Option<Duration>,
    terminal: Option<&'a Terminal>,
    interrupted: bool,
    killed: Option<Instant>,
}

impl Session<'_> {
    async fn stay(&mut self, signals: &mut Signals) -> Result<Ending, Failure> {
        let mut taken = None;
        loop {
            let deadline = self.deadline();
            tokio::select! {
                result = &mut self.taking, if taken.is_none() => match joined(result) {
                    Ok(captured) => taken = Some(captured),
                    Err(Broken::Pipe) => return Ok(Ending::GivenUp(EXIT_BROKEN_PIPE)),
                    Err(Broken::Failed(failure)) => return Err(failure),
                },
                status = self.process.wait(), if taken.is_some() => {
                    let mut captured = taken.flatten();
                    if let Some(captured) = &mut captured {
                        captured.isolation = Some(self.sandbox.isolation());
                    }
                    return Ok(Ending::Exited(status?, captured));
                }
                signal = signals.next() => self.pass_on(signal).await?,
                () = until(deadline) => if let Some(ending) = self.overdue().await {
                    return Ok(ending);
                },
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let timeout = self.timeout.and_then(|timeout| {
            self.started
                .checked_add(timeout)
                .and_then(|end| end.checked_add(DEADLINE_GRACE))
        });
        let killed = self.killed.map(|killed| killed + KILLED_GRACE);
        [timeout, killed].into_iter().flatten().min()
    }

    /// Something should have ended by now.
    async fn overdue(&mut self) -> Option<Ending> {
        if self.killed.is_some() {
            return Some(Ending::GivenUp(EXIT_KILLED));
        }
        // It may well have ended in time: then only its output still waits for whoever reads it here.
        let asking = tokio::time::timeout(DEADLINE_GRACE, self.sandbox.processes());
        let ended = match asking.await {
            Ok(Ok(list)) => list
                .iter()
                .any(|process| process.id == self.process.id() && process.status.is_some()),
            _ => false,
        };
        if ended {
            self.timeout = None;
            return None;
        }
        warn("the sandbox did not end the program when its time was over; it is removed now");
        Some(Ending::GivenUp(EXIT_TIMED_OUT))
    }

    async fn pass_on(&mut self, signal: Caught) -> Result<(), Failure> {
        let sent = match signal {
            Caught::WindowChange => {
                if let Some(terminal) = self.terminal {
                    let (rows, cols) = terminal.size();
                    self.process.resize(rows, cols);
                }
                return Ok(());
            }
            Caught::Quit => self.kill().await,
            Caught::Interrupt if self.interrupted => self.kill().await,
            _ => {
                self.interrupted |= signal == Caught::Interrupt;
                self.process.signal(signal.number()).await
            }
        };
        match sent {
            // It has ended meanwhile.
            Err(error) if error.kind() == blink_core::ErrorKind::NotFound => Ok(()),
            sent => Ok(sent?),
        }
    }

    async fn kill(&mut self) -> blink_core::Result<()> {
        self.killed.get_or_insert_with(Instant::now);
        self.process.kill().await
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn joined<T>(result: Result<Result<T, Broken>, tokio::task::JoinError>) -> Result<T, Broken> {
    result.unwrap_or_else(|error| {
        Err(Broken::Failed(Failure::internal(format!(
            "what takes the output has ended: {error}"
        ))))
    })
}
