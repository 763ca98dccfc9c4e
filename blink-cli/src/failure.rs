//! How Blink's own failures reach the user.

use std::io::Write;

use blink_core::ErrorKind;
use blink_core::terminal::{escape_text, is_obeyed};
use serde::Serialize;
use serde_json::{Value, json};

/// The exit code where Blink itself failed: what `docker run`, `env` and `timeout` use, so that no program's own is
/// mistaken for it.
pub(crate) const EXIT_BLINK_FAILED: i32 = 125;

/// The exit code of a program whose standard output was closed: what a shell reports for SIGPIPE.
pub(crate) const EXIT_BROKEN_PIPE: i32 = 128 + 13;

/// A failure of the library, or of the command itself.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Failure {
    Library(blink_core::Error),
    Own {
        kind: ErrorKind,
        message: String,
        retryable: bool,
    },
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure::Own {
            kind,
            message: message.into(),
            retryable: false,
        }
    }

    fn message(&self) -> &str {
        match self {
            Failure::Library(error) => error.message(),
            Failure::Own { message, .. } => message,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::Internal, message)
    }

    /// Tells the user, and returns the exit code.
    pub(crate) fn report(&self, json: bool) -> i32 {
        warn(self.message());
        if json {
            let _ = print_event("error", self);
        }
        EXIT_BLINK_FAILED
    }
}

impl From<blink_core::Error> for Failure {
    fn from(error: blink_core::Error) -> Failure {
        Failure::Library(error)
    }
}

/// Says something on standard error, harmless to a terminal. What cannot be said is not worth failing for.
pub(crate) fn warn(message: impl std::fmt::Display) {
    let message = message.to_string();
    let _ = writeln!(std::io::stderr(), "blink: {}", escape_text(&message));
}

/// Prints text for a person, harmless to a terminal whatever names are in it.
pub(crate) fn print_text(text: &str) -> Result<i32, Failure> {
    print_to_stdout(escape_text(text).as_bytes())
}

/// Prints one line of JSON. It has everything as it is, in escapes where a terminal would obey it.
pub(crate) fn print_json(line: &impl std::fmt::Display) -> Result<i32, Failure> {
    let mut printed = String::new();
    for letter in line.to_string().chars() {
        // JSON's own rules leave these as they are, and they are only in its strings.
        match is_obeyed(letter) {
            true => printed.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => printed.push(letter),
        }
    }
    printed.push('\n');
    print_to_stdout(printed.as_bytes())
}

/// Prints bytes as they are, such as what a program has written, and returns the exit code: a reader that is gone ends this command as it ends any other.
pub(crate) fn print_to_stdout(bytes: &[u8]) -> Result<i32, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(EXIT_BROKEN_PIPE),
        Err(error) => Err(Failure::internal(format!(
            "standard output could not be written: {error}"
        ))),
    }
}

/// Prints one line of JSON: what has happened, and what there is to say about it.
pub(crate) fn print_event(event: &str, content: &impl Serialize) -> Result<i32, Failure> {
    let mut line = json!({ "event": event });
    if let (Value::Object(line), Value::Object(content)) = (&mut line, to_json(content)?) {
        line.extend(content);
    }
    print_json(&line)
}

pub(crate) fn to_json(content: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(content)
        .map_err(|error| Failure::internal(format!("the result could not be written: {error}")))
}
