//! Images: where a sandbox's root filesystem comes from.
//!
//! [`ImageSource::parse`] says what a user's string means, and
//! [`ImageStore::rootfs`] makes a folder of it that an engine can mount. Every
//! byte is checked against its digest before it is believed, and a folder is
//! either in the store whole or not at all.
//!
//! What an image is made of is apart from where its bytes come from: a new
//! source (a registry, a `docker save` tar) implements `contents::Blobs` and
//! hands the store a `contents::Contents`.

mod config;
mod contents;
mod digest;
mod error;
mod flatten;
mod layout;
mod reference;
mod source;
mod store;
mod temporary;

pub use config::ImageConfig;
pub use error::{ImageError, ImageErrorKind};
pub use reference::Reference;
pub use source::ImageSource;
pub use store::{IdMap, ImageStore, Progress, Rootfs};
