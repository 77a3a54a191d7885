//! Answers the engine's requests, as a registry would.
//!
//! **Invariant:** nothing is answered without the door's own prefix, but for the version check; what the engine sends is bounded.

use super::{
    HOLD, Push,
    blobs::Origin,
    publish,
    upload::{Source, Upload},
};
use crate::{
    api::condition::reason,
    registry::{digest::Digest, error::PushError, session::MAX_MANIFEST},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

type Reply = Response<Full<Bytes>>;

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Version,
    Blob(Digest),
    OpenUpload,
    Upload(&'a str),
    Manifest,
    Nothing,
}

fn route<'a>(path: &'a str, prefix: &str) -> Route<'a> {
    if matches!(path, "/v2/" | "/v2") {
        return Route::Version;
    }
    let Some(rest) = path.strip_prefix(prefix) else { return Route::Nothing };
    if let Some(upload) = rest.strip_prefix("blobs/uploads") {
        return match upload.strip_prefix('/').unwrap_or_default() {
            "" => Route::OpenUpload,
            id => Route::Upload(id),
        };
    }
    if let Some(digest) = rest.strip_prefix("blobs/") {
        return Digest::in_path(digest).map_or(Route::Nothing, Route::Blob);
    }
    if rest.starts_with("manifests/") { Route::Manifest } else { Route::Nothing }
}

/// Answers a request.
pub(super) async fn answer(push: Arc<Push>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let route = route(&path, &push.prefix);
    tracing::trace!(%method, ?route, "the engine asks");
    if route == Route::Version {
        return reply(StatusCode::OK);
    }
    if route == Route::Nothing {
        return reply(StatusCode::NOT_FOUND);
    }
    let failure = push.state().failure.clone();
    if let Some(failure) = failure {
        return failed(&failure);
    }
    let answered = match (method, route) {
        (Method::HEAD, Route::Blob(digest)) => head_blob(&push, &digest).await,
        (Method::POST, Route::OpenUpload) => open_upload(&push, request).await,
        (Method::PATCH, Route::Upload(id)) => patch(&push, id, request).await,
        (Method::PUT, Route::Upload(id)) => put(&push, id, request).await,
        (Method::GET, Route::Upload(id)) => Ok(upload_status(&push, id)),
        (Method::DELETE, Route::Upload(id)) => {
            push.state().blobs.take(id);
            Ok(reply(StatusCode::NO_CONTENT))
        }
        (Method::PUT, Route::Manifest) => put_manifest(&push, request).await,
        // The engine has nothing to read here: each push is new.
        (Method::HEAD | Method::GET, _) => Ok(reply(StatusCode::NOT_FOUND)),
        _ => Ok(reply(StatusCode::METHOD_NOT_ALLOWED)),
    };
    answered.unwrap_or_else(|error| failed(&push.failed(error)))
}

/// Whether the engine may leave a blob out. A small one it always sends, as it may be the config, which is needed here.
/// Engines with the classic image store look for each blob once more when they have sent it.
async fn head_blob(push: &Push, digest: &Digest) -> Result<Reply, PushError> {
    let given = push.state().blobs.given(digest);
    if let Some(size) = given {
        return Ok(found(digest, size));
    }
    let mut there = push.session.head_blob(digest).await?;
    if there.is_none()
        && let Some(source) = &push.mount_from
        && push.session.mount(digest, source).await?
    {
        there = push.session.head_blob(digest).await?;
    }
    let Some(size) = there else {
        push.state().blobs.note_absent(digest.clone());
        return Ok(reply(StatusCode::NOT_FOUND));
    };
    let large = size.filter(|size| *size > HOLD as u64);
    push.state().blobs.note(digest.clone(), Origin::There, large.is_some());
    push.show();
    Ok(large.map_or_else(|| reply(StatusCode::NOT_FOUND), |size| found(digest, size)))
}

fn found(digest: &Digest, size: u64) -> Reply {
    let mut reply = reply(StatusCode::OK);
    reply.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    reply.headers_mut().insert("docker-content-digest", text(digest.as_str()));
    reply
}

/// Opens an upload. The engine may ask to mount from another of its repositories; those are not the registry's.
async fn open_upload(push: &Push, request: Request<Incoming>) -> Result<Reply, PushError> {
    let waited = timeout(super::ENGINE_IDLE, push.uploads.clone().acquire_owned()).await;
    let Ok(Ok(permit)) = waited else {
        return Err(PushError::transient(reason::COMMIT_FAILED, "the engine leaves uploads open"));
    };
    let id = format!("{:032x}", rand::random::<u128>());
    let digest = Digest::in_query(request.uri().query());
    let mut upload = Upload::new(permit);
    if let Some(digest) = digest {
        // Everything in one request.
        upload.expect(push, &digest);
        return last(push, upload, &digest, request.into_body()).await;
    }
    if !push.state().blobs.open(id.clone(), upload) {
        return Err(PushError::transient(reason::COMMIT_FAILED, "the engine opens too many uploads"));
    }
    Ok(accepted(push, &id, 0))
}

async fn patch(push: &Push, id: &str, request: Request<Incoming>) -> Result<Reply, PushError> {
    let taken = push.state().blobs.take(id);
    let Some(upload) = taken else { return Ok(reply(StatusCode::NOT_FOUND)) };
    let upload = receive(push, upload, request.into_body()).await?;
    let received = upload.received;
    push.state().blobs.open(id.to_owned(), upload);
    Ok(accepted(push, id, received))
}

async fn put(push: &Push, id: &str, request: Request<Incoming>) -> Result<Reply, PushError> {
    let Some(digest) = Digest::in_query(request.uri().query()) else { return Ok(reply(StatusCode::BAD_REQUEST)) };
    let taken = push.state().blobs.take(id);
    let Some(mut upload) = taken else { return Ok(reply(StatusCode::NOT_FOUND)) };
    upload.expect(push, &digest);
    last(push, upload, &digest, request.into_body()).await
}

/// Takes the last body of a blob in, which is whole then.
async fn last(push: &Push, upload: Upload, digest: &Digest, body: Incoming) -> Result<Reply, PushError> {
    let upload = receive(push, upload, body).await?;
    let size = upload.received;
    upload.finish(push, Some(digest)).await?;
    push.state().blobs.note_given(digest.clone(), size);
    Ok(created(push, digest))
}

/// Takes a body in, showing that it is on its way. What came of one that fails does not stay with the registry.
async fn receive(push: &Push, mut upload: Upload, body: Incoming) -> Result<Upload, PushError> {
    if let Some(length) = body.length().filter(|length| *length > 0) {
        push.progress.send_modify(|progress| *progress.bytes_total.get_or_insert(0) += length);
    }
    let _working = Working::begin(push);
    match upload.receive(push, body).await {
        Ok(()) => Ok(upload),
        Err(error) => {
            upload.abandon(push).await;
            Err(error)
        }
    }
}

/// Counts an upload for as long as a request works on it, however that ends.
struct Working<'a>(&'a Push);

impl<'a> Working<'a> {
    fn begin(push: &'a Push) -> Self {
        push.state().blobs.work(true);
        push.show();
        Self(push)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.state().blobs.work(false);
        self.0.show();
    }
}

fn upload_status(push: &Push, id: &str) -> Reply {
    let mut state = push.state();
    let Some(upload) = state.blobs.take(id) else { return reply(StatusCode::NOT_FOUND) };
    let received = upload.received;
    state.blobs.open(id.to_owned(), upload);
    drop(state);
    let mut reply = accepted(push, id, received);
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

/// The image is whole: it is published. That goes on if the engine leaves.
async fn put_manifest(push: &Arc<Push>, request: Request<Incoming>) -> Result<Reply, PushError> {
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let body = Limited::new(request.into_body(), MAX_MANIFEST);
    let read = timeout(Duration::from_secs(60), body.collect()).await;
    let Ok(Ok(body)) = read else {
        return Err(PushError::transient(reason::COMMIT_FAILED, "the engine's manifest is too large or broke off"));
    };
    let bytes = body.to_bytes();
    let digest = Digest::of(&bytes);
    let task = {
        let push = push.clone();
        // The lock is taken before the task is on its own, so that closing the door waits for it.
        let mut outcome = push.outcome.clone().lock_owned().await;
        tokio::spawn(async move {
            if outcome.is_none() {
                let published = publish::publish(&push, &bytes, &kind).await;
                *outcome = Some(published);
            }
            outcome.clone()
        })
    };
    match task.await {
        Ok(Some(Ok(_))) => Ok(created(push, &digest)),
        Ok(Some(Err(error))) => Ok(failed(&error)),
        Ok(None) | Err(_) => Ok(reply(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

fn reply(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    reply
}

fn accepted(push: &Push, id: &str, received: u64) -> Reply {
    let mut reply = reply(StatusCode::ACCEPTED);
    let headers = reply.headers_mut();
    headers.insert(header::LOCATION, text(&format!("{}blobs/uploads/{id}", push.prefix)));
    headers.insert(header::RANGE, text(&format!("0-{}", received.saturating_sub(1))));
    headers.insert("docker-upload-uuid", text(id));
    reply
}

fn created(push: &Push, digest: &Digest) -> Reply {
    let mut reply = reply(StatusCode::CREATED);
    reply.headers_mut().insert(header::LOCATION, text(&format!("{}blobs/{digest}", push.prefix)));
    reply.headers_mut().insert("docker-content-digest", text(digest.as_str()));
    reply
}

/// What the engine is told of an error. It repeats what may pass, and gives up on the rest.
fn failed(error: &PushError) -> Reply {
    let (status, code) = if error.transient {
        (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")
    } else {
        (StatusCode::FORBIDDEN, "DENIED")
    };
    let body = serde_json::json!({"errors": [{"code": code, "message": error.message}]});
    let mut reply = reply(status).map(|_| Full::from(body.to_string()));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let digest = Digest::of(b"");
        let prefix = "/v2/nonce/x/";
        for (path, expected) in [
            ("/v2/", Route::Version),
            ("/v2", Route::Version),
            (&format!("/v2/nonce/x/blobs/{digest}"), Route::Blob(digest.clone())),
            (&format!("/v2/nonce/x/blobs/{}", digest.as_str().replace(':', "%3A")), Route::Blob(digest.clone())),
            ("/v2/nonce/x/blobs/uploads/", Route::OpenUpload),
            ("/v2/nonce/x/blobs/uploads/ab", Route::Upload("ab")),
            ("/v2/nonce/x/manifests/t", Route::Manifest),
            ("/v2/nonce/x/tags/list", Route::Nothing),
            ("/v2/nonce/x/blobs/latest", Route::Nothing),
            (&format!("/v2/other/x/blobs/{digest}"), Route::Nothing),
            ("/v2/other/x/blobs/uploads/", Route::Nothing),
            ("/", Route::Nothing),
        ] {
            assert_eq!(route(path, prefix), expected, "{path}");
        }
    }
}
