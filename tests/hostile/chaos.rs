//! Host processes that are killed at random moments of mixed work. Afterwards every session opens, every checkpoint holds what
//! it held, nothing is busy for somebody who is dead, and no process, mount, socket or folder is left.
//!
//! `BLINK_TEST_KILLS` says how many are killed (500, or 100 for an ordinary user, beside those of the command's own test), and
//! `BLINK_TEST_SEED` which moments and which work; both are printed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command as HostCommand, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use blink_core::{Blink, Command, Error, ErrorKind, Session};

use crate::inside::Inside as _;
use crate::support::{isolation, ok};

const HOME: &str = "BLINK_TEST_HOME";
const SEED: &str = "BLINK_TEST_SEED";
const KILLS: &str = "BLINK_TEST_KILLS";

/// Homes that are worked in at the same time.
const HOMES: u64 = 4;

/// A process works for so long at most.
const LONGEST_MS: u64 = 500;

/// How often everything in a home is looked at, in kills.
const CHECK_EVERY: u32 = 25;

const NAMES: [&str; 3] = ["a", "b", "c"];
const CHECKPOINTS: [&str; 3] = ["x", "y", "z"];

/// Marsaglia's xorshift: the same for the same seed.
struct Random(u64);

impl Random {
    fn of(seed: u64) -> Random {
        // It must not be zero, and small seeds are to differ.
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let index = self.below(all.len() as u64);
        all[usize::try_from(index).unwrap()]
    }
}

/// One change of the data, which is there whole or not at all: it is in one file with its sum.
fn write() -> Command {
    Command::shell(
        "cd /tmp && head -c 100000 /dev/urandom >data && sha256sum <data >sum && mkdir -p /root && \
         tar -cf /root/new data sum && sync /root/new && mv /root/new /root/all && sync /root",
    )
}

/// Fails with 9 where what is there is not what was written.
fn verify() -> Command {
    Command::shell(
        "[ -e /root/all ] || exit 0; cd /tmp && rm -f data sum && tar -xf /root/all && \
         [ \"$(sha256sum <data)\" = \"$(cat sum)\" ] || exit 9",
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by other tests"]
async fn works() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else {
        return;
    };
    let mut random = Random::of(std::env::var(SEED).unwrap().parse().unwrap());
    loop {
        if let Err(error) = work(&home, &mut random).await {
            use ErrorKind::{AlreadyExists, InvalidArgument, NotFound};
            // What an earlier process has or has not come to.
            if !matches!(error.kind(), AlreadyExists | InvalidArgument | NotFound) {
                let _ = std::fs::write(home.join("failure"), format!("{error:?}"));
                std::process::exit(1);
            }
        }
    }
}

async fn work(home: &Path, random: &mut Random) -> Result<(), Error> {
    let blink = Blink::builder()
        .home(home.join("home"))
        .isolation(isolation())
        .build()
        .await?;
    let warm = |name: &str| name == "c";
    let open = |name: &'static str| blink.session(name).warm(warm(name)).open();
    for _ in 0..random.below(6) {
        let (name, checkpoint) = (random.one_of(&NAMES), random.one_of(&CHECKPOINTS));
        let archive = home.join("archive");
        match random.below(12) {
            0 => drop(blink.run(Command::new("true")).await?),
            1 | 2 => drop(open(name).await?.exec(write()).await?),
            3 => {
                let command = Command::shell("sleep 1000 & sleep 1000");
                drop(open(name).await?.spawn(command).await?);
            }
            4 => drop(open(name).await?.checkpoint(checkpoint).await?),
            5 => open(name).await?.restore(checkpoint).await?,
            6 => {
                let other = random.one_of(&NAMES);
                if !warm(other) && !warm(name) {
                    drop(open(name).await?.fork(other).await?);
                }
            }
            7 => open(name).await?.export(&archive).await?,
            8 if archive.exists() && !warm(name) => {
                drop(blink.session(name).import(&archive).await?)
            }
            9 => open(name).await?.remove().await?,
            10 => open(name).await?.remove_checkpoint(checkpoint).await?,
            _ => open(name).await?.stop().await?,
        }
    }
    Ok(())
}

fn start(home: &Path, seed: u64) -> Child {
    HostCommand::new(std::env::current_exe().unwrap())
        .args(["--exact", "chaos::works", "--ignored", "--nocapture"])
        .env(HOME, home)
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_left_where_host_processes_are_killed_at_random() {
    let seed = number(SEED).unwrap_or_else(|| u64::from(std::process::id()));
    let many = if rustix::process::geteuid().is_root() {
        500
    } else {
        100
    };
    let kills = number(KILLS).unwrap_or(many);
    println!("{SEED}={seed} {KILLS}={kills}");
    let left = std::sync::Arc::new(AtomicU32::new(u32::try_from(kills).unwrap()));
    let homes: Vec<_> = (0..HOMES)
        .map(|number| {
            let left = left.clone();
            tokio::spawn(kill_in_one_home(Random::of(seed + number), left))
        })
        .collect();
    for home in homes {
        home.await.unwrap();
    }
}

async fn kill_in_one_home(mut random: Random, left: std::sync::Arc<AtomicU32>) {
    let home = tempfile::Builder::new()
        .prefix("blink-chaos-")
        .tempdir()
        .unwrap();
    let take = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
    };
    let mut kills = 0;
    while take().is_ok() {
        let mut child = start(home.path(), random.next());
        tokio::time::sleep(Duration::from_millis(random.below(LONGEST_MS))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let failure = std::fs::read_to_string(home.path().join("failure")).unwrap_or_default();
        assert!(failure.is_empty(), "{failure}");
        kills += 1;
        if kills % CHECK_EVERY == 0 {
            check(&home.path().join("home")).await;
        }
    }
    check(&home.path().join("home")).await;
    clear(&home.path().join("home")).await;
}

async fn open(home: &Path) -> Blink {
    ok(Blink::builder().home(home).isolation(isolation()).build()).await
}

/// Every session opens, and it and every checkpoint holds what was written.
async fn check(home: &Path) {
    let blink = open(home).await;
    for info in ok(blink.sessions()).await {
        let session = ok(blink.take_session(&info.name, Duration::from_secs(10))).await;
        whole(&session, &info.name).await;
        for checkpoint in ok(session.checkpoints()).await {
            let copy = ok(session.fork_from(&checkpoint.name, "copy")).await;
            whole(&copy, &format!("{} at {}", info.name, checkpoint.name)).await;
            ok(copy.remove()).await;
        }
        if info.name != "c" {
            ok(session.stop()).await;
        }
    }
}

async fn whole(session: &Session, name: &str) {
    let output = ok(session.exec(verify())).await;
    assert_eq!(
        output.status.code, 0,
        "{name} does not hold what was written"
    );
}

/// Removes all sessions; then nothing is left.
async fn clear(home: &Path) {
    let blink = open(home).await;
    for info in ok(blink.sessions()).await {
        ok(ok(blink.take_session(&info.name, Duration::from_secs(10)))
            .await
            .remove())
        .await;
    }
    ok(blink.prune_sessions()).await;
    drop(blink);
    for folder in ["sandboxes", "layers"] {
        let names: Vec<_> = std::fs::read_dir(home.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(names.is_empty(), "{folder}: {names:?}");
    }
    for _ in 0..500 {
        if users_of(home).is_empty() {
            return;
        }
        // What was ended last still ends.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("processes are left: {:?}", users_of(home));
}

/// Other processes that run a program of the home, have something in it open, or a mount of it.
fn users_of(home: &Path) -> Vec<String> {
    let home = home.to_str().unwrap();
    let uses = |process: &Path| {
        let links = std::fs::read_dir(process.join("fd")).into_iter().flatten();
        let mut links: Vec<_> = links.flatten().map(|link| link.path()).collect();
        links.push(process.join("exe"));
        let is_in_home = |link: &PathBuf| {
            std::fs::read_link(link).is_ok_and(|target| target.to_string_lossy().starts_with(home))
        };
        let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        links.iter().any(is_in_home) || mounts.contains(home)
    };
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .map(|process| process.path())
        .filter(|process| {
            let name = process.file_name().unwrap().to_string_lossy();
            name.bytes().all(|byte| byte.is_ascii_digit()) && name != own && uses(process)
        })
        .map(|process| {
            let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
            format!(
                "{} {}",
                process.display(),
                String::from_utf8_lossy(&command)
            )
        })
        .collect()
}
