//! Who may be told what: the one rule for credentials, tokens and redirections.
//!
//! An origin is a scheme, a host and a port. Credentials are for the origin that they are kept for, and for the token
//! server that this very origin names in its own challenge. Whatever a redirection leads to elsewhere is asked without
//! them, and its challenges are not met: anybody can redirect to anybody, and anybody can ask for a password.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use reqwest::Url;

/// A scheme, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    is_encrypted: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` for an address that is neither HTTP nor HTTPS.
    pub(crate) fn of(url: &Url) -> Option<Origin> {
        let is_encrypted = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Origin {
            is_encrypted,
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// The registry, or mirror of one, that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) origin: Origin,
    /// Its user has allowed plain HTTP by its name, and so that whoever is between reads all that is said.
    pub(crate) is_allowed_plain: bool,
}

impl Asked {
    fn may_log_in(&self) -> bool {
        self.origin.is_encrypted || self.origin.is_loopback() || self.is_allowed_plain
    }
}

/// What an address is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What the registry has. `strayed` says that a redirection has led to another origin before.
    Content { strayed: bool },
    /// The same, with a user and a password.
    Login,
    /// A token, of the server that a challenge names; the challenge came after such a redirection where it is `strayed`.
    Token { strayed: bool },
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may know who asks.
    Known,
    /// It may be asked, and must not know.
    Anonymous,
    /// It is not asked at all; the reason completes "… is not asked, since …".
    Refused(&'static str),
}

/// Decides whether `to` is asked for something on behalf of a registry, and what it is told.
pub(crate) fn judge(asked: &Asked, to: &Url, purpose: Purpose) -> Verdict {
    use Verdict::{Anonymous, Known, Refused};
    let own = &asked.origin;
    let Some(origin) = Origin::of(to) else {
        return Refused("it is neither an address of HTTPS nor of HTTP");
    };
    if !to.username().is_empty() || to.password().is_some() {
        return Refused("its address has credentials in it");
    }
    if own.is_encrypted && !origin.is_encrypted {
        return Refused("the registry is reached over HTTPS, and this is plain HTTP");
    }
    if is_this_machine(&origin.host) && !is_this_machine(&own.host) {
        return Refused(
            "it is this machine itself or its own network, and the registry is elsewhere",
        );
    }
    match purpose {
        Purpose::Content { strayed: false } if origin == *own => Known,
        Purpose::Content { .. } => Anonymous,
        Purpose::Login if origin != *own => Refused("it is not the registry itself"),
        Purpose::Login if asked.may_log_in() => Known,
        Purpose::Login => Refused(
            "everybody on the way could read a password over plain HTTP, which --insecure-registry would allow",
        ),
        Purpose::Token { strayed: true } => {
            Refused("another server than the registry has named it")
        }
        Purpose::Token { strayed: false } if !asked.may_log_in() => Anonymous,
        Purpose::Token { strayed: false } => {
            let both_here = origin.is_loopback() && own.is_loopback();
            match origin.is_encrypted || both_here || origin == *own {
                true => Known,
                false => Anonymous,
            }
        }
    }
}

/// Whether a registry's host, with or without its port, is on this machine's loopback.
pub(crate) fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address == Ipv4Addr::LOCALHOST)
}

/// Whether a host leads to this machine, or to what serves just this machine on its own link, such as a cloud's keys.
fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_own_v4 = |address: Ipv4Addr| {
        address.is_loopback() || address.is_unspecified() || address.is_link_local()
    };
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => is_own_v4(address),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some_and(is_own_v4)
        }
        Err(_) => {
            let name = host.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: Purpose = Purpose::Content { strayed: false };
    const STRAYED: Purpose = Purpose::Content { strayed: true };
    const TOKEN: Purpose = Purpose::Token { strayed: false };
    const FOREIGN_TOKEN: Purpose = Purpose::Token { strayed: true };

    /// `known`, `anonymous` or `refused`.
    fn word(registry: &str, is_allowed_plain: bool, to: &str, purpose: Purpose) -> &'static str {
        let asked = Asked {
            origin: Origin::of(&Url::parse(registry).unwrap()).unwrap(),
            is_allowed_plain,
        };
        match judge(&asked, &Url::parse(to).unwrap(), purpose) {
            Verdict::Known => "known",
            Verdict::Anonymous => "anonymous",
            Verdict::Refused(_) => "refused",
        }
    }

    #[test]
    fn who_may_know_who_asks() {
        let secure = "https://a.example/";
        let local = "http://127.0.0.1:5000/";
        let plain = "http://a.example:5000/";
        for (registry, to, purpose, expected) in [
            // The registry itself, whatever the path.
            (secure, "https://a.example/v2/x", CONTENT, "known"),
            (secure, "https://a.example:443/v2/x", CONTENT, "known"),
            (secure, "https://A.example/v2/x", CONTENT, "known"),
            (secure, "https://a.example/", Purpose::Login, "known"),
            // Another port, host or scheme is another origin; so is the registry's own behind one.
            (secure, "https://a.example:444/", CONTENT, "anonymous"),
            (secure, "https://b.example/", CONTENT, "anonymous"),
            (secure, "https://a.example.b.example/", CONTENT, "anonymous"),
            (secure, "https://sub.a.example/", CONTENT, "anonymous"),
            (secure, "https://a.example/", STRAYED, "anonymous"),
            (secure, "https://b.example/", Purpose::Login, "refused"),
            // Nothing leaves TLS.
            (secure, "http://a.example/", CONTENT, "refused"),
            (secure, "http://b.example/", STRAYED, "refused"),
            (secure, "http://auth.example/token", TOKEN, "refused"),
            (secure, "http://127.0.0.1/token", TOKEN, "refused"),
            // A token's server is where the registry says, and nobody else.
            (secure, "https://auth.example/token", TOKEN, "known"),
            (
                secure,
                "https://auth.example/token",
                FOREIGN_TOKEN,
                "refused",
            ),
            (secure, "https://a.example/token", FOREIGN_TOKEN, "refused"),
            // What only this machine reaches is nothing to lead to from outside.
            (secure, "https://127.0.0.1/", CONTENT, "refused"),
            (secure, "https://localhost:8443/", CONTENT, "refused"),
            (secure, "https://x.localhost/", CONTENT, "refused"),
            (secure, "https://[::1]/", CONTENT, "refused"),
            (secure, "https://[::ffff:127.0.0.1]/", CONTENT, "refused"),
            (secure, "https://0.0.0.0/", CONTENT, "refused"),
            (secure, "https://127.0.0.1/token", TOKEN, "refused"),
            (plain, "http://169.254.169.254/latest", CONTENT, "refused"),
            (plain, "http://127.0.0.1:8080/", CONTENT, "refused"),
            // Nobody is between on loopback; another port is another server.
            (local, "http://127.0.0.1:5000/v2/x", CONTENT, "known"),
            (local, "http://127.0.0.1:5000/", Purpose::Login, "known"),
            (local, "http://127.0.0.1:5001/", CONTENT, "anonymous"),
            (local, "http://localhost:5000/", CONTENT, "anonymous"),
            (local, "https://127.0.0.1:5000/", CONTENT, "anonymous"),
            (local, "http://127.0.0.1:6000/token", TOKEN, "known"),
            (local, "https://auth.example/token", TOKEN, "known"),
            (local, "http://auth.example/token", TOKEN, "anonymous"),
            (
                local,
                "http://127.0.0.1:6000/token",
                FOREIGN_TOKEN,
                "refused",
            ),
            // Plain HTTP that nobody has allowed, as a mirror's: no password, and none for a server that it names.
            (plain, "http://a.example:5000/v2/x", CONTENT, "known"),
            (plain, "http://a.example:5000/", Purpose::Login, "refused"),
            (plain, "http://a.example:5000/token", TOKEN, "anonymous"),
            (plain, "https://auth.example/token", TOKEN, "anonymous"),
            // What is no address of a registry.
            (secure, "ftp://a.example/", CONTENT, "refused"),
            (secure, "file:///etc/passwd", TOKEN, "refused"),
            (secure, "https://u:p@a.example/", CONTENT, "refused"),
            (secure, "https://u@b.example/", CONTENT, "refused"),
        ] {
            assert_eq!(
                word(registry, false, to, purpose),
                expected,
                "{registry} {to} {purpose:?}"
            );
        }
        // Where plain HTTP was allowed for the registry, it is allowed for the registry alone.
        for (to, purpose, expected) in [
            ("http://a.example:5000/", Purpose::Login, "known"),
            ("http://a.example:5000/token", TOKEN, "known"),
            ("http://a.example:5001/token", TOKEN, "anonymous"),
            ("http://auth.example/token", TOKEN, "anonymous"),
            ("https://auth.example/token", TOKEN, "known"),
            ("http://b.example/", CONTENT, "anonymous"),
            ("http://b.example/", Purpose::Login, "refused"),
        ] {
            assert_eq!(word(plain, true, to, purpose), expected, "{to} {purpose:?}");
        }
    }
}
