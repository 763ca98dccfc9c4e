//! Programs that the library starts on the host: all of them through its launcher, `blink-guest launch`.
//!
//! The process that embeds Blink spawns one program, and runs no code between a fork and an exec: that program takes a plan
//! and descriptors over a socket, starts what the plan says, and tells how it ends. So nothing depends on what the host
//! process does with its signals and children: how a program ended comes over the socket, also where SIGCHLD is ignored or
//! somebody else collects all children. The socket and a handle of this process are the program's leash.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use blink_wire::{
    LAUNCH_BODY_LIMIT, LAUNCH_END, LAUNCH_RELEASE, LaunchFailure, LaunchPlan, LaunchReport, Message,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Error;
use crate::guest_binary;

/// How long the launcher may take to read its plan, or to end when it has nothing left to do: it takes a millisecond, unless
/// the machine is overloaded.
const LAUNCHER_WAIT: Duration = Duration::from_secs(10);

/// How much of what a program prints is kept: those that Blink asks print a line.
const OUTPUT_LIMIT_BYTES: usize = 1 << 20;

/// A program that could not be started, or did not end in time.
#[derive(Debug)]
pub(crate) struct LaunchError {
    what: String,
    source: io::Error,
    /// What the launcher could not do.
    step: Option<String>,
}

impl LaunchError {
    fn of(what: impl fmt::Display) -> impl FnOnce(io::Error) -> LaunchError {
        move |source| LaunchError {
            what: what.to_string(),
            source,
            step: None,
        }
    }

    fn reported(failure: &LaunchFailure) -> LaunchError {
        let path = OsStr::from_bytes(&failure.path);
        LaunchError {
            what: format!("{} {}", path.display(), failure.step),
            source: io::Error::from_raw_os_error(failure.errno),
            step: Some(failure.step.clone()),
        }
    }

    fn died() -> LaunchError {
        LaunchError {
            what: "Blink's launcher has ended before its program".into(),
            source: io::ErrorKind::BrokenPipe.into(),
            step: None,
        }
    }

    pub(crate) fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// What could not be done, without the system's reason.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// What the launcher could not do, as the end of a sentence.
    pub(crate) fn step(&self) -> &str {
        self.step.as_deref().unwrap_or_default()
    }

    /// The failure of what it was started for.
    pub(crate) fn into_error(self, task: impl fmt::Display) -> Error {
        Error::io(format!("{task}: {}", self.what), &self.source)
    }
}

impl std::error::Error for LaunchError {}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

/// Starts programs.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    home: PathBuf,
}

/// A launcher that runs. Its program ends when this is dropped, unless it was released.
#[derive(Debug)]
pub(crate) struct Launched {
    control: UnixStream,
    pid: i32,
    /// `None` if it has ended and was collected already, by someone else.
    process: Option<OwnedFd>,
}

impl Launcher {
    /// The launcher of a home, in which its program is put when it is needed.
    pub(crate) fn in_home(home: impl Into<PathBuf>) -> Launcher {
        Launcher { home: home.into() }
    }

    /// Starts what a plan says, with descriptors whose numbers it names.
    pub(crate) fn start(
        &self,
        plan: &mut LaunchPlan,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Launched, LaunchError> {
        plan.parent = i32::try_from(std::process::id()).unwrap_or_default();
        let program =
            guest_binary::install_embedded(&self.home).map_err(LaunchError::of(format_args!(
                "Blink's launcher cannot be put into {}",
                self.home.display()
            )))?;
        let launched = spawn(&program).map_err(|error| LaunchError {
            what: match error.kind() {
                io::ErrorKind::PermissionDenied => format!(
                    "{} cannot be executed (Blink's home must be where programs may be: on a file system without noexec)",
                    program.display()
                ),
                _ => format!("{} cannot be executed", program.display()),
            },
            source: error,
            step: None,
        })?;
        // Where it has failed, it says so itself.
        match launched.send_plan(plan, descriptors) {
            Ok(()) => Ok(launched),
            Err(error) => Err(match launched.next_report(LAUNCHER_WAIT) {
                Ok(LaunchReport::Failed(failure)) => LaunchError::reported(&failure),
                _ => LaunchError::of("Blink's launcher took no plan")(error),
            }),
        }
    }

    /// Runs a program to its end.
    pub(crate) fn run(
        &self,
        program: &Program,
        patience: Duration,
    ) -> Result<Finished, LaunchError> {
        let deadline = Instant::now() + patience;
        let failed = |error: io::Error| LaunchError::of(program.name())(error);
        let input = program.input().map_err(failed)?;
        let (output, their_output) = UnixStream::pair().map_err(failed)?;
        let launched = self.start(&mut program.plan(), &[input.as_fd(), their_output.as_fd()])?;
        drop(their_output);
        let mut output = Collected::new(output);
        loop {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                launched.end();
                let late = format!("took longer than {patience:.0?}, and was ended");
                return Err(failed(io::Error::new(io::ErrorKind::TimedOut, late)));
            };
            let [reported, printed] =
                wait_for([Some(launched.control.as_fd()), output.open()], left);
            // What was printed is there before the end is told.
            if printed || reported {
                output.take();
            }
            if reported {
                break;
            }
        }
        let report = launched.next_report(LAUNCHER_WAIT);
        launched.end();
        match report? {
            LaunchReport::Ended(code) => Ok(Finished {
                code,
                stdout: output.bytes,
            }),
            LaunchReport::Failed(failure) => Err(LaunchError::reported(&failure)),
            _ => Err(LaunchError::died()),
        }
    }
}

/// Spawns without code between fork and exec: that is what the standard library does for a command like this one.
#[expect(
    clippy::disallowed_types,
    reason = "the one place that starts a program"
)]
fn spawn(program: &Path) -> io::Result<Launched> {
    /// A program that was just written is busy for as long as a child that another thread starts has it open.
    const BUSY_TRIES: u32 = 200;
    const BUSY_PAUSE: Duration = Duration::from_millis(5);
    let mut tries = 0;
    let (control, child) = loop {
        let (control, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        let spawned = std::process::Command::new(program)
            // Of the path of the home, a sandbox is not to know.
            .arg0("blink-guest")
            .arg("launch")
            .env_clear()
            .stdin(theirs.try_clone()?)
            .stdout(theirs.try_clone()?)
            .stderr(Stdio::from(theirs))
            .spawn();
        match spawned {
            Ok(child) => break (control, child),
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES =>
            {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            Err(error) => return Err(error),
        }
    };
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok());
    Ok(Launched {
        control,
        pid,
        process,
    })
}

impl Launched {
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    fn send_plan(&self, plan: &LaunchPlan, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.control.set_write_timeout(Some(LAUNCHER_WAIT))?;
        let body = plan.to_body();
        if body.len() > LAUNCH_BODY_LIMIT {
            return Err(io::ErrorKind::ArgumentListTooLong.into());
        }
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(blink_wire::LAUNCH_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // With a flag against the signal of a broken pipe, which the host process may not ignore.
        let mut rest = [&length[..], &body[..]].concat();
        let mut sent = sendmsg(
            &self.control,
            &[IoSlice::new(&rest)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        while sent < rest.len() {
            rest.drain(..sent);
            sent = match send(&self.control, &rest, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::INTR) => 0,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }

    /// The next report.
    pub(crate) fn next_report(&self, patience: Duration) -> Result<LaunchReport, LaunchError> {
        let read = || -> io::Result<Vec<u8>> {
            // None would mean to wait for ever.
            let patience = patience.max(Duration::from_millis(1));
            self.control.set_read_timeout(Some(patience))?;
            let mut control = &self.control;
            let mut length = [0; 4];
            control.read_exact(&mut length)?;
            let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
            if length > LAUNCH_BODY_LIMIT {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut body = vec![0; length];
            control.read_exact(&mut body)?;
            Ok(body)
        };
        let body = read().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                LaunchError::of("Blink's launcher says nothing")(io::ErrorKind::TimedOut.into())
            }
            _ => LaunchError::died(),
        })?;
        LaunchReport::from_body(&body).map_err(|error| {
            LaunchError::of("Blink's launcher cannot be understood")(io::Error::other(error))
        })
    }

    /// The sandbox's first process.
    pub(crate) fn first_process(&self, patience: Duration) -> Result<Option<i32>, LaunchError> {
        match self.next_report(patience)? {
            LaunchReport::Inside(pid) => Ok(Some(pid)),
            LaunchReport::Failed(failure) => Err(LaunchError::reported(&failure)),
            // Why, it has printed.
            _ => Ok(None),
        }
    }

    /// From now on its program outlives this process.
    pub(crate) fn release(&self) {
        self.tell(LAUNCH_RELEASE);
    }

    /// Ends its program with all that it has started. Does not wait.
    pub(crate) fn kill(&self) {
        self.tell(LAUNCH_END);
    }

    /// A launcher that is gone has ended its program already.
    fn tell(&self, byte: u8) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let _ = send(&self.control, &[byte], flags);
    }

    /// Waits until it has ended, and with it all that it has started.
    pub(crate) async fn ended(&self) {
        // `None` where it has ended, and was collected, before it could be looked at.
        let Some(process) = &self.process else {
            return;
        };
        // It becomes readable when the process ends.
        // SAFETY: the descriptor is open for as long as `self`, which outlives what is registered.
        let registered =
            unsafe { AsyncFd::register_with_interest(process.as_fd(), Interest::READABLE) };
        if let Ok(handle) = registered {
            let _ = handle.readable().await;
        }
        collect(process);
    }

    /// Ends it, and waits until it has ended.
    pub(crate) fn end(self) {
        self.kill();
        if let Some(process) = self.process {
            wait_for([Some(process.as_fd())], LAUNCHER_WAIT);
            collect(&process);
        }
    }
}

/// Opens `/dev/null` where one of the three standard descriptors is closed, as Rust's and other runtimes do: a socket or a
/// database that got its number would take whatever the host process prints.
pub(crate) fn fill_standard_descriptors() {
    for _ in 0..3 {
        let flags = rustix::fs::OFlags::RDWR;
        // Gets the lowest number that is free.
        match rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()) {
            Ok(null) if null.as_raw_fd() <= 2 => std::mem::forget(null),
            _ => return,
        }
    }
}

/// Takes an ended process from the list of this process's children, unless someone else has.
fn collect(process: &OwnedFd) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let _ = waitid(WaitId::PidFd(process.as_fd()), options);
}

/// Waits until there is something to read, or an end, at one of them.
fn wait_for<const N: usize>(
    descriptors: [Option<BorrowedFd<'_>>; N],
    patience: Duration,
) -> [bool; N] {
    let mut watched: Vec<_> = descriptors
        .iter()
        .flatten()
        .map(|descriptor| PollFd::new(descriptor, PollFlags::IN))
        .collect();
    let patience = Timespec::try_from(patience).ok();
    // A signal is no reason to stop: whoever calls looks at its clock.
    let _ = poll(&mut watched, patience.as_ref());
    let mut happened = watched.iter().map(|one| !one.revents().is_empty());
    descriptors.map(|descriptor| descriptor.is_some() && happened.next().unwrap_or(false))
}

/// A program of the host's to run.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// 128 and the signal's number where a signal has ended it.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
}

impl Program {
    /// A program by its path, or by a name that is looked for in `PATH`; it gets this process's environment. What it
    /// says on its standard error is not heard.
    pub(crate) fn new(program: impl Into<OsString>) -> Program {
        Program {
            program: program.into(),
            arguments: Vec::new(),
            environment: std::env::vars_os().collect(),
            stdin: Vec::new(),
        }
    }

    pub(crate) fn args(
        mut self,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Program {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Program {
        self.stdin = bytes.into();
        self
    }

    fn name(&self) -> impl fmt::Display {
        Path::new(&self.program).display()
    }

    /// A file: nobody need write to a program that does not read.
    fn input(&self) -> io::Result<File> {
        let file = rustix::fs::memfd_create(c"blink-input", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = File::from(file);
        file.write_all(&self.stdin)?;
        file.rewind()?;
        Ok(file)
    }

    fn plan(&self) -> LaunchPlan {
        let environment = self.environment.iter().map(|(name, value)| {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            variable
        });
        let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        LaunchPlan {
            parent: 0,
            program: bytes(self.program.clone()),
            arguments: self.arguments.iter().cloned().map(bytes).collect(),
            environment: environment.map(bytes).collect(),
            search: bytes(search),
            numbers: vec![0, 1],
            sandbox: None,
            kept: 0,
        }
    }
}

/// As plans have it.
pub(crate) fn bytes(text: impl Into<OsString>) -> blink_wire::PathBytes {
    text.into().into_vec().into()
}

/// What a program prints.
struct Collected {
    stream: Option<UnixStream>,
    bytes: Vec<u8>,
}

impl Collected {
    fn new(stream: UnixStream) -> Collected {
        let stream = stream.set_nonblocking(true).is_ok().then_some(stream);
        Collected {
            stream,
            bytes: Vec::new(),
        }
    }

    fn open(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there; what is too much is not kept.
    fn take(&mut self) {
        let mut some = [0; 8192];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut some) {
                Ok(0) => self.stream = None,
                Ok(length) => {
                    let room = OUTPUT_LIMIT_BYTES - self.bytes.len();
                    self.bytes.extend_from_slice(&some[..length.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.stream = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn run(program: &Program) -> Result<Finished, LaunchError> {
        let home = tempfile::tempdir().unwrap();
        Launcher::in_home(home.path()).run(program, PATIENCE)
    }

    fn shell(script: &str) -> Program {
        Program::new("sh").args(["-c", script])
    }

    #[test]
    fn a_program_gets_its_input_and_gives_its_output_and_code() {
        let program = shell("cat; printf err >&2; exit 7").stdin("given");
        let finished = run(&program).unwrap();
        assert_eq!(finished.code, 7);
        assert_eq!(finished.stdout, b"given");
        assert_eq!(run(&shell("kill -9 $$")).unwrap().code, 137);
    }

    #[test]
    fn what_prints_too_much_ends_nevertheless() {
        let finished = run(&shell("head -c 5000000 /dev/zero")).unwrap();
        assert_eq!(finished.code, 0);
        assert_eq!(finished.stdout.len(), OUTPUT_LIMIT_BYTES);
    }

    #[test]
    fn what_is_left_running_is_not_waited_for_and_goes_on() {
        let finished = run(&shell("sleep 1000 & echo $!")).unwrap();
        let text = String::from_utf8(finished.stdout).unwrap();
        let left = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn what_takes_too_long_is_ended_with_all_that_it_has_started() {
        let home = tempfile::tempdir().unwrap();
        let said = home.path().join("said");
        let script = format!(
            "sh -c 'echo $$ >{0}.new; mv {0}.new {0}; sleep 1000; :'; :",
            said.display()
        );
        let launcher = Launcher::in_home(home.path());
        let error = launcher
            .run(&shell(&script), Duration::from_secs(2))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let pid: i32 = std::fs::read_to_string(said)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        for name in ["/no/such/program", "no-such-program"] {
            let error = run(&Program::new(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = run(&Program::new("/etc/passwd")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
