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

/// The step of a failure that the image is to blame for: where the sandbox's own folders are, it has something else.
pub const LAUNCH_IN_THE_WAY: &str =
    "is no folder in the image, and the sandbox needs one there; use an image without it";

/// The step of a failure that the host's files are to blame for: a mount's source is not what it was.
pub const LAUNCH_REPLACED: &str =
    "is not what it was when it was mounted first: another file or folder is there now";

/// The step of a failure that the mounts are to blame for: one is to be seen where another's folder has nothing.
pub const LAUNCH_NO_PLACE: &str = "is in a mounted folder that has no such file or folder; make it there, or mount somewhere else";

/// The same of a folder that can have nothing new.
pub const LAUNCH_READ_ONLY: &str = "is in a folder of the sandbox that is read-only and has no such file or folder; mount somewhere else";

/// The step of a failure that the mounts are to blame for: one leads into what belongs to the sandbox.
pub const LAUNCH_RESERVED: &str =
    "leads into what belongs to the sandbox itself; mount somewhere else";

/// The step in which the kernel makes no user namespace.
pub const LAUNCH_NAMESPACES: &str = "cannot be made";

/// The step in which the kernel or the file system takes no overlay.
pub const LAUNCH_OVERLAY: &str = "cannot be made an overlay";

/// A program for the launcher to start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LaunchPlan {
    /// The process that the program ends with.
    #[n(0)]
    pub parent: i32,
    /// The program: a path, or a name to look for in `search`. Empty for a sandbox whose agent is the launcher's own program.
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
    /// How many descriptors follow that the launcher has open until it ends, and no program gets.
    #[n(7)]
    pub kept: u32,
}

/// A sandbox, whose first process is the program. Paths are the host's, but for those that say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SandboxPlan {
    /// The control group to join, where there is one.
    #[n(0)]
    pub group: Option<PathBytes>,
    /// The sandbox's own users, where the launcher may map them; one user otherwise, who is the launcher's.
    #[n(1)]
    pub users: Option<SandboxUsers>,
    /// The name of the host that programs see.
    #[n(2)]
    pub host_name: String,
    /// Whether there is a network of its own, with nothing but a loopback.
    #[n(3)]
    pub own_network: bool,
    /// The folders that the root is made of, the lowest first.
    #[n(4)]
    pub layers: Vec<PathBytes>,
    /// The folder of the disk.
    #[n(16)]
    pub disk: PathBytes,
    /// The folder in it that takes what is changed of the layers.
    #[n(5)]
    pub upper: PathBytes,
    /// The folder in it that the overlay needs for itself.
    #[n(6)]
    pub work: PathBytes,
    /// Whether the overlay has its marks in attributes that only root sets: then folders of layers can be renamed, and their
    /// files keep all their names.
    #[n(17)]
    pub trusted: bool,
    /// Folders that are seen as they are on the host, at the same place.
    #[n(7)]
    pub shown: Vec<PathBytes>,
    /// What is seen as `/etc/resolv.conf`.
    #[n(8)]
    pub resolver: Option<PathBytes>,
    /// The agent's folder, which is seen as `/.blink`, with the upper folder in it as `disk`.
    #[n(9)]
    pub agent: PathBytes,
    /// The size of `/dev/shm`.
    #[n(10)]
    pub shared_memory_bytes: u64,
    /// The size of `/run`.
    #[n(11)]
    pub run_bytes: u64,
    /// What of the host's is seen besides.
    #[n(12)]
    pub mounts: Vec<MountPlan>,
    /// The number of the descriptor by which the agent has the user namespace of its programs.
    #[n(13)]
    pub programs_number: u32,
    /// The number of the descriptor whose other end is open for as long as the launcher lives.
    #[n(14)]
    pub life_number: u32,
    /// How many processes all programs together may have.
    #[n(15)]
    pub processes: u64,
}

/// Users that nobody else on the host has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SandboxUsers {
    /// The first id, on the host.
    #[n(0)]
    pub base: u32,
    /// How many there are.
    #[n(1)]
    pub count: u32,
    /// The id, on the host, of the agent, which is none of them: inside, its number is the count.
    #[n(2)]
    pub agent: u32,
    /// The first id by which they own files of layers and disks, whichever sandbox these are in.
    #[n(3)]
    pub stored: u32,
}

/// A file or folder of the host that is seen in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MountPlan {
    /// Where it is.
    #[n(0)]
    pub host: PathBytes,
    /// What it must be: what was there when the mount was asked for.
    #[n(1)]
    pub identity: Option<FileIdentity>,
    /// Where the sandbox sees it.
    #[n(2)]
    pub guest: PathBytes,
    /// Whether nothing of it can be changed there.
    #[n(3)]
    pub read_only: bool,
}

/// What tells one file or folder from all others of the host that are there at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FileIdentity {
    /// Its file system.
    #[n(0)]
    pub device: u64,
    /// Its number there.
    #[n(1)]
    pub inode: u64,
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
