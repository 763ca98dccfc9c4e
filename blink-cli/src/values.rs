//! The values of options.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use blink_core::{Mount, PublishedPort};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;

/// A time: a number, of seconds unless `ms`, `s`, `m` or `h` stands behind it.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    // The longest first: "ms" ends with "s".
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, seconds) = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))
        .unwrap_or((text, 1.0));
    let wrong = || "give a time above 0, such as 2, 500ms, 1.5s, 1m or 1h".to_owned();
    // Rust would also read "inf", "nan" and "1e3".
    if !number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(wrong());
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let timeout = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    if timeout.is_zero() {
        return Err(wrong());
    }
    Ok(timeout)
}

/// A number of processors.
pub(crate) fn cpus(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cpus) if cpus.is_finite() && cpus > 0.0 => Ok(cpus),
        _ => Err("give a number of processors above 0, such as 2 or 0.5".to_owned()),
    }
}

/// A size in MiB.
pub(crate) fn mib(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(mib) if mib > 0 => Ok(mib),
        _ => Err("give a whole number of MiB above 0, such as 512".to_owned()),
    }
}

/// A label.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give a name and a value, such as project=demo".to_owned()),
    }
}

/// The signals of Linux in the order of their numbers, from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal: `TERM`, `SIGTERM` or 15.
pub(crate) fn signal(text: &str) -> Result<u8, String> {
    const LAST: u8 = 64;
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = (1..).zip(SIGNALS).find(|(_, known)| *known == name);
    named
        .map(|(number, _)| number)
        .or_else(|| {
            name.parse()
                .ok()
                .filter(|number| (1..=LAST).contains(number))
        })
        .ok_or_else(|| "give a signal, such as TERM, SIGTERM or 15".to_owned())
}

/// A registry and the address of a mirror of it.
pub(crate) fn mirror(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((registry, url)) if !registry.is_empty() && url.contains("://") => {
            Ok((registry.to_owned(), url.to_owned()))
        }
        _ => Err(
            "give a registry and an address, such as docker.io=https://mirror.example".to_owned(),
        ),
    }
}

/// A port of this machine that leads to one of a sandbox: `HOST_PORT:PORT`, or `HOST_ADDRESS:HOST_PORT:PORT` with an
/// IPv6 address in brackets.
pub(crate) fn published_port(text: &str) -> Result<PublishedPort, String> {
    const FORMS: &str = "give a port of this machine and one of the sandbox, such as 8080:80, or 0:80 for any that is \
                         free, or with an address of this machine 0.0.0.0:8080:80";
    let (host, guest) = text.rsplit_once(':').ok_or(FORMS)?;
    let (address, host) = match host.rsplit_once(':') {
        Some((address, port)) => (Some(address), port),
        None => (None, host),
    };
    let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        false => Err(FORMS.to_owned()),
        true if text.is_empty() => Err(FORMS.to_owned()),
        true => text
            .parse::<u16>()
            .map_err(|_| format!("{text} is no port; they go up to 65535")),
    };
    let (host, guest) = (port(host)?, port(guest)?);
    if guest == 0 {
        return Err("name the port that the program in the sandbox listens on; 0 is none".into());
    }
    let published = PublishedPort::new(host, guest);
    match address {
        Some(address) => Ok(published.at(ip_address(address)?)),
        None => Ok(published),
    }
}

fn ip_address(text: &str) -> Result<IpAddr, String> {
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let parsed = match in_brackets {
        Some(text) => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
    };
    parsed.ok_or_else(|| {
        format!("{text:?} is no IP address of this machine; give one such as 127.0.0.1, 0.0.0.0 or [::1]")
    })
}

/// A mount: `HOST:GUEST`, `HOST:GUEST:ro` or `HOST:GUEST:rw`. Paths need not be text.
#[derive(Debug, Clone)]
pub(crate) struct MountParser;

impl TypedValueParser for MountParser {
    type Value = Mount;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Mount, clap::Error> {
        mount(value).map_err(|why| {
            let shown = value.to_string_lossy();
            clap::Error::raw(
                ErrorKind::ValueValidation,
                format!("invalid value '{shown}' for '--mount <HOST:GUEST[:ro]>': {why}\n"),
            )
            .with_cmd(command)
        })
    }
}

fn mount(value: &OsStr) -> Result<Mount, String> {
    let bytes = value.as_bytes();
    let (paths, read_only) = match (bytes.strip_suffix(b":ro"), bytes.strip_suffix(b":rw")) {
        (Some(paths), _) => (paths, true),
        (None, Some(paths)) => (paths, false),
        (None, None) => (bytes, false),
    };
    // The last one, so that a path of this machine may have a colon in it.
    let middle = paths.windows(2).rposition(|pair| pair == b":/").ok_or(
        "name a path of this machine and, behind a colon, one of the sandbox that begins with /",
    )?;
    let (host, guest) = (&paths[..middle], &paths[middle + 1..]);
    if host.is_empty() {
        return Err("the path of this machine is missing".to_owned());
    }
    if let Some(colon) = guest.iter().position(|byte| *byte == b':') {
        let option = String::from_utf8_lossy(&guest[colon + 1..]).into_owned();
        return Err(format!("{option:?} is no way to mount; ro and rw are"));
    }
    let host = std::path::absolute(Path::new(OsStr::from_bytes(host)))
        .map_err(|error| format!("the path of this machine cannot be used: {error}"))?;
    let mount = Mount::new(host, OsStr::from_bytes(guest));
    Ok(if read_only { mount.read_only() } else { mount })
}

/// Environment variables: `NAME=VALUE`, or `NAME` for this process's own. One that this process does not have is not
/// set, as other tools of the kind do.
pub(crate) fn environment(
    settings: Vec<OsString>,
    own: impl Fn(&OsStr) -> Option<OsString>,
) -> Vec<(OsString, OsString)> {
    let split = |setting: OsString| {
        let bytes = setting.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            Some(middle) => Some((
                OsStr::from_bytes(&bytes[..middle]).to_owned(),
                OsStr::from_bytes(&bytes[middle + 1..]).to_owned(),
            )),
            None if setting.is_empty() => Some((setting, OsString::new())),
            None => own(&setting).map(|value| (setting, value)),
        }
    };
    settings.into_iter().filter_map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let good = [
            ("2", 2000),
            ("500ms", 500),
            ("2s", 2000),
            ("1m", 60_000),
            ("1h", 3_600_000),
            ("1.5", 1500),
            (".5s", 500),
            ("0.25m", 15_000),
        ];
        for (text, millis) in good {
            assert_eq!(timeout(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "0",
            "0s",
            "-1",
            "-1s",
            "s",
            ".",
            "1.2.3",
            "inf",
            "nan",
            "1e3",
            "1d",
            "1 s",
            "+1",
            "two",
            "99999999999999999999999999999999",
        ] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals() {
        for (text, number) in [
            ("TERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("SYS", 31),
            ("HUP", 1),
            ("64", 64),
        ] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "SIG", "NO", "300"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts() {
        let parse = |text: &str| mount(OsStr::new(text));
        assert_eq!(parse("/a:/b"), Ok(Mount::new("/a", "/b")));
        assert_eq!(parse("/a:/b:rw"), Ok(Mount::new("/a", "/b")));
        assert_eq!(parse("/a:/b:ro"), Ok(Mount::new("/a", "/b").read_only()));
        assert_eq!(parse("/a:c:/b"), Ok(Mount::new("/a:c", "/b")));
        let here = std::env::current_dir().unwrap();
        assert_eq!(parse("x:/b"), Ok(Mount::new(here.join("x"), "/b")));
        for text in ["", "/a", "/a:", ":/b", "/a:b", "/a:/b:sideways", "/a:ro"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn published_ports() {
        let good = [
            ("8080:80", PublishedPort::new(8080, 80)),
            ("0:65535", PublishedPort::new(0, 65535)),
            ("127.0.0.1:1:2", PublishedPort::new(1, 2)),
            (
                "0.0.0.0:1:2",
                PublishedPort::new(1, 2).at([0, 0, 0, 0].into()),
            ),
            (
                "[::1]:0:2",
                PublishedPort::new(0, 2).at(Ipv6Addr::LOCALHOST.into()),
            ),
        ];
        for (text, port) in good {
            assert_eq!(published_port(text), Ok(port), "{text}");
        }
        for text in [
            "",
            "80",
            ":",
            "80:",
            ":80",
            "80:0",
            "80:65536",
            "80:+1",
            "80: 80",
            "80:80/tcp",
            "::1:80:80",
            "localhost:80:80",
            ":80:80",
            "1.2.3:80:80",
            "[127.0.0.1]:80:80",
            "80-90:80-90",
        ] {
            assert!(published_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables() {
        let own = |name: &OsStr| (name == "HOME").then(|| OsString::from("/h"));
        let settings = ["A=1", "B=", "C=x=y", "HOME", "NOT_SET", "=z"].map(OsString::from);
        let expected = [
            ("A", "1"),
            ("B", ""),
            ("C", "x=y"),
            ("HOME", "/h"),
            ("", "z"),
        ]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        assert_eq!(environment(settings.into(), own), expected);
    }
}
