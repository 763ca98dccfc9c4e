//! What a sandbox can reach.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest name that the name system has.
const NAME_BYTES: usize = 253;

/// The longest part of a name between two dots.
const LABEL_BYTES: usize = 63;

/// What a sandbox can reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Network {
    /// Nothing but itself. The default.
    #[default]
    None,
    /// Everything that the host can reach. In a namespace that is the host's own network, its loopback services among
    /// it; a micro-VM has an address of its own, and reaches the host's loopback services at `host.boxlite.internal`.
    Host,
    /// These hosts and no others: names such as `pypi.org`, all names below one such as `*.pypi.org`, IPv4 addresses,
    /// and networks such as `10.1.0.0/16`; a list of none is [`None`](Network::None). In micro-VMs only; `Unsupported`
    /// elsewhere.
    Hosts(Vec<String>),
}

impl Network {
    /// Refuses hosts that are none: an engine might take one that it does not understand for no limit.
    pub(crate) fn check(&self) -> Result<()> {
        let Network::Hosts(hosts) = self else {
            return Ok(());
        };
        match hosts.iter().find(|host| !is_host(host)) {
            Some(host) => Err(Error::invalid(format!(
                "{host:?} is no host that a sandbox can be allowed to reach; give a name such as pypi.org, *.pypi.org for \
                 all names below it, an IPv4 address, or a network such as 10.1.0.0/16"
            ))),
            None => Ok(()),
        }
    }

    /// What an engine is asked for: a list of no hosts is no network, not one without limits.
    pub(crate) fn effective(&self) -> Network {
        match self {
            Network::Hosts(hosts) if hosts.is_empty() => Network::None,
            other => other.clone(),
        }
    }
}

fn is_host(host: &str) -> bool {
    if let Some((address, bits)) = host.split_once('/') {
        return is_address(address)
            && bits.bytes().all(|byte| byte.is_ascii_digit())
            && bits.parse::<u8>().is_ok_and(|bits| bits <= 32);
    }
    is_address(host) || is_name(host.strip_prefix("*.").unwrap_or(host))
}

fn is_address(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok()
}

/// Whether it can stand between two dots of a name.
pub(super) fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_name(name: &str) -> bool {
    // An address with a number too large, or too few of them, is no name.
    let last_is_number = name
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= NAME_BYTES && name.split('.').all(is_label) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_addresses_and_networks() {
        let long = format!("{}.org", "a".repeat(63));
        for host in [
            "pypi.org",
            "*.pypi.org",
            "localhost",
            "a-1.2b.x3",
            "10.1.2.3",
            "10.1.0.0/16",
            "0.0.0.0/0",
            &long,
        ] {
            let network = Network::Hosts(vec!["a.org".into(), host.into()]);
            assert!(network.check().is_ok(), "{host}");
        }
        for host in [
            "",
            " ",
            "*",
            "*.",
            ".",
            "pypi.org.",
            "a..b",
            "*.*.org",
            "a.*.org",
            " pypi.org",
            "https://pypi.org",
            "pypi.org:443",
            "pypi.org/simple",
            "-a.org",
            "a-.org",
            "a_b.org",
            "ü.org",
            "a,b",
            "10.1.2.300",
            "10.1.2",
            "10.1.0.0/33",
            "10.1.0.0/",
            "10.1.0.0/+8",
            "*.10.1.2.3",
            "::1",
            "fe80::/10",
            &format!("a{long}"),
        ] {
            let network = Network::Hosts(vec!["a.org".into(), host.into()]);
            let error = network.check().unwrap_err();
            assert!(error.message().contains(&format!("{host:?}")), "{error:?}");
        }
    }

    #[test]
    fn a_list_of_no_hosts_is_no_network() {
        assert_eq!(Network::Hosts(Vec::new()).effective(), Network::None);
        let one = Network::Hosts(vec!["a.org".into()]);
        assert_eq!(one.effective(), one);
        assert_eq!(Network::Host.effective(), Network::Host);
    }
}
