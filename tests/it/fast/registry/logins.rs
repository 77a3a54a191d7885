//! Logins: right, wrong, missing, ending in the middle, and sent astray.

use super::{
    Told, client,
    engine::{Image, Store},
    failure,
    fake::{Auth, Fault, Registry, digest},
    job, login, push, trust,
};
use http::Method;
use rstest::rstest;
use windlass::registry::{Client, DoorJob, Repository, Trust};

const MIB: usize = 1 << 20;

#[rstest]
#[case(Auth::Basic("ci:s3cret-s3cret"))]
#[case(Auth::Bearer { login: "ci:s3cret-s3cret", uses: usize::MAX })]
// Tokens end again and again, also between the opening of an upload and its closing.
#[case(Auth::Bearer { login: "ci:s3cret-s3cret", uses: 3 })]
#[tokio::test]
async fn a_login_that_is_right(#[case] auth: Auth) {
    let registry = Registry::start(auth).await;
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    let (seen, pushed) = push(client(&registry), job, &Image::new(&[100, 200]), Store::Classic).await;
    assert_eq!(seen, Ok(()));
    assert_eq!(pushed.unwrap().tags.len(), 2);
}

#[tokio::test]
async fn a_token_that_ends_in_an_upload_is_renewed_for_the_next_try() {
    let registry = Registry::start(Auth::Bearer { login: "ci:s3cret-s3cret", uses: usize::MAX }).await;
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"fake\"", registry.host);
    registry.fail(Method::PATCH, "/uploads/", 1, Fault::Late(401, vec![("www-authenticate", challenge)]));
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    let image = Image::new(&[6 * MIB]);
    let door = windlass::registry::Door::open(client(&registry), job).await.unwrap();
    let engine = super::Engine::new(door.target(), Store::Classic);
    assert!(engine.push(&image).await.is_err(), "a body that is gone cannot be sent again");
    // As Docker does after a 5xx.
    engine.push(&image).await.unwrap();
    door.close().await.unwrap();
    assert_eq!(registry.count("GET /token"), 2);
}

#[rstest]
#[case(Auth::Basic("ci:s3cret-s3cret"))]
#[case(Auth::Bearer { login: "ci:s3cret-s3cret", uses: usize::MAX })]
#[tokio::test]
async fn a_login_that_is_wrong_fails_at_once(#[case] auth: Auth) {
    let registry = Registry::start(auth).await;
    let job = DoorJob { credentials: login("ci", "wr0ng-wr0ng"), ..job(&registry.host, &Told::default()) };
    let error = failure(&registry, job, &Image::new(&[100])).await;
    assert_eq!((error.reason, error.transient), ("RegistryUnauthorized", false), "{error}");
    assert!(error.message.contains("refused user \"ci\" (401) for team/app"), "{error}");
    assert!(!error.message.contains("wr0ng"), "{error}");
    assert!(registry.state().log.len() <= 6, "{:?}", registry.state().log);
}

#[tokio::test]
async fn a_login_that_is_missing() {
    let registry = Registry::start(Auth::Basic("ci:s3cret-s3cret")).await;
    let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[100])).await;
    assert_eq!(error.reason, "RegistryUnauthorized");
    assert!(error.message.contains("the step has no credentials"), "{error}");
}

#[tokio::test]
async fn what_a_registry_quotes_of_a_login_is_taken_out() {
    let registry = Registry::start(Auth::Open).await;
    // "ci:s3cret-s3cret" in base64.
    let quoted = "bad Authorization: Basic Y2k6czNjcmV0LXMzY3JldA== (s3cret-s3cret)\x1b[2J";
    registry.fail(Method::POST, "/uploads/", usize::MAX, Fault::Answer(403, vec![], quoted));
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    let error = failure(&registry, job, &Image::new(&[100])).await;
    assert_eq!(error.reason, "RegistryForbidden");
    let expected = format!(
        "user \"ci\" may not push to {}/team/app (403): \"bad Authorization: Basic *** (***) [2J\"",
        registry.host
    );
    assert_eq!(error.message, expected);
}

#[tokio::test]
async fn a_valid_login_that_may_not_push() {
    let registry = Registry::start(Auth::Bearer { login: "ci:s3cret-s3cret", uses: usize::MAX }).await;
    let challenge =
        format!("Bearer realm=\"http://{}/token\",service=\"fake\",error=\"insufficient_scope\"", registry.host);
    let fault = Fault::Answer(401, vec![("www-authenticate", challenge)], "");
    registry.fail(Method::POST, "/uploads/", usize::MAX, fault);
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    let error = failure(&registry, job, &Image::new(&[100])).await;
    assert_eq!((error.reason, error.transient), ("RegistryForbidden", false), "{error}");
    assert!(error.message.contains("user \"ci\" may not push to ") && error.message.contains("(401)"), "{error}");
}

#[tokio::test]
async fn nobody_who_may_not_push_is_asked_to_log_in() {
    let registry = Registry::start(Auth::Open).await;
    let challenge = "Bearer realm=\"http://x/token\",error=\"insufficient_scope\"";
    let challenge = challenge.replace("http://x", &format!("http://{}", registry.host));
    registry.fail(Method::POST, "/uploads/", usize::MAX, Fault::Answer(401, vec![("www-authenticate", challenge)], ""));
    registry.fail(Method::GET, "/token", usize::MAX, Fault::Answer(200, vec![], "{\"token\":\"nobodys\"}"));
    let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[100])).await;
    assert_eq!((error.reason, error.transient), ("RegistryUnauthorized", false), "{error}");
    assert!(error.message.contains("the step has no credentials"), "{error}");
}

/// The box image is on the same registry, and its layers are to be mounted; the login is for the pushed repository only.
#[rstest]
#[case::no_mount(Method::POST, "/uploads/", 403)]
#[case::not_found(Method::POST, "/uploads/", 404)]
#[case::not_allowed(Method::POST, "/uploads/", 405)]
#[case::no_token(Method::GET, "/token", 403)]
#[tokio::test]
async fn layers_that_may_not_be_mounted_are_sent(
    #[case] method: Method,
    #[case] path: &'static str,
    #[case] status: u16,
) {
    let registry = Registry::start(Auth::Bearer { login: "ci:s3cret-s3cret", uses: usize::MAX }).await;
    registry.fail(method, path, 1, Fault::Answer(status, vec![], ""));
    let source = windlass::registry::Repository::parse(&format!("{}/team/box", registry.host), None).unwrap();
    let job = DoorJob {
        credentials: login("ci", "s3cret-s3cret"),
        mount_from: Some(source),
        ..job(&registry.host, &Told::default())
    };
    let image = Image::new(&[5 * MIB]);
    push(client(&registry), job, &image, Store::Classic).await.1.unwrap();
    assert!(registry.has(&super::fake::digest(&image.layers[0])));
}

#[rstest]
#[case(|other: &str| format!("http://{other}/token"), "without TLS")]
#[case(|other: &str| format!("https://{other}/token"), "unless the administrator lists the two")]
#[case(|_: &str| "https://login.example.com/token".into(), "unless the administrator lists the two")]
#[case(|_: &str| "ftp://x/token".into(), "without TLS")]
#[case(|_: &str| "token".into(), "that is none")]
#[tokio::test]
async fn a_login_does_not_go_astray(#[case] realm: fn(&str) -> String, #[case] says: &str) {
    let other = Registry::start(Auth::Open).await;
    let registry = Registry::start(Auth::Realm(realm(&other.host))).await;
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    let error = failure(&registry, job, &Image::new(&[100])).await;
    assert_eq!(error.reason, "RegistryRefused");
    assert!(error.message.contains(says), "{error}");
    assert_eq!(other.state().log.len(), 0);
    let sent = registry.state().headers.concat();
    assert!(!sent.contains("authorization"), "{sent}");
}

#[tokio::test]
async fn the_administrator_can_pair_a_login_host() {
    let tokens = Registry::start(Auth::Bearer { login: "ci:s3cret-s3cret", uses: usize::MAX }).await;
    let registry = Registry::start(Auth::Realm(format!("http://{}/token", tokens.host))).await;
    let trust = Trust {
        insecure_hosts: vec![registry.host.clone(), tokens.host.clone()],
        token_hosts: vec![(registry.host.clone(), tokens.host.clone())],
        ..trust(&registry)
    };
    let client = Client::with_patience(trust, super::patience()).unwrap();
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    // This registry takes no token at all; that the login host was asked is what counts.
    let error = push(client, job, &Image::new(&[100]), Store::Classic).await.1.unwrap_err();
    assert_eq!(error.reason, "RegistryUnauthorized");
    assert_eq!(tokens.count("GET /token"), 1);
    assert!(!registry.state().headers.concat().contains("authorization: Basic"));
}

#[tokio::test]
async fn an_upload_does_not_go_astray() {
    let other = Registry::start(Auth::Open).await;
    for location in [
        format!("http://{}/v2/team/app/blobs/uploads/u1", other.host),
        format!("//{}/u1", other.host),
        "https://127.0.0.1/u1".into(),
    ] {
        let registry = Registry::start(Auth::Basic("ci:s3cret-s3cret")).await;
        registry.fail_after(
            1,
            Method::POST,
            "/uploads/",
            usize::MAX,
            Fault::Headers(vec![("location", location.clone())]),
        );
        registry.fail(Method::POST, "/uploads/", usize::MAX, Fault::Headers(vec![("location", location)]));
        let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
        let error = failure(&registry, job, &Image::new(&[100])).await;
        assert_eq!(error.reason, "RegistryRefused");
        assert!(error.message.contains("sends the upload to another host"), "{error}");
        assert_eq!(other.state().log.len(), 0);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Registry::start(Auth::Open).await;
    let registry = Registry::start(Auth::Open).await;
    // Of a blob that is looked for, 302 and 307 say that it is there.
    for (method, path, statuses) in
        [(Method::HEAD, "/blobs/", &[301, 308][..]), (Method::POST, "/uploads/", &[301, 302, 307, 308])]
    {
        for status in statuses {
            let location = format!("http://{}/", other.host);
            registry.fail(method.clone(), path, 1, Fault::Answer(*status, vec![("location", location)], ""));
            let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[])).await;
            assert_eq!(error.reason, "RegistryRefused", "{error}");
            assert!(error.message.contains("a redirect to 127.0.0.1, which is not followed"), "{error}");
        }
    }
    assert_eq!(other.state().log.len(), 0);
}

/// Docker Hub and registries on S3 keep blobs elsewhere, and say so once they have found one. Where the store may be
/// asked, the layer is not sent again; where it may not, it is.
#[rstest]
#[case(302, true)]
#[case(307, true)]
#[case(307, false)]
#[tokio::test]
async fn a_blob_in_a_store_of_its_own_is_there(#[case] status: u16, #[case] reachable: bool) {
    let store = Registry::start(Auth::Open).await;
    let registry = Registry::start(Auth::Basic("ci:s3cret-s3cret")).await;
    let image = Image::new(&[5 * MIB]);
    let layer = digest(&image.layers[0]);
    for there in [&store, &registry] {
        there.state().blobs.insert(layer.clone(), image.layers[0].clone());
    }
    let location = format!("http://{}/v2/team/app/blobs/{layer}", store.host);
    registry.fail(Method::HEAD, "/blobs/", usize::MAX, Fault::Elsewhere(status, location));
    let mut trust = trust(&registry);
    trust.insecure_hosts.extend(reachable.then(|| store.host.clone()));
    let client = Client::with_patience(trust, super::patience()).unwrap();
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    let progress = job.progress.subscribe();
    push(client, job, &image, Store::Classic).await.1.unwrap();
    assert_eq!(progress.borrow().bytes_done > 5_000_000, !reachable);
    assert_eq!(store.state().log.len(), usize::from(reachable));
    assert!(!store.state().headers.concat().contains("authorization"), "the login went to the store");
}

const KEY_FILE: &str =
    "_json_key:{\n  \"type\": \"service_account\",\n  \"private_key\": \"-----BEGIN\\nMIIE\\n\"\n}\n";

/// Each under its real name, with the login host that it really has.
#[rstest]
#[case::hub("team/app", "registry-1.docker.io", "auth.docker.io/token", "ci:s3cret-s3cret")]
#[case::quay("quay.io/team/app", "quay.io", "quay.io/v2/auth", "team+robot:s3cret-s3cret")]
#[case::gcr("gcr.io/team/app", "gcr.io", "gcr.io/v2/token", KEY_FILE)]
#[case::artifact_registry(
    "europe-docker.pkg.dev/team/app",
    "europe-docker.pkg.dev",
    "europe-docker.pkg.dev/v2/token",
    KEY_FILE
)]
#[case::ghcr("ghcr.io/team/app", "ghcr.io", "ghcr.io/token", "ci:s3cret-s3cret")]
#[case::gitlab("registry.gitlab.com/team/app", "registry.gitlab.com", "gitlab.com/v2/token", "ci:s3cret-s3cret")]
#[tokio::test]
async fn public_registries(
    #[case] repository: &str,
    #[case] host: &str,
    #[case] realm: &str,
    #[case] login: &'static str,
) {
    let auth = Auth::Bearer { login, uses: usize::MAX };
    let registry = Registry::start_with(auth, Some(format!("http://{realm}"))).await;
    let (realm_host, _) = realm.split_once('/').unwrap();
    let address = registry.host.parse().unwrap();
    let trust = Trust {
        insecure_hosts: vec![host.into(), realm_host.into()],
        addresses: vec![(host.into(), address), (realm_host.into(), address)],
        ..Trust::default()
    };
    let client = Client::with_patience(trust, super::patience()).unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let job = DoorJob {
        repository: Repository::parse(repository, None).unwrap(),
        credentials: super::login(user, password),
        ..job("x.io", &Told::default())
    };
    let pushed = push(client, job, &Image::new(&[100]), Store::Classic).await.1.unwrap();
    assert_eq!(registry.tag("latest"), Some(pushed.digest));
    let sent = registry.state().headers.concat();
    assert!(sent.contains(&format!("host: {host};")) && sent.contains(&format!("host: {realm_host};")), "{sent}");
    // The password went to the login host, once, and the token to the registry.
    assert_eq!(sent.matches("authorization: Basic").count(), 1);
}

/// What a login host may do wrong, and whether it is asked again.
#[rstest]
#[case::hangs(Fault::Hang, "RegistryTimeout", "gave no answer", true)]
#[case::endless(Fault::Endless(200), "RegistryRefused", "more than 262144 bytes", false)]
#[case::trickles(
    Fault::Trickle(std::time::Duration::from_millis(20)),
    "RegistryTimeout",
    "did not finish its answer",
    true
)]
#[case::busy(Fault::Answer(503, vec![], "busy"), "RegistryRefused", "answered 503: \"busy\"", true)]
#[case::rubbish(Fault::Answer(200, vec![], "<html>"), "RegistryRefused", "sends no token", false)]
#[case::empty(Fault::Answer(200, vec![], r#"{"token":""}"#), "RegistryRefused", "sends an empty token", false)]
#[case::not_a_header(Fault::Answer(200, vec![], r#"{"token":"a\nb"}"#), "RegistryRefused", "cannot be sent", false)]
#[case::redirects(Fault::Answer(307, vec![("location", "https://evil.example.com/token".into())], ""), "RegistryRefused", "answered 307", false)]
#[tokio::test]
async fn a_login_host_that_misbehaves(
    #[case] fault: Fault,
    #[case] reason: &str,
    #[case] says: &str,
    #[case] transient: bool,
) {
    let registry = Registry::start(Auth::Bearer { login: "ci:s3cret-s3cret", uses: usize::MAX }).await;
    registry.fail(Method::GET, "/token", usize::MAX, fault);
    let limits = windlass::registry::Patience {
        answer: std::time::Duration::from_millis(100),
        idle: std::time::Duration::from_millis(100),
        retry_for: std::time::Duration::from_millis(100),
        ..super::patience()
    };
    let client = Client::with_patience(trust(&registry), limits).unwrap();
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    let error = push(client, job, &Image::new(&[100]), Store::Classic).await.1.unwrap_err();
    assert_eq!((error.reason, error.transient), (reason, transient), "{error}");
    assert!(error.message.contains(says) && !error.message.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_login_host_that_is_busy_for_a_moment() {
    let registry = Registry::start(Auth::Bearer { login: "ci:s3cret-s3cret", uses: usize::MAX }).await;
    registry.fail(Method::GET, "/token", 2, Fault::Answer(429, vec![("retry-after", "0".into())], "slow down"));
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    push(client(&registry), job, &Image::new(&[100]), Store::Classic).await.1.unwrap();
    assert_eq!(registry.count("GET /token"), 3);
}

#[tokio::test]
async fn a_token_that_a_registry_quotes_is_taken_out() {
    let registry = Registry::start(Auth::Bearer { login: "ci:s3cret-s3cret", uses: usize::MAX }).await;
    registry.fail(Method::PUT, "/manifests/", usize::MAX, Fault::Answer(403, vec![], "no push for Bearer token-1"));
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    let error = failure(&registry, job, &Image::new(&[100])).await;
    assert!(error.message.ends_with("\"no push for Bearer ***\""), "{error}");
}
