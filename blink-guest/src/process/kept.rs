//! Processes that are over and were not released: how they ended, and the last of what they wrote.

use std::collections::{BTreeMap, VecDeque};

use super::output::Output;
use super::state::Process;

/// As many stay known; beyond that, who ended first is forgotten. A build or an agent's day of commands fits, and a list
/// of them, with whole command lines, takes some MiB.
pub(super) const ENDED_LIMIT: usize = 1024;

/// Bytes of output that stay readable of all of them together; beyond that, the output of who ended first goes, and its
/// counts and its exit code stay. A few dozen processes with as much output as is kept of one, or all with 64 KiB.
pub(super) const OUTPUT_LIMIT: usize = 64 << 20;

/// The processes, by their numbers and by their ends.
#[derive(Default)]
pub(super) struct Kept {
    processes: BTreeMap<u64, Entry>,
    /// Numbers in the order of the ends; those that are not among the processes any more are passed over.
    order: VecDeque<(u64, u64)>,
    /// As `order`, without those whose output is gone.
    with_output: VecDeque<(u64, u64)>,
    bytes: usize,
    /// Tells one stay of a process from another.
    stays: u64,
}

struct Entry {
    process: Process,
    bytes: usize,
    stay: u64,
}

impl Kept {
    pub(super) fn get(&self, id: u64) -> Option<&Process> {
        self.processes.get(&id).map(|entry| &entry.process)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Process)> {
        self.processes
            .iter()
            .map(|(&id, entry)| (id, &entry.process))
    }

    /// Keeps a process, in the place of those that ended first.
    pub(super) fn add(&mut self, id: u64, mut process: Process) {
        let bytes = process.outputs.iter_mut().map(Output::shrink).sum();
        self.stays += 1;
        let stay = self.stays;
        self.bytes += bytes;
        self.order.push_back((id, stay));
        if bytes > 0 {
            self.with_output.push_back((id, stay));
        }
        let entry = Entry {
            process,
            bytes,
            stay,
        };
        self.processes.insert(id, entry);
        while self.processes.len() > ENDED_LIMIT {
            let Some((id, stay)) = self.order.pop_front() else {
                break;
            };
            if self.stays_on(id, stay) {
                self.take(id);
            }
        }
        while self.bytes > OUTPUT_LIMIT {
            let Some((id, stay)) = self.with_output.pop_front() else {
                break;
            };
            if self.stays_on(id, stay)
                && let Some(entry) = self.processes.get_mut(&id)
            {
                entry.process.outputs.iter_mut().for_each(Output::forget);
                self.bytes -= std::mem::take(&mut entry.bytes);
            }
        }
        self.pass_over();
    }

    /// Takes a process out, because somebody attaches to it or has released it.
    pub(super) fn take(&mut self, id: u64) -> Option<Process> {
        let entry = self.processes.remove(&id)?;
        self.bytes -= entry.bytes;
        Some(entry.process)
    }

    fn stays_on(&self, id: u64, stay: u64) -> bool {
        self.processes
            .get(&id)
            .is_some_and(|entry| entry.stay == stay)
    }

    /// Who attaches and leaves again and again must not make the orders longer than what they order.
    fn pass_over(&mut self) {
        let most = 2 * ENDED_LIMIT;
        if self.order.len() <= most && self.with_output.len() <= most {
            return;
        }
        let processes = &self.processes;
        let there = |(id, stay): &(u64, u64)| {
            processes.get(id).is_some_and(|entry| entry.stay == *stay)
        };
        self.order.retain(there);
        self.with_output.retain(there);
    }
}
