//! Text for C.

use std::ffi::{CStr, CString};

use blink_core::Isolation;

/// Text that ends with NUL. What holds one within is shown with another sign in its place: C would see less than there is.
pub(crate) fn cut(text: impl Into<Vec<u8>>) -> CString {
    const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
    CString::new(text).unwrap_or_else(|error| {
        let bytes = error.into_vec();
        let shown: Vec<u8> = bytes
            .split(|byte| *byte == 0)
            .collect::<Vec<_>>()
            .join(REPLACEMENT);
        CString::new(shown).unwrap_or_default()
    })
}

/// The pointer to text that may be missing.
pub(crate) fn pointer(text: Option<&CString>) -> *const std::ffi::c_char {
    text.map_or(std::ptr::null(), |text| text.as_ptr())
}

pub(crate) const fn isolation(isolation: Isolation) -> &'static CStr {
    match isolation {
        Isolation::Microvm => c"microvm",
        Isolation::Namespace => c"namespace",
        _ => c"other",
    }
}
