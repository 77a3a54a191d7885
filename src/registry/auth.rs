//! Logging in: challenges of registries, and the tokens they want.
//!
//! [`super::session::Session`] asks for the `Authorization` of each request and reports each 401.
//!
//! **Invariant:** a password goes to the registry it is for, or to the login host that [`super::trust::Trust`] pairs with it,
//! over TLS unless that host is listed as insecure. Tokens go to the registry only.

use super::{
    client::{Client, authority, full},
    credentials::{Credentials, Secret},
    error::{PushError, plain, words},
    reference::Repository,
    refusal::refusal,
    trust::UNLESS_PAIRED,
};
use crate::api::condition::reason;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use serde::Deserialize;
use std::time::{Duration, Instant};
use url::Url;

/// Largest answer of a login host.
const MAX_TOKEN: usize = 256 * 1024;
/// How long a token lives if the login host does not say.
const DEFAULT_LIFE: u64 = 60;
/// How long a password that changes is used before it is read again.
const CHANGING_LIFE: Duration = Duration::from_secs(60);

/// What a 401 asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from another address.
    Bearer {
        /// Where it comes from.
        realm: String,
        /// Whom it is for.
        service: Option<String>,
        /// Why the last one did not do.
        error: Option<String>,
    },
}

/// What goes with each request, once a registry has said what it wants.
pub(super) enum Login {
    /// Nothing was asked yet.
    Unasked,
    /// User name and password; what was exchanged for them ends at a time.
    Basic { header: HeaderValue, renew_at: Option<Instant> },
    /// A token, until it is time for the next.
    Bearer { header: HeaderValue, renew_at: Instant, challenge: Challenge },
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Who logs in where.
pub(super) struct Account<'a> {
    pub(super) client: &'a Client,
    pub(super) repository: &'a Repository,
    pub(super) credentials: Option<&'a Credentials>,
    /// Other repositories of the registry to read from.
    pub(super) sources: &'a [String],
    /// What a login was exchanged for.
    pub(super) issued: Option<Secret<String>>,
}

impl Account<'_> {
    /// Answers a challenge.
    pub(super) async fn log_in(&self, challenge: Challenge) -> Result<Login, PushError> {
        match &challenge {
            Challenge::Basic => {
                let credentials = self.credentials.ok_or_else(|| self.refused(StatusCode::UNAUTHORIZED, ""))?;
                let (basic, life) = self.basic(credentials).await?;
                Ok(Login::Basic { header: sensitive(basic.expose())?, renew_at: life.map(renewal) })
            }
            Challenge::Bearer { realm, service, .. } => {
                let token = match self.fetch(realm, service.as_deref(), self.sources).await {
                    // Some give nothing to who asks for too much. Without sources nothing is mounted, that is all.
                    Err(error) if error.reason == reason::REGISTRY_FORBIDDEN && !self.sources.is_empty() => {
                        self.fetch(realm, service.as_deref(), &[]).await?
                    }
                    token => token?,
                };
                let life = token.expires_in.unwrap_or(DEFAULT_LIFE).clamp(DEFAULT_LIFE, 24 * 3600);
                let text = token.token.or(token.access_token).unwrap_or_default();
                let header = sensitive(&format!("Bearer {text}"))?;
                Ok(Login::Bearer { header, renew_at: renewal(Duration::from_secs(life)), challenge })
            }
        }
    }

    /// User name and password as a header, and how long they last if they were exchanged for something.
    async fn basic(&self, credentials: &Credentials) -> Result<(Secret<String>, Option<Duration>), PushError> {
        if let Some(read) = credentials.basic_again() {
            let basic = read.map_err(|why| PushError::new(reason::REGISTRY_UNAUTHORIZED, why))?;
            return Ok((basic, Some(CHANGING_LIFE)));
        }
        let Some(keys) = credentials.aws_keys() else { return Ok((credentials.basic(), None)) };
        if keys.registry != self.repository.host {
            let text = format!("the aws properties are for {}, not for {}", keys.registry, self.repository.host);
            return Err(PushError::new(reason::REGISTRY_MISMATCH, text));
        }
        let issued = keys.exchange(self.client).await?;
        Ok((issued.basic, Some(issued.life)))
    }

    async fn fetch(&self, realm: &str, service: Option<&str>, sources: &[String]) -> Result<Token, PushError> {
        let registry = self.repository.api_host();
        let url = self.realm(realm)?;
        let host = authority(&url);
        let (url, request) = self.token_request(url, service, &self.scopes(sources)).await?;
        let response = self.client.send(&url, request, self.client.patience().answer).await?;
        let answer = self.client.read(&host, response, MAX_TOKEN).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.refused(answer.status, &self.words(&answer.body)));
            }
            _ => return Err(refusal(&host, &answer, &self.words(&answer.body))),
        }
        // The parser's message may quote the token.
        let token: Token = serde_json::from_slice(&answer.body)
            .map_err(|_| PushError::new(reason::REGISTRY_REFUSED, format!("{host} sends no token for {registry}")))?;
        if token.token.as_deref().or(token.access_token.as_deref()).is_none_or(str::is_empty) {
            return Err(PushError::new(
                reason::REGISTRY_REFUSED,
                format!("{host} sends an empty token for {registry}"),
            ));
        }
        Ok(token)
    }

    /// Judges the address where a registry wants logins to go.
    fn realm(&self, realm: &str) -> Result<Url, PushError> {
        let registry = self.repository.api_host();
        let refuse = |why: String| PushError::new(reason::REGISTRY_REFUSED, why);
        let url = Url::parse(realm).map_err(|_| refuse(format!("{registry} names a login address that is none")))?;
        let host = authority(&url);
        let tls = url.scheme() == "https";
        let plain_is_allowed = url.scheme() == "http" && self.client.is_insecure(&host);
        if !tls && !plain_is_allowed {
            return Err(refuse(format!("{registry} sends logins to {host} without TLS")));
        }
        if !self.client.may_log_in(registry, &host, tls) {
            return Err(refuse(format!(
                "{registry} sends logins to {host}; a login stays with its registry{UNLESS_PAIRED}"
            )));
        }
        Ok(url)
    }

    async fn token_request(
        &self,
        mut url: Url,
        service: Option<&str>,
        scopes: &[String],
    ) -> Result<(Url, Request<super::client::OutBody>), PushError> {
        let mut request = Request::new(full(Bytes::new()));
        let identity = self.credentials.and_then(|credentials| credentials.identity_token());
        if let Some(token) = identity {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token").append_pair("client_id", "windlass");
            form.append_pair("service", service.unwrap_or_default()).append_pair("scope", &scopes.join(" "));
            form.append_pair("refresh_token", token.expose());
            *request.method_mut() = Method::POST;
            *request.body_mut() = full(form.finish().into());
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
            return Ok((url, request));
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
        }
        if let Some(credentials) = self.credentials {
            let (basic, _) = self.basic(credentials).await?;
            request.headers_mut().insert(header::AUTHORIZATION, sensitive(basic.expose())?);
        }
        Ok((url, request))
    }

    fn scopes(&self, sources: &[String]) -> Vec<String> {
        let own = std::iter::once(format!("repository:{}:pull,push", self.repository.path));
        own.chain(sources.iter().map(|source| format!("repository:{source}:pull"))).collect()
    }

    /// A login that did not do, or is not enough, by its status.
    pub(super) fn refused(&self, status: StatusCode, said: &str) -> PushError {
        if status == StatusCode::FORBIDDEN {
            return self.forbidden(status, said);
        }
        let Repository { host, path } = self.repository;
        let (code, said) = (status.as_u16(), quoted(said));
        let text = match self.credentials {
            None => {
                format!("{host} asks for a login for {path}, and the step has no credentials for it ({code}){said}")
            }
            Some(login) => format!("{host} refused user \"{}\" ({code}) for {path}{said}", plain(login.username())),
        };
        PushError::new(reason::REGISTRY_UNAUTHORIZED, text)
    }

    /// A login that is good, and not enough, whatever the status.
    pub(super) fn forbidden(&self, status: StatusCode, said: &str) -> PushError {
        let Repository { host, path } = self.repository;
        let (code, said) = (status.as_u16(), quoted(said));
        let text = match self.credentials {
            None => format!("{host} refused to take {path} without a login ({code}){said}"),
            Some(login) => format!("user \"{}\" may not push to {host}/{path} ({code}){said}", plain(login.username())),
        };
        PushError::new(reason::REGISTRY_FORBIDDEN, text)
    }

    /// A registry's words, without credentials.
    pub(super) fn words(&self, body: &[u8]) -> String {
        let basic = self.credentials.map(Credentials::basic);
        let pair = basic.as_ref().and_then(|basic| basic.expose().strip_prefix("Basic "));
        let identity = self.credentials.and_then(Credentials::identity_token);
        let password = self.credentials.map(Credentials::password);
        // What was exchanged for keys, or read again, is not the password above.
        let inside = self.issued.as_ref().and_then(|issued| password_of(issued.expose()));
        let texts = [identity, password, self.issued.as_ref(), inside.as_ref()];
        let texts = texts.into_iter().flatten().map(|secret| secret.expose().as_str());
        words(body, &pair.into_iter().chain(texts).collect::<Vec<_>>())
    }
}

/// The password in what stands behind `Basic`.
fn password_of(pair: &str) -> Option<Secret<String>> {
    let pair = String::from_utf8(STANDARD.decode(pair).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| Secret::new(password.to_owned()))
}

/// The other side's words at the end of a message.
fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": \"{said}\"") }
}

/// When to ask for the next: early enough that an upload which begins now begins with a good login.
fn renewal(life: Duration) -> Instant {
    Instant::now() + life * 3 / 4
}

/// A header value that is not shown by `Debug`.
fn sensitive(text: &str) -> Result<HeaderValue, PushError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| PushError::new(reason::REGISTRY_REFUSED, "a login has characters that cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The challenges of an answer, the one to take first: a token is preferred to a password.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut best = None;
    for value in headers.get_all(header::WWW_AUTHENTICATE).iter().take(8) {
        for challenge in value.to_str().ok().map(parse).unwrap_or_default() {
            match challenge {
                Challenge::Bearer { .. } => return Some(challenge),
                Challenge::Basic => best = Some(challenge),
            }
        }
    }
    best
}

/// Reads `Bearer realm="…",service="…", Basic realm="…"`.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header;
    let mut current: Option<(String, Vec<(String, String)>)> = None;
    while !rest.is_empty() && challenges.len() < 8 {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word_end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        if let (Some(value), false) = (after.trim_start().strip_prefix('='), word.is_empty()) {
            let (value, left) = parameter(value.trim_start());
            if let Some((_, parameters)) = &mut current {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = left;
        } else {
            challenges.extend(current.take().and_then(finish));
            if word.is_empty() && !after.is_empty() {
                break;
            }
            current = (!word.is_empty()).then(|| (word.to_ascii_lowercase(), Vec::new()));
            rest = after;
        }
    }
    challenges.extend(current.and_then(finish));
    challenges
}

/// A quoted string or a token, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(index + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

fn finish((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), error: get("error") }),
        _ => None,
    }
}

/// What stands behind `Basic` or `Bearer`.
pub(super) fn issued_by(login: &Login) -> Option<Secret<String>> {
    let header = header_of(login)?;
    let text = header.expose().to_str().ok()?;
    text.split_once(' ').map(|(_, token)| Secret::new(token.to_owned()))
}

/// A token in a `Secret`, so that it can be handed about.
pub(super) fn header_of(login: &Login) -> Option<Secret<HeaderValue>> {
    match login {
        Login::Unasked => None,
        Login::Basic { header, .. } | Login::Bearer { header, .. } => Some(Secret::new(header.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, error: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), error: error.map(Into::into) }
    }

    #[test]
    fn challenges() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="insufficient_scope""#;
        let expected = bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("insufficient_scope"));
        assert_eq!(parse(hub), [expected]);
        assert_eq!(parse("bearer realm=https://a.io/t"), [bearer("https://a.io/t", None, None)]);
        assert_eq!(
            parse(r#"Basic realm="a, b", Bearer realm="x\"y" , service=z"#),
            [Challenge::Basic, bearer("x\"y", Some("z"), None)]
        );
        assert_eq!(parse("Basic"), [Challenge::Basic]);
        assert_eq!(parse("Negotiate abc="), []);
        assert_eq!(parse("Bearer service=x"), []);
        assert_eq!(parse(""), []);
    }

    #[test]
    fn a_token_is_preferred() {
        let mut headers = HeaderMap::new();
        headers.append("www-authenticate", HeaderValue::from_static("Basic realm=x"));
        assert_eq!(challenge(&headers), Some(Challenge::Basic));
        headers.append("www-authenticate", HeaderValue::from_static("Bearer realm=\"https://a.io\""));
        assert_eq!(challenge(&headers), Some(bearer("https://a.io", None, None)));
    }

    proptest! {
        #[test]
        fn any_header_is_read_to_the_end(text in "\\PC{0,200}") {
            prop_assert!(parse(&text).len() <= 9);
        }
        #[test]
        fn odd_quotes_too(text in "[Bb ,=\"\\\\a\t]{0,60}") {
            prop_assert!(parse(&text).len() <= 9);
        }
    }
}
