//! What a registry asks for before it answers, and getting it: a password, or a token from another server.

use http_auth::ChallengeParser;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use crate::registry::credentials::Credentials;
use crate::registry::failure::{Failure, read_limited};
use crate::registry::transport::Transport;

/// No token is larger.
const LARGEST_TOKEN_ANSWER: u64 = 1024 * 1024;

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

impl Challenge {
    /// The first that can be met.
    pub(crate) fn find(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).into_iter();
        let mut all = Vec::new();
        for text in texts.filter_map(|value| value.to_str().ok()) {
            // What cannot be understood ends the list.
            for challenge in ChallengeParser::new(text).map_while(Result::ok) {
                let parameter = |name: &str| {
                    let found = challenge
                        .params
                        .iter()
                        .find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    all.extend(parameter("realm").map(|realm| Self::Bearer {
                        realm,
                        service: parameter("service"),
                    }));
                } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                    all.push(Self::Basic);
                }
            }
        }
        let bearer = all.iter().position(|one| *one != Self::Basic);
        bearer
            .or_else(|| (!all.is_empty()).then_some(0))
            .map(|index| all.swap_remove(index))
    }
}

/// The value for the header `Authorization`.
pub(crate) fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    secret(&format!("Basic {encoded}"))
}

/// The address of the server that a challenge names.
pub(crate) fn address(realm: &str) -> Result<Url, Failure> {
    let shown: String = realm
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    Url::parse(realm).map_err(|_| {
        Failure::Denied(
            format!("it names '{shown}' to get a token from, which is no address").into(),
        )
    })
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Gets a token to read `repository` with; nothing else is asked for, whatever scope a challenge names.
///
/// What proves who asks stays with the server that the registry named: a redirection of that to another one is not
/// followed with it.
pub(crate) async fn token(
    transport: &Transport,
    (realm, service): (&str, Option<&str>),
    repository: &str,
    credentials: Option<&Credentials>,
) -> Result<HeaderValue, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let shown: String = realm
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    let mut url = address(realm)?;
    let scope = format!("repository:{repository}:pull");
    let mut parameters = vec![("scope", scope.as_str())];
    parameters.extend(service.map(|service| ("service", service)));
    let mut form = None;
    let mut authorization = None;
    match credentials {
        Some(Credentials::Refresh(login)) => {
            parameters.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "blink"),
                ("refresh_token", &login.password),
            ]);
            form = Some(encoded(&url, &parameters));
        }
        Some(Credentials::Password(login)) => {
            url.query_pairs_mut().extend_pairs(&parameters);
            authorization = basic(&login.user, &login.password);
        }
        None => {
            url.query_pairs_mut().extend_pairs(&parameters);
        }
    }
    let response = transport.token(url, authorization, form).await?;
    let status = response.status();
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(Failure::Denied(match credentials {
                Some(_) => format!("{shown} refuses the credentials").into(),
                None => format!("{shown} gives no token without credentials").into(),
            }));
        }
        _ => {
            return Err(Failure::Unreachable(
                format!("{shown} answers with {status}").into(),
            ));
        }
    }
    let content = read_limited(response, LARGEST_TOKEN_ANSWER).await?;
    serde_json::from_slice::<Answer>(&content)
        .ok()
        .and_then(|answer| answer.token.or(answer.access_token))
        .and_then(|token| secret(&format!("Bearer {token}")))
        .ok_or_else(|| Failure::Unreachable(format!("{shown} answers with no token").into()))
}

/// A form's body, which is written as an address's query is.
fn encoded(url: &Url, parameters: &[(&str, &str)]) -> String {
    let mut form = url.clone();
    form.set_query(None);
    form.query_pairs_mut().extend_pairs(parameters);
    form.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
        }
        Challenge::find(&headers)
    }

    #[test]
    fn challenges() {
        let bearer = |service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: service.map(Into::into),
            })
        };
        let text =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="x""#;
        assert_eq!(find(&[text]), bearer(Some("registry.example")));
        assert_eq!(
            find(&[
                "Basic realm=\"x\"",
                "bearer realm=\"https://auth.example/token\""
            ]),
            bearer(None)
        );
        assert_eq!(find(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        for text in [
            "",
            "Digest realm=\"x\"",
            "Bearer service=\"x\"",
            "\u{e4}",
            "Bearer ,=,",
        ] {
            assert_eq!(find(&[text]), None, "{text}");
        }
    }
}
