//! Who may write into the store: the agents, by a token that was made for this server and nothing else.
//!
//! [`super::serve`] asks before each request that is not a person's.
//!
//! **Invariant:** a token is in no log and no error, and is kept as its hash only.

use crate::api::artifact::AUDIENCE;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use futures::future::BoxFuture;
use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// How long a token is believed without asking again.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long a token that was refused is refused without asking again.
const REFUSED: Duration = Duration::from_secs(10);
/// Longest wait for the API server, and before it for other reviews.
const REVIEW: Duration = Duration::from_secs(10);
/// Reviews at one time.
const MAX_REVIEWS: usize = 8;
/// Most agents' tokens that are remembered; a node has one agent.
const MAX_KNOWN: usize = 10_000;
/// Most refused tokens that are remembered.
const MAX_REFUSED: usize = 1000;
/// Longest token.
const MAX_TOKEN: usize = 16 * 1024;
/// How far the clocks of this node and the API server may be apart.
const SKEW_S: i64 = 60;

/// Judges tokens.
pub trait Gate: Send + Sync {
    /// Whether a token is that of an agent.
    ///
    /// # Errors
    /// It cannot be told now, and why.
    fn is_agent<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<bool, String>>;
}

/// Asks the API server, by TokenReview: few questions at a time, and none about what cannot be an agent's token.
pub struct Reviews {
    client: Client,
    user: String,
    turns: Semaphore,
    judged: Mutex<Judged>,
}

/// Tokens that were judged lately, by their hash.
#[derive(Default)]
struct Judged {
    agents: HashMap<[u8; 32], Instant>,
    others: HashMap<[u8; 32], Instant>,
}

impl Judged {
    fn of(&self, key: &[u8; 32]) -> Option<bool> {
        if self.agents.get(key).is_some_and(|at| at.elapsed() < BELIEVED) {
            return Some(true);
        }
        self.others.get(key).is_some_and(|at| at.elapsed() < REFUSED).then_some(false)
    }

    /// Each kind has its own room: who sends rubbish takes none from agents.
    fn note(&mut self, key: [u8; 32], is_agent: bool) {
        let (of_kind, life, most) =
            if is_agent { (&mut self.agents, BELIEVED, MAX_KNOWN) } else { (&mut self.others, REFUSED, MAX_REFUSED) };
        of_kind.retain(|_, at| at.elapsed() < life);
        if of_kind.len() < most {
            of_kind.insert(key, Instant::now());
        }
    }
}

impl Reviews {
    /// A gate for agents with this service account.
    #[must_use]
    pub fn new(client: Client, namespace: &str, service_account: &str) -> Self {
        let user = format!("system:serviceaccount:{namespace}:{service_account}");
        Self { client, user, turns: Semaphore::new(MAX_REVIEWS), judged: Mutex::default() }
    }

    fn judged(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn review(&self, token: &str) -> Result<bool, String> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answer = timeout(REVIEW, reviews.create(&params, &review)).await;
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
            if !may_be(token, &self.user, jiff::Timestamp::now().as_second()) {
                return Ok(false);
            }
            let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
            if let Some(is_agent) = self.judged().of(&key) {
                return Ok(is_agent);
            }
            let busy = || "too many tokens are being reviewed".to_owned();
            let _turn = timeout(REVIEW, self.turns.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
            // Another request with it may have waited in front.
            if let Some(is_agent) = self.judged().of(&key) {
                return Ok(is_agent);
            }
            let is_agent = self.review(token).await?;
            self.judged().note(key, is_agent);
            Ok(is_agent)
        })
    }
}

/// What a token of a service account says of itself (RFC 7519, 4.1).
#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Whether a token can be an agent's, `now_s` seconds after the epoch, by its own words. They are not believed: what gets
/// by is judged by the API server.
fn may_be(token: &str, user: &str, now_s: i64) -> bool {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok().and_then(|json| serde_json::from_slice::<Claims>(&json).ok());
    claims.is_some_and(|claims| {
        let is_for_us = match &claims.aud {
            Audience::One(one) => one == AUDIENCE,
            Audience::Many(many) => many.iter().any(|one| one == AUDIENCE),
        };
        is_for_us && claims.sub == user && claims.exp.saturating_add(SKEW_S) > now_s
    })
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
    use http::{Request, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use rstest::rstest;
    use serde_json::{Value, json};
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    const USER: &str = "system:serviceaccount:ws:windlass-agent";

    fn token_of(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn claims() -> Value {
        json!({"sub": USER, "aud": [AUDIENCE], "exp": 1000, "kubernetes.io": {"namespace": "ws"}})
    }

    #[rstest]
    #[case::an_agents(json!({}), true)]
    #[case::one_audience(json!({"aud": AUDIENCE}), true)]
    #[case::among_others(json!({"aud": ["a", AUDIENCE]}), true)]
    #[case::clocks_differ(json!({"exp": 950}), true)]
    #[case::over(json!({"exp": 900}), false)]
    #[case::no_end(json!({"exp": null}), false)]
    #[case::of_the_api_server(json!({"aud": ["https://kubernetes.default.svc"]}), false)]
    #[case::of_somebody(json!({"sub": "system:serviceaccount:ws:default"}), false)]
    #[case::of_an_agent_elsewhere(json!({"sub": "system:serviceaccount:other:windlass-agent"}), false)]
    fn what_a_token_says_of_itself(#[case] other: Value, #[case] expected: bool) {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        assert_eq!(may_be(&token_of(&claims), USER, 1000), expected);
    }

    #[rstest]
    #[case("")]
    #[case("token")]
    #[case("a.b.c")]
    #[case("e30.e30.c2ln")]
    #[case("e30.W10.c2ln")]
    #[case("....")]
    fn what_is_no_token(#[case] token: &str) {
        assert!(!may_be(token, USER, 0));
    }

    #[test]
    fn a_token_has_three_parts() {
        let token = token_of(&claims());
        assert!(!may_be(&format!("{token}.c2ln"), USER, 0));
        assert!(!may_be(token.rsplit_once('.').unwrap().0, USER, 0));
    }

    /// An API server that knows the tokens that are signed with `c2ln`, and takes a second for each.
    struct Asked {
        all: AtomicUsize,
        now: AtomicUsize,
        most: AtomicUsize,
    }

    fn gate() -> (Reviews, Arc<Asked>) {
        let asked = Arc::new(Asked { all: 0.into(), now: 0.into(), most: 0.into() });
        let count = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let count = Arc::clone(&count);
            async move {
                count.all.fetch_add(1, Ordering::Relaxed);
                let now = count.now.fetch_add(1, Ordering::Relaxed) + 1;
                count.most.fetch_max(now, Ordering::Relaxed);
                let review = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&review).unwrap();
                let is_good = review["spec"]["token"].as_str().unwrap().ends_with(".c2ln");
                review["status"] =
                    json!({"authenticated": is_good, "user": {"username": USER}, "audiences": [AUDIENCE]});
                tokio::time::sleep(Duration::from_secs(1)).await;
                count.now.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, Infallible>(Response::new(Body::from(review.to_string().into_bytes())))
            }
        });
        (Reviews::new(Client::new(service, "ws"), "ws", "windlass-agent"), asked)
    }

    fn live(n: usize) -> String {
        token_of(&json!({"sub": USER, "aud": AUDIENCE, "exp": i64::MAX, "jti": n}))
    }

    #[tokio::test(start_paused = true)]
    async fn the_api_server_is_asked_once_in_a_while() {
        let (gate, asked) = gate();
        let forged = live(1).replace("c2ln", "Zm9v");
        for (token, is_agent, life) in [(live(1), true, BELIEVED), (forged, false, REFUSED)] {
            let before = asked.all.load(Ordering::Relaxed);
            for _ in 0..5 {
                assert_eq!(gate.is_agent(&token).await, Ok(is_agent));
            }
            assert_eq!(asked.all.load(Ordering::Relaxed), before + 1);
            tokio::time::advance(life).await;
            assert_eq!(gate.is_agent(&token).await, Ok(is_agent));
            assert_eq!(asked.all.load(Ordering::Relaxed), before + 2);
        }
        assert_eq!(gate.is_agent("rubbish").await, Ok(false));
        assert_eq!(asked.all.load(Ordering::Relaxed), 4, "rubbish is not asked about");
    }

    #[tokio::test(start_paused = true)]
    async fn few_tokens_are_reviewed_at_a_time() {
        let (gate, asked) = gate();
        let tokens: Vec<String> = (0..40).map(live).collect();
        let judged = futures::future::join_all(tokens.iter().map(|token| gate.is_agent(token))).await;
        assert!(judged.iter().all(|judged| *judged == Ok(true)), "{judged:?}");
        assert_eq!((asked.most.load(Ordering::Relaxed), asked.all.load(Ordering::Relaxed)), (MAX_REVIEWS, 40));
        // One that many come with at once is reviewed once.
        let one = live(100);
        futures::future::join_all((0..20).map(|_| gate.is_agent(&one))).await;
        assert!(asked.all.load(Ordering::Relaxed) <= 40 + MAX_REVIEWS);
    }

    #[tokio::test]
    async fn rubbish_takes_no_room_from_agents() {
        let mut judged = Judged::default();
        for n in 0..MAX_REFUSED + 10 {
            judged.note(Sha256::digest(n.to_string()).into(), false);
        }
        assert_eq!(judged.others.len(), MAX_REFUSED);
        judged.note([0; 32], true);
        assert_eq!(judged.of(&[0; 32]), Some(true));
    }

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
