//! Amazon ECR: keys become a login, by way of a stand-in that checks signatures as AWS does.
//!
//! The stand-ins have the real names: the administrator's addresses lead there.

use super::{
    Told,
    engine::{Image, Store},
    fake::{Auth, Fault, Registry},
    job, patience, push,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rstest::rstest;
use sha2::{Digest as _, Sha256};
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::net::TcpListener;
use windlass::registry::{AwsKeys, Client, Credentials, DoorJob, Repository, Secret, Trust};

pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
pub(crate) const ACCESS: &str = "AKIAIOSFODNN7EXAMPLE";
pub(crate) const REGISTRY: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const API: &str = "api.ecr.eu-west-1.amazonaws.com";
pub(crate) const LOGIN: &str = "AWS:eyJwYXlsb2FkIjoi";

/// How the stand-in answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// A login for this long, if the signature is right.
    Login { seconds: f64 },
    /// A refusal, or anything else.
    Error(u16, &'static str),
}

/// The stand-in for ECR's API.
#[derive(Clone)]
pub(crate) struct Api {
    address: std::net::SocketAddr,
    answers: Arc<Mutex<Vec<Answer>>>,
    asked: Arc<Mutex<usize>>,
}

impl Api {
    /// Gives these answers, the last one again and again.
    async fn start(answers: &[Answer]) -> Self {
        Self::start_at(0, answers).await
    }

    /// The same, on a port of loopback.
    pub(crate) async fn start_at(port: u16, answers: &[Answer]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Self { address, answers: Arc::new(Mutex::new(answers.to_vec())), asked: Arc::default() };
        let served = api.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let api = served.clone();
                let service = service_fn(move |request| {
                    let api = api.clone();
                    async move { Ok::<_, Infallible>(api.serve(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        api
    }

    pub(crate) fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        *self.asked.lock().unwrap() += 1;
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!((head.method, head.uri.path()), (Method::POST, "/"));
        assert_eq!(head.headers["x-amz-target"], "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
        assert_eq!(head.headers["content-type"], "application/x-amz-json-1.1");
        assert_eq!(body, r#"{"registryIds":["123456789012"]}"#);
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
        };
        let (status, text) = match answer {
            Answer::Error(status, text) => (status, text.to_owned()),
            Answer::Login { .. } if !is_signed(&head.headers, &body) => (
                400,
                r#"{"__type":"InvalidSignatureException","message":"The request signature we calculated does not match"}"#.into(),
            ),
            Answer::Login { seconds } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
                let data = serde_json::json!({
                    "authorizationToken": STANDARD.encode(LOGIN), "expiresAt": now + seconds,
                    "proxyEndpoint": format!("https://{REGISTRY}"),
                });
                (200, serde_json::json!({"authorizationData": [data]}).to_string())
            }
        };
        let mut response = Response::new(Full::new(text.into()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks a signature from its own words, apart from the code under test.
fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let authorization = text("authorization");
    let part = |name: &str| authorization.split_once(name).unwrap().1.split(',').next().unwrap().to_owned();
    let (scope, names, signature) = (part("Credential="), part("SignedHeaders="), part("Signature="));
    let (access, scope) = scope.split_once('/').unwrap();
    let time = text("x-amz-date");
    let at: jiff::civil::DateTime = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", &time).unwrap().to_datetime().unwrap();
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
    let age = jiff::Timestamp::now().duration_since(at).unsigned_abs();
    for needed in ["host", "x-amz-date", "x-amz-target", "content-type"] {
        assert!(names.split(';').any(|name| name == needed), "{needed} is not signed: {authorization}");
    }
    let lines: String = names.split(';').map(|name| format!("{name}:{}\n", text(name))).collect();
    let canonical = format!("POST\n/\n\n{lines}\n{names}\n{}", hex(&Sha256::digest(body)));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let key = [&time[..8], "eu-west-1", "ecr", "aws4_request"]
        .iter()
        .fold(format!("AWS4{SECRET}").into_bytes(), |key, part| mac(&key, part));
    access == ACCESS
        && scope == format!("{}/eu-west-1/ecr/aws4_request", &time[..8])
        && age < Duration::from_secs(300)
        && hex(&mac(&key, &to_sign)) == signature
}

fn keys(secret: &str) -> AwsKeys {
    AwsKeys {
        access_key: ACCESS.into(),
        secret_key: Secret::new(secret.into()),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        registry: REGISTRY.into(),
        api: API.into(),
    }
}

/// A client for which the names of AWS lead to the stand-ins.
fn client(api: &Api, registry: &Registry) -> Client {
    let trust = Trust {
        insecure_hosts: vec![API.into(), REGISTRY.into(), registry.host.clone()],
        addresses: vec![(API.into(), api.address), (REGISTRY.into(), registry.host.parse().unwrap())],
        ..Trust::default()
    };
    Client::with_patience(trust, patience()).unwrap()
}

fn to_ecr(secret: &str, told: &Told) -> DoorJob {
    let repository = Repository::parse(&format!("{REGISTRY}/team/app"), None).unwrap();
    DoorJob { repository, credentials: Some(Credentials::aws(keys(secret))), ..job(REGISTRY, told) }
}

#[tokio::test]
async fn keys_become_a_login_once() {
    let api = Api::start(&[Answer::Login { seconds: 43200.0 }]).await;
    let registry = Registry::start(Auth::Basic(LOGIN)).await;
    let told = Told::default();
    let (seen, pushed) =
        push(client(&api, &registry), to_ecr(SECRET, &told), &Image::new(&[100, 200]), Store::Classic).await;
    assert_eq!(seen, Ok(()));
    assert_eq!(registry.tag("v1"), Some(pushed.unwrap().digest));
    assert_eq!(api.asked(), 1);
    let sent = registry.state().headers.concat();
    assert!(sent.contains(&format!("host: {REGISTRY};")), "{sent}");
    assert!(!sent.contains(SECRET) && !sent.contains(ACCESS) && !sent.contains("AWS4-HMAC"), "{sent}");
}

#[tokio::test]
async fn a_login_that_ends_in_mid_push_is_renewed() {
    let api = Api::start(&[Answer::Login { seconds: 43200.0 }]).await;
    let registry = Registry::start(Auth::Basic(LOGIN)).await;
    let challenge = || vec![("www-authenticate", "Basic realm=\"ecr\",service=\"ecr.amazonaws.com\"".to_owned())];
    registry.fail(Method::PUT, "/uploads/", 1, Fault::Late(401, challenge()));
    registry.fail(Method::PUT, "/manifests/latest", 1, Fault::Late(401, challenge()));
    let job = to_ecr(SECRET, &Told::default());
    push(client(&api, &registry), job, &Image::new(&[100]), Store::Classic).await.1.unwrap();
    assert_eq!(api.asked(), 3);
}

#[rstest]
#[case::wrong_secret("another-secret-key", Answer::Login { seconds: 1.0 }, "RegistryUnauthorized", "InvalidSignatureException")]
#[case::unknown_key(SECRET, Answer::Error(400, r#"{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}"#), "RegistryUnauthorized", "AWS refused the access key")]
#[case::no_right(
    SECRET,
    Answer::Error(
        400,
        r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"no ecr:GetAuthorizationToken"}"#
    ),
    "RegistryForbidden",
    "may not log in"
)]
#[case::rubbish(
    SECRET,
    Answer::Error(200, r#"{"authorizationData":[{"authorizationToken":"%%%"}]}"#),
    "RegistryRefused",
    "sends no token"
)]
#[case::nothing(SECRET, Answer::Error(200, r#"{"authorizationData":[]}"#), "RegistryRefused", "sends no token")]
#[case::a_quoted_secret(
    SECRET,
    Answer::Error(418, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    "RegistryRefused",
    "answered 418: \"***\""
)]
#[tokio::test]
async fn keys_that_do_not_do(#[case] secret: &str, #[case] answer: Answer, #[case] reason: &str, #[case] says: &str) {
    let api = Api::start(&[answer]).await;
    let registry = Registry::start(Auth::Basic(LOGIN)).await;
    let job = to_ecr(secret, &Told::default());
    let (seen, result) = push(client(&api, &registry), job, &Image::new(&[100]), Store::Classic).await;
    let error = result.unwrap_err();
    assert!(seen.is_err());
    assert_eq!((error.reason, error.transient), (reason, false), "{error}");
    assert!(error.message.contains(says) && !error.message.contains(secret), "{error}");
    assert!(!registry.state().headers.concat().contains("authorization"));
}

#[tokio::test]
async fn an_api_that_is_busy_is_asked_again() {
    let throttled = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#;
    let answers = [Answer::Error(400, throttled), Answer::Error(503, ""), Answer::Login { seconds: 43200.0 }];
    let api = Api::start(&answers).await;
    let registry = Registry::start(Auth::Basic(LOGIN)).await;
    let job = to_ecr(SECRET, &Told::default());
    push(client(&api, &registry), job, &Image::new(&[100]), Store::Classic).await.1.unwrap();
    assert_eq!(api.asked(), 3);
}

#[tokio::test]
async fn a_login_is_for_its_own_registry_only() {
    let api = Api::start(&[Answer::Login { seconds: 43200.0 }]).await;
    let registry = Registry::start(Auth::Basic(LOGIN)).await;
    let job = DoorJob { credentials: Some(Credentials::aws(keys(SECRET))), ..job(&registry.host, &Told::default()) };
    let (_, result) = push(client(&api, &registry), job, &Image::new(&[100]), Store::Classic).await;
    assert_eq!(result.unwrap_err().reason, "RegistryMismatch");
    assert_eq!(api.asked(), 0);
    assert!(!registry.state().headers.concat().contains("authorization"));
}
