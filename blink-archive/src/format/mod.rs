//! The tar format: headers and extension records, apart from any file system.

mod header;
mod pax;
mod reader;
mod sparse;

pub(crate) use header::{BLOCK, Fields, Kind, encode};
pub(crate) use pax::{ATTRIBUTE, Attributes, Time, push_record};
pub(crate) use reader::{LARGEST_EXTENSION, Member, Reader};
pub(crate) use sparse::Segment;
