//! Commands in a machine that runs.

use std::time::Instant;

use crate::measure::{Result, Samples, micros, time_text};
use crate::report::Row;
use crate::setting::{self, Machines, Setting};

const PROGRAM: &str = "/bin/true";

/// How many times faster a command must be through Blink.
const TIMES_FASTER: f64 = 5.0;

const PEER: &str = "`LiteBox::exec`";

/// One command at a time.
pub(crate) async fn one(setting: &Setting, machines: &Machines) -> Result<Vec<Row>> {
    let rounds = setting.pick(15, 2);
    let (by_round, bare_by_round) = (20, 3);
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    let mut running = Samples::default();
    for round in 0..=rounds {
        let warm = round > 0;
        for _ in 0..by_round {
            let start = Instant::now();
            let command = blink_core::Command::new(PROGRAM);
            let output = machines.sandbox.exec(command).await?;
            let time = start.elapsed();
            if !output.status.success() {
                return Err(format!("{PROGRAM} failed: {:?}", output.status).into());
            }
            if warm {
                ours.add(time);
                running.add(output.status.duration);
            }
        }
        for _ in 0..bare_by_round {
            let start = Instant::now();
            machines.machine.exec(&[PROGRAM]).await?;
            if warm {
                bare.add(start.elapsed());
            }
        }
    }
    let ratio = ours.ratio(&bare);
    Ok(vec![
        Row::new(
            "`exec /bin/true`, result in hand, running machine",
            "p50 at least 5 times faster",
        )
        .reached(ours.text())
        .met(ratio <= 1.0 / TIMES_FASTER)
        .peer(PEER, bare.text(), ratio)
        .note(format!(
            "{} samples, and {} of the peer's; {} of it between the program's start and its end, as the agent sees them",
            ours.count(),
            bare.count(),
            time_text(running.median()),
        ))
        .value("p50_us", micros(ours.median()))
        .value("p99_us", micros(ours.p99()))
        .value("running_p50_us", micros(running.median()))
        .value("boxlite_p50_us", micros(bare.median()))
        .value("boxlite_p99_us", micros(bare.p99())),
    ])
}

/// Many commands at once, each of which must say what it was told.
pub(crate) async fn parallel(setting: &Setting, machines: &Machines) -> Result<Vec<Row>> {
    const AT_ONCE: usize = 20;
    let rounds = setting.pick(3, 1);
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    let (mut right, mut right_bare) = (0, 0);
    for round in 0..=rounds {
        let warm = round > 0;
        let mut tasks = tokio::task::JoinSet::new();
        let start = Instant::now();
        for number in 0..AT_ONCE {
            let sandbox = machines.sandbox.clone();
            tasks.spawn(async move {
                let word = number.to_string();
                let said = setting::exec(&sandbox, &["/bin/echo", &word]).await;
                said.is_ok_and(|said| said == format!("{number}\n").as_bytes())
            });
        }
        let all = tasks.join_all().await;
        if warm {
            ours.add(start.elapsed());
            right += all.into_iter().filter(|right| *right).count();
        }

        let mut tasks = tokio::task::JoinSet::new();
        let start = Instant::now();
        for number in 0..AT_ONCE {
            let machine = machines.machine.clone();
            tasks.spawn(async move {
                let word = number.to_string();
                let said = machine.exec(&["/bin/echo", &word]).await;
                said.is_ok_and(|said| said.concat() == format!("{number}\n"))
            });
        }
        let all = tasks.join_all().await;
        if warm {
            bare.add(start.elapsed());
            right_bare += all.into_iter().filter(|right| *right).count();
        }
    }
    if machines.have_ended().await {
        return Err("a machine has ended".into());
    }
    let ratio = ours.ratio(&bare);
    let wanted = rounds * AT_ONCE;
    Ok(vec![
        Row::new(
            format!("{AT_ONCE} commands at once in one machine"),
            "all right, at least 5 times faster",
        )
        .reached(ours.text())
        .met(right == wanted && ratio <= 1.0 / TIMES_FASTER)
        .peer(PEER, bare.text(), ratio)
        .note(format!(
            "{rounds} times; {right} of {wanted} right, of the peer's {right_bare}"
        ))
        .value("p50_us", micros(ours.median()))
        .value("boxlite_p50_us", micros(bare.median()))
        .value("right", right as f64)
        .value("boxlite_right", right_bare as f64)
        .value("wanted", wanted as f64),
    ])
}
