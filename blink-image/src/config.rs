//! What an image says about how its programs are run.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

/// How an image wants its programs to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ImageConfig {
    /// Variables as `NAME=value`.
    pub env: Vec<String>,
    /// What is put before a command.
    pub entrypoint: Vec<String>,
    /// The command where none is given.
    pub cmd: Vec<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: Option<String>,
    /// Labels, for people and tools.
    pub labels: BTreeMap<String, String>,
}

impl ImageConfig {
    pub(crate) fn from_oci(configuration: &ImageConfiguration) -> Self {
        let Some(config) = configuration.config() else {
            return Self::default();
        };
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            env: config.env().clone().unwrap_or_default(),
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            workdir: filled(config.working_dir()),
            user: filled(config.user()),
            labels: config
                .labels()
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        }
    }
}
