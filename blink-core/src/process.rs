//! A program that runs in a sandbox, while it runs.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use blink_wire::{FrameType, ProcessId, Request, Response, Signal, TtySize};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::command::{Command, Stdin};
use crate::error::{Error, ErrorKind, Result, Subject, during};
use crate::isolation::Isolation;
use crate::link::Reading;
use crate::link::deadline::TIMEOUT_GRACE;
use crate::link::{Channel, Link, Stream};
use crate::output::{ExitStatus, Output};

/// The agent kills a tree when its time is over. Where it does not, the link ends the sandbox after [`TIMEOUT_GRACE`]; and
/// where a program was started late, because so many were, the caller has waited for long enough a little later.
const CALL_GRACE: Duration = TIMEOUT_GRACE.saturating_add(Duration::from_secs(5));

/// A running program, from [`Sandbox::spawn`](crate::Sandbox::spawn).
///
/// Its output comes as it writes it, and holds it back when nobody takes it: read [`stdout`](Process::take_stdout) and
/// [`stderr`](Process::take_stderr), or drop them, which throws the output away. It goes on when this handle is
/// dropped; [`Sandbox::process`](crate::Sandbox::process) attaches to it again.
pub struct Process {
    id: ProcessId,
    pid: u32,
    link: Link,
    stream: Stream,
    isolation: Isolation,
    stdin: Option<ProcessStdin>,
    stdout: Option<ProcessOutput>,
    stderr: Option<ProcessOutput>,
}

impl Subject for Process {
    fn subject(&self) -> String {
        format!("process {}", self.id())
    }
}

impl Process {
    pub(crate) async fn start(
        link: &Link,
        request: Request,
        piped: bool,
        isolation: Isolation,
    ) -> Result<Process> {
        let stream = link.open(&request).await?;
        let attached = match stream.opened().await? {
            Response::Attached(attached) => attached,
            _ => return Err(unexpected_answer()),
        };
        let output = |channel, offset| {
            Some(ProcessOutput {
                reading: Reading::new(stream.clone(), channel),
                offset,
            })
        };
        Ok(Process {
            id: attached.process,
            pid: attached.pid,
            link: link.clone(),
            stdin: piped.then(|| ProcessStdin::new(stream.clone())),
            stdout: output(Channel::Stdout, attached.stdout_offset),
            stderr: output(Channel::Stderr, attached.stderr_offset),
            isolation,
            stream,
        })
    }

    /// Names the process for as long as its sandbox runs.
    pub fn id(&self) -> u64 {
        self.id.0
    }

    /// Its number among the sandbox's processes; 0 where it could not be started.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its standard input, once; `None` unless the command asked for [`Stdin::Piped`].
    pub fn take_stdin(&mut self) -> Option<ProcessStdin> {
        self.stdin.take()
    }

    /// Its standard output, once.
    pub fn take_stdout(&mut self) -> Option<ProcessOutput> {
        self.stdout.take()
    }

    /// Its standard error, once.
    pub fn take_stderr(&mut self) -> Option<ProcessOutput> {
        self.stderr.take()
    }

    /// Waits until it has ended and its output has been taken. Output that was not taken out of this handle is thrown
    /// away meanwhile.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox ends first; `Busy` if someone else has attached to the process.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let subject = self.subject();
        during("wait", &*subject, async {
            self.stdout = None;
            self.stderr = None;
            self.stdin = None;
            self.exited().await
        })
        .await
    }

    /// Waits until it has ended and its output has been taken; whoever has that goes on reading it meanwhile.
    ///
    /// # Errors
    /// As for [`wait`](Process::wait).
    pub async fn exited(&self) -> Result<ExitStatus> {
        during("exited", self, async { self.exit().await }).await
    }

    /// As [`exited`](Process::exited), for a task of its own: what is returned does not borrow this handle, but keeps it
    /// attached.
    ///
    /// # Errors
    /// As for [`wait`](Process::wait).
    pub fn exit(&self) -> impl Future<Output = Result<ExitStatus>> + Send + use<> {
        let stream = self.stream.clone();
        async move { Ok(ExitStatus::from_report(&stream.exit().await?)) }
    }

    /// Waits until it has ended, capturing the output that was not taken out of this handle: all of it, with no limit.
    ///
    /// # Errors
    /// As for [`wait`](Process::wait).
    pub async fn wait_with_output(mut self) -> Result<Output> {
        let subject = format!("process {}", self.id());
        during("wait_with_output", &*subject, async move {
            self.stdin = None;
            collect(
                &self.stream,
                [self.stdout.is_some(), self.stderr.is_some()],
                Cut::Nowhere,
                self.isolation,
                std::future::pending(),
            )
            .await
        })
        .await
    }

    /// The next that it writes to its standard output; the rest stays.
    pub(crate) async fn next_output(&mut self) -> Result<Option<Bytes>> {
        match &mut self.stdout {
            Some(stdout) => stdout.chunk().await,
            None => Ok(None),
        }
    }

    /// Gives it input to its end, and captures what comes, as a command's; killed with everything that it has started when its
    /// time is over, or nobody waits any more.
    pub(crate) async fn run_on(
        mut self,
        input: Bytes,
        timeout: Option<Duration>,
        limit_bytes: u64,
    ) -> Result<Output> {
        // It is not dropped before the input was sent.
        if let Some(stdin) = &mut self.stdin {
            stdin.stream = None;
        }
        let abandoned = Abandoned(Some((self.link.clone(), self.id)));
        let mut timed_out = false;
        let feed = async {
            let _ = self.stream.send(FrameType::STDIN, input).await;
            self.stream.send_end(FrameType::STDIN, Bytes::new()).await;
            if let Some(timeout) = timeout {
                tokio::time::sleep(timeout).await;
                timed_out = true;
                let _ = self.kill().await;
            }
            std::future::pending::<()>().await;
        };
        let limit = Cut::Here(limit_bytes);
        let collected = collect(&self.stream, [true, true], limit, self.isolation, feed).await;
        abandoned.forget();
        let mut output = collected?;
        output.status.timed_out |= timed_out;
        Ok(output)
    }

    /// Sends a signal to its process group.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not a signal; `NotFound` once it was released.
    pub async fn signal(&self, signal: u8) -> Result<()> {
        during("signal", self, async {
            self.send_signal(signal, false).await
        })
        .await
    }

    /// Sends a signal to everything that it has started, also what has left its group or session.
    ///
    /// # Errors
    /// As for [`signal`](Process::signal).
    pub async fn signal_tree(&self, signal: u8) -> Result<()> {
        during("signal_tree", self, async {
            self.send_signal(signal, true).await
        })
        .await
    }

    /// Kills it and everything that it has started.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox has ended.
    pub async fn kill(&self) -> Result<()> {
        during("kill", self, async {
            const KILL: u8 = 9;
            self.send_signal(KILL, true).await
        })
        .await
    }

    async fn send_signal(&self, signal: u8, tree: bool) -> Result<()> {
        self.link
            .call(&Request::Signal(Signal {
                process: self.id,
                signal,
                tree,
            }))
            .await
            .map(drop)
    }

    /// Tells its terminal a new size. Without a terminal nothing happens.
    pub fn resize(&self, rows: u16, cols: u16) {
        self.stream
            .control(FrameType::TTY_RESIZE, &TtySize { rows, cols }.encode());
    }

    /// Forgets it: it is killed if it runs, and its output and exit can no longer be asked for.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox has ended.
    pub async fn release(&self) -> Result<()> {
        during("release", self, async {
            self.link.call(&Request::Release(self.id)).await.map(drop)
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The program goes on: whoever attaches next can write to it. Its input ends with a `ProcessStdin` that was
        // taken out of this handle.
        if let Some(stdin) = &mut self.stdin {
            stdin.stream = None;
        }
    }
}

/// Runs a command to its end.
pub(crate) async fn run(
    link: &Link,
    command: &Command,
    request: Request,
    isolation: Isolation,
) -> Result<Output> {
    let work = async {
        let stream = link.open(&request).await?;
        match stream.opened().await? {
            Response::Attached(_) => {}
            _ => return Err(unexpected_answer()),
        }
        let feed = async {
            if let Stdin::Bytes(bytes) = &command.stdin {
                // A program that reads no more has ended, or will: its result is what counts.
                let _ = stream.send(FrameType::STDIN, bytes.clone()).await;
                stream.send_end(FrameType::STDIN, Bytes::new()).await;
            }
            std::future::pending::<()>().await;
        };
        let limit = Cut::ByAgent(command.output_limit_bytes);
        collect(&stream, [true, true], limit, isolation, feed).await
    };
    match command.timeout {
        None => work.await,
        Some(timeout) => {
            match tokio::time::timeout(timeout.saturating_add(CALL_GRACE), work).await {
                Ok(result) => result,
                Err(_) => {
                    let message = format!(
                        "the program was not over within {CALL_GRACE:?} of its timeout of {timeout:?}, because the sandbox had so many others to start; run fewer at once"
                    );
                    Err(Error::new(ErrorKind::Timeout, message))
                }
            }
        }
    }
}

/// Who cuts captured output at its limit.
#[derive(Clone, Copy)]
enum Cut {
    ByAgent(u64),
    Here(u64),
    Nowhere,
}

/// A program whose result nobody waits for any more, unless it is forgotten.
struct Abandoned(Option<(Link, ProcessId)>);

impl Abandoned {
    /// It has ended: the agent need not keep it.
    fn forget(mut self) {
        self.release();
    }

    fn release(&mut self) {
        if let Some((link, process)) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // What runs is killed with its tree.
            runtime.spawn(async move { link.call(&Request::Release(process)).await });
        }
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.release();
    }
}

/// Takes all output until the exit, while `feed` runs beside.
async fn collect(
    stream: &Stream,
    wanted: [bool; 2],
    cut: Cut,
    isolation: Isolation,
    feed: impl Future<Output = ()>,
) -> Result<Output> {
    let mut captured = [Captured::default(), Captured::default()];
    let mut ended = wanted.map(|wanted| !wanted);
    let taking = std::future::poll_fn(|context| {
        for (index, channel) in [Channel::Stdout, Channel::Stderr].into_iter().enumerate() {
            while !ended[index] {
                match stream.poll_chunk(channel, context) {
                    Poll::Ready(Ok(Some(chunk))) => {
                        captured[index].push(chunk);
                        match cut {
                            Cut::ByAgent(limit) if captured[index].bytes > limit => {
                                return Poll::Ready(Err(too_much_output()));
                            }
                            Cut::Here(limit) => captured[index].cut(limit),
                            _ => {}
                        }
                    }
                    Poll::Ready(Ok(None)) => ended[index] = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
        }
        if ended.iter().all(|ended| *ended) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    });
    tokio::pin!(feed);
    tokio::select! {
        taken = taking => taken?,
        () = &mut feed => {}
    }
    let report = tokio::select! {
        report = stream.exit() => report?,
        () = &mut feed => stream.exit().await?,
    };
    let [stdout, stderr] = captured.map(Captured::into_bytes);
    Ok(Output {
        status: ExitStatus::from_report(&report),
        stdout_bytes: report.stdout_bytes.max(stdout.len() as u64),
        stderr_bytes: report.stderr_bytes.max(stderr.len() as u64),
        stdout,
        stderr,
        isolation,
    })
}

/// Chunks that become one piece at the end, so that nothing is copied twice; a single one is not copied at all.
#[derive(Default)]
struct Captured {
    chunks: Vec<Bytes>,
    bytes: u64,
}

impl Captured {
    fn push(&mut self, chunk: Bytes) {
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        self.chunks.push(chunk);
    }

    /// Keeps no more than so much.
    fn cut(&mut self, limit: u64) {
        while self.bytes > limit
            && let Some(mut last) = self.chunks.pop()
        {
            let over = self.bytes - limit;
            let kept = (last.len() as u64).saturating_sub(over);
            self.bytes -= last.len() as u64 - kept;
            if kept > 0 {
                last.truncate(usize::try_from(kept).unwrap_or(last.len()));
                self.chunks.push(last);
            }
        }
    }

    fn into_bytes(mut self) -> Bytes {
        match self.chunks.len() {
            0 | 1 => self.chunks.pop().unwrap_or_default(),
            _ => self.chunks.concat().into(),
        }
    }
}

/// The agent cuts what it sends at the limit that it was told.
fn too_much_output() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "the sandbox sent more output than the command's limit",
    )
}

fn unexpected_answer() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "the sandbox's answer is not one to this request",
    )
}

/// One output stream of a running program: bytes as it writes them.
///
/// Dropping it throws away what is still to come; the program is not held back then.
pub struct ProcessOutput {
    reading: Reading,
    offset: u64,
}

impl ProcessOutput {
    /// The next bytes, as they came; `None` at the end.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox ends first.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.reading.chunk().await?;
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        self.offset = self.offset.saturating_add(length);
        Ok(chunk)
    }

    /// How many bytes of the program's stream were before the next one: where to attach again later.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl AsyncRead for ProcessOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.reading).poll_read(context, buffer);
        let length = (buffer.filled().len() - before) as u64;
        self.offset = self.offset.saturating_add(length);
        result
    }
}

/// The standard input of a running program. Dropping it ends the input.
pub struct ProcessStdin {
    stream: Option<Stream>,
    sending: Option<Pin<Box<dyn Future<Output = Result<bool>> + Send + Sync>>>,
}

/// Bytes that one call of `poll_write` takes.
const WRITE_BYTES: usize = 64 << 10;

impl ProcessStdin {
    fn new(stream: Stream) -> ProcessStdin {
        ProcessStdin {
            stream: Some(stream),
            sending: None,
        }
    }

    /// Writes bytes; waits while the program does not take them.
    ///
    /// # Errors
    /// `SandboxDied` if the sandbox ends. That the program reads no more is no error: its result tells.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<()> {
        if let Some(sending) = &mut self.sending {
            sending.await?;
            self.sending = None;
        }
        match &self.stream {
            Some(stream) => stream.send(FrameType::STDIN, bytes.into()).await.map(drop),
            None => Err(Error::invalid("the program's standard input is closed")),
        }
    }

    /// Ends the input, behind everything that was written.
    pub async fn close(mut self) {
        if let Some(stream) = self.stream.take() {
            stream.send_end(FrameType::STDIN, Bytes::new()).await;
        }
    }

    /// Lets go of it without ending the input: whoever attaches to the process next can go on writing.
    pub fn leave(mut self) {
        self.stream = None;
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Ok(()));
        };
        let sent = std::task::ready!(sending.as_mut().poll(context));
        self.sending = None;
        Poll::Ready(match sent {
            Ok(true) => Ok(()),
            Ok(false) => Err(std::io::ErrorKind::BrokenPipe.into()),
            Err(error) => Err(std::io::Error::other(error)),
        })
    }
}

impl AsyncWrite for ProcessStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        std::task::ready!(self.poll_sent(context))?;
        let Some(stream) = self.stream.clone() else {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        };
        let taken = Bytes::copy_from_slice(&bytes[..bytes.len().min(WRITE_BYTES)]);
        let count = taken.len();
        self.sending = Some(Box::pin(async move {
            stream.send(FrameType::STDIN, taken).await
        }));
        // Started here, so that what was written is on its way without a flush.
        match self.poll_sent(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.poll_sent(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::task::ready!(self.poll_sent(context))?;
        // Dropping sends the end.
        drop(ProcessStdin {
            stream: self.stream.take(),
            sending: None,
        });
        Poll::Ready(Ok(()))
    }
}

impl Drop for ProcessStdin {
    fn drop(&mut self) {
        let (Some(stream), sending) = (self.stream.take(), self.sending.take()) else {
            return;
        };
        // Behind what is still under way; where no runtime is left, the link is gone as well.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Some(sending) = sending {
                    let _ = sending.await;
                }
                stream.send_end(FrameType::STDIN, Bytes::new()).await;
            });
        }
    }
}
