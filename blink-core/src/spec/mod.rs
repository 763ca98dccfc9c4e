//! What a sandbox is, once: what its makers ask for, what its session keeps, and what others are shown.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use blink_image::ImageConfig;
use serde::{Deserialize, Serialize};

use crate::command::{Defaults, check_variable, set_variable};
use crate::error::{Error, Result};
use crate::isolation::IsolationChoice;
use crate::publish::{self, PublishedPort};

mod mount;
mod network;
mod resources;
mod text;

pub use self::mount::Mount;
pub use self::network::Network;
pub use self::resources::{DEFAULT_DISK_MIB, DEFAULT_PROCESSES, Resources};
use self::text::Version;

/// How long a boot may take, unless told otherwise.
pub const DEFAULT_BOOT_TIMEOUT: Duration = Duration::from_secs(30);

/// The image that is this machine's own programs.
pub(crate) const HOST_IMAGE: &str = "host";

/// The longest host name that Linux has.
const HOSTNAME_BYTES: usize = 64;

/// A description of a sandbox. What is absent was not asked for, and has the default that its isolation, its image or its
/// [`Blink`](crate::Blink) gives it.
///
/// It is plain data: [`Blink::sandbox`](crate::Blink::sandbox) and [`Blink::session`](crate::Blink::session) fill one in, or
/// [take one](crate::SandboxBuilder::spec), and as JSON it has the same fields, with times in seconds.
///
/// # Examples
///
/// ```
/// use blink_core::SandboxSpec;
/// let spec: SandboxSpec = serde_json::from_str(r#"{"image": "alpine:3.20", "memory_mib": 512, "network": "none"}"#)?;
/// assert_eq!(spec.memory_mib, Some(512));
/// assert_eq!(spec.disk_mib, None);
/// spec.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SandboxSpec {
    /// Of this description, in JSON; a later one is refused.
    version: Version,
    /// Where its root file system comes from; `host` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What stands between it and the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<IsolationChoice>,
    /// Its host name; its id by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Processors that it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory that it may use, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// What `/dev/shm` may hold of the memory, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_memory_mib: Option<u64>,
    /// What it may write, in MiB; [`DEFAULT_DISK_MIB`] by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u64>,
    /// Processes and threads that it may have at once; [`DEFAULT_PROCESSES`] by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// What it can reach; nothing by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What it sees of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Ports inside it that the host's programs reach.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PublishedPort>,
    /// Environment variables of all its programs, over the image's.
    #[serde(skip_serializing_if = "Vec::is_empty", with = "text::variables")]
    pub env: Vec<(OsString, OsString)>,
    /// The folder in which its programs run, over the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_dir: Option<PathBuf>,
    /// The user that its programs run as, over the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How long its boot may take.
    #[serde(skip_serializing_if = "Option::is_none", with = "text::seconds")]
    pub boot_timeout: Option<Duration>,
    /// Of a session: its owner's own words.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Of a session: after how long without use it is stopped; never by default.
    #[serde(skip_serializing_if = "Option::is_none", with = "text::seconds")]
    pub idle_stop: Option<Duration>,
    /// Of a session: whether it keeps running when its last user has gone; not by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm: Option<bool>,
}

impl SandboxSpec {
    /// Checks what can be checked before anything is made.
    ///
    /// # Errors
    /// `InvalidArgument` for invalid values, `NotFound` for a mount of what is not on this machine.
    pub fn validate(&self) -> Result<()> {
        /// Less than this and nothing starts.
        const LEAST_MEMORY_MIB: u64 = 4;
        const LEAST_PROCESSES: u64 = 4;
        for (name, value) in &self.env {
            check_variable(name, value)?;
        }
        if let Some(name) = self.hostname.as_deref().filter(|name| !is_hostname(name)) {
            return Err(Error::invalid(format!(
                "{name:?} is not a host name; use letters, digits, hyphens and dots, {HOSTNAME_BYTES} at most"
            )));
        }
        if let Some(cpus) = self.cpus
            && !(cpus.is_finite() && cpus > 0.0)
        {
            return Err(Error::invalid(format!(
                "{cpus} is not a number of processors; give one above 0"
            )));
        }
        if self.memory_mib.is_some_and(|mib| mib < LEAST_MEMORY_MIB) {
            return Err(Error::invalid(format!(
                "a sandbox needs at least {LEAST_MEMORY_MIB} MiB of memory"
            )));
        }
        if self.shared_memory_mib == Some(0) {
            return Err(Error::invalid(
                "shared memory needs at least 1 MiB; leave the option out for half of the memory",
            ));
        }
        if self.disk_mib == Some(0) {
            return Err(Error::invalid("a sandbox needs at least 1 MiB of disk"));
        }
        if self.processes.is_some_and(|count| count < LEAST_PROCESSES) {
            return Err(Error::invalid(format!(
                "a sandbox needs at least {LEAST_PROCESSES} processes"
            )));
        }
        for mount in &self.mounts {
            mount.check()?;
        }
        if let Some(network) = &self.network {
            network.check()?;
        }
        publish::check(&self.publish)
    }

    /// What it can use of the machine, with the defaults that no isolation changes.
    pub fn resources(&self) -> Resources {
        Resources {
            cpus: self.cpus,
            memory_mib: self.memory_mib,
            shared_memory_mib: self.shared_memory_mib,
            disk_mib: self.disk_mib.unwrap_or(DEFAULT_DISK_MIB),
            processes: self.processes.unwrap_or(DEFAULT_PROCESSES),
        }
    }

    /// The image that it is made from.
    pub(crate) fn image(&self) -> &str {
        self.image.as_deref().unwrap_or(HOST_IMAGE)
    }

    /// What it can reach. A list of no hosts is nothing.
    pub(crate) fn network(&self) -> Network {
        self.network
            .as_ref()
            .map(Network::effective)
            .unwrap_or_default()
    }

    /// Whether it keeps running when its last user has gone.
    pub(crate) fn is_warm(&self) -> bool {
        self.warm.unwrap_or_default()
    }

    /// The same with what it means today in it: the defaults, and what an image with this configuration has its programs run
    /// with. Where nothing was asked for, processors and memory remain absent, since they depend on the isolation that a sandbox
    /// gets.
    ///
    /// # Examples
    ///
    /// ```
    /// use blink_core::SandboxSpec;
    /// use blink_core::ImageConfig;
    ///
    /// let mut image = ImageConfig::default();
    /// image.user = Some("app".into());
    /// let spec: SandboxSpec = serde_json::from_str(r#"{"processes": 64}"#)?;
    /// let resolved = spec.resolve(&image);
    /// assert_eq!((resolved.processes, resolved.disk_mib), (Some(64), Some(10 * 1024)));
    /// assert_eq!(resolved.user.as_deref(), Some("app"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn resolve(&self, image: &ImageConfig) -> SandboxSpec {
        let mut env: Vec<(OsString, OsString)> = Vec::new();
        let of_image = image.env.iter().filter_map(|line| line.split_once('='));
        let of_image = of_image.map(|(name, value)| (OsStr::new(name), OsStr::new(value)));
        let own = self.env.iter().map(|(name, value)| (&**name, &**value));
        for (name, value) in of_image.chain(own) {
            set_variable(&mut env, name, value);
        }
        let resources = self.resources();
        let of_image = image.workdir.clone().map(Into::into);
        SandboxSpec {
            image: Some(self.image().to_owned()),
            disk_mib: Some(resources.disk_mib),
            processes: Some(resources.processes),
            network: Some(self.network.clone().unwrap_or_default()),
            warm: Some(self.is_warm()),
            current_dir: self.current_dir.clone().or(of_image),
            user: self.user.clone().or_else(|| image.user.clone()),
            env,
            ..self.clone()
        }
    }

    /// What its programs run with, of an image with this configuration.
    pub(crate) fn defaults(&self, image: &ImageConfig) -> Defaults {
        let resolved = self.resolve(image);
        Defaults {
            env: resolved.env,
            current_dir: resolved.current_dir.map(Into::into),
            user: resolved.user,
        }
    }

    /// As a session keeps it: with the defaults of today, whatever those of a later Blink are. What its image says is kept
    /// beside it.
    ///
    /// # Errors
    /// `InvalidArgument` if a variable or the working directory is not UTF-8, which a session cannot store.
    pub(crate) fn to_keep(&self) -> Result<SandboxSpec> {
        self.check_text()?;
        Ok(SandboxSpec {
            // Its isolation stands beside it; how long a boot may take is the starter's to say.
            isolation: None,
            boot_timeout: None,
            ..self.resolve(&ImageConfig::default())
        })
    }

    fn check_text(&self) -> Result<()> {
        let env = self
            .env
            .iter()
            .flat_map(|(name, value)| [name, value].map(|text| ("environment", text.as_os_str())));
        let dir = self.current_dir.iter();
        let dir = dir.map(|dir| ("working directory", dir.as_os_str()));
        match env.chain(dir).find(|(_, text)| text.to_str().is_none()) {
            Some((what, text)) => Err(Error::invalid(format!(
                "the session's {what} {} is no text in UTF-8, which it must be to be kept",
                text.display()
            ))),
            None => Ok(()),
        }
    }

    /// The same without what was found where its mounts are.
    pub(crate) fn as_asked(&self) -> SandboxSpec {
        let mut spec = self.clone();
        for mount in &mut spec.mounts {
            mount.pinned = None;
        }
        spec
    }

    /// What is asked for here and is otherwise in what was kept, in words. What is absent here is not asked for.
    pub(crate) fn differences(&self, kept: &SandboxSpec) -> Vec<String> {
        let fields = |spec: &SandboxSpec| {
            // Whether a mount is still what it was is seen when it is started.
            let spec = SandboxSpec {
                isolation: None,
                boot_timeout: None,
                ..spec.as_asked()
            };
            match serde_json::to_value(spec) {
                Ok(serde_json::Value::Object(fields)) => fields,
                _ => serde_json::Map::new(),
            }
        };
        let kept = fields(kept);
        let asked = fields(self).into_iter();
        asked
            .filter(|(name, value)| kept.get(name) != Some(value))
            .map(|(name, value)| {
                let was = text::in_words(&name, kept.get(&name));
                let asked = text::in_words(&name, Some(&value));
                format!("{name} is {was}, not {asked}")
            })
            .collect()
    }
}

fn is_hostname(name: &str) -> bool {
    name.len() <= HOSTNAME_BYTES && name.split('.').all(network::is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn read(text: &str) -> SandboxSpec {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_absent_is_not_asked_for() {
        let nothing = read("{}");
        assert_eq!(nothing, SandboxSpec::default());
        assert_eq!(serde_json::to_string(&nothing).unwrap(), r#"{"version":1}"#);
        let kept = read(r#"{"network":"host","memory_mib":512,"warm":true}"#);
        let kept = kept.to_keep().unwrap();
        assert!(nothing.differences(&kept).is_empty());
        let differs = |text: &str| read(text).differences(&kept).join("; ");
        assert_eq!(differs(r#"{"network":"host","processes":1024}"#), "");
        assert_eq!(
            differs(r#"{"network":"none"}"#),
            "network is host, not none"
        );
        assert_eq!(
            differs(r#"{"warm":false,"memory_mib":64,"idle_stop":5,"boot_timeout":3}"#),
            "idle_stop is not set, not 5 s; memory_mib is 512, not 64; \
             warm is true, not false"
        );
    }

    #[test]
    fn all_of_it_is_there_again() {
        let text = r#"{"version":1,"image":"alpine:3.20","isolation":"auto","hostname":"box.example","cpus":1.5,"memory_mib":512,
            "shared_memory_mib":64,"disk_mib":100,"processes":64,"network":{"hosts":["pypi.org"]},
            "mounts":[{"host":"/usr","guest":"/data","read_only":true}],"publish":[{"host":"127.0.0.1:0","guest":80}],
            "env":{"A":"1","B":"=2"},"current_dir":"/srv","user":"nobody","boot_timeout":1.5,"labels":{"a":"b"},"idle_stop":60.0,
            "warm":false}"#;
        let spec = read(text);
        spec.validate().unwrap();
        let again = serde_json::to_value(&spec).unwrap();
        assert_eq!(
            again,
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
        assert_eq!(spec.boot_timeout, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        for text in [
            r#"{"cpus":0}"#,
            r#"{"memory_mib":3}"#,
            r#"{"shared_memory_mib":0}"#,
            r#"{"disk_mib":0}"#,
            r#"{"processes":3}"#,
            r#"{"env":{"":"1"}}"#,
            r#"{"network":{"hosts":["a b"]}}"#,
            r#"{"mounts":[{"host":"/usr","guest":"usr"}]}"#,
            r#"{"publish":[{"host":"127.0.0.1:0","guest":0}]}"#,
            r#"{"hostname":""}"#,
            r#"{"hostname":"a_b"}"#,
            r#"{"hostname":"a..b"}"#,
            r#"{"hostname":"-a"}"#,
        ] {
            let error = read(text).validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        }
        let long = format!(r#"{{"hostname":"{}"}}"#, "a.".repeat(32) + "a");
        assert!(read(&long).validate().is_err());
        for (text, word) in [
            (r#"{"version":2}"#, "later"),
            (r#"{"memory":3}"#, "memory"),
            (r#"{"idle_stop":-1}"#, "seconds"),
            (r#"{"network":"all"}"#, "all"),
        ] {
            let error = serde_json::from_str::<SandboxSpec>(text).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
