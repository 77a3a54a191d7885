//! The artifact server over a directory: who may do what, what stays, and what goes.

use super::registry::Image;
use crate::artifact_server::{
    ArtifactServer, TOKEN, place, what_is_not_whole_does_not_count, what_is_stored_can_be_read,
};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use rstest::rstest;
use std::{path::Path, time::Duration};
use windlass::{
    agent::shelf::Shelf,
    artifacts::{
        retention::Retention,
        store::Store,
        sweep::{Swept, sweep},
    },
    registry::{DoorJob, digest::Digest},
};

const HOUR: i64 = 3600;

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Files below a directory.
fn files(path: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn what_is_stored_in_a_directory_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    what_is_stored_can_be_read(Store::directory(dir.path()).unwrap()).await;
    // Two layers and a config, though two containers were stored.
    assert_eq!((files(&dir.path().join("blobs")), files(&dir.path().join("runs"))), (3, 2));
    assert_eq!(files(&dir.path().join("uploads")), 0);
}

#[tokio::test]
async fn what_is_not_whole_does_not_count_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    what_is_not_whole_does_not_count(Store::directory(dir.path()).unwrap()).await;
    assert_eq!(files(&dir.path().join("uploads")), 0);
}

#[tokio::test]
async fn who_does_not_know_the_place_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = ArtifactServer::start(Store::directory(dir.path()).unwrap()).await;
    let image = Image::new(&[1000]);
    let (here, other) = (place("team/app/11-aa"), place("team/web/22-bb"));
    let pushed = server.store(&here, &image).await.unwrap();
    server.store(&other, &Image::new(&[1000])).await.unwrap();
    let layer = Digest::of(&image.layers[0]);
    for path in [
        format!("/v2/team/app/11-ab/manifests/{}", pushed.digest),
        format!("/v2/{other}/manifests/{}", pushed.digest),
        // A blob that is there, but that the container at this place does not have.
        format!("/v2/{other}/blobs/{layer}"),
        format!("/v2/team/app/11-ab/blobs/{layer}"),
        "/v2/_catalog".to_owned(),
        "/v2/team/app/tags/list".to_owned(),
        "/v2/team/../app/manifests/stored".to_owned(),
    ] {
        let answer = server.person(&path, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(server.person(&format!("/v2/{here}/blobs/{layer}"), None).await.status, StatusCode::OK);
}

#[rstest]
#[case::nobody(None)]
#[case::somebody(Some("token-of-somebody"))]
#[tokio::test]
async fn only_agents_write(#[case] token: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let server = ArtifactServer::start(Store::directory(dir.path()).unwrap()).await;
    let digest = Digest::of(b"");
    for (method, path) in [
        (Method::HEAD, format!("/v2/team/app/11-aa/blobs/{digest}")),
        (Method::HEAD, "/v2/team/app/11-aa/manifests/stored".to_owned()),
        (Method::POST, "/v2/team/app/11-aa/blobs/uploads/".to_owned()),
        (Method::PUT, "/v2/team/app/11-aa/manifests/stored".to_owned()),
        (Method::DELETE, "/v2/team/app/11-aa/manifests/stored".to_owned()),
    ] {
        let answer = server.ask(method.clone(), &path, token, None, b"").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
    }
    let delete = server.agent(Method::DELETE, "/v2/team/app/11-aa/manifests/stored", b"").await;
    assert_eq!(delete.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn an_upload_belongs_to_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let server = ArtifactServer::start(Store::directory(dir.path()).unwrap()).await;
    let opened = server.agent(Method::POST, "/v2/team/app/11-aa/blobs/uploads/", b"").await;
    let location = opened.headers[header::LOCATION].to_str().unwrap().to_owned();
    let elsewhere = location.replace("11-aa", "11-bb");
    assert_eq!(server.agent(Method::PATCH, &elsewhere, b"x").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.agent(Method::DELETE, &location, b"").await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.agent(Method::PATCH, &location, b"x").await.status, StatusCode::NOT_FOUND);
}

/// The kubelet replaces a token before it ends; what began with the old one goes on with the new.
#[tokio::test]
async fn an_upload_outlives_the_token_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let server = ArtifactServer::start(Store::directory(&dir.path().join("store")).unwrap()).await;
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let shelf = Shelf::Server { namespace: "windlass-system".into(), token: file.clone() };
    let job = server.job(&place("team/app/11-aa"));
    let token_is = server.token_is();
    let job = DoorJob {
        credentials: shelf.login(&job.repository).unwrap(),
        before_tags: Box::new(move |_| {
            std::fs::write(&file, "the-next-token").unwrap();
            token_is("the-next-token");
            Box::pin(async { Ok(()) })
        }),
        ..job
    };
    server.push(job, &Image::new(&[1000])).await.unwrap();
}

/// An agent that dies in the middle of an upload leaves nothing, and takes nobody's place; a server that does leaves what
/// the next one removes.
#[tokio::test]
async fn a_killed_upload_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = ArtifactServer::start(Store::directory(dir.path()).unwrap()).await;
    let pair = {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        STANDARD.encode(format!("agent:{TOKEN}"))
    };
    for _ in 0..10 {
        let opened = server.agent(Method::POST, "/v2/team/app/11-aa/blobs/uploads/", b"").await;
        assert_eq!(opened.status, StatusCode::ACCEPTED);
        let location = opened.headers[header::LOCATION].to_str().unwrap().to_owned();
        let pieces = vec![Ok(Frame::data(Bytes::from(vec![1; 9_000_000]))), Err(std::io::Error::other("killed"))];
        let body = StreamBody::new(futures::stream::iter(pieces));
        let request = Request::patch(&location).header(header::AUTHORIZATION, format!("Basic {pair}"));
        let answer = server.server.answer(request.body(body).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }
    assert_eq!(files(dir.path()), 0);
    std::fs::write(dir.path().join("uploads/0123#1"), "half a layer").unwrap();
    drop(server);
    Store::directory(dir.path()).unwrap();
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn what_is_not_kept_goes_and_what_is_needed_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = || Store::directory(dir.path()).unwrap();
    let server = ArtifactServer::start(store()).await;
    let (shared, old) = (Image::new(&[1000]), Image::new(&[2000]));
    let both = Image::with_layers(vec![shared.layers[0].clone(), old.layers[0].clone()]);
    server.store(&place("team/app/1-aa"), &both).await.unwrap();
    // Kept times are of seconds; the order of two in one second is that of their places.
    server.store(&place("team/app/2-bb"), &shared).await.unwrap();
    let orphan = Digest::of(b"orphan");
    assert_eq!(server.upload(&place("team/app/3-cc"), b"orphan", &orphan).await.status, StatusCode::CREATED);
    let one = Retention { max_count: Some(1), max_age: None };
    let there = |bytes: &[u8]| dir.path().join("blobs/sha256").join(&Digest::of(bytes).as_str()[7..]).exists();
    // Young, or relied on: nothing goes yet but what is not kept.
    let swept = sweep(&server.server, one, now()).await.unwrap();
    assert_eq!(swept, Swept { containers: 1, ..Swept::default() });
    let swept = sweep(&server.server, one, now() + 48 * HOUR).await.unwrap();
    assert_eq!(swept, Swept::default());
    // Another server: no agent relies on anything.
    let server = ArtifactServer::start(store()).await;
    let looked = server.agent(Method::HEAD, &format!("/v2/team/app/3-cc/blobs/{orphan}"), b"").await;
    assert_eq!(looked.status, StatusCode::OK);
    let swept = sweep(&server.server, one, now() + 48 * HOUR).await.unwrap();
    assert_eq!(swept, Swept { blobs: 1, ..Swept::default() });
    assert!(there(&shared.layers[0]) && there(b"orphan") && !there(&old.layers[0]));
    let aged = Retention { max_age: Some(Duration::from_secs(3600)), max_count: None };
    let swept = sweep(&ArtifactServer::start(store()).await.server, aged, now() + 48 * HOUR).await.unwrap();
    // The last container, its config and layer, and what nobody ever listed.
    assert_eq!(swept, Swept { containers: 1, blobs: 3, uploads: 0 });
    assert_eq!(files(dir.path()), 0);
}

/// One that was whole when its server died, so that it never got its name.
#[tokio::test]
async fn an_upload_that_was_left_goes_in_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let server = ArtifactServer::start(Store::directory(dir.path()).unwrap()).await;
    std::fs::write(dir.path().join(format!("uploads/{:032x}", 7)), "a layer").unwrap();
    let swept = sweep(&server.server, Retention::default(), now() + 23 * HOUR).await.unwrap();
    assert_eq!(swept, Swept::default());
    let swept = sweep(&server.server, Retention::default(), now() + 25 * HOUR).await.unwrap();
    assert_eq!(swept, Swept { uploads: 1, ..Swept::default() });
    assert_eq!(files(dir.path()), 0);
}

/// The agent hangs up while its upload is given up.
#[tokio::test]
async fn a_delete_that_is_cut_off_takes_no_place() {
    use futures::FutureExt as _;
    let dir = tempfile::tempdir().unwrap();
    let server = ArtifactServer::start(Store::directory(dir.path()).unwrap()).await;
    for _ in 0..10 {
        let opened = server.agent(Method::POST, "/v2/team/app/11-aa/blobs/uploads/", b"").await;
        assert_eq!(opened.status, StatusCode::ACCEPTED, "no place is left");
        let location = opened.headers[header::LOCATION].to_str().unwrap().to_owned();
        assert_eq!(server.agent(Method::PATCH, &location, &[1; 9_000_000]).await.status, StatusCode::ACCEPTED);
        let cut_off = server.agent(Method::DELETE, &location, b"").now_or_never();
        assert!(cut_off.is_none(), "it was done at once");
    }
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_stops_the_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let server = ArtifactServer::start(Store::directory(dir.path()).unwrap()).await;
    server.upload(&place("team/app/1-aa"), b"orphan", &Digest::of(b"orphan")).await;
    std::fs::create_dir_all(dir.path().join("runs/team/app/1-aa")).unwrap();
    std::fs::write(dir.path().join("runs/team/app/1-aa/manifest.json"), "torn").unwrap();
    let fresh = ArtifactServer::start(Store::directory(dir.path()).unwrap()).await;
    assert!(sweep(&fresh.server, Retention::default(), now() + 48 * HOUR).await.is_err());
    assert_eq!(files(&dir.path().join("blobs")), 1);
}

/// Containers are stored while sweeps run that would take all that nothing lists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_takes_nothing_from_an_upload() {
    let dir = tempfile::tempdir().unwrap();
    let server = ArtifactServer::start(Store::directory(dir.path()).unwrap()).await;
    let sweeping = tokio::spawn({
        let server = std::sync::Arc::clone(&server.server);
        async move {
            loop {
                sweep(&server, Retention::default(), now() + 48 * HOUR).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let image = Image::new(&[10_000, 5_000_000]);
    for n in 0..8 {
        let here = place(&format!("team/app/{n}-aa"));
        let pushed = server.store(&here, &image).await.unwrap();
        let manifest = server.person(&format!("/v2/{here}/manifests/{}", pushed.digest), None).await;
        for (blob, _) in windlass::registry::Image::read(&manifest.body, "").unwrap().blobs() {
            let path = format!("/v2/{here}/blobs/{blob}");
            assert_eq!(server.person(&path, Some("bytes=0-1")).await.status, StatusCode::PARTIAL_CONTENT);
        }
    }
    sweeping.abort();
}
