//! Room on the disk of the home that is kept for its list of sessions: on a full disk, SQLite can neither open the list nor
//! take anything out of it, and so nothing could make room any more.
//!
//! Whoever needs it gives all of it up, and it is kept again as soon as there is room: when the list is next opened, or what
//! was removed has gone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use blink_host::private;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

const FOLDER: &str = "ballast";

/// SQLite makes two files, one of 32 KiB and one with each page that changes: some ten of 4 KiB, and more for a session with
/// thousands of checkpoints. Several files are several inodes, which a disk may lack as well.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 256 << 10;

/// The room that is kept.
pub(super) struct Ballast {
    folder: PathBuf,
    /// By this process, which has not given it up since.
    is_kept: bool,
}

impl Ballast {
    pub(super) fn of(home: &Path) -> Ballast {
        Ballast {
            folder: home.join(FOLDER),
            is_kept: false,
        }
    }

    fn pieces(&self) -> impl Iterator<Item = PathBuf> {
        (0..PIECES).map(|number| self.folder.join(number.to_string()))
    }

    /// Keeps what there is room for. That there is none is no failure of whoever asks.
    pub(super) fn keep(&mut self) {
        if self.is_kept {
            return;
        }
        let kept = private::make_folder(&self.folder)
            .and_then(|()| self.pieces().try_for_each(|piece| keep(&piece)));
        if let Err(error) = kept {
            tracing::debug!(%error, "no room is kept for the list of sessions");
            return;
        }
        self.is_kept = true;
    }

    /// Frees it; says whether there was some.
    pub(super) fn give_up(&mut self) -> bool {
        self.is_kept = false;
        let freed = self
            .pieces()
            .filter(|piece| fs::remove_file(piece).is_ok())
            .count();
        freed > 0
    }
}

fn keep(piece: &Path) -> io::Result<()> {
    // A process may have ended while it wrote this one.
    match piece.metadata() {
        Ok(metadata) if metadata.len() == PIECE_BYTES as u64 => return Ok(()),
        Ok(_) => fs::remove_file(piece)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = match File::create_new(piece) {
        // Another process is just at it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        file => file?,
    };
    let kept = match fallocate(&file, FallocateFlags::empty(), 0, PIECE_BYTES as u64) {
        Err(Errno::OPNOTSUPP) => file.write_all(&[1; PIECE_BYTES]),
        kept => kept.map_err(io::Error::from),
    };
    if kept.is_err() {
        let _ = fs::remove_file(piece);
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn room_is_kept_given_up_and_kept_again() {
        let home = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::of(home.path());
        assert!(!ballast.give_up());
        let kept_bytes = || -> u64 {
            let ballast = Ballast::of(home.path());
            let pieces = ballast.pieces().filter_map(|piece| piece.metadata().ok());
            pieces.map(|piece| piece.blocks() * 512).sum()
        };
        ballast.keep();
        assert_eq!(kept_bytes(), (PIECES * PIECE_BYTES) as u64);
        // What a process has left half-way is made whole.
        let half = ballast.pieces().next().unwrap();
        fs::write(half, "half").unwrap();
        let mut ballast = Ballast::of(home.path());
        ballast.keep();
        assert_eq!(kept_bytes(), (PIECES * PIECE_BYTES) as u64);
        assert!(ballast.give_up());
        assert_eq!(kept_bytes(), 0);
        assert!(!ballast.give_up());
    }
}
