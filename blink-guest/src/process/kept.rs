//! Processes that are over and were not released: how they ended, and the last of what they wrote.

use std::collections::{BTreeMap, VecDeque};

use super::output::Output;
use super::state::Process;

/// As many stay known; beyond that, who ended first is forgotten. A build or an agent's day of commands fits, and a list
/// of them, with whole command lines, takes some MiB.
const ENDED_LIMIT: usize = 1024;

/// Bytes of output that stay readable of all of them together; beyond that, the output of who ended first goes, and its
/// counts and its exit code stay. A few dozen processes with as much output as is kept of one, or all with 64 KiB.
const OUTPUT_LIMIT: usize = 64 << 20;

/// The processes, by their numbers and by their ends.
#[derive(Default)]
pub(super) struct Kept {
    processes: BTreeMap<u64, Process>,
    /// Their numbers, in the order of their ends.
    order: VecDeque<u64>,
    /// As `order`, those whose output is still there.
    with_output: VecDeque<u64>,
    /// What their output occupies.
    bytes: usize,
}

impl Kept {
    pub(super) fn all(&self) -> &BTreeMap<u64, Process> {
        &self.processes
    }

    pub(super) fn get(&self, id: u64) -> Option<&Process> {
        self.processes.get(&id)
    }

    /// Keeps a process, in the place of those that ended first.
    pub(super) fn add(&mut self, id: u64, mut process: Process) {
        process.outputs.iter_mut().for_each(Output::shrink);
        let bytes = occupied(&process);
        self.bytes += bytes;
        self.order.push_back(id);
        if bytes > 0 {
            self.with_output.push_back(id);
        }
        self.processes.insert(id, process);
        if self.order.len() > ENDED_LIMIT
            && let Some(&first) = self.order.front()
        {
            self.take(first);
        }
        while self.bytes > OUTPUT_LIMIT
            && let Some(first) = self.with_output.pop_front()
            && let Some(process) = self.processes.get_mut(&first)
        {
            self.bytes -= occupied(process);
            process.outputs.iter_mut().for_each(Output::forget);
        }
    }

    /// Takes a process out, because somebody attaches to it or has released it.
    pub(super) fn take(&mut self, id: u64) -> Option<Process> {
        let process = self.processes.remove(&id)?;
        self.bytes -= occupied(&process);
        self.order.retain(|known| *known != id);
        self.with_output.retain(|known| *known != id);
        Some(process)
    }
}

fn occupied(process: &Process) -> usize {
    process.outputs.iter().map(Output::capacity).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::stdin::Stdin;
    use rustix::io;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::time::Instant;

    fn over(written: usize) -> Process {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut output = Output::new(Some(reader), true, None);
        let mut left = written;
        while left > 0 {
            left -= io::write(&writer, &vec![7; left.min(4096)]).unwrap();
            output.became_readable();
            while output.read() == crate::process::output::Progress::Bytes {}
        }
        output.close();
        Process {
            pid: 0,
            marker: None,
            argv: Vec::new(),
            key: None,
            keep: true,
            released: false,
            stdin: Stdin::new(None, false),
            terminal: None,
            outputs: [output, Output::new(None, true, None)],
            reader: None,
            waiting: Vec::new(),
            started: Instant::now(),
            deadline: None,
            killed_for: None,
            ended: None,
            lingered: false,
            settled: true,
        }
    }

    #[test]
    fn who_ended_first_is_forgotten_beyond_the_limit() {
        let mut kept = Kept::default();
        let last = ENDED_LIMIT as u64 + 10;
        // The numbers say when they began.
        for id in (1..=last).rev() {
            kept.add(id, over(3));
        }
        assert_eq!(kept.all().len(), ENDED_LIMIT);
        assert!(kept.get(last - 9).is_none() && kept.get(last - 10).is_some());
        assert!(kept.get(1).is_some());
        assert_eq!(kept.bytes, ENDED_LIMIT * 4);
    }

    #[test]
    fn the_output_of_all_together_is_bounded_and_its_count_stays() {
        let mut kept = Kept::default();
        let mebibytes = OUTPUT_LIMIT as u64 >> 20;
        for id in 1..=mebibytes + 6 {
            kept.add(id, over((1 << 20) + 5));
            assert!(kept.bytes <= OUTPUT_LIMIT);
        }
        for id in 1..=mebibytes + 6 {
            let output = &kept.get(id).unwrap().outputs[0];
            let is_there = id > 6;
            assert_eq!(output.total(), (1 << 20) + 5);
            assert_eq!(
                output.peek(0, usize::MAX).1.len(),
                usize::from(is_there) << 20,
                "{id}"
            );
            assert_eq!(
                output.peek(0, 1).0,
                if is_there { 5 } else { (1 << 20) + 5 }
            );
        }
        // What goes makes room.
        for id in 1..=mebibytes + 6 {
            assert!(kept.take(id).is_some() && kept.take(id).is_none());
        }
        assert_eq!(
            (kept.bytes, kept.order.len(), kept.with_output.len()),
            (0, 0, 0)
        );
    }
}
