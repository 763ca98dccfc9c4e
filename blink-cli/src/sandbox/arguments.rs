//! What the user can ask of sandboxes and sessions alike.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use crate::options::ProgramOptions;
use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxTask {
    /// List running sessions and sandboxes
    Ps {
        /// List stopped sessions too
        #[arg(short, long)]
        all: bool,
        #[command(flatten)]
        how: How,
    },
    /// Run a script, or a command of its image, in a session or sandbox
    ///
    /// The same as 'blink session run', also for sandboxes that a program has detached. Exits with the program's exit code.
    #[command(
        override_usage = "blink exec NAME [OPTIONS] SCRIPT [ARGS…]\n       blink exec NAME [OPTIONS] -- COMMAND [ARGS…]",
        after_help = "Example:
  blink exec work --timeout 30s -- python3 -c 'print(6 * 7)'"
    )]
    Exec {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: ProgramOptions,
        #[command(flatten)]
        how: How,
        /// A script or program of this machine with its arguments; or, after --, a command of the image
        #[arg(
            value_name = "SCRIPT",
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_hint = clap::ValueHint::CommandWithArguments
        )]
        words: Vec<OsString>,
    },
    /// Stop a session; its disk stays
    Stop {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        how: How,
    },
    /// Start a warm session
    Start {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        how: How,
    },
    /// Stop a session at once, or remove a sandbox; with PROCESS, kill only that process
    Kill {
        #[command(flatten)]
        target: Target,
        /// A process that 'blink session spawn' started in the session
        process: Option<u64>,
        /// Send this signal to the process: TERM, SIGTERM or 15 [default: kill everything it started]
        #[arg(long, value_parser = values::signal, requires = "process")]
        signal: Option<u8>,
        #[command(flatten)]
        how: How,
    },
    /// Remove sessions, with their disks and checkpoints, or sandboxes
    Rm {
        /// Sessions by name, or sandboxes by ID
        #[arg(required = true, value_name = "NAME")]
        targets: Vec<String>,
        /// Remove them even if they are running
        #[arg(short, long)]
        force: bool,
        #[command(flatten)]
        how: How,
    },
    /// Copy a file or a folder into a session or sandbox, or out of it
    ///
    /// If the destination is an existing folder, the source is copied into it. Symbolic links are copied as links.
    #[command(after_help = "Examples:
  blink cp ./data work:/srv/data
  blink cp work:/srv/result.json .")]
    Cp {
        /// What to copy: a path of this machine, or NAME:/PATH
        #[arg(value_name = "SRC", value_hint = clap::ValueHint::AnyPath)]
        from: OsString,
        /// The destination: NAME:/PATH, or a path of this machine
        #[arg(value_name = "DST", value_hint = clap::ValueHint::AnyPath)]
        to: OsString,
        /// The owner of copied files in the sandbox: a user name or ID there [default: its user]
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Show all details of a session or sandbox
    Inspect {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        how: How,
    },
    /// Wait until a session or sandbox stops; with PROCESS, until that process ends, and exit with its exit code
    Wait {
        #[command(flatten)]
        target: Target,
        /// A process that 'blink session spawn' started in the session
        process: Option<u64>,
        #[command(flatten)]
        how: How,
    },
    /// Rename a session
    Rename {
        #[command(flatten)]
        target: Target,
        /// The new name
        #[arg(value_name = "NEW_NAME")]
        new_name: String,
        #[command(flatten)]
        how: How,
    },
    /// Remove data that no session, checkpoint or fork needs, and print how much space that freed
    ///
    /// Images stay: 'blink image prune' removes those that are not needed. Sandboxes that have ended are removed by whatever
    /// command comes next.
    Prune {
        #[command(flatten)]
        how: How,
    },
    /// Show where Blink keeps its data, how much of it there is, and its default isolation
    Info {
        #[command(flatten)]
        how: How,
    },
}

/// What is meant.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// A session by name, or a sandbox by ID
    #[arg(value_name = "NAME")]
    pub(crate) word: String,
}

/// How the result is printed.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Print the result as one line of JSON; an error is {"event":"error","kind":…,"message":…,"retryable":…}
    #[arg(long)]
    pub(crate) json: bool,
}

impl SandboxTask {
    pub(crate) fn json(&self) -> bool {
        match self {
            SandboxTask::Ps { how, .. }
            | SandboxTask::Exec { how, .. }
            | SandboxTask::Stop { how, .. }
            | SandboxTask::Start { how, .. }
            | SandboxTask::Kill { how, .. }
            | SandboxTask::Rm { how, .. }
            | SandboxTask::Cp { how, .. }
            | SandboxTask::Inspect { how, .. }
            | SandboxTask::Wait { how, .. }
            | SandboxTask::Rename { how, .. }
            | SandboxTask::Prune { how }
            | SandboxTask::Info { how } => how.json,
        }
    }
}
