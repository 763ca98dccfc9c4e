//! What to run.

use std::ffi::c_char;
use std::time::Duration;

use blink_core::{Command, DEFAULT_OUTPUT_LIMIT_BYTES, Stdin};
use bytes::Bytes;

use crate::call::{Caller, init};
use crate::failure::Failure;
use crate::sized::{structure, zeros};
use crate::status::blink_status;

/// A program to run in a sandbox. It is started directly, without a shell: arguments arrive as they are. Everything is
/// borrowed for the call that it is given to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_command {
    /// sizeof(blink_command), set by blink_command_init().
    pub size: usize,
    /// The program and its arguments. A program without a slash is looked up in the sandbox's PATH.
    pub argv: *const *const c_char,
    /// How many they are; at least 1, unless there is code.
    pub argv_count: usize,
    /// Environment variables as "NAME=VALUE", over the sandbox's own.
    pub env: *const *const c_char,
    /// How many they are.
    pub env_count: usize,
    /// The folder of the sandbox to run in. NULL: the sandbox's, the image's or the user's.
    pub current_dir: *const c_char,
    /// The user of the sandbox to run as: "name", "id", "name:group" or "id:id". NULL: the sandbox's.
    pub user: *const c_char,
    /// What it reads from standard input, before the end. NULL: nothing.
    pub stdin_data: *const u8,
    /// How many bytes they are.
    pub stdin_length: usize,
    /// 1: its standard input is what blink_process_write() writes; only for programs that are spawned. 0 by default.
    pub stdin_piped: u32,
    /// 1: it has a terminal of the size below; its output is then all standard output. 0 by default.
    pub pty: u32,
    /// The terminal's rows and columns; 24 and 80 by default.
    pub pty_rows: u16,
    /// See pty_rows.
    pub pty_cols: u16,
    /// Always 0.
    pub reserved: u32,
    /// Milliseconds after which it is killed with everything that it has started. 0: no limit, the default.
    pub timeout_ms: u64,
    /// Bytes of each output stream that are captured: the first ones. 16 MiB by default.
    pub output_limit_bytes: u64,
    /// Makes a repeated spawn harmless: a second one with the same key attaches to the first one's process. NULL: none.
    pub key: *const c_char,
    /// Code for an interpreter of the sandbox to run, instead of argv: at most 128 KiB. NULL: none.
    pub code: *const c_char,
    /// The code's language: "python", "javascript", "ruby", "perl", "sh" or "bash".
    pub language: *const c_char,
}

structure!(
    blink_command,
    blink_command {
        output_limit_bytes: DEFAULT_OUTPUT_LIMIT_BYTES,
        pty_rows: 24,
        pty_cols: 80,
        ..zeros()
    },
    reserved
);

/// Sets a command to its defaults; name a program in argv, or give it code, before it is used.
///
/// @param command  Written.
/// @param size     sizeof(blink_command).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_command_init(
    command: *mut blink_command,
    size: usize,
) -> blink_status {
    init!(command, size)
}

impl Caller<'_> {
    pub(crate) fn command(&self, command: *const blink_command) -> Result<Command, Failure> {
        if command.is_null() {
            return Err(Failure::invalid("the command is NULL"));
        }
        let asked = self.options(command, "the command")?;
        let mut argv = self
            .all_words(asked.argv, asked.argv_count, "argv")?
            .into_iter();
        let code = self.optional_words(asked.code, "code")?;
        let mut command = match (argv.next(), code) {
            (Some(program), None) => Command::new(program).args(argv),
            (None, Some(code)) => Command::code(self.text(asked.language, "language")?, code)?,
            (None, None) => {
                return Err(Failure::invalid(
                    "the command is empty; name a program in argv",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(Failure::invalid(
                    "argv and code exclude each other; give the one or the other",
                ));
            }
        };
        for (name, value) in self.pairs(asked.env, asked.env_count, "env")? {
            command = command.env(name, value);
        }
        if let Some(dir) = self.optional_words(asked.current_dir, "current_dir")? {
            command = command.current_dir(dir);
        }
        if let Some(user) = self.optional_text(asked.user, "user")? {
            command = command.user(user);
        }
        let stdin = self.bytes(asked.stdin_data, asked.stdin_length, "stdin_data")?;
        command = match (flag(asked.stdin_piped, "stdin_piped")?, stdin) {
            (true, []) => command.stdin(Stdin::Piped),
            (true, _) => {
                return Err(Failure::invalid(
                    "stdin_data and stdin_piped exclude each other; write the bytes with blink_process_write()",
                ));
            }
            (false, []) => command,
            (false, bytes) => command.stdin_bytes(Bytes::copy_from_slice(bytes)),
        };
        if flag(asked.pty, "pty")? {
            command = command.pty(asked.pty_rows, asked.pty_cols);
        }
        if asked.timeout_ms > 0 {
            command = command.timeout(Duration::from_millis(asked.timeout_ms));
        }
        if let Some(key) = self.optional_text(asked.key, "key")? {
            command = command.key(key);
        }
        Ok(command.output_limit_bytes(asked.output_limit_bytes))
    }
}

/// A flag of a structure.
pub(crate) fn flag(value: u32, what: &str) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::invalid(format!(
            "{what} is {value}; it can be 0 or 1"
        ))),
    }
}
