//! `blink pool`: pools that a process in the background keeps, and what becomes of them.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use blink_core::{Blink, Command, ErrorKind, Latency, Pool, PoolStats, WhenEmpty};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::failure::{Failure, print_event, print_json, print_text, print_to_stdout, to_json};
use crate::options::{RegistryArguments, SandboxOptions};
use crate::run::signals::{Caught, Signals};
use crate::{progress, table, values};

/// How long a pool is waited for that drains, unless told otherwise.
const DRAIN_PATIENCE: &str = "60s";

#[derive(Debug, Subcommand)]
pub(crate) enum PoolTask {
    /// Create a pool: a process in the background keeps sandboxes booted, for 'blink run --pool' and programs
    ///
    /// Returns once the pool is full. The process runs until 'blink pool drain' or 'blink pool rm'. Needs --isolation namespace:
    /// a micro-VM cannot be handed to another process.
    #[command(after_help = "Examples:
  blink pool create workers --isolation namespace --image host --size 8
  blink pool create py --isolation namespace --image python:3.12-slim \\
      --warmup 'pip install requests' --prepare 'python3 -m compileall -q /srv'
  blink run --pool workers -- uname -a")]
    Create(Box<CreateOptions>),
    /// List the pools of this home
    #[command(visible_alias = "list")]
    Ls {
        /// Print a JSON array of what 'blink pool stats --json' prints
        #[arg(long)]
        json: bool,
    },
    /// Show what has happened in a pool, and what it has now
    Stats {
        /// The pool
        name: String,
        /// Print one line of JSON: {"name":…,"idle":…,"claimed":…,"hits":…,"claim_latency":{"p50_us":…},…}
        #[arg(long)]
        json: bool,
        /// Print OpenMetrics text, as Prometheus reads it
        #[arg(long, conflicts_with = "json")]
        openmetrics: bool,
    },
    /// Close a pool, and wait until its claimed sandboxes are gone
    Drain {
        /// The pool
        name: String,
        /// How long to wait; the pool is closed in any case
        #[arg(long, value_parser = values::timeout, default_value = DRAIN_PATIENCE)]
        timeout: Duration,
        /// Print one line of JSON: {"event":"pool_drained","name":…}
        #[arg(long)]
        json: bool,
    },
    /// Remove a pool; claimed sandboxes stay with whoever has them
    Rm {
        /// The pools
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Print one line of JSON for each: {"event":"pool_removed","name":…}
        #[arg(long)]
        json: bool,
    },
    /// Keep a pool in the foreground
    #[command(hide = true)]
    Keep(Box<CreateOptions>),
}

impl PoolTask {
    pub(crate) fn json(&self) -> bool {
        match self {
            PoolTask::Create(options) | PoolTask::Keep(options) => options.json,
            PoolTask::Ls { json }
            | PoolTask::Stats { json, .. }
            | PoolTask::Drain { json, .. }
            | PoolTask::Rm { json, .. } => *json,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CreateOptions {
    /// The pool's name
    pub(crate) name: String,
    /// Sandboxes that are ready at any time
    #[arg(long, default_value_t = 1)]
    pub(crate) size: usize,
    /// Sandboxes in all: ready, booting and claimed [default: the size and 64]
    #[arg(long)]
    pub(crate) max: Option<usize>,
    /// Replace a sandbox that nobody has claimed for so long after its boot
    #[arg(long, value_name = "TIME", value_parser = values::timeout)]
    pub(crate) max_age: Option<Duration>,
    /// Keep no sandbox ready once nobody has claimed any for so long
    #[arg(long, value_name = "TIME", value_parser = values::timeout)]
    pub(crate) max_idle: Option<Duration>,
    /// Boots at once while no claim waits [default: half of the processors]
    #[arg(long, value_name = "BOOTS")]
    pub(crate) refill: Option<usize>,
    /// Have a claim wait for the next sandbox if none is ready, instead of booting one
    #[arg(long)]
    pub(crate) wait: bool,
    /// Keep the number of sandboxes the same: reset a released one, instead of booting another for each claim
    #[arg(long)]
    pub(crate) reset: bool,
    /// Run a shell command once; all sandboxes share the disk that it leaves. May be repeated
    #[arg(long, value_name = "COMMAND")]
    pub(crate) warmup: Vec<OsString>,
    /// Run a shell command in each sandbox before it is ready. May be repeated
    #[arg(long, value_name = "COMMAND")]
    pub(crate) prepare: Vec<OsString>,
    /// Start a shell command in each sandbox, which goes on. May be repeated
    #[arg(long, value_name = "COMMAND")]
    pub(crate) start: Vec<OsString>,
    /// Start the interpreter of a language in each sandbox, where it waits for code: python. May be repeated
    #[arg(long, value_name = "LANGUAGE")]
    pub(crate) interpreter: Vec<String>,
    /// How long a command of --warmup or --prepare may take [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = values::timeout)]
    pub(crate) warmup_timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
    /// Print one line of JSON: {"event":"pool_created","name":…,"size":…,…}
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn carry_out(
    task: PoolTask,
    home: Option<PathBuf>,
    argv: &[OsString],
) -> Result<i32, Failure> {
    match task {
        PoolTask::Create(options) => create(&options, argv).await,
        PoolTask::Keep(options) => keep(*options, home).await,
        PoolTask::Ls { json } => {
            let pools = open(home).await?.pools().await;
            match json {
                true => print_json(&to_json(&pools)?),
                false => print_text(&listed(&pools)),
            }
        }
        PoolTask::Stats {
            name,
            json,
            openmetrics,
        } => {
            let stats = open(home).await?.open_pool(name).await?.stats().await?;
            match (json, openmetrics) {
                (true, _) => print_json(&to_json(&stats)?),
                (_, true) => print_to_stdout(stats.to_openmetrics().as_bytes()),
                _ => print_text(&told(&stats)),
            }
        }
        PoolTask::Drain {
            name,
            timeout,
            json,
        } => {
            let pool = open(home).await?.open_pool(&name).await?;
            progress::shown("draining the pool", pool.drain(timeout)).await?;
            print_done("pool_drained", &name, json)
        }
        PoolTask::Rm { names, json } => remove(names, json, home).await,
    }
}

/// Removes pools. What can be removed is, whatever becomes of the rest.
async fn remove(names: Vec<String>, json: bool, home: Option<PathBuf>) -> Result<i32, Failure> {
    let blink = open(home).await?;
    let mut failure = None;
    for name in names {
        let removed = async { blink.open_pool(&name).await?.drain(Duration::ZERO).await }.await;
        match removed {
            // What was claimed stays with whoever has it.
            Err(error) if error.kind() != ErrorKind::Timeout => {
                let error = Failure::from(error);
                match failure {
                    None => failure = Some(error),
                    Some(_) => drop(error.report(json)),
                }
            }
            _ => drop(print_done("pool_removed", &name, json)?),
        }
    }
    failure.map_or(Ok(0), Err)
}

/// Starts a process that keeps the pool, and waits until it has said that it does.
async fn create(options: &CreateOptions, argv: &[OsString]) -> Result<i32, Failure> {
    let failed = |error: std::io::Error| Failure::internal(format!("the pool's process: {error}"));
    let words = argv.iter().skip(1).cloned();
    let place = argv
        .windows(2)
        .position(|words| words[0] == "pool" && words[1] == "create")
        .ok_or_else(|| Failure::internal("the command line has no 'pool create'"))?;
    let words: Vec<OsString> = words
        .enumerate()
        .map(|(at, word)| if at == place { "keep".into() } else { word })
        .collect();
    let mut keeper = std::process::Command::new(std::env::current_exe().map_err(failed)?)
        .args(words)
        .args((!options.json).then_some("--json"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut stdout = keeper.stdout.take();
    let answer = progress::shown("filling the pool", async move {
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            let read = stdout
                .as_mut()
                .map_or(Ok(0), |stdout| stdout.read_to_string(&mut text));
            read.map(|_| text)
        });
        reading.await
    });
    let answer = answer
        .await
        .map_err(|error| failed(error.into()))?
        .map_err(failed)?;
    let event: serde_json::Value = serde_json::from_str(answer.trim())
        .map_err(|_| Failure::internal("the pool's process has ended without a word"))?;
    if event["event"] == "error" {
        // Its message is on standard error already.
        if options.json {
            print_json(&event)?;
        }
        return Ok(crate::failure::EXIT_BLINK_FAILED);
    }
    match options.json {
        true => print_json(&event),
        false => print_text(&format!(
            "the pool {} has {} sandboxes ready (pid {})\n",
            options.name, event["idle"], event["pid"]
        )),
    }
}

/// Keeps a pool until it is closed, or a signal ends it. Its terminal may go.
async fn keep(options: CreateOptions, home: Option<PathBuf>) -> Result<i32, Failure> {
    let mut signals = Signals::catch()?;
    let pool = build(options, home).await?;
    pool.ready().await?;
    let mut event = to_json(&pool.stats())?;
    event["pid"] = json!(std::process::id());
    print_event("pool_created", &event)?;
    // Whoever waits for this has heard all of it.
    leave_streams()
        .map_err(|error| Failure::internal(format!("the streams cannot be left: {error}")))?;
    loop {
        tokio::select! {
            () = pool.closed() => return Ok(0),
            signal = signals.ending() => if signal != Caught::Hangup {
                pool.close().await;
                return Ok(0);
            }
        }
    }
}

/// Has standard output and error lead nowhere.
fn leave_streams() -> std::io::Result<()> {
    let nowhere = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    rustix::stdio::dup2_stderr(&nowhere)?;
    Ok(())
}

async fn build(options: CreateOptions, home: Option<PathBuf>) -> Result<Pool, Failure> {
    let CreateOptions {
        name,
        size,
        max,
        max_age,
        max_idle,
        refill,
        wait,
        reset,
        warmup,
        prepare,
        start,
        interpreter,
        warmup_timeout,
        mut sandbox,
        json: _,
    } = options;
    let registry: RegistryArguments = std::mem::take(&mut sandbox.registry);
    let blink = registry.open(home).await?;
    let mut spec = sandbox.spec()?;
    spec.image = Some(sandbox.image().to_owned());
    let mut builder = blink.pool(spec).name(name).shared(true).size(size);
    if let Some(max) = max {
        builder = builder.max(max);
    }
    if let Some(age) = max_age {
        builder = builder.max_age(age);
    }
    if let Some(idle) = max_idle {
        builder = builder.max_idle(idle);
    }
    if let Some(boots) = refill {
        builder = builder.refill(boots);
    }
    if let Some(timeout) = warmup_timeout {
        builder = builder.warmup_timeout(timeout);
    }
    if wait {
        builder = builder.when_empty(WhenEmpty::Wait);
    }
    for script in warmup {
        builder = builder.warmup(Command::shell(script));
    }
    for script in prepare {
        builder = builder.prepare(Command::shell(script));
    }
    for script in start {
        builder = builder.start(Command::shell(script));
    }
    for language in interpreter {
        builder = builder.interpreter(language);
    }
    Ok(builder.reset_on_release(reset).build().await?)
}

async fn open(home: Option<PathBuf>) -> Result<Blink, Failure> {
    Ok(RegistryArguments::default().open(home).await?)
}

fn print_done(event: &str, name: &str, json: bool) -> Result<i32, Failure> {
    match json {
        true => print_event(event, &json!({ "name": name })),
        false => print_text(&format!("{name}\n")),
    }
}

fn listed(pools: &[PoolStats]) -> String {
    let rows = pools.iter().map(|pool| {
        [
            pool.name.clone().unwrap_or_default(),
            format!("{}/{}", pool.idle, pool.size),
            pool.claimed.to_string(),
            pool.waiting.to_string(),
            (pool.hits + pool.misses).to_string(),
            pool.last_failure.clone().unwrap_or_default(),
        ]
    });
    let titles = [
        "NAME",
        "READY",
        "CLAIMED",
        "WAITING",
        "CLAIMS",
        "LAST FAILURE",
    ];
    table::lines(titles, rows)
}

/// For people.
fn told(stats: &PoolStats) -> String {
    let time = |us: u64| match us {
        ..1000 => format!("{us} µs"),
        _ => format!("{:.1} ms", Duration::from_micros(us).as_secs_f64() * 1e3),
    };
    let latency = |name: &str, latency: &Latency| {
        let [p50, p95, p99, most] = [
            latency.p50_us,
            latency.p95_us,
            latency.p99_us,
            latency.max_us,
        ]
        .map(time);
        [
            name.to_owned(),
            latency.count.to_string(),
            p50,
            p95,
            p99,
            most,
        ]
    };
    let rows = [
        latency("claim", &stats.claim_latency),
        latency("boot", &stats.boot_latency),
        latency("removal", &stats.removal_latency),
    ];
    let mut text = format!(
        "ready {} of {}, booting {}, claimed {}, waiting {}; at most {}\n\
         hits {}, misses {}, failed claims {}; failed boots {}, refused {}, died {}, retired {}, reset {}\n",
        stats.idle,
        stats.size,
        stats.booting,
        stats.claimed,
        stats.waiting,
        stats.max,
        stats.hits,
        stats.misses,
        stats.failed_claims,
        stats.failed_boots,
        stats.refused,
        stats.deaths,
        stats.retired,
        stats.resets,
    );
    if let Some(failure) = &stats.last_failure {
        text += &format!("last failure: {failure}\n");
    }
    text += &table::lines(["", "COUNT", "P50", "P95", "P99", "MAX"], rows.into_iter());
    text
}
