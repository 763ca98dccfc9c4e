//! How far an image, an export or an import is.

use std::ffi::c_void;

use blink_core::TransferProgress;
use blink_core::{PullProgress, PullStep};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::cancel::blink_cancel;
use crate::core::Core;
use crate::failure::Failure;

/// What is being done with an image.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum blink_step {
    /// Its layers come into the store.
    Download = 1,
    /// Its layers become a root folder.
    Unpack = 2,
}

/// How far an image is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_progress {
    /// sizeof(blink_progress), as the library knows it.
    pub size: usize,
    /// What is being done: a blink_step, or a number of a later version.
    pub step: i32,
    /// The layer being unpacked, from 1; or the number of layers that are downloaded.
    pub layer: u32,
    /// Number of layers.
    pub layers: u32,
    /// Always 0.
    pub reserved: u32,
    /// Bytes of layers that are done, as they are stored.
    pub bytes_done: u64,
    /// Bytes of all layers.
    pub bytes_total: u64,
}

/// Is told how far an image is, some ten times a second, on the thread that made the call and while that waits. It may
/// call any function of this library, also to cancel the call. It must return: no longjmp, no C++ exception.
///
/// @param progress   There until the callback returns.
/// @param user_data  What was given with the callback.
pub type blink_progress_callback =
    Option<unsafe extern "C" fn(progress: *const blink_progress, user_data: *mut c_void)>;

/// How far an export or an import is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct blink_transfer {
    /// sizeof(blink_transfer), as the library knows it.
    pub size: usize,
    /// Bytes that are done.
    pub bytes_done: u64,
    /// Bytes of all; 0 if that is not known before the end.
    pub bytes_total: u64,
}

/// Is told how far an export or an import is, after every few MiB and at the end, on the thread that made the call and while
/// that waits. It may call any function of this library, also to cancel the call. It must return: no longjmp, no C++
/// exception.
///
/// @param transfer   There until the callback returns.
/// @param user_data  What was given with the callback.
pub type blink_transfer_callback =
    Option<unsafe extern "C" fn(transfer: *const blink_transfer, user_data: *mut c_void)>;

/// Callbacks, and what is on its way to them.
pub(crate) struct Telling {
    image: (blink_progress_callback, *mut c_void),
    transfer: (blink_transfer_callback, *mut c_void),
    sender: UnboundedSender<News>,
    news: UnboundedReceiver<News>,
}

enum News {
    Image(PullProgress),
    Transfer(TransferProgress),
}

impl Telling {
    pub(crate) fn new(callback: blink_progress_callback, user_data: *mut c_void) -> Telling {
        let (sender, news) = unbounded_channel();
        Telling {
            image: (callback, user_data),
            transfer: (None, std::ptr::null_mut()),
            sender,
            news,
        }
    }

    /// With somebody who is told of a transfer.
    pub(crate) fn of_transfer(
        self,
        callback: blink_transfer_callback,
        user_data: *mut c_void,
    ) -> Telling {
        Telling {
            transfer: (callback, user_data),
            ..self
        }
    }

    /// Something that may cross threads, for whoever makes progress with an image.
    pub(crate) fn hear(&self) -> impl Fn(PullProgress) + Send + Sync + 'static {
        let sender = self.image.0.is_some().then(|| self.sender.clone());
        move |progress| {
            if let Some(sender) = &sender {
                let _ = sender.send(News::Image(progress));
            }
        }
    }

    /// As [`hear`](Telling::hear), for whoever exports or imports.
    pub(crate) fn hear_transfer(&self) -> impl Fn(TransferProgress) + Send + Sync + 'static {
        let sender = self.transfer.0.is_some().then(|| self.sender.clone());
        move |progress| {
            if let Some(sender) = &sender {
                let _ = sender.send(News::Transfer(progress));
            }
        }
    }

    /// Waits for something while telling of it.
    pub(crate) fn wait<T, E: Into<Failure>>(
        self,
        core: &Core,
        cancel: *const blink_cancel,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let Telling {
            image,
            transfer,
            sender: _sender,
            mut news,
        } = self;
        core.wait_telling(cancel, future, &mut news, |news| match news {
            News::Image(progress) => tell(image, progress),
            News::Transfer(progress) => tell_transfer(transfer, progress),
        })
    }
}

fn tell((callback, user_data): (blink_progress_callback, *mut c_void), progress: PullProgress) {
    let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
    let shown = blink_progress {
        size: size_of::<blink_progress>(),
        step: match progress.step {
            PullStep::Download => blink_step::Download as i32,
            PullStep::Unpack => blink_step::Unpack as i32,
            _ => 0,
        },
        layer: count(progress.layer),
        layers: count(progress.layers),
        reserved: 0,
        bytes_done: progress.bytes_done,
        bytes_total: progress.bytes_total,
    };
    if let Some(callback) = callback {
        // SAFETY: whoever gave it keeps to what the header says of it.
        unsafe { callback(&raw const shown, user_data) };
    }
}

fn tell_transfer(
    (callback, user_data): (blink_transfer_callback, *mut c_void),
    progress: TransferProgress,
) {
    let shown = blink_transfer {
        size: size_of::<blink_transfer>(),
        bytes_done: progress.bytes_done,
        bytes_total: progress.bytes_total.unwrap_or(0),
    };
    if let Some(callback) = callback {
        // SAFETY: whoever gave it keeps to what the header says of it.
        unsafe { callback(&raw const shown, user_data) };
    }
}
