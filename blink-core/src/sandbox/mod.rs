//! Sandboxes.

mod boot;
mod builder;
mod handle;
mod identity;
mod info;
pub(crate) mod interpreter;
mod list;
mod remains;

pub(crate) use self::boot::{Parts, Place, Request};
pub(crate) use self::builder::made_already;
pub use self::builder::{Builder, OfSandbox, SandboxBuilder};
pub use self::handle::Sandbox;
pub(crate) use self::identity::identify;
pub(crate) use self::info::processes;
pub use self::info::{ProcessInfo, SandboxInfo};
pub(crate) use self::remains::Remains;
