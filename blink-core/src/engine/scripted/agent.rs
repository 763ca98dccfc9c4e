//! The agent of a scripted sandbox: it speaks BLIN, and answers from a script.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use blink_host::lock;
use blink_wire::{
    Attach, Attached, Counted, Decoder, ErrorBody, ErrorKind, ExitReport, Frame, FrameType, Hello,
    INITIAL_WINDOW, LINK_BODY_LIMIT, Message, Peeked, ProcessId, ProcessInfo, Request, Response,
    Spawn, VERSION, WindowUpdate,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::files::Tree;
use super::script::{Answer, Invocation, Reply};
use crate::link::LinkIo;

const KILL: i32 = 9;

/// What is sent of anything at once.
const CHUNK_BYTES: usize = 64 << 10;

/// One life of a machine, whatever has links to it.
#[derive(Clone)]
pub(super) struct Agent {
    life: Arc<Life>,
}

struct Life {
    files: Tree,
    answer: Arc<Answer>,
    processes: Mutex<BTreeMap<u64, Arc<Process>>>,
    links: Mutex<Vec<AbortHandle>>,
}

/// A program that runs, or has ended and is kept.
struct Process {
    id: u64,
    spawn: Spawn,
    /// What it writes, once it is known.
    reply: watch::Receiver<Option<Arc<Written>>>,
    exit: watch::Receiver<Option<ExitReport>>,
    /// The signal that ends it.
    kill: watch::Sender<Option<i32>>,
}

#[derive(Default)]
struct Written {
    stdout: Bytes,
    stderr: Bytes,
}

impl Agent {
    pub(super) fn new(files: Tree, answer: Arc<Answer>) -> Agent {
        Agent {
            life: Arc::new(Life {
                files,
                answer,
                processes: Mutex::default(),
                links: Mutex::default(),
            }),
        }
    }

    /// Ends all links.
    pub(super) fn end(&self) {
        lock(&self.life.links)
            .drain(..)
            .for_each(|link| link.abort());
    }

    /// A new link.
    pub(super) fn link(&self) -> LinkIo {
        let (host, guest) = tokio::io::duplex(INITIAL_WINDOW as usize);
        let serving = tokio::spawn(serve(self.life.clone(), guest));
        lock(&self.life.links).push(serving.abort_handle());
        let (reader, writer) = tokio::io::split(host);
        LinkIo {
            reader: Box::new(reader),
            writer: Box::new(writer),
        }
    }
}

/// A request that is under way.
struct UnderWay {
    credit: Credit,
    input: mpsc::UnboundedSender<Frame>,
    task: AbortHandle,
}

/// How many bytes may be sent, on standard output or as data, and on standard error.
#[derive(Clone)]
struct Credit([Arc<Semaphore>; 2]);

impl Credit {
    fn new() -> Credit {
        let window = || Arc::new(Semaphore::new(INITIAL_WINDOW as usize));
        Credit([window(), window()])
    }

    fn of(&self, channel: FrameType) -> &Arc<Semaphore> {
        &self.0[usize::from(channel == FrameType::STDERR)]
    }
}

/// What a request needs to answer.
struct Call {
    life: Arc<Life>,
    id: u64,
    out: mpsc::UnboundedSender<Frame>,
    credit: Credit,
    input: mpsc::UnboundedReceiver<Frame>,
}

async fn serve(life: Arc<Life>, io: DuplexStream) {
    let (mut from_host, mut to_host) = tokio::io::split(io);
    let (out, mut frames) = mpsc::unbounded_channel::<Frame>();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(frame) = frames.recv().await {
            let mut bytes = BytesMut::new();
            frame.encode_into(&mut bytes);
            if to_host.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut requests: HashMap<u64, UnderWay> = HashMap::new();
    let mut decoder = Decoder::new(LINK_BODY_LIMIT);
    loop {
        while let Ok(Some(frame)) = decoder.next_frame() {
            let _ = receive(&life, &out, &mut requests, &mut tasks, frame);
        }
        decoder.reserve();
        match from_host.read_buf(decoder.buffer_mut()).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn receive(
    life: &Arc<Life>,
    out: &mpsc::UnboundedSender<Frame>,
    requests: &mut HashMap<u64, UnderWay>,
    tasks: &mut JoinSet<()>,
    frame: Frame,
) -> Option<()> {
    let id = frame.request_id;
    match frame.frame_type {
        FrameType::HANDSHAKE => {
            let hello = Hello {
                protocol: VERSION,
                program: concat!("blink scripted ", env!("CARGO_PKG_VERSION")).into(),
                capabilities: Vec::new(),
                boot_id: "scripted".into(),
            };
            out.send(Frame::new(FrameType::HANDSHAKE, 0, hello.to_body()))
                .ok()?;
        }
        FrameType::HEARTBEAT => {
            out.send(Frame::new(FrameType::HEARTBEAT, id, frame.body))
                .ok()?;
        }
        FrameType::RPC_REQUEST => {
            requests.retain(|_, request| !request.task.is_finished());
            let (input, received) = mpsc::unbounded_channel();
            let credit = Credit::new();
            let call = Call {
                life: life.clone(),
                id,
                out: out.clone(),
                credit: credit.clone(),
                input: received,
            };
            let request = Request::from_body(&frame.body);
            let task = tasks.spawn(async move {
                let refused = |error| ErrorBody::new(ErrorKind::Protocol, format!("{error}"));
                let id = call.id;
                let out = call.out.clone();
                let answered = match request.map_err(refused) {
                    Ok(request) => call.answer(request).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = answered {
                    let _ = out.send(Frame::new(FrameType::RPC_ERROR, id, error.to_body()));
                }
            });
            let request = UnderWay {
                credit,
                input,
                task,
            };
            requests.insert(id, request);
        }
        FrameType::WINDOW_UPDATE => {
            let update = WindowUpdate::decode(&frame.body).ok()?;
            let credit = requests.get(&id)?.credit.of(update.channel);
            credit.add_permits(update.credit as usize);
        }
        FrameType::STDIN | FrameType::STREAM_DATA => {
            let request = requests.get(&id)?;
            let taken = u32::try_from(frame.body.len()).ok()?;
            let channel = frame.frame_type;
            let is_data = !(frame.end && channel == FrameType::STREAM_DATA);
            request.input.send(frame).ok()?;
            if taken > 0 && is_data {
                let update = WindowUpdate {
                    channel,
                    credit: taken,
                };
                let update = update.encode().to_vec();
                out.send(Frame::new(FrameType::WINDOW_UPDATE, id, update))
                    .ok()?;
            }
        }
        // It was given up.
        FrameType::ERROR => requests.remove(&id)?.task.abort(),
        _ => {}
    }
    Some(())
}

impl Call {
    fn respond(&self, response: Response) {
        self.send(Frame::new(
            FrameType::RPC_RESPONSE,
            self.id,
            response.to_body(),
        ));
    }

    fn send(&self, frame: Frame) {
        // Where the link has ended, nobody waits for it.
        let _ = self.out.send(frame);
    }

    async fn send_all(&self, channel: FrameType, bytes: &Bytes) {
        for chunk in chunks(bytes) {
            let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            if let Ok(credit) = self.credit.of(channel).acquire_many(length).await {
                credit.forget();
            }
            self.send(Frame::new(channel, self.id, chunk));
        }
    }

    async fn transfer(&self, bytes: Bytes) {
        let mut counted = Counted::default();
        counted.add(&bytes);
        self.send_all(FrameType::STREAM_DATA, &bytes).await;
        let trailer = counted.trailer().to_body();
        self.send(Frame::new(FrameType::STREAM_DATA, self.id, trailer).with_end());
        self.respond(Response::Done);
    }

    /// All that the host sends, up to its end.
    async fn received(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        while let Some(frame) = self.input.recv().await {
            // What ends a transfer is its trailer.
            if !(frame.end && frame.frame_type == FrameType::STREAM_DATA) {
                received.extend_from_slice(&frame.body);
            }
            if frame.end {
                break;
            }
        }
        received
    }

    async fn answer(mut self, request: Request) -> Result<(), ErrorBody> {
        let files = self.life.files.clone();
        match request {
            Request::Ping | Request::Freeze | Request::Thaw => {}
            Request::Spawn(spawn) => return self.spawn(spawn).await,
            Request::Attach(attach) => {
                let process = self.process(attach.process)?;
                self.follow(&process, attach).await;
                return Ok(());
            }
            Request::Signal(signal) => {
                let process = self.process(signal.process)?;
                let kills = !matches!(i32::from(signal.signal), libc::SIGCHLD | libc::SIGWINCH);
                if kills {
                    process.kill.send_replace(Some(signal.signal.into()));
                }
            }
            Request::Release(id) => {
                self.process(id)?.kill.send_replace(Some(KILL));
                lock(&self.life.processes).remove(&id.0);
            }
            Request::Processes => return self.processes(0),
            Request::ProcessesAfter(id) => return self.processes(id.0.saturating_add(1)),
            Request::Wait(id) => {
                let process = self.process(id)?;
                let report = ended(&process.exit).await;
                self.respond(Response::Ended(report));
                return Ok(());
            }
            Request::Peek(from) => {
                let process = self.process(from.process)?;
                let written = process.reply.borrow().clone().unwrap_or_default();
                let rest = |bytes: &Bytes, offset: u64| {
                    let start = usize::try_from(offset).unwrap_or(usize::MAX);
                    let start = start.min(bytes.len());
                    let end = bytes.len().min(start + CHUNK_BYTES);
                    (start as u64, bytes[start..end].to_vec().into())
                };
                let (stdout_offset, stdout) = rest(&written.stdout, from.stdout_offset);
                let (stderr_offset, stderr) = rest(&written.stderr, from.stderr_offset);
                self.respond(Response::Peeked(Peeked {
                    stdout_offset,
                    stdout,
                    stderr_offset,
                    stderr,
                }));
                return Ok(());
            }
            Request::Stat(options) => {
                self.respond(Response::Stat(files.stat(&options.path)?));
                return Ok(());
            }
            Request::List(options) => {
                self.transfer(files.list(&options.path)?).await;
                return Ok(());
            }
            Request::Read(read) => {
                self.transfer(files.read(&read)?).await;
                return Ok(());
            }
            Request::Write(write) => {
                files.check_write(&write.path)?;
                let content = self.received().await;
                files.write(&write, content)?;
            }
            Request::MakeDir(make) => files.make_dir(&make)?,
            Request::Remove(remove) => files.remove(&remove)?,
            Request::Rename(paths) => files.put(&paths.from, &paths.to, true)?,
            Request::Copy(paths) => files.put(&paths.from, &paths.to, false)?,
            _ => {
                let message = "a scripted sandbox cannot do that; use another isolation for it";
                return Err(ErrorBody::new(ErrorKind::Unsupported, message));
            }
        }
        self.respond(Response::Done);
        Ok(())
    }

    fn process(&self, id: ProcessId) -> Result<Arc<Process>, ErrorBody> {
        let process = lock(&self.life.processes).get(&id.0).cloned();
        process.ok_or_else(|| {
            ErrorBody::new(ErrorKind::NotFound, format!("there is no process {}", id.0))
        })
    }

    fn processes(&self, from: u64) -> Result<(), ErrorBody> {
        let processes = lock(&self.life.processes);
        let listed = processes.range(from..).map(|(_, process)| process.info());
        self.respond(Response::Processes(listed.collect()));
        Ok(())
    }

    async fn spawn(mut self, spawn: Spawn) -> Result<(), ErrorBody> {
        let known = {
            let processes = lock(&self.life.processes);
            let mut known = processes.values();
            let same = |process: &&Arc<Process>| process.spawn.key == spawn.key;
            spawn
                .key
                .is_some()
                .then(|| known.find(same).cloned())
                .flatten()
        };
        let is_kept = spawn.keep;
        let (process, reply) = match known {
            Some(process) => (process, None),
            None => {
                let (process, reply) = Process::start(&self.life, spawn);
                (process, Some(reply))
            }
        };
        let id = ProcessId(process.id);
        let from = Attach {
            process: id,
            stdout_offset: 0,
            stderr_offset: 0,
        };
        self.attached(&process);
        if let Some(reply) = reply {
            let mut invocation = process.invocation();
            let life = self.life.clone();
            let stdin = async {
                match process.spawn.stdin {
                    true => self.received().await,
                    false => Vec::new(),
                }
            };
            // It may be killed before it has read all.
            let mut exit = process.exit.clone();
            tokio::select! {
                stdin = stdin => {
                    invocation.stdin = stdin;
                    reply.send_replace(Some((life.answer)(&invocation)));
                }
                _ = exit.wait_for(Option::is_some) => {}
            }
        }
        self.follow_attached(&process, from).await;
        if !is_kept {
            lock(&self.life.processes).remove(&process.id);
        }
        Ok(())
    }

    fn attached(&self, process: &Process) {
        self.respond(Response::Attached(Attached {
            process: ProcessId(process.id),
            pid: u32::try_from(process.id).unwrap_or(u32::MAX),
            stdout_offset: 0,
            stderr_offset: 0,
        }));
    }

    async fn follow(&self, process: &Process, from: Attach) {
        let attached = Attached {
            process: ProcessId(process.id),
            pid: u32::try_from(process.id).unwrap_or(u32::MAX),
            stdout_offset: from.stdout_offset,
            stderr_offset: from.stderr_offset,
        };
        self.respond(Response::Attached(attached));
        self.follow_attached(process, from).await;
    }

    async fn follow_attached(&self, process: &Process, from: Attach) {
        let mut reply = process.reply.clone();
        let mut exit = process.exit.clone();
        let written = tokio::select! {
            biased;
            written = reply.wait_for(Option::is_some) => written.ok().and_then(|written| written.clone()),
            _ = exit.wait_for(Option::is_some) => None,
        };
        if let Some(written) = written {
            let limit = process.spawn.output_limit_bytes.unwrap_or(u64::MAX);
            let part = |bytes: &Bytes, from: u64| {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                bytes.slice(place(from).min(place(limit))..place(limit))
            };
            let stdout = part(&written.stdout, from.stdout_offset);
            let stderr = part(&written.stderr, from.stderr_offset);
            tokio::join!(
                self.send_all(FrameType::STDOUT, &stdout),
                self.send_all(FrameType::STDERR, &stderr),
            );
        }
        let report = ended(&process.exit).await;
        self.send(Frame::new(FrameType::EXIT, self.id, report.to_body()).with_end());
    }
}

async fn ended(exit: &watch::Receiver<Option<ExitReport>>) -> ExitReport {
    let mut exit = exit.clone();
    let ended = exit.wait_for(Option::is_some).await;
    ended
        .ok()
        .and_then(|report| report.clone())
        .unwrap_or_default()
}

impl Process {
    /// Starts it; it does what the reply says once there is one.
    fn start(life: &Life, spawn: Spawn) -> (Arc<Process>, watch::Sender<Option<Reply>>) {
        let (replied, mut reply) = watch::channel::<Option<Reply>>(None);
        let (writing, written) = watch::channel(None);
        let (exiting, exit) = watch::channel(None);
        let (kill, mut killed) = watch::channel::<Option<i32>>(None);
        let timeout = spawn.timeout_ms.map(Duration::from_millis);
        let process = {
            let mut processes = lock(&life.processes);
            let id = processes.last_key_value().map_or(1, |(id, _)| id + 1);
            let process = Arc::new(Process {
                id,
                spawn,
                reply: written,
                exit,
                kill,
            });
            processes.insert(id, process.clone());
            process
        };
        tokio::spawn(async move {
            let begun = Instant::now();
            let mut report = ExitReport::default();
            let running = async {
                let reply = reply.wait_for(Option::is_some).await;
                let reply = reply
                    .ok()
                    .and_then(|reply| reply.clone())
                    .unwrap_or_default();
                report.stdout_bytes = reply.stdout.len() as u64;
                report.stderr_bytes = reply.stderr.len() as u64;
                writing.send_replace(Some(Arc::new(Written {
                    stdout: reply.stdout.into(),
                    stderr: reply.stderr.into(),
                })));
                sleep(reply.takes).await;
                reply.code
            };
            let (code, signal, timed_out) = tokio::select! {
                biased;
                killed = killed.wait_for(Option::is_some) => {
                    (None, killed.map_or(Some(KILL), |signal| *signal), false)
                }
                code = running => (Some(code), None, false),
                () = sleep(timeout.unwrap_or(Duration::MAX)) => (None, Some(KILL), true),
            };
            (report.code, report.signal, report.timed_out) = (code, signal, timed_out);
            let elapsed = begun.elapsed().as_micros();
            report.duration_us = u64::try_from(elapsed).unwrap_or(u64::MAX);
            exiting.send_replace(Some(report));
        });
        (process, replied)
    }

    fn invocation(&self) -> Invocation {
        let bytes = |bytes: &blink_wire::PathBytes| bytes.to_vec();
        let variable = |(name, value): &(_, _)| (bytes(name), bytes(value));
        Invocation {
            argv: self.spawn.argv.iter().map(bytes).collect(),
            env: self.spawn.env.iter().map(variable).collect(),
            current_dir: self.spawn.current_dir.as_ref().map(bytes),
            user: self.spawn.user.clone(),
            stdin: Vec::new(),
        }
    }

    fn info(&self) -> ProcessInfo {
        let written = self.reply.borrow().clone().unwrap_or_default();
        ProcessInfo {
            process: ProcessId(self.id),
            pid: u32::try_from(self.id).unwrap_or(u32::MAX),
            argv: self.spawn.argv.clone(),
            exit: self.exit.borrow().clone(),
            stdout_bytes: written.stdout.len() as u64,
            stderr_bytes: written.stderr.len() as u64,
            pty: self.spawn.pty.is_some(),
            key: self.spawn.key.clone(),
        }
    }
}

/// Sleeps, if need be for ever.
async fn sleep(time: Duration) {
    match tokio::time::Instant::now().checked_add(time) {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn chunks(bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..bytes.len()).step_by(CHUNK_BYTES);
    starts.map(|start| bytes.slice(start..bytes.len().min(start + CHUNK_BYTES)))
}
