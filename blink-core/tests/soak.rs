//! Sandboxes and sessions, made and removed many times over: the process and its machine end as they began.
//!
//! `BLINK_SOAK_CYCLES` says how often; `make soak` has the whole number. `BLINK_TEST_ENGINE` names the engine, and
//! `BLINK_SOAK_REPORT` a file to write the outcome to.

#[path = "../../tests/common/inside.rs"]
mod inside;
use crate::inside::Inside as _;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use blink_core::{Blink, Command, IsolationChoice};

/// Before it is counted: what is made once for a home or a process is there then.
const WARM_UP: u32 = 20;

/// Every so many cycles have a session, with a checkpoint and a fork, beside the sandbox.
const SESSION_EVERY: u32 = 10;

/// So that who waits sees that it goes on.
const TELL_EVERY: u32 = 10;

/// What an allocator keeps more at one time than at another. Ten thousand times a forgotten page would be ten times this.
const MEMORY_SLACK_BYTES: u64 = 4 << 20;

/// What ends after its owner has gone, ends within this.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

struct Engine {
    name: &'static str,
    isolation: IsolationChoice,
    cycles: u32,
}

fn engine() -> Engine {
    match std::env::var("BLINK_TEST_ENGINE").as_deref() {
        Err(_) | Ok("namespace") => Engine {
            name: "namespace",
            isolation: IsolationChoice::Namespace,
            cycles: 500,
        },
        Ok("microvm") => Engine {
            name: "microvm",
            isolation: IsolationChoice::Microvm,
            cycles: 100,
        },
        Ok(other) => panic!("BLINK_TEST_ENGINE names {other:?}, which is no engine"),
    }
}

/// What a leak would show in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    open_files: usize,
    /// Children of this process, and others that were started with something of the home.
    processes: usize,
    /// Mounts that this process sees.
    mounts: usize,
    /// What is on the disk, in the home.
    files: usize,
    disk_bytes: u64,
    memory_bytes: u64,
}

impl Held {
    fn now(home: &Path) -> Held {
        let (files, disk_bytes) = disk(home);
        Held {
            open_files: entries("/proc/self/fd"),
            processes: processes(home),
            mounts: read("/proc/self/mountinfo").lines().count(),
            files,
            disk_bytes,
            memory_bytes: memory_bytes(),
        }
    }

    fn is_no_more_than(&self, before: &Held) -> bool {
        let memory_bytes = before.memory_bytes;
        let as_before = Held {
            memory_bytes,
            ..self.clone()
        };
        as_before == *before && self.memory_bytes <= memory_bytes + MEMORY_SLACK_BYTES
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn entries(path: impl AsRef<Path>) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

fn disk(folder: &Path) -> (usize, u64) {
    use std::os::unix::fs::MetadataExt;
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        files += 1;
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            let (below_files, below_bytes) = disk(&path);
            files += below_files;
            bytes += below_bytes;
        }
    }
    (files, bytes)
}

fn processes(home: &Path) -> usize {
    let home = home.as_os_str().as_encoded_bytes();
    let own = std::process::id().to_string();
    let is_one = |folder: &Path| {
        let parent = std::fs::read_to_string(folder.join("stat")).is_ok_and(|stat| {
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
            fields.nth(2) == Some(&own)
        });
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        parent || line.windows(home.len()).any(|part| part == home)
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| is_one(&entry.path())).count()
}

/// What is the process's own: pages of files come and go.
fn memory_bytes() -> u64 {
    let status = read("/proc/self/status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

async fn cycles(engine: &Engine, home: &Path, count: u32) {
    let blink = Blink::builder()
        .home(home)
        .isolation(engine.isolation)
        .build()
        .await
        .unwrap();
    for cycle in 0..count {
        if cycle % TELL_EVERY == 0 {
            println!("{cycle} of {count}");
        }
        let text = cycle.to_string();
        let sandbox = blink.sandbox().memory_mib(512).create().await.unwrap();
        let output = sandbox.exec(Command::new("echo").arg(&text)).await.unwrap();
        assert_eq!(output.text().trim_end(), text);
        sandbox.remove().await.unwrap();
        if cycle % SESSION_EVERY == 0 {
            let session = blink.session("one").memory_mib(512).open().await.unwrap();
            let write = Command::shell(format!("echo {cycle} >/tmp/file; sync"));
            session.exec(write).await.unwrap();
            session.stop().await.unwrap();
            session.checkpoint("kept").await.unwrap();
            let fork = session.fork("two").await.unwrap();
            session.remove().await.unwrap();
            let output = fork.exec(Command::new("cat").arg("/tmp/file")).await;
            assert_eq!(output.unwrap().text().trim_end(), text);
            fork.remove().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_cycles_end_as_they_began() {
    let engine = engine();
    let count = match std::env::var("BLINK_SOAK_CYCLES") {
        Ok(count) => count.parse().unwrap(),
        Err(_) => engine.cycles,
    };
    let folder = tempfile::tempdir().unwrap();
    cycles(&engine, folder.path(), WARM_UP).await;
    let before = settled(folder.path(), |_| false).await;
    let started = Instant::now();
    cycles(&engine, folder.path(), count).await;
    let took = started.elapsed();
    let after = settled(folder.path(), |now| now.is_no_more_than(&before)).await;
    let report = report(&engine, count, took, &before, &after);
    println!("{report}");
    if let Some(path) = std::env::var_os("BLINK_SOAK_REPORT") {
        std::fs::write(path, &report).unwrap();
    }
    assert!(after.is_no_more_than(&before), "{report}");
}

/// What is held once it is as it should be, or does not change any more for long.
async fn settled(home: &Path, is_good: impl Fn(&Held) -> bool) -> Held {
    const LOOK_EVERY: Duration = Duration::from_millis(200);
    const STEADY_LOOKS: u32 = 15;
    let deadline = Instant::now() + SETTLES_WITHIN;
    let (mut last, mut steady) = (Held::now(home), 0);
    while !is_good(&last) && steady < STEADY_LOOKS && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Held::now(home);
        steady = if now == last { steady + 1 } else { 0 };
        last = now;
    }
    last
}

fn report(engine: &Engine, count: u32, took: Duration, before: &Held, after: &Held) -> String {
    let mut text = format!(
        "# {count} cycles of create, exec, remove ({})\n\n\
         Every {SESSION_EVERY}th has a session beside the sandbox, with a checkpoint and a fork. They took {:.0} s, \
         {:.1} ms each.\n\n\
         | held | before | after |\n|---|---:|---:|\n",
        engine.name,
        took.as_secs_f64(),
        took.as_secs_f64() * 1e3 / f64::from(count),
    );
    let rows = [
        (
            "open files",
            before.open_files as u64,
            after.open_files as u64,
        ),
        ("processes", before.processes as u64, after.processes as u64),
        ("mounts", before.mounts as u64, after.mounts as u64),
        ("files in the home", before.files as u64, after.files as u64),
        (
            "disk of the home, bytes",
            before.disk_bytes,
            after.disk_bytes,
        ),
        (
            "memory (anonymous), bytes",
            before.memory_bytes,
            after.memory_bytes,
        ),
    ];
    for (what, before, after) in rows {
        let _ = writeln!(text, "| {what} | {before} | {after} |");
    }
    text
}
