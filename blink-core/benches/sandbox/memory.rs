//! Memory of the host and of the agent, and the agent's size.

use std::fs;
use std::time::Duration;

use blink_core::Command;

use crate::measure::{MB, Result};
use crate::report::Row;
use crate::setting::{Setting, status_kib};

const KIB_IN_MIB: f64 = 1024.0;

/// Growth that is no growth: what an allocator and a reading of `/proc` do anyway.
const FLAT_KIB: u64 = 256;

/// A program that writes without end, and nobody who reads.
pub(crate) async fn of_an_unread_program(setting: &Setting) -> Result<Vec<Row>> {
    const LIMIT_KIB: u64 = 64 << 10;
    let agent = setting.process("agent")?.to_string();
    let memory = || -> Result<(u64, u64)> {
        Ok((status_kib("self", "VmRSS")?, status_kib(&agent, "VmRSS")?))
    };
    let before = memory()?;
    let process = setting.sandbox.spawn(Command::new("yes")).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let early = memory()?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let late = memory()?;
    process.kill().await?;
    process.release().await?;

    let mib = |kib: u64| kib as f64 / KIB_IN_MIB;
    let row = |what: &str, target: &str, [before, early, late]: [u64; 3], limit: u64| {
        Row::new(what, target)
            .reached(format!("{:.1} MiB, then {:.1} MiB", mib(early), mib(late)))
            .met(late <= limit && late <= early + FLAT_KIB)
            .no_peer("before it ran", &format!("{:.1} MiB", mib(before)))
            .note("RSS after 1 s and after 5 s")
            .value("before_mib", mib(before))
            .value("after_1_s_mib", mib(early))
            .value("after_5_s_mib", mib(late))
    };
    Ok(vec![
        row(
            "host memory with `yes` running and nobody reading",
            "flat, under 64 MiB",
            [before.0, early.0, late.0],
            LIMIT_KIB,
        ),
        row(
            "the agent's memory meanwhile",
            "flat",
            [before.1, early.1, late.1],
            u64::MAX,
        ),
    ])
}

/// The agent of a sandbox in which nothing has run yet.
pub(crate) async fn of_the_agent(setting: &Setting) -> Result<Vec<Row>> {
    const SIZE_LIMIT_BYTES: u64 = 1_500_000;
    const MEMORY_LIMIT_BYTES: u64 = 3_000_000;
    let agent = setting.process("agent")?;
    let bytes = fs::metadata(format!("/proc/{agent}/exe"))?.len();
    let size = Row::new("agent: binary", "≤ 1.5 MB")
        .reached(format!("{:.2} MB", bytes as f64 / MB))
        .met(bytes <= SIZE_LIMIT_BYTES)
        .value("bytes", bytes as f64);

    let fresh = setting.blink.sandbox().create().await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let agent = setting.process_of(&fresh, "agent")?.to_string();
    let resident = status_kib(&agent, "VmRSS")? * 1024;
    let own = status_kib(&agent, "RssAnon")? * 1024;
    fresh.remove().await?;
    let memory = Row::new("agent: memory at rest", "< 3 MB")
        .reached(format!("{:.2} MB", resident as f64 / MB))
        .met(resident < MEMORY_LIMIT_BYTES)
        .note(format!(
            "RSS; {:.2} MB of it its own, the rest the program's pages, which all sandboxes share",
            own as f64 / MB
        ))
        .value("rss_bytes", resident as f64)
        .value("anonymous_bytes", own as f64);
    Ok(vec![size, memory])
}
