//! What an archive says of its session. It may be anybody's: nothing in it gives a sandbox anything of this host.
//!
//! | what it says | what becomes of it |
//! |---|---|
//! | image, digest | the stored image with that digest; nothing is fetched; the image's name here is the store's |
//! | resources | as far as they are less than the defaults, where the importer has not asked |
//! | idle_stop | where the importer has not asked: it only ends a sandbox |
//! | env, current_dir, user | where the importer has not asked: they stay inside the sandbox |
//! | labels | kept beside the importer's, which win; bounded |
//! | warm | never: it would keep a sandbox running |
//!
//! Mounts, network, ports and isolation are not carried at all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::SessionOptions;
use crate::engine::kind::Share;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{HOST_IMAGE, Resources, SandboxSpec};

const VERSION: u32 = 1;

/// More than any session's maker has set, and few enough that nobody notices.
const MOST_VARIABLES: usize = 4096;
const MOST_LABELS: usize = 1024;

/// A label is a word or two; registries and the like allow some hundred bytes, and whoever lists sessions shows all of it.
const LONGEST_LABEL: usize = 4096;

/// The kernel's longest path.
const LONGEST_PATH: usize = 4095;

/// The longest name of a user that Linux has, twice, for a group.
const LONGEST_USER: usize = 513;

/// Who wants more wants none.
const LONGEST_IDLE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

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
        let spec = &options.spec;
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let env = spec.env.iter();
        Carried {
            version: VERSION,
            image: spec.image().to_owned(),
            digest: options.digest.clone(),
            resources: spec.resources(),
            env: env.map(|(name, value)| (text(name), text(value))).collect(),
            current_dir: spec.current_dir.as_ref().map(|dir| text(dir.as_os_str())),
            user: spec.user.clone(),
            labels: spec.labels.clone(),
            idle_stop: spec.idle_stop,
            warm: spec.is_warm(),
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
            hex.len() == 64
                && hex
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if let Some(why) = carried.wrong() {
            return Err(damaged(serde::de::Error::custom(why)));
        }
        let is_host = carried.image == HOST_IMAGE;
        match &carried.digest {
            None if is_host => Ok(carried),
            Some(digest) if !is_host && is_digest(digest) => Ok(carried),
            _ => Err(damaged(serde::de::Error::custom(
                "its image has no digest that could be one",
            ))),
        }
    }

    /// Why it is what nobody's session can have been; bounds what of it is kept.
    fn wrong(&self) -> Option<&'static str> {
        let is_control = |text: &str| text.chars().any(char::is_control);
        let user = self.user.as_deref().unwrap_or_default();
        let dir = self.current_dir.as_deref().unwrap_or_default();
        let is_long_label =
            |(name, value): (&String, &String)| name.len().max(value.len()) > LONGEST_LABEL;
        if self.env.len() > MOST_VARIABLES {
            return Some("it has more variables than any session");
        }
        if self.labels.len() > MOST_LABELS || self.labels.iter().any(is_long_label) {
            return Some("it has more labels, or longer ones, than any session");
        }
        if self.image.len() > LONGEST_PATH || is_control(&self.image) {
            return Some("its image's name cannot be one");
        }
        if user.len() > LONGEST_USER || is_control(user) {
            return Some("its user's name cannot be one");
        }
        if dir.len() > LONGEST_PATH || dir.contains('\0') {
            return Some("its working directory cannot be one");
        }
        let idle = self.idle_stop.unwrap_or(LONGEST_IDLE);
        (idle.is_zero() || idle > LONGEST_IDLE)
            .then_some("the time after which it stops when idle cannot be one")
    }

    /// Describes a sandbox as the archive does, as far as it may and nobody else does; returns what was not given.
    pub(super) fn describe(&self, spec: &mut SandboxSpec, share: Share) -> Vec<Declined> {
        let mut declined = Vec::new();
        let default = Resources::default();
        let asked = self.resources;
        // It is a part of the memory, which is limited anyway.
        spec.shared_memory_mib = spec.shared_memory_mib.or(asked.shared_memory_mib);
        if let Some(asked) = asked.cpus {
            let most = spec.cpus.unwrap_or(share.cpus);
            let is_given = spec.cpus.is_none() && asked <= most;
            match is_given {
                true => spec.cpus = Some(asked),
                false if asked == most => {}
                false => declined.push(Declined::new("cpus", &asked, &most)),
            }
        }
        if let Some(asked) = asked.memory_mib {
            let most = spec.memory_mib.unwrap_or(share.memory_mib);
            let is_given = spec.memory_mib.is_none() && asked <= most;
            match is_given {
                true => spec.memory_mib = Some(asked),
                false if asked == most => {}
                false => declined.push(Declined::new("memory_mib", &asked, &most)),
            }
        }
        for (option, place, asked, default) in [
            (
                "disk_mib",
                &mut spec.disk_mib,
                asked.disk_mib,
                default.disk_mib,
            ),
            (
                "processes",
                &mut spec.processes,
                asked.processes,
                default.processes,
            ),
        ] {
            let given = *place.get_or_insert(asked.min(default));
            if given != asked {
                declined.push(Declined::new(option, &asked, &given));
            }
        }
        let env = self.env.iter();
        let mut env: Vec<_> = env
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        // What is set last is what holds.
        env.append(&mut spec.env);
        spec.env = env;
        let current_dir = self.current_dir.as_ref().map(Into::into);
        spec.current_dir = spec.current_dir.take().or(current_dir);
        spec.user = spec.user.take().or_else(|| self.user.clone());
        declined
    }
}

/// What an archive has asked for and was not given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Declined {
    /// The option, by the name of its method of [`SessionBuilder`](super::SessionBuilder): `disk_mib`.
    pub option: &'static str,
    /// What the archive has asked for.
    pub asked: String,
    /// What the session has instead.
    pub given: String,
}

impl Declined {
    pub(super) fn new(
        option: &'static str,
        asked: &dyn fmt::Display,
        given: &dyn fmt::Display,
    ) -> Declined {
        let (asked, given) = (asked.to_string(), given.to_string());
        Declined {
            option,
            asked,
            given,
        }
    }
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Declined {
            option,
            asked,
            given,
        } = self;
        write!(f, "{option} {asked} (it is {given})")
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
        let labels: BTreeMap<_, _> = (0..=MOST_LABELS).map(|at| (at.to_string(), "")).collect();
        let labels = format!("\"labels\":{}", serde_json::to_string(&labels).unwrap());
        let variables = vec![("A", "1"); MOST_VARIABLES + 1];
        let variables = format!("\"env\":{}", serde_json::to_string(&variables).unwrap());
        let long = "x".repeat(LONGEST_PATH + 1);
        let digest = format!("sha256:{}", "A".repeat(64));
        let wrong = [
            ("\"labels\":{}", labels),
            ("\"labels\":{}", format!("\"labels\":{{\"a\":\"{long}x\"}}")),
            ("\"env\":[[\"A\",\"1\"]]", variables),
            ("\"image\":\"host\"", "\"image\":\"a\\u001b[2J\"".into()),
            ("\"image\":\"host\"", format!("\"image\":\"{long}\"")),
            ("\"digest\":null", format!("\"digest\":\"{digest}\"")),
            ("\"user\":null", format!("\"user\":\"{long}\"")),
            ("\"user\":null", "\"user\":\"a\\nb\"".into()),
            (
                "\"current_dir\":null",
                format!("\"current_dir\":\"/{long}\""),
            ),
            (
                "\"current_dir\":null",
                "\"current_dir\":\"/a\\u0000\"".into(),
            ),
            ("\"secs\":5,", format!("\"secs\":{},", u64::MAX)),
            ("\"secs\":5,", "\"secs\":0,".into()),
            ("\"secs\":5,", "\"secs\":-1,".into()),
            ("\"disk_mib\":10240", "\"disk_mib\":1e99".into()),
            (
                "\"disk_mib\":10240",
                "\"disk_mib\":18446744073709551616".into(),
            ),
            ("\"processes\":1024", "\"processes\":-1".into()),
            ("\"cpus\":null", "\"cpus\":1e999".into()),
            ("\"warm\":true", "\"warm\":1".into()),
        ];
        for (from, to) in wrong {
            let changed = text.replace(from, &to);
            assert_ne!(changed, text, "{from}");
            let error = Carried::read(changed.as_bytes(), path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{from} {error}");
            assert!(error.message().len() < 500, "{error}");
        }
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
