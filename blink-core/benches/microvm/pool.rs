//! A claim from a pool with a command in it, beside a machine that is made for it.

use std::time::{Duration, Instant};

use blink_core::Command;

use crate::measure::{Result, Samples, micros};
use crate::report::Row;
use crate::setting::{Machines, Setting};

/// Claims from a full pool, and cold machines of the peer, in turns.
pub(crate) async fn claims(setting: &Setting, machines: &Machines) -> Result<Vec<Row>> {
    const LEAST: f64 = 100.0;
    let rounds = setting.pick(5, 1);
    let bare = &machines.bare;
    let pool = machines.ours.pool().size(2).max(3).build().await?;
    pool.ready().await?;
    let (mut claims, mut claimed, mut cold) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut failed = 0;
    for _ in 0..rounds {
        while pool.stats().idle < 2 || pool.stats().booting > 0 || pool.stats().claimed > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begun = Instant::now();
        let sandbox = pool.claim().await?;
        claims.add(begun.elapsed());
        sandbox.exec(Command::new("/bin/true")).await?;
        claimed.add(begun.elapsed());
        drop(sandbox);
        while pool.stats().idle < 2 || pool.stats().booting > 0 || pool.stats().claimed > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begun = Instant::now();
        let machine = match bare.boot().await {
            Ok(machine) => machine,
            Err(error) => {
                eprintln!("{error}");
                failed += 1;
                continue;
            }
        };
        machine.exec(&["/bin/true"]).await?;
        cold.add(begun.elapsed());
        bare.remove(machine).await?;
    }
    pool.close().await;
    if cold.count() == 0 {
        return Err("no machine of the peer has booted".into());
    }
    let times = cold.median().as_secs_f64() / claimed.median().as_secs_f64();
    Ok(vec![
        Row::new("claim from a pool, exec, result", "at least 100 times faster")
            .reached(claimed.text())
            .met(times >= LEAST)
            .peer("cold `create`, `start`, `exec`", cold.text(), 1.0 / times)
            .note(format!(
                "{times:.0} times faster; {rounds} of each; the claim alone took {}; {failed} of the peer's did not boot",
                claims.text()
            ))
            .value("claim_p50_us", micros(claims.median()))
            .value("p50_us", micros(claimed.median()))
            .value("times_faster", times),
    ])
}
