//! Disks with many files, beside empty ones: what is done to a session must not depend on how many it has.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use blink_core::{Command, Session};

use crate::measure::{Result, Samples, micros};
use crate::report::Row;
use crate::setting::{Setting, blink_at, exec, says};

/// The most that many files may cost, beside none.
const RATIO_LIMIT: f64 = 1.3;
const RENAME_RATIO_LIMIT: f64 = 10.0;

/// Makes a folder with files in folders, a hundred in each.
const FILL: &str = "\
import os, sys
for number in range(int(sys.argv[2])):
    if number % 100 == 0:
        folder = '%s/%d' % (sys.argv[1], number // 100)
        os.makedirs(folder)
    open('%s/%d' % (folder, number), 'w').close()
";

/// How many folders are renamed after each checkpoint.
const FOLDERS: usize = 5;

/// Renames folders, and prints the nanoseconds that each took.
const RENAME: &str = "\
import os, sys, time
for number in range(int(sys.argv[3])):
    old, new = (name + str(number) for name in sys.argv[1:3])
    begun = time.perf_counter_ns()
    os.rename(old, new)
    print(time.perf_counter_ns() - begun)
";

pub(crate) async fn measure(setting: &Setting) -> Result<Vec<Row>> {
    let mut rows = many_and_none(setting).await?;
    rows.extend(renamed_after_a_checkpoint(setting).await?);
    Ok(rows)
}

async fn many_and_none(setting: &Setting) -> Result<Vec<Row>> {
    let files = setting.pick(100_000, 2_000);
    let many = blink_at(&setting.scratch("many")?).await?;
    let none = blink_at(&setting.scratch("none")?).await?;
    let (full, empty) = (
        many.session("one").open().await?,
        none.session("one").open().await?,
    );
    exec(&full, python(fill(Path::new("/files"), files))).await?;
    exec(&empty, Command::new("true")).await?;

    let idle = setting.pick(Duration::from_secs(60), Duration::from_secs(1));
    let before = (agents_time(&full).await?, agents_time(&empty).await?);
    tokio::time::sleep(idle).await;
    let share =
        |before: Duration, after: Duration| (after - before).as_secs_f64() / idle.as_secs_f64();
    let shares = (
        share(before.0, agents_time(&full).await?),
        share(before.1, agents_time(&empty).await?),
    );

    let (mut runs, mut lists, mut checkpoints) =
        (Pair::default(), Pair::default(), Pair::default());
    for _ in 0..setting.pick(30, 3) {
        for (session, blink, which) in [(&full, &many, 0), (&empty, &none, 1)] {
            session.stop().await?;
            let start = Instant::now();
            session.checkpoint("now").await?;
            checkpoints.0[which].add(start.elapsed());
            session.remove_checkpoint("now").await?;
            let start = Instant::now();
            exec(session, Command::new("true")).await?;
            runs.0[which].add(start.elapsed());
            let start = Instant::now();
            blink.sessions().await?;
            lists.0[which].add(start.elapsed());
        }
    }
    full.remove().await?;
    empty.remove().await?;
    let held = format!("{files} files");
    let row = |what: &str, pair: &Pair| {
        let [many, none] = &pair.0;
        let ratio = many.ratio(none);
        Row::new(format!("{what}: {held}"), "≤ 1.3 ×")
            .reached(many.text())
            .met(ratio <= RATIO_LIMIT)
            .peer("the same with none", none.text(), ratio)
            .value("p50_us", micros(many.median()))
    };
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    Ok(vec![
        row("start to the result of a command", &runs),
        row("list of the sessions", &lists),
        row("checkpoint, stopped", &checkpoints),
        Row::new(
            format!("the agent of an idle session, of a processor: {held}"),
            "",
        )
        .reached(percent(shares.0))
        .peer(
            "the same with none",
            percent(shares.1),
            shares.0 / shares.1.max(1e-6),
        )
        .note(format!("over {} s, to ticks of 10 ms", idle.as_secs()))
        .value("share", shares.0),
    ])
}

/// With many files, and with none.
#[derive(Default)]
struct Pair([Samples; 2]);

/// Arguments of Python.
fn fill(folder: &Path, files: usize) -> Vec<OsString> {
    vec![
        "-c".into(),
        FILL.into(),
        folder.into(),
        files.to_string().into(),
    ]
}

fn rename(folder: &Path, round: usize) -> Vec<OsString> {
    let name = |number: usize| folder.join(format!("{number}-")).into();
    let (old, new) = (name(round), name(round + 1));
    let folders = FOLDERS.to_string().into();
    vec!["-c".into(), RENAME.into(), old, new, folders]
}

fn python(arguments: Vec<OsString>) -> Command {
    Command::new("python3").args(arguments)
}

fn on_the_host(arguments: Vec<OsString>) -> Result<String> {
    let output = std::process::Command::new("python3")
        .args(arguments)
        .output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}

/// What the agent has had of a processor.
async fn agents_time(session: &Session) -> Result<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let text = says(session, Command::new("cat").arg("/proc/1/stat")).await?;
    let fields = text.rsplit_once(") ").ok_or("no process 1")?.1;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u32>);
    Ok(TICK * ticks.sum::<std::result::Result<u32, _>>()?)
}

/// Folders of the session's last checkpoint, which are in a layer beneath its disk.
async fn renamed_after_a_checkpoint(setting: &Setting) -> Result<Vec<Row>> {
    let files = setting.pick(10_000, 500);
    let session = setting.blink.session("renames").open().await?;
    let host = setting.scratch("renames")?;
    for number in 0..FOLDERS {
        let name = format!("0-{number}");
        exec(&session, python(fill(&Path::new("/").join(&name), files))).await?;
        on_the_host(fill(&host.join(name), files))?;
    }
    session.stop().await?;
    session.checkpoint("filled").await?;
    let (mut inside, mut outside) = (Samples::default(), Samples::default());
    let mut first = Samples::default();
    for round in 0..setting.pick(30, 3) {
        let renamed = python(rename(Path::new("/"), 0));
        let times = times(&says(&session, renamed).await?)?;
        first.add(times.first().copied().unwrap_or_default());
        times.into_iter().for_each(|time| inside.add(time));
        session.stop().await?;
        session.restore("filled").await?;
        let renamed = on_the_host(rename(&host, round))?;
        let times = self::times(&renamed)?;
        times.into_iter().for_each(|time| outside.add(time));
    }
    session.remove().await?;
    let ratio = inside.ratio(&outside);
    let what = format!("rename of a folder of {files} files after a checkpoint");
    Ok(vec![
        Row::new(what, "≤ 10 ×")
            .reached(inside.text())
            .met(ratio <= RENAME_RATIO_LIMIT)
            .peer("the same on the host", outside.text(), ratio)
            .note(format!(
                "{FOLDERS} folders, each once after each checkpoint; the first after a start: {}",
                first.text()
            ))
            .value("p50_us", micros(inside.median())),
    ])
}

/// What a program of Python has measured.
fn times(text: &str) -> Result<Vec<Duration>> {
    let times = text
        .lines()
        .map(|line| Ok(Duration::from_nanos(line.parse()?)));
    times.collect()
}
