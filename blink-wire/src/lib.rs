//! BLIN.
#![forbid(unsafe_code)]
