//! Failed system calls.

use std::error::Error;
use std::fmt;
use std::io;

/// A system call that failed, with what it was about: such as a path, for which the rest of the sentence is the cause.
#[derive(Debug)]
pub struct Failure {
    /// What it was about.
    pub what: String,
    /// Why it failed.
    pub source: io::Error,
}

impl Failure {
    /// A failure about `what`.
    pub fn of(what: impl fmt::Display, source: io::Error) -> Failure {
        let what = what.to_string();
        Failure { what, source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
