//! Lists of strings.

use std::ffi::{CString, c_char};

use crate::failure::quietly;
use crate::handle;
use crate::text::cut;

/// A list of strings. It never changes.
pub struct blink_strings(Vec<CString>);

impl blink_strings {
    pub(crate) fn new(strings: impl IntoIterator<Item = String>) -> blink_strings {
        blink_strings(strings.into_iter().map(cut).collect())
    }
}

/// The number of strings in a list.
///
/// @param strings  Borrowed. May be used from several threads at once.
/// @return 0 for NULL or an invalid handle.
#[unsafe(no_mangle)]
pub extern "C" fn blink_strings_count(strings: *const blink_strings) -> usize {
    quietly(0, || {
        handle::get(strings).map_or(0, |strings| strings.0.len())
    })
}

/// A string of a list.
///
/// @param strings  Borrowed. May be used from several threads at once.
/// @param index    From 0.
/// @return Text in UTF-8, there until the list is freed. NULL if the index is out of range.
#[unsafe(no_mangle)]
pub extern "C" fn blink_strings_get(strings: *const blink_strings, index: usize) -> *const c_char {
    quietly(std::ptr::null(), || {
        let strings = handle::get(strings).ok();
        strings
            .as_ref()
            .and_then(|strings| strings.0.get(index))
            .map_or(std::ptr::null(), |string| string.as_ptr())
    })
}

/// Frees a list with its strings.
///
/// @param strings  Taken. NULL does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn blink_strings_free(strings: *mut blink_strings) {
    handle::free(strings);
}
