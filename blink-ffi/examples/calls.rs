//! The Rust side of `bench/c`: does what the line says that it reads, and answers with a line of microseconds.
//!
//! `exec N` runs a program N times, `ping N` asks the sandbox's agent N times for a sign of life, and `look N` looks N
//! times at what the library knows itself, a thousand times each.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use blink_core::{Blink, Command, IsolationChoice, Sandbox};

/// What takes nanoseconds is done so often for one number.
const AT_ONCE: u32 = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let blink = Blink::builder()
        .isolation(IsolationChoice::Namespace)
        .build()
        .await?;
    let sandbox = blink.sandbox().create().await?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (what, count) = line.split_once(' ').ok_or("what, and how often?")?;
        let mut numbers = Vec::new();
        for _ in 0..count.parse()? {
            numbers.push(one(&sandbox, what).await?.to_string());
        }
        println!("{}", numbers.join(" "));
        std::io::stdout().flush()?;
    }
    sandbox.remove().await?;
    Ok(())
}

async fn one(sandbox: &Sandbox, what: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let mut calls = 1;
    match what {
        "exec" => drop(black_box(sandbox.exec(Command::new("/bin/true")).await?)),
        "ping" => sandbox.ping().await?,
        "look" => {
            calls = AT_ONCE;
            for _ in 0..calls {
                black_box(black_box(sandbox).isolation().name());
            }
        }
        _ => return Err("there is no such measurement".into()),
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(calls))
}
