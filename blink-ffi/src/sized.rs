//! Structures that C and this library share, and that may grow: each begins with its size as its program knows it.

use crate::call::Caller;
use crate::failure::Failure;

/// A size beyond this is no size: no structure of this library will have it.
const LARGEST: usize = 64 << 10;

/// A structure that begins with its size in bytes, and of which every pattern of bits is a value.
///
/// # Safety
/// It is `repr(C)`, its first field is the `usize` that [`size`](Sized::size) gives, and it has only numbers and pointers.
pub(crate) unsafe trait Structure: Copy {
    /// Its name in the header.
    const NAME: &'static str;

    /// Its size in the first version that had it: no program has a smaller one. Where it has grown, this stays.
    const FIRST_SIZE: usize = size_of::<Self>();

    /// What a program has that says nothing.
    fn defaults() -> Self;

    /// What must be 0 until a later version has a use for it.
    fn reserved(&self) -> u32 {
        0
    }
}

/// Makes structures of the header.
macro_rules! structure {
    ($name:ident, $defaults:expr $(, $reserved:ident)?) => {
        // SAFETY: it stands beside its declaration, which has a size first, and numbers and pointers behind.
        unsafe impl crate::sized::Structure for $name {
            const NAME: &'static str = stringify!($name);

            fn defaults() -> $name {
                let mut defaults: $name = $defaults;
                defaults.size = std::mem::size_of::<$name>();
                defaults
            }

            $(fn reserved(&self) -> u32 {
                self.$reserved
            })?
        }
    };
}
pub(crate) use structure;

/// Refuses what a later version may have a use for: a program that sets it would mean something else then.
pub(crate) fn check_reserved(reserved: u32, what: &str) -> Result<(), Failure> {
    match reserved {
        0 => Ok(()),
        _ => Err(Failure::invalid(format!(
            "`reserved` of {what} is {reserved}; it must be 0: set the structure up before it is filled in"
        ))),
    }
}

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
        check_reserved(value.reserved(), what)?;
        Ok(value)
    }

    /// The size of a structure to fill in, which must be there.
    pub(crate) fn to_fill<T: Structure>(
        &self,
        place: *mut T,
        what: &str,
    ) -> Result<usize, Failure> {
        match place.is_null() {
            true => Err(Failure::invalid(format!("{what} is NULL"))),
            false => self.size_of(place, what),
        }
    }

    /// Fills in a structure of the program's, as far as it knows it.
    pub(crate) fn fill<T: Structure>(
        &self,
        place: *mut T,
        value: &T,
        what: &str,
    ) -> Result<(), Failure> {
        let (size, known) = (self.to_fill(place, what)?, size_of::<T>());
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

    /// Sets a structure of the program's to its defaults. One whose size cannot be is given that size and nothing else, so that
    /// the call which it is for tells of it, even where nobody has looked at this one's result.
    pub(crate) fn init<T: Structure>(&self, place: *mut T, size: usize) -> Result<(), Failure> {
        if place.is_null() || !place.is_aligned() {
            return Err(Failure::invalid(format!(
                "the place of the {} is NULL, or not aligned for it",
                T::NAME
            )));
        }
        if let Err(failure) = check_size::<T>(size, T::NAME) {
            if size >= size_of::<usize>() {
                // SAFETY: the caller vouches for so many bytes.
                unsafe { place.cast::<usize>().write(size) };
            }
            return Err(failure);
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
        Ok(())
    }

    fn size_of<T: Structure>(&self, structure: *const T, what: &str) -> Result<usize, Failure> {
        if !structure.is_aligned() {
            return Err(Failure::invalid(format!(
                "{what} is at no address for its type"
            )));
        }
        // SAFETY: the caller vouches for it, and a structure begins with its size.
        let size = unsafe { structure.cast::<usize>().read() };
        check_size::<T>(size, what).map(|()| size)
    }
}

fn check_size<T: Structure>(size: usize, what: &str) -> Result<(), Failure> {
    let can_be = (T::FIRST_SIZE..=LARGEST).contains(&size) && size.is_multiple_of(align_of::<T>());
    match can_be {
        true => Ok(()),
        false => Err(Failure::invalid(format!(
            "{what} says that it has {size} bytes, and a {0} has {1}: call {0}_init() with sizeof({0})",
            T::NAME,
            size_of::<T>()
        ))),
    }
}

/// Frees what a structure of the program's owns, and sets it up anew.
macro_rules! dispose {
    ($place:expr) => {{
        let dispose = |caller: &crate::call::Caller<'_>| {
            if $place.is_null() {
                return Ok(());
            }
            let held = caller.options($place, "the structure")?;
            crate::handle::free(held.owner);
            caller.fill($place, &crate::sized::zeros(), "the structure")
        };
        // SAFETY: whoever calls an exported function keeps to what the header says of its pointers.
        let _ = unsafe { crate::call::brief(dispose) };
    }};
}
pub(crate) use dispose;
