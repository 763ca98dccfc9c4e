//! Names of images in registries, by the grammar that Docker made the field's.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::ImageError;

/// A registry's image: `[registry/]repository[:tag][@digest]`.
///
/// ```
/// use blink_image::Reference;
///
/// let reference: Reference = "alpine:3.20".parse().unwrap();
/// assert_eq!(reference.registry(), "docker.io");
/// assert_eq!(reference.repository(), "library/alpine");
/// assert_eq!(reference.to_string(), "docker.io/library/alpine:3.20");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

pub(crate) const DEFAULT_REGISTRY: &str = "docker.io";

/// The grammar's own limit on registry and repository together.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

impl Reference {
    /// The registry's host, with its port if one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry, `library/` included where it was implied.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the reference insists on.
    pub(crate) fn pinned(&self) -> Option<Digest> {
        self.digest
    }

    /// The same image's manifest of this digest, `sha256:…`, whatever its tag means now.
    pub fn with_digest(mut self, digest: &str) -> Result<Self, ImageError> {
        self.tag = None;
        self.digest = Some(Digest::parse(digest, "the image")?);
        Ok(self)
    }

    /// The manifest's digest as `sha256:…`.
    pub fn digest(&self) -> Option<String> {
        self.digest.map(|digest| digest.to_string())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let refused = |why: &str| {
            let shown: String = text
                .chars()
                .take(100)
                .flat_map(char::escape_default)
                .collect();
            Err(ImageError::invalid(format!(
                "'{shown}' is not an image: {why}. Images are named like 'alpine:3.20' or \
                 'registry.example:5000/team/app@sha256:…', or by the path of an OCI layout folder or tar"
            )))
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => match digest.strip_prefix("sha256:").and_then(Digest::from_hex)
            {
                Some(digest) => (rest, Some(digest)),
                None => {
                    return refused(
                        "after '@' there must be 'sha256:' and 64 lowercase hex digits",
                    );
                }
            },
            None => (text, None),
        };
        let last_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last_slash..].rfind(':') {
            Some(colon) => (
                &rest[..last_slash + colon],
                Some(&rest[last_slash + colon + 1..]),
            ),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return refused("its tag must be up to 128 letters, digits, '_', '.' and '-'");
        }
        if name.is_empty() {
            return refused("its name is empty");
        }
        let (registry, repository) = match name.split_once('/') {
            Some(("docker.io" | "index.docker.io", rest)) if !rest.contains('/') => {
                (DEFAULT_REGISTRY, format!("library/{rest}"))
            }
            Some((first, rest)) if looks_like_registry(first) => (first, rest.to_owned()),
            Some(_) => (DEFAULT_REGISTRY, name.to_owned()),
            None => (DEFAULT_REGISTRY, format!("library/{name}")),
        };
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return refused("its name, with its registry, is longer than 255 characters");
        }
        if !is_registry(registry) {
            return refused("its registry is not a host name with an optional port");
        }
        if !repository.split('/').all(is_path_component) {
            return refused(
                "its name must be lowercase letters and digits, with single '.', '_', '__' or '-' between them",
            );
        }
        let latest = || digest.is_none().then(|| "latest".to_owned());
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned).or_else(latest),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn looks_like_registry(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':'])
        || component.chars().any(|c| c.is_ascii_uppercase())
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    port_fits && is_host(host)
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_in_words = |bytes: &[u8]| {
        bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word)
    };
    ends_in_words(bytes)
        && bytes.split(|byte| is_word(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__")
                || separator.iter().all(|byte| *byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag
            .bytes()
            .all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_people_write() {
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("team/app", "docker.io/team/app:latest"),
            ("ghcr.io/team/app:v1", "ghcr.io/team/app:v1"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("a__b/c-d---e.f_g", "docker.io/a__b/c-d---e.f_g:latest"),
            ("HOST/a", "HOST/a:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ] {
            assert_eq!(
                text.parse::<Reference>().unwrap().to_string(),
                full,
                "{text}"
            );
        }
        let text = format!("localhost:5000/a/b@sha256:{HEX}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), text);
        assert_eq!(reference.tag(), None);
    }

    #[test]
    fn what_no_registry_has() {
        for text in [
            "",
            ":",
            "a:",
            "@",
            "a@sha256:12",
            "Alpine",
            "a b",
            "a//b",
            "a/",
            "/a",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:b:c",
            "a:-x",
            "host.:80/a",
            "localhost:99999/a",
            "localhost:/a/b c",
            "ü",
            "a\n",
            "../x",
            "a/../b",
            "https://x/y",
            "a@md5:00",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!(
                error.kind(),
                crate::ImageErrorKind::InvalidArgument,
                "{text}"
            );
        }
        assert!("a/".repeat(200).parse::<Reference>().is_err());
        // With the registry that it stands for.
        let (fits, too_long) = ("a".repeat(237), "a".repeat(238));
        let reference = fits.parse::<Reference>().unwrap();
        assert_eq!(
            reference.to_string().parse::<Reference>().unwrap(),
            reference
        );
        assert!(too_long.parse::<Reference>().is_err());
        assert!(
            format!("a:{}", "t".repeat(129))
                .parse::<Reference>()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in ".{0,80}") {
            let _ = text.parse::<Reference>();
        }

        #[test]
        fn what_is_shown_is_read_again(text in "[a-z0-9._:/@-]{1,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
