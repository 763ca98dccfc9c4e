//! `blink doctor`.

use std::fmt::Write;
use std::path::PathBuf;

use blink_core::{Blink, Hypervisor, Report};

use crate::failure::{Failure, print_json, print_text, to_json};
use crate::progress;

/// The exit code where no isolation works.
const EXIT_NOTHING_WORKS: i32 = 1;

pub(crate) async fn doctor(json: bool, home: Option<PathBuf>) -> Result<i32, Failure> {
    let mut builder = Blink::builder();
    if let Some(home) = home {
        builder = builder.home(home);
    }
    let blink = builder.build().await?;
    let report = progress::shown("trying each isolation", blink_core::doctor(&blink)).await;
    let printed = match json {
        true => print_json(&line(&report)?)?,
        false => print_text(&page(&report))?,
    };
    if printed != 0 {
        return Ok(printed);
    }
    let works = report.checks.iter().any(blink_core::Check::works);
    Ok(if works { 0 } else { EXIT_NOTHING_WORKS })
}

fn line(report: &Report) -> Result<serde_json::Value, Failure> {
    let mut line = to_json(report)?;
    line["event"] = "doctor".into();
    line["version"] = env!("CARGO_PKG_VERSION").into();
    Ok(line)
}

fn page(report: &Report) -> String {
    let mut page = String::from("Isolation, the strongest first:\n");
    // Writing to a string cannot fail.
    for check in &report.checks {
        let name = check.isolation.name();
        let _ = match &check.problem {
            None => writeln!(
                page,
                "  {name:<10} works (a program's result in {:.0?})",
                check.elapsed
            ),
            Some(problem) => writeln!(page, "  {name:<10} does not work: {problem}"),
        };
    }
    let hypervisor = match &report.hypervisor {
        Hypervisor::Usable => "works: a trial has run what a kernel runs",
        Hypervisor::Untried => "opens; more is not tried on this kind of processor",
        other => other.reason().unwrap_or("is unknown"),
    };
    let users = match report.root {
        true => {
            "Blink runs as root: sandboxes have users of their own, none of whom is anybody here."
        }
        false => "Blink runs as an ordinary user: a sandbox has one user, who is that user here.",
    };
    let limits = match report.control_groups {
        true => "Control groups hold the limits of a sandbox as a whole.",
        false => {
            "Control groups are not delegated to Blink: limits of resources hold for each process, and memory and disk are \
             measured several times a second. A program can exceed them for that long; files in memory whose descriptors are \
             in flight between sockets are not counted (docs/SECURITY.md)."
        }
    };
    let _ = writeln!(page, "\nHypervisor: {hypervisor}\n\n{users}\n{limits}");
    page
}
