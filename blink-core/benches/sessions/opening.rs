//! Taking up a session that runs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use blink_core::Command;

use crate::measure::{Result, Samples, micros, timed};
use crate::report::Row;
use crate::setting::{Setting, exec, run};

/// Its machine runs, and nobody has it.
pub(crate) async fn a_running_session(setting: &Setting) -> Result<Vec<Row>> {
    const LIMIT: Duration = Duration::from_millis(2);
    let rounds = setting.pick(300, 20);
    let open = || setting.blink.session("warm").warm(true).open();
    exec(&open().await?, Command::new("true")).await?;
    let (mut opened, mut used, mut spawned) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..rounds {
        let start = Instant::now();
        let session = open().await?;
        opened.add(start.elapsed());
        exec(&session, Command::new("/bin/true")).await?;
        used.add(start.elapsed());
        drop(session);
        let (time, ()) = timed(|| run("/bin/true", |command| command.stdin(Stdio::null())))?;
        spawned.add(time);
    }
    let ratio = opened.ratio(&spawned);
    Ok(vec![
        Row::new("opening a running session, to handle", "p50 ≤ 2 ms")
            .reached(opened.text())
            .met(opened.median() <= LIMIT)
            .peer("a program of the host, to its end", spawned.text(), ratio)
            .note(format!("{rounds} samples, in a task of the runtime"))
            .value("p50_us", micros(opened.median()))
            .value("p99_us", micros(opened.p99())),
        Row::new("the same, to the result of a first command", "")
            .reached(used.text())
            .peer(
                "a program of the host, to its end",
                spawned.text(),
                used.ratio(&spawned),
            )
            .value("p50_us", micros(used.median())),
    ])
}
