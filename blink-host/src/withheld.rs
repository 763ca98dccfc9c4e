//! Open files that a process forked from this one does not get.
//!
//! A lock is held as long as anybody has its open file. What Blink starts gets none of its descriptors; a child that the
//! embedding program forks has all of them, and would hold the locks of an owner that is gone. So each such file is replaced
//! by an empty one in the child, before `fork` returns there: the descriptor's number stays taken, and what the child does
//! with it, or lets go of, changes nothing here. A child that is made without the C library's `fork` is not seen.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The kernel's default limit for a process (`fs.nr_open`). A descriptor beyond it is not withheld.
const DESCRIPTORS: usize = 1 << 20;
const BITS: usize = u64::BITS as usize;

/// A bit for each descriptor that is withheld: a child can read it however its parent was interrupted, as it could no lock.
static WITHHELD: [AtomicU64; DESCRIPTORS / BITS] =
    [const { AtomicU64::new(0) }; DESCRIPTORS / BITS];
/// How many words of it were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);

/// The number of a descriptor that is withheld while this lives.
#[derive(Debug)]
pub struct Number(RawFd);

impl Number {
    /// Drop it before the descriptor is closed: the embedding program may get the same number next.
    fn new(number: RawFd) -> Number {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // SAFETY: the handler does only what a child of a process with threads may do. Where it fails there was no memory
            // for it, and children have the files as they would without this.
            let _ = unsafe { libc::pthread_atfork(None, None, Some(withhold)) };
        });
        if let Some((word, bit)) = place(number) {
            USED.fetch_max(word + 1, Ordering::AcqRel);
            WITHHELD[word].fetch_or(bit, Ordering::AcqRel);
        }
        Number(number)
    }

    /// The descriptor of a file that a library has opened in this process, by the file's canonical path. The names are
    /// compared and no file is asked: others of the embedding program may be on a server that does not answer.
    pub fn of(path: &Path) -> Option<Number> {
        let mut descriptors = fs::read_dir("/proc/self/fd").ok()?.flatten();
        descriptors
            .find(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path))
            .and_then(|entry| entry.file_name().to_str()?.parse().ok())
            .map(Number::new)
    }

    fn is_here(&self) -> bool {
        place(self.0).is_none_or(|(word, bit)| WITHHELD[word].load(Ordering::Acquire) & bit != 0)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if let Some((word, bit)) = place(self.0) {
            WITHHELD[word].fetch_and(!bit, Ordering::AcqRel);
        }
    }
}

/// An open file that a forked child does not get.
#[derive(Debug)]
pub struct Withheld {
    number: Number,
    file: File,
}

impl Withheld {
    /// Withholds a file from children that are forked from now on.
    pub fn new(file: File) -> Withheld {
        Withheld {
            number: Number::new(file.as_raw_fd()),
            file,
        }
    }

    /// Whether this is still the process that opened it, and not a child that was forked since.
    pub fn is_here(&self) -> bool {
        self.number.is_here()
    }

    /// The file, in the process that has opened it.
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn place(descriptor: RawFd) -> Option<(usize, u64)> {
    let descriptor = usize::try_from(descriptor).ok()?;
    (descriptor < DESCRIPTORS).then_some((descriptor / BITS, 1 << (descriptor % BITS)))
}

/// Replaces all of them, in a child that was just forked: system calls and atomics only.
extern "C" fn withhold() {
    // SAFETY: the name is a text that ends with a zero; the descriptors are this process's, and their owners go on having
    // open files under these numbers.
    unsafe {
        let mut empty = -1;
        for (word, bits) in WITHHELD
            .iter()
            .enumerate()
            .take(USED.load(Ordering::Acquire))
        {
            let bits = bits.swap(0, Ordering::AcqRel);
            for bit in (0..BITS).filter(|bit| bits & (1 << bit) != 0) {
                let Ok(descriptor) = RawFd::try_from(word * BITS + bit) else {
                    continue;
                };
                if empty < 0 {
                    empty = libc::memfd_create(c"blink-withheld".as_ptr(), libc::MFD_CLOEXEC);
                }
                if empty < 0 || libc::dup3(empty, descriptor, libc::O_CLOEXEC) < 0 {
                    // No descriptor is left: rather an unused number than another's lock.
                    libc::close(descriptor);
                }
            }
        }
        if empty >= 0 {
            libc::close(empty);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_forked_child_has_an_empty_file_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "parent's").unwrap();
        let withheld = Withheld::new(File::open(&path).unwrap());
        let kept = File::open(&path).unwrap();
        // A number that no other test of this process has meanwhile.
        let high = || File::from(rustix::io::fcntl_dupfd_cloexec(&kept, 900).unwrap());
        let closed = Withheld::new(high());
        let number = closed.file().as_raw_fd();
        drop(closed);
        // Whatever gets the number next is not withheld.
        let kept = high();
        assert_eq!(kept.as_raw_fd(), number);
        let (mut forked, theirs) = std::io::pipe().unwrap();
        // SAFETY: the child only says that it is there, and sleeps.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: as above.
                unsafe {
                    libc::write(theirs.as_raw_fd(), [0_u8].as_ptr().cast(), 1);
                    libc::pause();
                }
            }
        }
        forked.read_exact(&mut [0]).unwrap();
        assert!(withheld.is_here());
        let target = |file: &File| {
            fs::read_link(format!("/proc/{child}/fd/{}", file.as_raw_fd()))
                .unwrap()
                .to_string_lossy()
                .into_owned()
        };
        let (there, other) = (target(withheld.file()), target(&kept));
        let found = Number::of(&path).unwrap();
        assert!(
            fs::read_link(format!("/proc/self/fd/{}", found.0)).unwrap() == path,
            "{found:?}"
        );
        // SAFETY: the child is this test's.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        assert!(there.contains("memfd:blink-withheld"), "{there}");
        assert_eq!(other, path.to_string_lossy());
    }
}
