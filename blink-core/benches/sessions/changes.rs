//! Checkpoints, restoring and forks of a large disk of which little has changed.

use std::path::Path;
use std::time::{Duration, Instant};

use blink_core::{Command, Session};
use rusqlite::Connection;

use crate::measure::{Result, Samples, micros, timed};
use crate::report::Row;
use crate::setting::{LARGE, Setting, exec, occupied, run};

const LIMIT: Duration = Duration::from_millis(20);
const RESULT_LIMIT: Duration = Duration::from_millis(40);
const MIB: f64 = (1 << 20) as f64;
const DISK_LIMIT_MIB: f64 = 1.2;

#[derive(Default)]
struct Times {
    checkpoint: Samples,
    restore: Samples,
    fork: Samples,
    first_result: Samples,
    transaction: Samples,
    /// The most that one of them took of the disk, in bytes.
    checkpoint_bytes: i128,
    restore_bytes: i128,
}

pub(crate) async fn of_a_large_disk(setting: &Setting) -> Result<Vec<Row>> {
    let rounds = setting.pick(20, 3);
    let session = setting.large().await?;
    let layers = setting.home().join("layers");
    let floor = Floor::new(&setting.scratch("floor")?)?;
    let mut times = Times::default();
    for _ in 0..rounds {
        one_round(&session, &layers, &mut times).await?;
        times.transaction.add(floor.transaction()?);
    }
    drop(session);
    let copied = copied(setting, &layers)?;
    let held = format!("{} MiB of which 1 MiB changed", setting.large_mib());
    let row = |what: &str, target: &str, samples: &Samples, limit: Duration| {
        Row::new(format!("{what}: {held}"), target)
            .reached(samples.text())
            .met(samples.median() <= limit)
            .peer("a copy of the disk", copied.text(), samples.ratio(&copied))
            .peer(
                "one transaction of SQLite",
                times.transaction.text(),
                samples.ratio(&times.transaction),
            )
            .value("p50_us", micros(samples.median()))
            .value("p99_us", micros(samples.p99()))
    };
    let disk = |what: &str, bytes: i128| {
        let mib = bytes as f64 / MIB;
        Row::new(format!("{what}: what it takes of the disk"), "≤ 1.2 MiB")
            .reached(format!("{mib:.2} MiB"))
            .met(mib <= DISK_LIMIT_MIB)
            .note("the most of all rounds, the change of 1 MiB included")
            .value("mib", mib)
    };
    Ok(vec![
        row("checkpoint, stopped", "≤ 20 ms", &times.checkpoint, LIMIT)
            .note(format!("{rounds} samples; copies with `cp --archive`")),
        disk("checkpoint", times.checkpoint_bytes),
        row("restore, stopped", "≤ 20 ms", &times.restore, LIMIT)
            .note("the layers that nobody needs any more are removed in that time"),
        disk("restore", times.restore_bytes),
        row("fork, stopped", "≤ 20 ms", &times.fork, LIMIT),
        row(
            "fork to the result of a first command",
            "≤ 40 ms",
            &times.first_result,
            RESULT_LIMIT,
        ),
    ])
}

async fn one_round(session: &Session, layers: &Path, times: &mut Times) -> Result<()> {
    let before = occupied(layers)?;
    let script = "head -c 1048576 /dev/urandom > /data/changed && sync /data/changed";
    exec(session, Command::shell(script)).await?;
    session.stop().await?;

    let start = Instant::now();
    session.checkpoint("changed").await?;
    times.checkpoint.add(start.elapsed());
    let taken = i128::from(occupied(layers)?) - i128::from(before);
    times.checkpoint_bytes = times.checkpoint_bytes.max(taken);

    let start = Instant::now();
    let fork = session.fork("fork").await?;
    times.fork.add(start.elapsed());
    exec(&fork, Command::new("/bin/true")).await?;
    times.first_result.add(start.elapsed());
    fork.remove().await?;

    let before = occupied(layers)?;
    let start = Instant::now();
    session.restore("filled").await?;
    times.restore.add(start.elapsed());
    let taken = i128::from(occupied(layers)?) - i128::from(before);
    times.restore_bytes = times.restore_bytes.max(taken);
    Ok(session.remove_checkpoint("changed").await?)
}

/// What a copy of the whole disk takes, as it would be without layers.
fn copied(setting: &Setting, layers: &Path) -> Result<Samples> {
    let target = setting.scratch("copies")?;
    let mut samples = Samples::default();
    for _ in 0..setting.pick(3, 1) {
        let copy = target.join(LARGE);
        let (time, ()) = timed(|| {
            run("cp", |command| {
                command
                    .args(["--archive", "--reflink=auto"])
                    .args([layers, &copy])
            })
        })?;
        samples.add(time);
        std::fs::remove_dir_all(copy)?;
    }
    Ok(samples)
}

/// A database like the registry: each change of a session is one transaction that must be on the disk.
struct Floor {
    database: Connection,
}

impl Floor {
    fn new(folder: &Path) -> Result<Floor> {
        let database = Connection::open(folder.join("floor.db"))?;
        database.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE rows (text TEXT);",
        )?;
        Ok(Floor { database })
    }

    fn transaction(&self) -> Result<Duration> {
        let (time, _) = timed(|| {
            Ok(self
                .database
                .execute("INSERT INTO rows VALUES ('a checkpoint')", [])?)
        })?;
        Ok(time)
    }
}
