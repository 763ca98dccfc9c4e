//! Bytes that a call has brought.

use bytes::Bytes;

use crate::failure::quietly;
use crate::handle;

/// Bytes that a call has brought. They never change.
pub struct blink_bytes(Bytes);

impl blink_bytes {
    pub(crate) fn new(bytes: Bytes) -> blink_bytes {
        blink_bytes(bytes)
    }
}

/// Where the bytes are; they do not end with NUL.
///
/// @param bytes   Borrowed. May be used from several threads at once.
/// @return There until they are freed. NULL if there are none, and for an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_bytes_data(bytes: *const blink_bytes) -> *const u8 {
    quietly(std::ptr::null(), || match handle::get(bytes) {
        Ok(bytes) if !bytes.0.is_empty() => bytes.0.as_ptr(),
        _ => std::ptr::null(),
    })
}

/// How many bytes there are.
///
/// @param bytes  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_bytes_length(bytes: *const blink_bytes) -> usize {
    quietly(0, || handle::get(bytes).map_or(0, |bytes| bytes.0.len()))
}

/// Frees bytes.
///
/// @param bytes  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_bytes_free(bytes: *mut blink_bytes) {
    handle::free(bytes);
}
