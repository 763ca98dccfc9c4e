//! The user's own terminal, for `--tty`.

use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::failure::Failure;

/// The size where a terminal does not know its own: what terminals have had for ever.
const ROWS: u16 = 24;
const COLS: u16 = 80;

/// The terminal that standard input is.
pub(crate) struct Terminal {
    before: Termios,
}

/// Restores the terminal when it goes.
pub(crate) struct Raw<'a>(&'a Terminal);

impl Terminal {
    /// Whether standard input is one.
    pub(crate) fn is_there() -> bool {
        isatty(stdin())
    }

    /// The terminal, where the user wants the program to have one.
    pub(crate) fn wanted(tty: bool) -> Result<Option<Terminal>, Failure> {
        if !tty {
            return Ok(None);
        }
        if !Terminal::is_there() {
            return Err(Failure::invalid(
                "--tty needs a terminal, and standard input is none; leave --tty out",
            ));
        }
        let before = tcgetattr(stdin())
            .map_err(|error| Failure::internal(format!("the terminal cannot be read: {error}")))?;
        Ok(Some(Terminal { before }))
    }

    /// Passes every key on to the program, until the guard goes.
    pub(crate) fn raw(&self) -> Result<Raw<'_>, Failure> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)
            .map_err(|error| Failure::internal(format!("the terminal cannot be used: {error}")))?;
        Ok(Raw(self))
    }
}

/// Rows and columns of the terminal, if there is one.
pub(crate) fn size() -> (u16, u16) {
    match tcgetwinsize(stdin()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (ROWS, COLS),
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0.before);
    }
}
