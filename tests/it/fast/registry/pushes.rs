//! Pushes that work, and what their callers can stop.

use super::{
    CONFIG, Told, client,
    engine::{Engine, Image, OCI, Store, full, gzip, noise, tar},
    failure,
    fake::{Auth, Fault, Registry, digest},
    job, push, session,
};
use bytes::Bytes;
use http::Method;
use rstest::rstest;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use windlass::{
    api::push::SecretsInImage,
    engine::is_door,
    registry::{Door, DoorJob, NamedSecret, PushError, Secret, digest::Digest},
};

const MIB: usize = 1 << 20;

#[rstest]
#[case(Store::Classic)]
#[case(Store::Containerd)]
#[tokio::test]
async fn layers_go_through_and_the_config_is_swapped(#[case] store: Store) {
    let registry = Registry::start(Auth::Open).await;
    let image = Image::new(&[9 * MIB, 100, 5 * MIB, 5 * MIB, 200_000, 1, 2, 3]);
    let told = Told::default();
    let job = job(&registry.host, &told);
    let progress = job.progress.subscribe();
    let (seen, pushed) = push(client(&registry), job, &image, store).await;
    assert_eq!(seen, Ok(()));
    let pushed = pushed.unwrap();
    assert_eq!(pushed.tags, ["v1", "latest"]);
    assert_eq!(told.all(), [format!("before {}", pushed.digest), "after v1".into(), "after latest".into()]);
    for layer in &image.layers {
        assert_eq!(registry.state().blobs.get(&digest(layer)), Some(layer));
    }
    assert!(registry.has(&digest(CONFIG)));
    let expected: u64 = image.layers.iter().map(|layer| layer.len() as u64).sum::<u64>() + CONFIG.len() as u64;
    assert_eq!(pushed.size, expected);
    for tag in ["v1", "latest"] {
        assert_eq!(registry.tag(tag).as_ref(), Some(&pushed.digest));
        assert_eq!(registry.count(&format!("PUT /v2/team/app/manifests/{tag}")), 1);
    }
    assert_eq!(registry.state().manifests["v1"].0, OCI);
    let received = registry.state().received.clone();
    assert!(!holds(&received, "KUBERNETES_"), "the engine's own config reached the registry");
    let progress = progress.borrow().clone();
    assert_eq!((progress.layers_there, progress.layers_sent, progress.layers_left), (0, 8, 0));
    assert_eq!(progress.bytes_done, expected - CONFIG.len() as u64 + image.config.len() as u64);
    assert_eq!(progress.bytes_total.is_some(), store == Store::Containerd);
}

fn holds(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}

#[rstest]
#[case(Store::Classic)]
#[case(Store::Containerd)]
#[tokio::test]
async fn what_is_there_is_not_sent_again(#[case] store: Store) {
    let registry = Registry::start(Auth::Open).await;
    let image = Image::new(&[5 * MIB, 1000]);
    let first = push(client(&registry), job(&registry.host, &Told::default()), &image, store).await.1.unwrap();
    let before = registry.count("POST /v2/team/app/blobs/uploads/");
    let again = job(&registry.host, &Told::default());
    let again = DoorJob { tags: vec!["v2".into(), "v2".into()], ..again };
    let progress = again.progress.subscribe();
    let pushed = push(client(&registry), again, &image, store).await.1.unwrap();
    assert_eq!((pushed.digest, pushed.tags), (first.digest, vec!["v2".to_owned()]));
    // The config, which is always put.
    assert_eq!(registry.count("POST /v2/team/app/blobs/uploads/"), before + 1);
    assert_eq!((progress.borrow().layers_there, progress.borrow().layers_sent), (2, 0));
}

#[tokio::test]
async fn even_a_config_that_the_registry_has_is_taken_from_the_engine() {
    let registry = Registry::start(Auth::Open).await;
    let image = Image::new(&[10]);
    registry.state().blobs.insert(digest(&image.config), image.config.clone());
    let pushed =
        push(client(&registry), job(&registry.host, &Told::default()), &image, Store::Containerd).await.1.unwrap();
    let manifest = String::from_utf8(registry.state().manifests["v1"].1.to_vec()).unwrap();
    assert!(manifest.contains(&digest(CONFIG)) && !manifest.contains(&digest(&image.config)), "{}", pushed.digest);
}

#[tokio::test]
async fn a_config_that_is_too_large_goes_nowhere() {
    let registry = Registry::start(Auth::Open).await;
    let mut image = Image::new(&[10]);
    image.config = format!("{{\"KUBERNETES_\":\"{}\"}}", "x".repeat(5 * MIB)).into();
    let error = failure(&registry, job(&registry.host, &Told::default()), &image).await;
    assert_eq!(error.reason, "CommitFailed", "{error}");
    assert!(!holds(&registry.state().received, "KUBERNETES_"));
}

#[tokio::test]
async fn a_layer_may_be_an_uncompressed_tar() {
    let registry = Registry::start(Auth::Open).await;
    let image = Image::with_layers(vec![tar("small", &noise(600)), tar("large", &noise(5 * MIB))]);
    push(client(&registry), job(&registry.host, &Told::default()), &image, Store::Classic).await.1.unwrap();
    assert!(image.layers.iter().all(|layer| registry.has(&digest(layer))));
}

#[tokio::test]
async fn the_door_is_closed_to_others() {
    let registry = Registry::start(Auth::Open).await;
    let door = Door::open(client(&registry), job(&registry.host, &Told::default())).await.unwrap();
    assert!(is_door(&format!("{}:x", door.target())), "what was committed for it is swept by its name");
    let (address, _) = door.target().split_once('/').unwrap();
    let mut stranger = Engine::new(&format!("{address}/00000000000000000000000000000000/x"), Store::Classic);
    let error = stranger.blob(&Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error, "open: 404 ");
    assert!(stranger.manifest(&Image::new(&[])).await.unwrap_err().starts_with("manifest: 404"));
    stranger.base = "/v2".into();
    assert_eq!(stranger.send(Method::GET, "/v2/_catalog", "", full(Bytes::new())).await.unwrap().0, 404);
    assert_eq!(stranger.send(Method::GET, "/v2/", "", full(Bytes::new())).await.unwrap().0, 200);
    assert_eq!(registry.state().log, Vec::<String>::new(), "a stranger's request went on to the registry");
    // Nothing was pushed.
    let address = address.to_owned();
    let error = door.close().await.unwrap_err();
    assert_eq!((error.reason, error.transient), ("CommitFailed", true));
    assert!(TcpStream::connect(address).await.is_err(), "a closed door is open");
}

#[tokio::test]
async fn a_dropped_door_is_closed() {
    let registry = Registry::start(Auth::Open).await;
    let door = Door::open(client(&registry), job(&registry.host, &Told::default())).await.unwrap();
    let address = door.target().split_once('/').unwrap().0.to_owned();
    drop(door);
    // The task that accepts connections sees it when it runs next.
    while TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn tls_is_answered_so_that_an_engine_falls_back() {
    let registry = Registry::start(Auth::Open).await;
    let door = Door::open(client(&registry), job(&registry.host, &Told::default())).await.unwrap();
    let mut stream = TcpStream::connect(door.target().split_once('/').unwrap().0).await.unwrap();
    // The beginning of a ClientHello.
    stream.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn an_engine_that_lies_about_a_digest_is_refused() {
    let registry = Registry::start(Auth::Open).await;
    let door = Door::open(client(&registry), job(&registry.host, &Told::default())).await.unwrap();
    let engine = Engine::new(door.target(), Store::Containerd);
    let path = format!("{}/blobs/uploads/?digest={}", engine.base, digest(b"another"));
    let (status, _, text) = engine.send(Method::POST, &path, "", full(gzip(b"this"))).await.unwrap();
    assert_eq!(status, 503, "{text}");
    assert!(registry.state().blobs.is_empty());
    assert_eq!(door.close().await.unwrap_err().reason, "DigestMismatch");
}

#[tokio::test]
async fn a_manifest_without_its_blobs_is_refused() {
    let registry = Registry::start(Auth::Open).await;
    let image = Image::new(&[10, 20]);
    for sent in
        [vec![], vec![&image.config], vec![&image.config, &image.layers[0]], vec![&image.layers[0], &image.layers[1]]]
    {
        let told = Told::default();
        registry.state().blobs.clear();
        let door = Door::open(client(&registry), job(&registry.host, &told)).await.unwrap();
        let engine = Engine::new(door.target(), Store::Classic);
        for blob in sent {
            engine.blob(blob).await.unwrap();
        }
        assert!(engine.manifest(&image).await.is_err());
        assert_eq!(door.close().await.unwrap_err().reason, "CommitFailed");
        assert_eq!((told.all(), registry.count("PUT /v2/team/app/manifests/")), (vec![], 0));
    }
}

#[tokio::test]
async fn a_second_manifest_moves_no_tag_again() {
    let registry = Registry::start(Auth::Open).await;
    let image = Image::new(&[10]);
    let told = Told::default();
    let door = Door::open(client(&registry), job(&registry.host, &told)).await.unwrap();
    let engine = Engine::new(door.target(), Store::Classic);
    engine.push(&image).await.unwrap();
    engine.manifest(&image).await.unwrap();
    door.close().await.unwrap();
    assert_eq!(registry.count("PUT /v2/team/app/manifests/"), 2);
    assert_eq!(told.all().len(), 3);
}

#[tokio::test]
async fn nothing_moves_if_the_digest_is_not_recorded() {
    let registry = Registry::start(Auth::Open).await;
    let refuse: windlass::registry::door::BeforeTags =
        Box::new(|_| Box::pin(async { Err(PushError::new("Cancelled", "status cannot be written")) }));
    let job = DoorJob { before_tags: refuse, ..job(&registry.host, &Told::default()) };
    let error = failure(&registry, job, &Image::new(&[10])).await;
    assert_eq!(error, PushError::new("Cancelled", "status cannot be written"));
    assert_eq!(registry.count("PUT /v2/team/app/manifests/"), 0);
}

/// A tag that is on its way may move, whatever is cancelled: it must be told of.
#[tokio::test]
async fn a_stop_while_a_tag_moves_waits_for_the_answer() {
    let registry = Registry::start(Auth::Open).await;
    registry.fail(Method::PUT, "/manifests/v1", 1, Fault::Slow(Duration::from_millis(500)));
    let told = Told::default();
    let job = job(&registry.host, &told);
    let stop = job.stop.clone();
    let image = Image::new(&[10]);
    let cancelled = async {
        while registry.count("PUT /v2/team/app/manifests/v1") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
    };
    let ((_, result), ()) = tokio::join!(push(client(&registry), job, &image, Store::Classic), cancelled);
    assert_eq!(result.unwrap_err().reason, "Cancelled");
    assert!(registry.tag("v1").is_some() && registry.tag("latest").is_none());
    assert!(told.all().iter().any(|told| told.contains("v1")), "{:?}", told.all());
}

#[tokio::test]
async fn a_stop_between_tags_leaves_the_rest_alone() {
    let registry = Registry::start(Auth::Open).await;
    let job = job(&registry.host, &Told::default());
    let stop = job.stop.clone();
    let after: windlass::registry::door::AfterTag = Box::new(move |_| {
        stop.cancel();
        Box::pin(async { Ok(()) })
    });
    let image = Image::new(&[10]);
    let (_, result) = push(client(&registry), DoorJob { after_tag: after, ..job }, &image, Store::Classic).await;
    assert_eq!(result.unwrap_err().reason, "Cancelled");
    assert!(registry.tag("v1").is_some() && registry.tag("latest").is_none());
}

#[tokio::test]
async fn after_a_crash_the_registry_says_what_is_left() {
    let registry = Registry::start(Auth::Open).await;
    let first = DoorJob { tags: vec!["v1".into()], ..job(&registry.host, &Told::default()) };
    let pushed = push(client(&registry), first, &Image::new(&[10]), Store::Classic).await.1.unwrap();
    let digest = Digest::parse(&pushed.digest).unwrap();
    let session = session(&registry);
    assert_eq!(session.head_manifest("v1").await.unwrap(), Some(digest.clone()));
    assert_eq!(session.head_manifest("latest").await.unwrap(), None);
    session.tag_again(&digest, "latest").await.unwrap();
    assert_eq!(registry.tag("latest"), Some(pushed.digest));
    let gone = session.tag_again(&Digest::of(b"gone"), "latest").await.unwrap_err();
    assert_eq!(gone.reason, "Interrupted");
}

fn secret() -> Vec<NamedSecret> {
    vec![NamedSecret { name: "variable TOKEN".into(), value: Secret::new("hunter2-hunter2".into()) }]
}

/// A layer with a secret at its very end, behind this much of anything.
fn leaking(before: usize) -> Image {
    Image::with_layers(vec![gzip(&[noise(before), b"=hunter2-hunter2".to_vec()].concat())])
}

#[rstest]
#[case(Store::Classic, 10)]
#[case(Store::Classic, 6 * MIB)]
#[case(Store::Containerd, 10)]
#[case(Store::Containerd, 6 * MIB)]
#[tokio::test]
async fn a_layer_with_a_secret_is_not_pushed(#[case] store: Store, #[case] before: usize) {
    let registry = Registry::start(Auth::Open).await;
    let image = leaking(before);
    let told = Told::default();
    let job = DoorJob { secrets: secret(), ..job(&registry.host, &told) };
    let (seen, result) = push(client(&registry), job, &image, store).await;
    let error = result.unwrap_err();
    assert_eq!(error.reason, "SecretInLayer");
    assert!(error.message.contains("variable TOKEN"), "{error}");
    assert!(!error.message.contains("hunter2") && !seen.unwrap_err().contains("hunter2"));
    assert!(registry.state().blobs.is_empty(), "the layer is in the registry");
    let streamed = usize::from(before > MIB);
    assert_eq!(registry.count("DELETE /v2/team/app/blobs/uploads/"), streamed, "what came of it stays there");
    assert_eq!(told.all(), Vec::<String>::new());
}

#[rstest]
#[case(SecretsInImage::Warn, 1)]
#[case(SecretsInImage::Allow, 0)]
#[tokio::test]
async fn a_secret_may_be_let_through(#[case] policy: SecretsInImage, #[case] warnings: usize) {
    let registry = Registry::start(Auth::Open).await;
    let job = DoorJob { secrets: secret(), secrets_in_image: policy, ..job(&registry.host, &Told::default()) };
    let pushed = push(client(&registry), job, &leaking(5 * MIB), Store::Classic).await.1.unwrap();
    assert_eq!(pushed.warnings.len(), warnings, "{:?}", pushed.warnings);
    assert!(!format!("{pushed:?}").contains("hunter2"));
}

/// What is there came by a push that was judged by its own policy, or is the box image's; so it is for small layers, which
/// the engine sends all the same, and for large ones, which it does not.
#[rstest]
#[tokio::test]
async fn a_layer_that_the_registry_has_is_not_searched(
    #[values(Store::Classic, Store::Containerd)] store: Store,
    #[values(10, 6 * MIB)] before: usize,
) {
    let registry = Registry::start(Auth::Open).await;
    let image = leaking(before);
    for policy in [SecretsInImage::Allow, SecretsInImage::Deny] {
        let job = DoorJob { secrets: secret(), secrets_in_image: policy, ..job(&registry.host, &Told::default()) };
        push(client(&registry), job, &image, store).await.1.unwrap();
    }
}

/// Layers that cannot be searched to their end: of no known kind, and broken off.
#[rstest]
#[case::xz(Bytes::from_static(b"\xfd7zXZ\0\0\x04rest"), "neither a tar nor compressed")]
#[case::no_tar(Bytes::from_static(b"{harmless"), "neither a tar nor compressed")]
#[case::cut(gzip(&noise(6 * MIB)).slice(..5 * MIB), "cannot be unpacked")]
#[case::cut_and_small(gzip(&noise(1000)).slice(..500), "cannot be unpacked")]
#[case::zstd_of_nothing(Bytes::from_static(b"\x28\xb5\x2f\xfdrest"), "cannot be unpacked")]
#[tokio::test]
async fn a_layer_that_cannot_be_searched_is_pushed_only_if_the_step_says_so(#[case] layer: Bytes, #[case] says: &str) {
    let image = Image::with_layers(vec![layer]);
    for store in [Store::Classic, Store::Containerd] {
        let registry = Registry::start(Auth::Open).await;
        let told = Told::default();
        let job = DoorJob { secrets: secret(), ..job(&registry.host, &told) };
        let error = push(client(&registry), job, &image, store).await.1.unwrap_err();
        assert_eq!((error.reason, error.transient), ("SecretsNotSearched", false), "{error}");
        assert!(error.message.contains(says) && error.message.contains("Warn or Allow"), "{error}");
        assert!(registry.state().blobs.is_empty() && told.all().is_empty(), "the layer is in the registry");
    }
    for (policy, warnings) in [(SecretsInImage::Warn, 1), (SecretsInImage::Allow, 0)] {
        let registry = Registry::start(Auth::Open).await;
        let job = DoorJob { secrets: secret(), secrets_in_image: policy, ..job(&registry.host, &Told::default()) };
        let pushed = push(client(&registry), job, &image, Store::Classic).await.1.unwrap();
        assert_eq!(pushed.warnings.len(), warnings, "{:?}", pushed.warnings);
        assert!(pushed.warnings.iter().all(|warning| warning.contains(says)), "{:?}", pushed.warnings);
    }
}

#[tokio::test]
async fn a_secret_in_the_config_counts_too() {
    let registry = Registry::start(Auth::Open).await;
    let config: windlass::registry::door::Rebuild =
        Box::new(|_| Ok(br#"{"config":{"Labels":{"a":"hunter2-hunter2"}}}"#.to_vec()));
    let job = DoorJob { secrets: secret(), config, ..job(&registry.host, &Told::default()) };
    let error = failure(&registry, job, &Image::new(&[10])).await;
    assert_eq!(error.reason, "SecretInLayer");
    assert!(!error.message.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_secret_in_the_engines_own_config_does_not_count() {
    let registry = Registry::start(Auth::Open).await;
    let mut image = Image::new(&[10]);
    image.config = format!("{{\"a\":\"hunter2-hunter2\",\"b\":\"{}\"}}", "x".repeat(2 * MIB)).into();
    let job = DoorJob { secrets: secret(), ..job(&registry.host, &Told::default()) };
    push(client(&registry), job, &image, Store::Classic).await.1.unwrap();
    assert!(!holds(&registry.state().received, "hunter2"));
}

#[tokio::test]
async fn a_layer_that_looks_like_a_config_is_searched_too() {
    let registry = Registry::start(Auth::Open).await;
    for (text, passes) in [("harmless", true), ("hunter2-hunter2", false)] {
        let layer = tar("{file", text.as_bytes());
        let image = Image::with_layers(vec![layer.clone()]);
        let job = DoorJob { secrets: secret(), ..job(&registry.host, &Told::default()) };
        let (_, result) = push(client(&registry), job, &image, Store::Classic).await;
        assert_eq!(result.map_err(|error| error.reason).err(), (!passes).then_some("SecretInLayer"));
        assert_eq!(registry.has(&digest(&layer)), passes);
    }
}
