//! Many bytes: a program's output, and files.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use blink_core::{Command, Sandbox};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::bare::BareMachine;
use crate::measure::{MB, Rates, Result};
use crate::report::Row;
use crate::setting::{Machines, Setting};

const LENGTH: usize = 64 << 20;

/// Not below /tmp: BoxLite's copies go beneath what is mounted there.
const INSIDE: &str = "/var/tmp/file";

/// Enough like random bytes that nothing can shorten them.
pub(crate) fn random_bytes(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Lines of letters, as BoxLite's outputs are text.
fn random_text(length: usize) -> Vec<u8> {
    const LINE_BYTES: usize = 57;
    let mut text = Vec::with_capacity(length + 2 * LINE_BYTES);
    for line in random_bytes(length).chunks(LINE_BYTES) {
        let line = base64::engine::general_purpose::STANDARD.encode(line);
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
        if text.len() >= length {
            break;
        }
    }
    text.truncate(length);
    text
}

fn digest(chunks: &[impl AsRef<[u8]>]) -> String {
    let mut hasher = Sha256::new();
    chunks.iter().for_each(|chunk| hasher.update(chunk));
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A program's standard output, to its end.
pub(crate) async fn stdout(setting: &Setting, machines: &Machines) -> Result<Vec<Row>> {
    const TARGET: f64 = 0.75;
    let rounds = setting.pick(2, 1);
    let bytes = LENGTH as u64;
    let folder = setting.scratch("stdout")?;
    let (random, text) = (
        Bytes::from(random_bytes(LENGTH)),
        Bytes::from(random_text(LENGTH)),
    );
    let (random_digest, text_digest) = (digest(&[&random]), digest(&[&text]));
    let files = machines.sandbox.files()?;
    let file = folder.join("text");
    fs::write(&file, &text)?;
    machines.machine.copy_into(&file, INSIDE).await?;
    let inside_text = format!("{INSIDE}.text");
    files.write(INSIDE, random).await?;
    files.write(&inside_text, text).await?;

    let (mut ours, mut ours_text, mut bare) =
        (Rates::default(), Rates::default(), Rates::default());
    let mut whole = true;
    let mut lost = Vec::new();
    for _ in 0..rounds {
        let (time, chunks) = stream(&machines.sandbox, INSIDE).await?;
        let (text_time, text_chunks) = stream(&machines.sandbox, &inside_text).await?;
        whole &= digest(&chunks) == random_digest && digest(&text_chunks) == text_digest;
        drop((chunks, text_chunks));

        let start = Instant::now();
        let pieces = machines.machine.exec(&["/bin/cat", INSIDE]).await?;
        let bare_time = start.elapsed();
        let came: usize = pieces.iter().map(String::len).sum();
        lost.push(LENGTH.saturating_sub(came));
        ours.add(bytes, time);
        ours_text.add(bytes, text_time);
        // What came, not what was lost.
        bare.add(came as u64, bare_time);
    }
    lost.sort_unstable();
    let median_lost = lost[lost.len() / 2];
    for path in [INSIDE, &inside_text] {
        files.remove(path).await?;
    }
    machines.machine.exec(&["/bin/rm", INSIDE]).await?;

    let peer = "as much text through `LiteBox::exec`";
    let row = |what: &str, rates: &Rates| {
        Row::new(what, "whole, rate ≥ 0.75")
            .reached(mb(rates))
            .met(whole && rates.ratio(&bare) >= TARGET)
            .peer(peer, mb(&bare), rates.ratio(&bare))
            .value("mb_a_second", rates.median() / MB)
            .value("boxlite_mb_a_second", bare.median() / MB)
    };
    let arrived = match whole {
        true => "every byte there, by its SHA-256",
        false => "NOT every byte there, by its SHA-256",
    };
    let least_lost = lost.first().copied().unwrap_or_default();
    let most_lost = lost.last().copied().unwrap_or_default();
    Ok(vec![
        row("stdout of a program to the caller, 64 MiB of random bytes", &ours)
            .note(format!(
                "{arrived}; the peer lost {median_lost} bytes ({least_lost} to {most_lost}), and its rate counts what came"
            ))
            .value("boxlite_lost_bytes", median_lost as f64),
        row("the same, of the peer's text", &ours_text),
    ])
}

fn mb(rates: &Rates) -> String {
    format!("{:.1} MB/s", rates.median() / MB)
}

async fn stream(sandbox: &Sandbox, path: &str) -> Result<(Duration, Vec<Bytes>)> {
    let start = Instant::now();
    let mut process = sandbox.spawn(Command::new("/bin/cat").args([path])).await?;
    let mut output = process.take_stdout().ok_or("the output was taken")?;
    let mut chunks = Vec::new();
    while let Some(chunk) = output.chunk().await? {
        chunks.push(chunk);
    }
    let status = process.wait().await?;
    let time = start.elapsed();
    process.release().await?;
    match status.success() {
        true => Ok((time, chunks)),
        false => Err(format!("cat failed: {status:?}").into()),
    }
}

/// A file into the machine, and out of it.
pub(crate) async fn files(setting: &Setting, machines: &Machines) -> Result<Vec<Row>> {
    let rounds = setting.pick(2, 1);
    let bytes = LENGTH as u64;
    let folder = setting.scratch("files")?;
    let (source, target) = (folder.join("file"), folder.join("target"));
    let content = Bytes::from(random_bytes(LENGTH));
    fs::write(&source, &content)?;
    let files = machines.sandbox.files()?;

    let (mut into, mut out) = (Rates::default(), Rates::default());
    let (mut from_memory, mut to_memory) = (Rates::default(), Rates::default());
    let (mut bare_into, mut bare_out) = (Rates::default(), Rates::default());
    for _ in 0..rounds {
        let start = Instant::now();
        files.upload(&source, INSIDE).await?;
        let uploaded = start.elapsed();
        let start = Instant::now();
        files.download(INSIDE, &target).await?;
        let downloaded = start.elapsed();
        take_away(&target, &content)?;
        files.remove(INSIDE).await?;

        let (copied_in, copied_out) = copy_bare(&machines.machine, &source, &target).await?;
        take_away(&target, &content)?;
        machines.machine.exec(&["/bin/rm", INSIDE]).await?;

        let start = Instant::now();
        files.write(INSIDE, content.clone()).await?;
        let written = start.elapsed();
        let start = Instant::now();
        let read = files.read(INSIDE).await?;
        let read_time = start.elapsed();
        if read != content {
            return Err("the file came back changed".into());
        }
        files.remove(INSIDE).await?;
        into.add(bytes, uploaded);
        out.add(bytes, downloaded);
        from_memory.add(bytes, written);
        to_memory.add(bytes, read_time);
        bare_into.add(bytes, copied_in);
        bare_out.add(bytes, copied_out);
    }

    let row = |what: &str, peer: &str, ours: &Rates, bare: &Rates| {
        let ratio = ours.ratio(bare);
        Row::new(what, "at least as fast")
            .reached(mb(ours))
            .met(ratio >= 1.0)
            .peer(peer, mb(bare), ratio)
            .value("mb_a_second", ours.median() / MB)
            .value("boxlite_mb_a_second", bare.median() / MB)
    };
    let (copy_into, copy_out) = ("`copy_into`", "`copy_out`");
    Ok(vec![
        row("file in, 64 MiB, from a file", copy_into, &into, &bare_into),
        row("file out, 64 MiB, to a file", copy_out, &out, &bare_out),
        row(
            "file in, 64 MiB, from memory",
            copy_into,
            &from_memory,
            &bare_into,
        ),
        row(
            "file out, 64 MiB, to memory",
            copy_out,
            &to_memory,
            &bare_out,
        ),
    ])
}

async fn copy_bare(
    machine: &BareMachine,
    source: &Path,
    target: &Path,
) -> Result<(Duration, Duration)> {
    let start = Instant::now();
    machine.copy_into(source, INSIDE).await?;
    let copied_in = start.elapsed();
    let start = Instant::now();
    machine.copy_out(INSIDE, target).await?;
    Ok((copied_in, start.elapsed()))
}

fn take_away(target: &Path, content: &[u8]) -> Result<()> {
    if fs::read(target)? != content {
        return Err("the file came back changed".into());
    }
    Ok(fs::remove_file(target)?)
}
