//! How long single calls take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blink_core::{Command, Sandbox};

use crate::measure::{Rates, Result, Samples, micros, time_text, timed};
use crate::peers::{Bare, Crun, Echo, host_command};
use crate::report::Row;
use crate::setting::Setting;

const PROGRAM: &str = "/bin/true";

/// One command in a sandbox that runs.
pub(crate) async fn exec(setting: &Setting) -> Result<Vec<Row>> {
    const AT_P50: f64 = 1.25;
    const AT_P99: f64 = 2.0;
    let rounds = setting.pick(100, 10);
    let by_round = 20;
    let crun_by_round = 2;
    let mut crun = Crun::start(&setting.scratch("crun")?);

    let (mut ours, mut spawned, mut contained) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut running = Samples::default();
    for round in 0..=rounds {
        let warm = round > 0;
        for _ in 0..by_round {
            let start = Instant::now();
            let output = setting.sandbox.exec(Command::new(PROGRAM)).await?;
            let time = start.elapsed();
            if !output.status.success() {
                return Err(format!("{PROGRAM} failed: {:?}", output.status).into());
            }
            if warm {
                ours.add(time);
                running.add(output.status.duration);
            }
        }
        for _ in 0..by_round {
            let (time, status) = timed(|| Ok(host_command(PROGRAM).status()?))?;
            if warm && status.success() {
                spawned.add(time);
            }
        }
        if let Ok(crun) = &mut crun {
            for time in crun.exec(crun_by_round)? {
                if warm {
                    contained.add(time);
                }
            }
        }
    }

    let p99 = ours.p99().as_secs_f64() / spawned.p99().as_secs_f64();
    let row = Row::new(
        "`exec /bin/true`, result in hand, running sandbox",
        "≤ 1.25 times a bare posix_spawn at p50, ≤ 2 times at p99",
    )
    .reached(ours.text())
    .met(ours.ratio(&spawned) <= AT_P50 && p99 <= AT_P99)
    .peer("bare posix_spawn", spawned.text(), ours.ratio(&spawned))
    .value("p50_us", micros(ours.median()))
    .value("p99_us", micros(ours.p99()))
    .value("running_p50_us", micros(running.median()))
    .value("posix_spawn_p50_us", micros(spawned.median()));
    let note = format!(
        "{} samples; {p99:.2} times at p99; {} of it between the program's start and its end, as the agent sees them",
        ours.count(),
        time_text(running.median())
    );
    let row = match crun {
        Ok(crun) => row
            .peer("crun exec", contained.text(), ours.ratio(&contained))
            .value("crun_exec_p50_us", micros(contained.median()))
            .note(format!("{note}; crun {}", crun.how)),
        Err(why) => row.no_peer("crun exec", &why).note(note),
    };
    Ok(vec![row])
}

/// From nothing to the first result, and to nothing again.
pub(crate) async fn cold(setting: &Setting) -> Result<Vec<Row>> {
    const P50: Duration = Duration::from_millis(4);
    const RATIO: f64 = 1.3;
    const REMOVAL: Duration = Duration::from_millis(5);
    let rounds = setting.pick(200, 15);
    let program = Bare::build(setting)?;

    let (mut create, mut first, mut whole, mut removal) = (
        Samples::default(),
        Samples::default(),
        Samples::default(),
        Samples::default(),
    );
    let (mut bare, mut bare_whole) = (Samples::default(), Samples::default());
    for round in 0..=rounds {
        let start = Instant::now();
        let sandbox = setting.blink.sandbox().create().await?;
        let created = start.elapsed();
        let output = sandbox.exec(Command::new(PROGRAM)).await?;
        let executed = start.elapsed();
        sandbox.remove().await?;
        let removed = start.elapsed() - executed;
        if !output.status.success() {
            return Err(format!("{PROGRAM} failed: {:?}", output.status).into());
        }

        let start = Instant::now();
        setting.blink.run(Command::new(PROGRAM)).await?;
        let run = start.elapsed();

        let (alone, ()) = timed(|| program.run(PROGRAM))?;
        let (with_folders, ()) = timed(|| program.run_with_fresh_folders(PROGRAM))?;
        // The first round reads programs from the disk.
        if round > 0 {
            create.add(created);
            first.add(executed);
            whole.add(run);
            removal.add(removed);
            bare.add(alone);
            bare_whole.add(with_folders);
        }
    }

    let peer = "a bare program with the same namespaces and mounts";
    Ok(vec![
        Row::new(
            "cold: library call to first result, `host` image",
            "p50 ≤ 4 ms, ≤ 1.3 times the bare program",
        )
        .reached(first.text())
        .met(first.median() <= P50 && first.ratio(&bare) <= RATIO)
        .peer(peer, bare.text(), first.ratio(&bare))
        .note(format!(
            "{} samples; {} of it until the agent answers",
            first.count(),
            time_text(create.median())
        ))
        .value("p50_us", micros(first.median()))
        .value("p99_us", micros(first.p99()))
        .value("create_p50_us", micros(create.median()))
        .value("bare_p50_us", micros(bare.median())),
        Row::new("cold: `Blink::run`, its sandbox made and removed", "")
            .reached(whole.text())
            .peer(
                &format!("{peer}, its folders made and removed"),
                bare_whole.text(),
                whole.ratio(&bare_whole),
            )
            .value("p50_us", micros(whole.median()))
            .value("p99_us", micros(whole.p99()))
            .value("bare_p50_us", micros(bare_whole.median())),
        Row::new("removing a sandbox, with what it has written", "p50 ≤ 5 ms")
            .reached(removal.text())
            .met(removal.median() <= REMOVAL)
            .value("p50_us", micros(removal.median()))
            .value("p99_us", micros(removal.p99())),
    ])
}

/// A request that does nothing.
pub(crate) async fn rpc(setting: &Setting) -> Result<Vec<Row>> {
    const P50: Duration = Duration::from_micros(40);
    const A_SECOND: f64 = 100_000.0;
    const IN_FLIGHT: u64 = 64;
    let rounds = setting.pick(20, 3);
    let by_round = 1000;
    let mut echo = Echo::start()?;

    let mut ours = Samples::default();
    let mut blocked = Samples::default();
    let mut echoed = Samples::default();
    let mut many = Rates::default();
    let mut many_echoed = Rates::default();
    for round in 0..=rounds {
        let warm = round > 0;
        let single = pings(&setting.sandbox, by_round).await?;
        let from_thread = pings_from_a_thread(&setting.sandbox, by_round).await?;
        if warm {
            single.into_iter().for_each(|time| ours.add(time));
            from_thread.into_iter().for_each(|time| blocked.add(time));
        }
        for _ in 0..by_round {
            let (time, ()) = timed(|| echo.exchange(1))?;
            if warm {
                echoed.add(time);
            }
        }
        let start = Instant::now();
        pings_in_flight(&setting.sandbox, IN_FLIGHT, by_round).await?;
        if warm {
            many.add(IN_FLIGHT * by_round, start.elapsed());
        }
        let (time, ()) =
            timed(|| (0..by_round).try_for_each(|_| echo.exchange(usize::try_from(IN_FLIGHT)?)))?;
        if warm {
            many_echoed.add(IN_FLIGHT * by_round, time);
        }
    }

    let peer = "echo of as many bytes by a thread, unix socket";
    Ok(vec![
        Row::new("small RPC over the link, one in flight", "p50 ≤ 40 µs")
            .reached(ours.text())
            .met(ours.median() <= P50)
            .peer(peer, echoed.text(), ours.ratio(&echoed))
            .note(format!(
                "{} samples, in a task of the runtime",
                ours.count()
            ))
            .value("p50_us", micros(ours.median()))
            .value("p99_us", micros(ours.p99()))
            .value("echo_p50_us", micros(echoed.median())),
        Row::new("the same from a thread that blocks on the runtime", "")
            .reached(blocked.text())
            .peer(peer, echoed.text(), blocked.ratio(&echoed))
            .value("p50_us", micros(blocked.median()))
            .value("p99_us", micros(blocked.p99())),
        Row::new(
            "small RPC over the link, 64 in flight",
            "≥ 100,000 a second",
        )
        .reached(format!("{:.0} a second", many.median()))
        .met(many.median() >= A_SECOND)
        .peer(
            &format!("{peer}, 64 in one piece"),
            format!("{:.0} a second", many_echoed.median()),
            many.ratio(&many_echoed),
        )
        .value("a_second", many.median())
        .value("echo_a_second", many_echoed.median()),
    ])
}

async fn pings(sandbox: &Sandbox, count: u64) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        sandbox.ping().await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

async fn pings_from_a_thread(sandbox: &Arc<Sandbox>, count: u64) -> Result<Vec<Duration>> {
    let runtime = tokio::runtime::Handle::current();
    let sandbox = sandbox.clone();
    tokio::task::spawn_blocking(move || runtime.block_on(pings(&sandbox, count))).await?
}

async fn pings_in_flight(sandbox: &Arc<Sandbox>, in_flight: u64, each: u64) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let sandbox = sandbox.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                sandbox.ping().await?;
            }
            Ok::<(), blink_core::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
