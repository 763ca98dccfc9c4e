//! A file descriptor that says when there is something to read.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};

use crate::failure::Failure;

/// A descriptor that can be read from while there may be something. It is only made where somebody wants it: whoever does not
/// poll does not pay for it.
#[derive(Default)]
pub(crate) struct Readiness(OnceLock<OwnedFd>);

impl Readiness {
    /// The descriptor, at first ready: nobody has looked yet.
    pub(crate) fn fd(&self) -> Result<RawFd, Failure> {
        self.fd_from(1)
    }

    /// The descriptor, at first not ready.
    pub(crate) fn unready_fd(&self) -> Result<RawFd, Failure> {
        self.fd_from(0)
    }

    fn fd_from(&self, count: u32) -> Result<RawFd, Failure> {
        if let Some(fd) = self.0.get() {
            return Ok(fd.as_raw_fd());
        }
        let made = eventfd(count, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Failure::descriptors("to wait with", error.into()))?;
        Ok(self.0.get_or_init(|| made).as_raw_fd())
    }

    pub(crate) fn set(&self) {
        if let Some(fd) = self.0.get() {
            // It fails where the count is full, and then it is ready.
            let _ = rustix::io::write(fd, &1_u64.to_ne_bytes());
        }
    }

    pub(crate) fn clear(&self) {
        if let Some(fd) = self.0.get() {
            // It fails where it is clear.
            let _ = rustix::io::read(fd, &mut [0; size_of::<u64>()]);
        }
    }
}

/// A reader that has found nothing is told by the descriptor.
impl Wake for Readiness {
    fn wake(self: Arc<Self>) {
        self.set();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
    }
}
