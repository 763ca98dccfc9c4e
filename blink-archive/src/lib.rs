//! File trees as tar streams, packed and unpacked so that a hostile archive
//! cannot reach outside its folder.
//!
//! [`unpack`] believes nothing that an archive says: every path is resolved by
//! the kernel beneath a [`Root`], links are never written through, sizes and
//! counts are bounded by [`Limits`], and memory does not grow with the size of
//! the files. [`pack`] writes a tree in a fixed order, so the same tree gives
//! the same bytes; [`pack_overlay`] writes what the layers of an overlay come to,
//! and [`merge_overlay`] makes one layer of several.
//! [`remove_tree`] removes what a hostile program built, however
//! deep and whatever its modes.
//!
//! The format is read and written here rather than by a general tar library,
//! because those read an extension header of any claimed size into memory and
//! disagree with each other about malformed ones.
//!
//! # Examples
//!
//! ```
//! use blink_archive::{PackOptions, Root, UnpackOptions, pack, unpack};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let from = tempfile::tempdir()?;
//! # let to = tempfile::tempdir()?;
//! # std::fs::write(from.path().join("hello"), "world")?;
//! let mut stream = Vec::new();
//! pack(&Root::open(from.path())?, ".", &mut stream, &PackOptions::default())?;
//!
//! let report = unpack(stream.as_slice(), &Root::open(to.path())?, &UnpackOptions::default())?;
//! assert_eq!(report.files, 1);
//! assert_eq!(std::fs::read(to.path().join("hello"))?, b"world");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod attributes;
mod copy;
mod error;
mod files;
mod format;
mod holes;
mod layer;
mod merge;
mod options;
mod overlay;
mod pack;
mod path;
mod remove;
mod root;
mod unpack;
mod walk;
mod way;

pub use attributes::Marks;
pub use copy::copy_trees;
pub use error::{ArchiveError, LimitKind};
pub use files::{ArchivedFile, Files};
pub use holes::{DataPart, copy_file, next_data, write_with_holes};
pub use merge::merge_overlay;
pub use options::{Limits, Links, Ownership, PackOptions, UnpackOptions};
pub use overlay::Overlay;
pub use pack::overlay::pack_overlay;
pub use pack::{PackReport, pack};
pub use remove::remove_tree;
pub use root::Root;
pub use unpack::{UnpackReport, unpack, unpack_overlay};
pub use walk::{disk_usage, disk_usage_of_few, walk_names, walk_tree};
