//! From nothing to the first result.

use std::time::{Duration, Instant};

use crate::measure::{Result, Samples, micros, time_text};
use crate::report::Row;
use crate::setting::{self, Machines, Setting};

/// Boots one of each in turns; the first of each, which make the images' disks, were the running machines.
pub(crate) async fn to_first_result(setting: &Setting, machines: &Machines) -> Result<Vec<Row>> {
    const LIMIT: f64 = 1.1;
    let rounds = setting.pick(5, 1);
    let (mut ours, mut bare) = (Way::default(), Way::default());
    for round in 0..rounds {
        // Whoever is second may find what the first has left in caches.
        if round % 2 == 0 {
            ours.add(with_blink(machines).await);
            bare.add(with_boxlite(machines).await);
        } else {
            bare.add(with_boxlite(machines).await);
            ours.add(with_blink(machines).await);
        }
    }
    let (created, started) = (ours.booted, bare.booted);
    let late = [ours.failed, bare.failed];
    let (ours, bare) = (ours.done, bare.done);
    if ours.count() == 0 || bare.count() == 0 {
        return Err("no machine of one of the two has booted".into());
    }
    let ratio = ours.ratio(&bare);
    Ok(vec![
        Row::new("boot: library call to first result", "at most 1.1 times")
            .reached(ours.text())
            .met(ratio <= LIMIT)
            .peer("`create`, `start`, `exec`", bare.text(), ratio)
            .note(format!(
                "{rounds} of each, same image, processors, memory and disk; {} of it until the agent answers, of the \
                 peer's {} until `start` returns; {} did not boot, of the peer's {}",
                time_text(created.median()),
                time_text(started.median()),
                late[0],
                late[1],
            ))
            .value("p50_us", micros(ours.median()))
            .value("create_p50_us", micros(created.median()))
            .value("boxlite_p50_us", micros(bare.median()))
            .value("boxlite_start_p50_us", micros(started.median())),
    ])
}

/// One of the two, in all rounds.
#[derive(Default)]
struct Way {
    booted: Samples,
    done: Samples,
    /// The engine gives each boot 30 s, which an emulated host under load exceeds at times.
    failed: usize,
}

impl Way {
    fn add(&mut self, times: Result<(Duration, Duration)>) {
        match times {
            Ok((booted, done)) => {
                self.booted.add(booted);
                self.done.add(done);
            }
            Err(error) => {
                eprintln!("{error}");
                self.failed += 1;
            }
        }
    }
}

async fn with_blink(machines: &Machines) -> Result<(Duration, Duration)> {
    let start = Instant::now();
    let sandbox = machines.ours.boot().await?;
    let booted = start.elapsed();
    setting::exec(&sandbox, &["/bin/true"]).await?;
    let done = start.elapsed();
    sandbox.remove().await?;
    Ok((booted, done))
}

async fn with_boxlite(machines: &Machines) -> Result<(Duration, Duration)> {
    let start = Instant::now();
    let machine = machines.bare.boot().await?;
    let booted = start.elapsed();
    machine.exec(&["/bin/true"]).await?;
    let done = start.elapsed();
    machines.bare.remove(machine).await?;
    Ok((booted, done))
}
