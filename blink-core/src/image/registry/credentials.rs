//! Who asks: credentials given by the caller, and those that docker keeps.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::child::Program;
use crate::image::error::shown;
use crate::image::reference::DEFAULT_REGISTRY;
use crate::image::registry::options::{Login, RegistryOptions};

/// What docker keeps Docker Hub's credentials under.
const DOCKER_HUB_ACCOUNT: &str = "index.docker.io";
const DOCKER_HUB_URL: &str = "https://index.docker.io/v1/";

/// A user may have to unlock a key chain; nobody waits longer for that.
const HELPER_TIME: Duration = Duration::from_secs(30);

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
    auths: HashMap<String, Auth>,
    cred_helpers: HashMap<String, String>,
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

/// The credentials for a registry, by its name in references.
///
/// # Errors
/// A sentence, where credentials are kept that could not be had. Much can be read without any.
pub(crate) async fn find(
    registry: &str,
    options: &RegistryOptions,
) -> Result<Option<Credentials>, String> {
    if let Some((_, login)) = options.logins.iter().find(|(of, _)| of == registry) {
        return Ok(Some(Credentials::Password(login.clone())));
    }
    let Some(config) = read_docker_config(options)? else {
        return Ok(None);
    };
    let own_helper = config
        .cred_helpers
        .iter()
        .find(|(of, _)| is_for(of, registry));
    let helper = own_helper
        .map(|(_, helper)| helper)
        .or(config.creds_store.as_ref())
        .filter(|helper| !helper.is_empty());
    let kept = match helper {
        Some(helper) => ask(helper, registry, options).await,
        None => Ok(None),
    };
    match (kept, from_file(&config, registry)?) {
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
    let content = match std::fs::read(&path) {
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

fn from_file(config: &DockerConfig, registry: &str) -> Result<Option<Credentials>, String> {
    let Some((_, auth)) = config.auths.iter().find(|(of, _)| is_for(of, registry)) else {
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

/// Whether docker's key, a host or an old address, is about a registry.
fn is_for(key: &str, registry: &str) -> bool {
    let host = key
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap_or_default();
    host == registry
        || (registry == DEFAULT_REGISTRY
            && matches!(host, DOCKER_HUB_ACCOUNT | "registry-1.docker.io"))
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
        username: String,
        secret: String,
    }
    if helper.contains('/') {
        return Err(format!("'{helper}' is no name of a credential helper"));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |why: &dyn std::fmt::Display| format!("the credential helper {program} {why}");
    let account = match registry == DEFAULT_REGISTRY {
        true => DOCKER_HUB_URL,
        false => registry,
    };
    let launcher = options
        .launcher
        .clone()
        .ok_or_else(|| failed(&"cannot be started without a store"))?;
    let asking = Program::new(&program).args(["get"]).stdin(account);
    let output = tokio::task::spawn_blocking(move || launcher.run(&asking, HELPER_TIME))
        .await
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&format_args!("failed: {error}")))?;
    if output.code != 0 {
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said.contains("not found") {
            return Ok(None);
        }
        let said: String = said.chars().take(200).collect();
        return Err(failed(&format_args!("failed: {}", said.escape_debug())));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed(&"gave an answer that cannot be understood"))?;
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
        assert_eq!(find("docker.io", &options).await, Ok(None));
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
            find("docker.io", &options).await,
            password("me", "pass:word")
        );
        assert_eq!(
            find("registry.example:5000", &options).await,
            password("u", "p")
        );
        assert_eq!(
            find("ghcr.io", &options).await,
            Ok(Some(Credentials::Refresh(login(TOKEN_USER, "t"))))
        );
        assert_eq!(find("registry.example", &options).await, Ok(None));
        assert!(find("broken.example", &options).await.is_err());
        let given = options.clone().with_credentials("ghcr.io", "a", "b");
        assert_eq!(find("ghcr.io", &given).await, password("a", "b"));
        std::fs::write(&path, "{").unwrap();
        assert!(find("ghcr.io", &options).await.is_err());
    }

    #[test]
    fn no_log_shows_a_password() {
        let options = RegistryOptions::default().with_credentials("r", "user", "hidden");
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
