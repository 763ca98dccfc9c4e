//! The host's end of the link: one connection to a guest agent that carries all requests and streams at once.
//!
//! A reader task sorts what arrives into the inboxes of the requests that wait for it; a writer task sends control
//! frames first, then bulk frames in the order in which they came. Everything from the guest is taken for hostile: a
//! frame that breaks a rule ends the link, and whatever a guest sends, at most its windows' worth is held.

mod inbox;
mod io;
mod outbox;
mod stream;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use blink_wire::{FrameType, Hello, Message, Request, Response, VERSION};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::lock;
use inbox::Inbox;
use outbox::Outbox;
pub(crate) use stream::{BULK_BODY, Channel, Reading, Stream};

/// The two directions of a link, whatever carries them.
pub(crate) struct LinkIo {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Says why a link has ended, once it has: the engine knows more than an end of file tells.
pub(crate) type Obituary =
    Box<dyn FnOnce(String) -> Pin<Box<dyn Future<Output = Error> + Send>> + Send>;

/// Requests that one link may carry at once: the agent's own limit.
const REQUESTS_LIMIT: usize = 4096;

/// A link to one agent. Cloning gives another handle of the same link.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    next_id: AtomicU64,
    routes: Mutex<HashMap<u64, Arc<Inbox>>>,
    outbox: Arc<Outbox>,
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
    /// `Timeout` where it does not answer in time, and whatever the obituary says where it ends before.
    pub(crate) async fn connect(
        io: LinkIo,
        deadline: Duration,
        obituary: Obituary,
    ) -> Result<Link> {
        let shared = Arc::new(Shared {
            next_id: AtomicU64::new(1),
            routes: Mutex::new(HashMap::new()),
            outbox: Arc::new(Outbox::new()),
            dead: OnceLock::new(),
            ended: Notify::new(),
            agent: OnceLock::new(),
            tasks: Mutex::new(Vec::new()),
        });
        let greeting = Arc::new(Inbox::new(0));
        lock(&shared.routes).insert(0, greeting.clone());
        let hello = Hello {
            protocol: VERSION,
            program: concat!("blink ", env!("CARGO_PKG_VERSION")).into(),
            capabilities: Vec::new(),
            boot_id: String::new(),
        };
        shared
            .outbox
            .control(FrameType::HANDSHAKE, 0, false, &hello.to_body());
        let link = Link { shared };
        link.run(io, obituary);
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
        lock(&self.shared.tasks).extend([reading.abort_handle(), writing.abort_handle()]);
        // It may have ended before its tasks were known.
        if self.shared.dead.get().is_some() {
            writing.abort();
        }
    }

    /// Asks for something that is answered in one frame.
    pub(crate) async fn call(&self, request: &Request) -> Result<Response> {
        self.open(request)?.response().await
    }

    /// Asks for something that has a stream.
    pub(crate) fn open(&self, request: &Request) -> Result<Stream> {
        let body = request.to_body();
        if body.len() > blink_wire::LINK_BODY_LIMIT as usize {
            return Err(Error::invalid(format!(
                "the request has {} bytes; arguments, environment and paths together may have {}",
                body.len(),
                blink_wire::LINK_BODY_LIMIT
            )));
        }
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let inbox = Arc::new(Inbox::new(id));
        {
            let mut routes = lock(&self.shared.routes);
            if let Some(error) = self.shared.dead.get() {
                return Err(error.clone());
            }
            if routes.len() >= REQUESTS_LIMIT {
                let message =
                    format!("{REQUESTS_LIMIT} requests are under way in this sandbox already");
                return Err(Error::new(ErrorKind::ResourceExhausted, message));
            }
            routes.insert(id, inbox.clone());
        }
        let outbox = &self.shared.outbox;
        match request {
            // Whoever attaches anew finds what was written to the process before.
            Request::Attach(_) => outbox.behind_bulk(FrameType::RPC_REQUEST, id, &body),
            _ => outbox.control(FrameType::RPC_REQUEST, id, false, &body),
        }
        Ok(Stream::new(self.clone(), inbox))
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
    fn fail(&self, error: Error) {
        let routes = {
            let mut routes = lock(&self.routes);
            let _ = self.dead.set(error);
            std::mem::take(&mut *routes)
        };
        self.ended.notify_waiters();
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
