//! The bodies of the link's control frames, as CBOR (RFC 8949).
//!
//! Every struct is a map with small integer keys and every enum an array `[variant, [fields]]`, so that a newer
//! peer may add fields (unknown keys are skipped) and variants (an unknown one is answered with
//! [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported)). Names, paths, arguments and environment are byte
//! strings: Unix does not promise UTF-8.

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::{ErrorBody, TtySize};

/// Bytes of a path in a message.
pub type PathBytes = ByteVec;

/// A body that is not what its frame type asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message is not a valid {what}: {detail}")]
pub struct MessageError {
    what: &'static str,
    detail: String,
}

/// Messages that travel as the body of one frame.
pub trait Message: Encode<()> + for<'b> Decode<'b, ()> {
    /// What the message is called in errors.
    const NAME: &'static str;

    /// The message's bytes.
    fn to_body(&self) -> Bytes {
        match minicbor::to_vec(self) {
            Ok(bytes) => bytes.into(),
            // Writing to a Vec cannot fail, and no message has a custom encoder that could.
            Err(_) => Bytes::new(),
        }
    }

    /// Reads a message; bytes behind it are an error.
    ///
    /// # Errors
    /// The bytes are not this message.
    fn from_body(body: &[u8]) -> Result<Self, MessageError> {
        let fail = |detail: String| MessageError {
            what: Self::NAME,
            detail,
        };
        let mut decoder = minicbor::Decoder::new(body);
        let message = decoder
            .decode::<Self>()
            .map_err(|error| fail(error.to_string()))?;
        match decoder.position() == body.len() {
            true => Ok(message),
            false => Err(fail("bytes follow it".into())),
        }
    }
}

macro_rules! messages {
    ($($type:ty => $name:literal),* $(,)?) => {
        $(impl Message for $type { const NAME: &'static str = $name; })*
    };
}

messages! {
    Hello => "handshake",
    Request => "request",
    Response => "response",
    ErrorBody => "error",
    ExitReport => "exit report",
    crate::LaunchPlan => "launch plan",
    crate::LaunchReport => "launch report",
}

/// The body of a link's Handshake, in both directions: the host's comes first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The newest version of the protocol that the sender speaks; both use the smaller of the two.
    #[n(0)]
    pub protocol: u8,
    /// The sender's program and version, for people: `blink-guest 0.1.0`.
    #[n(1)]
    pub program: String,
    /// Names of optional features that the sender knows.
    #[n(2)]
    pub capabilities: Vec<String>,
    /// Names one life of the agent: it changes when the sandbox boots. Empty from a host.
    #[n(3)]
    pub boot_id: String,
}

impl Hello {
    /// The capability of an agent that takes a request in several frames: [`FrameType::RPC_PART`](crate::FrameType::RPC_PART).
    pub const REQUEST_PARTS: &str = "request-parts";

    /// Whether the sender knows an optional feature.
    #[must_use]
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }
}

/// What a host asks of the agent (frame type RpcRequest).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Request {
    /// Answered with [`Response::Done`] by the agent's main loop.
    #[n(0)]
    Ping,
    /// Starts a process and attaches this request's stream to it.
    #[n(1)]
    Spawn(#[n(0)] Spawn),
    /// Attaches this request's stream to a process that runs or has ended.
    #[n(2)]
    Attach(#[n(0)] Attach),
    /// Sends a signal.
    #[n(3)]
    Signal(#[n(0)] Signal),
    /// Forgets a kept process and its output; one that runs is first killed with its tree.
    #[n(4)]
    Release(#[n(0)] ProcessId),
    /// Lists the processes that the agent knows: as many as fit into a frame.
    #[n(5)]
    Processes,
    /// Shows what is kept of a process's output from these offsets on, without taking it from whoever is attached.
    #[n(6)]
    Peek(#[n(0)] Attach),
    /// Answered with [`Response::Ended`] once a process has ended, whoever is attached to it.
    #[n(7)]
    Wait(#[n(0)] ProcessId),
    /// As [`Request::Processes`], with those whose numbers are above this one.
    #[n(8)]
    ProcessesAfter(#[n(0)] ProcessId),
    /// Describes a file.
    #[n(16)]
    Stat(#[n(0)] PathOptions),
    /// Lists a folder: a stream of [`DirEntry`] messages, each with its length before it (two bytes, little-endian).
    #[n(17)]
    List(#[n(0)] PathOptions),
    /// Makes a folder.
    #[n(18)]
    MakeDir(#[n(0)] MakeDir),
    /// Removes a file or an empty folder, or a whole tree.
    #[n(19)]
    Remove(#[n(0)] Remove),
    /// Renames.
    #[n(20)]
    Rename(#[n(0)] TwoPaths),
    /// Copies one file.
    #[n(21)]
    Copy(#[n(0)] TwoPaths),
    /// Reads a file as a stream.
    #[n(22)]
    Read(#[n(0)] Read),
    /// Writes a file from a stream.
    #[n(23)]
    Write(#[n(0)] Write),
    /// Packs a file or folder into a tar stream.
    #[n(24)]
    Pack(#[n(0)] PathOptions),
    /// Unpacks a tar stream into a folder, which is made where it does not exist.
    #[n(25)]
    Unpack(#[n(0)] PathOptions),
    /// Packs a folder, without what is mounted in it, as a layer of an OCI image.
    #[n(26)]
    PackLayer(#[n(0)] PathOptions),
    /// Opens a connection inside the sandbox and carries its bytes.
    #[n(32)]
    Connect(#[n(0)] Address),
    /// Kills every process and ends the agent, and with it the sandbox.
    #[n(48)]
    Shutdown,
    /// Writes all that is not on the disk yet to it, and lets nothing change it until [`Request::Thaw`]; for at most ten
    /// seconds.
    #[n(49)]
    Freeze,
    /// Lets the disk change again.
    #[n(50)]
    Thaw,
    /// Changes what the sandbox is while it runs.
    #[n(51)]
    Adjust(#[n(0)] Adjust),
}

/// What the agent answers (frame type RpcResponse).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Response {
    /// It is done, and there is no more to say.
    #[n(0)]
    Done,
    /// The process that the stream is attached to.
    #[n(1)]
    Attached(#[n(0)] Attached),
    /// The processes that the agent knows.
    #[n(2)]
    Processes(#[n(0)] Vec<ProcessInfo>),
    /// A file's description.
    #[n(3)]
    Stat(#[n(0)] FileInfo),
    /// A part of a process's output.
    #[n(4)]
    Peeked(#[n(0)] Peeked),
    /// How a process has ended.
    #[n(5)]
    Ended(#[n(0)] ExitReport),
}

/// Names a process for as long as the sandbox runs. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct ProcessId(#[n(0)] pub u64);

/// A program to start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Spawn {
    /// The program and its arguments; the program is looked up in `PATH` where it has no slash.
    #[n(0)]
    pub argv: Vec<ByteVec>,
    /// The whole environment; `HOME`, `USER`, `LOGNAME`, `SHELL` and `PATH` are added where it lacks them.
    #[n(1)]
    pub env: Vec<(ByteVec, ByteVec)>,
    /// The working directory; the user's home, or `/`, where there is none.
    #[n(2)]
    pub current_dir: Option<ByteVec>,
    /// `name`, `id`, `name:group` or `id:id`; root where there is none.
    #[n(3)]
    pub user: Option<String>,
    /// A terminal of this size instead of pipes; its output is all Stdout.
    #[n(4)]
    pub pty: Option<TtySize>,
    /// Whether Stdin frames will follow; otherwise standard input is empty.
    #[n(5)]
    pub stdin: bool,
    /// Kill the tree after so many milliseconds.
    #[n(6)]
    pub timeout_ms: Option<u64>,
    /// Send at most so many bytes of each output stream, and count the rest.
    #[n(7)]
    pub output_limit_bytes: Option<u64>,
    /// Keep the process, its last output and its exit for others to attach, until it is released.
    #[n(8)]
    pub keep: bool,
    /// A second Spawn with the same key attaches to the first one's process instead.
    #[n(9)]
    pub key: Option<String>,
}

/// Where to go on reading a process's output.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attach {
    /// The process.
    #[n(0)]
    pub process: ProcessId,
    /// How much of its standard output the host has; the agent goes on there, or at the oldest byte it still has.
    #[n(1)]
    pub stdout_offset: u64,
    /// The same for its standard error.
    #[n(2)]
    pub stderr_offset: u64,
}

/// The answer to Spawn and Attach.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attached {
    /// The process.
    #[n(0)]
    pub process: ProcessId,
    /// Its number among the sandbox's processes; 0 where it could not be started.
    #[n(1)]
    pub pid: u32,
    /// The offset of the first byte of standard output that will come.
    #[n(2)]
    pub stdout_offset: u64,
    /// The same for standard error.
    #[n(3)]
    pub stderr_offset: u64,
}

/// The answer to [`Request::Peek`]: of each stream the bytes at an offset, which is the one asked for or that of the oldest
/// byte that is kept. No bytes are the end of what there is so far.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Peeked {
    /// The offset of the first byte of standard output.
    #[n(0)]
    pub stdout_offset: u64,
    /// As many bytes as fit into an answer.
    #[n(1)]
    pub stdout: ByteVec,
    /// The same for standard error.
    #[n(2)]
    pub stderr_offset: u64,
    /// The same for standard error.
    #[n(3)]
    pub stderr: ByteVec,
}

/// A signal for a process.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Signal {
    /// The process.
    #[n(0)]
    pub process: ProcessId,
    /// Linux's number of the signal, 1 to 64.
    #[n(1)]
    pub signal: u8,
    /// For the whole tree, also what left its session, instead of the process's own group.
    #[n(2)]
    pub tree: bool,
}

/// One process in the answer to [`Request::Processes`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ProcessInfo {
    /// The process.
    #[n(0)]
    pub process: ProcessId,
    /// Its number among the sandbox's processes.
    #[n(1)]
    pub pid: u32,
    /// What was started.
    #[n(2)]
    pub argv: Vec<ByteVec>,
    /// Set once it has ended.
    #[n(3)]
    pub exit: Option<ExitReport>,
    /// Bytes of standard output so far.
    #[n(4)]
    pub stdout_bytes: u64,
    /// Bytes of standard error so far.
    #[n(5)]
    pub stderr_bytes: u64,
    /// Whether it has a terminal.
    #[n(6)]
    pub pty: bool,
    /// The key it was spawned with.
    #[n(7)]
    pub key: Option<String>,
}

/// How a process ended (frame type Exit, the last of its stream).
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct ExitReport {
    /// Its exit code; 127 for a missing program and 126 for one that may not be executed, with the `reason`.
    #[n(0)]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[n(1)]
    pub signal: Option<i32>,
    /// The agent killed its tree because its time was over.
    #[n(2)]
    pub timed_out: bool,
    /// The agent killed its tree because the sandbox was over this limit.
    #[n(3)]
    pub limit: Option<Limit>,
    /// Why it could not be started.
    #[n(4)]
    pub reason: Option<String>,
    /// All that it wrote to standard output, whether sent or not.
    #[n(5)]
    pub stdout_bytes: u64,
    /// All that it wrote to standard error, whether sent or not.
    #[n(6)]
    pub stderr_bytes: u64,
    /// From start to end.
    #[n(7)]
    pub duration_us: u64,
}

/// A limit of the sandbox that the agent watches over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Limit {
    /// Memory.
    #[n(0)]
    Memory,
    /// Disk.
    #[n(1)]
    Disk,
}

/// A path.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PathOptions {
    /// Absolute.
    #[n(0)]
    pub path: ByteVec,
    /// Describe what a symbolic link at the end points to.
    #[n(1)]
    pub follow: bool,
    /// Who owns what is made anew, written as in [`Spawn::user`]; root where there is none.
    #[n(2)]
    pub owner: Option<String>,
}

/// What is to change of a sandbox that runs. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Adjust {
    /// Its host name.
    #[n(0)]
    pub host_name: Option<String>,
    /// What its programs may use of the memory.
    #[n(1)]
    pub memory_bytes: Option<u64>,
}

/// A folder to make.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MakeDir {
    /// Absolute.
    #[n(0)]
    pub path: ByteVec,
    /// Permission bits.
    #[n(1)]
    pub mode: u32,
    /// Make missing parents too, and be content where the folder exists.
    #[n(2)]
    pub parents: bool,
    /// Who owns what is made anew, written as in [`Spawn::user`]; root where there is none.
    #[n(3)]
    pub owner: Option<String>,
}

/// Something to remove.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Remove {
    /// Absolute.
    #[n(0)]
    pub path: ByteVec,
    /// A folder with all that is in it.
    #[n(1)]
    pub recursive: bool,
}

/// From here to there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TwoPaths {
    /// Absolute.
    #[n(0)]
    pub from: ByteVec,
    /// Absolute.
    #[n(1)]
    pub to: ByteVec,
    /// Who owns what is made anew, written as in [`Spawn::user`]; root where there is none.
    #[n(2)]
    pub owner: Option<String>,
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Read {
    /// Absolute.
    #[n(0)]
    pub path: ByteVec,
    /// Where to begin.
    #[n(1)]
    pub offset: u64,
    /// At most so many bytes.
    #[n(2)]
    pub length: Option<u64>,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Write {
    /// Absolute.
    #[n(0)]
    pub path: ByteVec,
    /// Permission bits of a new file; an existing one's are kept where there is none.
    #[n(1)]
    pub mode: Option<u32>,
    /// Append, instead of replacing the file in one step once all has arrived.
    #[n(2)]
    pub append: bool,
    /// Who owns it, written as in [`Spawn::user`].
    #[n(3)]
    pub user: Option<String>,
    /// Who owns what is made anew, written as in [`Spawn::user`]; root where there is none.
    #[n(4)]
    pub owner: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    #[n(0)]
    File,
    /// A folder.
    #[n(1)]
    Directory,
    /// A symbolic link.
    #[n(2)]
    Symlink,
    /// A device, pipe or socket.
    #[n(3)]
    Other,
}

/// A file's description.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FileInfo {
    /// What it is.
    #[n(0)]
    pub kind: FileKind,
    /// Bytes.
    #[n(1)]
    pub size: u64,
    /// Permission bits.
    #[n(2)]
    pub mode: u32,
    /// Owner.
    #[n(3)]
    pub uid: u32,
    /// Group.
    #[n(4)]
    pub gid: u32,
    /// Nanoseconds since 1970 of its last change.
    #[n(5)]
    pub modified_ns: i64,
    /// Where a symbolic link points.
    #[n(6)]
    pub target: Option<ByteVec>,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DirEntry {
    /// Its name in the folder.
    #[n(0)]
    pub name: ByteVec,
    /// Its description, symbolic links not followed.
    #[n(1)]
    pub info: FileInfo,
}

messages! { DirEntry => "folder entry" }

/// An address inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Address {
    /// A TCP port; the host is an IP address or `localhost`.
    #[n(0)]
    Tcp(#[n(0)] String, #[n(1)] u16),
    /// A unix socket's path.
    #[n(1)]
    Unix(#[n(0)] ByteVec),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_fields_are_skipped_and_unknown_variants_refused() {
        // {0: h'2F', 1: true, 9: "new"} inside [16, [..]]
        let newer = b"\x82\x10\x81\xa3\x00\x41\x2f\x01\xf5\x09\x63new";
        let expected = Request::Stat(PathOptions {
            path: b"/".to_vec().into(),
            follow: true,
            owner: None,
        });
        assert_eq!(Request::from_body(newer), Ok(expected));
        assert!(Request::from_body(b"\x82\x18\xfa\x80").is_err());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut body = Request::Ping.to_body().to_vec();
        body.push(0);
        assert!(Request::from_body(&body).is_err());
    }

    #[test]
    fn a_lying_length_allocates_nothing_and_fails() {
        // An array of 2^32 strings, and a byte string of 2^62 bytes, with nothing behind them.
        assert!(Request::from_body(b"\x82\x01\x81\xa1\x00\x9a\xff\xff\xff\xff").is_err());
        assert!(
            Request::from_body(b"\x82\x10\x81\xa2\x00\x5b\x40\x00\x00\x00\x00\x00\x00\x00")
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Hello::from_body(&body);
            let _ = Request::from_body(&body);
            let _ = Response::from_body(&body);
            let _ = ErrorBody::from_body(&body);
            let _ = ExitReport::from_body(&body);
            let _ = DirEntry::from_body(&body);
        }

        #[test]
        fn spawn_round_trips(
            argv in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..5),
            env in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..9), proptest::collection::vec(any::<u8>(), 0..9)), 0..5),
            user in proptest::option::of(".{0,12}"),
            timeout_ms in any::<Option<u64>>(),
            stdin in any::<bool>(),
        ) {
            let spawn = Request::Spawn(Spawn {
                argv: argv.into_iter().map(Into::into).collect(),
                env: env.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
                user, timeout_ms, stdin,
                ..Spawn::default()
            });
            prop_assert_eq!(Request::from_body(&spawn.to_body()), Ok(spawn));
        }
    }
}
