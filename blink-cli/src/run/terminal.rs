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
    pub(crate) fn open() -> Result<Terminal, Failure> {
        if !isatty(stdin()) {
            return Err(Failure::invalid(
                "--tty needs a terminal, and standard input is none; leave --tty out",
            ));
        }
        let before = tcgetattr(stdin())
            .map_err(|error| Failure::internal(format!("the terminal cannot be read: {error}")))?;
        Ok(Terminal { before })
    }

    /// Rows and columns.
    pub(crate) fn size(&self) -> (u16, u16) {
        match tcgetwinsize(stdin()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
            _ => (ROWS, COLS),
        }
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

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0.before);
    }
}
