//! The socket between the library and the launcher, and what else the launcher has open: nothing.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use blink_wire::{LAUNCH_BODY_LIMIT, LAUNCH_DESCRIPTORS, LaunchPlan, LaunchReport, Message};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send,
};

use super::Failure;

const LENGTH_BYTES: usize = 4;

/// This end of the socket.
pub(crate) struct Control(OwnedFd);

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Control {
    /// Takes the socket that this program was started with, and closes whatever else the host program has left open for its
    /// own children: it is no business of a sandbox.
    pub(crate) fn take() -> io::Result<Control> {
        let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let number = control.as_raw_fd().cast_unsigned();
        for (first, last) in [(3, number - 1), (number + 1, u32::MAX)] {
            if first <= last {
                // SAFETY: nothing but the socket was opened yet, and it is in neither range.
                unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            }
        }
        Ok(Control(control))
    }

    /// The plan; `None` where it does not come whole.
    pub(crate) fn receive(&self) -> Option<Received> {
        let mut length = [0; LENGTH_BYTES];
        let mut descriptors = Vec::new();
        let mut read = 0;
        while read < LENGTH_BYTES {
            read += match self.receive_some(&mut length[read..], &mut descriptors) {
                Ok(0) => return None,
                Ok(some) => some,
                Err(Errno::INTR) => 0,
                Err(_) => return None,
            };
        }
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        if length > LAUNCH_BODY_LIMIT {
            return None;
        }
        let mut body = vec![0; length];
        let mut read = 0;
        while read < length {
            read += match recv(self, &mut body[read..], RecvFlags::empty()) {
                Ok((0, _)) => return None,
                Ok((some, _)) => some,
                Err(Errno::INTR) => 0,
                Err(_) => return None,
            };
        }
        let plan = LaunchPlan::from_body(&body).ok()?;
        let all = plan.numbers.len() + usize::try_from(plan.kept).ok()?;
        let kept = (all == descriptors.len()).then(|| descriptors.split_off(plan.numbers.len()))?;
        Some(Received {
            plan,
            descriptors,
            kept,
        })
    }

    fn receive_some(
        &self,
        bytes: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LAUNCH_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            self,
            &mut [IoSliceMut::new(bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        Ok(received.bytes)
    }

    /// The next byte; `None` when nobody is there to say anything any more.
    pub(crate) fn hear(&self) -> Option<u8> {
        let mut byte = [0];
        loop {
            match recv(self, &mut byte, RecvFlags::empty()) {
                Ok((1, _)) => return Some(byte[0]),
                Err(Errno::INTR) => {}
                _ => return None,
            }
        }
    }

    /// Whoever is gone is told nothing.
    pub(crate) fn report(&self, report: &LaunchReport) {
        let body = report.to_body();
        let mut bytes = u32::try_from(body.len())
            .unwrap_or_default()
            .to_le_bytes()
            .to_vec();
        bytes.extend_from_slice(&body);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match send(self, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// A plan with its descriptors.
pub(crate) struct Received {
    pub(crate) plan: LaunchPlan,
    /// The program's.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The launcher's, which are open until it ends.
    pub(crate) kept: Vec<OwnedFd>,
}

/// The socket was all three of them.
pub(crate) fn replace_standard_descriptors() -> Result<(), Failure> {
    let failed = || Failure::at("/dev/null", "cannot be opened");
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(failed())?;
    rustix::stdio::dup2_stdin(&null).map_err(failed())?;
    rustix::stdio::dup2_stdout(&null).map_err(failed())?;
    rustix::stdio::dup2_stderr(&null).map_err(failed())
}
