//! Who asks: credentials given by the caller, and those that docker keeps.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::shown;
use crate::reference::DEFAULT_REGISTRY;
use crate::registry::options::{Login, RegistryOptions};

/// What docker keeps Docker Hub's credentials under.
const DOCKER_HUB_ACCOUNT: &str = "index.docker.io";
const DOCKER_HUB_URL: &str = "https://index.docker.io/v1/";

/// A user may have to unlock a key chain; nobody waits longer for that.
const HELPER_TIME: Duration = Duration::from_secs(30);

/// More than any token has.
const LARGEST_ANSWER: u64 = 64 * 1024;

/// More than any list of logins that a person has made.
const LARGEST_CONFIG: u64 = 4 * 1024 * 1024;

/// What docker's helpers return as the user where the password is a token to get tokens with.
const TOKEN_USER: &str = "<token>";

/// How to prove who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Password(Login),
    /// A token to get tokens with.
    Refresh(Login),
}

impl Credentials {
    fn new(user: String, password: String) -> Self {
        let login = Login { user, password };
        match login.user == TOKEN_USER {
            true => Self::Refresh(login),
            false => Self::Password(login),
        }
    }
}

/// Docker's `config.json`, as far as it is about this.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The credentials for a repository of a registry, by their names in references.
///
/// # Errors
/// A sentence, where credentials are kept that could not be had. Much can be read without any.
pub(crate) async fn find(
    registry: &str,
    repository: &str,
    options: &RegistryOptions,
) -> Result<Option<Credentials>, String> {
    let given = options.logins.iter().map(|(of, login)| (of, login));
    if let Some(login) = best(given, registry, repository) {
        return Ok(Some(Credentials::Password(login.clone())));
    }
    let Some(config) = read_docker_config(options)? else {
        return Ok(None);
    };
    let helper = best(&config.cred_helpers, registry, repository)
        .or(config.creds_store.as_ref())
        .filter(|helper| !helper.is_empty());
    let kept = match helper {
        Some(helper) => ask(helper, registry, options).await,
        None => Ok(None),
    };
    match (kept, from_file(&config, registry, repository)?) {
        (Ok(None) | Err(_), Some(credentials)) => Ok(Some(credentials)),
        (kept, _) => kept,
    }
}

fn read_docker_config(options: &RegistryOptions) -> Result<Option<DockerConfig>, String> {
    let named = options.docker_config.clone();
    let of_environment = || {
        let folder = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty());
        folder
            .map(PathBuf::from)
            .or_else(|| Some(std::env::home_dir()?.join(".docker")))
            .map(|folder| folder.join("config.json"))
    };
    let Some(path) = named.or_else(of_environment) else {
        return Ok(None);
    };
    let content = std::fs::File::open(&path).and_then(|file| {
        let mut content = Vec::new();
        std::io::Read::take(file, LARGEST_CONFIG).read_to_end(&mut content)?;
        Ok(content)
    });
    let content = match content {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("'{}' cannot be read: {error}", shown(&path))),
    };
    serde_json::from_slice(&content).map(Some).map_err(|error| {
        format!(
            "'{}' is not the JSON that it should be: {error}",
            shown(&path)
        )
    })
}

fn from_file(
    config: &DockerConfig,
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, String> {
    let Some(auth) = best(&config.auths, registry, repository) else {
        return Ok(None);
    };
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = filled(&auth.identitytoken) {
        return Ok(Some(Credentials::new(TOKEN_USER.to_owned(), token)));
    }
    if let (Some(user), Some(password)) = (filled(&auth.username), filled(&auth.password)) {
        return Ok(Some(Credentials::new(user, password)));
    }
    let Some(auth) = filled(&auth.auth) else {
        return Ok(None);
    };
    let decoded = STANDARD
        .decode(auth.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => {
            // Some tools pad it.
            let password = password.trim_end_matches('\0').to_owned();
            Ok(Some(Credentials::new(user.to_owned(), password)))
        }
        None => Err(format!(
            "docker's configuration holds credentials for {registry} that cannot be read"
        )),
    }
}

/// What is kept under the key that says the most of a repository.
fn best<'a, T>(
    kept: impl IntoIterator<Item = (&'a String, &'a T)>,
    registry: &str,
    repository: &str,
) -> Option<&'a T> {
    let found = kept
        .into_iter()
        .filter_map(|(key, value)| Some((fit(key, registry, repository)?, value)));
    found.max_by_key(|(fit, _)| *fit).map(|(_, value)| value)
}

/// How well a key is about a repository: it names the registry, with its port where that is not HTTPS's own, and may name
/// the beginning of the repository. Docker's old addresses of registries are keys too. Nothing stands for several
/// registries.
fn fit(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let address = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let (host, path) = match address.unwrap_or(key).split_once('/') {
        Some((host, path)) => (host, path.trim_matches('/')),
        None => (address.unwrap_or(key), ""),
    };
    let is_same = |host: &str| {
        let plain = |name: &str| name.strip_suffix(":443").unwrap_or(name).to_lowercase();
        plain(host) == plain(registry)
    };
    let is_docker_hub =
        registry == DEFAULT_REGISTRY && matches!(host, DOCKER_HUB_ACCOUNT | "registry-1.docker.io");
    if !is_same(host) && !is_docker_hub {
        return None;
    }
    // An address's path is that of a protocol, and not of repositories.
    if path.is_empty() || address.is_some() {
        return Some(usize::from(is_same(host)));
    }
    let rest = repository.strip_prefix(path)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(1 + path.len())
}

/// Asks a program of docker's `docker-credential-…` kind.
async fn ask(
    helper: &str,
    registry: &str,
    options: &RegistryOptions,
) -> Result<Option<Credentials>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default, rename = "ServerURL")]
        server: String,
        username: String,
        secret: String,
    }
    // A name, and nothing that leads to a program elsewhere.
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !helper.bytes().all(is_name) {
        return Err(format!(
            "'{}' is no name of a credential helper",
            helper.escape_debug()
        ));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |why: &dyn std::fmt::Display| format!("the credential helper {program} {why}");
    let account = match registry == DEFAULT_REGISTRY {
        true => DOCKER_HUB_URL,
        false => registry,
    };
    let helpers = options
        .helpers
        .clone()
        .ok_or_else(|| failed(&"cannot be started here"))?;
    let (asked, account) = (program.clone(), account.to_owned());
    let ask = move || helpers.get(&asked, &account, HELPER_TIME);
    let (code, printed) = tokio::task::spawn_blocking(ask)
        .await
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&format_args!("failed: {error}")))?;
    if printed.len() as u64 > LARGEST_ANSWER {
        return Err(failed(&format_args!(
            "gave an answer of more than {LARGEST_ANSWER} bytes"
        )));
    }
    if code != 0 {
        let said = String::from_utf8_lossy(&printed).trim().to_owned();
        if said.contains("not found") {
            return Ok(None);
        }
        let said: String = said.chars().take(200).collect();
        return Err(failed(&format_args!("failed: {}", said.escape_debug())));
    }
    let answer: Answer = serde_json::from_slice(&printed)
        .map_err(|_| failed(&"gave an answer that cannot be understood"))?;
    if !answer.server.is_empty() && fit(&answer.server, registry, "").is_none() {
        return Err(failed(&format_args!(
            "gave the credentials of '{}' where those of '{registry}' were asked for",
            answer.server.escape_debug()
        )));
    }
    Ok(Some(Credentials::new(answer.username, answer.secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> Login {
        Login {
            user: user.into(),
            password: password.into(),
        }
    }

    #[tokio::test]
    async fn what_docker_keeps_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let options = RegistryOptions::default().with_docker_config(&path);
        assert_eq!(find("docker.io", "a", &options).await, Ok(None));
        let auth = STANDARD.encode("me:pass:word");
        let content = serde_json::json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": auth },
            "registry.example:5000": { "username": "u", "password": "p" },
            "ghcr.io": { "auth": "", "identitytoken": "t" },
            "broken.example": { "auth": "???" },
        }, "HttpHeaders": {} });
        std::fs::write(&path, content.to_string()).unwrap();
        let password = |user, text| Ok(Some(Credentials::Password(login(user, text))));
        assert_eq!(
            find("docker.io", "a", &options).await,
            password("me", "pass:word")
        );
        assert_eq!(
            find("registry.example:5000", "a", &options).await,
            password("u", "p")
        );
        assert_eq!(
            find("ghcr.io", "a", &options).await,
            Ok(Some(Credentials::Refresh(login(TOKEN_USER, "t"))))
        );
        assert_eq!(find("registry.example", "a", &options).await, Ok(None));
        assert!(find("broken.example", "a", &options).await.is_err());
        let given = options.clone().with_credentials("ghcr.io", "a", "b");
        assert_eq!(find("ghcr.io", "a", &given).await, password("a", "b"));
        std::fs::write(&path, "{").unwrap();
        assert!(find("ghcr.io", "a", &options).await.is_err());
    }

    #[test]
    fn which_key_is_about_which_registry() {
        for (key, registry, expected) in [
            ("a.example", "a.example", true),
            ("a.example:443", "a.example", true),
            ("a.example", "a.example:443", true),
            ("https://a.example/v1/", "a.example", true),
            ("https://a.example:5000/v2/", "a.example:5000", true),
            ("A.example", "a.example", true),
            ("a.example:5000", "a.example", false),
            ("a.example", "a.example:5000", false),
            ("a.example:5000", "a.example:5001", false),
            ("*.example", "a.example", false),
            ("*", "a.example", false),
            ("", "a.example", false),
            ("example", "a.example", false),
            ("a.example.b", "a.example", false),
            ("b.a.example", "a.example", false),
            ("https://a.example@b.example/", "a.example", false),
            ("https://https://a.example", "a.example", false),
            ("https://index.docker.io/v1/", "docker.io", true),
            ("index.docker.io", "docker.io", true),
            ("docker.io", "docker.io", true),
            ("https://registry-1.docker.io/v2/", "docker.io", true),
            ("https://index.docker.io/v1/", "mirror.example", false),
            ("docker.io", "registry-1.docker.io", false),
            ("index.docker.io.example", "docker.io", false),
            // Of these repositories and no others.
            ("a.example/team", "a.example", true),
            ("a.example/team/app", "a.example", true),
            ("a.example/te", "a.example", false),
            ("a.example/other", "a.example", false),
            ("b.example/team", "a.example", false),
        ] {
            assert_eq!(
                fit(key, registry, "team/app").is_some(),
                expected,
                "{key} {registry}"
            );
        }
        let kept = [
            "a.example",
            "a.example/team",
            "a.example/team/app",
            "https://a.example/",
        ];
        let kept: Vec<_> = kept.iter().map(|key| ((*key).to_owned(), *key)).collect();
        let of = |repository| {
            let kept = kept.iter().map(|(key, value)| (key, value));
            best(kept, "a.example", repository).copied()
        };
        assert_eq!(of("team/app"), Some("a.example/team/app"));
        assert_eq!(of("team/application"), Some("a.example/team"));
    }

    #[test]
    fn no_log_shows_a_password() {
        let options = RegistryOptions::default().with_credentials("r", "user", "hidden");
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
