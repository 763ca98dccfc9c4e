//! One registry's answers, bounded.

use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};

use crate::contents::Blob;
use crate::error::ImageError;
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, LARGEST_JSON, OCI_INDEX, OCI_MANIFEST};
use crate::registry::authorize::{self, Challenge};
use crate::registry::credentials::{self, Credentials};
use crate::registry::endpoint::Endpoint;
use crate::registry::failure::{Failure, read_limited};
use crate::registry::options::{Pace, RegistryOptions};
use crate::registry::origin::Purpose;
use crate::registry::transport::{Question, Reply, Transport};

/// A small document, from the first byte of the question to the last of the answer.
const DOCUMENT_TIME: Duration = Duration::from_secs(10);

/// What a failing registry's own words may take.
const LARGEST_COMPLAINT: u64 = 16 * 1024;

/// Nobody waits long for them either.
const COMPLAINT_TIME: Duration = Duration::from_secs(5);

/// Between two tries, where the registry does not say.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The longest that a registry is believed to be worth waiting for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A registry, or a mirror of one, and one repository of it.
#[derive(Debug)]
pub(crate) struct Remote {
    transport: Transport,
    endpoint: Endpoint,
    repository: String,
    options: RegistryOptions,
    /// What it accepted last.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A blob's bytes, and where they begin.
pub(crate) struct Content {
    pub(crate) response: Response,
    pub(crate) offset: u64,
}

impl Remote {
    pub(crate) fn new(
        endpoint: Endpoint,
        repository: &str,
        options: &RegistryOptions,
    ) -> Result<Self, ImageError> {
        Ok(Self {
            transport: Transport::new(&endpoint, options)?,
            endpoint,
            repository: repository.to_owned(),
            options: options.clone(),
            authorization: Mutex::new(None),
        })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn pace(&self) -> Pace {
        self.options.pace
    }

    /// The index or manifest behind a tag or digest.
    pub(crate) async fn manifest(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ");
        let url = self.url(&format!("manifests/{name}"))?;
        let question = Question {
            accept: &accept,
            offset: 0,
            time: Some(DOCUMENT_TIME),
        };
        let response = self.get(&url, &question).await?;
        read_limited(response, LARGEST_JSON).await
    }

    /// A blob's bytes, from `offset` on if the registry can do that, otherwise from the start.
    pub(crate) async fn blob(&self, blob: Blob, offset: u64) -> Result<Content, Failure> {
        let url = self.url(&format!("blobs/{}", blob.digest))?;
        let question = Question {
            accept: "*/*",
            offset,
            time: None,
        };
        let response = self.get(&url, &question).await?;
        let begins = match response.status() {
            StatusCode::PARTIAL_CONTENT => range_start(&response),
            _ => Some(0),
        };
        match begins {
            Some(begins) if begins == offset || begins == 0 => {
                self.check_length(&response, blob, begins)?;
                Ok(Content {
                    response,
                    offset: begins,
                })
            }
            _ => Err(Failure::Broken(
                format!(
                    "{} answers with another part than it was asked for",
                    self.endpoint.shown()
                )
                .into(),
            )),
        }
    }

    /// What is longer or shorter than its manifest says is not worth its first byte.
    fn check_length(&self, response: &Response, blob: Blob, begins: u64) -> Result<(), Failure> {
        let expected = blob.size - begins.min(blob.size);
        match response.content_length() {
            Some(length) if length != expected => {
                let more = if length > expected { "more" } else { "fewer" };
                Err(Failure::Unusable(ImageError::corrupt(format!(
                    "{} has {more} bytes of {} than the {} that its manifest states",
                    self.endpoint.shown(),
                    blob.digest,
                    blob.size
                ))))
            }
            _ => Ok(()),
        }
    }

    fn url(&self, rest: &str) -> Result<Url, Failure> {
        let path = format!("v2/{}/{rest}", self.repository);
        self.endpoint.base.join(&path).map_err(|error| {
            Failure::Unreachable(format!("{} is no address: {error}", self.endpoint.shown()).into())
        })
    }

    async fn get(&self, url: &Url, question: &Question<'_>) -> Result<Response, Failure> {
        let (mut authorized, mut retried) = (false, false);
        loop {
            let authorization = blink_host::lock(&self.authorization).clone();
            let Reply { response, strayed } =
                self.transport.content(url, question, authorization).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && strayed {
                return Err(Failure::Denied(format!(
                    "{} leads to {}, which asks for a login; credentials are for the registry alone",
                    self.endpoint.shown(),
                    response.url().host_str().unwrap_or_default()
                ).into()));
            }
            if status == StatusCode::UNAUTHORIZED && !authorized {
                authorized = true;
                self.authorize(&response).await?;
            } else if (status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS)
                && !retried
            {
                retried = true;
                tokio::time::sleep(pause(&response)).await;
            } else {
                return self.checked(response).await;
            }
        }
    }

    async fn checked(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let here = self.endpoint.shown();
        let content = read_limited(response, LARGEST_COMPLAINT);
        let content = tokio::time::timeout(COMPLAINT_TIME, content).await;
        let content = content.unwrap_or(Ok(Vec::new())).unwrap_or_default();
        let said = complaint(&content);
        Err(match status {
            StatusCode::NOT_FOUND => Failure::Missing(format!("{here} does not have it{said}").into()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Denied(format!(
                "{here} does not give it to you{said}; if it exists, log in ('docker login' keeps the credentials \
                 that Blink uses too)"
            ).into()),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                Failure::Broken(format!("{here} has fewer bytes than were downloaded").into())
            }
            _ => Failure::Unreachable(format!("{here} answers with {status}{said}").into()),
        })
    }

    async fn authorize(&self, response: &Response) -> Result<(), Failure> {
        let here = self.endpoint.shown();
        let Some(challenge) = Challenge::find(response.headers()) else {
            return Err(Failure::Denied(
                format!("{here} asks for a way to log in that Blink does not know").into(),
            ));
        };
        let (purpose, server) = match &challenge {
            Challenge::Basic => (Purpose::Login, response.url().clone()),
            // Only what has not strayed is authorized.
            Challenge::Bearer { realm, .. } => (
                Purpose::Token { strayed: false },
                authorize::address(realm)?,
            ),
        };
        let is_known = self.transport.judged(&server, purpose)?;
        let found = match is_known {
            true => {
                let (account, repository) = (&self.endpoint.account, &self.repository);
                credentials::find(account, repository, &self.options).await
            }
            false => Ok(None),
        };
        let (credentials, trouble) = match found {
            Ok(credentials) => (credentials, None),
            Err(trouble) => (None, Some(trouble)),
        };
        let answer = match challenge {
            Challenge::Basic => match &credentials {
                Some(Credentials::Password(login) | Credentials::Refresh(login)) => {
                    authorize::basic(&login.user, &login.password).ok_or_else(|| {
                        Failure::Denied(format!("the credentials for {here} are no text").into())
                    })
                }
                None => Err(Failure::Denied(format!(
                    "{here} asks for a user and a password; 'docker login' keeps the credentials that Blink uses too"
                ).into())),
            },
            Challenge::Bearer { realm, service } => {
                let from = (realm.as_str(), service.as_deref());
                let credentials = credentials.as_ref();
                authorize::token(&self.transport, from, &self.repository, credentials).await
            }
        };
        match (answer, trouble) {
            (Ok(value), _) => {
                *blink_host::lock(&self.authorization) = Some(value);
                Ok(())
            }
            (Err(Failure::Denied(message)), Some(trouble)) => {
                Err(Failure::Denied(format!("{message} ({trouble})").into()))
            }
            (Err(failure), _) => Err(failure),
        }
    }
}

fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    start.parse().ok()
}

fn pause(response: &Response) -> Duration {
    let asked = response.headers().get(RETRY_AFTER);
    asked
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map_or(RETRY_PAUSE, Duration::from_secs)
        .min(LONGEST_PAUSE)
}

/// A registry's own words, on one line, behind a comma.
fn complaint(content: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Complaints {
        errors: Vec<Complaint>,
    }
    #[derive(serde::Deserialize)]
    struct Complaint {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Complaints { errors }) = serde_json::from_slice(content) else {
        return String::new();
    };
    let Some(first) = errors.first() else {
        return String::new();
    };
    let words = match first.message.is_empty() {
        true => &first.code,
        false => &first.message,
    };
    let words: String = words
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    format!(", saying '{words}'")
}
