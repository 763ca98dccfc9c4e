//! What an archive says of its session. It may be anybody's: nothing in it gives a sandbox anything of this host.
//!
//! | what it says | what becomes of it |
//! |---|---|
//! | image, digest | the stored image with that digest; nothing is fetched; the image's name here is the store's |
//! | resources | as far as they are less than the defaults, where the importer has not asked |
//! | idle_stop | where the importer has not asked: it only ends a machine |
//! | env, current_dir, user | where the importer has not asked: they stay inside the sandbox |
//! | labels | kept beside the importer's, which win; bounded |
//! | warm | never: it would keep a machine running |
//!
//! Mounts, network, ports and isolation are not carried at all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::options::SessionOptions;
use crate::engine::namespace::default_memory_mib;
use crate::error::{Error, ErrorKind, Result};
use crate::isolation::Isolation;
use crate::sandbox::{Resources, SandboxBuilder};

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

/// The memory of a micro-VM for which none was asked for, in MiB.
const MICROVM_MEMORY_MIB: u64 = 2048;

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
            hex.len() == 64
                && hex
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if let Some(why) = carried.wrong() {
            return Err(damaged(serde::de::Error::custom(why)));
        }
        let is_host = carried.image == HOST;
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
    pub(super) fn describe(
        &self,
        sandbox: &mut SandboxBuilder,
        isolation: Isolation,
    ) -> Vec<Declined> {
        let mut declined = Vec::new();
        let (resources, explicit) = (&mut sandbox.resources, sandbox.explicit);
        let default = Resources::default();
        let Resources {
            cpus,
            memory_mib,
            shared_memory_mib,
            disk_mib,
            processes,
        } = self.resources;
        // It is a part of the memory, which is limited anyway.
        resources.shared_memory_mib = resources.shared_memory_mib.or(shared_memory_mib);
        if let Some(asked) = cpus {
            let most = resources.cpus.unwrap_or_else(|| default_cpus(isolation));
            let is_given = resources.cpus.is_none() && asked <= most;
            match is_given {
                true => resources.cpus = Some(asked),
                false if asked == most => {}
                false => declined.push(Declined::new("cpus", &asked, &most)),
            }
        }
        if let Some(asked) = memory_mib {
            let most = resources.memory_mib.unwrap_or(match isolation {
                Isolation::Microvm => MICROVM_MEMORY_MIB,
                _ => default_memory_mib(),
            });
            let is_given = resources.memory_mib.is_none() && asked <= most;
            match is_given {
                true => resources.memory_mib = Some(asked),
                false if asked == most => {}
                false => declined.push(Declined::new("memory_mib", &asked, &most)),
            }
        }
        for (option, place, is_explicit, asked, default) in [
            (
                "disk_mib",
                &mut resources.disk_mib,
                explicit.disk_mib,
                disk_mib,
                default.disk_mib,
            ),
            (
                "processes",
                &mut resources.processes,
                explicit.processes,
                processes,
                default.processes,
            ),
        ] {
            if !is_explicit {
                *place = asked.min(default);
            }
            if *place != asked {
                declined.push(Declined::new(option, &asked, place));
            }
        }
        let env = self.env.iter();
        let mut env: Vec<_> = env
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        // What is set last is what holds.
        env.append(&mut sandbox.env);
        sandbox.env = env;
        let current_dir = self.current_dir.as_ref().map(Into::into);
        sandbox.current_dir = sandbox.current_dir.take().or(current_dir);
        sandbox.user = sandbox.user.take().or_else(|| self.user.clone());
        declined
    }
}

/// The processors of a sandbox for which none were asked for.
fn default_cpus(isolation: Isolation) -> f64 {
    let host = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let host = u32::try_from(host).unwrap_or(u32::MAX);
    f64::from(match isolation {
        Isolation::Microvm => (host / 2).clamp(1, 2),
        _ => host,
    })
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
