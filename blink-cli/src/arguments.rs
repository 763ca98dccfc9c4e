//! What the user can ask for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use blink_core::{IsolationChoice, Mount};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::values;

/// Run untrusted code in a sandbox.
#[derive(Debug, Parser)]
#[command(
    name = "blink",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  blink doctor                                   what works on this machine
  blink run --isolation auto script.py           run a script of yours
  blink run --isolation auto -- python3 -c '…'   run a command of the image

'blink run --help' says more."
)]
pub(crate) struct Arguments {
    /// The folder for everything that Blink keeps [default: $BLINK_HOME, or ~/.blink]
    #[arg(long, global = true, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    pub(crate) home: Option<PathBuf>,
    /// Say what happens, on standard error; -vv says more
    ///
    /// BLINK_LOG=FILTER chooses exactly, for example BLINK_LOG=blink_core=trace.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a script, or a command of an image, in a sandbox of its own
    ///
    /// The sandbox is gone afterwards, with everything that was started and written in it. Input and output stream
    /// through byte for byte, and signals are passed on.
    #[command(
        override_usage = "blink run [OPTIONS] SCRIPT [ARGS…]\n       blink run [OPTIONS] -- COMMAND [ARGS…]",
        after_help = "'blink run --help' has examples, and the exit codes.",
        after_long_help = RUN_EXAMPLES
    )]
    Run(Box<RunOptions>),
    /// Show what isolation works on this machine, and what would mend what does not
    ///
    /// Each isolation is tried by running a program in it. The exit code is 0 if any works, and 1 if none does.
    Doctor {
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a script that completes blink's words in a shell
    #[command(after_help = "Example:
  blink completions bash > ~/.local/share/bash-completion/completions/blink")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Task {
    /// Whether failures are wanted as JSON too.
    pub(crate) fn json(&self) -> bool {
        match self {
            Task::Run(options) => options.json,
            Task::Doctor { json } => *json,
            Task::Completions { .. } => false,
        }
    }
}

const RUN_EXAMPLES: &str = "Examples:
  blink run --isolation auto script.py one two
      Copy script.py into a sandbox and run it. A script that is not executable is run by the
      interpreter of its #! line, or by its ending: .py python3, .sh sh, .js node.
  blink run --isolation auto --timeout 30s --memory-mib 512 agent.py < task.json
      The same with limits. A timeout kills everything that was started, and exits with 124.
  blink run --isolation auto --mount ./data:/data:ro -- sh -c 'wc -l /data/*'
      A command of the image, which sees a folder of this machine.
  blink run --isolation auto --tty -- bash
      A terminal in a sandbox.
  blink run --isolation auto --json -- python3 -c 'print(6 * 7)'
      One line with the result.

Exit codes:
  The program's own; 128 + N where signal N ended it; 126 where it may not be executed and 127
  where there is no such program; 124 where its time was over; 125 where Blink itself failed.

Signals:
  SIGINT, SIGTERM and SIGHUP are passed on to the program. A second SIGINT, or SIGQUIT, kills it
  with everything that it has started.";

#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Where the root file system comes from: host, an OCI layout folder, or a tar of one
    ///
    /// 'host' is this machine's own programs, read-only, and nothing of its users. Other images are a folder in OCI
    /// layout or a tar of one, with :TAG behind it where it holds several. This version fetches nothing from
    /// registries, which is why its default is 'host'.
    #[arg(long, default_value = "host")]
    pub(crate) image: String,
    /// What stands between the sandbox and this machine: microvm, namespace or auto
    ///
    /// 'microvm' is a kernel of its own (this version has none yet, and says so). 'namespace' shares this machine's
    /// kernel. 'auto' takes the strongest that works here, and says which on standard error.
    #[arg(long, default_value = "microvm", value_name = "ISOLATION", value_parser = isolation_values())]
    pub(crate) isolation: IsolationChoice,
    /// Kill the program and everything it started after this time: 2, 500ms, 1.5s, 1m or 1h
    ///
    /// A number alone is seconds. Starting the sandbox does not count.
    #[arg(long, value_parser = values::timeout, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,
    /// Set an environment variable; NAME alone passes this shell's value on. May be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<OsString>,
    /// The folder of the sandbox to run in [default: the image's]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) workdir: Option<OsString>,
    /// The user of the sandbox to run as: NAME, ID, NAME:GROUP or ID:ID [default: the image's]
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Processors it may use, for example 2 or 0.5 [default: all]
    #[arg(long, value_parser = values::cpus, allow_negative_numbers = true)]
    pub(crate) cpus: Option<f64>,
    /// Memory it may use, in MiB [default: no limit]
    #[arg(long, value_name = "MIB", value_parser = values::mib, allow_negative_numbers = true)]
    pub(crate) memory_mib: Option<u64>,
    /// What it may write to its disk, in MiB [default: 10240]
    #[arg(long, value_name = "MIB", value_parser = values::mib, allow_negative_numbers = true)]
    pub(crate) disk_mib: Option<u64>,
    /// What it can reach: nothing, or all that this machine can
    #[arg(long, value_enum, default_value_t = NetworkOption::None)]
    pub(crate) network: NetworkOption,
    /// Give it a terminal; standard input must be one
    #[arg(long, conflicts_with = "json")]
    pub(crate) tty: bool,
    /// Show it a file or folder of this machine; :ro forbids changes. May be repeated
    #[arg(long, value_name = "HOST:GUEST[:ro]", value_parser = values::MountParser)]
    pub(crate) mount: Vec<Mount>,
    /// Print one line of JSON with the result, instead of streaming
    ///
    /// {"event":"execution_result","stdout":…,"stderr":…,"exit_code":…,"timed_out":…,"truncated":…,
    /// "isolation":…,"duration_ms":…}, with stdout_base64 or stderr_base64 beside where a stream is not UTF-8. Each
    /// stream is cut behind 16 MiB. Where the last line that the program prints is such a line itself, its stdout,
    /// stderr and exit_code are passed on as the result. A failure of Blink's own is
    /// {"event":"error","kind":…,"message":…}.
    #[arg(long)]
    pub(crate) json: bool,
    /// A script or program of this machine with its arguments; or, behind --, a command of the image
    #[arg(
        value_name = "SCRIPT",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    pub(crate) program: Vec<OsString>,
}

fn isolation_values() -> impl clap::builder::TypedValueParser<Value = IsolationChoice> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(["auto", "microvm", "namespace"])
        .try_map(|name| name.parse::<IsolationChoice>())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkOption {
    /// Nothing but itself
    None,
    /// Everything that this machine can reach, its own loopback services too
    Host,
}
