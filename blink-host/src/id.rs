//! Names for what is made.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::failure::Failure;

/// Twelve random hexadecimal digits: enough that no two sandboxes of a home meet, short enough to type.
///
/// # Errors
/// If the kernel gives no random bytes.
pub fn new_id() -> Result<String, Failure> {
    let mut bytes = [0; 6];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| Failure::of("the kernel gave no random bytes", error.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
