//! Why a registry did not give what it was asked for.

use std::error::Error;
use std::fmt;

use reqwest::{Response, Url};

use crate::error::ImageError;

/// What went wrong, in words, with the cause where there is one.
#[derive(Debug)]
pub(crate) struct Reason {
    message: String,
    source: Option<reqwest::Error>,
}

impl<T: Into<String>> From<T> for Reason {
    fn from(message: T) -> Reason {
        Reason {
            message: message.into(),
            source: None,
        }
    }
}

impl Reason {
    /// Because of a failed request. Its address is left out, which may have a secret in it.
    pub(crate) fn because(message: String, error: reqwest::Error) -> Reason {
        Reason {
            message,
            source: Some(error.without_url()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Reason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Why one registry did not give what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It has no such thing.
    Missing(Reason),
    /// It wants to know who asks, or does not want to give it to them.
    Denied(Reason),
    /// There is no connection, or what is there cannot answer.
    Unreachable(Reason),
    /// It is another protocol, where that may be.
    NotEncrypted(Reason),
    /// It began, and broke off.
    Broken(Reason),
    /// It gives so little at a time that nobody would live to see the end.
    Slow(Reason),
    /// It gave something that is not what it should be, or this machine cannot keep it.
    Unusable(ImageError),
}

impl Failure {
    /// Whether the registry may give it another time.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Broken(_) | Self::Slow(_))
    }

    /// A connection that failed, with the reason beneath all wrappings.
    pub(crate) fn connection(url: &Url, error: reqwest::Error) -> Self {
        let host = url.host_str().unwrap_or_default();
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let reason = innermost(&error);
        let message = match error.is_timeout() {
            true => format!("{host}{port} does not answer"),
            false => format!("no connection to {host}{port}: {reason}"),
        };
        if reason.contains("certificate") {
            let message =
                format!("{message}; where its authority is your own, name it with --registry-ca");
            return Self::Unreachable(Reason::because(message, error));
        }
        // What a server says that takes the beginning of TLS for a request, or hangs up on it.
        let is_puzzled = ["corrupt message", "eof", "reset"];
        match error.is_connect() && is_puzzled.iter().any(|word| reason.contains(word)) {
            true => Self::NotEncrypted(Reason::because(
                format!(
                    "{message}; if it speaks nothing but plain HTTP, '--insecure-registry {host}{port}' allows that"
                ),
                error,
            )),
            false => Self::Unreachable(Reason::because(message, error)),
        }
    }
}

pub(crate) fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Reads an answer to its end, or to where it is too long.
pub(crate) async fn read_limited(mut response: Response, limit: u64) -> Result<Vec<u8>, Failure> {
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let mut content = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(content),
            Ok(Some(chunk)) if (content.len() + chunk.len()) as u64 <= limit => {
                content.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => {
                return Err(Failure::Unusable(ImageError::corrupt(format!(
                    "{host} answers with more than the {limit} bytes accepted"
                ))));
            }
            Err(error) => {
                let message = format!("{host} broke off its answer: {}", innermost(&error));
                return Err(Failure::Broken(Reason::because(message, error)));
            }
        }
    }
}
