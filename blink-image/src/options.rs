//! How an image is asked for, and what is told of it.

use std::time::SystemTime;

use blink_host::json;

use crate::config::ImageConfig;
use crate::registry::RegistryOptions;
use serde::Serialize;

/// What is being done with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PullStep {
    /// Its layers come into the store.
    Download,
    /// Its layers become a root folder.
    Unpack,
}

/// How far an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullProgress {
    /// What is being done.
    pub step: PullStep,
    /// Bytes of layers that are done, as they are stored.
    pub bytes_done: u64,
    /// Bytes of all layers.
    pub bytes_total: u64,
    /// The layer being unpacked, from 1; or the number of layers that are downloaded.
    pub layer: usize,
    /// Number of layers.
    pub layers: usize,
}

/// When the registry of a reference is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PullPolicy {
    /// Where nothing is stored under the reference. The default.
    #[default]
    Missing,
    /// Always, so that a tag that has moved is followed. What is stored already is not fetched again.
    Always,
    /// Never: what is not stored is not to be had.
    Never,
}

/// How an image is to be had.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// When the registry is asked.
    pub policy: PullPolicy,
    /// How registries are reached.
    pub registry: RegistryOptions,
}

impl PullOptions {
    /// Says when the registry is asked. [`PullPolicy::Missing`] by default.
    #[must_use]
    pub fn with_policy(mut self, policy: PullPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Says how registries are reached.
    #[must_use]
    pub fn with_registry(mut self, registry: RegistryOptions) -> Self {
        self.registry = registry;
        self
    }
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoredImage {
    /// The name that it was pulled by, in full; `None` if it came from a file or folder, or its name has moved on
    /// to another image.
    pub reference: Option<String>,
    /// The manifest's digest, as `sha256:…`.
    pub digest: String,
    /// How the image wants its programs to be run.
    pub config: ImageConfig,
    /// Bytes that it is stored as: manifest, configuration and layers as they came, some of which other images may
    /// share. What is unpacked from them is not counted.
    pub size_bytes: u64,
    /// When it was fetched last.
    #[serde(serialize_with = "json::time")]
    pub pulled_at: SystemTime,
    /// When it was used last, to the hour.
    #[serde(serialize_with = "json::time")]
    pub used_at: SystemTime,
}
