//! The library.

mod guest_binary;
pub mod image;
