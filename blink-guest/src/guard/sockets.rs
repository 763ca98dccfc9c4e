//! What the buffers of sockets occupy: the kernel counts it for each socket, and holds it for none of their users.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// From the kernel's `socket.h` and `in.h`.
const UNIX: u8 = 1;
const INTERNET: [u8; 2] = [2, 10];
const TCP_AND_UDP: [u8; 2] = [6, 17];

/// From the kernel's `netlink.h`, `sock_diag.h`, `unix_diag.h` and `inet_diag.h`.
const REQUEST_ALL: u16 = 0x301;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_MEMINFO: u32 = 0x20;
const UNIX_DIAG_MEMINFO: u16 = 5;
const INET_DIAG_SKMEMINFO: u16 = 7;
const RECEIVED: usize = 0;
const SENT: usize = 2;
const QUEUED: usize = 5;

const HEADER: usize = 16;
const ANSWER: usize = 64 << 10;

/// Which of the network's sockets are the sandbox's.
pub(super) enum Which<'a> {
    /// The network is its own.
    All,
    /// The host has others: those that are open in its processes.
    Open(&'a HashSet<u64>),
}

/// A question about all sockets of one kind, and where in an answer's messages something is.
struct Question {
    body: Vec<u8>,
    message: usize,
    inode: usize,
    memory: u16,
}

fn unix() -> Question {
    let mut body = vec![UNIX, 0, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(0_u32.to_ne_bytes());
    body.extend(UDIAG_SHOW_MEMINFO.to_ne_bytes());
    body.extend([0; 8]);
    Question {
        body,
        message: 16,
        inode: 4,
        memory: UNIX_DIAG_MEMINFO,
    }
}

fn internet(family: u8, protocol: u8) -> Question {
    let extension = 1 << (INET_DIAG_SKMEMINFO - 1);
    let mut body = vec![family, protocol, extension, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend([0; 48]);
    Question {
        body,
        message: 72,
        inode: 68,
        memory: INET_DIAG_SKMEMINFO,
    }
}

/// Asks the kernel. It is opened before the agent passes through the filter of programs, which may not ask.
#[derive(Debug)]
pub(crate) struct Sockets {
    socket: OwnedFd,
    /// Tells the answers to a question from those to one that was given up.
    question: u32,
}

impl Sockets {
    /// # Errors
    /// The kernel's, where it cannot be asked.
    pub(crate) fn open() -> Result<Sockets, Errno> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        Ok(Sockets {
            socket,
            question: 0,
        })
    }

    /// What they occupy. A kind that the kernel cannot list counts as nothing.
    pub(super) fn bytes(&mut self, which: &Which<'_>) -> u64 {
        let mut questions = vec![unix()];
        for family in INTERNET {
            questions.extend(TCP_AND_UDP.map(|protocol| internet(family, protocol)));
        }
        let of_kind = |question| self.ask(question, which).unwrap_or_default();
        questions.iter().map(of_kind).sum()
    }

    fn ask(&mut self, question: &Question, which: &Which<'_>) -> Result<u64, Errno> {
        self.question = self.question.wrapping_add(1);
        let length = u32::try_from(HEADER + question.body.len()).unwrap_or(0);
        let mut request = length.to_ne_bytes().to_vec();
        request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        request.extend(REQUEST_ALL.to_ne_bytes());
        request.extend(self.question.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(&question.body);
        send(&self.socket, &request, SendFlags::empty())?;
        let mut answer = vec![0; ANSWER];
        let mut total = 0;
        loop {
            let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
            let mut rest = &answer[..length];
            while let Some((kind, body, next)) = message(rest) {
                let is_its = word(rest, 8) == Some(self.question);
                rest = next;
                if !is_its {
                    continue;
                }
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(total),
                    libc::NLMSG_ERROR => return Err(Errno::OPNOTSUPP),
                    _ => total += question.occupied(body, which).unwrap_or(0),
                }
            }
        }
    }
}

impl Question {
    fn occupied(&self, body: &[u8], which: &Which<'_>) -> Option<u64> {
        let is_its = match which {
            Which::All => true,
            Which::Open(inodes) => inodes.contains(&u64::from(word(body, self.inode)?)),
        };
        let mut rest = body.get(self.message..).filter(|_| is_its)?;
        while let Some((kind, memory, next)) = attribute(rest) {
            if kind == self.memory {
                let of = |index: usize| word(memory, index * 4).map(u64::from);
                return Some(of(RECEIVED)? + of(SENT)?.max(of(QUEUED)?));
            }
            rest = next;
        }
        None
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(word.try_into().ok()?))
}

/// The kind and the body of the first message, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = word(bytes, 0)? as usize;
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((half_word(bytes, 4)?, body, next))
}

/// The same of an attribute.
fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(half_word(bytes, 0)?);
    let body = bytes.get(4..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((half_word(bytes, 2)?, body, next))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn inode(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    fn fill(mut socket: impl Write) {
        while socket.write(&[1; 4096]).is_ok() {}
    }

    #[test]
    fn what_nobody_has_read_counts() {
        let mut sockets = Sockets::open().unwrap();
        let mut bytes = |which: &Which<'_>| sockets.bytes(which);
        let (sender, receiver) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        sender.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let inodes = HashSet::from([inode(&sender), inode(&receiver)]);
        let of_unix = Which::Open(&inodes);
        let inodes = HashSet::from([inode(&client), inode(&server)]);
        let of_tcp = Which::Open(&inodes);
        assert_eq!((bytes(&of_unix), bytes(&of_tcp)), (0, 0));
        fill(&sender);
        assert!(bytes(&of_unix) > 100 << 10);
        assert_eq!(bytes(&of_tcp), 0);
        fill(&client);
        assert!(bytes(&of_tcp) > 100 << 10);
        assert!(bytes(&Which::All) >= bytes(&of_unix) + bytes(&of_tcp));
    }
}
