//! The Rust side of `bench/python`: does what the line says that it reads, and answers with a line of numbers.
//!
//! `exec N` runs a program N times and gives microseconds; `stdout BYTES` reads so much of a program's output by chunks,
//! and gives seconds; `many N` runs N programs at once, and gives seconds.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

use blink_core::{Blink, Command, IsolationChoice, Sandbox};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let blink = Blink::builder()
        .isolation(IsolationChoice::Namespace)
        .build()
        .await?;
    let sandbox = Arc::new(blink.sandbox().create().await?);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (what, count) = line.split_once(' ').ok_or("what, and how many?")?;
        let numbers = match what {
            "exec" => exec(&sandbox, count.parse()?).await?,
            "stdout" => vec![stdout(&sandbox, count).await?],
            "many" => vec![many(&sandbox, count.parse()?).await?],
            _ => return Err("there is no such measurement".into()),
        };
        let numbers: Vec<String> = numbers.iter().map(f64::to_string).collect();
        println!("{}", numbers.join(" "));
        std::io::stdout().flush()?;
    }
    // Dropping it removes it.
    drop(sandbox);
    Ok(())
}

async fn exec(sandbox: &Sandbox, count: usize) -> blink_core::Result<Vec<f64>> {
    let mut microseconds = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        sandbox.exec(Command::new("/bin/true")).await?;
        microseconds.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(microseconds)
}

async fn stdout(sandbox: &Sandbox, bytes: &str) -> blink_core::Result<f64> {
    let started = Instant::now();
    let command = Command::new("head").args(["-c", bytes, "/dev/zero"]);
    let mut process = sandbox.spawn(command).await?;
    let mut read = 0;
    if let Some(mut output) = process.take_stdout() {
        while let Some(chunk) = output.chunk().await? {
            read += chunk.len();
        }
    }
    assert_eq!(read.to_string(), bytes);
    Ok(started.elapsed().as_secs_f64())
}

async fn many(sandbox: &Arc<Sandbox>, count: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..count {
        let sandbox = sandbox.clone();
        running.spawn(async move { sandbox.exec(Command::new("/bin/true")).await });
    }
    while let Some(output) = running.join_next().await {
        assert!(output??.status.success());
    }
    Ok(started.elapsed().as_secs_f64())
}
