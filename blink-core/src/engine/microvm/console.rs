//! What a machine has printed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Enough for a kernel's last words.
const TAIL_BYTES: u64 = 16 << 10;

/// What of them goes into a message.
const SHOWN_BYTES: usize = 2048;

/// Where a machine's kernel prints, in the engine's folder for the machine.
pub(super) fn path(machine: &Path) -> PathBuf {
    machine.join("logs/console.log")
}

/// The last that a machine's kernel and its programs have printed, without the engine's own chatter.
pub(super) fn tail(machine: &Path) -> String {
    let text = read_tail(&path(machine)).unwrap_or_default();
    let text = readable(&String::from_utf8_lossy(&text));
    let lines: Vec<&str> = text.lines().filter(|line| !is_chatter(line)).collect();
    let mut first = lines.len();
    let mut bytes = 0;
    while first > 0 && bytes + lines[first - 1].len() < SHOWN_BYTES {
        first -= 1;
        bytes += lines[first].len() + 1;
    }
    lines[first..].join("\n").trim().to_owned()
}

fn read_tail(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Without colours and what else a terminal would act on: the guest has written it.
fn readable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' && letters.peek() == Some(&'[') {
            letters.next();
            while letters
                .next()
                .is_some_and(|letter| !letter.is_ascii_alphabetic())
            {}
        } else if letter == '\n' || !letter.is_control() {
            shown.push(letter);
        }
    }
    shown
}

/// The engine's agent tells everything that it does.
fn is_chatter(line: &str) -> bool {
    const LEVELS: [&str; 4] = [" INFO ", " DEBUG ", " TRACE ", " WARN "];
    const SPEAKERS: [&str; 3] = ["boxlite_guest", "libcontainer", "libcgroups"];
    let told = LEVELS.iter().any(|level| line.contains(level))
        && SPEAKERS.iter().any(|speaker| line.contains(speaker));
    told || line.starts_with("[guest]") || line.starts_with("[zygote]") || line.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_what_the_kernel_said_last() {
        let machine = tempfile::tempdir().unwrap();
        std::fs::create_dir(machine.path().join("logs")).unwrap();
        let mut text = "old\n".repeat(10_000);
        text.push_str("\u{1b}[2m2026-11-25T06:58:37Z\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m boxlite_guest::service: Mounted\n");
        text.push_str("[   12.1] Kernel panic - not syncing: \u{7}Attempted to kill init!\r\n");
        std::fs::write(path(machine.path()), text).unwrap();
        let tail = tail(machine.path());
        assert!(
            tail.ends_with("[   12.1] Kernel panic - not syncing: Attempted to kill init!"),
            "{tail}"
        );
        assert!(
            tail.len() <= SHOWN_BYTES && !tail.contains("boxlite") && !tail.contains('\u{1b}'),
            "{tail}"
        );
        assert_eq!(super::tail(Path::new("/nonexistent")), "");
    }
}
