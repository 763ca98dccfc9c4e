//! What each machine costs the host.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::measure::Result;
use crate::report::Row;
use crate::setting::{Ours, Setting, exec, open_bare};

const KIB_IN_MIB: f64 = 1024.0;

/// Makes this program one that boots so many machines, and says what it and they need.
pub(crate) const HOLD: &str = "--hold";

const BLINK: &str = "blink";
const BARE: &str = "bare";

/// Kibibytes for each machine after the first.
struct Cost {
    /// In the process with the library.
    process: f64,
    /// In the processes of the hypervisor.
    machine: f64,
}

/// The library's process with some machines beside one with one, with Blink and with BoxLite alone.
pub(crate) fn of_the_host(setting: &Setting) -> Result<Vec<Row>> {
    const LIMIT_MIB: f64 = 2.0;
    let count = setting.pick(3, 1);
    // A boot may take too long on an emulated host under load.
    let ask = |who| cost(setting, who, count).or_else(|_| cost(setting, who, count));
    let (ours, bare) = (ask(BLINK)?, ask(BARE)?);
    let mib = |kib: f64| kib / KIB_IN_MIB;
    let added = mib(ours.process - bare.process);
    Ok(vec![
        Row::new("host memory that Blink adds for each machine", "≤ 2 MiB")
            .reached(format!("{added:.2} MiB"))
            .met(added <= LIMIT_MIB)
            .peer(
                "BoxLite alone, for each machine",
                format!("{:.2} MiB beside {:.2} MiB", mib(bare.process), mib(ours.process)),
                ours.process / bare.process,
            )
            .note(format!(
                "private dirty memory of a process with {} machines less that of the same with one, each used once",
                count + 1
            ))
            .value("added_mib", added)
            .value("mib", mib(ours.process))
            .value("boxlite_mib", mib(bare.process)),
        Row::new("the hypervisor's processes, for each machine", "")
            .reached(format!("{:.1} MiB", mib(ours.machine)))
            .peer(
                "BoxLite alone",
                format!("{:.1} MiB", mib(bare.machine)),
                ours.machine / bare.machine,
            )
            .note("their share of memory (PSS), the guest's own used memory among it, which differs from boot to boot")
            .value("mib", mib(ours.machine))
            .value("boxlite_mib", mib(bare.machine)),
    ])
}

/// Asks a process of its own, so that nothing else is in its memory.
fn cost(setting: &Setting, who: &str, count: u32) -> Result<Cost> {
    let output = Command::new(std::env::current_exe()?)
        .args([HOLD, who])
        .arg(setting.folder())
        .arg(count.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("KiB "))
        .flat_map(|line| line.split(' ').flat_map(str::parse))
        .collect();
    match numbers[..] {
        [process, machine] => Ok(Cost { process, machine }),
        _ => Err(format!(
            "the process with machines of {who} failed: {}",
            output.status
        )
        .into()),
    }
}

/// Boots a machine, and then as many as are counted.
pub(crate) async fn hold(who: String, folder: PathBuf, count: u32) -> Result<bool> {
    let (before, after) = match who.as_str() {
        BLINK => {
            let ours = Ours::open(&folder).await?;
            let mut held = Vec::new();
            let mut before = None;
            for _ in 0..=count {
                let sandbox = ours.boot().await?;
                exec(&sandbox, &["/bin/true"]).await?;
                held.push(sandbox);
                if before.is_none() {
                    before = Some(memory().await?);
                }
            }
            let after = memory().await?;
            for sandbox in held {
                sandbox.remove().await?;
            }
            (before, after)
        }
        _ => {
            let bare = open_bare(&folder).await?;
            let mut held = Vec::new();
            let mut before = None;
            for _ in 0..=count {
                let machine = bare.boot().await?;
                machine.exec(&["/bin/true"]).await?;
                held.push(machine);
                if before.is_none() {
                    before = Some(memory().await?);
                }
            }
            let after = memory().await?;
            for machine in held {
                bare.remove(machine).await?;
            }
            (before, after)
        }
    };
    let (process, machines) = before.ok_or("no machine was booted")?;
    let each = |before: u64, after: u64| (after as f64 - before as f64) / f64::from(count);
    println!("KiB {} {}", each(process, after.0), each(machines, after.1));
    Ok(true)
}

/// Of this process, and of all that it has started, in KiB.
async fn memory() -> Result<(u64, u64)> {
    // What a boot has left behind is cleared away by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let own = rollup("self", "Private_Dirty")?;
    let mut machines = 0;
    let mut all = children("self");
    while let Some(process) = all.pop() {
        machines += rollup(&process, "Pss").unwrap_or(0);
        all.extend(children(&process));
    }
    Ok((own, machines))
}

fn rollup(process: &str, line: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    text.lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok())
        .ok_or_else(|| format!("/proc/{process}/smaps_rollup has no {line}").into())
}

fn children(process: &str) -> Vec<String> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_ascii_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}
