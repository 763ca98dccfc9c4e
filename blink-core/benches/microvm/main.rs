//! What Blink reaches in micro-VMs, beside BoxLite by itself: the same engine, image and machine, all in one run.
//!
//! `bench/run` runs it; `bench/README.md` says how to read what it prints.

mod bare;
mod boot;
mod bulk;
mod exec;
mod image;
#[path = "../../../tests/common/inside.rs"]
mod inside;
#[allow(dead_code, reason = "it is shared with another benchmark")]
#[path = "../shared/measure.rs"]
mod measure;
mod memory;
#[path = "../shared/options.rs"]
mod options;
mod pool;
#[allow(dead_code, reason = "it is shared with another benchmark")]
#[path = "../shared/report.rs"]
mod report;
mod sessions;
mod setting;

use std::process::ExitCode;

use blink_core::Blink;
use measure::Result;
use options::{Options, Size};
use report::{Report, Row};
use setting::{Machines, Setting};

const USAGE: &str = "\
Usage: microvm [--out DIR] [--folder DIR] [--quick] [--only PART]...
       microvm --check
  --out DIR     write microvm.json and microvm.md into DIR; without it, a quick run that writes nothing
  --folder DIR  where homes are meanwhile; the target folder unless told
  --quick       few rounds: to see that everything works
  --only PART   memory, exec, parallel, stdout, files, sessions, boot or pool
  --check       say whether this machine can run micro-VMs, and measure nothing";

const PARTS: [&str; 8] = [
    "memory", "exec", "parallel", "stdout", "files", "sessions", "boot", "pool",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["--check"] => block_on(check()),
        [memory::HOLD, who, folder, count] => block_on(memory::hold(
            who.to_owned(),
            folder.into(),
            count.parse().unwrap_or(1),
        )),
        _ => Options::parse(&words, &PARTS, USAGE).and_then(run),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// In a task, as the calls of a server are.
fn block_on<T: Send + 'static>(
    task: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move { tokio::spawn(task).await })?
}

async fn check() -> Result<bool> {
    let home = tempfile::tempdir()?;
    let blink = Blink::builder().home(home.path()).build().await?;
    let report = blink_core::doctor(&blink).await;
    match report.hypervisor.reason() {
        Some(reason) => println!("micro-VMs cannot run here: {reason}"),
        None => println!("micro-VMs can run here"),
    }
    Ok(report.hypervisor.is_usable())
}

/// Measures, and says whether everything could be measured. A missed target is a result, not a failure.
fn run(options: Options) -> Result<bool> {
    let out = options.out.clone();
    let report = block_on(measure_all(options))?;
    println!("{}", report.markdown());
    if let Some(out) = out {
        report.write(&out, "microvm")?;
    }
    Ok(report.complete())
}

async fn measure_all(options: Options) -> Result<Report> {
    let setting = Setting::new(&options)?;
    let quick = options.size == Size::Quick;
    let mut report = Report::new("Benchmarks of micro-VMs", setting.folder(), quick)?;
    // Memory comes first: its processes need the homes for themselves.
    if options.wants("memory") {
        eprintln!("measuring: memory");
        add(&mut report, "memory", memory::of_the_host(&setting));
    }
    let rest: Vec<&str> = PARTS[1..]
        .iter()
        .copied()
        .filter(|part| options.wants(part))
        .collect();
    if !rest.is_empty() {
        let mut machines = boot(&setting).await?;
        for part in rest {
            eprintln!("measuring: {part}");
            let mut rows = measure(part, &setting, &machines).await;
            // Emulated hosts end machines at times; what that spoils is measured again with others.
            if let Err(error) = &rows
                && machines.have_ended().await
            {
                eprintln!("once more, as {error}");
                drop(machines);
                machines = boot(&setting).await?;
                rows = measure(part, &setting, &machines).await;
            }
            add(&mut report, part, rows);
        }
        // The results are worth more than an orderly end.
        if let Err(error) = machines.end().await {
            eprintln!("{error}");
        }
    }
    report.finish();
    Ok(report)
}

async fn boot(setting: &Setting) -> Result<Machines> {
    eprintln!("booting a machine of each");
    match Machines::boot(setting).await {
        Ok(machines) => Ok(machines),
        // The engine gives it 30 s, which an emulated host under load exceeds at times.
        Err(error) => {
            eprintln!("once more, as {error}");
            Machines::boot(setting).await
        }
    }
}

async fn measure(part: &str, setting: &Setting, machines: &Machines) -> Result<Vec<Row>> {
    match part {
        "exec" => exec::one(setting, machines).await,
        "parallel" => exec::parallel(setting, machines).await,
        "stdout" => bulk::stdout(setting, machines).await,
        "files" => bulk::files(setting, machines).await,
        "sessions" => sessions::of_a_small_disk(setting, machines).await,
        "boot" => boot::to_first_result(setting, machines).await,
        _ => pool::claims(setting, machines).await,
    }
}

fn add(report: &mut Report, part: &str, rows: Result<Vec<Row>>) {
    let rows = rows.unwrap_or_else(|error| vec![Row::failed(part, &error.to_string())]);
    report.add(rows);
}
