//! Every limit of the protocol, and why it is that number.

use crate::header::HEADER_LEN;

/// The longest body on a link, in bytes: 1 MiB.
///
/// A control frame waits behind at most one frame, so this is the longest such wait: about a millisecond on a link
/// that carries 1 GB/s. It is also what one hostile guest can make the host hold for a frame that never ends.
pub const LINK_BODY_LIMIT: u32 = 1 << 20;

/// The longest request on a link, in bytes, where the agent takes it in parts: 8 MiB.
///
/// Linux gives a program's arguments and environment a quarter of the limit of its stack, and never more than 6 MiB. So
/// whatever a program can be given fits, and the kernel is who refuses what is too long.
pub const REQUEST_LIMIT: usize = 8 << 20;

/// The longest body on a V-Hub connection, in bytes: 16 MiB.
///
/// A call's argument or result is one frame there, so it has to hold what functions exchange (a document, an image).
/// 16 MiB is what existing V-Hub programs are built with, and few enough that every connection may use it at once.
pub const VHUB_BODY_LIMIT: u32 = 16 << 20;

/// The credit that each stream and channel starts with, in bytes of body: 1 MiB.
///
/// Enough for a sender to fill a fast link while the first update travels back (1 GB/s for a millisecond), and what a
/// reader that has stopped costs. A frame of the longest body on a link just fits.
pub const INITIAL_WINDOW: u32 = 1 << 20;

/// The longest body of a terminal's size, in bytes: 256.
///
/// The two numbers need less than 32; the rest is room for fields that a newer peer may add.
pub const TTY_BODY_LIMIT: usize = 256;

/// A frame of the longest link body fits the window that its stream starts with.
const _: () = assert!(LINK_BODY_LIMIT <= INITIAL_WINDOW);
const _: () = assert!(HEADER_LEN == 20);
