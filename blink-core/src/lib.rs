//! Blink runs untrusted code in sandboxes.
//!
//! [`Blink`] is the way in: it makes a [`Sandbox`], which runs a [`Command`] to an [`Output`], or spawns it as a
//! [`Process`] whose input and output stream. Errors have a [`kind`](Error::kind) that says what to do about them.
//!
//! # Examples
//!
//! ```no_run
//! use blink_core::{Blink, Command, IsolationChoice};
//!
//! #[tokio::main]
//! async fn main() -> blink_core::Result<()> {
//!     let blink = Blink::builder().isolation(IsolationChoice::Namespace).build().await?;
//!     let sandbox = blink.sandbox().memory_mib(512).create().await?;
//!     sandbox.files()?.write("/tmp/hello.py", "print('hello')").await?;
//!     let output = sandbox.exec(Command::new("python3").arg("/tmp/hello.py")).await?;
//!     println!("{} (isolated by {})", output.text(), output.isolation);
//!     sandbox.remove().await
//! }
//! ```

#![cfg_attr(not(test), deny(clippy::disallowed_types))]

mod blink;
mod blocking;
mod budget;
mod child;
mod command;
mod connection;
mod disk;
mod doctor;
mod engine;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guest_binary;
mod home;
mod images;
mod isolation;
mod json;
mod keys;
#[cfg(test)]
mod limits_table;
mod link;
mod output;
mod pool;
mod process;
mod publish;
mod sandbox;
mod session;
mod settings;
mod spec;
mod usage;

pub use blink::{Blink, BlinkBuilder};
pub use command::{Command, DEFAULT_OUTPUT_LIMIT_BYTES, Stdin};
pub use connection::Connection;
pub use doctor::{Check, Report, doctor};
pub use engine::Consistency;
pub use engine::hypervisor::Hypervisor;
#[cfg(any(test, feature = "scripted"))]
pub use engine::scripted;
pub use error::{Error, ErrorKind, Result};

pub use blink_host::Holder;
pub use blink_host::terminal;
pub use blink_host::transfer::TransferProgress;
pub use blink_image::{
    ImageConfig, PullProgress, PullStep, RegistryOptions, RemovedImages, StoredImage,
};
pub use files::{DirEntry, FileReader, FileType, FileWriter, Files, Metadata, WriteOptions};
pub use images::Pull;
pub use isolation::{Isolation, IsolationChoice};
pub use link::deadline::{ANSWER_DEADLINE, TIMEOUT_GRACE};
pub use output::{ExitStatus, Output};
pub use pool::{
    Claim, DEFAULT_CLAIM_TIMEOUT, DEFAULT_WARMUP_TIMEOUT, Latency, Pool, PoolBuilder, PoolStats,
    SharedPool, WhenEmpty,
};
pub use process::{Process, ProcessOutput, ProcessStdin};
pub use publish::PublishedPort;
pub use sandbox::{Builder, OfSandbox, ProcessInfo, Sandbox, SandboxBuilder, SandboxInfo};
pub use session::{
    Checkpoint, CheckpointOptions, DEFAULT_PATIENCE, Declined, ExportOptions, Lineage, OfSession,
    ProcessLogs, Session, SessionBuilder, SessionInfo, SessionProcesses,
};
pub use spec::{
    DEFAULT_BOOT_TIMEOUT, DEFAULT_DISK_MIB, DEFAULT_PROCESSES, Mount, Network, Resources,
    SandboxSpec,
};

// Everything public crosses threads.
const _: () = {
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<Blink>();
    crosses_threads::<SandboxBuilder>();
    crosses_threads::<Sandbox>();
    crosses_threads::<SessionBuilder>();
    crosses_threads::<Pool>();
    crosses_threads::<SharedPool>();
    crosses_threads::<Process>();
    crosses_threads::<ProcessOutput>();
    crosses_threads::<Files>();
    crosses_threads::<FileReader>();
    crosses_threads::<FileWriter>();
    crosses_threads::<Connection>();
    crosses_threads::<Output>();
    crosses_threads::<Error>();
};
