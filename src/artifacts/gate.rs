//! Who may write into the store: the agents, by a token that was made for this server and nothing else.
//!
//! [`super::serve`] asks before each request that is not a person's.
//!
//! **Invariant:** a token is in no log and no error, and is kept as its hash only.

use crate::api::artifact::AUDIENCE;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::BoxFuture;
use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a token is believed without asking again.
const BELIEVED: Duration = Duration::from_secs(60);
/// Longest wait for the API server.
const REVIEW: Duration = Duration::from_secs(10);
/// Most tokens that are remembered; a node has one agent.
const MAX_KNOWN: usize = 10_000;
/// Longest token.
const MAX_TOKEN: usize = 16 * 1024;

/// Judges tokens.
pub trait Gate: Send + Sync {
    /// Whether a token is that of an agent.
    ///
    /// # Errors
    /// It cannot be told now, and why.
    fn is_agent<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<bool, String>>;
}

/// Asks the API server, by TokenReview.
pub struct Reviews {
    client: Client,
    user: String,
    known: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Reviews {
    /// A gate for agents with this service account.
    #[must_use]
    pub fn new(client: Client, namespace: &str, service_account: &str) -> Self {
        let user = format!("system:serviceaccount:{namespace}:{service_account}");
        Self { client, user, known: Mutex::default() }
    }

    async fn review(&self, token: &str) -> Result<bool, String> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answer = tokio::time::timeout(REVIEW, reviews.create(&params, &review)).await;
        let answer = answer.map_err(|_| "the API server did not review a token in time".to_owned())?;
        let answer = answer.map_err(|error| format!("the API server does not review tokens: {error}"))?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.and_then(|user| user.username);
        let audiences = status.audiences.unwrap_or_default();
        Ok(status.authenticated == Some(true)
            && user.as_deref() == Some(self.user.as_str())
            && audiences.iter().any(|audience| audience == AUDIENCE))
    }
}

impl Gate for Reviews {
    fn is_agent<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async move {
            let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
            let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known().get(&key).is_some_and(|at| at.elapsed() < BELIEVED) {
                return Ok(true);
            }
            let is_agent = self.review(token).await?;
            let mut known = known();
            known.retain(|_, at| at.elapsed() < BELIEVED);
            if is_agent && known.len() < MAX_KNOWN {
                known.insert(key, Instant::now());
            }
            Ok(is_agent)
        })
    }
}

/// The token of a request: the password of its basic authentication; the user's name is only for people.
pub(super) fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok().filter(|value| value.len() <= MAX_TOKEN)?;
    let pair = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let (_, token) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    (!token.is_empty()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Some("Basic YWdlbnQ6dG9rZW4="), Some("token"))]
    #[case(Some("Basic YWdlbnQ6"), None)]
    #[case(Some("Basic YWdlbnQ="), None)]
    #[case(Some("Basic ???"), None)]
    #[case(Some("Bearer token"), None)]
    #[case(None, None)]
    fn tokens(#[case] value: Option<&'static str>, #[case] expected: Option<&str>) {
        let header = value.map(|value| (http::header::AUTHORIZATION, http::HeaderValue::from_static(value)));
        assert_eq!(token(&header.into_iter().collect()).as_deref(), expected);
    }
}
