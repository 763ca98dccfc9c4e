//! Many bytes: a program's output, and files.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use blink_core::Command;
use bytes::Bytes;

use crate::measure::{GB, GIB, MB, Rates, Result, timed};
use crate::peers::host_command;
use crate::report::Row;
use crate::setting::Setting;

/// What a reader takes at once, here as in Blink.
const PIECE: usize = 128 << 10;

/// Makes this program one that writes random bytes, prepared in memory, to its standard output.
pub(crate) const WRITE_RANDOM: &str = "--write-random";

pub(crate) fn write_random(bytes: &str) -> Result<()> {
    let piece = random_bytes(PIECE);
    // Past the standard library's buffer, which looks for line ends.
    let mut out = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let mut left: usize = bytes.parse()?;
    while left > 0 {
        let count = left.min(PIECE);
        out.write_all(&piece[..count])?;
        left -= count;
    }
    Ok(())
}

/// Where this program is in the sandbox.
const SELF_IN_SANDBOX: &str = "/opt/bench";

/// Enough like random bytes that nothing can shorten them.
fn random_bytes(length: usize) -> Vec<u8> {
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

/// A program's standard output, to its end.
pub(crate) async fn stdout(setting: &Setting) -> Result<Vec<Row>> {
    let rounds = setting.pick(7, 2);
    let streamed: u64 = setting.pick(1 << 30, 128 << 20);
    let captured: u64 = setting.pick(256 << 20, 64 << 20);
    let this = std::env::current_exe()?;
    let files = setting.sandbox.files()?;
    files.upload(&this, SELF_IN_SANDBOX).await?;
    let this = this.to_string_lossy();
    let programs = [
        ("`head -c` of zeros", "head", "head", "-c", "/dev/zero"),
        (
            "random bytes from memory",
            SELF_IN_SANDBOX,
            &*this,
            WRITE_RANDOM,
            "",
        ),
    ];
    let mut rows = Vec::new();
    for (name, inside, outside, option, last) in programs {
        let words = |bytes: u64| {
            let mut words = vec![option.to_owned(), bytes.to_string()];
            words.extend((!last.is_empty()).then(|| last.to_owned()));
            words
        };
        let (mut ours, mut piped) = (Rates::default(), Rates::default());
        for round in 0..=rounds {
            let time = stream(setting, inside, words(streamed), streamed).await?;
            let (peer, ()) = timed(|| read_pipe(outside, &words(streamed), streamed))?;
            if round > 0 {
                ours.add(streamed, time);
                piped.add(streamed, peer);
            }
        }
        rows.push(
            row(
                format!("stdout of a program to the caller: {name}"),
                &ours,
                &piped,
            )
            .note(format!(
                "{} MiB by chunks, thrown away; {}",
                streamed >> 20,
                ours.spread()
            )),
        );

        let (mut ours, mut piped) = (Rates::default(), Rates::default());
        for round in 0..=rounds {
            let time = capture(setting, inside, words(captured), captured).await?;
            let (peer, ()) = timed(|| {
                let output = host_command(outside).args(words(captured)).output()?;
                expect(output.stdout.len() as u64, captured)
            })?;
            if round > 0 {
                ours.add(captured, time);
                piped.add(captured, peer);
            }
        }
        rows.push(
            row(
                format!("the same, captured by `exec`: {name}"),
                &ours,
                &piped,
            )
            .note(format!(
                "{} MiB in one piece; {}",
                captured >> 20,
                ours.spread()
            )),
        );
    }
    Ok(rows)
}

fn row(what: String, ours: &Rates, piped: &Rates) -> Row {
    Row::new(what, "≥ 1 GiB/s")
        .reached(format!("{:.2} GiB/s", ours.median() / GIB))
        .met(ours.median() >= GIB)
        .peer(
            "a pipe on the host",
            format!("{:.2} GiB/s", piped.median() / GIB),
            ours.ratio(piped),
        )
        .value("gib_a_second", ours.median() / GIB)
        .value("pipe_gib_a_second", piped.median() / GIB)
}

async fn stream(
    setting: &Setting,
    program: &str,
    words: Vec<String>,
    bytes: u64,
) -> Result<Duration> {
    let start = Instant::now();
    let command = Command::new(program).args(words);
    let mut process = setting.sandbox.spawn(command).await?;
    let mut output = process.take_stdout().ok_or("the output was taken")?;
    let mut count = 0;
    while let Some(chunk) = output.chunk().await? {
        count += chunk.len() as u64;
    }
    let status = process.wait().await?;
    let time = start.elapsed();
    process.release().await?;
    if !status.success() {
        return Err(format!("{program} failed: {status:?}").into());
    }
    expect(count, bytes)?;
    Ok(time)
}

async fn capture(
    setting: &Setting,
    program: &str,
    words: Vec<String>,
    bytes: u64,
) -> Result<Duration> {
    let command = Command::new(program).args(words).output_limit_bytes(bytes);
    let start = Instant::now();
    let output = setting.sandbox.exec(command).await?;
    let time = start.elapsed();
    expect(output.stdout.len() as u64, bytes)?;
    Ok(time)
}

fn read_pipe(program: &str, words: &[String], bytes: u64) -> Result<()> {
    let mut child = host_command(program)
        .args(words)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().ok_or("the child has no output")?;
    let mut buffer = vec![0; PIECE];
    let mut count = 0;
    loop {
        match output.read(&mut buffer)? {
            0 => break,
            length => count += length as u64,
        }
    }
    child.wait()?;
    expect(count, bytes)
}

fn expect(count: u64, expected: u64) -> Result<()> {
    match count == expected {
        true => Ok(()),
        false => Err(format!("{count} bytes came instead of {expected}").into()),
    }
}

/// One way of a file: Blink's time, beside those of its peers.
#[derive(Default)]
struct Way {
    ours: Rates,
    piped: Rates,
    copied: Rates,
}

/// A large file into the sandbox, and out of it.
pub(crate) async fn files(setting: &Setting) -> Result<Vec<Row>> {
    let rounds = setting.pick(7, 2);
    let length: usize = setting.pick(256_000_000, 64_000_000);
    let bytes = length as u64;
    let folder = setting.scratch("files")?;
    let (source, target) = (folder.join("source"), folder.join("target"));
    let content = Bytes::from(random_bytes(length));
    fs::write(&source, &content)?;
    let files = setting.sandbox.files()?;
    let inside = "/var/tmp/file";

    let (mut into, mut out) = (Way::default(), Way::default());
    let (mut from_memory, mut to_memory) = (Rates::default(), Rates::default());
    for round in 0..=rounds {
        let warm = round > 0;
        for way in [&mut into, &mut out] {
            let (piped, ()) = timed(|| copy_through_pipe(&source, &target))?;
            fs::remove_file(&target)?;
            let (copied, _) = timed(|| Ok(fs::copy(&source, &target)?))?;
            fs::remove_file(&target)?;
            if warm {
                way.piped.add(bytes, piped);
                way.copied.add(bytes, copied);
            }
        }
        let start = Instant::now();
        files.upload(&source, inside).await?;
        let uploaded = start.elapsed();
        let start = Instant::now();
        files.download(inside, &target).await?;
        let downloaded = start.elapsed();
        expect(fs::metadata(&target)?.len(), bytes)?;
        fs::remove_file(&target)?;
        files.remove(inside).await?;

        let start = Instant::now();
        files.write(inside, content.clone()).await?;
        let written = start.elapsed();
        let start = Instant::now();
        let read = files.read(inside).await?;
        let read_time = start.elapsed();
        if read != content {
            return Err("the file came back changed".into());
        }
        files.remove(inside).await?;
        if warm {
            into.ours.add(bytes, uploaded);
            out.ours.add(bytes, downloaded);
            from_memory.add(bytes, written);
            to_memory.add(bytes, read_time);
        }
    }

    let megabytes = bytes / 1_000_000;
    let row = |what: String, ours: &Rates, way: &Way| {
        const TARGET: f64 = 500.0 * MB;
        Row::new(what, "≥ 500 MB/s")
            .reached(format!("{:.0} MB/s", ours.median() / MB))
            .met(ours.median() >= TARGET)
            .peer(
                "through a pipe on the host",
                format!("{:.0} MB/s", way.piped.median() / MB),
                ours.ratio(&way.piped),
            )
            .peer(
                "copied by the kernel",
                format!("{:.0} MB/s", way.copied.median() / MB),
                ours.ratio(&way.copied),
            )
            .note(ours.spread())
            .value("mb_a_second", ours.median() / MB)
            .value("gb_a_second", ours.median() / GB)
            .value("pipe_mb_a_second", way.piped.median() / MB)
            .value("copy_mb_a_second", way.copied.median() / MB)
    };
    Ok(vec![
        row(
            format!("file in, {megabytes} MB, from a file"),
            &into.ours,
            &into,
        ),
        row(
            format!("file out, {megabytes} MB, to a file"),
            &out.ours,
            &out,
        ),
        row(
            format!("file in, {megabytes} MB, from memory"),
            &from_memory,
            &into,
        ),
        row(
            format!("file out, {megabytes} MB, to memory"),
            &to_memory,
            &out,
        ),
    ])
}

/// What `cat source | cat > target` does.
fn copy_through_pipe(source: &Path, target: &Path) -> Result<()> {
    let (mut reader, mut writer) = std::io::pipe()?;
    let (mut source, mut target) = (File::open(source)?, File::create(target)?);
    let sending = std::thread::spawn(move || copy_pieces(&mut source, &mut writer));
    copy_pieces(&mut reader, &mut target)?;
    Ok(sending
        .join()
        .map_err(|_| "the sending thread panicked")??)
}

/// Through memory: the standard library's copy would leave it to the kernel.
fn copy_pieces(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
