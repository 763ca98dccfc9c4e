//! What pools of sandboxes in namespaces cost: claims, claims with a command, crowds of claimants, refill and memory.
//!
//! `bench/run` runs it; `bench/README.md` says how to read what it prints.

#[allow(dead_code, reason = "it is shared with another benchmark")]
#[path = "../shared/measure.rs"]
mod measure;
#[path = "../shared/options.rs"]
mod options;
#[allow(dead_code, reason = "it is shared with another benchmark")]
#[path = "../shared/report.rs"]
mod report;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use blink_core::{Blink, Command, IsolationChoice, Pool, SandboxSpec};

use measure::{Result, Samples, micros, time_text};
use options::{Options, Size};
use report::{Report, Row};

const USAGE: &str = "\
Usage: pool [--out DIR] [--folder DIR] [--quick] [--only PART]...
  --out DIR     write pool.json and pool.md into DIR; without it, a quick run that writes nothing
  --folder DIR  where Blink's home is meanwhile; the target folder unless told
  --quick       few rounds: to see that everything works
  --only PART   memory, claim, exec, code, refill or crowd";

/// Memory first, while this process has not needed any for another part.
const PARTS: [&str; 6] = ["memory", "claim", "exec", "code", "refill", "crowd"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match Options::parse(&words, &PARTS, USAGE).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let out = options.out.clone();
    // In a task, as the calls of a server are.
    let report = runtime.block_on(async move { tokio::spawn(measure_all(options)).await })??;
    println!("{}", report.markdown());
    if let Some(out) = out {
        report.write(&out, "pool")?;
    }
    Ok(report.complete())
}

struct Setting {
    size: Size,
    blink: Blink,
    home: PathBuf,
}

async fn measure_all(options: Options) -> Result<Report> {
    fs::create_dir_all(&options.folder)?;
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&options.folder)?;
    let home = folder.path().join("home");
    let blink = Blink::builder()
        .home(&home)
        .isolation(IsolationChoice::Namespace)
        .build()
        .await?;
    let setting = Setting {
        size: options.size,
        blink,
        home: home.clone(),
    };
    let quick = options.size == Size::Quick;
    let mut report = Report::new("Benchmarks of pools in namespaces", &home, quick)?;
    for part in PARTS {
        if !options.wants(part) {
            continue;
        }
        eprintln!("measuring: {part}");
        let rows = match part {
            "memory" => memory(&setting).await,
            "claim" => claim(&setting).await,
            "exec" => exec(&setting).await,
            "code" => code(&setting).await,
            "refill" => refill(&setting).await,
            _ => crowd(&setting).await,
        };
        match rows {
            Ok(rows) => report.add(rows),
            Err(error) => report.add(vec![Row::failed(part, &error.to_string())]),
        }
    }
    setting.blink.settled().await;
    report.finish();
    Ok(report)
}

impl Setting {
    async fn pool(&self, size: usize) -> Result<Pool> {
        let pool = self.blink.pool(SandboxSpec::default()).size(size);
        let pool = pool.max(size + 256).build().await?;
        pool.ready().await?;
        Ok(pool)
    }
}

/// Waits until nothing is done in the background.
async fn at_rest(pool: &Pool) {
    loop {
        let stats = pool.stats();
        if stats.idle == stats.size && stats.booting == 0 && stats.claimed == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn percents(done: usize, of: usize) -> String {
    format!("{:.1}% succeeded", 100.0 * done as f64 / of as f64)
}

/// From a claim to its sandbox, where one is ready.
async fn claim(setting: &Setting) -> Result<Vec<Row>> {
    const TARGET: (f64, f64) = (50.0, 500.0);
    let rounds = setting.size.pick(2000, 50);
    let pool = setting.pool(8).await?;
    let (mut claims, mut boots) = (Samples::default(), Samples::default());
    for round in 0..rounds {
        at_rest(&pool).await;
        let begun = Instant::now();
        let sandbox = pool.claim().await?;
        claims.add(begun.elapsed());
        drop(sandbox);
        if round % 20 == 0 {
            at_rest(&pool).await;
            let begun = Instant::now();
            let sandbox = setting.blink.sandbox().create().await?;
            boots.add(begun.elapsed());
            sandbox.remove().await?;
        }
    }
    let stats = pool.stats();
    let (p50, p99) = (micros(claims.median()), micros(claims.p99()));
    Ok(vec![
        Row::new("claim, pool not empty", "p50 ≤ 50 µs, p99 ≤ 500 µs")
            .reached(claims.text())
            .met(p50 <= TARGET.0 && p99 <= TARGET.1)
            .peer("a boot", boots.text(), claims.ratio(&boots))
            .note(format!(
                "{} claims, p95 {}; {} boots; {}",
                claims.count(),
                time_text(claims.p95()),
                boots.count(),
                percents(usize::try_from(stats.hits)?, rounds)
            ))
            .value("p50_us", p50)
            .value("p99_us", p99),
    ])
}

/// A claim, a command in it, and its result, beside the same command in a sandbox that is there.
async fn exec(setting: &Setting) -> Result<Vec<Row>> {
    const MOST: f64 = 1.15;
    let rounds = setting.size.pick(2000, 50);
    let pool = setting.pool(8).await?;
    let there = setting.blink.sandbox().create().await?;
    let (mut single, mut known) = (Samples::default(), Samples::default());
    let mut done = 0;
    for _ in 0..rounds {
        at_rest(&pool).await;
        let begun = Instant::now();
        let sandbox = pool.claim().await?;
        let output = sandbox.exec(Command::new("true")).await?;
        single.add(begun.elapsed());
        done += usize::from(output.status.success());
        drop(sandbox);
        at_rest(&pool).await;
        let begun = Instant::now();
        there.exec(Command::new("true")).await?;
        known.add(begun.elapsed());
    }
    let stats = pool.stats();
    there.remove().await?;
    let tails = single.p99().as_secs_f64() / known.p99().as_secs_f64();
    let ratio = single.ratio(&known);
    let latency = |latency: blink_core::Latency| {
        format!(
            "{:.1} ms / {:.1} ms",
            latency.p50_us as f64 / 1e3,
            latency.p99_us as f64 / 1e3
        )
    };
    Ok(vec![
        Row::new(
            "claim, exec, result, each in a sandbox of its own",
            "≤ 1.15 × at p50 and p99",
        )
        .reached(single.text())
        .met(ratio <= MOST && tails <= MOST)
        .peer("exec in a sandbox that is there", known.text(), ratio)
        .note(format!(
                "{} of each; p95 {} and {}; {tails:.2} × at p99; {}; in the background boots of {} and removals of {}",
                single.count(),
                time_text(single.p95()),
                time_text(known.p95()),
                percents(done, rounds),
            latency(stats.boot_latency),
            latency(stats.removal_latency),
        ))
        .value("ratio_p50", ratio)
        .value("ratio_p99", tails),
    ])
}

/// Code for an interpreter that waits for it, beside one that the host starts.
async fn code(setting: &Setting) -> Result<Vec<Row>> {
    const TARGET_US: f64 = 5000.0;
    const CODE: &str = "print(6 * 7)";
    let rounds = setting.size.pick(1000, 30);
    let pool = setting.blink.pool(SandboxSpec::default()).size(4);
    let pool = pool.interpreter("python").build().await?;
    pool.ready().await?;
    let (mut waiting, mut started, mut host) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut done = 0;
    for round in 0..rounds {
        at_rest(&pool).await;
        let begun = Instant::now();
        let sandbox = pool.claim().await?;
        let output = sandbox.exec(Command::code("python", CODE)?).await?;
        waiting.add(begun.elapsed());
        done += usize::from(output.text() == "42\n");
        if round % 10 == 0 {
            // The one that waited is used.
            let begun = Instant::now();
            sandbox.exec(Command::code("python", CODE)?).await?;
            started.add(begun.elapsed());
        }
        drop(sandbox);
        at_rest(&pool).await;
        let begun = Instant::now();
        std::process::Command::new("/usr/bin/python3")
            .args(["-c", CODE])
            .output()?;
        host.add(begun.elapsed());
    }
    Ok(vec![
        Row::new(
            "claim and run Python code, its interpreter waiting",
            "p50 ≤ 5 ms",
        )
        .reached(waiting.text())
        .met(micros(waiting.median()) <= TARGET_US)
        .peer(
            "/usr/bin/python3 -c on the host",
            host.text(),
            waiting.ratio(&host),
        )
        .peer(
            "python3 -c in the sandbox",
            started.text(),
            waiting.ratio(&started),
        )
        .note(format!(
            "{} times; p95 {}; {}",
            waiting.count(),
            time_text(waiting.p95()),
            percents(done, rounds)
        ))
        .value("p50_us", micros(waiting.median())),
    ])
}

/// Claims one after another, as fast as they come: what is claimed is dropped at once.
async fn refill(setting: &Setting) -> Result<Vec<Row>> {
    const TARGET: f64 = 150.0;
    let rounds = setting.size.pick(3000, 100);
    let mut rows = Vec::new();
    let pool = setting.pool(8).await?;
    let processors = std::thread::available_parallelism()?.get();
    let begun = Instant::now();
    let mut claimants = tokio::task::JoinSet::new();
    for _ in 0..2 * processors {
        let pool = pool.clone();
        let rounds = rounds / (2 * processors);
        claimants.spawn(async move {
            for _ in 0..rounds {
                drop(pool.claim().await?);
            }
            Ok::<_, blink_core::Error>(rounds)
        });
    }
    let mut done = 0;
    while let Some(claimed) = claimants.join_next().await {
        done += claimed??;
    }
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    rows.push(
        Row::new(
            "refill, sustained: boots and removals",
            "≥ 150 a second on two processors",
        )
        .reached(format!("{rate:.0} a second"))
        .met(rate >= TARGET)
        .note(format!("{done} sandboxes, {processors} processors"))
        .value("each_second", rate),
    );
    Ok(rows)
}

/// Many claimants at once on a small pool, beside what refill alone comes to.
async fn crowd(setting: &Setting) -> Result<Vec<Row>> {
    const CLAIMANTS: usize = 64;
    const LEAST: f64 = 0.9;
    let rounds = setting.size.pick(30, 3);
    let processors = std::thread::available_parallelism()?.get();
    let (mut crowds, mut alone) = (measure::Rates::default(), measure::Rates::default());
    let (mut failed, mut waits) = (0, Samples::default());
    for turn in 0..2 * rounds {
        let pool = setting.pool(8).await?;
        let claimants = match turn % 2 {
            0 => CLAIMANTS,
            _ => 2 * processors,
        };
        let all = CLAIMANTS * 2;
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..claimants {
            let pool = pool.clone();
            tasks.spawn(async move {
                let mut times = Vec::new();
                for _ in 0..all / claimants {
                    let begun = Instant::now();
                    drop(pool.claim().await?);
                    times.push(begun.elapsed());
                }
                Ok::<_, blink_core::Error>(times)
            });
        }
        while let Some(claimed) = tasks.join_next().await {
            match claimed? {
                Ok(times) if claimants == CLAIMANTS => {
                    times.into_iter().for_each(|time| waits.add(time));
                }
                Ok(_) => {}
                Err(_) => failed += 1,
            }
        }
        let rates = match claimants {
            CLAIMANTS => &mut crowds,
            _ => &mut alone,
        };
        rates.add(all as u64, begun.elapsed());
        pool.close().await;
    }
    let ratio = crowds.ratio(&alone);
    Ok(vec![
        Row::new(
            "64 claimants at once on a pool of 8",
            "none fails, throughput ≥ 0.9 × refill's",
        )
        .reached(format!("{:.0} a second", crowds.median()))
        .met(failed == 0 && ratio >= LEAST)
        .peer(
            "as many claims by as many as boot at once",
            format!("{:.0} a second", alone.median()),
            ratio,
        )
        .note(format!("{failed} failed; a claim took {}", waits.text()))
        .value("failed", f64::from(failed))
        .value("ratio", ratio),
    ])
}

/// What a sandbox costs the host that waits to be claimed.
async fn memory(setting: &Setting) -> Result<Vec<Row>> {
    const MOST_KIB: f64 = 3.0 * 1024.0;
    let size = setting.size.pick(200, 20);
    let first = setting.pool(1).await?;
    let own = || proportional_kib("self");
    let before = own()?;
    let pool = setting.pool(size).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = own()?.saturating_sub(before);
    let mut agents = 0;
    let mut counted = 0_u64;
    for entry in fs::read_dir(setting.home.join("sandboxes"))? {
        let record = fs::read(entry?.path().join("record.json")).unwrap_or_default();
        let Ok(record) = serde_json::from_slice::<serde_json::Value>(&record) else {
            continue;
        };
        for process in ["agent", "monitor"] {
            if let Some(pid) = record[process]["pid"].as_i64() {
                agents += proportional_kib(&pid.to_string()).unwrap_or_default();
            }
        }
        counted += 1;
    }
    let each = agents as f64 / counted as f64 + grown as f64 / size as f64;
    drop((first, pool));
    Ok(vec![
        Row::new("memory of a sandbox that waits, host side", "≤ 3 MiB")
            .reached(format!("{:.2} MiB", each / 1024.0))
            .met(each <= MOST_KIB)
            .note(format!(
                "PSS: {:.2} MiB of its agent and its launcher, {:.3} MiB of this process; {counted} sandboxes",
                agents as f64 / counted as f64 / 1024.0,
                grown as f64 / size as f64 / 1024.0
            ))
            .value("each_kib", each),
    ])
}

/// What a process has in memory, what it shares divided among those who share it.
fn proportional_kib(process: &str) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    maps.lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok())
        .ok_or_else(|| "smaps_rollup has no Pss".into())
}
