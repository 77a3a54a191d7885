//! An engine that pushes as Docker does: with the classic store (POST, chunked PATCH, PUT, and a look whether the blob is
//! there now) or containerd's (POST, PUT).

use super::fake::digest;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{future::join_all, stream};
use http::{Method, Request, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy, rt::TokioExecutor};
use std::io::{self, Write};

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Classic,
    Containerd,
}

/// A committed image.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) config: Bytes,
    pub(crate) layers: Vec<Bytes>,
}

pub(super) const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

impl Image {
    /// A config with what Kubernetes leaves in it, and layers of these sizes.
    pub(crate) fn new(sizes: &[usize]) -> Self {
        Self::with_layers(sizes.iter().map(|size| gzip(&noise(*size))).collect())
    }

    pub(crate) fn with_layers(layers: Vec<Bytes>) -> Self {
        let config = br#"{"config":{"Env":["KUBERNETES_SERVICE_HOST=10.0.0.1"]},"rootfs":{"type":"layers"}}"#;
        Self { config: Bytes::from_static(config), layers }
    }

    pub(super) fn manifest(&self) -> Bytes {
        let blob = |kind: &str, bytes: &Bytes| serde_json::json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let layers: Vec<_> =
            self.layers.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar+gzip", layer)).collect();
        let config = blob("application/vnd.oci.image.config.v1+json", &self.config);
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": layers});
        serde_json::to_vec(&manifest).unwrap().into()
    }
}

/// Bytes that do not compress and are never the same.
pub(super) fn noise(size: usize) -> Vec<u8> {
    let mut next = rand::random::<u64>() | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        bytes.extend_from_slice(&next.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub(super) fn gzip(bytes: &[u8]) -> Bytes {
    let mut out = GzEncoder::new(Vec::new(), Compression::none());
    out.write_all(bytes).unwrap();
    out.finish().unwrap().into()
}

/// A tar of one file.
pub(crate) fn tar(name: &str, content: &[u8]) -> Bytes {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut out = header;
    out.extend_from_slice(content);
    out.resize(out.len().div_ceil(512) * 512 + 1024, 0);
    out.into()
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The engine's side of a push.
#[derive(Clone)]
pub(crate) struct Engine {
    http: legacy::Client<legacy::connect::HttpConnector, Body>,
    pub(super) base: String,
    host: String,
    store: Store,
}

impl Engine {
    /// An engine that is told to push to a door's target.
    pub(crate) fn new(target: &str, store: Store) -> Self {
        let (host, path) = target.split_once('/').unwrap();
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { http, base: format!("/v2/{path}"), host: host.to_owned(), store }
    }

    /// Pushes an image: blobs side by side, then the manifest.
    pub(crate) async fn push(&self, image: &Image) -> Result<(), String> {
        let blobs = image.layers.iter().chain([&image.config]).map(|blob| self.blob(blob));
        join_all(blobs).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        self.manifest(image).await
    }

    pub(super) async fn manifest(&self, image: &Image) -> Result<(), String> {
        let bytes = image.manifest();
        let path = format!("{}/manifests/t", self.base);
        let (status, headers, text) = self.send(Method::PUT, &path, OCI, full(bytes.clone())).await?;
        if status != 201 {
            return Err(format!("manifest: {status} {text}"));
        }
        assert_eq!(headers["docker-content-digest"], digest(&bytes), "the engine's own digest is confirmed");
        Ok(())
    }

    /// Pushes a blob, if it is not there.
    pub(super) async fn blob(&self, bytes: &Bytes) -> Result<(), String> {
        let name = digest(bytes);
        let (status, headers, _) =
            self.send(Method::HEAD, &format!("{}/blobs/{name}", self.base), "", full(Bytes::new())).await?;
        match status {
            200 => {
                assert_eq!(headers[header::CONTENT_LENGTH], bytes.len().to_string());
                return Ok(());
            }
            404 => {}
            _ => return Err(format!("look: {status}")),
        }
        let open = match self.store {
            Store::Classic => format!("{}/blobs/uploads/", self.base),
            Store::Containerd => format!("{}/blobs/uploads/?mount={name}&from=other%2Fapp", self.base),
        };
        let (status, headers, text) = self.send(Method::POST, &open, "", full(Bytes::new())).await?;
        if status != 202 {
            return Err(format!("open: {status} {text}"));
        }
        let mut location = headers[header::LOCATION].to_str().unwrap().to_owned();
        let mut last = full(bytes.clone());
        if self.store == Store::Classic {
            let (status, headers, text) =
                self.send(Method::PATCH, &location, "application/octet-stream", chunked(bytes)).await?;
            if status != 202 {
                return Err(format!("part: {status} {text}"));
            }
            headers[header::LOCATION].to_str().unwrap().clone_into(&mut location);
            last = full(Bytes::new());
        }
        let close = format!("{location}?digest={}", name.replace(':', "%3A"));
        let (status, headers, text) = self.send(Method::PUT, &close, "application/octet-stream", last).await?;
        if status != 201 {
            return Err(format!("close: {status} {text}"));
        }
        assert_eq!(headers["docker-content-digest"], name);
        if self.store == Store::Classic {
            let path = format!("{}/blobs/{name}", self.base);
            let (status, headers, _) = self.send(Method::HEAD, &path, "", full(Bytes::new())).await?;
            if status != 200 {
                return Err("unknown blob".into());
            }
            assert_eq!(headers[header::CONTENT_LENGTH], bytes.len().to_string());
        }
        Ok(())
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Body,
    ) -> Result<(u16, http::HeaderMap, String), String> {
        let uri = format!("http://{}{path}", self.host);
        let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, kind).body(body).unwrap();
        let response = self.http.request(request).await.map_err(|error| format!("broken: {error:?}"))?;
        let (head, body) = response.into_parts();
        let text = body.collect().await.map_err(|error| format!("broken: {error:?}"))?.to_bytes();
        Ok((head.status.as_u16(), head.headers, String::from_utf8_lossy(&text).into_owned()))
    }
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body whose length is not announced.
fn chunked(bytes: &Bytes) -> Body {
    let pieces: Vec<_> = bytes.chunks(32 * 1024).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    StreamBody::new(stream::iter(pieces)).boxed_unsync()
}
