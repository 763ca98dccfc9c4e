//! The `blink` command: runs untrusted code in sandboxes.

mod arguments;
mod doctor;
mod failure;
mod images;
mod names;
mod options;
mod pool;
mod progress;
mod run;
mod sandbox;
mod session;
mod table;
mod time;
mod values;

use std::ffi::OsString;
use std::process::exit;

use clap::{CommandFactory, FromArgMatches};
use tracing_subscriber::EnvFilter;

use arguments::{Arguments, ImageTask, Task};
use failure::{EXIT_BLINK_FAILED, Failure};

/// What tells the log more precisely than `-v` does.
const LOG_VARIABLE: &str = "BLINK_LOG";

fn main() {
    let argv: Vec<OsString> = std::env::args_os().collect();
    // A session's name was an option once.
    let positional = names::positional(&argv);
    let (argv, parsed) = match (parse(&argv), positional) {
        (Err(_), Some(rewritten)) => {
            let parsed = parse(&rewritten);
            (rewritten, parsed)
        }
        (parsed, _) => (argv, parsed),
    };
    let code = match parsed {
        Ok(arguments) => carry_out(arguments, &argv),
        Err(error) => answer_unparsed(&error, &argv),
    };
    // Not a return: a thread may still wait for standard input, and nothing can wake it.
    exit(code)
}

fn parse(argv: &[OsString]) -> Result<Arguments, clap::Error> {
    let matches = Arguments::command().try_get_matches_from(argv)?;
    Arguments::from_arg_matches(&matches)
}

fn carry_out(arguments: Arguments, argv: &[OsString]) -> i32 {
    let json = arguments.task.json();
    let result = start_log(arguments.verbose).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::internal(format!("no threads could be started: {error}")))?;
        let home = arguments.home;
        match arguments.task {
            Task::Run(options) => runtime.block_on(run::run(*options, home, argv)),
            Task::Session { json, task } => {
                runtime.block_on(session::carry_out(*task, json, home, argv))
            }
            Task::Pool { task } => runtime.block_on(pool::carry_out(task, home, argv)),
            Task::Sandbox(task) => runtime.block_on(sandbox::carry_out(task, home, argv)),
            Task::Pull {
                image,
                registry,
                json,
            } => runtime.block_on(images::pull(image, registry, json, home)),
            Task::Images { json } => runtime.block_on(images::list(json, home)),
            Task::Rmi { images, json } => runtime.block_on(images::remove(images, json, home)),
            Task::Image {
                task: ImageTask::Prune { json },
            } => runtime.block_on(images::prune(json, home)),
            Task::Doctor { json } => runtime.block_on(doctor::doctor(json, home)),
            Task::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Arguments::command(), "blink", &mut script);
                failure::print_to_stdout(&script)
            }
            Task::Man { folder } => clap_mangen::generate_to(Arguments::command(), &folder)
                .map(|()| 0)
                .map_err(|error| Failure::internal(format!("{}: {error}", folder.display()))),
        }
    });
    result.unwrap_or_else(|failure| failure.report(json))
}

/// Help and versions go to standard output; what cannot be understood is Blink's failure, not a program's.
fn answer_unparsed(error: &clap::Error, argv: &[OsString]) -> i32 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    let text = error.render().to_string();
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return EXIT_BLINK_FAILED;
    }
    let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    let asked_json = argv
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--json");
    if asked_json {
        let first = message.lines().next().unwrap_or_default();
        return Failure::invalid(first).report(true);
    }
    failure::warn(message);
    EXIT_BLINK_FAILED
}

fn start_log(verbose: u8) -> Result<(), Failure> {
    let named = std::env::var(LOG_VARIABLE)
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter = match (&named, verbose) {
        (Some(filter), _) => filter,
        (None, 0) => return Ok(()),
        (None, 1) => "info",
        (None, _) => "debug",
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::invalid(format!(
            "{LOG_VARIABLE} is {filter:?}, which is no log filter: {error}"
        ))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}
