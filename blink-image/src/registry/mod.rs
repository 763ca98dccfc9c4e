//! Images from registries: the reading half of the OCI distribution protocol.
//!
//! A registry is not to be trusted with more than to be asked: every answer is bounded before it is kept, and nothing
//! is believed but for its digest. (Clients that read a manifest whole, however large it is, are why this is Blink's
//! own: docs/adr/0005-image-store.md.)
//!
//! [`origin::judge`] alone decides which servers receive credentials.

mod authorize;
mod client;
mod credentials;
mod download;
mod endpoint;
mod failure;
mod options;
mod origin;
mod pull;
mod transport;

pub use options::{Helpers, RegistryOptions};

pub(crate) use pull::{Failed, Pull, unavailable};

/// What fuzz/ drives.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    pub(crate) use super::authorize::Challenge;
    pub(crate) use super::credentials::find;
}
