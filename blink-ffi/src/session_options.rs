//! What session to open, or to make.

use std::ffi::{c_char, c_void};
use std::time::Duration;

use blink_core::SessionBuilder;

use crate::call::{Caller, init};
use crate::command::flag;
use crate::failure::Failure;
use crate::progress::{Telling, blink_transfer_callback};
use crate::sandbox_options::{Asked, blink_sandbox_options};
use crate::sized::{structure, zeros};
use crate::status::blink_status;

/// A session to open, or to create if there is none. Everything is borrowed for the call that it is given to.
///
/// What is said of its sandbox is for a session that is made. One that is there has what it was made with, and is not opened
/// with anything else: BLINK_STATUS_INVALID_ARGUMENT shows the difference.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_session_options {
    /// sizeof(blink_session_options), set by blink_session_options_init().
    pub size: usize,
    /// Its sandbox. NULL is the defaults. It cannot be detached: see warm.
    pub sandbox: *const blink_sandbox_options,
    /// Labels for its owner's own use, as "NAME=VALUE" in UTF-8.
    pub labels: *const *const c_char,
    /// How many they are.
    pub labels_count: usize,
    /// Milliseconds without a call, a process or a reader after which its sandbox is stopped; it starts again with the next
    /// call. 0: never, the default.
    pub idle_stop_ms: u64,
    /// Milliseconds for which another process that has the session is waited for; 10,000 by default, 0 does not wait.
    pub patience_ms: u64,
    /// 1: its sandbox goes on when its host process ends; the next one finds its processes. 0 by default.
    pub warm: u32,
    /// Always 0.
    pub reserved: u32,
    /// Is told how far blink_session_import() is with the archive; nothing else uses it. NULL: nobody.
    pub transfer: blink_transfer_callback,
    /// Given to the callback.
    pub transfer_data: *mut c_void,
}

structure!(
    blink_session_options,
    blink_session_options {
        patience_ms: 10_000,
        ..zeros()
    },
    reserved
);

/// Sets options to their defaults.
///
/// @param options  Written.
/// @param size     sizeof(blink_session_options).
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT for NULL and for a size that no version of it has: the call that it is for
///         then fails, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_session_options_init(
    options: *mut blink_session_options,
    size: usize,
) -> blink_status {
    init!(options, size)
}

/// What a program asks for, checked and copied.
pub(crate) struct AskedSession {
    sandbox: Asked,
    patience: Duration,
    transfer: blink_transfer_callback,
    transfer_data: *mut c_void,
}

impl Caller<'_> {
    pub(crate) fn session_options(
        &self,
        options: *const blink_session_options,
    ) -> Result<AskedSession, Failure> {
        let asked = self.options(options, "the session's options")?;
        let mut sandbox = self.sandbox_options(asked.sandbox)?;
        if sandbox.detached {
            return Err(Failure::invalid(
                "a session cannot be detached; a warm one goes on when its host process ends",
            ));
        }
        let spec = &mut sandbox.spec;
        for label in self.all_texts(asked.labels, asked.labels_count, "labels")? {
            let (name, value) = label.split_once('=').ok_or_else(|| {
                Failure::invalid(format!("{label:?} in labels is not NAME=VALUE"))
            })?;
            spec.labels.insert(name.to_owned(), value.to_owned());
        }
        spec.idle_stop = self.milliseconds(asked.idle_stop_ms);
        spec.warm = flag(asked.warm, "warm")?.then_some(true);
        Ok(AskedSession {
            sandbox,
            patience: Duration::from_millis(asked.patience_ms),
            transfer: asked.transfer,
            transfer_data: asked.transfer_data,
        })
    }
}

impl AskedSession {
    pub(crate) fn telling(&self) -> Telling {
        Telling::new(self.sandbox.progress, self.sandbox.progress_data)
            .of_transfer(self.transfer, self.transfer_data)
    }

    pub(crate) fn describe(self, builder: SessionBuilder, telling: &Telling) -> SessionBuilder {
        let mut builder = builder.spec(self.sandbox.spec).patience(self.patience);
        if self.sandbox.progress.is_some() {
            builder = builder.image_progress(telling.hear());
        }
        builder
    }
}
