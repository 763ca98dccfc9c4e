//! How much of a disk of the host may be filled.
//!
//! What comes from outside never fills the host's disk to the last byte: databases, logs and a shell with which somebody
//! makes room need some of it. Whatever writes much asks here first, and again while it writes.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// The part of a file system that is kept free, as a divisor: a twentieth, which is what ext4 keeps for root too.
const RESERVE_DIVISOR: u64 = 20;

/// No more than this is kept free, however large the file system is: more than the databases and logs of a host write while
/// somebody makes room.
const LARGEST_RESERVE_BYTES: u64 = 256 << 20;

/// How often it is looked at again while something is written: often enough that what is written in between is a small part
/// of the reserve, and rarely enough that looking costs nothing beside it.
const STEP_BYTES: u64 = 4 << 20;

/// Bytes that may still be written to the file system that holds `place`: what is free there, less the reserve.
///
/// # Errors
/// The kernel's, if it does not say.
pub fn room(place: impl AsFd) -> io::Result<u64> {
    let disk = rustix::fs::fstatvfs(place)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(room_of(bytes(disk.f_blocks), bytes(disk.f_bavail)))
}

fn room_of(total_bytes: u64, free_bytes: u64) -> u64 {
    match total_bytes {
        // A file system that counts nothing, and so has no end that it could come to.
        0 => u64::MAX,
        _ => free_bytes.saturating_sub((total_bytes / RESERVE_DIVISOR).min(LARGEST_RESERVE_BYTES)),
    }
}

/// Fails where `bytes` more do not fit.
///
/// # Errors
/// `StorageFull`, with the figures.
pub fn require(place: impl AsFd, bytes: u64) -> io::Result<()> {
    let room = room(place)?;
    match bytes <= room {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "the disk has room for {room} bytes more beside what is kept free for the host, and {bytes} are needed"
            ),
        )),
    }
}

/// Looks at the room again and again while something is written.
#[derive(Debug)]
pub struct Meter {
    place: OwnedFd,
    since: u64,
}

impl Meter {
    /// `place` is on the file system that is written to.
    ///
    /// # Errors
    /// `StorageFull` if it is full already; the kernel's.
    pub fn new(place: impl AsFd) -> io::Result<Meter> {
        require(&place, 1)?;
        Ok(Meter {
            place: place.as_fd().try_clone_to_owned()?,
            since: 0,
        })
    }

    /// So many bytes were written, or are about to be.
    ///
    /// # Errors
    /// `StorageFull` if there is no room for them.
    pub fn came(&mut self, bytes: usize) -> io::Result<()> {
        self.since += bytes as u64;
        if self.since >= STEP_BYTES {
            self.since = 0;
            // Also for what comes until it is looked at again.
            require(&self.place, STEP_BYTES)?;
        }
        Ok(())
    }
}

/// Ends what comes through before the file system that it goes to is full.
#[derive(Debug)]
pub struct Roomy<T> {
    inner: T,
    meter: Meter,
}

impl<T> Roomy<T> {
    /// # Errors
    /// As for [`Meter::new`].
    pub fn new(inner: T, place: impl AsFd) -> io::Result<Roomy<T>> {
        let meter = Meter::new(place)?;
        Ok(Roomy { inner, meter })
    }

    /// What is read or written.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: Read> Read for Roomy<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.meter.came(read)?;
        Ok(read)
    }
}

impl<T: Write> Write for Roomy<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.meter.came(written)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_reserve_stays_free() {
        for (total, free, room) in [
            (100 * GIB, 100 * GIB, 100 * GIB - LARGEST_RESERVE_BYTES),
            (100 * GIB, LARGEST_RESERVE_BYTES, 0),
            (100 * GIB, 0, 0),
            (GIB, GIB, GIB - GIB / 20),
            (GIB, GIB / 20 + 1, 1),
            (0, 0, u64::MAX),
        ] {
            assert_eq!(room_of(total, free), room, "{total} {free}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let place = tempfile::tempdir().unwrap();
        let place = std::fs::File::open(place.path()).unwrap();
        require(&place, 1).unwrap();
        let error = require(&place, u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
