//! BLIN.
#![forbid(unsafe_code)]
mod message;
pub use message::*;
