//! What Blink reaches, beside its targets and beside what else there is, all in one run.
//!
//! `bench/run` runs it; `bench/README.md` says how to read what it prints.

mod bulk;
mod codec;
mod latency;
mod measure;
mod memory;
mod peers;
mod report;
mod setting;

use std::path::PathBuf;
use std::process::ExitCode;

use measure::Result;
use report::{Report, Row};
use setting::{Setting, Size};

const USAGE: &str = "\
Usage: sandbox [--out DIR] [--quick] [--only PART]...
  --out DIR    write sandbox.json and sandbox.md into DIR; without it, a quick run that writes nothing
  --quick      few rounds: to see that everything works
  --only PART  memory, agent, exec, cold, rpc, stdout, files or codec";

const PARTS: [&str; 8] = [
    "memory", "agent", "exec", "cold", "rpc", "stdout", "files", "codec",
];

#[derive(Default)]
struct Options {
    out: Option<PathBuf>,
    quick: bool,
    only: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [bulk::WRITE_RANDOM, bytes] => bulk::write_random(bytes).map(|()| true),
        [peers::CRUN, bundle] => peers::serve_crun(bundle.as_ref()).map(|()| true),
        _ => parse(&words).and_then(|options| run(&options)),
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

fn parse(words: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(USAGE);
        match *word {
            "--out" => options.out = Some(value()?.into()),
            "--quick" => options.quick = true,
            "--only" => {
                let part = *value()?;
                if !PARTS.contains(&part) {
                    return Err(USAGE.into());
                }
                options.only.push(part.to_owned());
            }
            // What cargo says to every benchmark.
            "--bench" => {}
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

/// Measures, and says whether everything could be measured. A missed target is a result, not a failure.
fn run(options: &Options) -> Result<bool> {
    let size = match options.quick || options.out.is_none() {
        true => Size::Quick,
        false => Size::Full,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let only = options.only.clone();
    let report = runtime.block_on(async move {
        // In a task, as the calls of a server are; what a blocked thread pays on top has a row of its own.
        tokio::spawn(measure_all(size, only)).await
    })??;
    println!("{}", report.markdown());
    if let Some(out) = &options.out {
        report.write(out)?;
    }
    Ok(report.complete())
}

async fn measure_all(size: Size, only: Vec<String>) -> Result<Report> {
    let setting = Setting::new(size).await?;
    let mut report = Report::new(&setting)?;
    // Memory comes first, while this process has not needed any for another part.
    for part in PARTS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == part) {
            continue;
        }
        eprintln!("measuring: {part}");
        let rows = match part {
            "memory" => memory::of_an_unread_program(&setting).await,
            "agent" => memory::of_the_agent(&setting).await,
            "exec" => latency::exec(&setting).await,
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
