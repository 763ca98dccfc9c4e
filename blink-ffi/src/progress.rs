//! How far an image is.

use std::ffi::c_void;

use blink_core::image::{Progress, Step};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::call::Failure;
use crate::cancel::blink_cancel;
use crate::core::Core;

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

/// A callback, and what is on its way to it.
pub(crate) struct Telling {
    callback: blink_progress_callback,
    user_data: *mut c_void,
    pub(crate) sender: UnboundedSender<Progress>,
    pub(crate) news: UnboundedReceiver<Progress>,
}

impl Telling {
    pub(crate) fn new(callback: blink_progress_callback, user_data: *mut c_void) -> Telling {
        let (sender, news) = unbounded_channel();
        Telling {
            callback,
            user_data,
            sender,
            news,
        }
    }

    /// Something that may cross threads, for whoever makes progress.
    pub(crate) fn hear(&self) -> impl Fn(Progress) + Send + Sync + 'static {
        let sender = self.callback.is_some().then(|| self.sender.clone());
        move |progress| {
            if let Some(sender) = &sender {
                let _ = sender.send(progress);
            }
        }
    }

    /// Waits for something while telling of it.
    pub(crate) fn wait<T, E: Into<Failure>>(
        mut self,
        core: &Core,
        cancel: *const blink_cancel,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let (callback, user_data) = (self.callback, self.user_data);
        core.wait_telling(cancel, future, &mut self.news, |progress| {
            tell(callback, user_data, progress);
        })
    }
}

fn tell(callback: blink_progress_callback, user_data: *mut c_void, progress: Progress) {
    let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
    let shown = blink_progress {
        size: size_of::<blink_progress>(),
        step: match progress.step {
            Step::Download => blink_step::Download as i32,
            Step::Unpack => blink_step::Unpack as i32,
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
