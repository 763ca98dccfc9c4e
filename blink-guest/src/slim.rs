//! Keeps out of the static agent what glibc would bring along for functions that the agent can do without:
//! translated messages (gettext, character sets, locales: a quarter of the program), its own last words to a terminal
//! in wide characters, the main thread's stack bounds (which it reads out of a file with `sscanf`), and looking up
//! functions by name (the dynamic loader).

use std::ffi::{c_char, c_int, c_void};

/// Messages stay in English.
///
/// # Safety
/// It only gives back the caller's own pointer.
// SAFETY: the name is glibc's own, with glibc's signature; a static program may define it, and all of glibc then uses it.
#[unsafe(no_mangle)]
unsafe extern "C" fn __dcgettext(
    _: *const c_char,
    message: *const c_char,
    _: c_int,
) -> *const c_char {
    message
}

/// What glibc calls when it finds itself broken.
///
/// # Safety
/// It touches none of its arguments.
// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn __assert_fail(
    _: *const c_char,
    _: *const c_char,
    _: std::ffi::c_uint,
    _: *const c_char,
) -> ! {
    std::process::abort()
}

/// What glibc says before it aborts goes unsaid.
///
/// # Safety
/// It touches none of its arguments.
// SAFETY: as above; the arguments that C passes behind these are the caller's to clean up.
#[unsafe(no_mangle)]
unsafe extern "C" fn __fxprintf(_: *mut c_void, _: *const c_char) -> c_int {
    0
}

/// The standard library asks it where the main thread's guard page is, to explain an overflow, and does without.
///
/// # Safety
/// It touches none of its arguments.
// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_getattr_np(_: libc::pthread_t, _: *mut c_void) -> c_int {
    libc::ENOSYS
}

/// The standard library looks for newer functions of glibc with it, and does without those that it does not find.
///
/// # Safety
/// It touches none of its arguments.
// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn dlsym(_: *mut c_void, _: *const c_char) -> *mut c_void {
    std::ptr::null_mut()
}
