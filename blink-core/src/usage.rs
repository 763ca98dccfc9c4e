//! What a disk occupies, as it was measured last, in a file beside it. The agent that watches over a session's disk writes it down
//! each time, so that nobody has to look at all of its files to tell.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use blink_host::private;

const NAME: &str = "usage";

/// A number of 64 bits, and more than one would have.
const LONGEST: u64 = 32;

/// The file of a disk, for its agent.
pub(crate) fn open(disk: &Path) -> io::Result<File> {
    private::open_file(&disk.join(NAME), File::options().create(true).write(true))
}

/// What was written down last; `None` if nothing was.
pub(crate) fn read(disk: &Path) -> Option<u64> {
    let mut text = String::new();
    let file = File::open(disk.join(NAME)).ok()?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

pub(crate) fn write(disk: &Path, bytes: u64) -> io::Result<()> {
    private::write_file(&disk.join(NAME), format!("{bytes:020}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_no_number_is_nothing() {
        let disk = tempfile::tempdir().unwrap();
        assert_eq!(read(disk.path()), None);
        write(disk.path(), 123_456).unwrap();
        assert_eq!(read(disk.path()), Some(123_456));
        drop(open(disk.path()).unwrap());
        assert_eq!(read(disk.path()), Some(123_456));
        for text in ["", "-1", "x", "99999999999999999999999999"] {
            std::fs::write(disk.path().join(NAME), text).unwrap();
            assert_eq!(read(disk.path()), None, "{text}");
        }
    }
}
