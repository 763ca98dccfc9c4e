//! Requests, each bounded in time. Redirections are followed here and not by the HTTP client, since each step is judged
//! before it is made ([`judge`]).

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, RequestBuilder, Response, StatusCode, Url};
use tokio::time::Instant;

use crate::error::{ImageError, ImageErrorKind, shown};
use crate::registry::endpoint::Endpoint;
use crate::registry::failure::{Failure, innermost};
use crate::registry::options::RegistryOptions;
use crate::registry::origin::{Asked, Origin, Purpose, Verdict, judge};

/// Whoever is there answers sooner, and whoever waits wants to know soon that nobody is.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Nothing at all for so long is the end of a download; a registry that has to fetch a layer itself is slow to begin.
const SILENT_TIME: Duration = Duration::from_secs(30);

/// A token, with all redirections to it.
const TOKEN_TIME: Duration = Duration::from_secs(10);

/// As many as browsers and docker follow, or fewer.
const MOST_REDIRECTIONS: usize = 10;

/// The way to one registry, and to where it leads.
#[derive(Debug)]
pub(crate) struct Transport {
    http: Client,
    asked: Asked,
    /// The registry, in messages.
    shown: String,
}

/// What is wanted of an address.
pub(crate) struct Question<'a> {
    pub(crate) accept: &'a str,
    /// The first byte that is wanted.
    pub(crate) offset: u64,
    /// How long it may take to the end of the answer, with all redirections to it.
    pub(crate) time: Option<Duration>,
}

/// The answer, which is no redirection any more.
pub(crate) struct Reply {
    pub(crate) response: Response,
    /// A redirection has led to another origin on the way.
    pub(crate) strayed: bool,
}

impl Transport {
    pub(crate) fn new(endpoint: &Endpoint, options: &RegistryOptions) -> Result<Self, ImageError> {
        let origin = Origin::of(&endpoint.base).ok_or_else(|| {
            ImageError::invalid(format!("{} is no address of a registry", endpoint.shown()))
        })?;
        Ok(Self {
            http: http(endpoint, options)?,
            asked: Asked {
                origin,
                is_allowed_plain: endpoint.is_allowed_plain,
            },
            shown: endpoint.shown(),
        })
    }

    /// Whether an address may know who asks.
    ///
    /// # Errors
    /// Where it is not asked at all.
    pub(crate) fn judged(&self, to: &Url, purpose: Purpose) -> Result<bool, Failure> {
        match judge(&self.asked, to, purpose) {
            Verdict::Known => Ok(true),
            Verdict::Anonymous => Ok(false),
            Verdict::Refused(why) => {
                let to = Origin::of(to).map_or_else(|| to.scheme().to_owned(), |to| to.to_string());
                Err(Failure::Denied(
                    format!(
                        "{} leads to {to}, which is not asked, since {why}",
                        self.shown
                    )
                    .into(),
                ))
            }
        }
    }

    /// Asks the registry, and whatever it leads to. `authorization` is told to the registry alone.
    pub(crate) async fn content(
        &self,
        url: &Url,
        question: &Question<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, Failure> {
        let deadline = question.time.map(|time| Instant::now() + time);
        let (mut at, mut strayed) = (url.clone(), false);
        for _ in 0..=MOST_REDIRECTIONS {
            let is_known = self.judged(&at, Purpose::Content { strayed })?;
            strayed |= !is_known;
            let mut request = self.http.get(at.clone()).header(ACCEPT, question.accept);
            if question.offset > 0 {
                request = request.header(RANGE, format!("bytes={}-", question.offset));
            }
            if is_known && let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let response = send(request, &at, deadline).await?;
            match redirection(&response)? {
                None => return Ok(Reply { response, strayed }),
                Some(next) => at = next,
            }
        }
        Err(self.endless())
    }

    /// Asks a server for a token. What proves who asks, `authorization` or the `form`, stays with that server.
    pub(crate) async fn token(
        &self,
        url: Url,
        authorization: Option<HeaderValue>,
        form: Option<String>,
    ) -> Result<Response, Failure> {
        let deadline = Some(Instant::now() + TOKEN_TIME);
        let is_known = authorization.is_some() || form.is_some();
        let mut at = url;
        for _ in 0..=MOST_REDIRECTIONS {
            let mut request = match &form {
                Some(form) => {
                    let kind = "application/x-www-form-urlencoded";
                    let request = self.http.post(at.clone()).header(CONTENT_TYPE, kind);
                    request.body(form.clone())
                }
                None => self.http.get(at.clone()),
            };
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let response = send(request, &at, deadline).await?;
            let Some(next) = redirection(&response)? else {
                return Ok(response);
            };
            // What a redirection that is no question any more would make of a form is no token.
            let keeps_form = matches!(
                response.status(),
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
            );
            let is_same = Origin::of(&next) == Origin::of(&at);
            if (is_known && !is_same) || (form.is_some() && !keeps_form) {
                return Err(Failure::Denied(
                    format!(
                        "{} sends a login on to another place, which is not told it",
                        at.host_str().unwrap_or_default()
                    )
                    .into(),
                ));
            }
            self.judged(&next, Purpose::Content { strayed: true })?;
            at = next;
        }
        Err(self.endless())
    }

    fn endless(&self) -> Failure {
        Failure::Unreachable(
            format!(
                "{} leads from one place to the next, more than {MOST_REDIRECTIONS} times",
                self.shown
            )
            .into(),
        )
    }
}

async fn send(
    mut request: RequestBuilder,
    url: &Url,
    deadline: Option<Instant>,
) -> Result<Response, Failure> {
    if let Some(deadline) = deadline {
        request = request.timeout(deadline.saturating_duration_since(Instant::now()));
    }
    // An answer's beginning is small, and comes at once.
    match tokio::time::timeout(SILENT_TIME, request.send()).await {
        Ok(sent) => sent.map_err(|error| Failure::connection(url, error)),
        Err(_) => {
            let host = url.host_str().unwrap_or_default();
            Err(Failure::Unreachable(
                format!("{host} does not answer").into(),
            ))
        }
    }
}

/// Where a response sends whoever asked.
fn redirection(response: &Response) -> Result<Option<Url>, Failure> {
    let is_redirection = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if !is_redirection {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION);
    let next = location
        .and_then(|value| value.to_str().ok())
        .and_then(|text| response.url().join(text).ok());
    next.map(Some).ok_or_else(|| {
        Failure::Unreachable(
            format!(
                "{} answers with {}, and does not say where to",
                response.url().host_str().unwrap_or_default(),
                response.status()
            )
            .into(),
        )
    })
}

fn http(endpoint: &Endpoint, options: &RegistryOptions) -> Result<Client, ImageError> {
    let mut builder = Client::builder()
        .user_agent(concat!("blink/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIME)
        .read_timeout(SILENT_TIME)
        // Each step is judged first.
        .redirect(Policy::none())
        // What begins encrypted stays so, whatever is judged.
        .https_only(endpoint.is_encrypted());
    if endpoint.is_here() {
        builder = builder.no_proxy();
    }
    let mut certificates = Vec::new();
    for path in &options.ca_files {
        let unreadable = |why: &dyn std::fmt::Display| {
            ImageError::invalid(format!(
                "the certificate authorities in '{}' cannot be used: {why}",
                shown(path)
            ))
        };
        let content = std::fs::read(path).map_err(|error| unreadable(&error))?;
        let found = Certificate::from_pem_bundle(&content).map_err(|error| unreadable(&error))?;
        if found.is_empty() {
            return Err(unreadable(&"there is no certificate in it"));
        }
        certificates.extend(found);
    }
    builder = match endpoint.is_encrypted() {
        true => builder.tls_certs_merge(certificates),
        // A machine without any authority can still talk over plain HTTP.
        false => builder.tls_certs_only(certificates),
    };
    builder.build().map_err(|error| {
        ImageError::new(
            ImageErrorKind::ImageUnavailable,
            format!(
                "HTTPS cannot be set up: {}; Debian's package ca-certificates has what is mostly missing, and \
                 --registry-ca names a registry's own authority",
                innermost(&error)
            ),
        )
    })
}
