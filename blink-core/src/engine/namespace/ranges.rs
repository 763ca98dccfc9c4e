//! Ranges of users on the host: each sandbox of root has one that no other has at the same time, so that what the kernel counts
//! for a user is nobody else's.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use blink_host::withheld::Withheld;
use blink_host::{file_lock, private};
use rustix::fs::FlockOperation;

use super::userns::{ID_BASE, ID_COUNT, are_mapped};
use crate::error::{Error, Result};

/// The locks of the ranges in use, of all Blinks of this host.
const FOLDER: &str = "/run/blink/users";

/// Names other ids for the ranges: the first and the last, as in `1610612736-1879113727`.
const VARIABLE: &str = "BLINK_USER_IDS";

/// Of the ids that systemd sets aside for containers, the last 4,096 ranges; the agents have those behind them.
const DEFAULT: Span = Span {
    first: ID_BASE - 4095 * ID_COUNT,
    last: ID_BASE + 2 * ID_COUNT - 1,
};

/// Ids that are Blink's on this host: ranges of [`ID_COUNT`] for sandboxes, and one for their agents, the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    first: u32,
    last: u32,
}

/// A range that is a sandbox's for as long as the lock is held: by this, and by whoever has got its descriptor.
pub(super) struct Range {
    pub(super) base: u32,
    pub(super) agent: u32,
    pub(super) lock: Withheld,
}

impl Span {
    /// The one that the environment names, or else Blink's own.
    pub(super) fn from_environment() -> Result<Span> {
        match std::env::var_os(VARIABLE) {
            Some(text) if !text.is_empty() => {
                text.to_str().and_then(Span::parse).ok_or_else(|| {
                    Error::invalid(format!(
                        "{VARIABLE} is {text:?}, which is no span of user ids for sandboxes: give the first and the last, as in \
                         {}-{}, with at least two times {ID_COUNT} above {}",
                        DEFAULT.first,
                        DEFAULT.last,
                        ID_COUNT - 1,
                    ))
                })
            }
            _ => Ok(DEFAULT),
        }
    }

    fn parse(text: &str) -> Option<Span> {
        let (first, last) = text.split_once('-')?;
        let span = Span {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
        };
        // The last of all ids is none.
        let is_good = span.first >= ID_COUNT && span.last < u32::MAX && span.last >= span.first;
        (is_good && span.ranges() > 0).then_some(span)
    }

    /// How many there are for sandboxes: no more than there are agents.
    fn ranges(self) -> u32 {
        ((self.last - self.first + 1) / ID_COUNT)
            .saturating_sub(1)
            .min(ID_COUNT)
    }

    /// Takes one that nobody has; `None` if there is none, where they are no ids here, and where this host has no place for the
    /// locks.
    pub(super) fn take(self) -> Option<Range> {
        if !are_mapped(self.first, self.last) {
            return None;
        }
        self.take_in(Path::new(FOLDER)).ok().flatten()
    }

    fn take_in(self, folder: &Path) -> io::Result<Option<Range>> {
        // Where the last search ended: what is made after another is removed has the same range again.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(parent) = folder.parent() {
            private::make_open_folder(parent)?;
        }
        private::make_folder(folder)?;
        let ranges = self.ranges();
        let agents = self.first + ranges * ID_COUNT;
        let begin = NEXT.load(Ordering::Relaxed);
        for number in (0..ranges).map(|step| (begin % ranges + step) % ranges) {
            let base = self.first + number * ID_COUNT;
            // Disks are stored as this one's.
            if base == ID_BASE {
                continue;
            }
            let lock = Withheld::new(file_lock::open(&folder.join(base.to_string()))?);
            if rustix::fs::flock(lock.file(), FlockOperation::NonBlockingLockExclusive).is_ok() {
                NEXT.store(number, Ordering::Relaxed);
                let agent = agents + number;
                return Ok(Some(Range { base, agent, lock }));
            }
        }
        Ok(None)
    }
}

impl Range {
    pub(super) fn file(&self) -> &File {
        self.lock.file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_parsed_and_a_bad_one_is_not() {
        assert_eq!(DEFAULT.ranges(), 4096);
        let text = format!("{}-{}", DEFAULT.first, DEFAULT.last);
        assert_eq!(Span::parse(&text), Some(DEFAULT));
        assert_eq!(Span::parse("65536-196607").unwrap().ranges(), 1);
        for bad in [
            "",
            "-",
            "1",
            "65536-196606",
            "0-1000000",
            "65535-1000000",
            "200000-100000",
            "100000-4294967295",
            "100000-4294967296",
            "100000--900000",
            "a-b",
        ] {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_range_is_nobody_elses_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("run/users");
        let span = Span::parse("100000-362143").unwrap();
        let take = || span.take_in(&folder).unwrap();
        let taken: Vec<_> = (0..3).map(|_| take().unwrap()).collect();
        assert!(take().is_none());
        let mut bases: Vec<_> = taken.iter().map(|range| range.base).collect();
        bases.sort_unstable();
        assert_eq!(bases, [100_000, 165_536, 231_072]);
        let agents: Vec<_> = taken.iter().map(|range| range.agent).collect();
        assert!(
            agents
                .iter()
                .all(|agent| (296_608..362_144).contains(agent))
        );
        // By whoever has its descriptor.
        let mut taken = taken;
        let last = taken.pop().unwrap();
        let kept = last.file().try_clone().unwrap();
        let base = last.base;
        drop(last);
        assert!(take().is_none());
        drop(kept);
        assert_eq!(take().unwrap().base, base);
    }
}
