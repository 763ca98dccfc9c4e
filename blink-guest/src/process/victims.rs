//! Programs that the kernel has ended because there was no memory for them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How long after the kernel has ended one its parent may say so.
const MOMENT: Duration = Duration::from_secs(1);

/// Counts them, by what the kernel says of the sandbox's control group, or of a kernel that is the sandbox's own.
pub(crate) struct Victims {
    counter: File,
    counted: u64,
    /// Those of whom no program's end has told yet.
    untold: u64,
    counted_at: Instant,
}

impl Victims {
    pub(crate) fn new(counter: File) -> Victims {
        let mut victims = Victims {
            counter,
            counted: 0,
            untold: 0,
            counted_at: Instant::now(),
        };
        victims.count();
        victims.untold = 0;
        victims
    }

    /// Whether a program has ended so, itself or what a shell has started for it.
    pub(crate) fn has(&mut self, signal: Option<i32>, code: Option<i32>) -> bool {
        /// As shells tell of what was killed.
        const KILLED: i32 = 128 + libc::SIGKILL;
        self.count();
        let was_killed = signal == Some(libc::SIGKILL) || code == Some(KILLED);
        if !was_killed || self.untold == 0 || self.counted_at.elapsed() > MOMENT {
            return false;
        }
        self.untold -= 1;
        true
    }

    fn count(&mut self) {
        let counted = self.read().unwrap_or(self.counted);
        let more = counted.saturating_sub(self.counted);
        if more > 0 {
            (self.untold, self.counted_at) = (more, Instant::now());
        }
        self.counted = counted;
    }

    fn read(&self) -> Option<u64> {
        // `/proc/vmstat` has 5 KiB.
        let mut text = [0; 16 << 10];
        let length = self.counter.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_and_of_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.events");
        let has = |victims: &mut Victims, (signal, code)| victims.has(signal, code);
        let say = |count: u64| {
            std::fs::write(&path, format!("max 9\noom 3\noom_kill {count}\n")).unwrap();
        };
        let (killed, by_a_shell, exited) = ((Some(9), None), (None, Some(137)), (None, Some(0)));
        say(2);
        let mut victims = Victims::new(File::open(&path).unwrap());
        assert!(!has(&mut victims, killed));
        say(4);
        assert!(!has(&mut victims, exited));
        assert!(has(&mut victims, by_a_shell) && has(&mut victims, killed));
        assert!(!has(&mut victims, killed) && !has(&mut victims, by_a_shell));
        // One whose end nobody has told of is not another's later.
        say(5);
        assert!(!has(&mut victims, exited));
        victims.counted_at = Instant::now().checked_sub(2 * MOMENT).unwrap();
        assert!(!has(&mut victims, killed));
    }
}
