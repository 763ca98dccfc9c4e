//! The descriptors of a new process: pipes, or a terminal.

use std::os::fd::OwnedFd;

use blink_wire::{Spawn, TtySize};
use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::io;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::termios::Winsize;

/// A large pipe takes fewer switches between writer and agent; the kernel may refuse it to users who have many.
const PIPE_BYTES: usize = 512 << 10;

/// The agent's ends, and the program's.
pub(crate) struct Descriptors {
    pub(crate) child: [OwnedFd; 3],
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) terminal: Option<OwnedFd>,
}

impl Descriptors {
    pub(crate) fn open(spawn: &Spawn, dev_null: &OwnedFd) -> io::Result<Descriptors> {
        match spawn.pty {
            Some(size) => Descriptors::terminal(size),
            None => Descriptors::pipes(spawn.stdin, dev_null),
        }
    }

    /// Gives the program's ends to its user, who may open them by their names in `/dev` and `/proc` then.
    pub(crate) fn give_to(&self, uid: u32, gid: u32) {
        for descriptor in &self.child {
            let kind = fstat(descriptor).map(|found| FileType::from_raw_mode(found.st_mode));
            // A terminal keeps its group, whom others ask to write to it. Where there are no other users, nobody is to be given anything.
            let _ = match kind {
                Ok(FileType::Fifo) => fchown(
                    descriptor,
                    Some(Uid::from_raw(uid)),
                    Some(Gid::from_raw(gid)),
                ),
                Ok(FileType::CharacterDevice) if self.terminal.is_some() => {
                    fchown(descriptor, Some(Uid::from_raw(uid)), None)
                }
                _ => Ok(()),
            };
        }
    }

    fn pipes(with_stdin: bool, dev_null: &OwnedFd) -> io::Result<Descriptors> {
        let (child_stdin, stdin) = match with_stdin {
            true => {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                io::ioctl_fionbio(&writer, true)?;
                (reader, Some(writer))
            }
            false => (io::fcntl_dupfd_cloexec(dev_null, 3)?, None),
        };
        let output = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            io::ioctl_fionbio(&reader, true)?;
            let _ = fcntl_setpipe_size(&reader, PIPE_BYTES);
            Ok((reader, writer))
        };
        let (stdout, child_stdout) = output()?;
        let (stderr, child_stderr) = output()?;
        let child = [child_stdin, child_stdout, child_stderr];
        Ok(Descriptors {
            child,
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            terminal: None,
        })
    }

    fn terminal(size: TtySize) -> io::Result<Descriptors> {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        rustix::termios::tcsetwinsize(&master, winsize(size))?;
        io::ioctl_fionbio(&master, true)?;
        let slave = ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        let duplicate = |fd: &OwnedFd| io::fcntl_dupfd_cloexec(fd, 3);
        Ok(Descriptors {
            child: [duplicate(&slave)?, duplicate(&slave)?, slave],
            stdin: Some(duplicate(&master)?),
            stdout: Some(duplicate(&master)?),
            stderr: None,
            terminal: Some(master),
        })
    }
}

pub(crate) fn winsize(size: TtySize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
