//! Control groups, where they are delegated to whoever runs the tests: they hold the limits, stop everything for a checkpoint, and
//! go with their sandbox.

use std::fs;
use std::path::{Path, PathBuf};

use blink_core::{CheckpointOptions, Command, Consistency, Session};

use crate::inside::Inside as _;
use crate::support::{blink, ok};

/// Fills 1 GiB that no process has for itself, in parts, and keeps it.
const HOARD: &str = "
import mmap, time
kept = mmap.mmap(-1, 1 << 30)
for part in range(0, 1 << 30, 1 << 20): kept[part:part + (1 << 20)] = b'x' * (1 << 20)
print('kept', flush=True)
time.sleep(100)";

/// Writes each number to one file and then to another.
const COUNT: &str = "
import os
first, second = (os.open(f'/var/{name}', os.O_CREAT | os.O_WRONLY) for name in ('first', 'second'))
number = 0
while True:
    number += 1
    os.pwrite(first, b'%020d' % number, 0)
    os.pwrite(second, b'%020d' % number, 0)";

fn groups_beneath(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            match entry.file_name().to_str() {
                Some(name) if name.starts_with("blink-") => found.push(entry.path()),
                _ => found.extend(groups_beneath(&entry.path())),
            }
        }
    }
    found
}

fn says(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file))
        .unwrap()
        .trim()
        .to_owned()
}

async fn numbers(session: &Session) -> (u64, u64) {
    let look = "cd /var; until [ -s second ]; do sleep 0.01; done; cat first; echo; cat second";
    let text = ok(session.exec(Command::shell(look)))
        .await
        .text()
        .into_owned();
    let mut lines = text.lines().map(|line| line.parse().unwrap());
    (lines.next().unwrap(), lines.next().unwrap())
}

mod needs_control_groups {
    use super::*;

    #[tokio::test]
    async fn a_group_holds_and_stops_a_session_and_goes_with_it() {
        let before = groups_beneath(Path::new("/sys/fs/cgroup"));
        let blink = blink().await;
        let session = blink.session("held").memory_mib(128).processes(64);
        let session = ok(session.open()).await;
        ok(session.exec(Command::new("true"))).await;
        let mut groups = groups_beneath(Path::new("/sys/fs/cgroup"));
        groups.retain(|group| !before.contains(group));
        let [group] = &groups[..] else {
            panic!("there are {groups:?}");
        };
        assert_eq!(says(group, "memory.max"), (128 << 20).to_string());
        assert_eq!(says(group, "pids.max"), "64");
        let output = ok(session.exec(Command::new("python3").args(["-c", HOARD]))).await;
        assert_eq!(output.status.over_limit, Some("memory"), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        // It alone is ended, and a shell that has started it goes on.
        let beside = ok(session.spawn(Command::new("sleep").arg("1000"))).await;
        let script = "python3 -c \"$1\"; code=$?; ps -e -o comm= | grep -c '^sleep$'; exit $code";
        let output = ok(session.exec(Command::shell(script).args(["sh", HOARD]))).await;
        assert_eq!(output.text(), "1\n", "{output:?}");
        assert_eq!(output.status.code, 137, "{output:?}");
        assert_eq!(output.status.over_limit, Some("memory"), "{output:?}");
        drop(beside);

        ok(session.spawn(Command::new("python3").args(["-c", COUNT]))).await;
        let mut last = numbers(&session).await;
        for name in ["one", "two"] {
            let options = CheckpointOptions::default().require_frozen();
            let made = ok(session.checkpoint_with(name, options)).await;
            assert_eq!(made.consistency, Consistency::Frozen);
            assert_eq!(says(group, "cgroup.freeze"), "0");
            let fork = ok(session.fork_from(name, format!("of-{name}"))).await;
            let (first, second) = numbers(&fork).await;
            assert!(first == second || first == second + 1, "{first} {second}");
            assert!(first >= last.0, "{first} {last:?}");
            ok(fork.remove()).await;
            // It goes on.
            let mut now = numbers(&session).await;
            while now.0 <= first {
                now = numbers(&session).await;
            }
            last = now;
        }
        ok(session.remove()).await;
        for _ in 0..500 {
            if !group.exists() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{} is left", group.display());
    }
}
