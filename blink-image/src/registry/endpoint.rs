//! Where a reference's registry is, and in which order its addresses are tried.

use reqwest::Url;

use crate::error::ImageError;
use crate::reference::{DEFAULT_REGISTRY, Reference};
use crate::registry::options::RegistryOptions;
use crate::registry::origin::is_loopback;

/// Where the registry called `docker.io` really is.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// One address that may have an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Ends with `/`.
    pub(crate) base: Url,
    /// The name that credentials are kept under.
    pub(crate) account: String,
    /// Whether the one behind it is the same registry over plain HTTP.
    pub(crate) may_be_plain: bool,
    /// Its user has allowed plain HTTP by its name.
    pub(crate) is_allowed_plain: bool,
}

impl Endpoint {
    /// As a person would write it.
    pub(crate) fn shown(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// Whether it is on this machine, where no proxy leads.
    pub(crate) fn is_here(&self) -> bool {
        self.base.host_str().is_some_and(is_loopback)
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.base.scheme() == "https"
    }
}

/// The addresses for a reference: its registry's mirrors, then the registry itself.
pub(crate) fn endpoints(
    reference: &Reference,
    options: &RegistryOptions,
) -> Result<Vec<Endpoint>, ImageError> {
    let registry = reference.registry();
    let mut endpoints = Vec::new();
    for (of, url) in &options.mirrors {
        let mirror = mirror(url, options)?;
        if of == registry {
            endpoints.push(mirror);
        }
    }
    let host = if registry == DEFAULT_REGISTRY {
        DOCKER_HUB
    } else {
        registry
    };
    let is_insecure = options.is_insecure(registry);
    let mut add = |scheme: &str, may_be_plain| {
        let base = Url::parse(&format!("{scheme}://{host}/")).map_err(|error| {
            ImageError::invalid(format!("the registry '{registry}' is no address: {error}"))
        })?;
        endpoints.push(Endpoint {
            base,
            account: registry.to_owned(),
            may_be_plain,
            is_allowed_plain: is_insecure,
        });
        Ok::<_, ImageError>(())
    };
    if is_insecure {
        add("http", false)?;
    } else if is_loopback(host) {
        add("https", true)?;
        add("http", false)?;
    } else {
        add("https", false)?;
    }
    Ok(endpoints)
}

fn mirror(text: &str, options: &RegistryOptions) -> Result<Endpoint, ImageError> {
    let refused = |why: &str| {
        ImageError::invalid(format!(
            "'{}' is not a mirror: {why}; mirrors look like 'https://mirror.example/path'",
            text.escape_default()
        ))
    };
    let with_slash = format!("{}/", text.trim_end_matches('/'));
    let base = Url::parse(&with_slash).map_err(|error| refused(&error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(refused(
            "its address begins with neither https:// nor http://",
        ));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(refused("credentials do not belong into an address"));
    }
    let host = base.host_str().unwrap_or_default();
    let account = match base.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    Ok(Endpoint {
        base,
        is_allowed_plain: options.is_insecure(&account),
        account,
        may_be_plain: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(reference: &str, options: &RegistryOptions) -> Vec<String> {
        let reference = reference.parse().unwrap();
        endpoints(&reference, options)
            .unwrap()
            .iter()
            .map(Endpoint::shown)
            .collect()
    }

    #[test]
    fn addresses_and_their_order() {
        let options = RegistryOptions::default()
            .with_mirror("docker.io", "https://mirror.example/hub/")
            .with_mirror("docker.io", "http://10.0.0.1:5000")
            .with_insecure("plain.example:5000");
        assert_eq!(
            shown("alpine", &options),
            [
                "https://mirror.example/hub",
                "http://10.0.0.1:5000",
                "https://registry-1.docker.io"
            ]
        );
        assert_eq!(
            shown("plain.example:5000/a", &options),
            ["http://plain.example:5000"]
        );
        assert_eq!(
            shown("plain.example/a", &options),
            ["https://plain.example"]
        );
        for local in [
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            let urls = shown(&format!("{local}/a"), &options);
            assert_eq!(
                urls,
                [format!("https://{local}"), format!("http://{local}")]
            );
        }
    }

    #[test]
    fn what_is_no_mirror() {
        for url in ["", "mirror.example", "ftp://x", "https://", "https://a:b@x"] {
            let options = RegistryOptions::default().with_mirror("docker.io", url);
            let reference = "other.example/a".parse().unwrap();
            let error = endpoints(&reference, &options).unwrap_err();
            assert_eq!(
                error.kind(),
                crate::ImageErrorKind::InvalidArgument,
                "{url}"
            );
        }
    }
}
