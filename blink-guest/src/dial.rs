//! Links that the agent opens itself: in a micro-VM the way out is a socket of the hypervisor's, and nobody can come in.
//!
//! A thread dials until the host answers, hands the connection to the loop, and dials again when the loop has lost its
//! link: a host process may end and another take the machine over. Programs of the sandbox can dial the same port, so
//! the agent shows a secret first, which only the host and the agent know.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// What the host says once it has believed the secret, and the agent once it has heard that.
const AGREED: &[u8] = b"+";

/// The hypervisor takes connections also while nobody listens for them, and then says nothing: silence is a refusal.
/// A busy host gets more time with each try.
const FIRST_PATIENCE: Duration = Duration::from_millis(250);
const LAST_PATIENCE: Duration = Duration::from_secs(4);

const PAUSE: Duration = Duration::from_millis(20);

/// Where to dial, and what to show.
pub(crate) struct Dial {
    /// Port of the vsock address of the host.
    pub(crate) port: u32,
    pub(crate) secret: String,
}

/// The dialing thread, as the loop sees it.
pub(crate) struct Dialer {
    shared: Arc<Shared>,
}

struct Shared {
    /// Tells the loop that there is a connection.
    dialed: OwnedFd,
    /// Tells the thread that another is wanted.
    wanted: OwnedFd,
    connection: Mutex<Option<OwnedFd>>,
}

impl Dialer {
    pub(crate) fn start(dial: Dial) -> io::Result<Dialer> {
        let shared = Arc::new(Shared {
            dialed: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            wanted: eventfd(1, EventfdFlags::CLOEXEC)?,
            connection: Mutex::new(None),
        });
        let dialer = Dialer {
            shared: shared.clone(),
        };
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || shared.run(&dial))?;
        Ok(dialer)
    }

    pub(crate) fn dialed_fd(&self) -> &OwnedFd {
        &self.shared.dialed
    }

    pub(crate) fn take(&self) -> Option<OwnedFd> {
        let _ = rustix::io::read(&self.shared.dialed, &mut [0; 8]);
        self.shared.slot().take()
    }

    /// The link is gone.
    pub(crate) fn dial_again(&self) {
        let _ = rustix::io::write(&self.shared.wanted, &1_u64.to_ne_bytes());
    }
}

impl Shared {
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, dial: &Dial) {
        while rustix::io::read(&self.wanted, &mut [0; 8]).is_ok() {
            let mut patience = FIRST_PATIENCE;
            let connection = loop {
                match connect(dial, patience) {
                    Ok(connection) => break connection,
                    Err(_) => std::thread::sleep(PAUSE),
                }
                patience = (patience * 2).min(LAST_PATIENCE);
            };
            *self.slot() = Some(connection);
            let _ = rustix::io::write(&self.dialed, &1_u64.to_ne_bytes());
        }
    }
}

fn connect(dial: &Dial, patience: Duration) -> io::Result<OwnedFd> {
    let mut connection = std::fs::File::from(open(dial.port, patience)?);
    connection.write_all(format!("{}\n", dial.secret).as_bytes())?;
    wait(&connection, PollFlags::IN, patience)?;
    let mut answer = [0; AGREED.len()];
    connection.read_exact(&mut answer)?;
    if answer != AGREED {
        return Err(io::ErrorKind::InvalidData.into());
    }
    connection.write_all(AGREED)?;
    Ok(connection.into())
}

/// A connection to the host's port.
fn open(port: u32, patience: Duration) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a system call on numbers.
    let socket = unsafe { libc::socket(libc::AF_VSOCK, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: plain numbers, of which zeros are valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default();
    address.svm_cid = libc::VMADDR_CID_HOST;
    address.svm_port = port;
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
    // SAFETY: an open socket, and a value of the length that is told, which lives until the call returns.
    let connected =
        unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if connected < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(error);
        }
        wait(&socket, PollFlags::OUT, patience)?;
        rustix::net::sockopt::socket_error(&socket)??;
    }
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

fn wait(
    socket: &impl std::os::fd::AsFd,
    what: PollFlags,
    patience: Duration,
) -> rustix::io::Result<()> {
    let patience = Timespec::try_from(patience).map_err(|_| rustix::io::Errno::INVAL)?;
    match poll(&mut [PollFd::new(socket, what)], Some(&patience))? {
        0 => Err(rustix::io::Errno::TIMEDOUT),
        _ => Ok(()),
    }
}
