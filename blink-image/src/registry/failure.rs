//! Why a registry did not give what it was asked for.

use std::error::Error;

use reqwest::{Response, Url};

use crate::error::ImageError;

/// Why one registry did not give what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It has no such thing.
    Missing(String),
    /// It wants to know who asks, or does not want to give it to them.
    Denied(String),
    /// There is no connection, or what is there cannot answer.
    Unreachable(String),
    /// It is another protocol, where that may be.
    NotEncrypted(String),
    /// It began, and broke off.
    Broken(String),
    /// It gives so little at a time that nobody would live to see the end.
    Slow(String),
    /// It gave something that is not what it should be, or this machine cannot keep it.
    Unusable(ImageError),
}

impl Failure {
    /// Whether the registry may give it another time.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Broken(_) | Self::Slow(_))
    }

    /// A connection that failed, with the reason beneath all wrappings.
    pub(crate) fn connection(url: &Url, error: &reqwest::Error) -> Self {
        let host = url.host_str().unwrap_or_default();
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let reason = innermost(error);
        let message = match error.is_timeout() {
            true => format!("{host}{port} does not answer"),
            false => format!("no connection to {host}{port}: {reason}"),
        };
        if reason.contains("certificate") {
            return Self::Unreachable(format!(
                "{message}; where its authority is your own, name it with --registry-ca"
            ));
        }
        // What a server says that takes the beginning of TLS for a request, or hangs up on it.
        let is_puzzled = ["corrupt message", "eof", "reset"];
        match error.is_connect() && is_puzzled.iter().any(|word| reason.contains(word)) {
            true => Self::NotEncrypted(format!(
                "{message}; if it speaks nothing but plain HTTP, '--insecure-registry {host}{port}' allows that"
            )),
            false => Self::Unreachable(message),
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
                let reason = innermost(&error);
                return Err(Failure::Broken(format!(
                    "{host} broke off its answer: {reason}"
                )));
            }
        }
    }
}
