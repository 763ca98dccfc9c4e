//! Connections that the agent opens inside the sandbox and whose bytes it carries.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use blink_wire::{Address, ErrorBody, ErrorKind, FrameType, INITIAL_WINDOW};
use bytes::{Buf, Bytes, BytesMut};
use rustix::io::{self, Errno};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with, sockopt,
};

use crate::failure::{exhausted, failed, failed_as};
use crate::poll::{Poll, Token};
use crate::stream::{Caller, Chunk, read_into};

const READ_BYTES: usize = 64 << 10;
const CREDIT_STEP: u32 = INITIAL_WINDOW / 4;

struct Connection {
    caller: Caller,
    socket: OwnedFd,
    /// Other addresses of the same name, tried where this one refuses.
    others: VecDeque<SocketAddr>,
    connected: bool,
    readable: bool,
    /// Read from the socket and not sent yet.
    received: BytesMut,
    received_end: bool,
    end_sent: bool,
    window: u64,
    /// From the host and not written yet.
    queue: VecDeque<Bytes>,
    queued: usize,
    queue_end: bool,
    write_over: bool,
    /// The other end took no more before the host had ended its direction.
    refused: bool,
    consumed: u32,
}

/// What the loop has to tell a host about a connection.
pub(crate) enum Notice {
    Connected(Caller),
    Refused(Caller, ErrorBody),
    Ready(Caller),
    Credit(Caller, u32),
    /// Both directions are over.
    Closed(Caller),
    /// Both directions are over, and the host may not know: the other end takes no more of what it sends.
    Broken(Caller, ErrorBody),
}

/// All connections.
#[derive(Default)]
pub(crate) struct Connections {
    table: HashMap<u64, Connection>,
    next_id: u64,
    pub(crate) notices: Vec<Notice>,
}

impl Connections {
    pub(crate) fn open(
        &mut self,
        address: &Address,
        caller: Caller,
        poll: &Poll,
    ) -> Result<u64, ErrorBody> {
        let mut others = VecDeque::new();
        let socket = match address {
            Address::Unix(path) => connect_unix(path)?,
            Address::Tcp(host, port) => {
                others = tcp_addresses(host, *port)?;
                let first = others.pop_front().ok_or_else(|| not_an_address(host))?;
                connect_tcp(first)?
            }
            _ => {
                return Err(ErrorBody::new(
                    ErrorKind::Unsupported,
                    "this agent does not know that kind of address",
                ));
            }
        };
        self.next_id += 1;
        let id = self.next_id;
        poll.add(&socket, Token::Connection(id))
            .map_err(|error| exhausted("a connection", error))?;
        self.table.insert(
            id,
            Connection {
                caller,
                socket,
                others,
                connected: false,
                readable: false,
                received: BytesMut::new(),
                received_end: false,
                end_sent: false,
                window: u64::from(INITIAL_WINDOW),
                queue: VecDeque::new(),
                queued: 0,
                queue_end: false,
                write_over: false,
                refused: false,
                consumed: 0,
            },
        );
        Ok(id)
    }

    pub(crate) fn close(&mut self, id: u64) {
        self.table.remove(&id);
    }

    pub(crate) fn add_window(&mut self, id: u64, credit: u32) {
        if let Some(connection) = self.table.get_mut(&id) {
            connection.window = connection.window.saturating_add(u64::from(credit));
            self.notices.push(Notice::Ready(connection.caller));
        }
    }

    /// Takes bytes to write; `false` where they exceed the window.
    pub(crate) fn push(&mut self, id: u64, bytes: Bytes, end: bool) -> bool {
        let Some(connection) = self.table.get_mut(&id) else {
            return true;
        };
        connection.queued += bytes.len();
        if !bytes.is_empty() {
            connection.queue.push_back(bytes);
        }
        connection.queue_end |= end;
        let within = connection.queued <= INITIAL_WINDOW as usize;
        self.pump(id, false, false, None);
        within
    }

    /// Goes on with a connection to which something happened.
    pub(crate) fn pump(&mut self, id: u64, readable: bool, writable: bool, poll: Option<&Poll>) {
        let Some(connection) = self.table.get_mut(&id) else {
            return;
        };
        connection.readable |= readable;
        if !connection.connected {
            if !(readable || writable) {
                return;
            }
            match connection.established(id, poll) {
                Ok(true) => self.notices.push(Notice::Connected(connection.caller)),
                Ok(false) => return,
                Err(error) => {
                    self.notices.push(Notice::Refused(connection.caller, error));
                    self.table.remove(&id);
                    return;
                }
            }
        }
        connection.write();
        if connection.consumed >= CREDIT_STEP {
            self.notices.push(Notice::Credit(
                connection.caller,
                std::mem::take(&mut connection.consumed),
            ));
        }
        self.notices.push(Notice::Ready(connection.caller));
        self.close_if_over(id);
    }

    pub(crate) fn next_chunk(&mut self, id: u64) -> Option<Chunk<'_>> {
        let connection = self.table.get_mut(&id)?;
        if !connection.connected
            || connection.end_sent
            || (connection.window == 0 && !connection.received_end)
        {
            return None;
        }
        if connection.received.is_empty() {
            connection.read();
        }
        let length = connection
            .received
            .len()
            .min(usize::try_from(connection.window).unwrap_or(usize::MAX));
        let end = connection.received_end && length == connection.received.len();
        if length == 0 && !end {
            return None;
        }
        Some(Chunk {
            frame_type: FrameType::STREAM_DATA,
            end,
            first: &connection.received[..length],
            second: &[],
        })
    }

    pub(crate) fn sent(&mut self, id: u64, length: usize) {
        let Some(connection) = self.table.get_mut(&id) else {
            return;
        };
        connection.window -= length as u64;
        connection.received.advance(length);
        connection.end_sent = connection.received_end && connection.received.is_empty();
        self.close_if_over(id);
    }

    fn close_if_over(&mut self, id: u64) {
        if let Some(connection) = self.table.get(&id)
            && connection.end_sent
            && connection.write_over
        {
            self.notices.push(match connection.refused {
                true => Notice::Broken(
                    connection.caller,
                    ErrorBody::new(
                        ErrorKind::NotFound,
                        "the other end of the connection was closed",
                    ),
                ),
                false => Notice::Closed(connection.caller),
            });
            self.table.remove(&id);
        }
    }
}

impl Connection {
    /// Whether the connection stands; tries the name's next address where this one refused.
    fn established(&mut self, id: u64, poll: Option<&Poll>) -> Result<bool, ErrorBody> {
        match sockopt::socket_error(&self.socket) {
            Ok(Ok(())) => {
                self.connected = true;
                Ok(true)
            }
            Ok(Err(error)) | Err(error) => {
                let (Some(next), Some(poll)) = (self.others.pop_front(), poll) else {
                    return Err(refused(error));
                };
                self.socket = connect_tcp(next)?;
                poll.add(&self.socket, Token::Connection(id))
                    .map_err(|error| exhausted("a connection", error))?;
                Ok(false)
            }
        }
    }

    fn read(&mut self) {
        if !self.readable || self.received_end {
            return;
        }
        self.received.reserve(READ_BYTES);
        match read_into(&self.socket, &mut self.received) {
            Ok(0) => self.received_end = true,
            Ok(_) => {}
            Err(Errno::AGAIN) => self.readable = false,
            Err(_) => self.received_end = true,
        }
    }

    fn write(&mut self) {
        while let Some(bytes) = self.queue.front_mut() {
            match rustix::net::send(&self.socket, bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => {
                    bytes.advance(count);
                    self.queued -= count;
                    self.consumed += u32::try_from(count).unwrap_or_default();
                    if bytes.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.consumed += u32::try_from(self.queued).unwrap_or_default();
                    self.queued = 0;
                    self.queue.clear();
                    self.write_over = true;
                    self.refused = !self.queue_end;
                }
            }
        }
        if self.queue_end && !self.write_over {
            // The peer may be gone already.
            let _ = shutdown(&self.socket, Shutdown::Write);
            self.write_over = true;
        }
    }
}

fn tcp_addresses(host: &str, port: u16) -> Result<VecDeque<SocketAddr>, ErrorBody> {
    let ips: Vec<IpAddr> = match host {
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        _ => vec![host.parse().map_err(|_| not_an_address(host))?],
    };
    Ok(ips
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect())
}

fn connect_tcp(address: SocketAddr) -> Result<OwnedFd, ErrorBody> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = open_socket(family)?;
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    begin(connect(&socket, &address))?;
    Ok(socket)
}

fn connect_unix(path: &[u8]) -> Result<OwnedFd, ErrorBody> {
    let address = SocketAddrUnix::new(path).map_err(|error| {
        failed(
            error,
            "a socket's path has 1 to 107 bytes and no NUL among them",
        )
    })?;
    let socket = open_socket(AddressFamily::UNIX)?;
    begin(connect(&socket, &address))?;
    Ok(socket)
}

fn open_socket(family: AddressFamily) -> Result<OwnedFd, ErrorBody> {
    socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|error| match error {
        // There is no such family of addresses in the sandbox, so nothing can listen at one.
        Errno::AFNOSUPPORT => refused(error),
        error => exhausted("a socket", error),
    })
}

fn begin(result: io::Result<()>) -> Result<(), ErrorBody> {
    match result {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(()),
        Err(error @ Errno::NOENT) => Err(failed(error, "there is no such socket in the sandbox")),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: Errno) -> ErrorBody {
    let kind = match ErrorKind::of_errno(error.raw_os_error()) {
        kind @ (ErrorKind::PermissionDenied
        | ErrorKind::NotADirectory
        | ErrorKind::NameTooLong
        | ErrorKind::ResourceExhausted) => kind,
        _ => ErrorKind::NotFound,
    };
    let message = format!("nothing answers at that address in the sandbox ({error})");
    failed_as(kind, error, message)
}

fn not_an_address(host: &str) -> ErrorBody {
    let message = format!(
        "{host:?} is neither an IP address nor localhost; the agent does not look names up"
    );
    ErrorBody::new(ErrorKind::InvalidArgument, message)
}
