//! What a user says about registries.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How registries are reached: mirrors, plain HTTP, private certificate authorities, and who asks.
///
/// A registry is named as in a reference: `registry.example:5000`, or `docker.io`. Credentials that are not given here
/// are taken from docker's own configuration (`$DOCKER_CONFIG/config.json` or `~/.docker/config.json`), with the
/// credential helpers that it names. They are told to the registry that they are kept for and to the token server that it
/// names itself, over HTTPS or on this machine's loopback; never to where a redirection leads, and never to a mirror of
/// the registry. Proxies are those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`).
///
/// # Examples
///
/// ```
/// use blink_image::RegistryOptions;
///
/// let options = RegistryOptions::default()
///     .with_mirror("docker.io", "https://mirror.example/docker")
///     .with_insecure("registry.internal:5000")
///     .with_ca_file("/etc/ssl/our-ca.pem")
///     .with_credentials("registry.internal:5000", "robot", "secret");
/// ```
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    pub(crate) mirrors: Vec<(String, String)>,
    pub(crate) insecure: Vec<String>,
    pub(crate) ca_files: Vec<PathBuf>,
    pub(crate) logins: Vec<(String, Login)>,
    pub(crate) docker_config: Option<PathBuf>,
    pub(crate) helpers: Option<Arc<dyn Helpers>>,
    pub(crate) pace: Pace,
}

/// Runs the programs in which docker keeps credentials, `docker-credential-…`.
pub trait Helpers: fmt::Debug + Send + Sync {
    /// Runs `program`, to which `account` is the input. Returns its exit code and what it has printed.
    ///
    /// # Errors
    /// If it cannot be started, or does not end in time.
    fn get(&self, program: &str, account: &str, patience: Duration) -> io::Result<(i32, Vec<u8>)>;
}

/// The slowest that a download may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) bytes: u64,
    pub(crate) window: Duration,
}

impl Default for Pace {
    /// Some 1 KiB a second: a third of that of the slowest lines in use, of which three layers come at once, and nothing
    /// that anybody would wait for to the end.
    fn default() -> Pace {
        Pace {
            bytes: 32 << 10,
            window: Duration::from_secs(30),
        }
    }
}

impl RegistryOptions {
    /// Asks `url` (`https://HOST[:PORT][/PATH]`, or `http://…`) for `registry`'s images first, and the registry itself
    /// where that has not got them. Several are asked in the order in which they were given.
    #[must_use]
    pub fn with_mirror(mut self, registry: impl Into<String>, url: impl Into<String>) -> Self {
        self.mirrors.push((registry.into(), url.into()));
        self
    }

    /// Talks to `registry` over plain HTTP, which anybody on the way can read and change, credentials too. For a mirror with
    /// an address of plain HTTP, its host allows that credentials are told to it. A registry on this machine's own loopback needs no such permission: where it answers HTTPS it is asked so, and otherwise over HTTP.
    #[must_use]
    pub fn with_insecure(mut self, registry: impl Into<String>) -> Self {
        self.insecure.push(registry.into());
        self
    }

    /// Trusts the certificate authorities in a PEM file, beside this machine's own.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_files.push(path.into());
        self
    }

    /// Logs in to `registry`, or to a mirror by its host, when it asks for that.
    #[must_use]
    pub fn with_credentials(
        mut self,
        registry: impl Into<String>,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        let login = Login {
            user: user.into(),
            password: password.into(),
        };
        self.logins.push((registry.into(), login));
        self
    }

    /// What runs credential helpers; without, those cannot be asked.
    #[must_use]
    pub fn with_helpers(mut self, helpers: Arc<dyn Helpers>) -> Self {
        self.helpers = Some(helpers);
        self
    }

    /// Whether docker's own `config.json` was replaced by another file.
    pub fn has_docker_config(&self) -> bool {
        self.docker_config.is_some()
    }

    pub(crate) fn is_insecure(&self, account: &str) -> bool {
        self.insecure.iter().any(|insecure| insecure == account)
    }

    /// Gives a download up that brings less than `bytes` in a window of time; for tests that cannot wait.
    #[doc(hidden)]
    #[must_use]
    pub fn with_slowest(mut self, bytes: u64, window: Duration) -> Self {
        self.pace = Pace { bytes, window };
        self
    }

    /// Takes credentials from this file instead of docker's own `config.json`.
    #[must_use]
    pub fn with_docker_config(mut self, path: impl Into<PathBuf>) -> Self {
        self.docker_config = Some(path.into());
        self
    }
}

/// A user and a password, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, …)", self.user)
    }
}
