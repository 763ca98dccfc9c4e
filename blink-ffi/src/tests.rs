//! What can be told without C: the table of failures, and structures of the past and the future.

use std::ffi::CStr;

use blink_core::ErrorKind;

use crate::call::guarded;
use crate::error::blink_error_free;
use crate::sized::Structure;
use crate::status::{blink_status, blink_status_name};

#[test]
fn statuses_are_those_of_the_table() {
    let table = include_str!("../../tests/errors.tsv");
    let mut rows = 0;
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [kind, c_name, c_number, ..] = columns[..] else {
            panic!("{line:?} has not enough columns");
        };
        let number: i32 = c_number.parse().unwrap();
        let status = blink_status::ALL
            .into_iter()
            .find(|status| *status as i32 == number)
            .unwrap_or_else(|| panic!("{c_number} is no status"));
        assert_eq!(status.name().to_str().unwrap(), c_name);
        // SAFETY: it is a static string.
        let shown = unsafe { CStr::from_ptr(blink_status_name(number)) };
        assert_eq!(shown.to_str().unwrap(), c_name);
        let rust = ErrorKind::ALL.iter().find(|known| known.name() == kind);
        match rust {
            Some(rust) => {
                assert_eq!(i32::from(rust.code()), number);
                assert_eq!(blink_status::of(*rust), status);
            }
            None => assert_eq!(kind, "-"),
        }
        rows += 1;
    }
    assert_eq!(rows, blink_status::ALL.len());
    let kinds = table
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with('-'))
        .count();
    assert_eq!(kinds, ErrorKind::ALL.len());
    assert!(blink_status_name(20).is_null() && blink_status_name(-1).is_null());
}

/// A structure that has grown since its first version, which ended before `reserved`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grown {
    size: usize,
    first: u64,
    reserved: u32,
    later: u32,
}

mod first {
    use super::*;

    /// The same, as a program has it that was built with the first version.
    #[repr(C)]
    pub(super) struct Grown {
        pub(super) size: usize,
        pub(super) first: u64,
    }

    // SAFETY: it has a size first, and numbers behind.
    unsafe impl Structure for super::Grown {
        const NAME: &'static str = "grown";
        const FIRST_SIZE: usize = size_of::<Grown>();

        fn defaults() -> super::Grown {
            super::Grown {
                size: size_of::<super::Grown>(),
                first: 1,
                reserved: 0,
                later: 2,
            }
        }

        fn reserved(&self) -> u32 {
            self.reserved
        }
    }
}

fn status_of(
    body: impl FnOnce(&crate::call::Caller<'_>) -> Result<(), crate::failure::Failure>,
) -> (blink_status, String) {
    let mut error = std::ptr::null_mut();
    // SAFETY: the error can be written, and each body gives structures that are as large as they say.
    let status = unsafe { guarded(&raw mut error, body) };
    // SAFETY: it is text that is there until the error is freed.
    let message = unsafe { CStr::from_ptr(crate::error::blink_error_message(error)) };
    let message = message.to_str().unwrap().to_owned();
    blink_error_free(error);
    (status, message)
}

#[test]
fn structures_of_the_first_version_are_filled_up() {
    let mut old = first::Grown { size: 0, first: 0 };
    let place = (&raw mut old).cast::<Grown>();
    let size = size_of::<first::Grown>();
    assert_eq!(
        status_of(|caller| caller.init(place, size)).0,
        blink_status::Ok
    );
    assert_eq!((old.size, old.first), (size, 1));
    old.first = 5;
    let (status, _) = status_of(|caller| {
        let read = caller.options((&raw const old).cast::<Grown>(), "it")?;
        assert_eq!((read.first, read.reserved, read.later), (5, 0, 2));
        Ok(())
    });
    assert_eq!(status, blink_status::Ok);
    let filled = Grown {
        size: 0,
        first: 7,
        reserved: 0,
        later: 9,
    };
    let place = (&raw mut old).cast::<Grown>();
    assert_eq!(
        status_of(|caller| caller.fill(place, &filled, "it")).0,
        blink_status::Ok
    );
    assert_eq!((old.size, old.first), (size, 7));
}

#[test]
fn sizes_that_no_version_has_are_told_with_the_right_one() {
    let mut it: Grown = Grown::defaults();
    for wrong in [
        0,
        8,
        size_of::<first::Grown>() - 8,
        size_of::<Grown>() + 1,
        1 << 20,
    ] {
        let place = &raw mut it;
        let (status, message) = status_of(|caller| caller.init(place, wrong));
        assert_eq!(status, blink_status::InvalidArgument);
        assert!(message.contains(&format!("{wrong} bytes")), "{message}");
        assert!(
            message.contains(&format!("has {}", size_of::<Grown>())),
            "{message}"
        );
        if wrong >= 8 {
            // Also where nobody has looked at that.
            let (status, later) = status_of(|caller| caller.options(&raw const it, "it").map(drop));
            assert_eq!(status, blink_status::InvalidArgument);
            assert!(later.contains(&format!("{wrong} bytes")), "{later}");
        }
    }
}

#[test]
fn reserved_fields_are_refused() {
    let it = Grown {
        reserved: 3,
        ..Grown::defaults()
    };
    let (status, message) = status_of(|caller| caller.options(&raw const it, "it").map(drop));
    assert_eq!(status, blink_status::InvalidArgument);
    assert!(
        message.contains("reserved") && message.contains('3'),
        "{message}"
    );
}
