//! Whether the host has memory for more sandboxes.

use std::fs;

use crate::error::{Error, ErrorKind, Result};

/// The part of the time, in percent of the last ten seconds, for which everything stood still that wanted memory: from here on,
/// work suffers from what pools keep in reserve.
const MOST_STALLED_PERCENT: f64 = 10.0;

/// The part of the memory that stays free for everybody else.
const FREE_PART: u64 = 20;

/// What stays free on a small host, in MiB.
const LEAST_FREE_MIB: u64 = 64;

/// Refuses a boot before the host suffers.
///
/// # Errors
/// `ResourceExhausted`.
pub(super) fn check() -> Result<()> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    match shortage(&read("/proc/pressure/memory"), &read("/proc/meminfo")) {
        None => Ok(()),
        Some(shortage) => Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!("the host is short of memory ({shortage}), and no sandbox is booted; free some, or make the pool smaller"),
        )
        .retryable(true)),
    }
}

/// What the kernel says of its memory, where that is too little. A kernel without pressure-stall information says nothing of it.
fn shortage(pressure: &str, memory: &str) -> Option<String> {
    let stalled = pressure
        .lines()
        .find_map(|line| line.strip_prefix("full avg10="))
        .and_then(|line| line.split(' ').next()?.parse::<f64>().ok());
    if let Some(stalled) = stalled.filter(|stalled| *stalled >= MOST_STALLED_PERCENT) {
        return Some(format!("{stalled}% of the time everything waits for it"));
    }
    let field = |name: &str| -> Option<u64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib >> 10)
    };
    let (total, available) = (field("MemTotal:")?, field("MemAvailable:")?);
    let least = (total / FREE_PART).max(LEAST_FREE_MIB);
    (available < least).then(|| format!("{available} MiB of {total} MiB are available"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: &str = "some avg10=3.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=0\n";
    const ENOUGH: &str =
        "MemTotal:       16384000 kB\nMemFree:  1 kB\nMemAvailable:    8192000 kB\n";

    #[test]
    fn only_a_shortage_is_one() {
        assert_eq!(shortage(CALM, ENOUGH), None);
        assert_eq!(shortage("", ""), None);
        let stalled = CALM.replace("0.50", "12.5");
        assert!(shortage(&stalled, ENOUGH).unwrap().contains("12.5%"));
        let little = ENOUGH.replace("8192000", "500000");
        assert_eq!(
            shortage(CALM, &little).unwrap(),
            "488 MiB of 16000 MiB are available"
        );
    }
}
