//! Registries that are busy, broken, slow or lying.

use super::{
    Engine, Told, client,
    engine::{Image, Store},
    failure,
    fake::{Auth, Fault, Registry, digest},
    job, login, patience, push,
};
use http::Method;
use rstest::rstest;
use std::time::Duration;
use windlass::registry::{Client, Door, DoorJob, Patience, Trust};

const MIB: usize = 1 << 20;

fn busy(status: u16) -> Fault {
    Fault::Answer(status, vec![("retry-after", "0".into())], "busy")
}

/// What can be repeated is repeated: each request of a push fails twice, in each way, and the push succeeds.
#[rstest]
#[case(busy(429))]
#[case(busy(500))]
#[case(busy(503))]
#[case(Fault::Reset)]
#[case(Fault::LoseAnswer)]
#[tokio::test]
async fn a_fault_that_passes(#[case] fault: Fault) {
    let requests = [
        (Method::HEAD, "/blobs/"),
        (Method::POST, "/uploads/"),
        (Method::PUT, "/uploads/"),
        (Method::PUT, "/manifests/v1"),
    ];
    for (method, path) in requests {
        let registry = Registry::start(Auth::Open).await;
        registry.fail(method.clone(), path, 2, fault.clone());
        let told = Told::default();
        let image = Image::new(&[5 * MIB, 100]);
        let (seen, pushed) = push(client(&registry), job(&registry.host, &told), &image, Store::Containerd).await;
        assert_eq!(seen, Ok(()), "{method} {path}");
        let pushed = pushed.unwrap();
        assert_eq!(registry.tag("v1").as_ref(), Some(&pushed.digest));
        assert_eq!(told.all().len(), 3);
        assert!(image.layers.iter().all(|layer| registry.has(&digest(layer))));
    }
}

#[tokio::test]
async fn a_tag_whose_answer_was_lost_is_not_moved_again() {
    let registry = Registry::start(Auth::Open).await;
    registry.fail(Method::PUT, "/manifests/v1", 1, Fault::LoseAnswer);
    push(client(&registry), job(&registry.host, &Told::default()), &Image::new(&[10]), Store::Classic).await.1.unwrap();
    assert_eq!(registry.count("PUT /v2/team/app/manifests/v1"), 1);
}

#[rstest]
#[case(busy(500), "answered 500: \"busy\"")]
#[case(Fault::Reset, "broke")]
#[tokio::test]
async fn a_fault_that_does_not_pass(#[case] fault: Fault, #[case] says: &str) {
    let registry = Registry::start(Auth::Open).await;
    registry.fail(Method::PUT, "/manifests/", usize::MAX, fault);
    let limits = Patience { retry_for: Duration::from_millis(100), ..patience() };
    let trust = Trust { insecure_hosts: vec![registry.host.clone()], ..Trust::default() };
    let client = Client::with_patience(trust, limits).unwrap();
    let (seen, result) = push(client, job(&registry.host, &Told::default()), &Image::new(&[10]), Store::Classic).await;
    let error = result.unwrap_err();
    assert!(seen.is_err() && error.transient && error.message.contains(says), "{error}");
    assert!(registry.count("PUT /v2/team/app/manifests/v1") > 1);
}

#[tokio::test]
async fn a_pause_that_is_too_long_is_not_waited_for() {
    let registry = Registry::start(Auth::Open).await;
    registry.fail(Method::POST, "/uploads/", 1, Fault::Answer(429, vec![("retry-after", "86400".into())], ""));
    let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[10])).await;
    assert_eq!(error.reason, "RegistryRefused");
    assert_eq!(error.retry_after, Some(Duration::from_secs(86400)));
}

#[rstest]
#[case(422, "RegistryRefused")]
#[case(400, "RegistryRefused")]
#[case(405, "RegistryRefused")]
#[case(413, "RegistryRefused")]
#[case(409, "RegistryRefused")]
#[case(404, "RegistryRefused")]
#[case(403, "RegistryForbidden")]
#[tokio::test]
async fn what_a_registry_refuses_is_not_repeated(#[case] status: u16, #[case] reason: &str) {
    let registry = Registry::start(Auth::Open).await;
    let said = r#"{"errors":[{"code":"TAG_IMMUTABLE","message":"v1 is immutable"}]}"#;
    registry.fail(Method::PUT, "/manifests/", usize::MAX, Fault::Answer(status, vec![], said));
    let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[10])).await;
    assert_eq!((error.reason, error.transient), (reason, false));
    assert!(error.message.contains("TAG_IMMUTABLE: v1 is immutable"), "{error}");
    assert_eq!(registry.count("PUT /v2/team/app/manifests/"), 1);
}

/// Each request of a push, and a final answer to it: it is sent once, and the step has the registry's words.
#[rstest]
#[case(Method::HEAD, "/blobs/", 301)]
#[case(Method::POST, "/uploads/", 422)]
#[case(Method::PATCH, "/uploads/", 422)]
#[case(Method::PUT, "/uploads/", 422)]
#[tokio::test]
async fn a_final_answer_is_final_for_each_request(
    #[case] method: Method,
    #[case] path: &'static str,
    #[case] status: u16,
) {
    let registry = Registry::start(Auth::Open).await;
    registry.fail(method.clone(), path, usize::MAX, Fault::Answer(status, vec![], "{\"message\":\"no\"}"));
    // The image is one layer and its config, and the layer streams.
    let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[5 * MIB])).await;
    assert_eq!((error.reason, error.transient), ("RegistryRefused", false), "{error}");
    assert!(error.message.contains(&format!("team/app answered {status}")), "{error}");
    let sent =
        registry.state().log.iter().filter(|line| line.starts_with(method.as_str()) && line.contains(path)).count();
    assert!(sent <= 2, "{:?}", registry.state().log);
    assert_eq!(registry.count("PUT /v2/team/app/manifests/"), 0);
}

/// A registry that keeps blobs elsewhere answers with where. A store that has no TLS and is not listed is not asked.
#[rstest]
#[case(302)]
#[case(307)]
#[tokio::test]
async fn a_blob_may_lie_in_a_store(#[case] status: u16) {
    let registry = Registry::start(Auth::Open).await;
    let store = Registry::start(Auth::Open).await;
    let location = ("location", format!("http://{}/blob", store.host));
    let image = Image::new(&[5 * MIB, 100]);
    push(client(&registry), job(&registry.host, &Told::default()), &image, Store::Classic).await.1.unwrap();
    registry.fail(Method::HEAD, "/blobs/", usize::MAX, Fault::Answer(status, vec![location], "moved"));
    let again = job(&registry.host, &Told::default());
    push(client(&registry), again, &image, Store::Classic).await.1.unwrap();
    assert_eq!(store.state().log.len(), 0);
}

/// One that answers so before it knows that a blob is there: the store has the last word, and is asked without the login.
#[rstest]
#[case(302)]
#[case(303)]
#[case(307)]
#[tokio::test]
async fn a_store_that_has_no_such_blob_does_not_spare_the_upload(#[case] status: u16) {
    let registry = Registry::start(Auth::Basic("ci:s3cret-s3cret")).await;
    let store = Registry::start(Auth::Open).await;
    let location = ("location", format!("http://{}/v2/team/app/blobs/sha256:none", store.host));
    registry.fail(Method::HEAD, "/blobs/", usize::MAX, Fault::Answer(status, vec![location], "moved"));
    let insecure_hosts = vec![registry.host.clone(), store.host.clone()];
    let client = Client::with_patience(Trust { insecure_hosts, ..Trust::default() }, patience()).unwrap();
    let job = DoorJob { credentials: login("ci", "s3cret-s3cret"), ..job(&registry.host, &Told::default()) };
    let image = Image::new(&[5 * MIB, 100]);
    push(client, job, &image, Store::Classic).await.1.unwrap();
    assert!(image.layers.iter().all(|layer| registry.has(&digest(layer))));
    let asked = store.state().log.clone();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.starts_with("HEAD ")), "{asked:?}");
    assert!(!store.state().headers.concat().contains("authorization"), "the login went to the store");
}

/// A body that was streaming when the connection broke is sent again by the engine, as Docker does.
#[rstest]
#[case(Fault::Reset)]
#[case(Fault::ResetAfter(5 * MIB))]
#[case(busy(503))]
#[case(Fault::LoseAnswer)]
#[tokio::test]
async fn a_stream_that_breaks_is_the_engines_to_repeat(#[case] fault: Fault) {
    for store in [Store::Classic, Store::Containerd] {
        let registry = Registry::start(Auth::Open).await;
        registry.fail(Method::PATCH, "/uploads/", 1, fault.clone());
        let door = Door::open(client(&registry), job(&registry.host, &Told::default())).await.unwrap();
        let engine = Engine::new(door.target(), store);
        let image = Image::new(&[8 * MIB]);
        assert!(engine.push(&image).await.is_err());
        engine.push(&image).await.unwrap();
        door.close().await.unwrap();
        assert!(registry.has(&digest(&image.layers[0])));
    }
}

#[tokio::test]
async fn an_engine_that_does_not_repeat_learns_that_it_could() {
    let registry = Registry::start(Auth::Open).await;
    registry.fail(Method::PATCH, "/uploads/", 1, Fault::ResetAfter(5 * MIB));
    let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[8 * MIB])).await;
    assert!(error.transient, "{error:?}");
    assert_eq!(error.reason, "RegistryUnreachable");
}

#[rstest]
#[case(Method::PATCH, "/uploads/")]
#[case(Method::PUT, "/uploads/")]
#[case(Method::HEAD, "/blobs/")]
#[case(Method::PUT, "/manifests/")]
#[tokio::test]
async fn a_registry_that_hangs(#[case] method: Method, #[case] path: &'static str) {
    let registry = Registry::start(Auth::Open).await;
    registry.fail(method, path, usize::MAX, Fault::Hang);
    let limits = Patience {
        answer: Duration::from_millis(100),
        commit: Duration::from_millis(100),
        idle: Duration::from_millis(100),
        retry_for: Duration::from_millis(100),
        ..patience()
    };
    let trust = Trust { insecure_hosts: vec![registry.host.clone()], ..Trust::default() };
    let client = Client::with_patience(trust, limits).unwrap();
    // More than fits into the buffers on the way.
    let image = Image::new(&[24 * MIB]);
    let error = push(client, job(&registry.host, &Told::default()), &image, Store::Classic).await.1.unwrap_err();
    assert_eq!((error.reason, error.transient), ("RegistryTimeout", true), "{error}");
}

/// Each answer says where the upload goes on; the next request goes there, on the same registry.
#[rstest]
#[case::relative(|_: &str| "/v2/team/app/blobs/uploads/u1?_state=a%2Fb%3D".into())]
#[case::absolute(|host: &str| format!("http://{host}/v2/team/app/blobs/uploads/u1?_state=a%2Fb%3D"))]
#[case::with_a_fragment(|host: &str| format!("//{host}/v2/team/app/blobs/uploads/u1?_state=a%2Fb%3D#x"))]
#[tokio::test]
async fn an_upload_that_moves_is_followed(#[case] location: fn(&str) -> String) {
    let registry = Registry::start(Auth::Open).await;
    let location = location(&registry.host);
    registry.fail(Method::PATCH, "/uploads/", usize::MAX, Fault::Headers(vec![("location", location)]));
    let image = Image::new(&[6 * MIB]);
    push(client(&registry), job(&registry.host, &Told::default()), &image, Store::Classic).await.1.unwrap();
    let moved = "PUT /v2/team/app/blobs/uploads/u1?_state=a%2Fb%3D&digest=sha256%3A";
    assert_eq!(registry.count(moved), 1, "{:?}", registry.state().log);
    assert!(registry.has(&digest(&image.layers[0])));
}

#[rstest]
#[case::a_user(|host: &str| format!("http://ci@{host}/u1"), "sends the upload to another host")]
#[case::another_port(|_: &str| "http://127.0.0.1:1/u1".into(), "sends the upload to another host")]
#[case::no_address(|_: &str| "http://[".into(), "to an address that is none")]
#[tokio::test]
async fn an_upload_that_moves_away_is_not_followed(#[case] location: fn(&str) -> String, #[case] says: &str) {
    let registry = Registry::start(Auth::Open).await;
    let location = location(&registry.host);
    registry.fail(Method::PATCH, "/uploads/", usize::MAX, Fault::Headers(vec![("location", location)]));
    let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[6 * MIB])).await;
    assert_eq!((error.reason, error.transient), ("RegistryRefused", false), "{error}");
    assert!(error.message.contains(says), "{error}");
}

#[tokio::test]
async fn a_rate_limit_that_stays_is_told() {
    let registry = Registry::start(Auth::Open).await;
    let said = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    registry.fail(Method::POST, "/uploads/", usize::MAX, Fault::Answer(429, vec![("retry-after", "0".into())], said));
    let limits = Patience { retry_for: Duration::from_millis(100), ..patience() };
    let trust = Trust { insecure_hosts: vec![registry.host.clone()], ..Trust::default() };
    let client = Client::with_patience(trust, limits).unwrap();
    let (_, result) = push(client, job(&registry.host, &Told::default()), &Image::new(&[10]), Store::Classic).await;
    let error = result.unwrap_err();
    assert!(error.transient && error.reason == "RegistryRefused", "{error:?}");
    assert!(error.message.contains("429: \"TOOMANYREQUESTS: You have reached your pull rate limit.\""), "{error}");
}

#[rstest]
#[case(Method::POST, "/uploads/")]
#[case(Method::PUT, "/manifests/")]
#[tokio::test]
async fn an_answer_that_trickles_is_cut_off(#[case] method: Method, #[case] path: &'static str) {
    let registry = Registry::start(Auth::Open).await;
    registry.fail(method, path, usize::MAX, Fault::Trickle(Duration::from_millis(20)));
    let limits = Patience { idle: Duration::from_millis(100), retry_for: Duration::from_millis(100), ..patience() };
    let trust = Trust { insecure_hosts: vec![registry.host.clone()], ..Trust::default() };
    let client = Client::with_patience(trust, limits).unwrap();
    let (_, result) = push(client, job(&registry.host, &Told::default()), &Image::new(&[10]), Store::Classic).await;
    assert_eq!(result.unwrap_err().reason, "RegistryTimeout");
}

#[rstest]
#[case(200, Method::GET, "/manifests/")]
#[case(404, Method::POST, "/uploads/")]
#[case(401, Method::POST, "/uploads/")]
#[case(202, Method::POST, "/uploads/")]
#[case(201, Method::PUT, "/manifests/")]
#[tokio::test]
async fn an_answer_without_end_is_cut_off(#[case] status: u16, #[case] method: Method, #[case] path: &'static str) {
    let registry = Registry::start(Auth::Open).await;
    if method == Method::GET {
        // Without a digest in the HEAD the manifest itself is read.
        registry.fail(Method::HEAD, path, 1, Fault::Answer(200, vec![], ""));
    }
    registry.fail(method.clone(), path, usize::MAX, Fault::Endless(status));
    if method == Method::GET {
        let error = super::session(&registry).head_manifest("v1").await.unwrap_err();
        assert_eq!(error.reason, "RegistryRefused", "{error}");
        return;
    }
    let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[10])).await;
    assert!(["RegistryRefused", "RegistryUnauthorized"].contains(&error.reason), "{error}");
    assert!(error.message.len() < 600, "{error}");
}

#[rstest]
#[case(Method::PUT, "/manifests/")]
#[case(Method::PUT, "/uploads/")]
#[tokio::test]
async fn a_registry_that_stored_something_else(#[case] method: Method, #[case] path: &'static str) {
    let registry = Registry::start(Auth::Open).await;
    registry.fail(method, path, usize::MAX, Fault::Headers(vec![("docker-content-digest", digest(b"else"))]));
    let error = failure(&registry, job(&registry.host, &Told::default()), &Image::new(&[10])).await;
    assert_eq!((error.reason, error.transient), ("DigestMismatch", false), "{error}");
}

#[tokio::test]
async fn a_registry_that_is_not_there() {
    let registry = Registry::start(Auth::Open).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let trust = Trust { insecure_hosts: vec![nobody.clone()], ..Trust::default() };
    let client = Client::with_patience(trust, patience()).unwrap();
    let error = push(client, job(&nobody, &Told::default()), &Image::new(&[10]), Store::Classic).await.1.unwrap_err();
    assert_eq!((error.reason, error.transient), ("RegistryUnreachable", true));
    assert_eq!(error.message, format!("{nobody} cannot be reached: connection refused"));
    assert_eq!(registry.state().log.len(), 0);
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let client = Client::with_patience(Trust::default(), patience()).unwrap();
    let job = job("registry.invalid", &Told::default());
    let error = push(client, job, &Image::new(&[10]), Store::Classic).await.1.unwrap_err();
    assert_eq!(error.reason, "RegistryUnreachable");
    assert!(error.message.starts_with("registry.invalid cannot be reached: its name does not resolve"), "{error}");
}

/// A registry is named by users; the agent is on the node's own network.
#[rstest]
#[case("127.0.0.1:1")]
#[case("localhost:1")]
#[case("169.254.169.254")]
#[tokio::test]
async fn the_node_itself_is_out_of_reach(#[case] host: &str) {
    let client = Client::with_patience(Trust::default(), patience()).unwrap();
    let error = push(client, job(host, &Told::default()), &Image::new(&[10]), Store::Classic).await.1.unwrap_err();
    assert_eq!((error.reason, error.transient), ("RegistryUnreachable", false));
    assert!(error.message.contains("reserved for the node"), "{error}");
}

/// A blob that was there when the engine asked, and was swept away before the manifest came: the call is not repeated, but
/// the caller may push again.
#[tokio::test]
async fn a_blob_that_was_swept_away_begins_the_push_anew() {
    let registry = Registry::start(Auth::Open).await;
    let words = "{\"errors\":[{\"code\":\"MANIFEST_BLOB_UNKNOWN\",\"message\":\"blob unknown to registry\"}]}";
    registry.fail(Method::PUT, "/manifests/", 1, Fault::Answer(400, vec![], words));
    let image = Image::new(&[100]);
    let error = failure(&registry, job(&registry.host, &Told::default()), &image).await;
    assert!(error.transient, "{error}");
    assert_eq!((error.reason, registry.count("PUT /v2/team/app/manifests/")), ("RegistryRefused", 1), "{error}");
    push(client(&registry), job(&registry.host, &Told::default()), &image, Store::Classic).await.1.unwrap();
}
