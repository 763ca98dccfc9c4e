//! libblink: Blink for C, and for whatever calls C. `include/blink.h` is made from this crate's comments.
//!
//! Each exported function is a [`call`]: it turns what C gave into Rust's types, calls blink-core, and turns the answer
//! into what C can hold. There is one file for each type of the header.

#![allow(
    non_camel_case_types,
    reason = "types have the names that the header gives them"
)]
#![allow(unreachable_pub, reason = "the header has what is public here")]

mod archive;
mod blink;
mod bytes;
mod call;
mod cancel;
mod checkpoint;
mod command;
mod connection;
mod core;
mod doctor;
mod entries;
mod error;
mod exit;
mod failure;
mod file_streams;
mod files;
mod handle;
mod images;
mod isolation;
mod lineage;
mod log;
mod outcome;
mod output;
mod pipe_signal;
mod pool;
mod process;
mod process_logs;
mod processes;
mod progress;
mod readiness;
mod sandbox;
mod sandbox_options;
mod session;
mod session_list;
mod session_options;
mod session_processes;
mod shown;
mod sized;
mod status;
mod strings;
mod text;

#[cfg(test)]
mod tests;
