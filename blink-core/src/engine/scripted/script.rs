//! What programs are answered with.

use std::time::Duration;

/// A program that is run in a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invocation {
    /// The program and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Its environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The folder that it was to run in.
    pub current_dir: Option<Vec<u8>>,
    /// The user that it was to run as.
    pub user: Option<String>,
    /// All of its standard input: where it has some, it is answered once that has ended.
    pub stdin: Vec<u8>,
}

impl Invocation {
    /// The program and its arguments as text; what is not UTF-8 is an empty word.
    pub fn words(&self) -> Vec<&str> {
        let words = self.argv.iter().map(|word| std::str::from_utf8(word));
        words.map(Result::unwrap_or_default).collect()
    }
}

/// What a program does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// What it writes to standard output, at once.
    pub stdout: Vec<u8>,
    /// What it writes to standard error, at once.
    pub stderr: Vec<u8>,
    /// The code that it exits with.
    pub code: i32,
    /// How long it runs until it exits, unless it is killed before.
    pub takes: Duration,
}

impl Reply {
    /// Writes this to standard output, and exits with 0.
    pub fn printing(stdout: impl Into<Vec<u8>>) -> Reply {
        Reply {
            stdout: stdout.into(),
            ..Reply::default()
        }
    }

    /// Exits with this code.
    pub fn exiting(code: i32) -> Reply {
        Reply {
            code,
            ..Reply::default()
        }
    }

    /// There is no such program: the exit code is 127.
    pub fn not_found() -> Reply {
        Reply::exiting(127)
    }

    /// Writes this to standard error.
    pub fn and_complaining(mut self, stderr: impl Into<Vec<u8>>) -> Reply {
        self.stderr = stderr.into();
        self
    }

    /// Runs for so long. One that is to run until it is killed takes `Duration::MAX`.
    pub fn and_taking(mut self, takes: Duration) -> Reply {
        self.takes = takes;
        self
    }
}

pub(super) type Answer = dyn Fn(&Invocation) -> Reply + Send + Sync;
