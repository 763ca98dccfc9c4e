//! Sandboxes.

mod boot;
mod builder;
mod handle;
mod info;
mod list;

pub(crate) use self::boot::{Parts, Place, Request};
pub use self::builder::{Builder, OfSandbox, SandboxBuilder};
pub use self::handle::Sandbox;
pub(crate) use self::info::processes;
pub use self::info::{ProcessInfo, SandboxInfo};
