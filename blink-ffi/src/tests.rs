//! What can be told without C: the table of failures, and structures of the past and the future.

use std::ffi::CStr;

use blink_core::ErrorKind;

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
        let rust = ErrorKind::ALL
            .into_iter()
            .find(|known| known.name() == kind);
        match rust {
            Some(rust) => {
                assert_eq!(i32::from(rust.code()), number);
                assert_eq!(blink_status::of(rust), status);
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
