//! Exporting and importing a large disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::measure::{MB, Rates, Result, timed};
use crate::report::Row;
use crate::setting::{Setting, blink_at, run};

/// As Blink's own.
const LEVEL: &str = "-3";

#[derive(Default)]
struct Rounds {
    export: Rates,
    import: Rates,
    packed: Rates,
    unpacked: Rates,
}

pub(crate) async fn of_a_large_disk(setting: &Setting) -> Result<Vec<Row>> {
    const LIMIT: f64 = 200.0;
    let rounds = setting.pick(3, 1);
    let session = setting.large().await?;
    session.restore("filled").await?;
    let bytes = setting.large_mib() as u64 * (1 << 20);
    let scratch = setting.scratch("archives")?;
    let (archive, tar) = (scratch.join("large.boxlite"), scratch.join("large.tar.zst"));
    let disk = largest(&setting.home().join("layers"))?;
    let other = blink_at(&scratch.join("home")).await?;
    let mut rates = Rounds::default();
    for _ in 0..rounds {
        let start = Instant::now();
        session.export(&archive).await?;
        rates.export.add(bytes, start.elapsed());
        // Both on the disk at the end, as Blink's is.
        let pack = "tar -C \"$0\" -cf - . | zstd -q -f \"$2\" -o \"$1\" && sync \"$1\"";
        let (time, ()) = timed(|| shell(pack, &disk, &tar))?;
        rates.packed.add(bytes, time);

        let start = Instant::now();
        let imported = other.session("imported").import(&archive).await?;
        rates.import.add(bytes, start.elapsed());
        imported.remove().await?;
        let folder = setting.scratch("unpacked")?;
        let unpack = "zstd -q -d -c \"$1\" | tar -C \"$0\" -xf - && sync -f \"$0\"";
        let (time, ()) = timed(|| shell(unpack, &folder, &tar))?;
        rates.unpacked.add(bytes, time);
        fs::remove_dir_all(folder)?;
    }
    let compressed = fs::metadata(&archive)?.len() as f64 / bytes as f64;
    let peer = format!("`tar` with `zstd {LEVEL}`");
    let row = |what: &str, rates: &Rates, peers: &Rates| {
        let rate = rates.median() / MB;
        Row::new(format!("{what}, {} MiB", setting.large_mib()), "≥ 200 MB/s")
            .reached(format!("{rate:.0} MB/s"))
            .met(rate >= LIMIT)
            .peer(
                &peer,
                format!("{:.0} MB/s", peers.median() / MB),
                rates.ratio(peers),
            )
            .value("mb_per_s", rate)
    };
    Ok(vec![
        row("export", &rates.export, &rates.packed).note(format!(
            "{rounds} of each; three quarters of it in files of 32 MiB, the rest in files of 16 KiB; packed to {:.0} %; \
             {}",
            compressed * 100.0,
            rates.export.spread()
        )),
        row("import", &rates.import, &rates.unpacked).note(format!(
            "checked whole before anything is unpacked, which the peer does not do; {}",
            rates.import.spread()
        )),
    ])
}

fn shell(script: &str, folder: &Path, file: &Path) -> Result<()> {
    run("sh", |command| {
        command
            .args(["-c", script])
            .arg(folder)
            .arg(file)
            .arg(LEVEL)
    })
}

/// The layer that holds the data.
fn largest(layers: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(layers)? {
        let layer = entry?.path();
        for upper in ["upper.trusted", "upper"] {
            let upper = layer.join(upper);
            if upper.join("data/large-0").is_file() {
                return Ok(upper);
            }
        }
    }
    Err("no layer holds the data".into())
}
