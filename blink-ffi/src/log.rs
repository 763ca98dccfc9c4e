//! What Blink has to say while it works. Nothing is printed.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::fmt::Write;
use std::sync::{Arc, Once, PoisonError, RwLock};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::call::call;
use crate::error::blink_error;
use crate::failure::Failure;
use crate::status::blink_status;
use crate::text::cut;

/// How important a message is.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum blink_log_level {
    /// Something failed.
    Error = 1,
    /// Something is not as it should be, and Blink goes on.
    Warn = 2,
    /// What happens.
    Info = 3,
    /// What happens, closely.
    Debug = 4,
    /// What happens, very closely.
    Trace = 5,
}

/// Is told what Blink has to say, on whichever thread says it, several at once. It must return soon: no longjmp, no C++
/// exception. It may call functions of this library that do not wait; those that do fail on Blink's own threads.
///
/// @param level      A blink_log_level.
/// @param message    Text in UTF-8, there until the callback returns.
/// @param user_data  What was given with the callback.
pub type blink_log_callback =
    Option<unsafe extern "C" fn(level: i32, message: *const c_char, user_data: *mut c_void)>;

struct Listener {
    callback: unsafe extern "C" fn(i32, *const c_char, *mut c_void),
    user_data: *mut c_void,
    level: i32,
}

// SAFETY: whoever gives a callback says that it may be called on any thread, with its data.
unsafe impl Send for Listener {}
// SAFETY: as above.
unsafe impl Sync for Listener {}

static LISTENER: RwLock<Option<Arc<Listener>>> = RwLock::new(None);
static INSTALLED: Once = Once::new();

thread_local! {
    /// What a listener causes is not told to it: it would never end.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Says who is told what Blink has to say; in the whole process, from now on. By default nobody is.
///
/// @param level      A blink_log_level: what is less important is not told.
/// @param callback   NULL: nobody. Who was told before may be called once more by a call that is under way.
/// @param user_data  Given to the callback, on any thread.
/// @param err        May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0), or INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_log_set(
    level: i32,
    callback: blink_log_callback,
    user_data: *mut c_void,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |_caller| {
        const FIRST: i32 = blink_log_level::Error as i32;
        const LAST: i32 = blink_log_level::Trace as i32;
        if callback.is_some() && !(FIRST..=LAST).contains(&level) {
            return Err(Failure::invalid(format!(
                "{level} is not the level of a log; it can be {FIRST} to {LAST}"
            )));
        }
        let listener = callback.map(|callback| {
            Arc::new(Listener {
                callback,
                user_data,
                level,
            })
        });
        *LISTENER.write().unwrap_or_else(PoisonError::into_inner) = listener;
        INSTALLED.call_once(|| {
            let subscriber = tracing_subscriber::registry().with(Teller);
            // It fails in a process that has one of its own, which is then told.
            let _ = tracing::subscriber::set_global_default(subscriber);
        });
        Ok(())
    })
}

fn number(level: &Level) -> i32 {
    let known = match *level {
        Level::ERROR => blink_log_level::Error,
        Level::WARN => blink_log_level::Warn,
        Level::INFO => blink_log_level::Info,
        Level::DEBUG => blink_log_level::Debug,
        Level::TRACE => blink_log_level::Trace,
    };
    known as i32
}

fn listener(level: &Level) -> Option<Arc<Listener>> {
    let listener = LISTENER.read().unwrap_or_else(PoisonError::into_inner);
    listener
        .clone()
        .filter(|listener| number(level) <= listener.level)
}

struct Teller;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Teller {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let level = event.metadata().level();
        let Some(listener) = listener(level) else {
            return;
        };
        if TELLING.replace(true) {
            return;
        }
        let mut message = Message::default();
        event.record(&mut message);
        let message: CString = cut(format!(
            "{}: {}{}",
            event.metadata().target(),
            message.words,
            message.fields
        ));
        // SAFETY: whoever gave it keeps to what the header says of it.
        unsafe { (listener.callback)(number(level), message.as_ptr(), listener.user_data) };
        TELLING.set(false);
    }
}

#[derive(Default)]
struct Message {
    words: String,
    fields: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.words, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
