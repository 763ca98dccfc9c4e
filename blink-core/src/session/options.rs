//! What a session was made with.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::image::ImageConfig;
use crate::publish::PublishedPort;
use crate::sandbox::{Mount, Network, Resources, SandboxBuilder};

/// What a session was made with, and is started with each time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionOptions {
    #[serde(flatten)]
    pub(crate) asked: Asked,
    /// The image's digest; `None` is the host's own programs.
    pub(crate) digest: Option<String>,
    pub(crate) config: ImageConfig,
}

/// What its maker has asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) image: String,
    pub(crate) resources: Resources,
    pub(crate) network: Network,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) current_dir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) publish: Vec<PublishedPort>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) idle_stop: Option<Duration>,
    pub(crate) warm: bool,
}

impl SessionOptions {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn from_json(text: &str) -> serde_json::Result<SessionOptions> {
        serde_json::from_str(text)
    }
}

impl Asked {
    /// Brings a description back to what it was.
    pub(crate) fn describe(&self, mut sandbox: SandboxBuilder) -> SandboxBuilder {
        sandbox = sandbox.image(&self.image).network(self.network.clone());
        sandbox.resources = self.resources;
        for mount in &self.mounts {
            sandbox = sandbox.mount(mount.clone());
        }
        for (name, value) in &self.env {
            sandbox = sandbox.env(name, value);
        }
        if let Some(dir) = &self.current_dir {
            sandbox = sandbox.current_dir(dir);
        }
        if let Some(user) = &self.user {
            sandbox = sandbox.user(user);
        }
        for port in &self.publish {
            sandbox = sandbox.publish(*port);
        }
        sandbox
    }

    /// What is asked for now and was not asked for then, in words; what is left at its default is not asked for.
    pub(crate) fn differences(&self, stored: &Asked, defaults: &Asked) -> Vec<String> {
        let flat = |asked: &Asked| {
            let mut values = BTreeMap::new();
            let mut asked = asked.clone();
            // Whether that is still what it was is seen when it is started.
            for mount in &mut asked.mounts {
                mount.pinned = None;
            }
            flatten(
                "",
                &serde_json::to_value(&asked).unwrap_or_default(),
                &mut values,
            );
            values
        };
        let (stored, defaults) = (flat(stored), flat(defaults));
        let nothing = "nothing".to_owned();
        flat(self)
            .into_iter()
            .filter(|(name, value)| defaults.get(name) != Some(value))
            .filter_map(|(name, value)| {
                let was = stored.get(&name).unwrap_or(&nothing);
                (*was != value).then(|| format!("{} is {was}, not {value}", in_words(&name)))
            })
            .collect()
    }
}

/// What an option is called by those who know it by different names.
fn in_words(option: &str) -> &str {
    match option {
        "cpus" => "the number of processors",
        "memory_mib" => "the memory in MiB",
        "shared_memory_mib" => "the shared memory in MiB",
        "disk_mib" => "the disk in MiB",
        "processes" => "the number of processes",
        "mounts" => "what is mounted",
        "env" => "the environment",
        "current_dir" => "the working directory",
        "publish" => "what is published",
        "idle_stop" => "the time without use after which it stops",
        "image" => "the image",
        "network" => "the network",
        "user" => "the user",
        "labels" => "what it is labelled with",
        "warm" => "whether it stays warm",
        other => other,
    }
}

/// Resources one by one; all else as a whole.
fn flatten(name: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(fields) if name.is_empty() || name == "resources" => {
            for (field, value) in fields {
                flatten(field, value, into);
            }
        }
        serde_json::Value::Object(fields) if name == "idle_stop" => {
            let seconds = fields.get("secs").and_then(serde_json::Value::as_u64);
            into.insert(
                name.to_owned(),
                format!("{} s", seconds.unwrap_or_default()),
            );
        }
        serde_json::Value::Null => drop(into.insert(name.to_owned(), "nothing".into())),
        value => drop(into.insert(name.to_owned(), value.to_string())),
    }
}
