//! Sandboxes.

mod builder;
mod handle;
mod info;
mod list;

pub use self::builder::SandboxBuilder;
pub(crate) use self::builder::{Parts, Place};
pub use self::handle::Sandbox;
pub(crate) use self::info::processes;
pub use self::info::{ProcessInfo, SandboxInfo};
