//! What the user can ask of sessions.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::arguments::{ProgramOptions, SandboxOptions, Surroundings};
use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum SessionTask {
    /// Make a session, or start one that there is
    ///
    /// Its machine ends with this command unless it is made --warm; its disk stays until 'blink session rm'. One that
    /// there is has what it was made with: other options are refused.
    #[command(after_help = "Examples:
  blink session open --name work --isolation auto --image host
  blink session open --name server --isolation auto --image python:3.12 --warm --memory-mib 512")]
    Open {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        options: Box<OpenOptions>,
    },
    /// Run a script, or a command of its image, in a session
    ///
    /// As 'blink run', with its exit codes and signals. What the program leaves in the background goes on in a warm
    /// session, and ends with the machine of another.
    #[command(
        override_usage = "blink session run --name NAME [OPTIONS] SCRIPT [ARGS…]\n       \
                          blink session run --name NAME [OPTIONS] -- COMMAND [ARGS…]"
    )]
    Run {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        options: ProgramOptions,
        /// A script or program of this machine with its arguments; or, behind --, a command of the image
        #[arg(
            value_name = "SCRIPT",
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_hint = clap::ValueHint::CommandWithArguments
        )]
        words: Vec<OsString>,
    },
    /// Start a command that goes on when this command ends, and print its ID
    ///
    /// The session must be warm. 'attach', 'ps', 'logs', 'wait' and 'kill' take the ID.
    Spawn {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        surroundings: Surroundings,
        /// Give it a terminal, and keep its input open for whoever attaches
        #[arg(long)]
        tty: bool,
        /// Keep its input open for whoever attaches; otherwise it is empty
        #[arg(long)]
        stdin: bool,
        /// Start it only once: where a command with this key runs or is remembered, print its ID
        #[arg(long)]
        key: Option<String>,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Stay with a process: what it wrote last and all that follows, its input, its exit code
    ///
    /// Ctrl-] leaves one that has a terminal, and SIGQUIT (Ctrl-\), SIGTERM and SIGHUP leave any: it goes on. SIGINT
    /// (Ctrl-C) is passed on, and a second one kills it.
    Attach {
        #[command(flatten)]
        name: Name,
        /// The process, from 'spawn' or 'ps'
        id: u64,
    },
    /// List the processes of a session that were spawned
    ///
    /// The last 32 that have ended are remembered until the machine stops.
    Ps {
        #[command(flatten)]
        name: Name,
    },
    /// Print what a process has written: the last MiB of each stream
    Logs {
        #[command(flatten)]
        name: Name,
        /// The process, from 'spawn' or 'ps'
        id: u64,
    },
    /// Wait until a process has ended, and exit with its exit code
    Wait {
        #[command(flatten)]
        name: Name,
        /// The process, from 'spawn' or 'ps'
        id: u64,
    },
    /// Kill a process and everything that it has started, or send it a signal
    Kill {
        #[command(flatten)]
        name: Name,
        /// The process, from 'spawn' or 'ps'
        id: u64,
        /// Send this signal to its process group: TERM, SIGTERM or 15 [default: kill all that it has started]
        #[arg(long, value_parser = values::signal)]
        signal: Option<u8>,
    },
    /// Keep the disk as it is now, under a name
    Checkpoint {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        snapshot: Snapshot,
        /// Fail where what runs cannot be held still, so that the copy would be as after a crash
        #[arg(long)]
        require_frozen: bool,
    },
    /// Put the disk back to what it was at a checkpoint; what it holds now is lost
    ///
    /// A machine that runs is stopped and started again.
    Restore {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        snapshot: Snapshot,
    },
    /// List the checkpoints of a session
    List {
        #[command(flatten)]
        name: Name,
    },
    /// List all sessions
    Ls,
    /// Make a session that begins with another's disk, and goes its own way
    Fork {
        #[command(flatten)]
        name: Name,
        /// The checkpoint to begin with [default: the disk as it is now]
        #[arg(long, value_name = "CHECKPOINT")]
        snapshot: Option<String>,
        #[command(flatten)]
        new: NewName,
    },
    /// Write the disk of a session to a file, or as an image
    ///
    /// The file has what 'blink session import' makes a session of, also on another machine: the disk, the names of the
    /// image, resources, environment and labels. With --oci it is an image, for --image and for other programs: a folder in
    /// OCI layout, or a tar of one where the name ends in .tar.
    #[command(after_help = "Examples:
  blink session export --name work --output work.boxlite
  blink session export --name work --oci --output ./tools
  blink run --isolation auto --image ./tools -- sh")]
    Export {
        #[command(flatten)]
        name: Name,
        /// The checkpoint to export [default: the disk as it is now]
        #[arg(long, value_name = "CHECKPOINT")]
        snapshot: Option<String>,
        /// Write an image
        #[arg(long)]
        oci: bool,
        /// The file [default: NAME.boxlite]; with --oci the folder or .tar file [default: NAME.oci]
        #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
        output: Option<PathBuf>,
    },
    /// Make a session from a file that 'blink session export' has written; it is not started
    ///
    /// What the session was that was exported holds where no option says otherwise, as far as it is no more than the
    /// defaults: a file may be anybody's. Nothing is started or fetched because it says so: 'blink pull' its image first.
    /// Mounts, network, ports and --warm are only what options say. What was not given is in "declined" of --json.
    Import {
        /// The file
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// The new session [default: the file's name without its ending]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        options: Box<OpenOptions>,
    },
    /// End the machine of a session; its disk stays
    Stop {
        #[command(flatten)]
        name: Name,
    },
    /// Start the machine of a warm session
    Start {
        #[command(flatten)]
        name: Name,
    },
    /// Remove a session with its disk and its checkpoints, or one checkpoint
    ///
    /// Forks of it stay whole.
    Rm {
        #[command(flatten)]
        name: Name,
        /// Remove only this checkpoint
        #[arg(long, value_name = "CHECKPOINT", conflicts_with = "force")]
        snapshot: Option<String>,
        /// Also where its machine runs
        #[arg(long)]
        force: bool,
    },
    /// Give a session another name
    Rename {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        new: NewName,
    },
    /// Show everything that is known of a session
    Inspect {
        #[command(flatten)]
        name: Name,
    },
    /// Copy a file or a folder into a session, or out of it
    ///
    /// A folder that there is gets what is copied under its own name. Links come as they are.
    #[command(after_help = "Examples:
  blink session cp ./data work:/srv/data
  blink session cp work:/srv/result.json .")]
    Cp {
        /// What to copy: a path of this machine, or NAME:/PATH
        #[arg(value_name = "SRC", value_hint = clap::ValueHint::AnyPath)]
        from: OsString,
        /// Where to: NAME:/PATH, or a path of this machine
        #[arg(value_name = "DST", value_hint = clap::ValueHint::AnyPath)]
        to: OsString,
        /// To whom it belongs in the session: a user there, by name or id [default: the session's user]
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Remove what no session, checkpoint or fork needs any more, and say how much that has freed
    Prune,
}

/// The session that is meant.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The session
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) session: String,
}

/// What a new session is called.
#[derive(Debug, Args)]
pub(crate) struct NewName {
    /// The new name
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) new_name: String,
}

/// The checkpoint that is meant.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// The checkpoint
    #[arg(long = "snapshot", value_name = "CHECKPOINT")]
    pub(crate) snapshot: String,
}

/// What a session is made with.
#[derive(Debug, Args)]
pub(crate) struct OpenOptions {
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
    #[command(flatten)]
    pub(crate) surroundings: Surroundings,
    /// Keep its machine running when this command ends, with its processes
    #[arg(long)]
    pub(crate) warm: bool,
    /// Label it, for your own use. May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Stop its machine after so long without a call or a process, while a program has it open: 30s, 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = values::timeout, allow_negative_numbers = true)]
    pub(crate) idle_stop: Option<Duration>,
}
