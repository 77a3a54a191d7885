//! Amazon ECR: the keys of an AWS account are exchanged for a login that lasts some hours.
//!
//! [`super::auth`] asks for one when the registry wants a login, and again before it ends.
//!
//! **Invariant:** the secret key is sent nowhere, it only signs. What comes back goes to the one registry it is for.
//!
//! <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>

use super::{
    client::{Answer, Client, full},
    credentials::Secret,
    error::{PushError, words},
    refusal::refusal,
    sigv4::Signer,
};
use crate::api::condition::reason;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use std::time::Duration;
use url::Url;

/// Largest answer; a token has two kilobytes.
const MAX_ANSWER: usize = 64 * 1024;
/// How long a login lasts if ECR does not say, and at most.
const SHORT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(12 * 3600);
/// What is asked for.
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const KIND: &str = "application/x-amz-json-1.1";
/// Errors of AWS that are about the key, and not about what it may do.
const WRONG_KEY: [&str; 6] = [
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "IncompleteSignatureException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "MissingAuthenticationTokenException",
];

/// The keys of an AWS account, and the registry that they are for.
#[derive(Clone)]
pub struct AwsKeys {
    /// Access key ID.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: Secret<String>,
    /// Number of the account that the registry belongs to.
    pub account: String,
    /// Region of the registry.
    pub region: String,
    /// The registry's host, the only one that is given the login.
    pub registry: String,
    /// The host of ECR's API in that region.
    pub api: String,
}

/// A login for the registry.
pub(super) struct Issued {
    /// Value of the `Authorization` header.
    pub(super) basic: Secret<String>,
    /// How long it lasts.
    pub(super) life: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    authorization_data: Vec<Token>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    authorization_token: String,
    #[serde(default)]
    expires_at: Option<f64>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(rename = "__type")]
    kind: String,
}

impl AwsKeys {
    /// Asks ECR for a login.
    pub(super) async fn exchange(&self, client: &Client) -> Result<Issued, PushError> {
        let now = Timestamp::now();
        let scheme = if client.is_insecure(&self.api) { "http" } else { "https" };
        let url = Url::parse(&format!("{scheme}://{}/", self.api))
            .map_err(|error| PushError::new(reason::INVALID_PROPERTY, format!("{}: {error}", self.api)))?;
        let response = client.send(&url, self.request(now)?, client.patience().answer).await?;
        let answer = client.read(&self.api, response, MAX_ANSWER).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(&answer));
        }
        // The parser's message may quote the token.
        let tokens: Option<Tokens> = serde_json::from_slice(&answer.body).ok();
        let token = tokens.and_then(|tokens| tokens.authorization_data.into_iter().next());
        let token = token.filter(|token| is_login(&token.authorization_token)).ok_or_else(|| {
            PushError::new(reason::REGISTRY_REFUSED, format!("{} sends no token for {}", self.api, self.registry))
        })?;
        #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are exact for long")]
        let left = token.expires_at.map(|at| at - now.as_second() as f64);
        let life = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(SHORT);
        let basic = Secret::new(format!("Basic {}", token.authorization_token));
        Ok(Issued { basic, life: life.clamp(SHORT, LONG) })
    }

    fn request(&self, now: Timestamp) -> Result<Request<super::client::OutBody>, PushError> {
        let body = serde_json::json!({"registryIds": [self.account]}).to_string();
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let signer = Signer {
            access_key: &self.access_key,
            secret_key: self.secret_key.expose(),
            region: &self.region,
            service: "ecr",
            time: &time,
        };
        let headers =
            [("content-type", KIND), ("host", self.api.as_str()), ("x-amz-date", &time), ("x-amz-target", TARGET)];
        let authorization = signer.authorization("POST", &headers, body.as_bytes());
        let mut request = Request::new(full(body.into()));
        *request.method_mut() = Method::POST;
        for (name, value) in headers.into_iter().chain([(header::AUTHORIZATION.as_str(), authorization.as_str())]) {
            let value = HeaderValue::from_str(value).map_err(|_| self.unusable())?;
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| self.unusable())?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    fn unusable(&self) -> PushError {
        let text = format!("the access key for {} has characters that cannot be sent", self.registry);
        PushError::new(reason::REGISTRY_UNAUTHORIZED, text)
    }

    fn refused(&self, answer: &Answer) -> PushError {
        let complaint: Option<Complaint> = serde_json::from_slice(&answer.body).ok();
        // Some endpoints write the namespace in front.
        let kind = complaint.map(|complaint| complaint.kind).unwrap_or_default();
        let kind = kind.rsplit('#').next().unwrap_or_default();
        let said = words(&answer.body, &[self.secret_key.expose()]);
        let (registry, code) = (&self.registry, answer.status.as_u16());
        if kind == "ThrottlingException" {
            let text = format!("{} answered {code}: \"{said}\"", self.api);
            return PushError::transient(reason::REGISTRY_REFUSED, text);
        }
        if WRONG_KEY.contains(&kind) {
            let text = format!("AWS refused the access key for {registry} ({kind}): \"{said}\"");
            return PushError::new(reason::REGISTRY_UNAUTHORIZED, text);
        }
        if kind == "AccessDeniedException" || answer.status == StatusCode::FORBIDDEN {
            let text = format!("the access key may not log in to {registry} ({code}): \"{said}\"");
            return PushError::new(reason::REGISTRY_FORBIDDEN, text);
        }
        refusal(&self.api, answer, &said)
    }
}

/// Whether a token is what goes behind `Basic`: a user name and a password in base64.
fn is_login(token: &str) -> bool {
    STANDARD.decode(token).is_ok_and(|pair| pair.contains(&b':'))
}
