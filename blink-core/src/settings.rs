//! What a machine sets once, so that no program has to: in the environment, or in a file of the user's.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blink_image::RegistryOptions;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::isolation::{Isolation, IsolationChoice};

const ISOLATION: &str = "BLINK_ISOLATION";
const HOME: &str = "BLINK_HOME";
const OFFLINE: &str = "BLINK_OFFLINE";
const BOOT_TIMEOUT: &str = "BLINK_BOOT_TIMEOUT";

/// The file, below the user's folder for such files.
const FILE: &str = "blink/config.toml";

/// What a `Blink` is made with where its program does not say.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default, deserialize_with = "isolation")]
    pub(crate) isolation: Option<IsolationChoice>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) offline: Option<bool>,
    #[serde(default, deserialize_with = "boot_timeout")]
    pub(crate) boot_timeout: Option<Duration>,
    #[serde(default)]
    pub(crate) registry: Registry,
}

/// How registries are reached, in addition to what a program says.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registry {
    /// Who is asked for a registry's images first.
    #[serde(default)]
    pub(crate) mirrors: BTreeMap<String, Vec<String>>,
    /// Registries that are spoken to without TLS.
    #[serde(default)]
    pub(crate) insecure: Vec<String>,
    /// Certificates of authorities that are trusted besides.
    #[serde(default)]
    pub(crate) ca_files: Vec<PathBuf>,
    pub(crate) docker_config: Option<PathBuf>,
}

impl Registry {
    /// What a program says, and what is set for the machine besides.
    pub(crate) fn beside(self, mut said: RegistryOptions) -> RegistryOptions {
        for (registry, urls) in &self.mirrors {
            for url in urls {
                said = said.with_mirror(registry, url);
            }
        }
        for registry in self.insecure {
            said = said.with_insecure(registry);
        }
        for file in self.ca_files {
            said = said.with_ca_file(file);
        }
        match self.docker_config {
            Some(file) if !said.has_docker_config() => said.with_docker_config(file),
            _ => said,
        }
    }
}

impl Settings {
    /// What the environment says, and the file where that says nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for an invalid value, with where it is.
    pub(crate) fn load() -> Result<Settings> {
        let said = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let in_file = match path() {
            Some(path) => Settings::read(&path)?,
            None => Settings::default(),
        };
        let isolation = match said(ISOLATION) {
            Some(name) => Some(name.to_string_lossy().parse().map_err(|error: Error| {
                Error::invalid(format!("{ISOLATION}: {}", error.message()))
            })?),
            None => in_file.isolation,
        };
        let offline = match said(OFFLINE) {
            Some(value) => Some(!is_false(&value.to_string_lossy())),
            None => in_file.offline,
        };
        let boot_timeout = match said(BOOT_TIMEOUT) {
            Some(value) => Some(
                positive_seconds(value.to_string_lossy().parse().ok()).ok_or_else(|| {
                    Error::invalid(format!(
                        "{BOOT_TIMEOUT} is {value:?}; give it a number of seconds above 0"
                    ))
                })?,
            ),
            None => in_file.boot_timeout,
        };
        Ok(Settings {
            isolation,
            offline,
            boot_timeout,
            home: said(HOME).map(PathBuf::from).or(in_file.home),
            registry: in_file.registry,
        })
    }

    fn read(path: &Path) -> Result<Settings> {
        let failed = |message: &dyn std::fmt::Display| {
            Error::invalid(format!("{} cannot be used: {message}", path.display()))
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
            // A program of another user's, say, whose folder this one may not look into.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(path = %path.display(), "the settings may not be read");
                return Ok(Settings::default());
            }
            // One that is no text has no line either.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(failed(&error)),
            Err(error) => return Err(Error::io(path.display(), &error)),
        };
        let settings: Settings = toml::from_str(&text).map_err(|error| {
            // Where it is, what is there, and what is wrong with it.
            failed(&error.to_string().trim_end())
        })?;
        match &settings.home {
            Some(home) if !home.is_absolute() => Err(failed(&format_args!(
                "home is {:?}; name it from the root on",
                home.display()
            ))),
            _ => Ok(settings),
        }
    }
}

/// Where the file is.
fn path() -> Option<PathBuf> {
    let is_absolute = |path: &PathBuf| path.is_absolute();
    let folder = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder
        .filter(is_absolute)
        .or_else(|| Some(env::home_dir().filter(is_absolute)?.join(".config")))?;
    Some(folder.join(FILE))
}

fn isolation<'de, D: serde::Deserializer<'de>>(
    value: D,
) -> std::result::Result<Option<IsolationChoice>, D::Error> {
    let name = String::deserialize(value)?;
    let choice = name.parse();
    choice
        .map(Some)
        .map_err(|error: Error| serde::de::Error::custom(error.message()))
}

fn boot_timeout<'de, D: serde::Deserializer<'de>>(
    value: D,
) -> std::result::Result<Option<Duration>, D::Error> {
    let seconds = positive_seconds(Some(f64::deserialize(value)?));
    seconds
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("boot_timeout is a number of seconds above 0"))
}

fn positive_seconds(seconds: Option<f64>) -> Option<Duration> {
    let duration = Duration::try_from_secs_f64(seconds?).ok()?;
    (!duration.is_zero()).then_some(duration)
}

/// What the command takes for "no"; everything else is "yes".
fn is_false(value: &str) -> bool {
    const FALSE: [&str; 6] = ["n", "no", "f", "false", "off", "0"];
    FALSE.contains(&value.to_lowercase().as_str())
}

impl std::str::FromStr for IsolationChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<IsolationChoice> {
        match Isolation::from_name(text) {
            Some(isolation) => Ok(isolation.into()),
            None if text == IsolationChoice::Auto.name() => Ok(IsolationChoice::Auto),
            None => Err(Error::invalid(format!(
                "{text:?} is not an isolation; choose microvm, namespace or auto"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        Settings::read(&path)
    }

    #[test]
    fn a_file_says_what_programs_do_not() {
        let text = "isolation = \"auto\"\nhome = \"/data/blink\"\noffline = true\nboot_timeout = 90\n\n[registry]\ninsecure = [\"r:5000\"]\n\
                    ca_files = [\"/etc/ca.pem\"]\n\n[registry.mirrors]\n\"docker.io\" = [\"https://m.example\"]\n";
        let settings = read(text).unwrap();
        assert_eq!(settings.isolation, Some(IsolationChoice::Auto));
        assert_eq!(settings.home, Some("/data/blink".into()));
        assert_eq!(settings.offline, Some(true));
        assert_eq!(settings.boot_timeout, Some(Duration::from_secs(90)));
        assert_eq!(settings.registry.insecure, ["r:5000"]);
        assert_eq!(
            settings.registry.mirrors["docker.io"],
            ["https://m.example"]
        );
        assert_eq!(read("").unwrap(), Settings::default());
        let nowhere = Settings::read(Path::new("/no/such/config.toml")).unwrap();
        assert_eq!(nowhere, Settings::default());
    }

    #[test]
    fn what_cannot_be_right_is_named_with_its_line() {
        for (text, words) in [
            ("isolation = \"vm\"\n", ["line 1", "choose microvm"]),
            ("\nisolate = \"auto\"\n", ["line 2", "isolate"]),
            ("offline = 3\n", ["line 1", "boolean"]),
            ("boot_timeout = 0\n", ["line 1", "above 0"]),
            ("boot_timeout = \"1m\"\n", ["line 1", "string"]),
            ("isolation = ", ["line 1", "config.toml"]),
            ("home = \"blink\"\n", ["\"blink\"", "root"]),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
            for word in words {
                assert!(
                    error.message().contains(word),
                    "{word}: {}",
                    error.message()
                );
            }
        }
    }
}
