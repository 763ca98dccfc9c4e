//! What Blink's libraries share of the host: locks between processes, files and folders that are whole after a crash, places that
//! a user has named, room on disks, and text that is safe to show.
//!
//! A part of Blink, without promises to others.

#![cfg_attr(not(test), deny(clippy::disallowed_types))]

pub mod destination;
mod failure;
pub mod fault;
pub mod file_lock;
mod holder;
mod id;
pub mod json;
pub mod private;
mod process;
pub mod room;
pub mod terminal;
pub mod transfer;
pub mod withheld;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use failure::Failure;
pub use holder::{Held, Holder};
pub use id::new_id;
pub use process::start_of;

/// Locks, also after a panic of another thread: what the locks here protect is whole between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
