//! Structures that C and this library share, and that may grow: each begins with its size as its program knows it.

use crate::call::{Caller, Failure};

/// A size beyond this is no size: no structure of this library will have it.
const LARGEST: usize = 64 << 10;

/// A structure that begins with its size in bytes, and of which every pattern of bits is a value.
///
/// # Safety
/// It is `repr(C)`, its first field is the `usize` that [`size`](Sized::size) gives, and it has only numbers and pointers.
pub(crate) unsafe trait Structure: Copy {
    /// What a program has that says nothing.
    fn defaults() -> Self;
}

/// Makes structures of the header.
macro_rules! structure {
    ($name:ident, $defaults:expr) => {
        // SAFETY: it stands beside its declaration, which has a size first, and numbers and pointers behind.
        unsafe impl crate::sized::Structure for $name {
            fn defaults() -> $name {
                let mut defaults: $name = $defaults;
                defaults.size = std::mem::size_of::<$name>();
                defaults
            }
        }
    };
}
pub(crate) use structure;

/// All zeros: numbers and pointers have that value.
pub(crate) fn zeros<T: Structure>() -> T {
    // SAFETY: a structure has only numbers and pointers.
    unsafe { std::mem::zeroed() }
}

impl Caller<'_> {
    /// What a program has filled in, which may know an older structure or a newer one; NULL is the defaults.
    pub(crate) fn options<T: Structure>(
        &self,
        options: *const T,
        what: &str,
    ) -> Result<T, Failure> {
        let mut value = T::defaults();
        if options.is_null() {
            return Ok(value);
        }
        let (size, known) = (self.size_of(options, what)?, size_of::<T>());
        // SAFETY: the caller vouches for as many bytes as the structure says, and every pattern of bits is a value.
        unsafe {
            let from = options.cast::<u8>();
            std::ptr::copy_nonoverlapping(from, (&raw mut value).cast::<u8>(), size.min(known));
            let newer = (known..size).any(|at| from.add(at).read() != 0);
            if newer {
                return Err(Failure::new(
                    crate::status::blink_status::Unsupported,
                    format!(
                        "{what} asks for something that this version does not know; use a newer libblink"
                    ),
                ));
            }
        }
        Ok(value)
    }

    /// Fills in a structure of the program's, as far as it knows it.
    pub(crate) fn fill<T: Structure>(
        &self,
        place: *mut T,
        value: &T,
        what: &str,
    ) -> Result<(), Failure> {
        if place.is_null() {
            return Err(Failure::invalid(format!("{what} is NULL")));
        }
        let (size, known) = (self.size_of(place, what)?, size_of::<T>());
        let first = size_of::<usize>();
        // SAFETY: the caller vouches for as many bytes as the structure says; its size stays.
        unsafe {
            let to = place.cast::<u8>();
            let from = (&raw const *value).cast::<u8>();
            std::ptr::copy_nonoverlapping(from.add(first), to.add(first), size.min(known) - first);
            std::ptr::write_bytes(to.add(size.min(known)), 0, size.saturating_sub(known));
        }
        Ok(())
    }

    /// Sets a structure of the program's to its defaults; does nothing where it cannot be one.
    pub(crate) fn init<T: Structure>(&self, place: *mut T, size: usize) {
        if place.is_null() || !place.is_aligned() || !is_size::<T>(size) {
            return;
        }
        let known = size_of::<T>();
        let defaults = T::defaults();
        // SAFETY: the caller vouches for so many bytes.
        unsafe {
            let to = place.cast::<u8>();
            std::ptr::copy_nonoverlapping((&raw const defaults).cast::<u8>(), to, size.min(known));
            std::ptr::write_bytes(to.add(size.min(known)), 0, size.saturating_sub(known));
            place.cast::<usize>().write(size);
        }
    }

    fn size_of<T: Structure>(&self, structure: *const T, what: &str) -> Result<usize, Failure> {
        if !structure.is_aligned() {
            return Err(Failure::invalid(format!(
                "{what} is at no address for its type"
            )));
        }
        // SAFETY: the caller vouches for it, and a structure begins with its size.
        let size = unsafe { structure.cast::<usize>().read() };
        match is_size::<T>(size) {
            true => Ok(size),
            false => Err(Failure::invalid(format!(
                "{what} says that it has {size} bytes, which no version of it has; set it up with its _init function"
            ))),
        }
    }
}

fn is_size<T>(size: usize) -> bool {
    (size_of::<usize>()..=LARGEST).contains(&size) && size.is_multiple_of(align_of::<T>())
}
