//! A program and its user, from its start to its end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use blink_core::{
    DEFAULT_OUTPUT_LIMIT_BYTES, ErrorKind, ExitStatus, Isolation, Mount, Process, ProcessStdin,
    Sandbox,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::program;
use super::result::Captured;
use super::signals::{Caught, Signals, exit_code};
use super::streams::{self, Broken};
use super::target::Target;
use super::terminal::{self, Terminal};
use crate::failure::{EXIT_BROKEN_PIPE, Failure, warn};
use crate::options::ProgramOptions;

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

/// The key that leaves a program's terminal without ending it: Ctrl-], as for `telnet` and other consoles.
const LEAVE_KEY: u8 = 0x1d;

/// Where a program runs that this command stays with, and how.
#[derive(Clone, Copy)]
pub(crate) struct Holding<'a> {
    pub(crate) isolation: Isolation,
    /// The session's name, if it is one's sandbox, which stays: then the program must not.
    pub(crate) session: Option<&'a str>,
    pub(crate) terminal: Option<&'a Terminal>,
    pub(crate) json: bool,
}

impl<'a> Holding<'a> {
    /// Starts a program and stays with it to its end.
    pub(crate) async fn run(
        self,
        sandbox: &'a Sandbox,
        target: &Target,
        mounts: &[Mount],
        options: &ProgramOptions,
        signals: &mut Signals,
    ) -> Result<Ending, Failure> {
        let started = tokio::select! {
            started = program::start(sandbox, target, mounts, options) => started?,
            signal = signals.ending() => return Ok(Ending::GivenUp(exit_code(signal))),
        };
        // Restored when this function is left, before anything else is said.
        let _raw = self.terminal.map(Terminal::raw).transpose()?;
        let mut held = self.hold(started.process, started.at, Some(sandbox));
        let ending = held.stay(signals).await;
        if self.session.is_some() {
            held.release(started.script).await;
        }
        ending
    }

    /// Stays with a program that runs already, until it ends or its user leaves it.
    pub(crate) async fn attach(
        self,
        process: Process,
        signals: &mut Signals,
    ) -> Result<Ending, Failure> {
        let _raw = self.terminal.map(Terminal::raw).transpose()?;
        let mut held = self.hold(process, Instant::now(), None);
        let ending = held.stay(signals).await;
        held.feeding.end().await;
        ending
    }

    fn hold(self, mut process: Process, started: Instant, own: Option<&'a Sandbox>) -> Held<'a> {
        let may_leave = own.is_none();
        let leave_key = (may_leave && self.terminal.is_some()).then_some(LEAVE_KEY);
        Held {
            feeding: Feeding::start(process.take_stdin(), leave_key),
            taking: take(&mut process, self, started),
            holding: self,
            own,
            process,
            may_leave,
            interrupted: false,
            killed: None,
        }
    }
}

/// What carries this command's input to the program.
struct Feeding {
    task: JoinHandle<bool>,
    end: oneshot::Sender<()>,
}

impl Feeding {
    fn start(stdin: Option<ProcessStdin>, leave_key: Option<u8>) -> Feeding {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let Some(mut stdin) = stdin else { return false };
            let left = tokio::select! {
                left = streams::feed(&mut stdin, leave_key) => left,
                _ = ended => true,
            };
            stdin.leave();
            left
        });
        Feeding { task, end }
    }

    /// Ends it; the program's input stays open.
    async fn end(self) {
        drop(self.end);
        if !self.task.is_finished() {
            let _ = self.task.await;
        }
    }
}

fn take(process: &mut Process, holding: Holding<'_>, started: Instant) -> Taking {
    let (stdout, stderr) = (process.take_stdout(), process.take_stderr());
    let json = holding.json;
    let isolation = holding.isolation;
    let session = holding.session.map(str::to_owned);
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
                isolation,
                session,
            }));
        }
        tokio::try_join!(
            streams::pass_on(stdout, rustix::stdio::stdout(), "standard output"),
            streams::pass_on(stderr, rustix::stdio::stderr(), "standard error")
        )?;
        Ok(None)
    })
}

struct Held<'a> {
    holding: Holding<'a>,
    /// Where this command has started it.
    own: Option<&'a Sandbox>,
    process: Process,
    feeding: Feeding,
    taking: Taking,
    may_leave: bool,
    interrupted: bool,
    killed: Option<Instant>,
}

impl Held<'_> {
    async fn stay(&mut self, signals: &mut Signals) -> Result<Ending, Failure> {
        let (mut taken, mut fed) = (None, false);
        loop {
            let given_up = self.killed.map(|killed| killed + KILLED_GRACE);
            tokio::select! {
                result = &mut self.taking, if taken.is_none() => match joined(result) {
                    Ok(captured) => taken = Some(captured),
                    Err(Broken::Pipe) => return Ok(Ending::GivenUp(EXIT_BROKEN_PIPE)),
                    Err(Broken::Failed(failure)) => return Err(failure),
                },
                status = self.process.wait(), if taken.is_some() => {
                    return Ok(Ending::Exited(status?, taken.flatten()));
                }
                left = &mut self.feeding.task, if !fed => match left {
                    Ok(true) => return Ok(Ending::GivenUp(0)),
                    _ => fed = true,
                },
                signal = signals.next() => match signal {
                    Caught::Hangup | Caught::Quit | Caught::Terminate if self.may_leave => {
                        return Ok(Ending::GivenUp(exit_code(signal)));
                    }
                    signal => self.pass_on(signal).await?,
                },
                () = until(given_up) => return Ok(Ending::GivenUp(EXIT_KILLED)),
            }
        }
    }

    /// Leaves nothing of it in a sandbox that stays.
    async fn release(self, script: Option<PathBuf>) {
        // It fails where the sandbox has died, and then there is nothing to release.
        let _ = self.process.release().await;
        if let Some(script) = script
            && let Some(Ok(files)) = self.own.map(Sandbox::files)
        {
            // The program may have removed it.
            let _ = files.remove(script).await;
        }
    }

    async fn pass_on(&mut self, signal: Caught) -> Result<(), Failure> {
        let sent = match signal {
            Caught::WindowChange => {
                if self.holding.terminal.is_some() {
                    let (rows, cols) = terminal::size();
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
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
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
