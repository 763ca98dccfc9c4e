//! What keeps, copies and moves disks of machines that do not run.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use blink_core::Session;

use crate::bare::{Bare, BareMachine};
use crate::bulk::random_bytes;
use crate::inside::Inside as _;
use crate::measure::{Result, Samples, micros};
use crate::report::Row;
use crate::setting::{Machines, Setting};

/// Not below /tmp: BoxLite's copies go beneath what is mounted there.
const INSIDE: &str = "/var/tmp/file";

/// Blink's times and BoxLite's, of one thing.
#[derive(Default)]
struct Pair {
    ours: Samples,
    bare: Samples,
}

#[derive(Default)]
struct Pairs {
    checkpoint: Pair,
    restore: Pair,
    fork: Pair,
    export: Pair,
    import: Pair,
}

/// Each has a machine of its own that has written a file, and was stopped.
pub(crate) async fn of_a_small_disk(setting: &Setting, machines: &Machines) -> Result<Vec<Row>> {
    let rounds = setting.pick(15, 1);
    let mib = setting.pick(8, 1);
    let scratch = setting.scratch("sessions")?;
    let file = scratch.join("file");
    fs::write(&file, random_bytes(mib << 20))?;

    let session = machines.ours.session("measured").open().await?;
    session.files().await?.upload(&file, INSIDE).await?;
    session.stop().await?;
    let bare = &machines.bare;
    let machine = bare.boot().await?;
    machine.copy_into(&file, INSIDE).await?;
    let machine = bare.stop(machine).await?;

    let mut pairs = Pairs::default();
    for round in 0..rounds {
        let name = format!("round-{round}");
        // Whoever is second may find what the first has left in caches.
        if round % 2 == 0 {
            with_blink(machines, &session, &name, &scratch, &mut pairs).await?;
            with_boxlite(bare, &machine, &name, &scratch, &mut pairs).await?;
        } else {
            with_boxlite(bare, &machine, &name, &scratch, &mut pairs).await?;
            with_blink(machines, &session, &name, &scratch, &mut pairs).await?;
        }
    }
    session.remove().await?;
    bare.remove(machine).await?;

    let row = |what: &str, limit: f64, target: &str, peer: &str, pair: &Pair| {
        let ratio = pair.ours.ratio(&pair.bare);
        Row::new(format!("{what}, stopped, {mib} MiB written"), target)
            .reached(pair.ours.text())
            .met(ratio <= limit)
            .peer(peer, pair.bare.text(), ratio)
            .note(format!("{rounds} of each"))
            .value("p50_us", micros(pair.ours.median()))
            .value("boxlite_p50_us", micros(pair.bare.median()))
    };
    let (changes, archives) = ("at most 1.2 times", "at most as long");
    Ok(vec![
        row(
            "checkpoint",
            1.2,
            changes,
            "`snapshots().create`",
            &pairs.checkpoint,
        ),
        row(
            "restore",
            1.2,
            changes,
            "`snapshots().restore`",
            &pairs.restore,
        ),
        row("fork", 1.2, changes, "`clone_box`", &pairs.fork),
        row("export", 1.0, archives, "`LiteBox::export`", &pairs.export),
        row("import", 1.0, archives, "`import_box`", &pairs.import),
    ])
}

async fn with_blink(
    machines: &Machines,
    session: &Session,
    name: &str,
    scratch: &Path,
    pairs: &mut Pairs,
) -> Result<()> {
    let archive = scratch.join("blink.boxlite");
    let checkpoint = time(session.checkpoint(name)).await?;
    pairs.checkpoint.ours.add(checkpoint.0);
    pairs.restore.ours.add(time(session.restore(name)).await?.0);
    let (took, fork) = time(session.fork("fork")).await?;
    pairs.fork.ours.add(took);
    fork.remove().await?;
    pairs
        .export
        .ours
        .add(time(session.export(&archive)).await?.0);
    // Of the image that it was made from, which is there: BoxLite does not look for it either.
    let importing = machines.ours.imported("imported").import(&archive);
    let (took, imported) = time(importing).await?;
    pairs.import.ours.add(took);
    imported.remove().await?;
    Ok(fs::remove_file(archive)?)
}

async fn with_boxlite(
    bare: &Bare,
    machine: &BareMachine,
    name: &str,
    scratch: &Path,
    pairs: &mut Pairs,
) -> Result<()> {
    let archive = scratch.join("bare.boxlite");
    pairs
        .checkpoint
        .bare
        .add(time(machine.snapshot(name)).await?.0);
    pairs.restore.bare.add(time(machine.restore(name)).await?.0);
    let (took, copy) = time(machine.duplicate()).await?;
    pairs.fork.bare.add(took);
    bare.remove(copy).await?;
    pairs
        .export
        .bare
        .add(time(machine.export(&archive)).await?.0);
    let (took, imported) = time(bare.import(&archive)).await?;
    pairs.import.bare.add(took);
    bare.remove(imported).await?;
    Ok(fs::remove_file(archive)?)
}

async fn time<T, E>(
    work: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<(Duration, T), E> {
    let start = Instant::now();
    let value = work.await?;
    Ok((start.elapsed(), value))
}
