//! Images: where a sandbox's root filesystem comes from.
//!
//! [`ImageSource::parse`] says what a user's string means: a registry's reference, a folder in OCI layout, a tar of one
//! or one of `docker save`. [`ImageStore::obtain`] brings the image into the home's store; of what is there,
//! [`ImageStore::rootfs`] makes a root folder that can be mounted, and [`ImageStore::layout`] an OCI layout. Every byte
//! is checked against its digest before it is believed, and whatever is in the store is there whole or not at all.

#![cfg_attr(not(test), deny(clippy::disallowed_types))]

mod blobs;
mod collect;
mod config;
mod contents;
mod digest;
mod docker_archive;
mod error;
mod export;
mod flatten;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod import;
mod layout;
mod lease;
mod lock;
mod manifest;
mod obtain;
mod options;
mod record;
mod reference;
mod registry;
mod save;
mod source;
mod store;
mod temporary;
mod unpack;

pub use collect::RemovedImages;
pub use config::ImageConfig;
pub use error::{ImageError, ImageErrorKind};
pub use ids::IdMap;
pub use options::{PullOptions, PullPolicy, PullProgress, PullStep, StoredImage};
pub use reference::Reference;
pub use registry::{Helpers, RegistryOptions};
pub use save::{NewImage, NewLayer};
pub use source::ImageSource;
pub use store::{DEFAULT_IMAGE_LIMIT_BYTES, ImageStore};
pub use unpack::Rootfs;
