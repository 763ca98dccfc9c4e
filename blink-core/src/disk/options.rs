//! What a session was made with.

use std::collections::BTreeMap;
use std::time::Duration;

use blink_image::ImageConfig;
use serde::{Deserialize, Serialize};

use crate::publish::PublishedPort;
use crate::spec::{Mount, Network, Resources, SandboxSpec};

/// What a session was made with, and is started with each time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionOptions {
    pub(crate) spec: SandboxSpec,
    /// The image's digest; `None` is the host's own programs.
    pub(crate) digest: Option<String>,
    pub(crate) config: ImageConfig,
}

impl SessionOptions {
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Also what was written before there was a version of descriptions.
    pub(crate) fn from_json(text: &str) -> serde_json::Result<SessionOptions> {
        serde_json::from_str(text).or_else(|error| {
            let older = serde_json::from_str::<Older>(text);
            older.map(SessionOptions::from).map_err(|_| error)
        })
    }
}

/// As they were written down until Blink had descriptions.
#[derive(Deserialize)]
struct Older {
    image: String,
    resources: Resources,
    network: OlderNetwork,
    mounts: Vec<Mount>,
    env: Vec<(String, String)>,
    current_dir: Option<String>,
    user: Option<String>,
    publish: Vec<PublishedPort>,
    labels: BTreeMap<String, String>,
    idle_stop: Option<Duration>,
    warm: bool,
    digest: Option<String>,
    config: ImageConfig,
}

#[derive(Deserialize)]
enum OlderNetwork {
    None,
    Host,
    Hosts(Vec<String>),
}

impl From<Older> for SessionOptions {
    fn from(older: Older) -> SessionOptions {
        let env = older.env.into_iter();
        let mut spec = SandboxSpec::default();
        spec.image = Some(older.image);
        spec.cpus = older.resources.cpus;
        spec.memory_mib = older.resources.memory_mib;
        spec.shared_memory_mib = older.resources.shared_memory_mib;
        spec.disk_mib = Some(older.resources.disk_mib);
        spec.processes = Some(older.resources.processes);
        spec.network = Some(match older.network {
            OlderNetwork::None => Network::None,
            OlderNetwork::Host => Network::Host,
            OlderNetwork::Hosts(hosts) => Network::Hosts(hosts),
        });
        spec.mounts = older.mounts;
        spec.env = env
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        spec.current_dir = older.current_dir.map(Into::into);
        spec.user = older.user;
        spec.publish = older.publish;
        spec.labels = older.labels;
        spec.idle_stop = older.idle_stop;
        spec.warm = Some(older.warm);
        SessionOptions {
            spec,
            digest: older.digest,
            config: older.config,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_blink_has_written_is_read() {
        let text = r#"{"image":"host","resources":{"cpus":null,"memory_mib":512,"disk_mib":10240,"processes":1024},
            "network":{"Hosts":["pypi.org"]},"mounts":[{"host":"/usr","guest":"/data","read_only":true,
            "pinned":{"device":1,"inode":2}}],"env":[["A","1"]],"current_dir":"/srv","user":null,
            "publish":[{"host":"127.0.0.1:0","guest":80}],"labels":{"a":"b"},"idle_stop":{"secs":5,"nanos":0},"warm":true,
            "digest":null,"config":{}}"#;
        let options = SessionOptions::from_json(text).unwrap();
        let spec = &options.spec;
        assert_eq!(spec.resources().memory_mib, Some(512));
        assert_eq!(spec.network, Some(Network::Hosts(vec!["pypi.org".into()])));
        assert_eq!(spec.idle_stop, Some(Duration::from_secs(5)));
        assert!(spec.is_warm() && spec.mounts[0].pinned.is_some());
        let again = SessionOptions::from_json(&options.to_json()).unwrap();
        assert_eq!(again.spec, options.spec);
        assert!(SessionOptions::from_json("{}").is_err());
    }
}
