//! The library.

pub mod image;
