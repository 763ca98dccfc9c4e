//! Cancelling calls from other threads, and from signal handlers.

use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::call;
use crate::error::blink_error;
use crate::failure::{Failure, quietly};
use crate::handle;
use crate::status::blink_status;

/// Cancels calls: whoever has it can end every call that it was given to, from any thread. One may be given to several
/// calls. Once cancelled it stays so: a call that it is given to then fails at once.
pub struct blink_cancel {
    token: CancellationToken,
    /// Made where somebody asks for it: the calls of all others need not look at it.
    descriptor: OnceLock<OwnedFd>,
    /// Cancelled once there is a descriptor, so that calls which are under way look at it as well.
    described: CancellationToken,
    /// When it cancels by itself.
    deadline: Option<Instant>,
    pid: u32,
}

impl blink_cancel {
    fn new(deadline: Option<Instant>) -> blink_cancel {
        blink_cancel {
            deadline,
            token: CancellationToken::new(),
            descriptor: OnceLock::new(),
            described: CancellationToken::new(),
            pid: std::process::id(),
        }
    }

    /// Waits for something, or for the cancelling.
    pub(crate) async fn or<T, E: Into<Failure>>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        self.check()?;
        tokio::select! {
            biased;
            failure = self.cancelled() => Err(failure),
            result = future => result.map_err(Into::into),
        }
    }

    /// Waits until it is cancelled, or until nobody could say any more whether it was.
    async fn cancelled(&self) -> Failure {
        let over = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
            self.cancel();
        };
        tokio::pin!(over);
        tokio::select! {
            biased;
            () = self.token.cancelled() => return Failure::cancelled(),
            () = &mut over => return Failure::cancelled(),
            () = self.described.cancelled() => {}
        }
        tokio::select! {
            biased;
            () = self.token.cancelled() => Failure::cancelled(),
            () = over => Failure::cancelled(),
            written = self.written() => match written {
                Ok(()) => {
                    self.token.cancel();
                    Failure::cancelled()
                }
                Err(error) => Failure::descriptors("to watch the descriptor of a blink_cancel", error),
            }
        }
    }

    /// Waits until somebody has written to the descriptor.
    async fn written(&self) -> std::io::Result<()> {
        let Some(descriptor) = self.descriptor.get() else {
            return std::future::pending().await;
        };
        // Before anything is begun: the next look at descriptors may come after the first work.
        let mut now = [PollFd::new(descriptor, PollFlags::IN)];
        if poll(&mut now, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            return Ok(());
        }
        // A copy, because several calls may watch it at once. Nobody reads it: what is cancelled stays so.
        let copy = descriptor.as_fd().try_clone_to_owned()?;
        // SAFETY: it owns its descriptor, which stays open and the same until this is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE)? };
        watched.readable().await.map(drop)
    }

    /// Fails in a child process: its parent's threads may have been at it while it was forked, and a descriptor is the parent's.
    fn check(&self) -> Result<(), Failure> {
        match self.pid == std::process::id() {
            true => Ok(()),
            false => Err(Failure::new(
                blink_status::Unsupported,
                format!(
                    "this blink_cancel was made by the process {}, of which this one was forked; make another one here",
                    self.pid
                ),
            )),
        }
    }

    fn fd(&self) -> Result<RawFd, Failure> {
        self.check()?;
        if self.descriptor.get().is_none() {
            let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|error| Failure::descriptors("to cancel with", error.into()))?;
            // Another thread may have been faster.
            let _ = self.descriptor.set(made);
            self.described.cancel();
        }
        self.descriptor
            .get()
            .map(AsRawFd::as_raw_fd)
            .ok_or_else(|| {
                Failure::new(
                    blink_status::Internal,
                    "the descriptor to cancel with has gone",
                )
            })
    }

    fn cancel(&self) {
        if self.check().is_ok() {
            self.token.cancel();
            if let Some(descriptor) = self.descriptor.get() {
                // It fails where the count is full, and then it is readable.
                let _ = rustix::io::write(descriptor, &1_u64.to_ne_bytes());
            }
        }
    }
}

/// Makes something to cancel calls with.
///
/// @return Free with blink_cancel_free(). NULL only if memory is short.
#[unsafe(no_mangle)]
pub extern "C" fn blink_cancel_new() -> *mut blink_cancel {
    quietly(std::ptr::null_mut(), || {
        handle::give(blink_cancel::new(None))
    })
}

/// Makes something to cancel calls with that cancels by itself after a time, so that all calls that it is given to have to end by then.
/// blink_cancel_now() cancels it earlier.
///
/// @param timeout_ms  Milliseconds from now on; 0 cancels at once.
/// @return Free with blink_cancel_free(). NULL only if memory is short.
#[unsafe(no_mangle)]
pub extern "C" fn blink_cancel_after(timeout_ms: u64) -> *mut blink_cancel {
    quietly(std::ptr::null_mut(), || {
        let deadline = Instant::now().checked_add(Duration::from_millis(timeout_ms));
        handle::give(blink_cancel::new(deadline))
    })
}

/// Cancels all calls that it was given to, and all that it is given to later: they return BLINK_STATUS_CANCELLED soon.
/// Does not wait for them. A command that is cancelled is killed with everything that it has started; a change that has
/// begun, such as a checkpoint, is finished or undone behind the caller's back, never left half-way.
///
/// Not for signal handlers, where it may wait for the very thread that it interrupts: see blink_cancel_fd().
///
/// @param cancel  Borrowed. May be used from several threads at once, and while calls use it. NULL, a freed one and that of
///                a process which this one was forked from do nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_cancel_now(cancel: *const blink_cancel) {
    quietly((), || {
        if let Ok(Some(cancel)) = handle::get_optional(cancel) {
            cancel.cancel();
        }
    });
}

/// A file descriptor that cancels when it is written to: what a signal handler may do, where no function of this library may
/// be called. Ask for it before the handler is installed; the handler then writes 8 bytes, any number but 0:
///
///     static const uint64_t one = 1;
///     write(fd, &one, sizeof one);
///
/// Calls that it is given to watch it with a descriptor of their own, and are BLINK_STATUS_RESOURCE_EXHAUSTED where there is none.
/// Writing never blocks, and the descriptor is readable once blink_cancel_now() was called, it was
/// written to, or a call has ended because the time of blink_cancel_after() was over. Do not read from it.
///
/// @param cancel  Borrowed. May be used from several threads at once.
/// @param fd      Set to the descriptor, which is there until the blink_cancel is freed, and not inherited by programs that are
///                started. -1 on failure. Remove the handler before the blink_cancel is freed: its number may then name
///                another file.
/// @param err     May be NULL. If set, free with blink_error_free().
/// @return BLINK_STATUS_OK (0); INVALID_ARGUMENT; RESOURCE_EXHAUSTED if there are no more descriptors; UNSUPPORTED in a child
///         process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blink_cancel_fd(
    cancel: *const blink_cancel,
    fd: *mut i32,
    err: *mut *mut blink_error,
) -> blink_status {
    call!(err, |caller| {
        let place = caller.place(fd, -1)?;
        caller.set(place, handle::get(cancel)?.fd()?);
        Ok(())
    })
}

/// Frees it. Calls that it was given to go on, and can be cancelled no more.
///
/// @param cancel  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_cancel_free(cancel: *mut blink_cancel) {
    handle::free(cancel);
}
