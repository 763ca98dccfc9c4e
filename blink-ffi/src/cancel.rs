//! Cancelling calls from other threads.

use std::ffi::CStr;
use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::call::{Failure, quietly};
use crate::handle::{self, Handle};

/// Cancels calls: whoever has it can end every call that it was given to, from any thread. One may be given to several
/// calls. Once cancelled it stays so: a call that it is given to then fails at once.
pub struct blink_cancel {
    token: CancellationToken,
}

impl Handle for blink_cancel {
    const NAME: &'static CStr = c"blink_cancel";
}

impl blink_cancel {
    /// Waits for something, or for the cancelling.
    pub(crate) async fn or<T, E: Into<Failure>>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(Failure::cancelled()),
            result = future => result.map_err(Into::into),
        }
    }
}

/// Makes something to cancel calls with.
///
/// @return Free with blink_cancel_free(). NULL only where memory is short.
#[unsafe(no_mangle)]
pub extern "C" fn blink_cancel_new() -> *mut blink_cancel {
    quietly(std::ptr::null_mut(), || {
        handle::give(blink_cancel {
            token: CancellationToken::new(),
        })
    })
}

/// Cancels all calls that it was given to, and all that it is given to later: they return BLINK_STATUS_CANCELLED soon.
/// Does not wait for them. A command that is cancelled is killed with everything that it has started; a change that has
/// begun, such as a checkpoint, is finished or undone behind the caller's back, never left half-way.
///
/// @param cancel  Borrowed. May be used from several threads at once, and while calls use it. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_cancel_now(cancel: *const blink_cancel) {
    quietly((), || {
        if let Ok(cancel) = handle::get(cancel) {
            cancel.token.cancel();
        }
    });
}

/// Frees it. Calls that it was given to go on, and can be cancelled no more.
///
/// @param cancel  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_cancel_free(cancel: *mut blink_cancel) {
    handle::free(cancel);
}
