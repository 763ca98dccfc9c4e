//! Sessions: named sandboxes that outlive the process, with checkpoints of their disks.
//!
//! A [`Session`] is a handle of a `Core`, which this process has once for each session that it has open: a name, a disk and, while
//! it runs, a sandbox. Whoever changes a session has a `Turn` at it, which nobody else has meanwhile, in any process.

mod archive;
mod builder;
mod carried;
mod checkpoint;
mod claimed;
mod core;
mod handle;
mod idle;
mod lease;
mod list;
mod machine;
mod name;
mod oci;
mod ports;
mod processes;
mod turn;
mod watch;

pub use self::archive::ExportOptions;
pub use self::builder::{OfSession, SessionBuilder};
pub use self::carried::Declined;
#[cfg(feature = "fuzzing")]
pub(crate) use self::carried::read as read_carried;
pub use self::checkpoint::{Checkpoint, CheckpointOptions, Lineage};
pub(crate) use self::claimed::{Claimed, check_free};
pub use self::core::DEFAULT_PATIENCE;
pub use self::handle::Session;
pub use self::list::SessionInfo;
pub(crate) use self::name::check as check_name;
pub use self::processes::{ProcessLogs, SessionProcesses};
