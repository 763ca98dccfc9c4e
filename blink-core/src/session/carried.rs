//! What an archive says of its session. It may be anybody's: nothing in it gives a sandbox anything of this host.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::options::SessionOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::sandbox::{Resources, SandboxBuilder};

const VERSION: u32 = 1;

/// The image that is this machine's own programs.
pub(super) const HOST: &str = "host";

/// What goes with a disk, wherever it goes: neither mounts, network nor ports.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Carried {
    version: u32,
    /// As its maker has named it.
    pub(super) image: String,
    /// The image's digest; `None` is the host's own programs.
    pub(super) digest: Option<String>,
    resources: Resources,
    env: Vec<(String, String)>,
    current_dir: Option<String>,
    user: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) idle_stop: Option<Duration>,
    pub(super) warm: bool,
}

impl Carried {
    pub(super) fn of(options: &SessionOptions) -> Carried {
        let asked = &options.asked;
        Carried {
            version: VERSION,
            image: asked.image.clone(),
            digest: options.digest.clone(),
            resources: asked.resources,
            env: asked.env.clone(),
            current_dir: asked.current_dir.clone(),
            user: asked.user.clone(),
            labels: asked.labels.clone(),
            idle_stop: asked.idle_stop,
            warm: asked.warm,
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// # Errors
    /// `Corrupt`; `Unsupported` for what a later Blink has written.
    pub(super) fn read(text: &[u8], archive: &Path) -> Result<Carried> {
        #[derive(Deserialize)]
        struct Start {
            version: u32,
        }
        let damaged = |error: serde_json::Error| {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "what the archive {} says of its session cannot be read: {error}",
                    archive.display()
                ),
            )
        };
        // The version first: the rest may be anything in another.
        let Start { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version > VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the session in {} was described by a later Blink (version {version}); use that one",
                    archive.display()
                ),
            ));
        }
        let carried: Carried = serde_json::from_slice(text).map_err(damaged)?;
        let is_digest = |text: &String| {
            let hex = text.strip_prefix("sha256:").unwrap_or_default();
            hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let is_host = carried.image == HOST;
        match &carried.digest {
            None if is_host => Ok(carried),
            Some(digest) if !is_host && is_digest(digest) => Ok(carried),
            _ => Err(damaged(serde::de::Error::custom(
                "its image has no digest that could be one",
            ))),
        }
    }

    /// Describes a sandbox as the archive does, wherever it is described by nobody else.
    pub(super) fn describe(&self, mut sandbox: SandboxBuilder) -> SandboxBuilder {
        fn take<T: PartialEq>(now: &mut T, carried: T, default: &T) {
            if now == default {
                *now = carried;
            }
        }
        let (resources, default) = (&mut sandbox.resources, Resources::default());
        let Resources {
            cpus,
            memory_mib,
            disk_mib,
            processes,
        } = self.resources;
        take(&mut resources.cpus, cpus, &default.cpus);
        take(&mut resources.memory_mib, memory_mib, &default.memory_mib);
        take(&mut resources.disk_mib, disk_mib, &default.disk_mib);
        take(&mut resources.processes, processes, &default.processes);
        let env = self.env.iter();
        let mut env: Vec<_> = env
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        // What is set last is what holds.
        env.append(&mut sandbox.env);
        sandbox.env = env;
        let current_dir = self.current_dir.as_ref().map(Into::into);
        sandbox.current_dir = sandbox.current_dir.or(current_dir);
        sandbox.user = sandbox.user.or_else(|| self.user.clone());
        sandbox
    }
}

/// Reads it for nobody, as fuzz/ does.
#[cfg(feature = "fuzzing")]
pub(crate) fn read(text: &[u8]) -> Result<()> {
    Carried::read(text, Path::new("archive")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_blink_knows_is_read() {
        let carried = Carried {
            version: VERSION,
            image: "host".into(),
            digest: None,
            resources: Resources::default(),
            env: vec![("A".into(), "1".into())],
            current_dir: None,
            user: None,
            labels: BTreeMap::new(),
            idle_stop: Some(Duration::from_secs(5)),
            warm: true,
        };
        let path = Path::new("file.boxlite");
        let text = String::from_utf8(carried.to_json()).unwrap();
        let read = Carried::read(text.as_bytes(), path).unwrap();
        assert_eq!(read.to_json(), text.as_bytes());
        let future = text.replace("\"version\":1", "\"more\":1,\"version\":2");
        let path_of_here = text.replace("\"host\"", "\"./folder\"");
        let mounts = text.replace("\"version\"", "\"mounts\":[],\"version\"");
        for (text, kind) in [
            (future.as_str(), ErrorKind::Unsupported),
            (mounts.as_str(), ErrorKind::Corrupt),
            (path_of_here.as_str(), ErrorKind::Corrupt),
            ("", ErrorKind::Corrupt),
            ("{}", ErrorKind::Corrupt),
            ("{\"version\":1}", ErrorKind::Corrupt),
        ] {
            let error = Carried::read(text.as_bytes(), path).unwrap_err();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.message().contains("file.boxlite"), "{error}");
        }
    }
}
