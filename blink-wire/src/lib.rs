//! BLIN, the protocol between Blink's host library and its guest agent.
//!
//! This crate is the protocol and nothing else: it turns bytes into frames and frames into bytes, and does no I/O.
//! `docs/BLIN.md` specifies it for other languages; `tests/golden.json` holds byte vectors to check them with.
//!
//! Whatever comes from a peer is hostile until decoded. Decoding never panics, never allocates by a length that the
//! peer only announced, and reports a broken rule as a typed error.
//!
//! - [`Header`] and [`FrameType`]: the 20 bytes before each body.
//! - [`Frame`] and [`Decoder`]: whole frames, and frames out of a byte stream cut anywhere.
//! - [`WindowUpdate`] and [`TtySize`]: the bodies that are not messages.
//! - [`ErrorBody`] and [`ErrorKind`]: how a request fails, and what kind of failure each error number of Linux is.
//! - [`Counted`] and its [`Trailer`]: what both ends of a file transfer compare.
//!
//! # Examples
//!
//! ```
//! use blink_wire::{Decoder, Frame, FrameType, LINK_BODY_LIMIT};
//!
//! let mut decoder = Decoder::new(LINK_BODY_LIMIT);
//! decoder.reserve();
//! Frame::new(FrameType::STDOUT, 7, "hello").with_end().encode_into(decoder.buffer_mut());
//!
//! let frame = decoder.next_frame()?.expect("a whole frame has come");
//! assert_eq!(&frame.body[..], b"hello");
//! assert!(frame.end);
//! # Ok::<(), blink_wire::HeaderError>(())
//! ```
#![forbid(unsafe_code)]

mod body;
mod error;
pub mod frame;
pub mod header;
mod launch;
pub mod limits;
mod message;
mod trailer;
pub mod tty;
pub mod window;

pub use body::BodyError;
pub use error::{ErrorBody, ErrorKind};
pub use frame::{Decoder, Frame, Truncated};
pub use header::{FrameType, HEADER_LEN, Header, HeaderError, MAGIC, VERSION};
pub use launch::{
    FileIdentity, LAUNCH_BODY_LIMIT, LAUNCH_DESCRIPTORS, LAUNCH_END, LAUNCH_EXECUTE,
    LAUNCH_IN_THE_WAY, LAUNCH_NAMESPACES, LAUNCH_NO_PLACE, LAUNCH_OVERLAY, LAUNCH_READ_ONLY,
    LAUNCH_RELEASE, LAUNCH_REPLACED, LAUNCH_RESERVED, LaunchFailure, LaunchPlan, LaunchReport,
    MountPlan, SandboxPlan, SandboxUsers,
};
pub use limits::{INITIAL_WINDOW, LINK_BODY_LIMIT, REQUEST_LIMIT, TTY_BODY_LIMIT, VHUB_BODY_LIMIT};
pub use message::*;
pub use trailer::{Counted, Trailer};
pub use tty::TtySize;
pub use window::WindowUpdate;

// Every type crosses threads: one reads a link, others write to it.
const _: () = {
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<Header>();
    crosses_threads::<HeaderError>();
    crosses_threads::<Frame>();
    crosses_threads::<Decoder>();
    crosses_threads::<BodyError>();
    crosses_threads::<ErrorBody>();
    crosses_threads::<Counted>();
};
