//! What every exported function is: a call that no panic leaves, with what C gave checked as far as it can be.

use std::ffi::{CStr, OsStr, c_char};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;

use crate::failure::{Failure, caught, quietly};
use crate::handle::{Handle, give};
use crate::status::blink_status;

/// More strings or structures than this in one array are no array, but a count that lies: a request of so many would not
/// fit on the link.
const ARRAY_LIMIT: usize = 1 << 20;

/// Runs the body of an exported function.
///
/// # Safety
/// `err` is NULL or can be written, and whatever the body reads and writes through the [`Caller`] is what the header
/// asks for: strings end with NUL, lengths are those of what they belong to, structures begin with their size.
pub(crate) unsafe fn guarded<E: Handle + From<Failure>>(
    err: *mut *mut E,
    body: impl FnOnce(&Caller<'_>) -> Result<(), Failure>,
) -> blink_status {
    if !err.is_null() {
        // SAFETY: the caller says that it can be written.
        unsafe { err.write(std::ptr::null_mut()) };
    }
    let Err(failure) = caught(|| body(&Caller(PhantomData))) else {
        return blink_status::Ok;
    };
    let status = failure.status;
    if !err.is_null() {
        let error = quietly(std::ptr::null_mut(), || give(E::from(failure)));
        // SAFETY: as above.
        unsafe { err.write(error) };
    }
    status
}

/// Runs the body of an exported function that tells no more than the status.
///
/// # Safety
/// As of [`guarded`].
pub(crate) unsafe fn brief(body: impl FnOnce(&Caller<'_>) -> Result<(), Failure>) -> blink_status {
    match caught(|| body(&Caller(PhantomData))) {
        Ok(()) => blink_status::Ok,
        Err(failure) => failure.status,
    }
}

/// Proof that a call is under way whose caller vouches for the pointers that it gave.
pub(crate) struct Caller<'a>(PhantomData<&'a ()>);

impl Caller<'_> {
    /// A place for a result, which is NULL until there is one.
    pub(crate) fn out<T>(&self, place: *mut *mut T) -> Result<Out<T>, Failure> {
        if place.is_null() {
            return Err(Failure::invalid("the place for the result is NULL"));
        }
        // SAFETY: the caller vouches for it.
        unsafe { place.write(std::ptr::null_mut()) };
        Ok(Out(place))
    }

    /// Places for several results.
    pub(crate) fn outs<T>(&self, first: *mut *mut T, count: usize) -> Result<Vec<Out<T>>, Failure> {
        let places = self
            .array(first.cast_const(), count, "the place for the results")?
            .len();
        // SAFETY: the caller vouches for so many places.
        (0..places)
            .map(|index| self.out(unsafe { first.add(index) }))
            .collect()
    }

    /// Writes a number or the like, unless nobody wants it.
    pub(crate) fn set<T: Copy>(&self, place: *mut T, value: T) {
        if !place.is_null() {
            // SAFETY: the caller vouches for it.
            unsafe { place.write(value) };
        }
    }

    /// A place that must be there, for a number or the like.
    pub(crate) fn place<T: Copy>(&self, place: *mut T, first: T) -> Result<*mut T, Failure> {
        if place.is_null() {
            return Err(Failure::invalid("the place for the result is NULL"));
        }
        self.set(place, first);
        Ok(place)
    }

    /// Any bytes that end with NUL: a path, an argument.
    pub(crate) fn words(&self, words: *const c_char, what: &str) -> Result<&OsStr, Failure> {
        if words.is_null() {
            return Err(Failure::invalid(format!("{what} is NULL")));
        }
        // SAFETY: the caller vouches for it, and for as long as the call.
        let words = unsafe { CStr::from_ptr(words) };
        Ok(OsStr::from_bytes(words.to_bytes()))
    }

    /// Text in UTF-8.
    pub(crate) fn text(&self, text: *const c_char, what: &str) -> Result<&str, Failure> {
        let words = self.words(text, what)?;
        words.to_str().ok_or_else(|| {
            Failure::invalid(format!("{what} {:?} is no text in UTF-8", words.display()))
        })
    }

    pub(crate) fn optional_text(
        &self,
        text: *const c_char,
        what: &str,
    ) -> Result<Option<&str>, Failure> {
        match text.is_null() {
            true => Ok(None),
            false => self.text(text, what).map(Some),
        }
    }

    pub(crate) fn optional_words(
        &self,
        words: *const c_char,
        what: &str,
    ) -> Result<Option<&OsStr>, Failure> {
        match words.is_null() {
            true => Ok(None),
            false => self.words(words, what).map(Some),
        }
    }

    /// Elements of an array; NULL is an array of none.
    pub(crate) fn array<T>(
        &self,
        first: *const T,
        count: usize,
        what: &str,
    ) -> Result<&[T], Failure> {
        if count == 0 {
            return Ok(&[]);
        }
        if first.is_null() {
            return Err(Failure::invalid(format!(
                "{what} is NULL, and has {count} elements"
            )));
        }
        if count > ARRAY_LIMIT {
            return Err(Failure::invalid(format!(
                "{what} cannot have {count} elements; at most {ARRAY_LIMIT}"
            )));
        }
        if !first.is_aligned() {
            return Err(Failure::invalid(format!(
                "{what} is at no address for its type"
            )));
        }
        // SAFETY: the caller vouches for it, and for as long as the call.
        Ok(unsafe { std::slice::from_raw_parts(first, count) })
    }

    /// An array of words.
    pub(crate) fn all_words(
        &self,
        first: *const *const c_char,
        count: usize,
        what: &str,
    ) -> Result<Vec<&OsStr>, Failure> {
        let pointers = self.array(first, count, what)?;
        let mut all = Vec::with_capacity(count);
        for (index, words) in pointers.iter().enumerate() {
            all.push(self.words(*words, &format!("element {index} of {what}"))?);
        }
        Ok(all)
    }

    /// An array of texts.
    pub(crate) fn all_texts(
        &self,
        first: *const *const c_char,
        count: usize,
        what: &str,
    ) -> Result<Vec<&str>, Failure> {
        let pointers = self.array(first, count, what)?;
        let mut all = Vec::with_capacity(count);
        for (index, text) in pointers.iter().enumerate() {
            all.push(self.text(*text, &format!("element {index} of {what}"))?);
        }
        Ok(all)
    }

    /// An array of "NAME=VALUE".
    pub(crate) fn pairs(
        &self,
        first: *const *const c_char,
        count: usize,
        what: &str,
    ) -> Result<Vec<(&OsStr, &OsStr)>, Failure> {
        let split = |words: &OsStr| {
            let bytes = words.as_bytes();
            let middle = bytes.iter().position(|byte| *byte == b'=').ok_or_else(|| {
                Failure::invalid(format!(
                    "{:?} in {what} is not NAME=VALUE",
                    words.to_string_lossy()
                ))
            })?;
            Ok::<_, Failure>(middle)
        };
        self.all_words(first, count, what)?
            .into_iter()
            .map(|words| {
                let middle = split(words)?;
                let bytes = words.as_bytes();
                let (name, value) = (&bytes[..middle], &bytes[middle + 1..]);
                Ok((OsStr::from_bytes(name), OsStr::from_bytes(value)))
            })
            .collect()
    }

    /// Bytes; NULL is none of them.
    pub(crate) fn bytes(
        &self,
        first: *const u8,
        length: usize,
        what: &str,
    ) -> Result<&[u8], Failure> {
        self.check_length(first, length, what)?;
        if length == 0 {
            return Ok(&[]);
        }
        // SAFETY: the caller vouches for it, and for as long as the call.
        Ok(unsafe { std::slice::from_raw_parts(first, length) })
    }

    /// Room for bytes, at least for one.
    #[expect(
        clippy::mut_from_ref,
        reason = "the room is the caller's, not of this proof"
    )]
    pub(crate) fn room(
        &self,
        first: *mut u8,
        length: usize,
        what: &str,
    ) -> Result<&mut [u8], Failure> {
        self.check_length(first, length, what)?;
        if length == 0 {
            return Err(Failure::invalid(format!("{what} has no room")));
        }
        // SAFETY: the caller vouches for it, and that nobody else uses it during the call. C does not know of bytes that
        // were never written, and nothing is read from here.
        Ok(unsafe { std::slice::from_raw_parts_mut(first, length) })
    }

    fn check_length(&self, first: *const u8, length: usize, what: &str) -> Result<(), Failure> {
        if first.is_null() && length > 0 {
            return Err(Failure::invalid(format!(
                "{what} is NULL, and has {length} bytes"
            )));
        }
        match isize::try_from(length)
            .is_ok_and(|length| first.addr().checked_add_signed(length).is_some())
        {
            true => Ok(()),
            false => Err(Failure::invalid(format!(
                "{what} cannot have {length} bytes"
            ))),
        }
    }
}

/// A place of the caller's for a result.
pub(crate) struct Out<T>(*mut *mut T);

impl<T: Handle> Out<T> {
    /// Hands a result to the caller.
    pub(crate) fn give(self, value: T) {
        // SAFETY: `Caller::out` has written to it in the same call.
        unsafe { self.0.write(give(value)) }
    }
}

/// The body of an exported function that can fail: [`guarded`], with what makes it sound.
macro_rules! call {
    ($err:expr, |$caller:ident| $body:block) => {{
        // SAFETY: whoever calls an exported function keeps to what the header says of its pointers.
        unsafe { crate::call::guarded($err, |$caller| $body) }
    }};
}
pub(crate) use call;

/// The body of an exported `_init` function.
macro_rules! init {
    ($place:expr, $size:expr) => {{
        // SAFETY: whoever calls an exported function keeps to what the header says of its pointers.
        unsafe { crate::call::brief(|caller| caller.init($place, $size)) }
    }};
}
pub(crate) use init;
