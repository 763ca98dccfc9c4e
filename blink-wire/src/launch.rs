//! What Blink's library and its launcher on the host tell each other: one plan, and reports.
//!
//! These are not part of BLIN: both are the same version of Blink. They go over a local socket as a length (four bytes,
//! little-endian) and a message in CBOR, and the plan's descriptors go with its length.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::PathBytes;

/// Longest message, in bytes: more than all the arguments that the kernel takes for a program here.
pub const LAUNCH_BODY_LIMIT: usize = 4 << 20;

/// Descriptors that go with a plan, at most. Linux passes up to 253 at once; no plan needs a tenth of them.
pub const LAUNCH_DESCRIPTORS: usize = 16;

/// The byte by which a sandbox stays when the process that has started it ends.
pub const LAUNCH_RELEASE: u8 = b'r';

/// The byte by which the program is ended, with all that it has started.
pub const LAUNCH_END: u8 = b'e';

/// The step of a failure that is the program's own: it is not there, or no program.
pub const LAUNCH_EXECUTE: &str = "cannot be executed";

/// A program for the launcher to start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LaunchPlan {
    /// The process that the program ends with.
    #[n(0)]
    pub parent: i32,
    /// The program: a path, or a name to look for in `search`.
    #[n(1)]
    pub program: PathBytes,
    /// Its arguments, without its own name.
    #[n(2)]
    pub arguments: Vec<ByteVec>,
    /// Its environment, each `NAME=VALUE`.
    #[n(3)]
    pub environment: Vec<ByteVec>,
    /// The folders to look in, with colons between them, as `PATH` has them.
    #[n(4)]
    pub search: ByteVec,
    /// The numbers that the passed descriptors have in the program, in their order.
    #[n(5)]
    pub numbers: Vec<u32>,
    /// What a sandbox's program needs besides.
    #[n(6)]
    pub sandbox: Option<SandboxPlan>,
}

/// What is made ready for the program that makes a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SandboxPlan {
    /// The number of the descriptor on which the program tells which process is the sandbox's first.
    #[n(0)]
    pub info_number: u32,
    /// The control group to join, where there is one.
    #[n(1)]
    pub group: Option<PathBytes>,
    /// The sandbox's own users, where the launcher may map them.
    #[n(2)]
    pub users: Option<SandboxUsers>,
}

/// Users that nobody else on the host has, and what must be shown to them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SandboxUsers {
    /// The first id, on the host.
    #[n(0)]
    pub base: u32,
    /// How many there are.
    #[n(1)]
    pub count: u32,
    /// Blink's home, which they must be able to reach.
    #[n(2)]
    pub home: PathBytes,
    /// What is shown elsewhere, with its owners mapped.
    #[n(3)]
    pub mounts: Vec<ShownMount>,
}

/// A file or folder of the host that is shown at another path.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ShownMount {
    /// Where it is.
    #[n(0)]
    pub host: PathBytes,
    /// Where it is shown.
    #[n(1)]
    pub target: PathBytes,
}

/// What the launcher reports.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum LaunchReport {
    /// The program could not be started.
    #[n(0)]
    Failed(#[n(0)] LaunchFailure),
    /// The sandbox's first process, as the host numbers it.
    #[n(1)]
    Inside(#[n(0)] i32),
    /// The program has ended with this exit code; 128 and the signal's number where a signal has ended it.
    #[n(2)]
    Ended(#[n(0)] i32),
}

/// The step of a start that failed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LaunchFailure {
    /// What could not be done, as the end of a sentence that begins with what it was done to: `cannot be opened`.
    #[n(0)]
    pub step: String,
    /// What it was done to.
    #[n(1)]
    pub path: PathBytes,
    /// The kernel's error number.
    #[n(2)]
    pub errno: i32,
}
