//! Names of sessions and checkpoints.

use crate::error::{Error, Result};

/// As the field has it: they become parts of commands and paths.
const LONGEST: usize = 64;

/// # Errors
/// `InvalidArgument`, which says what a name is.
pub(crate) fn check(what: &str, name: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !name.is_empty()
        && name.len() <= LONGEST
        && name.bytes().all(good)
        && name.bytes().any(|byte| byte != b'.')
        && !name.starts_with('-');
    match is_name {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{name:?} cannot name a {what}; use letters, digits, `-`, `_` and `.`, at most {LONGEST}, and no `-` first"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_letters_digits_and_a_few_signs() {
        let long = "x".repeat(64);
        for name in ["a", "A-b_c.9", ".hidden", long.as_str()] {
            super::check("session", name).unwrap();
        }
        let longer = "x".repeat(65);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "ü",
            "-a",
            "a\0",
            longer.as_str(),
        ] {
            let error = super::check("session", name).unwrap_err();
            assert!(error.message().contains("session"), "{error}");
        }
    }
}
