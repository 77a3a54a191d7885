//! Images of one layer that no engine has.

use super::{
    Told, client,
    engine::{gzip, noise},
    fake::{Auth, Registry, digest},
    job,
};
use bytes::Bytes;
use rstest::rstest;
use tokio::sync::mpsc;
use windlass::registry::{DoorJob, NamedSecret, PushError, Pushed, Secret, push_layer};

const MIB: usize = 1 << 20;
const DOCUMENT: &[u8] = br#"{"os":"linux"}"#;

/// Pushes a layer in pieces whose maker ends so.
async fn push(
    registry: &Registry,
    job: DoorJob,
    layer: &Bytes,
    made: Result<Vec<u8>, PushError>,
) -> Result<Pushed, PushError> {
    let (sender, pieces) = mpsc::channel(2);
    let mut rest = layer.clone();
    tokio::spawn(async move {
        while !rest.is_empty() {
            // A push that ended takes no more.
            if sender.send(rest.split_to(rest.len().min(70_000))).await.is_err() {
                return;
            }
        }
    });
    push_layer(client(registry), job, pieces, async { made }).await
}

#[rstest]
#[case::whole(1000)]
#[case::streamed(9 * MIB)]
#[tokio::test]
async fn a_layer_becomes_an_image(#[case] size: usize) {
    let registry = Registry::start(Auth::Open).await;
    let told = Told::default();
    let layer = gzip(&noise(size));
    let config = Box::new(|document: &[u8]| {
        assert_eq!(document, DOCUMENT);
        Ok(b"{\"built\":1}".to_vec())
    });
    let job = DoorJob { config, layers: Some(1), ..job(&registry.host, &told) };
    let progress = job.progress.subscribe();
    let pushed = push(&registry, job, &layer, Ok(DOCUMENT.to_vec())).await.unwrap();
    assert_eq!(registry.state().blobs.get(&digest(&layer)), Some(&layer));
    assert!(registry.has(&digest(b"{\"built\":1}")) && !registry.has(&digest(DOCUMENT)));
    assert_eq!(pushed.size, layer.len() as u64 + 11);
    assert_eq!(told.all(), [format!("before {}", pushed.digest), "after v1".into(), "after latest".into()]);
    let (kind, manifest) = registry.state().manifests["v1"].clone();
    assert_eq!(kind, "application/vnd.docker.distribution.manifest.v2+json");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    assert_eq!(manifest["layers"][0]["digest"], digest(&layer));
    let progress = progress.borrow().clone();
    assert_eq!((progress.layers_sent, progress.layers_left, progress.bytes_done), (1, 0, layer.len() as u64));
}

#[rstest]
#[case::whole(1000)]
#[case::streamed(9 * MIB)]
#[tokio::test]
async fn a_layer_that_was_not_made_goes_nowhere(#[case] size: usize) {
    let registry = Registry::start(Auth::Open).await;
    let told = Told::default();
    let broken = PushError::new("UnsafeFile", "/x is a device");
    let pushed = push(&registry, job(&registry.host, &told), &gzip(&noise(size)), Err(broken.clone())).await;
    assert_eq!(pushed.unwrap_err(), broken);
    assert!(registry.state().blobs.is_empty() && told.all().is_empty());
    assert_eq!(registry.count("PUT"), 0, "nothing was closed");
}

#[tokio::test]
async fn a_secret_ends_it_and_so_does_a_stop() {
    let registry = Registry::start(Auth::Open).await;
    let layer = gzip(&[noise(6 * MIB), b"=hunter2-hunter2".to_vec(), noise(MIB)].concat());
    let secret = NamedSecret { name: "variable TOKEN".into(), value: Secret::new("hunter2-hunter2".into()) };
    let secrets = DoorJob { secrets: vec![secret], ..job(&registry.host, &Told::default()) };
    let error = push(&registry, secrets, &layer, Ok(DOCUMENT.to_vec())).await.unwrap_err();
    assert_eq!(error.reason, "SecretInLayer", "{error}");
    let stopped = job(&registry.host, &Told::default());
    stopped.stop.cancel();
    let error = push(&registry, stopped, &layer, Ok(DOCUMENT.to_vec())).await.unwrap_err();
    assert_eq!(error, PushError::stopped());
    assert!(registry.state().blobs.is_empty());
}
