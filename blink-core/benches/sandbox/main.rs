//! What Blink reaches, beside its targets and beside what else there is, all in one run.
//!
//! `bench/run` runs it; `bench/README.md` says how to read what it prints.

mod bulk;
mod bursts;
mod codec;
mod latency;
#[allow(dead_code, reason = "it is shared with another benchmark")]
#[path = "../shared/measure.rs"]
mod measure;
mod memory;
#[path = "../shared/options.rs"]
mod options;
mod peers;
#[path = "../shared/report.rs"]
mod report;
mod setting;

use std::process::ExitCode;

use measure::Result;
use options::{Options, Size};
use report::{Report, Row};
use setting::Setting;

const USAGE: &str = "\
Usage: sandbox [--out DIR] [--folder DIR] [--quick] [--only PART]...
  --out DIR     write sandbox.json and sandbox.md into DIR; without it, a quick run that writes nothing
  --folder DIR  where Blink's home is meanwhile; the target folder unless told
  --quick       few rounds: to see that everything works
  --only PART   memory, agent, exec, bursts, cold, rpc, stdout, files or codec";

const PARTS: [&str; 9] = [
    "memory", "agent", "exec", "bursts", "cold", "rpc", "stdout", "files", "codec",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [bulk::WRITE_RANDOM, bytes] => bulk::write_random(bytes).map(|()| true),
        [peers::CRUN, bundle] => peers::serve_crun(bundle.as_ref()).map(|()| true),
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

/// Measures, and says whether everything could be measured. A missed target is a result, not a failure.
fn run(options: Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let out = options.out.clone();
    let report = runtime.block_on(async move {
        // In a task, as the calls of a server are; what a blocked thread pays on top has a row of its own.
        tokio::spawn(measure_all(options)).await
    })??;
    println!("{}", report.markdown());
    if let Some(out) = out {
        report.write(&out, "sandbox")?;
    }
    Ok(report.complete())
}

async fn measure_all(options: Options) -> Result<Report> {
    let setting = Setting::new(&options).await?;
    let quick = options.size == Size::Quick;
    let mut report = Report::new("Benchmarks", &setting.home(), quick)?;
    // Memory comes first, while this process has not needed any for another part.
    for part in PARTS {
        if !options.wants(part) {
            continue;
        }
        eprintln!("measuring: {part}");
        let rows = match part {
            "memory" => memory::of_an_unread_program(&setting).await,
            "agent" => memory::of_the_agent(&setting).await,
            "exec" => latency::exec(&setting).await,
            "bursts" => bursts::bursts(&setting).await,
            "cold" => latency::cold(&setting).await,
            "rpc" => latency::rpc(&setting).await,
            "stdout" => bulk::stdout(&setting).await,
            "files" => bulk::files(&setting).await,
            _ => Ok(codec::codec(&setting)),
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
