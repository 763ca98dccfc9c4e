//! What the user can ask of sessions.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::options::{ProgramOptions, SandboxOptions, Surroundings};
use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum SessionTask {
    /// Create a session, or open an existing one
    ///
    /// Its sandbox stops when this command ends, unless the session is --warm; its disk stays until 'blink session rm'.
    /// An existing session keeps the options it was created with: different ones are an error.
    #[command(after_help = "Examples:
  blink session open work --isolation auto --image host
  blink session open server --isolation auto --image python:3.12 --warm --memory-mib 512")]
    Open {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        options: Box<OpenOptions>,
    },
    /// Run a script, or a command of its image, in a session
    ///
    /// Works like 'blink run', with the same exit codes and signals. Background processes keep running if the session is
    /// warm.
    #[command(
        override_usage = "blink session run NAME [OPTIONS] SCRIPT [ARGS…]\n       \
                          blink session run NAME [OPTIONS] -- COMMAND [ARGS…]"
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
    /// Start a command in the background, and print its ID
    ///
    /// The session must be warm. Use the ID with 'attach', 'logs', 'wait' and 'kill'.
    Spawn {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        surroundings: Surroundings,
        /// Allocate a terminal, and keep standard input open for 'attach'
        #[arg(long)]
        tty: bool,
        /// Keep standard input open for 'attach'; otherwise it is empty
        #[arg(long)]
        stdin: bool,
        /// Start it only once: if a command with this key is known, print its ID instead
        #[arg(long)]
        key: Option<String>,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Attach to a process: its recent and further output, its input, and its exit code
    ///
    /// Ctrl-] detaches from a terminal; SIGQUIT (Ctrl-\), SIGTERM and SIGHUP detach from any process, which keeps running.
    /// SIGINT (Ctrl-C) is forwarded, and a second one kills the process.
    Attach {
        #[command(flatten)]
        name: Name,
        /// The ID that 'spawn' or 'ps' printed
        id: u64,
    },
    /// List the processes started with 'spawn'
    ///
    /// The last 32 that have ended are listed until the sandbox stops.
    Ps {
        #[command(flatten)]
        name: Name,
    },
    /// Print the output of a process: the last MiB of each stream
    Logs {
        #[command(flatten)]
        name: Name,
        /// The ID that 'spawn' or 'ps' printed
        id: u64,
    },
    /// Wait for a process to end, and exit with its exit code
    Wait {
        #[command(flatten)]
        name: Name,
        /// The ID that 'spawn' or 'ps' printed
        id: u64,
    },
    /// Kill a process and everything it started, or send it a signal
    Kill {
        #[command(flatten)]
        name: Name,
        /// The ID that 'spawn' or 'ps' printed
        id: u64,
        /// Send this signal to its process group: TERM, SIGTERM or 15 [default: kill everything it started]
        #[arg(long, value_parser = values::signal)]
        signal: Option<u8>,
    },
    /// Save the current disk under a name
    Checkpoint {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        snapshot: Snapshot,
        /// Fail if the running programs cannot be frozen, instead of taking a crash-consistent checkpoint
        #[arg(long)]
        require_frozen: bool,
    },
    /// Restore the disk to a checkpoint; later changes are lost
    ///
    /// A running sandbox is restarted.
    Restore {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        snapshot: Snapshot,
    },
    /// List the checkpoints of a session
    #[command(visible_alias = "list")]
    Checkpoints {
        #[command(flatten)]
        name: Name,
    },
    /// List all sessions
    Ls,
    /// Create a session from a copy of another one's disk
    Fork {
        #[command(flatten)]
        name: Name,
        /// The checkpoint to fork [default: the current disk]
        #[arg(long, value_name = "CHECKPOINT")]
        snapshot: Option<String>,
        #[command(flatten)]
        new: NewName,
    },
    /// Export a session to a file, or as an image
    ///
    /// 'blink session import' makes a session of the file, also on another machine. It contains the disk, the image's name,
    /// resources, environment and labels. With --oci, export an image for --image and for other programs: a folder in OCI
    /// layout, or a tar of one if the name ends in .tar.
    #[command(after_help = "Examples:
  blink session export work --output work.boxlite
  blink session export work --oci --output ./tools
  blink run --isolation auto --image ./tools -- sh")]
    Export {
        #[command(flatten)]
        name: Name,
        /// The checkpoint to export [default: the current disk]
        #[arg(long, value_name = "CHECKPOINT")]
        snapshot: Option<String>,
        /// Export an image
        #[arg(long)]
        oci: bool,
        /// The file [default: NAME.boxlite]; with --oci, the folder or .tar file [default: NAME.oci]
        #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
        output: Option<PathBuf>,
    },
    /// Create a session from a file that 'blink session export' wrote; it is not started
    ///
    /// Options that are left out are taken from the file, up to the defaults, since a file may come from anyone. Nothing is
    /// started or downloaded: 'blink pull' its image first. Mounts, network, ports and --warm are never taken from the
    /// file. "declined" in --json lists what the file asked for and did not get.
    Import {
        /// The file
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// The name of the session [default: the file's name without its extension]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        options: Box<OpenOptions>,
    },
    /// Stop the sandbox of a session; its disk stays
    Stop {
        #[command(flatten)]
        name: Name,
    },
    /// Start the sandbox of a warm session
    Start {
        #[command(flatten)]
        name: Name,
    },
    /// Remove a session with its disk and checkpoints, or a single checkpoint
    ///
    /// Forks are not affected.
    Rm {
        #[command(flatten)]
        name: Name,
        /// Remove only this checkpoint
        #[arg(long, value_name = "CHECKPOINT", conflicts_with = "force")]
        snapshot: Option<String>,
        /// Remove it even if it is running
        #[arg(long)]
        force: bool,
    },
    /// Rename a session
    Rename {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        new: NewName,
    },
    /// Show all details of a session
    Inspect {
        #[command(flatten)]
        name: Name,
    },
    /// Copy a file or a folder into a session, or out of it
    ///
    /// If the destination is an existing folder, the source is copied into it. Symbolic links are copied as links.
    #[command(after_help = "Examples:
  blink session cp ./data work:/srv/data
  blink session cp work:/srv/result.json .")]
    Cp {
        /// What to copy: a path of this machine, or NAME:/PATH
        #[arg(value_name = "SRC", value_hint = clap::ValueHint::AnyPath)]
        from: OsString,
        /// The destination: NAME:/PATH, or a path of this machine
        #[arg(value_name = "DST", value_hint = clap::ValueHint::AnyPath)]
        to: OsString,
        /// The owner of copied files in the session: a user name or ID there [default: the session's user]
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Remove data that no session, checkpoint or fork needs, and print how much space that freed
    Prune,
}

/// The session that is meant.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The session; '--name NAME' means the same
    #[arg(value_name = "NAME")]
    pub(crate) session: String,
}

/// What a new session is called.
#[derive(Debug, Args)]
pub(crate) struct NewName {
    /// The new name
    #[arg(
        value_name = "NEW_NAME",
        required_unless_present = "as",
        conflicts_with = "as"
    )]
    word: Option<String>,
    /// The same as NEW_NAME
    #[arg(id = "as", long, value_name = "NEW_NAME")]
    flag: Option<String>,
}

impl NewName {
    pub(crate) fn name(self) -> String {
        self.word.or(self.flag).unwrap_or_default()
    }
}

/// The checkpoint that is meant.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// The checkpoint
    #[arg(
        value_name = "CHECKPOINT",
        required_unless_present = "snapshot",
        conflicts_with = "snapshot"
    )]
    word: Option<String>,
    /// The same as CHECKPOINT
    #[arg(id = "snapshot", long, value_name = "CHECKPOINT")]
    flag: Option<String>,
}

impl Snapshot {
    pub(crate) fn name(self) -> String {
        self.word.or(self.flag).unwrap_or_default()
    }
}

/// What a session is made with.
#[derive(Debug, Args)]
pub(crate) struct OpenOptions {
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
    #[command(flatten)]
    pub(crate) surroundings: Surroundings,
    /// Keep it running when this command ends, with its processes
    #[arg(long)]
    pub(crate) warm: bool,
    /// Add a label, for your own use. May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Stop it after this time without use, even while a program has it open: 30s, 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = values::timeout, allow_negative_numbers = true)]
    pub(crate) idle_stop: Option<Duration>,
}
