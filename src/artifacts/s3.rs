//! The bucket of an S3 server, spoken to over our own HTTP client.
//!
//! `object_store` does the requests and signs them; its default transport would bring a second HTTP client and a second
//! TLS library.
//!
//! **Invariant:** no value of a login is in an error or a log; plain HTTP only where the administrator asks for it.

use crate::registry::Secret;
use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector as Tcp},
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    ClientOptions,
    aws::{AmazonS3, AmazonS3Builder},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use std::{fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

/// Until a connection is there.
const CONNECT: Duration = Duration::from_secs(10);
/// Until the head of an answer is there; a part of 8 MiB has to be sent before, and S3 may copy 5 GiB.
const ANSWER: Duration = Duration::from_secs(300);

/// Where the bucket is. Without `Debug`, as it may hold a login.
#[derive(Clone, Default)]
pub struct S3 {
    /// Name of the bucket.
    pub bucket: String,
    /// `https://host[:port]`; AWS if not set.
    pub endpoint: Option<String>,
    /// Region.
    pub region: String,
    /// What stands before the names of all objects.
    pub prefix: String,
    /// The bucket is a part of the host's name, as AWS has it.
    pub virtual_host: bool,
    /// The endpoint may be plain HTTP.
    pub insecure: bool,
    /// Certificate authorities of the endpoint, in PEM, instead of the public ones.
    pub ca: Option<PathBuf>,
    /// Access key and secret key; else the login comes from the environment: keys, or what a cloud puts there for a
    /// service account.
    pub keys: Option<(String, Secret<String>)>,
}

/// The bucket.
pub(super) fn bucket(settings: &S3) -> anyhow::Result<AmazonS3> {
    let connector = Connector { tls: tls(settings)? };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_allow_http(settings.insecure)
        .with_virtual_hosted_style_request(settings.virtual_host)
        .with_http_connector(connector);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some((access, secret)) = &settings.keys {
        builder = builder.with_access_key_id(access).with_secret_access_key(secret.expose());
    }
    builder.build().context("read the settings of S3")
}

fn tls(settings: &S3) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = &settings.ca {
        let pem = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        roots = rustls::RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
            roots.add(certificate.with_context(|| format!("read {}", file.display()))?).context("read the CA of S3")?;
        }
        anyhow::ensure!(!roots.is_empty(), "{} holds no certificate in PEM", file.display());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[derive(Clone)]
struct Connector {
    tls: rustls::ClientConfig,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = Tcp::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        // Whether plain HTTP may be is `object_store`'s to judge, by `with_allow_http`.
        let tls = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone());
        let https = tls.https_or_http().enable_http1().wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(https);
        Ok(HttpClient::new(Transport(http)))
    }
}

struct Transport(legacy::Client<HttpsConnector<Tcp>, HttpRequestBody>);

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

type Answered<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Transport {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answered<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let answer = tokio::time::timeout(ANSWER, self.0.request(request)).await;
            let answer = answer.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?;
            let answer = answer.map_err(|error| HttpError::new(kind(&error), error))?;
            let broke = |error: hyper::Error| HttpError::new(HttpErrorKind::Interrupted, error);
            Ok(answer
                .map(|body| HttpResponseBody::new(body.map_err(broke).map_frame(|frame| frame.map_data(Bytes::from)))))
        })
    }
}

fn kind(error: &legacy::Error) -> HttpErrorKind {
    if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request }
}
