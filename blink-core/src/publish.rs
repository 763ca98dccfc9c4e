//! Published ports: listeners of the host whose connections are carried to ports inside a sandbox.

use std::io::ErrorKind as Io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use blink_host::lock;
use blink_wire::Address;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use crate::connection::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::link::Link;

/// Connections that a sandbox's published ports carry at once; more wait in the kernel until one ends. Each may hold a
/// window of 1 MiB for either side that does not read, a descriptor of this process's, often of 1024 in all, and one of
/// the link's 4096 requests: whatever clients do, there is enough left for everything else.
const CONNECTIONS: usize = 256;

/// Connections of a port that wait in the kernel, to be carried: a burst that a usual 128 would refuse, and less than
/// the kernel allows (4096).
const BACKLOG: u32 = 1024;

/// How long a listener rests that cannot accept, because descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The published ports of a detached sandbox, in its folder.
const RECORD: &str = "ports.json";

/// In the sandbox: a server of either version of IP is found.
const GUEST_HOST: &str = "localhost";

/// A port inside a sandbox that the host's programs reach at an address of the host.
///
/// # Examples
///
/// ```no_run
/// # async fn example(blink: blink_core::Blink) -> blink_core::Result<()> {
/// use blink_core::PublishedPort;
/// let sandbox = blink.sandbox().publish(PublishedPort::new(0, 8000)).create().await?;
/// println!("http://{}/", sandbox.published()[0].host);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct PublishedPort {
    /// Where the host listens. Port 0 asks for any that is free; a sandbox that was made says which it is.
    pub host: SocketAddr,
    /// The TCP port inside the sandbox.
    pub guest: u16,
}

impl PublishedPort {
    /// Leads from a port of the host's loopback, `127.0.0.1`, to a port inside a sandbox: only programs of this machine
    /// reach it. Port 0 of the host is any that is free.
    pub fn new(host_port: u16, guest_port: u16) -> PublishedPort {
        PublishedPort {
            host: (Ipv4Addr::LOCALHOST, host_port).into(),
            guest: guest_port,
        }
    }

    /// Listens at another address of the host. With `0.0.0.0` or `::`, whoever reaches this machine reaches the
    /// sandbox's port.
    pub fn at(mut self, address: IpAddr) -> PublishedPort {
        self.host.set_ip(address);
        self
    }

    /// Whether two can be told apart once both listen.
    fn differs(&self, other: &PublishedPort) -> bool {
        self.host != other.host || (self.host.port() == 0 && self.guest != other.guest)
    }

    /// Whether its listener answers at the host's loopback.
    fn on_loopback(&self) -> bool {
        self.host.ip().is_loopback() || self.host.ip().is_unspecified()
    }
}

/// Refuses invalid values.
pub(crate) fn check(ports: &[PublishedPort]) -> Result<()> {
    for (index, port) in ports.iter().enumerate() {
        if port.guest == 0 {
            return Err(Error::invalid(format!(
                "{} cannot lead to port 0 of a sandbox; name the port that a program in it listens on",
                port.host
            )));
        }
        if !ports[..index].iter().all(|other| port.differs(other)) {
            return Err(Error::invalid(format!(
                "{} is published twice",
                shown(port.host)
            )));
        }
    }
    Ok(())
}

/// Where programs of a sandbox listen on the host's own network, a connection must not be led back to its listener.
pub(crate) fn check_for_loops(bound: &Bound) -> Result<()> {
    let ports = bound.ports();
    for port in ports.iter().filter(|port| port.on_loopback()) {
        if ports.iter().any(|other| other.guest == port.host.port()) {
            return Err(Error::invalid(format!(
                "{} would lead to itself: with the host's network, a program in this sandbox listens on the host's own \
                 ports; publish at another port, or none",
                port.host
            )));
        }
    }
    Ok(())
}

/// Keeps what was asked for, for who takes the sandbox up again.
pub(crate) fn record(folder: &Path, ports: &[PublishedPort]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let ports: Vec<(SocketAddr, u16)> = ports.iter().map(|port| (port.host, port.guest)).collect();
    serde_json::to_vec(&ports)
        .map_err(std::io::Error::from)
        .and_then(|json| std::fs::write(folder.join(RECORD), json))
        .map_err(|error| Error::io("the published ports could not be written down", &error))
}

/// What was asked for.
pub(crate) fn recorded(folder: &Path) -> Result<Vec<PublishedPort>> {
    let json = match std::fs::read(folder.join(RECORD)) {
        Ok(json) => json,
        Err(error) if error.kind() == Io::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("the published ports cannot be read", &error)),
    };
    let ports: Vec<(SocketAddr, u16)> = serde_json::from_slice(&json).map_err(|error| {
        Error::new(
            ErrorKind::Corrupt,
            format!("the record of the sandbox's published ports is damaged: {error}"),
        )
    })?;
    let ports = ports.into_iter();
    Ok(ports
        .map(|(host, guest)| PublishedPort { host, guest })
        .collect())
}

/// A listener that takes its port until it is dropped.
struct Listening(TcpListener);

impl Listening {
    fn stop(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Said, not left to the closing: a child that is just being forked has the same socket for a moment longer.
        self.stop();
    }
}

/// Listeners that lead nowhere yet: who connects waits.
#[derive(Default)]
pub(crate) struct Bound(Vec<(Listening, PublishedPort)>);

impl Bound {
    /// Takes the host's ports.
    pub(crate) fn bind(ports: &[PublishedPort]) -> Result<Bound> {
        let mut bound = Vec::with_capacity(ports.len());
        for port in ports {
            let (host, listener) = listen(port.host).map_err(|error| refused(port.host, &error))?;
            bound.push((Listening(listener), PublishedPort { host, ..*port }));
        }
        Ok(Bound(bound))
    }

    fn ports(&self) -> Vec<PublishedPort> {
        self.0.iter().map(|(_, port)| *port).collect()
    }

    /// Leads them into a sandbox.
    pub(crate) fn lead(self, link: &Link) -> Published {
        let ports = self.ports();
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let listeners = self.0.into_iter().map(|(listener, port)| {
            tracing::debug!(host = %port.host, guest = port.guest, "publishing");
            let listener = Arc::new(listener);
            Listener {
                socket: Arc::downgrade(&listener),
                task: tokio::spawn(serve(listener, port.guest, link.clone(), slots.clone())),
            }
        });
        Published {
            listeners: Mutex::new(listeners.collect()),
            ports,
        }
    }
}

/// The published ports of a sandbox. Dropping it ends them, and every connection that they carry.
#[derive(Default)]
pub(crate) struct Published {
    ports: Vec<PublishedPort>,
    listeners: Mutex<Vec<Listener>>,
}

struct Listener {
    /// Held by the task alone, so that it closes when the sandbox has ended.
    socket: Weak<Listening>,
    task: JoinHandle<()>,
}

impl Published {
    /// What another process publishes.
    pub(crate) fn elsewhere(ports: Vec<PublishedPort>) -> Published {
        Published {
            ports,
            listeners: Mutex::default(),
        }
    }

    pub(crate) fn is_elsewhere(&self) -> bool {
        !self.ports.is_empty() && lock(&self.listeners).is_empty()
    }

    /// Is published here from now on.
    pub(crate) fn take_over(&self, own: &Published) {
        let listeners = std::mem::take(&mut *lock(&own.listeners));
        lock(&self.listeners).extend(listeners);
    }

    pub(crate) fn ports(&self) -> &[PublishedPort] {
        &self.ports
    }

    /// Ends them, and waits until nothing of them is left.
    pub(crate) async fn end(&self) {
        let mut listeners = std::mem::take(&mut *lock(&self.listeners));
        // All at once: this may be given up while it waits.
        for listener in &listeners {
            listener.task.abort();
        }
        for listener in &mut listeners {
            // It was aborted, or has ended before.
            let _ = (&mut listener.task).await;
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        for listener in lock(&self.listeners).iter() {
            // Not only with its task, whose end takes a moment: the next sandbox may ask for the same port at once.
            if let Some(socket) = listener.socket.upgrade() {
                socket.stop();
            }
            listener.task.abort();
        }
    }
}

/// Accepts until the sandbox has ended; the connections end with it.
async fn serve(listener: Arc<Listening>, guest: u16, link: Link, slots: Arc<Semaphore>) {
    let mut carried = JoinSet::new();
    let ended = link.ended();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => return,
            Some(_) = carried.join_next() => {}
            accepted = accept(&listener.0, &slots) => match accepted {
                Ok((client, slot)) => {
                    let link = link.clone();
                    carried.spawn(async move {
                        carry(client, &link, guest).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, guest, "a published port cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await;
    let slot = slot.map_err(std::io::Error::other)?;
    let (client, _) = listener.accept().await?;
    Ok((client, slot))
}

async fn carry(client: TcpStream, link: &Link, guest: u16) {
    let mut client = Client {
        stream: client,
        whole: false,
    };
    let address = Address::Tcp(GUEST_HOST.into(), guest);
    let connection = match Connection::open(link, address).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%error, guest, "a published port leads nowhere");
            return;
        }
    };
    // The programs at both ends decide what is sent when.
    let _ = client.stream.set_nodelay(true);
    let (from_client, to_client) = client.stream.split();
    let carried = connection.exchange(from_client, to_client, || Ok(())).await;
    match carried {
        Ok(()) => client.whole = true,
        Err(error) => tracing::debug!(%error, guest, "a connection broke"),
    }
}

/// A connection of the host's. One that did not come to its end is reset, so that nobody takes for all what is not.
struct Client {
    stream: TcpStream,
    whole: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.whole {
            let _ = self.stream.set_zero_linger();
        }
    }
}

fn listen(host: SocketAddr) -> std::io::Result<(SocketAddr, TcpListener)> {
    let socket = match host {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The port can be had again at once after its last sandbox has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(host)?;
    let listener = socket.listen(BACKLOG)?;
    Ok((listener.local_addr()?, listener))
}

fn refused(host: SocketAddr, error: &std::io::Error) -> Error {
    let (kind, what) = match error.kind() {
        Io::AddrInUse => (
            ErrorKind::Busy,
            "another program listens there; name another port, or 0 for any that is free".into(),
        ),
        Io::AddrNotAvailable => (
            ErrorKind::InvalidArgument,
            format!("{} is no address of this machine", host.ip()),
        ),
        Io::PermissionDenied => (
            ErrorKind::InvalidArgument,
            "this user may not listen there; name a port from 1024 up, or 0 for any that is free"
                .into(),
        ),
        _ => return Error::io(format!("{host} cannot be published"), error),
    };
    Error::new(kind, format!("{host} cannot be published: {what}"))
}

/// An address as a person would name it.
fn shown(host: SocketAddr) -> String {
    match host.port() {
        0 => format!("any port of {}", host.ip()),
        _ => host.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_right_is_refused() {
        let port = PublishedPort::new;
        let everywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let good: [&[PublishedPort]; 4] = [
            &[],
            &[port(0, 1), port(0, 2)],
            &[port(80, 80), port(81, 80), port(0, 80)],
            &[port(80, 80), port(80, 80).at(everywhere)],
        ];
        for ports in good {
            assert!(check(ports).is_ok(), "{ports:?}");
        }
        let bad: [&[PublishedPort]; 4] = [
            &[port(80, 0)],
            &[port(80, 1), port(80, 2)],
            &[port(80, 1), port(0, 1), port(80, 1)],
            &[port(0, 1), port(0, 1)],
        ];
        for ports in bad {
            let error = check(ports).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{ports:?}");
        }
    }

    #[test]
    fn what_was_asked_for_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(recorded(folder.path()).unwrap(), []);
        let ports = [
            PublishedPort::new(0, 80),
            PublishedPort::new(8080, 80).at("::1".parse().unwrap()),
        ];
        record(folder.path(), &ports).unwrap();
        assert_eq!(recorded(folder.path()).unwrap(), ports);
        std::fs::write(folder.path().join(RECORD), "[[\"127").unwrap();
        let error = recorded(folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
