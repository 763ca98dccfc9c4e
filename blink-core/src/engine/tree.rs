//! A machine's processes on the host: the one that an engine has started, and what that has started.

use std::fs;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long a pause may take: a thread that the kernel holds longer waits for something that is no disk.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks, at first and at last: what goes on for a moment needs longer on a busy machine.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(64)];

/// A process with its start: numbers are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tree {
    pid: i32,
    started: u64,
}

impl Tree {
    pub(crate) fn of(pid: i32) -> Option<Tree> {
        let started = blink_host::start_of(pid)?;
        Some(Tree { pid, started })
    }

    pub(crate) fn is_alive(self) -> bool {
        Tree::of(self.pid) == Some(self)
    }

    /// A handle that says when the process has ended.
    pub(crate) fn handle(self) -> Option<OwnedFd> {
        // Held first, then compared: the number cannot change hands in between.
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::NONBLOCK).ok()?;
        self.is_alive().then_some(handle)
    }

    /// Ends the process. Where it is the first of its namespace, the kernel ends the others.
    pub(crate) fn kill_alone(self) {
        self.signal(Signal::KILL);
    }

    /// Ends the process and all that it has started.
    pub(crate) fn kill(self) {
        // From the leaves up, so that none of them is lost to another parent.
        for process in self.all().into_iter().rev() {
            process.signal(Signal::KILL);
        }
    }

    /// Stops the process and all that it has started, until what is returned is dropped.
    ///
    /// Programs can let each other go on for as long as one of them runs, so stop signals are sent until two looks in a row
    /// have found nobody that moves: then there is nobody left to let others go on.
    pub(crate) fn pause(self) -> Paused {
        let mut paused = Paused {
            root: self,
            stopped: Vec::new(),
            is_still: false,
        };
        let deadline = Instant::now() + STOPS_WITHIN;
        let mut seen_still = false;
        let [mut interval, longest] = LOOK_EVERY;
        while Instant::now() < deadline {
            let moving = self.moving();
            if moving.is_empty() {
                if seen_still {
                    paused.is_still = true;
                    return paused;
                }
                seen_still = true;
                continue;
            }
            seen_still = false;
            for process in moving {
                // A parent that waits in the kernel for its child to run a program stops only after that.
                if process.waits_in_the_kernel() {
                    let children = children(process.pid).into_iter();
                    let stopped = children.filter(|child| paused.stopped.contains(child));
                    stopped.for_each(|child| child.signal(Signal::CONT));
                }
                process.signal(Signal::STOP);
                // What was stopped by somebody else stays so.
                if !paused.stopped.contains(&process) {
                    paused.stopped.push(process);
                }
            }
            // A thread stops once it is back from what it does in the kernel, which may be running a machine.
            thread::sleep(interval);
            interval = longest.min(interval * 2);
        }
        paused
    }

    /// Those that have not stopped.
    fn moving(self) -> Vec<Tree> {
        let all = self.all().into_iter();
        all.filter(|process| !process.is_stopped()).collect()
    }

    /// Lets the process and all that it has started go on, where whoever has stopped them is gone.
    pub(crate) fn resume(self) {
        for process in self.all().into_iter().rev() {
            process.signal(Signal::CONT);
        }
    }

    /// The first process of it that runs a program.
    #[cfg(feature = "microvm")]
    pub(crate) fn running(self, program: &std::path::Path) -> Option<Tree> {
        let runs = |process: &Tree| {
            fs::read_link(format!("/proc/{}/exe", process.pid)).is_ok_and(|found| found == program)
        };
        self.all().into_iter().find(runs)
    }

    pub(crate) fn is_stopped(self) -> bool {
        !(self.thread_states()).any(|state| matches!(state, 'R' | 'S' | 'D'))
    }

    /// Whether one of its threads is where no signal reaches it.
    fn waits_in_the_kernel(self) -> bool {
        self.thread_states().any(|state| state == 'D')
    }

    /// The letters that the kernel has for what they do.
    fn thread_states(self) -> impl Iterator<Item = char> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid));
        threads
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|thread| {
                let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
                stat.rsplit_once(')')?.1.trim_start().chars().next()
            })
    }

    fn signal(self, signal: Signal) {
        if let Some(handle) = self.handle() {
            let _ = pidfd_send_signal(&handle, signal);
        }
    }

    /// Itself and all that it has started, from the root down.
    fn all(self) -> Vec<Tree> {
        let mut all = vec![self];
        let mut next = 0;
        while let Some(parent) = all.get(next) {
            all.extend(children(parent.pid));
            next += 1;
        }
        all
    }
}

/// Processes that go on when this is dropped.
pub(crate) struct Paused {
    root: Tree,
    stopped: Vec<Tree>,
    is_still: bool,
}

impl Paused {
    /// Whether all of them have stopped, and are stopped now: nobody inside can have let another go on in between, as
    /// nobody ran.
    pub(crate) fn is_still(&self) -> bool {
        self.is_still && self.root.moving().is_empty()
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        for process in self.stopped.iter().rev() {
            process.signal(Signal::CONT);
        }
    }
}

fn children(pid: i32) -> Vec<Tree> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_ascii_whitespace().map(str::parse);
            pids.flatten().filter_map(Tree::of).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_ends_with_all_that_it_started() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sh -c 'sleep 1000; :' & wait; :"])
            .spawn()
            .unwrap();
        let tree = Tree::of(i32::try_from(child.id()).unwrap()).unwrap();
        let grandchild = loop {
            if let Some(found) = children(tree.pid)
                .into_iter()
                .flat_map(|child| children(child.pid))
                .next()
            {
                break found;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        assert!(tree.is_alive() && grandchild.is_alive());
        let paused = tree.pause();
        assert!(tree.is_stopped() && grandchild.is_stopped());
        drop(paused);
        while tree.is_stopped() || grandchild.is_stopped() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        tree.kill();
        child.wait().unwrap();
        while grandchild.is_alive() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(!tree.is_alive() && tree.handle().is_none());
    }
}
