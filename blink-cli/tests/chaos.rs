//! Commands that are killed at random moments, several in one home. Afterwards every session opens, every checkpoint holds
//! what it held, and nothing is left. The library's own test of the kind is `tests/hostile/chaos.rs`.
//!
//! `BLINK_TEST_KILLS` says how many are killed, and `BLINK_TEST_SEED` which moments and which commands; both are printed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const KILLS: u64 = 500;

/// Homes that are worked in at the same time, each by two commands at a time.
const HOMES: u64 = 2;
const AT_A_TIME: u64 = 2;

/// A command is left alone for so long at most.
const LONGEST_MS: u64 = 350;

const NAMES: [&str; 3] = ["a", "b", "warm"];
const CHECKPOINTS: [&str; 2] = ["x", "y"];

/// The data with its sum, in one file that is there whole or not at all.
const WRITE: &str = "cd /tmp && head -c 100000 /dev/urandom >data && sha256sum <data >sum && mkdir -p /root && \
                     tar -cf /root/new data sum && sync /root/new && mv /root/new /root/all && sync /root";
const VERIFY: &str = "[ -e /root/all ] || exit 0; cd /tmp && rm -f data sum && tar -xf /root/all && \
                      [ \"$(sha256sum <data)\" = \"$(cat sum)\" ] || exit 9";

/// Marsaglia's xorshift: the same for the same seed.
struct Random(u64);

impl Random {
    fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let told = std::env::var(variable).ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn nothing_is_lost_or_left_where_commands_are_killed_at_random() {
    let seed = number("BLINK_TEST_SEED", std::process::id().into());
    let kills = number("BLINK_TEST_KILLS", KILLS);
    println!("BLINK_TEST_SEED={seed} BLINK_TEST_KILLS={kills}");
    std::thread::scope(|scope| {
        for number in 0..HOMES {
            scope.spawn(move || kill_in_one_home(seed + number, kills / HOMES));
        }
    });
}

struct Home(tempfile::TempDir);

impl Home {
    fn path(&self) -> PathBuf {
        self.0.path().join("home")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blink"));
        command
            .args(arguments)
            .env("BLINK_HOME", self.path())
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Some command; what it needs may not be there.
    fn some_command(&self, random: &mut Random) -> Command {
        let (name, checkpoint) = (random.one_of(&NAMES), random.one_of(&CHECKPOINTS));
        let host = ["--isolation", "namespace", "--image", "host"];
        let mut open = vec!["session", "open", "--name", name];
        open.extend(host);
        if name == "warm" {
            open.push("--warm");
        }
        let run = [
            "run",
            "--isolation",
            "namespace",
            "--image",
            "host",
            "--",
            "true",
        ];
        let arguments: &[&str] = match random.below(12) {
            0 => &run,
            1 | 2 => &open,
            3 | 4 => &["session", "run", "--name", name, WRITE],
            5 => &["session", "spawn", "--name", "warm", "--", "sleep", "1000"],
            6 => &[
                "session",
                "checkpoint",
                "--name",
                name,
                "--snapshot",
                checkpoint,
            ],
            7 => &[
                "session",
                "restore",
                "--name",
                name,
                "--snapshot",
                checkpoint,
            ],
            8 => &["session", "fork", "--name", "a", "--as", "b"],
            9 => &["session", "export", "--name", name, "--output", "archive"],
            10 => &["session", "rm", "--name", name],
            _ => &[
                "session",
                "import",
                "--name",
                "b",
                "--isolation",
                "namespace",
                "archive",
            ],
        };
        self.command(arguments)
    }

    /// Every session opens, and it and every checkpoint holds what was written.
    fn check(&self) {
        for name in self.sessions() {
            self.succeeds(&["session", "run", "--name", &name, "--", "sh", "-c", VERIFY]);
            let listed = self.succeeds(&["session", "list", "--json", "--name", &name]);
            for checkpoint in names_in(&listed) {
                let fork = ["--name", &name, "--snapshot", &checkpoint, "--as", "copy"];
                self.succeeds(&[&["session", "fork"][..], &fork].concat());
                self.succeeds(&["session", "run", "--name", "copy", "--", "sh", "-c", VERIFY]);
                self.succeeds(&["session", "rm", "--force", "--name", "copy"]);
            }
        }
    }

    fn sessions(&self) -> Vec<String> {
        names_in(&self.succeeds(&["session", "ls", "--json"]))
    }

    /// Removes all sessions; then nothing is left.
    fn clear(&self) {
        for name in self.sessions() {
            self.succeeds(&["session", "rm", "--force", "--name", &name]);
        }
        self.succeeds(&["session", "prune"]);
        for folder in ["sandboxes", "layers"] {
            let entries = std::fs::read_dir(self.path().join(folder)).unwrap();
            let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            assert!(names.is_empty(), "{folder}: {names:?}");
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = users_of(&self.path());
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "processes are left: {left:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn names_in(listed: &str) -> Vec<String> {
    let all: Value = serde_json::from_str(listed).unwrap();
    let names = all.as_array().unwrap().iter();
    names
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

fn kill_in_one_home(seed: u64, kills: u64) {
    const CHECK_EVERY: u64 = 60;
    let home = Home(tempfile::tempdir().unwrap());
    let mut random = Random::of(seed);
    for round in 1..=kills / AT_A_TIME {
        let commands: Vec<_> = (0..AT_A_TIME)
            .map(|_| home.some_command(&mut random))
            .collect();
        let mut children: Vec<_> = commands
            .into_iter()
            .map(|mut command| {
                let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
                silent.spawn().unwrap()
            })
            .collect();
        for child in &mut children {
            std::thread::sleep(Duration::from_millis(random.below(LONGEST_MS)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if round % CHECK_EVERY == 0 {
            home.check();
        }
    }
    home.check();
    home.clear();
}

/// Processes that run a program of the home, have something in it open, or a mount of it.
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
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .map(|process| process.path())
        .filter(|process| {
            let name = process.file_name().unwrap().to_string_lossy();
            name.bytes().all(|byte| byte.is_ascii_digit()) && uses(process)
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
