//! What sessions in namespaces cost: opening, checkpoints, forks and archives, beside their targets and what else there is.
//!
//! `bench/run` runs it; `bench/README.md` says how to read what it prints.

mod archives;
mod changes;
mod files;
#[path = "../../../tests/common/inside.rs"]
mod inside;
#[allow(dead_code, reason = "it is shared with another benchmark")]
#[path = "../shared/measure.rs"]
mod measure;
mod opening;
#[path = "../shared/options.rs"]
mod options;
#[allow(dead_code, reason = "it is shared with another benchmark")]
#[path = "../shared/report.rs"]
mod report;
mod setting;

use std::process::ExitCode;

use measure::Result;
use options::{Options, Size};
use report::{Report, Row};
use setting::Setting;

const USAGE: &str = "\
Usage: sessions [--out DIR] [--folder DIR] [--quick] [--only PART]...
  --out DIR     write sessions.json and sessions.md into DIR; without it, a quick run that writes nothing
  --folder DIR  where Blink's home and the archives are meanwhile; the target folder unless told
  --quick       few rounds and little data: to see that everything works
  --only PART   open, changes, files or archives";

const PARTS: [&str; 4] = ["open", "changes", "files", "archives"];

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

/// Measures, and says whether everything could be measured. A missed target is a result, not a failure.
fn run(options: Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let out = options.out.clone();
    // In a task, as the calls of a server are.
    let report = runtime.block_on(async move { tokio::spawn(measure_all(options)).await })??;
    println!("{}", report.markdown());
    if let Some(out) = out {
        report.write(&out, "sessions")?;
    }
    Ok(report.complete())
}

async fn measure_all(options: Options) -> Result<Report> {
    let setting = Setting::new(&options).await?;
    let quick = options.size == Size::Quick;
    let mut report = Report::new(
        "Benchmarks of sessions in namespaces",
        &setting.home(),
        quick,
    )?;
    for part in PARTS {
        if !options.wants(part) {
            continue;
        }
        eprintln!("measuring: {part}");
        let rows = match part {
            "open" => opening::a_running_session(&setting).await,
            "changes" => changes::of_a_large_disk(&setting).await,
            "files" => files::measure(&setting).await,
            _ => archives::of_a_large_disk(&setting).await,
        };
        match rows {
            Ok(rows) => report.add(rows),
            Err(error) => report.add(vec![Row::failed(part, &error.to_string())]),
        }
    }
    setting.end().await?;
    report.finish();
    Ok(report)
}
