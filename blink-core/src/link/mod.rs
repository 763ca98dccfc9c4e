//! The host's end of the link: one connection to a guest agent that carries all requests and streams at once.
//!
//! A reader task sorts what arrives into the inboxes of the requests that wait for it; a writer task sends control
//! frames first, then bulk frames in the order in which they came. Everything from the guest is taken for hostile: a
//! frame that breaks a rule ends the link, and whatever a guest sends, at most its windows' worth is held.

pub(crate) mod deadline;
mod inbox;
mod io;
mod outbox;
mod stream;
mod turns;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use blink_host::lock;
use blink_wire::{FrameType, Hello, Message, Request, Response, VERSION};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use deadline::{Clock, Deadlines, Kind, Standing};
use inbox::Inbox;
use outbox::Outbox;
pub(crate) use stream::{BULK_BODY, Channel, Reading, Stream};
use turns::{REQUESTS_LIMIT, Turns};

/// The two directions of a link, whatever carries them.
pub(crate) struct LinkIo {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Says why a link has ended, once it has: the engine knows more than an end of file tells.
pub(crate) type Obituary =
    Box<dyn FnOnce(String) -> Pin<Box<dyn Future<Output = Error> + Send>> + Send>;

/// Ends the sandbox, because its agent does not do what it must.
pub(crate) type EndSandbox = Box<dyn Fn() + Send + Sync>;

/// What a link may be told beside its two directions.
pub(crate) struct Options {
    pub(crate) obituary: Obituary,
    pub(crate) end_sandbox: EndSandbox,
    pub(crate) deadlines: Deadlines,
    /// Requests that are under way at once.
    pub(crate) requests: usize,
}

impl Options {
    pub(crate) fn new(obituary: Obituary, end_sandbox: EndSandbox) -> Options {
        Options {
            obituary,
            end_sandbox,
            deadlines: Deadlines::default(),
            requests: REQUESTS_LIMIT,
        }
    }
}

/// A link to one agent. Cloning gives another handle of the same link.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    next_id: AtomicU64,
    turns: Turns,
    routes: Mutex<HashMap<u64, Arc<Inbox>>>,
    outbox: Arc<Outbox>,
    clock: Arc<Clock>,
    end_sandbox: EndSandbox,
    /// Why the link has ended.
    dead: OnceLock<Error>,
    ended: Notify,
    agent: OnceLock<Hello>,
    tasks: Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Link {
    /// Greets the agent at the other end.
    ///
    /// # Errors
    /// `Timeout` if it does not answer in time, and whatever the obituary says where it ends before.
    pub(crate) async fn connect(io: LinkIo, deadline: Duration, options: Options) -> Result<Link> {
        let shared = Arc::new(Shared {
            next_id: AtomicU64::new(1),
            turns: Turns::new(options.requests),
            routes: Mutex::new(HashMap::new()),
            outbox: Arc::new(Outbox::new()),
            clock: Arc::new(Clock::new(options.deadlines)),
            end_sandbox: options.end_sandbox,
            dead: OnceLock::new(),
            ended: Notify::new(),
            agent: OnceLock::new(),
            tasks: Mutex::new(Vec::new()),
        });
        let greeting = Arc::new(Inbox::new(0, Kind::Prompt("the handshake"), 0, None));
        lock(&shared.routes).insert(0, greeting.clone());
        let hello = Hello {
            protocol: VERSION,
            program: concat!("blink ", env!("CARGO_PKG_VERSION")).into(),
            capabilities: Vec::new(),
            boot_id: String::new(),
        };
        shared
            .outbox
            .control(FrameType::HANDSHAKE, 0, false, &hello.to_body(), None);
        let link = Link { shared };
        link.run(io, options.obituary);
        match tokio::time::timeout(deadline, greeting.response()).await {
            Ok(greeted) => greeted.map(|_| link),
            Err(_) => {
                let message =
                    format!("the sandbox did not answer within {deadline:.1?} of its start");
                let error = Error::new(ErrorKind::Timeout, message);
                link.close(error.clone());
                Err(error)
            }
        }
    }

    fn run(&self, io: LinkIo, obituary: Obituary) {
        let weak = Arc::downgrade(&self.shared);
        let reading = tokio::spawn(async move {
            let reason = io::read(io.reader, &weak).await;
            end(&weak, reason, obituary).await;
        });
        let outbox = self.shared.outbox.clone();
        let writing = tokio::spawn(async move {
            // The reader sees the same end, and knows more about it.
            let _ = io::write(io.writer, &outbox).await;
        });
        let weak = Arc::downgrade(&self.shared);
        let watching = tokio::spawn(deadline::watch(weak, self.shared.clock.clone()));
        lock(&self.shared.tasks).extend([
            reading.abort_handle(),
            writing.abort_handle(),
            watching.abort_handle(),
        ]);
        // It may have ended before its tasks were known.
        if self.shared.dead.get().is_some() {
            writing.abort();
            watching.abort();
        }
    }

    /// Asks for something that is answered in one frame.
    pub(crate) async fn call(&self, request: &Request) -> Result<Response> {
        self.open(request).await?.response().await
    }

    /// Asks for something that has a stream, when the request's turn has come.
    ///
    /// # Errors
    /// `InvalidArgument` for a request that is too long, `Timeout` if its turn does not come within its own timeout, and
    /// why the link has ended.
    pub(crate) async fn open(&self, request: &Request) -> Result<Stream> {
        let body = request.to_body();
        self.check_length(request, body.len())?;
        let shared = &self.shared;
        let kind = Kind::of(request);
        let turn = shared
            .turns
            .take(Kind::is_urgent(request), body.len(), kind.patience())
            .await?;
        let Some((place, length)) = turn else {
            return Err(self.dead().cloned().unwrap_or_else(ended));
        };
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let inbox = Arc::new(Inbox::new(id, kind, shared.clock.now(), length));
        {
            let mut routes = lock(&shared.routes);
            if let Some(error) = shared.dead.get() {
                return Err(error.clone());
            }
            routes.insert(id, inbox.clone());
        }
        shared.clock.asked();
        // From here on giving it up tells the agent.
        let stream = Stream::new(self.clone(), inbox, place);
        let outbox = &shared.outbox;
        match request {
            // Whoever attaches anew finds what was written to the process before.
            Request::Attach(_) => outbox.behind_bulk(FrameType::RPC_REQUEST, id, &body, None),
            _ if body.len() > blink_wire::LINK_BODY_LIMIT as usize => {
                self.send_in_parts(id, body).await;
            }
            _ => outbox.control(FrameType::RPC_REQUEST, id, false, &body, None),
        }
        Ok(stream)
    }

    /// Sends a request that is longer than a frame. Control frames overtake its parts.
    async fn send_in_parts(&self, id: u64, mut body: bytes::Bytes) {
        let outbox = &self.shared.outbox;
        while body.len() > BULK_BODY {
            let part = body.split_to(BULK_BODY);
            outbox.bulk(FrameType::RPC_PART, id, false, part).await;
        }
        outbox.bulk(FrameType::RPC_REQUEST, id, false, body).await;
    }

    fn check_length(&self, request: &Request, length: usize) -> Result<()> {
        const FRAME: usize = blink_wire::LINK_BODY_LIMIT as usize;
        if length <= FRAME {
            return Ok(());
        }
        let Request::Spawn(spawn) = request else {
            return Err(Error::invalid(format!(
                "the request has {length} bytes; paths and names together may have {FRAME}"
            )));
        };
        if !self
            .agent()
            .is_some_and(|agent| agent.can(Hello::REQUEST_PARTS))
        {
            return Err(Error::invalid(format!(
                "the arguments and the environment have {length} bytes; this sandbox was started by an older version of Blink, and takes {FRAME}"
            )));
        }
        // The kernel counts a pointer for each, and a byte that ends it.
        const OVERHEAD: usize = 9;
        let argv: usize = spawn.argv.iter().map(|arg| arg.len() + OVERHEAD).sum();
        let env: usize = spawn
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len() + 1 + OVERHEAD)
            .sum();
        match argv + env > blink_wire::REQUEST_LIMIT || length > blink_wire::REQUEST_LIMIT {
            false => Ok(()),
            true => Err(Error::invalid(format!(
                "the arguments take {argv} bytes and the environment {env}; no kernel gives a program more than 6 MiB for both together; pass large data through a file or standard input"
            ))),
        }
    }

    /// Why the link has ended, if it has.
    pub(crate) fn dead(&self) -> Option<&Error> {
        self.shared.dead.get()
    }

    /// Waits until the link has ended.
    pub(crate) async fn ended(&self) {
        let ended = self.shared.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if self.dead().is_none() {
            ended.await;
        }
    }

    /// What the agent said about itself.
    pub(crate) fn agent(&self) -> Option<&Hello> {
        self.shared.agent.get()
    }

    /// Ends the link; every waiting call fails.
    pub(crate) fn close(&self, error: Error) {
        self.shared.fail(error);
    }

    fn outbox(&self) -> &Outbox {
        &self.shared.outbox
    }

    fn forget(&self, id: u64) {
        lock(&self.shared.routes).remove(&id);
    }
}

/// For the moment in which the link's end has no reason yet.
fn ended() -> Error {
    Error::new(ErrorKind::SandboxDied, "the link to the sandbox has ended")
}

impl Drop for Shared {
    /// Nobody uses the link any more: its tasks end, and the connection with them.
    fn drop(&mut self) {
        self.outbox.close();
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }
}

impl Shared {
    /// Where the requests stand that something is due for.
    fn standings(&self) -> Vec<Standing> {
        lock(&self.routes)
            .values()
            .filter_map(|inbox| inbox.standing())
            .collect()
    }

    fn fail(&self, error: Error) {
        let routes = {
            let mut routes = lock(&self.routes);
            let _ = self.dead.set(error);
            std::mem::take(&mut *routes)
        };
        self.ended.notify_waiters();
        self.turns.close();
        self.outbox.close();
        // Also a writer that waits for a guest that does not read.
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        if let Some(error) = self.dead.get() {
            for inbox in routes.values() {
                inbox.fail(error.clone());
            }
        }
    }
}

async fn end(shared: &Weak<Shared>, reason: io::Ended, obituary: Obituary) {
    let error = match reason {
        io::Ended::Protocol(message) => {
            // What breaks the rules is cut off at once, not asked about.
            Error::new(
                ErrorKind::Protocol,
                format!("the sandbox broke the link's rules and was cut off: {message}"),
            )
        }
        io::Ended::Closed(message) => obituary(message).await,
        io::Ended::Dropped => return,
    };
    if let Some(shared) = shared.upgrade() {
        shared.fail(error);
    }
}

#[cfg(test)]
mod tests;
