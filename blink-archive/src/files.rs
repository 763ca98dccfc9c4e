//! An archive's files, read one after another without writing them anywhere.

use std::collections::VecDeque;
use std::io::{self, Read};

use crate::error::ArchiveError;
use crate::format::{Kind, Reader, Segment};

/// The entries of an archive, in turn.
///
/// # Examples
///
/// ```
/// use blink_archive::Files;
/// # use std::io::Read;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tar = [0; 1024];
/// let mut files = Files::new(&tar[..]);
/// while let Some(mut file) = files.next()? {
///     println!("{} has {} bytes", String::from_utf8_lossy(file.path()), file.size());
///     std::io::copy(&mut file, &mut std::io::sink())?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Files<R>(Reader<R>);

/// An entry of an archive. What is read of it is its content, with the holes of a sparse file as zeros.
pub struct ArchivedFile<'a, R> {
    reader: &'a mut Reader<R>,
    path: Vec<u8>,
    kind: Kind,
    size: u64,
    at: u64,
    /// What is left to read of the parts that the archive holds.
    parts: VecDeque<Segment>,
}

impl<R: Read> Files<R> {
    /// Reads an archive, which may lack the blocks that mark its end.
    pub fn new(input: R) -> Files<R> {
        Files(Reader::new(input, false))
    }

    /// The next entry. What was not read of the one before is skipped.
    ///
    /// # Errors
    /// If the archive is damaged, or cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "an entry is read through this, and so must go before the next one comes"
    )]
    pub fn next(&mut self) -> Result<Option<ArchivedFile<'_, R>>, ArchiveError> {
        let Some(member) = self.0.next()? else {
            return Ok(None);
        };
        let whole = Segment {
            offset: 0,
            length: member.size,
        };
        Ok(Some(ArchivedFile {
            reader: &mut self.0,
            path: member.path,
            kind: member.kind,
            size: member.size,
            at: 0,
            parts: member.map.unwrap_or_else(|| vec![whole]).into(),
        }))
    }

    /// What comes after the last entry that was read.
    pub fn into_inner(self) -> R {
        self.0.into_inner()
    }
}

impl<R> ArchivedFile<'_, R> {
    /// Its path, as the archive has it.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// How many bytes it has, its holes included.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl<R: Read> Read for ArchivedFile<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.parts.front().is_some_and(|part| part.length == 0) {
            self.parts.pop_front();
        }
        let next = self.parts.front_mut();
        let hole_ends = next.as_ref().map_or(self.size, |part| part.offset);
        let (is_hole, most) = match next.as_ref() {
            Some(part) if part.offset <= self.at => (false, part.length),
            _ => (true, hole_ends.saturating_sub(self.at)),
        };
        let most = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = &mut buffer[..most];
        match next {
            Some(part) if !is_hole => {
                self.reader.read_content(buffer).map_err(cause)?;
                part.offset += most as u64;
                part.length -= most as u64;
            }
            _ => buffer.fill(0),
        }
        self.at += most as u64;
        Ok(most)
    }
}

/// The stream's own error, if that is what it is.
fn cause(error: ArchiveError) -> io::Error {
    match error {
        ArchiveError::Stream { source, .. } => source,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn files_come_in_turn_read_or_not() {
        let large = vec![7; 100_000];
        let tar = archive(&[("a", b"one"), ("b/c", &large), ("d", b"")]);
        let mut files = Files::new(&tar[..]);
        let mut seen = Vec::new();
        while let Some(mut file) = files.next().unwrap() {
            let path = String::from_utf8(file.path().to_vec()).unwrap();
            assert!(file.is_file());
            let mut content = Vec::new();
            if path != "a" {
                file.read_to_end(&mut content).unwrap();
                assert_eq!(content.len() as u64, file.size());
            }
            seen.push((path, content));
        }
        let expected = [("a", &[][..]), ("b/c", &large), ("d", &[])];
        assert_eq!(seen.len(), 3);
        for ((path, content), (other, bytes)) in seen.iter().zip(expected) {
            assert!(path == other && content == bytes);
        }
    }

    #[test]
    fn holes_are_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        let mut content = vec![0_u8; 3 << 20];
        content[1 << 20..(1 << 20) + 5].copy_from_slice(b"hello");
        let file = std::fs::File::create(&path).unwrap();
        crate::write_with_holes(&file, 0, &content).unwrap();
        file.set_len(content.len() as u64).unwrap();
        for format in ["gnu", "posix"] {
            let tar = std::process::Command::new("tar")
                .arg(format!("--format={format}"))
                .args(["--sparse", "--create", "--file=-", "sparse"])
                .current_dir(&folder)
                .output()
                .unwrap()
                .stdout;
            assert!(tar.len() < 1 << 20, "it is packed with its holes");
            let mut files = Files::new(&tar[..]);
            let mut file = files.next().unwrap().unwrap();
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert!(file.is_file() && read == content, "{format}");
            assert!(files.next().unwrap().is_none());
        }
    }

    #[test]
    fn what_is_cut_off_fails() {
        let tar = archive(&[("a", &[1; 2000])]);
        let mut files = Files::new(&tar[..1500]);
        let mut file = files.next().unwrap().unwrap();
        assert!(file.read_to_end(&mut Vec::new()).is_err());
    }
}
