//! Many commands at once, beside a few at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blink_core::{Command, Sandbox};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::measure::{Rates, Result};
use crate::report::Row;
use crate::setting::Setting;

const PROGRAM: &str = "/bin/true";

/// What a program that minds its number has in flight.
const IN_FLIGHT: usize = 64;

const TARGET: f64 = 0.8;

/// All commands at once on one sandbox, and on several.
pub(crate) async fn bursts(setting: &Setting) -> Result<Vec<Row>> {
    let one = vec![setting.sandbox.clone()];
    let mut several = Vec::new();
    for _ in 0..setting.pick(20, 3) {
        several.push(Arc::new(setting.blink.sandbox().create().await?));
    }
    let (count, each) = setting.pick((10_000, 1_000), (500, 100));
    let rows = vec![
        burst(setting, &one, count).await?,
        burst(setting, &several, each * several.len()).await?,
    ];
    for sandbox in several {
        sandbox.remove().await?;
    }
    Ok(rows)
}

async fn burst(setting: &Setting, sandboxes: &[Arc<Sandbox>], count: usize) -> Result<Row> {
    let (mut at_once, mut in_flight) = (Rates::default(), Rates::default());
    for round in 0..=setting.pick(5, 1) {
        let few = run(sandboxes, count, IN_FLIGHT).await?;
        let all = run(sandboxes, count, count).await?;
        if round > 0 {
            in_flight.add(count as u64, few);
            at_once.add(count as u64, all);
        }
    }
    let ratio = at_once.ratio(&in_flight);
    let what = match sandboxes.len() {
        1 => format!("{count} × `exec /bin/true` at once, one sandbox"),
        many => format!(
            "{} × `exec /bin/true` at once on each of {many} sandboxes",
            count / many
        ),
    };
    let text = |rates: &Rates| format!("{:.0} by second", rates.median());
    Ok(Row::new(what, "all answered, ≥ 0.8 of 64 in flight")
        .reached(text(&at_once))
        .met(ratio >= TARGET)
        .peer("64 in flight", text(&in_flight), ratio)
        .value("at_once_per_s", at_once.median())
        .value("in_flight_per_s", in_flight.median()))
}

/// Runs so many commands, at most `limit` of them at once; an unanswered one is an error.
async fn run(sandboxes: &[Arc<Sandbox>], count: usize, limit: usize) -> Result<Duration> {
    let turns = Arc::new(Semaphore::new(limit));
    let mut calls = JoinSet::new();
    let start = Instant::now();
    for number in 0..count {
        let sandbox = sandboxes[number % sandboxes.len()].clone();
        let turns = turns.clone();
        calls.spawn(async move {
            let _turn = turns.acquire_owned().await?;
            let output = sandbox.exec(Command::new(PROGRAM)).await?;
            match output.status.success() {
                true => Ok(()),
                false => Err(format!("{PROGRAM} failed: {:?}", output.status).into()),
            }
        });
    }
    while let Some(result) = calls.join_next().await {
        let result: Result<()> = result?;
        result?;
    }
    Ok(start.elapsed())
}
