//! What the user can ask for.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::options::{ProgramOptions, RegistryArguments, SandboxOptions};
use crate::pool::PoolTask;
use crate::sandbox::SandboxTask;
use crate::session::SessionTask;

/// Run untrusted code in a sandbox.
#[derive(Debug, Parser)]
#[command(
    name = "blink",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  blink doctor                                           show what works on this machine
  blink run --isolation auto --image host script.py      run a script with this machine's programs
  blink run --isolation auto --image alpine -- uname -a  run a command of an image

See 'blink run --help' for more."
)]
pub(crate) struct Arguments {
    /// The folder where Blink keeps its data [default: $BLINK_HOME, or ~/.blink]
    #[arg(long, global = true, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    pub(crate) home: Option<PathBuf>,
    /// Log to standard error; -vv logs more
    ///
    /// BLINK_LOG=FILTER selects what is logged, for example BLINK_LOG=blink_core=trace.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a script, or a command of an image, in a new sandbox
    ///
    /// The sandbox is removed afterwards, with all its processes and files. Standard input, output and error are passed
    /// through byte for byte, and signals are forwarded.
    #[command(
        override_usage = "blink run [OPTIONS] SCRIPT [ARGS…]\n       blink run [OPTIONS] -- COMMAND [ARGS…]",
        after_help = "See 'blink run --help' for examples and exit codes.",
        after_long_help = RUN_EXAMPLES
    )]
    Run(Box<RunOptions>),
    #[command(flatten)]
    Sandbox(SandboxTask),
    /// Manage sessions: named sandboxes with a persistent disk, checkpoints and forks
    Session {
        /// Print the result as one line of JSON; an error is {"event":"error","kind":…,"message":…}
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        task: Box<SessionTask>,
    },
    /// Manage pools: sandboxes that are booted before they are asked for
    Pool {
        #[command(subcommand)]
        task: PoolTask,
    },
    /// Download an image, so that sandboxes start at once and without a network
    ///
    /// Always asks the registry, and follows a tag that has moved. Layers that are stored are not downloaded again, and an
    /// interrupted download resumes. Folders and tars are copied into the store.
    #[command(after_help = "Examples:
  blink pull alpine:3.20
  blink pull --mirror docker.io=https://mirror.example python:3.12-slim
  blink pull --insecure-registry 10.0.0.1:5000 10.0.0.1:5000/team/app:v1

Blink uses the credentials of 'docker login'.")]
    Pull {
        /// The image: NAME, NAME:TAG or NAME@DIGEST, an OCI layout folder, or a tar of one or of 'docker save'
        image: String,
        #[command(flatten)]
        registry: RegistryArguments,
        /// Print one line of JSON: {"event":"image_pulled","reference":…,"digest":…,"size_bytes":…,…}
        #[arg(long)]
        json: bool,
    },
    /// List the stored images
    Images {
        /// Print a JSON array of {"reference":…,"digest":…,"size_bytes":…,"pulled_at":…,"used_at":…}
        #[arg(long)]
        json: bool,
    },
    /// Remove stored images
    ///
    /// If an image has several names, only the given one is removed. An image in use by a sandbox is not removed.
    Rmi {
        /// Names, or digests (12 digits suffice)
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// Print one line of JSON for each: {"event":"image_removed","references":…,"digests":…,"freed_bytes":…}
        #[arg(long)]
        json: bool,
    },
    /// Manage stored images
    Image {
        #[command(subcommand)]
        task: ImageTask,
    },
    /// Show which isolation works on this machine, and how to fix what does not
    ///
    /// Tries each isolation by running a program in it. Exits with 0 if any works, and with 1 if none does.
    Doctor {
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a shell completion script
    #[command(after_help = "Example:
  blink completions bash > ~/.local/share/bash-completion/completions/blink")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages of this command and its subcommands into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
}

impl Task {
    /// Whether failures are wanted as JSON too.
    pub(crate) fn json(&self) -> bool {
        match self {
            Task::Run(options) => options.json,
            Task::Pull { json, .. }
            | Task::Images { json }
            | Task::Rmi { json, .. }
            | Task::Image {
                task: ImageTask::Prune { json },
            }
            | Task::Session { json, .. }
            | Task::Doctor { json } => *json,
            Task::Sandbox(task) => task.json(),
            Task::Pool { task } => task.json(),
            Task::Completions { .. } | Task::Man { .. } => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageTask {
    /// Remove everything that no name and no sandbox refers to, and print how much space that freed
    ///
    /// This includes images whose tag has moved, images from folders and tars, unpacked layers, and abandoned downloads.
    Prune {
        /// Print one line of JSON: {"event":"images_pruned","references":…,"digests":…,"freed_bytes":…}
        #[arg(long)]
        json: bool,
    },
}

const RUN_EXAMPLES: &str = "Examples:
  blink run --isolation auto --image host script.py one two
      Copy script.py into a sandbox and run it. A script that is not executable is run by the
      interpreter of its #! line, or by its extension: .py python3, .sh sh, .js node.
  blink run --isolation auto --image python:3.12 --timeout 30s --memory-mib 512 agent.py < task.json
      The same with limits. A timeout kills all processes, and blink exits with 124.
  blink run --isolation auto --mount ./data:/data:ro -- sh -c 'wc -l /data/*'
      Run a command of the image on a folder of this machine.
  blink run --isolation auto --image python:3.12 --publish 8080:8000 -- python3 -m http.server 8000
      Run a server that this machine reaches at http://127.0.0.1:8080/.
  blink run --allow-host dl-cdn.alpinelinux.org -- apk add git
      Allow only named hosts, in a micro-VM.
  blink run --isolation auto --tty -- sh
      Open a terminal in a sandbox.
  blink run --isolation auto --json -- echo hello
      Print the result as one line of JSON.

Exit codes:
  The program's exit code; 128 + N if signal N killed it; 124 after a timeout; 125 if Blink itself
  failed; 126 if the program cannot be executed; 127 if there is no such program.

Signals:
  SIGINT, SIGTERM and SIGHUP are forwarded to the program. A second SIGINT, or SIGQUIT, kills it
  and everything it started.";

#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Claim a sandbox from a pool, instead of booting one; --network, --memory-mib, --hostname and --publish hold for it alone
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["image", "isolation", "cpus", "shm_mib", "disk_mib", "mount", "offline", "mirror"]
    )]
    pub(crate) pool: Option<String>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
    #[command(flatten)]
    pub(crate) program: ProgramOptions,
    /// Print the result as one line of JSON instead of streaming the output
    ///
    /// {"event":"execution_result","stdout":…,"stderr":…,"exit_code":…,"timed_out":…,"over_limit":…,
    /// "truncated":…,"isolation":…,"duration_ms":…}, and stdout_base64 or stderr_base64 if a stream is not UTF-8. Each
    /// stream is truncated after 16 MiB. exit_code is the program's real exit code; over_limit is "memory" or "disk" if
    /// it was killed for exceeding that limit. If the last line that the program prints is such an object itself, its
    /// stdout and stderr become the result, and its exit_code becomes claimed_exit_code. An error of Blink is
    /// {"event":"error","kind":…,"message":…}, with errno if a system call failed.
    #[arg(long)]
    pub(crate) json: bool,
    /// A script or program of this machine and its arguments; or, after --, a command of the image
    #[arg(
        value_name = "SCRIPT",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    pub(crate) words: Vec<OsString>,
}
