//! A registry on 127.0.0.1 that keeps what is pushed to it and speaks just what an engine asks.

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, Response, StatusCode},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

#[derive(Default)]
struct Store {
    blobs: HashMap<String, Vec<u8>>,
    uploads: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    authorizations: Vec<String>,
    refusal: Option<String>,
}

/// A running registry; it ends with the test's runtime.
pub(super) struct Registry {
    pub(super) port: u16,
    store: Arc<Mutex<Store>>,
}

impl Registry {
    pub(super) async fn start() -> Self {
        Self::with(Store::default()).await
    }

    /// One that refuses every manifest with these words.
    pub(super) async fn refusing(message: &str) -> Self {
        Self::with(Store { refusal: Some(message.to_owned()), ..Default::default() }).await
    }

    async fn with(store: Store) -> Self {
        let store = Arc::new(Mutex::new(store));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(serve).with_state(Arc::clone(&store));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, store }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    pub(super) fn authorizations(&self) -> Vec<String> {
        self.store().authorizations.clone()
    }

    /// The config of an image.
    pub(super) fn config(&self, repository: &str, tag: &str) -> Value {
        let store = self.store();
        let manifest: Value = serde_json::from_slice(&store.manifests[&format!("{repository}:{tag}")]).unwrap();
        serde_json::from_slice(&store.blobs[manifest["config"]["digest"].as_str().unwrap()]).unwrap()
    }
}

async fn serve(State(store): State<Arc<Mutex<Store>>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap().to_vec();
    let mut store = store.lock().unwrap();
    if let Some(value) = parts.headers.get("authorization") {
        store.authorizations.push(value.to_str().unwrap_or_default().to_owned());
    }
    let path = parts.uri.path().trim_start_matches("/v2/").to_owned();
    let answer = Response::builder();
    let answer = if let Some((repository, id)) = path.split_once("/blobs/uploads/") {
        let location = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}");
        match parts.method {
            Method::POST => {
                let id = format!("u{}", store.uploads.len());
                store.uploads.insert(id.clone(), body);
                answer.status(StatusCode::ACCEPTED).header("location", location(&id)).header("range", "0-0")
            }
            Method::PATCH => {
                let upload = store.uploads.entry(id.to_owned()).or_default();
                upload.extend(body);
                let range = format!("0-{}", upload.len().saturating_sub(1));
                answer.status(StatusCode::ACCEPTED).header("location", location(id)).header("range", range)
            }
            _ => {
                let mut blob = store.uploads.get(id).cloned().unwrap_or_default();
                blob.extend(body);
                let digest = digest(&blob);
                store.blobs.insert(digest.clone(), blob);
                answer.status(StatusCode::CREATED).header("docker-content-digest", digest)
            }
        }
    } else if let Some((_, digest)) = path.split_once("/blobs/") {
        match store.blobs.get(digest) {
            Some(blob) => answer.status(StatusCode::OK).header("content-length", blob.len()),
            None => answer.status(StatusCode::NOT_FOUND),
        }
    } else if let Some((repository, reference)) = path.split_once("/manifests/") {
        match (&parts.method, store.refusal.clone()) {
            (&Method::PUT, Some(message)) => {
                let error = serde_json::json!({"errors": [{"code": "DENIED", "message": message}]});
                return answer.status(StatusCode::FORBIDDEN).body(Body::from(error.to_string())).unwrap();
            }
            (&Method::PUT, None) => {
                let digest = digest(&body);
                store.manifests.insert(format!("{repository}:{reference}"), body);
                answer.status(StatusCode::CREATED).header("docker-content-digest", digest)
            }
            _ => answer.status(StatusCode::NOT_FOUND),
        }
    } else {
        answer.status(StatusCode::OK)
    };
    answer.body(Body::empty()).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
